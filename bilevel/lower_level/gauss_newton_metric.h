#ifndef BILEVEL_LOWER_LEVEL_GAUSS_NEWTON_METRIC_H_
#define BILEVEL_LOWER_LEVEL_GAUSS_NEWTON_METRIC_H_

#include <memory>
#include <string>

#include "bilevel/lower_level/factorization.h"
#include "bilevel/lower_level/metric.h"

namespace bilevel {

/// The damped Gauss-Newton Hessian J'J + damping diag(J'J) of all of g (of general terms: their
/// Hessian), by a sparse Cholesky factorisation. Unlike BlockJacobi it knows what couples the
/// blocks of y, as in pose graphs: near a solution with small residuals M^-1 H has eigenvalues
/// around 1, whatever the conditioning. Each use is dense: two triangular solves.
class GaussNewtonMetric : public Metric {
 public:
  /// damping > 0, relative to the diagonal: bounds the eigenvalues of M^-1 from above where the
  /// Hessian at the start says little about the one further on.
  explicit GaussNewtonMetric(double damping) : damping_(damping) {}

  /// As BlockJacobi::Check. y may have no bounds: clamping is no projection in this metric.
  static std::string Check(const Program& program, const std::string& option);

  void Compute(Oracle& oracle, const Point& x, const Point& y) override;
  void Apply(Vector* v) const override { factorization_->Solve(*v, v); }
  void Apply(SparseVector* v) const override;

 private:
  double damping_;
  SparseMatrix hessian_;
  std::unique_ptr<Factorization> factorization_;
  mutable Vector dense_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_GAUSS_NEWTON_METRIC_H_
