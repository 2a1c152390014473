#include "bilevel/lower_level/gauss_newton_metric.h"

#include "bilevel/lower_level/block_jacobi.h"

namespace bilevel {

std::string GaussNewtonMetric::Check(const Program& program, const std::string& option) {
  if (program.y.has_bounds()) {
    return option + " by Gauss-Newton's metric needs a lower level without bounds";
  }
  return BlockJacobi::Check(program, option);
}

void GaussNewtonMetric::Compute(Oracle& oracle, const Point& x, const Point& y) {
  oracle.g.GaussNewtonHessian(x, y, &hessian_);
  if (!oracle.ok()) return;
  if (!factorization_) factorization_ = std::make_unique<Factorization>(hessian_, &y.space());
  if (factorization_->Factorize(hessian_, damping_, nullptr) !=
      Factorization::Status::kPositiveDefinite) {
    oracle.Fail(
        "the damped Gauss-Newton Hessian of the lower level is not positive definite: a general "
        "term has negative curvature");
  }
}

void GaussNewtonMetric::Apply(SparseVector* v) const {
  factorization_->Solve(v->dense(), &dense_);
  for (int b = 0; b < static_cast<int>(v->space().blocks().size()); ++b) v->Touch(b);
  Eigen::Map<Vector>(v->data(), dense_.size()) = dense_;
}

}  // namespace bilevel
