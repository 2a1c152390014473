#include "bilevel/lower_level/hessian_system.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <sstream>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/memory.h"
#include "bilevel/lower_level/internal/name_blocks.h"

namespace bilevel {
namespace {

// Eigenvalues of the matrix scaled to a unit diagonal below this belong to the null space.
constexpr double kNullEigenvalue = 1e-9;
// A gradient with a larger share in the null space sees it.
constexpr double kVisibleShare = 1e-6;
constexpr int kSubspaceIterations = 4;
constexpr int kMostRounds = 3;
// A null space is dense: beyond this it is no gauge.
constexpr int kMostFreeDirections = 160;
constexpr int kMostRefinements = 20;
// |Jv| of a free direction is rounding of J.
constexpr double kRoundingOfExact = 1e-10, kRoundingOfOther = 1e-6;
// What of v'Hv - |Jv|^2 is rounding.
constexpr double kRoundingOfCurvatures = 1e-14;

Matrix Orthonormal(const Matrix& m) { return HouseholderQ(m, m.cols()); }

}  // namespace

HessianSystem::HessianSystem(const SparseMatrix& pattern, const Space* y, bool exact)
    : factorization_(pattern, y), y_(y), exact_(exact) {}

bool HessianSystem::Prepare(const SparseMatrix* lower,
                            const std::vector<char>* fixed,
                            SingularHandling handling,
                            bool factorized,
                            const Jacobian& jacobian) {
  lower_ = lower;
  fixed_ = fixed ? *fixed : std::vector<char>();
  handling_ = handling;
  singular_ = false;
  null_space_.resize(lower->rows(), 0);
  weak_.resize(lower->rows(), 0);
  largest_null_ = smallest_kept_ = residual_ = 0.0;
  message_.clear();
  if (factorized) return true;
  ++num_factorizations_;
  switch (factorization_.Factorize(*lower, 0.0, fixed)) {
    case Factorization::Status::kPositiveDefinite:
      return true;
    case Factorization::Status::kNotFinite:
      message_ = "the lower level's Hessian is not finite";
      return false;
    case Factorization::Status::kNotPositiveDefinite:
      break;
  }
  // Is it singular or a saddle? With a little damping only a true negative curvature is left.
  ++num_factorizations_;
  if (factorization_.Factorize(*lower, kSingularDamping, fixed) !=
      Factorization::Status::kPositiveDefinite) {
    message_ = "the lower level is at a saddle point: its Hessian has a negative eigenvalue";
    return false;
  }
  singular_ = true;
  if (handling == SingularHandling::kDampingWithRefinement) return true;
  if (!FindNullSpace(jacobian)) return false;
  if (handling == SingularHandling::kRefuse && null_space_.cols() > 0) {
    message_ = "the lower level's Hessian is singular: " + std::to_string(null_space_.cols()) +
               " free direction(s), in " + NullSpaceBlocks();
    return false;
  }
  return true;
}

void HessianSystem::Multiply(const Matrix& v, Matrix* hv) const {
  hv->noalias() = lower_->selfadjointView<Eigen::Lower>() * v;
  for (size_t i = 0; i < fixed_.size(); ++i) {
    if (fixed_[i]) hv->row(i).setZero();
  }
}

// Of the damped factorisation's inverse, in the unit-diagonal scaling.
void HessianSystem::IterateSubspace(Matrix* basis) const {
  const Vector& scale = factorization_.scale();
  Matrix next;
  for (int k = 0; k < kSubspaceIterations; ++k) {
    // (S + damping)^-1 = D (D (S + damping) D)^-1 D.
    *basis = scale.asDiagonal() * Orthonormal(*basis);
    factorization_.Solve(*basis, &next);
    *basis = scale.asDiagonal() * next;
  }
  *basis = Orthonormal(*basis);
}

// Inverse subspace iteration with the damped factorisation, in the unit-diagonal scaling.
bool HessianSystem::FindNullSpace(const Jacobian& jacobian) {
  const int n = static_cast<int>(lower_->rows());
  const Vector& scale = factorization_.scale();
  for (int size = std::min(n, 10);; size = std::min(n, 2 * size)) {
    Matrix basis(n, size);
    std::mt19937_64 generator(1);
    std::normal_distribution<double> normal;
    std::generate_n(basis.data(), basis.size(), [&] { return normal(generator); });
    IterateSubspace(&basis);
    Matrix image, unscaled = scale.cwiseInverse().asDiagonal() * basis;
    for (size_t i = 0; i < fixed_.size(); ++i) {
      if (fixed_[i]) unscaled.row(i).setZero();
    }
    Multiply(unscaled, &image);
    image = scale.cwiseInverse().asDiagonal() * image;
    Matrix small = basis.transpose() * image;
    small = 0.5 * (small + small.transpose()).eval();
    // Fixed coordinates answer zero above, but are not free.
    Matrix fixed_part = Matrix::Zero(size, size);
    for (size_t i = 0; i < fixed_.size(); ++i) {
      if (fixed_[i]) fixed_part += basis.row(i).transpose() * basis.row(i);
    }
    const SymmetricEigen eigen(small + fixed_part);
    int rank = 0;
    while (rank < size && eigen.eigenvalues()[rank] < kNullEigenvalue) ++rank;
    if (rank == size && size < n) {
      if (size < kMostFreeDirections) continue;
      message_ = "the lower level leaves more than " + std::to_string(size) +
                 " directions free: too many for a null space; make it determined, or choose "
                 "SingularHandling::kDampingWithRefinement";
      return false;
    }
    largest_null_ = rank > 0 ? eigen.eigenvalues()[rank - 1] : 0.0;
    smallest_kept_ = rank < size ? eigen.eigenvalues()[rank] : 0.0;
    if (rank == 0) {
      null_space_.resize(n, 0);
      return true;
    }
    const Matrix null = basis * eigen.eigenvectors().leftCols(rank);
    const RowSparseMatrix* const j = jacobian ? jacobian() : nullptr;
    if (j) return Separate(null, *j);
    null_space_ = Orthonormal(scale.cwiseInverse().asDiagonal() * null);
    return true;
  }
}

// Directions of small eigenvalues, orthonormal in the scaling: the free and the weak ones.
bool HessianSystem::Separate(Matrix small, const RowSparseMatrix& jacobian) {
  const Vector& scale = factorization_.scale();
  const double rounding = exact_ ? kRoundingOfExact : kRoundingOfOther;
  Matrix unscaled, rows;
  Vector lengths;  // Falling; no more than J has rows.
  Matrix right;
  for (int round = 0;; ++round) {
    unscaled = scale.cwiseInverse().asDiagonal() * small;
    rows = jacobian * unscaled;
    const RightSvd svd(rows);
    lengths = svd.values;
    right = svd.v;
    // Lengths around what rounding is may be shares of stiffer directions.
    const auto all = lengths.array();
    if (round == kMostRounds || !(all > 0.1 * rounding && all < 100.0 * rounding).any()) break;
    IterateSubspace(&small);
  }
  const int num_weak = static_cast<int>((lengths.array() > rounding).count());
  const int num_null = static_cast<int>(small.cols()) - num_weak;
  largest_null_ = num_weak < lengths.size() ? lengths[num_weak] * lengths[num_weak] : 0.0;
  null_space_ = Orthonormal(unscaled * right.rightCols(num_null));
  if (num_weak == 0) return true;
  smallest_kept_ = lengths[num_weak - 1] * lengths[num_weak - 1];
  weak_ = unscaled * right.leftCols(num_weak);
  weak_dual_ = scale.asDiagonal() * (small * right.leftCols(num_weak));
  rows = jacobian * weak_;
  Matrix curvature = rows.transpose() * rows;
  Multiply(weak_, &product_);
  const Matrix others = weak_.transpose() * product_ - curvature;
  if (others.cwiseAbs().maxCoeff() > kRoundingOfCurvatures) {
    curvature += others;
    weak_image_ = product_;
  } else {
    weak_image_ = jacobian.transpose() * rows;
    for (size_t i = 0; i < fixed_.size(); ++i) {
      if (fixed_[i]) weak_image_.row(i).setZero();
    }
  }
  if (!InvertPositiveDefinite(curvature, &weak_inverse_)) {
    message_ = "the lower level's Hessian has a negative eigenvalue, or one lost in rounding";
    return false;
  }
  return true;
}

double HessianSystem::Rounding() const {
  constexpr double kIllConditioned = 1e-8, kWorthSaying = 1e-6;
  constexpr double kOfCondition = 4.0 * std::numeric_limits<double>::epsilon();
  double smallest = 1.0;  // Eigenvalue of a matrix whose diagonal is one.
  const double pivot = factorization_.smallest_pivot();
  if (weak_.cols() > 0) {
    smallest = smallest_kept_;
  } else if (!singular_ && pivot > Factorization::kRankTolerance && pivot <= kIllConditioned) {
    // Inverse iteration.
    const Vector& scale = factorization_.scale();
    Vector v = Vector::Ones(scale.size()), next;
    for (int k = 0; k < kSubspaceIterations; ++k) {
      v = scale.cwiseProduct(v / v.norm());
      factorization_.Solve(v, &next);
      v = scale.cwiseProduct(next);
      smallest = std::min(smallest, 1.0 / v.norm());
    }
  }
  const double rounding = kOfCondition / smallest;
  return rounding > kWorthSaying ? rounding : 0.0;
}

bool HessianSystem::Solve(const Vector& b, Vector* x) {
  column_ = b;
  if (!Solve(column_, &column_)) return false;
  *x = column_;
  return true;
}

// The weak directions' part by itself, the rest by the factorisation.
void HessianSystem::SolveProjected(Matrix* rhs, Matrix* x) {
  if (weak_.cols() == 0) {
    factorization_.Solve(*rhs, x);
    return;
  }
  const Matrix weak = weak_inverse_ * (weak_.transpose() * *rhs);
  correction_ = *rhs - weak_image_ * weak;
  RemoveWeak(&correction_);
  factorization_.Solve(correction_, x);
  *x -= weak_ * (weak_dual_.transpose() * *x);
  *x += weak_ * weak;
}

// What is left of them in a right-hand side is rounding.
void HessianSystem::RemoveWeak(Matrix* rhs) const {
  if (weak_.cols() > 0) *rhs -= weak_dual_ * (weak_.transpose() * *rhs);
}

bool HessianSystem::SquaredNorm(const Vector& b, Vector* x, double* squared) {
  rhs_ = b;
  if (null_space_.cols() > 0) rhs_ -= null_space_ * (null_space_.transpose() * rhs_).eval();
  SolveProjected(&rhs_, &product_);
  *x = product_;
  *squared = rhs_.col(0).dot(*x);
  return std::isfinite(*squared);
}

bool HessianSystem::Solve(const Matrix& b, Matrix* x) {
  rhs_ = b;
  for (size_t i = 0; i < fixed_.size(); ++i) {
    if (fixed_[i]) rhs_.row(i).setZero();
  }
  if (null_space_.cols() > 0) {
    product_ = null_space_.transpose() * rhs_;
    for (int j = 0; j < rhs_.cols(); ++j) {
      const double share = product_.col(j).norm() / rhs_.col(j).norm();
      if (handling_ != SingularHandling::kAutomatic || !(share > kVisibleShare)) continue;
      std::ostringstream text;
      text << "the lower level leaves " << null_space_.cols() << " direction(s) free, in "
           << NullSpaceBlocks() << ", and what is asked depends on them (share " << share
           << "): fix a block, or let f choose, by the method \"optimistic\" or \"bome\"";
      message_ = text.str();
      return false;
    }
    rhs_ -= null_space_ * product_;
  }
  SolveProjected(&rhs_, x);
  double relative = 0.0, before = std::numeric_limits<double>::infinity();
  for (int k = 0;; ++k) {
    Multiply(*x, &product_);
    correction_ = rhs_ - product_;
    relative = 0.0;
    for (int j = 0; j < rhs_.cols(); ++j) {
      const double norm = rhs_.col(j).norm();
      if (norm > 0.0) relative = std::max(relative, correction_.col(j).norm() / norm);
    }
    if (!singular_ || k == kMostRefinements || !(relative < 0.5 * before)) break;
    before = relative;
    RemoveWeak(&correction_);
    factorization_.Solve(correction_, &correction_);
    if (weak_.cols() > 0) correction_ -= weak_ * (weak_dual_.transpose() * correction_);
    *x += correction_;
    if (null_space_.cols() > 0) *x -= null_space_ * (null_space_.transpose() * *x);
  }
  residual_ = std::max(residual_, relative);
  if (singular_ && handling_ == SingularHandling::kDampingWithRefinement && relative > 1e-6) {
    message_ =
        "the lower level's Hessian is singular and what is asked depends on its free directions: "
        "refinement of the damped solution does not converge";
    return false;
  }
  if (!x->allFinite()) {
    message_ = "a linear system with the lower level's Hessian has no finite solution";
    return false;
  }
  return true;
}

std::string HessianSystem::NullSpaceBlocks() const {
  return NameBlocks(*y_, 1.0, [&](const Space::Block& block) {
    return null_space_.middleRows(block.tangent_offset, block.tangent_size).squaredNorm();
  });
}

void HessianSystem::Remember(const SparseMatrix* lower, Memory* memory) {
  const Memory::Group group(memory, "system");
  factorization_.Remember(memory);
  bool is_prepared = lower_ != nullptr;
  memory->Keep("is_prepared", &is_prepared);
  if (is_prepared) lower_ = lower;
  memory->Keep("fixed", &fixed_);
  memory->Keep("handling", &handling_);
  memory->Keep("singular", &singular_);
  memory->Keep("null_space", &null_space_);
  memory->Keep("weak", &weak_);
  memory->Keep("weak_dual", &weak_dual_);
  memory->Keep("weak_image", &weak_image_);
  memory->Keep("weak_inverse", &weak_inverse_);
  memory->Keep("largest_null", &largest_null_);
  memory->Keep("smallest_kept", &smallest_kept_);
  memory->Keep("residual", &residual_);
  memory->Keep("num_factorizations", &num_factorizations_);
}

}  // namespace bilevel
