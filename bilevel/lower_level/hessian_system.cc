#include "bilevel/lower_level/hessian_system.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>

#include "Eigen/Eigenvalues"
#include "Eigen/QR"
#include "bilevel/lower_level/internal/name_blocks.h"

namespace bilevel {
namespace {

// Eigenvalues of the matrix scaled to a unit diagonal below this belong to the null space.
constexpr double kNullEigenvalue = 1e-9;
// A gradient with a larger share in the null space sees it.
constexpr double kVisibleShare = 1e-6;
constexpr int kSubspaceIterations = 4;
// A null space is dense: beyond this it is no gauge.
constexpr int kMostFreeDirections = 160;
constexpr int kRefinements = 3;

Matrix Orthonormal(const Matrix& m) {
  Eigen::HouseholderQR<Matrix> qr(m);
  return qr.householderQ() * Matrix::Identity(m.rows(), m.cols());
}

}  // namespace

HessianSystem::HessianSystem(const SparseMatrix& pattern, const Space* y)
    : factorization_(pattern, y), y_(y) {}

bool HessianSystem::Prepare(const SparseMatrix* lower,
                            const std::vector<char>* fixed,
                            SingularHandling handling,
                            bool factorized) {
  lower_ = lower;
  fixed_ = fixed ? *fixed : std::vector<char>();
  handling_ = handling;
  singular_ = false;
  null_space_.resize(lower->rows(), 0);
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
  if (!FindNullSpace()) return false;
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

// Inverse subspace iteration with the damped factorisation, in the unit-diagonal scaling.
bool HessianSystem::FindNullSpace() {
  const int n = static_cast<int>(lower_->rows());
  const Vector& scale = factorization_.scale();
  for (int size = std::min(n, 10);; size = std::min(n, 2 * size)) {
    Matrix basis(n, size), next;
    std::mt19937_64 generator(1);
    std::normal_distribution<double> normal;
    std::generate_n(basis.data(), basis.size(), [&] { return normal(generator); });
    for (int k = 0; k < kSubspaceIterations; ++k) {
      // (S + damping)^-1 = D (D (S + damping) D)^-1 D.
      basis = scale.asDiagonal() * Orthonormal(basis);
      factorization_.Solve(basis, &next);
      basis = scale.asDiagonal() * next;
    }
    basis = Orthonormal(basis);
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
    const Eigen::SelfAdjointEigenSolver<Matrix> eigen(small + fixed_part);
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
    null_space_ = Orthonormal(scale.cwiseInverse().asDiagonal() * null);
    return true;
  }
}

bool HessianSystem::Solve(const Vector& b, Vector* x) {
  column_ = b;
  if (!Solve(column_, &column_)) return false;
  *x = column_;
  return true;
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
  factorization_.Solve(rhs_, x);
  double relative = 0.0;
  for (int k = 0;; ++k) {
    Multiply(*x, &product_);
    correction_ = rhs_ - product_;
    relative = 0.0;
    for (int j = 0; j < rhs_.cols(); ++j) {
      const double norm = rhs_.col(j).norm();
      if (norm > 0.0) relative = std::max(relative, correction_.col(j).norm() / norm);
    }
    if (!singular_ || k == kRefinements) break;
    factorization_.Solve(correction_, &correction_);
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

double HessianSystem::NullSpaceShare(const Vector& b) const {
  const double norm = b.norm();
  return norm > 0.0 && null_space_.cols() > 0 ? (null_space_.transpose() * b).norm() / norm : 0.0;
}

std::string HessianSystem::NullSpaceBlocks() const {
  return NameBlocks(*y_, 1.0, [&](const Space::Block& block) {
    return null_space_.middleRows(block.tangent_offset, block.tangent_size).squaredNorm();
  });
}

}  // namespace bilevel
