#include "bilevel/oracle/uncertainty.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/internal/text.h"

namespace bilevel {
namespace {

// Eigenvalues of the second derivative, scaled to a unit diagonal, below this share of the largest
// are rounding: of a product of Jacobians, and of differences, of which so many errors are noise.
constexpr double kFlat = 1e-12, kErrors = 100.0;
// A combination with less than this share along a flat direction does not see it.
constexpr double kUnseen = 1e-6;

// A covariance whose finite part is given, infinite where flat directions reach.
Matrix AddInfinite(Matrix finite, const Matrix& reach) {
  for (int j = 0; j < reach.cols(); ++j) {
    for (int i = 0; i < reach.rows(); ++i) {
      if (std::abs(reach(i, j)) <= kUnseen * kUnseen) continue;
      finite(i, j) = reach(i, j) > 0.0 ? kInfinity : -kInfinity;
    }
  }
  return finite;
}

}  // namespace

std::string NameDirection(const Space& space, const Vector& direction) {
  std::string text;
  for (int i = 0; i < direction.size(); ++i) {
    if (std::abs(direction[i]) < 1e-3) continue;
    const Space::Block& block = space.BlockOf(i);
    char term[160];
    std::snprintf(term,
                  sizeof(term),
                  "%s%.2f %s[%d]",
                  text.empty() ? (direction[i] < 0 ? "-" : "") : (direction[i] < 0 ? " - " : " + "),
                  std::abs(direction[i]),
                  block.name.c_str(),
                  i - block.tangent_offset);
    text += term;
  }
  return text;
}

bool Uncertainty::Fail(const std::string& what) {
  available_ = false;
  message_ = what;
  return false;
}

bool Uncertainty::Compute(const Point& x,
                          const Matrix& second_derivative,
                          const Vector& gradient,
                          HessianKind kind,
                          double squared_residuals,
                          int num_residuals,
                          double relative_error) {
  *this = Uncertainty();
  kind_ = kind;
  if (!second_derivative.allFinite()) return Fail("the second derivative of f is not finite");
  if (!AddBlocks(x)) return false;
  const std::vector<int> free = HoldAtBounds(x, gradient);
  if (!Invert(x.space(), second_derivative, relative_error, free)) return false;
  const int rank = static_cast<int>(free.size() - flat_.cols());
  double variance = 1.0;
  if (num_residuals >= 0) {
    degrees_of_freedom_ = std::max(0, num_residuals - rank);
    variance = degrees_of_freedom_ > 0 ? squared_residuals / degrees_of_freedom_ : kNaN;
  }
  available_ = true;
  message_.clear();
  SetNoiseVariance(variance);
  return true;
}

void Uncertainty::UseScores(const Matrix& scores) {
  const int count = static_cast<int>(scores.cols());
  const Matrix half = unit_ * scores;
  unit_ = count / (count - 1.0) * (half * half.transpose());
  degrees_of_freedom_ = count - 1;
  is_sandwich_ = true;
  SetNoiseVariance(1.0);
}

bool Uncertainty::AddBlocks(const Point& x) {
  for (const Space::Block& b : x.space().blocks()) {
    Block block{b.user, b.size, b.tangent_size, b.tangent_offset, {}};
    if (b.manifold) {
      Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> plus(b.size,
                                                                                  b.tangent_size);
      if (!b.manifold->PlusJacobian(x.value().data() + b.offset, plus.data())) {
        return Fail("the manifold of " + b.name + " could not be differentiated");
      }
      block.plus = plus;
    }
    for (int i = 0; i < b.tangent_size; ++i) {
      names_.push_back(b.name + "[" + std::to_string(i) + "]");
      values_.push_back(b.manifold ? kNaN : x.value()[b.offset + i]);
    }
    blocks_.push_back(std::move(block));
  }
  return true;
}

// Returns the coordinates that are not at an active bound.
std::vector<int> Uncertainty::HoldAtBounds(const Point& x, const Vector& gradient) {
  std::vector<int> free;
  const int m = x.dim();
  held_.assign(m, 0);
  for (int i = 0; i < m; ++i) {
    held_[i] = x.space().IsHeld(x.value().data(), i, gradient[i]);
    if (held_[i]) {
      held_coordinates_.push_back(names_[i]);
    } else {
      free.push_back(i);
    }
  }
  return free;
}

// The pseudo-inverse of the second derivative A over the free coordinates, and what is flat.
bool Uncertainty::Invert(const Space& space,
                         const Matrix& second_derivative,
                         double relative_error,
                         const std::vector<int>& free) {
  const int m = space.tangent_size(), n = static_cast<int>(free.size());
  unit_ = Matrix::Zero(m, m);
  flat_ = Matrix::Zero(m, 0);
  if (n == 0) return true;
  // A = D S D; units do not decide what is flat.
  Matrix s = second_derivative(free, free);
  Vector d(n);
  for (int i = 0; i < n; ++i) d[i] = s(i, i) > 0.0 ? std::sqrt(s(i, i)) : 1.0;
  s.array().colwise() /= d.array();
  s.array().rowwise() /= d.transpose().array();
  const SymmetricEigen eigen(s);
  const Vector& values = eigen.eigenvalues();
  const double largest = values.cwiseAbs().maxCoeff();
  const double cut = std::max(kFlat, kErrors * relative_error) * largest;
  if (values[0] < -cut) {
    Vector direction = Vector::Zero(m);
    direction(free) = eigen.eigenvectors().col(0).cwiseQuotient(d);
    return Fail("x is no minimum: phi curves downwards along " +
                NameDirection(space, direction.normalized()));
  }
  std::vector<int> flat;
  Matrix own = Matrix::Zero(n, n);
  for (int i = 0; i < n; ++i) {
    if (values[i] <= cut) {
      flat.push_back(i);
      continue;
    }
    const Vector u = eigen.eigenvectors().col(i).cwiseQuotient(d);
    own += u * u.transpose() / values[i];
  }
  unit_(free, free) = own;
  if (flat.empty()) return true;
  const Matrix basis = d.cwiseInverse().asDiagonal() * eigen.eigenvectors()(Eigen::all, flat);
  AddFlatDirections(space, free, basis);
  return true;
}

void Uncertainty::AddFlatDirections(const Space& space,
                                    const std::vector<int>& free,
                                    const Matrix& basis) {
  const Matrix q = HouseholderQ(basis, basis.cols());
  flat_ = Matrix::Zero(space.tangent_size(), q.cols());
  flat_(free, Eigen::all) = q;
  for (int k = 0; k < q.cols(); ++k) {
    Eigen::Index lead;
    q.col(k).cwiseAbs().maxCoeff(&lead);
    const double sign = q(lead, k) < 0.0 ? -1.0 : 1.0;
    flat_directions_.push_back(NameDirection(space, sign * flat_.col(k)));
  }
}

void Uncertainty::SetNoiseVariance(double variance) {
  noise_variance_ = variance;
  covariance_ = AddInfinite(variance * unit_, flat_ * flat_.transpose());
}

const Uncertainty::Block* Uncertainty::Find(const double* user) const {
  if (!available_) return nullptr;
  const auto at = std::find_if(
      blocks_.begin(), blocks_.end(), [&](const Block& block) { return block.user == user; });
  return at == blocks_.end() ? nullptr : &*at;
}

bool Uncertainty::GetCovarianceBlockInTangentSpace(const double* block1,
                                                   const double* block2,
                                                   double* covariance) const {
  const Block *a = Find(block1), *b = Find(block2);
  if (!a || !b) return false;
  Eigen::Map<Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
      covariance, a->tangent_size, b->tangent_size) =
      covariance_.block(a->tangent_offset, b->tangent_offset, a->tangent_size, b->tangent_size);
  return true;
}

bool Uncertainty::GetCovarianceBlock(const double* block1,
                                     const double* block2,
                                     double* covariance) const {
  const Block *a = Find(block1), *b = Find(block2);
  if (!a || !b) return false;
  const auto lift = [](const Block& block, const Matrix& rows) -> Matrix {
    return block.plus.size() > 0 ? Matrix(block.plus * rows) : rows;
  };
  Matrix own = unit_.block(a->tangent_offset, b->tangent_offset, a->tangent_size, b->tangent_size);
  own = noise_variance_ * lift(*b, lift(*a, own).transpose()).transpose();
  const Matrix flat_a = lift(*a, flat_.middleRows(a->tangent_offset, a->tangent_size));
  const Matrix flat_b = lift(*b, flat_.middleRows(b->tangent_offset, b->tangent_size));
  own = AddInfinite(own, flat_a * flat_b.transpose());
  Eigen::Map<Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
      covariance, a->size, b->size) = own;
  return true;
}

Vector Uncertainty::standard_errors() const { return covariance_.diagonal().cwiseSqrt(); }

bool Uncertainty::GetStandardErrors(const double* block, double* errors) const {
  const Block* a = Find(block);
  if (!a) return false;
  Eigen::Map<Vector>(errors, a->tangent_size) =
      covariance_.diagonal().segment(a->tangent_offset, a->tangent_size).cwiseSqrt();
  return true;
}

bool Uncertainty::GetStandardError(
    const std::vector<std::pair<const double*, const double*>>& combination, double* error) const {
  Vector a = Vector::Zero(unit_.rows());
  for (const auto& [user, coefficients] : combination) {
    const Block* block = Find(user);
    if (!block) return false;
    a.segment(block->tangent_offset, block->tangent_size) +=
        Eigen::Map<const Vector>(coefficients, block->tangent_size);
  }
  *error = (flat_.transpose() * a).norm() > kUnseen * a.norm()
               ? kInfinity
               : std::sqrt(noise_variance_ * std::max(0.0, a.dot(unit_ * a)));
  return true;
}

std::vector<std::pair<std::string, std::string>> Uncertainty::Rows(int most) const {
  std::vector<std::pair<std::string, std::string>> rows;
  if (!available_) return rows;
  std::string what =
      kind_ == HessianKind::kExact ? "s^2 (d^2 phi/dx^2)^-1" : "s^2 (J'J)^-1, Gauss-Newton";
  if (is_sandwich_) {
    what = "the sandwich of " + std::to_string(degrees_of_freedom_ + 1) + " recordings";
  } else if (degrees_of_freedom_ == 0) {
    what += "; s is not known: no more residuals than parameters";
  } else {
    what += Format("; s = %.3e", std::sqrt(noise_variance_));
    if (degrees_of_freedom_ > 0) {
      what += ", " + std::to_string(degrees_of_freedom_) + " degrees of freedom";
    }
  }
  rows.emplace_back("Uncertainty of x", what);
  const Vector errors = standard_errors();
  for (int i = 0; i < errors.size() && i < most; ++i) {
    std::string text = std::isnan(values_[i]) ? "" : Format("%.6g ", values_[i]);
    if (held_[i]) {
      text += "at its bound";
    } else if (std::isinf(errors[i])) {
      text += "+- infinity";
    } else if (std::isnan(errors[i])) {
      text += "+- unknown";
    } else {
      text += Format("+- %.2g", errors[i]);
    }
    rows.emplace_back("  " + names_[i], text);
  }
  if (errors.size() > most) {
    rows.emplace_back("  ...", std::to_string(errors.size() - most) + " more");
  }
  return rows;
}

}  // namespace bilevel
