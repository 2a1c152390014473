#include "bilevel/lower_level/factorization.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "Eigen/SparseCholesky"
#ifdef BILEVEL_USE_CHOLMOD
#include "Eigen/CholmodSupport"
#include "bilevel/lower_level/one_openmp_thread.h"
#endif

namespace bilevel {
namespace {

using Simplicial = Eigen::SimplicialLDLT<SparseMatrix, Eigen::Lower, Eigen::AMDOrdering<int>>;

#ifdef BILEVEL_USE_CHOLMOD
class Supernodal : public Eigen::CholmodSupernodalLLT<SparseMatrix, Eigen::Lower> {
 public:
  // CHOLMOD's own rule: dense enough if it does this many operations a nonzero of the factor.
  bool Pays() { return cholmod().fl > cholmod().supernodal_switch * cholmod().lnz; }

  double SmallestPivot() const {
    const cholmod_factor& factor = *m_cholmodFactor;
    const auto* super = static_cast<const int*>(factor.super);
    const auto* rows = static_cast<const int*>(factor.pi);
    const auto* begin = static_cast<const int*>(factor.px);
    const auto* values = static_cast<const double*>(factor.x);
    double smallest = std::numeric_limits<double>::infinity();
    for (size_t k = 0; k < factor.nsuper; ++k) {
      const int columns = super[k + 1] - super[k], stride = rows[k + 1] - rows[k];
      for (int j = 0; j < columns; ++j) {
        const double diagonal = values[begin[k] + j * (stride + 1)];
        smallest = std::min(smallest, diagonal * diagonal);
      }
    }
    return smallest;
  }
};
#endif

}  // namespace

struct Factorization::Implementation {
  std::unique_ptr<Simplicial> simplicial;
#ifdef BILEVEL_USE_CHOLMOD
  std::unique_ptr<Supernodal> supernodal;
#endif
};

Factorization::Factorization(const SparseMatrix& lower)
    : implementation_(std::make_unique<Implementation>()),
      scaled_(lower),
      scale_(Vector::Ones(lower.rows())),
      work_(lower.rows()) {
#ifdef BILEVEL_USE_CHOLMOD
  if (lower.nonZeros() > 0) {
    implementation_->supernodal = std::make_unique<Supernodal>();
    implementation_->supernodal->cholmod().print = 0;  // Failure is a status, not a message.
    implementation_->supernodal->analyzePattern(scaled_);
    if (implementation_->supernodal->Pays()) return;
    implementation_->supernodal.reset();
  }
#endif
  implementation_->simplicial = std::make_unique<Simplicial>();
  implementation_->simplicial->analyzePattern(scaled_);
}

Factorization::~Factorization() = default;

bool Factorization::is_supernodal() const { return !implementation_->simplicial; }

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
    scale_[j] = is_fixed(j) || diagonal == 0.0 ? 1.0 : std::sqrt(diagonal);
  }
  work_ = scale_.cwiseInverse();
  double sum = 0.0;
  for (int j = 0; j < n; ++j) {
    for (int k = lower.outerIndexPtr()[j]; k < lower.outerIndexPtr()[j + 1]; ++k) {
      const int i = lower.innerIndexPtr()[k];
      double& to = scaled_.valuePtr()[k];
      if (is_fixed(i) || is_fixed(j)) {
        to = i == j ? 1.0 : 0.0;
      } else {
        to = lower.valuePtr()[k] * work_[i] * work_[j];
        if (i == j) to += damping;
        sum += to;
      }
    }
  }
  if (!std::isfinite(sum)) return Status::kNotFinite;
  if (n == 0) return Status::kPositiveDefinite;
  double smallest_pivot = 0.0;
  if (implementation_->simplicial) {
    Simplicial& factor = *implementation_->simplicial;
    factor.factorize(scaled_);
    if (factor.info() == Eigen::Success) smallest_pivot = factor.vectorD().minCoeff();
  }
#ifdef BILEVEL_USE_CHOLMOD
  if (implementation_->supernodal) {
    Supernodal& factor = *implementation_->supernodal;
    const OneOpenMpThread one_thread;
    factor.factorize(scaled_);
    if (factor.info() == Eigen::Success) smallest_pivot = factor.SmallestPivot();
  }
#endif
  return smallest_pivot > kRankTolerance ? Status::kPositiveDefinite : Status::kNotPositiveDefinite;
}

void Factorization::Solve(const Vector& b, Vector* x) const {
  work_ = b.cwiseQuotient(scale_);
  for (size_t i = 0; i < fixed_.size(); ++i) {
    if (fixed_[i]) work_[i] = 0.0;
  }
  if (implementation_->simplicial) *x = implementation_->simplicial->solve(work_);
#ifdef BILEVEL_USE_CHOLMOD
  if (implementation_->supernodal) *x = implementation_->supernodal->solve(work_);
#endif
  x->array() /= scale_.array();
}

void Factorization::Solve(const Matrix& b, Matrix* x) const {
  Matrix scaled = scale_.cwiseInverse().asDiagonal() * b;
  for (size_t i = 0; i < fixed_.size(); ++i) {
    if (fixed_[i]) scaled.row(i).setZero();
  }
  if (implementation_->simplicial) *x = implementation_->simplicial->solve(scaled);
#ifdef BILEVEL_USE_CHOLMOD
  if (implementation_->supernodal) *x = implementation_->supernodal->solve(scaled);
#endif
  *x = scale_.cwiseInverse().asDiagonal() * *x;
}

}  // namespace bilevel
