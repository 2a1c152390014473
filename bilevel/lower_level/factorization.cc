#include "bilevel/lower_level/factorization.h"

#include <algorithm>
#include <cmath>

#include "Eigen/SparseCholesky"

namespace bilevel {

struct Factorization::Implementation {
  Eigen::SimplicialLDLT<SparseMatrix, Eigen::Lower, Eigen::AMDOrdering<int>> ldlt;
};

Factorization::Factorization(const SparseMatrix& lower)
    : implementation_(std::make_unique<Implementation>()),
      scaled_(lower),
      scale_(lower.rows()),
      work_(lower.rows()) {
  implementation_->ldlt.analyzePattern(scaled_);
}

Factorization::~Factorization() = default;

Factorization::Status Factorization::Factorize(const SparseMatrix& lower,
                                               double damping,
                                               const std::vector<char>* fixed) {
  const int n = static_cast<int>(lower.cols());
  if (fixed) {
    fixed_ = *fixed;
  } else {
    fixed_.clear();
  }
  const auto is_fixed = [&](int i) { return !fixed_.empty() && fixed_[i]; };
  for (int j = 0; j < n; ++j) {
    const double diagonal = std::abs(lower.valuePtr()[lower.outerIndexPtr()[j]]);
    if (!std::isfinite(diagonal)) return Status::kFailed;
    scale_[j] = is_fixed(j) || diagonal == 0.0 ? 1.0 : std::sqrt(diagonal);
  }
  for (int j = 0; j < n; ++j) {
    for (int k = lower.outerIndexPtr()[j]; k < lower.outerIndexPtr()[j + 1]; ++k) {
      const int i = lower.innerIndexPtr()[k];
      double& to = scaled_.valuePtr()[k];
      if (is_fixed(i) || is_fixed(j)) {
        to = i == j ? 1.0 : 0.0;
      } else {
        to = lower.valuePtr()[k] / (scale_[i] * scale_[j]);
        if (i == j) to += damping;
      }
    }
  }
  implementation_->ldlt.factorize(scaled_);
  if (implementation_->ldlt.info() != Eigen::Success) {
    // A pivot that is exactly zero: singular, or an indefinite matrix that needs pivoting.
    min_pivot_ = 0.0;
    return std::isfinite(Eigen::Map<const Vector>(scaled_.valuePtr(), scaled_.nonZeros()).sum())
               ? Status::kSingular
               : Status::kFailed;
  }
  min_pivot_ = n == 0 ? 1.0 : implementation_->ldlt.vectorD().minCoeff();
  if (!std::isfinite(implementation_->ldlt.vectorD().sum())) return Status::kFailed;
  if (min_pivot_ > kRankTolerance) return Status::kPositiveDefinite;
  return min_pivot_ > -kRankTolerance ? Status::kSingular : Status::kIndefinite;
}

void Factorization::Solve(const Vector& b, Vector* x) const {
  work_ = b.cwiseQuotient(scale_);
  for (size_t i = 0; i < fixed_.size(); ++i) {
    if (fixed_[i]) work_[i] = 0.0;
  }
  *x = implementation_->ldlt.solve(work_);
  x->array() /= scale_.array();
}

void Factorization::Solve(const Matrix& b, Matrix* x) const {
  x->resize(b.rows(), b.cols());
  Vector column;
  for (int j = 0; j < b.cols(); ++j) {
    column = b.col(j);
    Solve(column, &column);
    x->col(j) = column;
  }
}

}  // namespace bilevel
