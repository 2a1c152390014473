#include "bilevel/lower_level/internal/inverse_hessian.h"

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/internal/rounding.h"

namespace bilevel {
namespace {

// Of a free direction's squared length, in the scaling of H to a unit diagonal: what lies outside
// of one block is rounding.
constexpr double kRoundingOutside = 1e-6;
// What is smaller in such a direction, so scaled, beside its largest coordinate, is rounding too.
constexpr double kRoundingInside = 1e-13;
// A variance has this relative error at most.
constexpr double kMostCancelled = 1e-6;

// So many rows of an orthonormal basis, far from dependent, by Gram and Schmidt with pivots.
std::vector<int> IndependentRows(Matrix basis) {
  std::vector<int> chosen;
  Vector direction;
  for (int k = 0; k < basis.cols(); ++k) {
    int row = 0;
    direction = basis.rowwise().squaredNorm();
    direction.maxCoeff(&row);
    chosen.push_back(row);
    direction = basis.row(row).normalized();
    basis -= (basis * direction).eval() * direction.transpose();
  }
  return chosen;
}

}  // namespace

InverseHessian::InverseHessian(HessianSystem* system, const Space* y) : system_(*system), y_(*y) {}

bool InverseHessian::Prepare() {
  if (!system_.is_singular()) {
    selected_ = std::make_unique<SelectedInverse>(system_.factorization());
    return true;
  }
  if (system_.handling() == SingularHandling::kDampingWithRefinement) {
    message_ =
        "the lower level's Hessian is singular, and kDampingWithRefinement does not look for the "
        "directions that are free: choose SingularHandling::kMinimumNorm";
    return false;
  }
  FindUndetermined();
  if (system_.num_weak_directions() == 0 && system_.null_space().cols() > 0) Anchor();
  return true;
}

void InverseHessian::FindUndetermined() {
  if (system_.handling() == SingularHandling::kMinimumNorm) return;
  const Matrix scaled = system_.factorization().scale().asDiagonal() * system_.null_space();
  const Matrix basis = HouseholderQ(scaled, scaled.cols());
  for (size_t i = 0; i < y_.blocks().size(); ++i) {
    const Space::Block& block = y_.blocks()[i];
    const auto own = basis.middleRows(block.tangent_offset, block.tangent_size);
    if (own.squaredNorm() < 1.0 - kRoundingOutside) continue;
    const SymmetricEigen eigen(own.transpose() * own);
    if (eigen.eigenvalues().tail(1)[0] < 1.0 - kRoundingOutside) continue;
    undetermined_.insert(static_cast<int>(i));
  }
}

// Holds as many coordinates as directions are free.
void InverseHessian::Anchor() {
  const Vector& scale = system_.factorization().scale();
  const Matrix scaled = scale.asDiagonal() * system_.null_space();
  const std::vector<int> rows = IndependentRows(HouseholderQ(scaled, scaled.cols()));
  if (!SetNullSpace(scaled, rows)) return;
  std::vector<char> held = system_.fixed();
  held.resize(scaled.rows(), 0);
  for (const int i : rows) held[i] = 1;
  anchored_ = std::make_unique<Factorization>(system_.lower(), &y_);
  if (anchored_->Factorize(system_.lower(), 0.0, &held) !=
      Factorization::Status::kPositiveDefinite) {
    return;
  }
  anchored_->Solve(null_, &g_null_);
  null_g_null_ = null_.transpose() * g_null_;
  selected_ = std::make_unique<SelectedInverse>(*anchored_);
}

// A basis whose vectors have each one of the rows for itself: where free directions do not share
// coordinates, nor do these, and the variances of one, which may be 1e16 times those of another,
// leave nothing in them.
bool InverseHessian::SetNullSpace(const Matrix& scaled, const std::vector<int>& rows) {
  null_ = SolveSquare(scaled(rows, Eigen::all).transpose(), scaled.transpose()).transpose();
  for (int j = 0; j < null_.cols(); ++j) {
    const double least = kRoundingInside * null_.col(j).lpNorm<Eigen::Infinity>();
    null_.col(j) = (null_.col(j).array().abs() < least).select(0.0, null_.col(j));
  }
  null_ = system_.factorization().scale().cwiseInverse().asDiagonal() * null_;
  null_.colwise().normalize();
  // Orthonormal, by Cholesky: zeros stay zeros.
  Matrix l;
  if (!Cholesky(null_.transpose() * null_, &l)) return false;
  null_ = SolveSquare(l, null_.transpose()).transpose();
  return true;
}

// The columns of one block.
bool InverseHessian::Solve(int block) {
  if (block == solved_) return true;
  solved_ = -1;
  const Space::Block& own = y_.blocks()[block];
  const Matrix& null = system_.null_space();
  unit_.setZero(y_.tangent_size(), own.tangent_size);
  unit_.middleRows(own.tangent_offset, own.tangent_size).setIdentity();
  if (null.cols() > 0) {
    unit_ -= null * null.middleRows(own.tangent_offset, own.tangent_size).transpose();
  }
  if (!system_.Solve(unit_, &columns_)) {
    message_ = system_.message();
    return false;
  }
  solved_ = block;
  return true;
}

bool InverseHessian::GetBlock(int row_block, int column_block, Matrix* block) {
  const Space::Block &rows = y_.blocks()[row_block], &columns = y_.blocks()[column_block];
  for (const int asked : {row_block, column_block}) {
    if (undetermined_.count(asked) == 0) continue;
    message_ =
        y_.blocks()[asked].name +
        " is not determined: a direction that is free moves it alone, so that its covariance "
        "is infinite; hold it, measure it, or ask for the pseudo-inverse by "
        "SingularHandling::kMinimumNorm";
    return false;
  }
  if (selected_ && selected_->GetBlock(rows.tangent_offset,
                                       rows.tangent_size,
                                       columns.tangent_offset,
                                       columns.tangent_size,
                                       block)) {
    if (!anchored_) return true;
    const auto of_rows = [&](const Matrix& m) {
      return m.middleRows(rows.tangent_offset, rows.tangent_size);
    };
    const auto of_columns = [&](const Matrix& m) {
      return m.middleRows(columns.tangent_offset, columns.tangent_size).transpose();
    };
    const Matrix once = of_rows(null_) * of_columns(g_null_) + of_rows(g_null_) * of_columns(null_);
    const Matrix twice = of_rows(null_) * null_g_null_ * of_columns(null_);
    const Vector largest = block->diagonal() + once.diagonal().cwiseAbs() + twice.diagonal();
    *block += twice - once;
    if (row_block != column_block ||
        (kEpsilon * largest.array() <= kMostCancelled * block->diagonal().array()).all()) {
      return true;
    }
    message_ = rows.name +
               " has a variance that is lost in the rounding of others: free directions differ "
               "too much in their weights";
    return false;
  }
  // The one of the two that is asked for again and again, where that is to be seen.
  const bool by_rows =
      row_block == solved_ || (column_block != solved_ && column_block != last_column_);
  last_column_ = column_block;
  if (!Solve(by_rows ? row_block : column_block)) return false;
  if (by_rows) {
    *block = columns_.middleRows(columns.tangent_offset, columns.tangent_size).transpose();
  } else {
    *block = columns_.middleRows(rows.tangent_offset, rows.tangent_size);
  }
  return true;
}

}  // namespace bilevel
