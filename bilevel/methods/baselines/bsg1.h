#ifndef BILEVEL_METHODS_BASELINES_BSG1_H_
#define BILEVEL_METHODS_BASELINES_BSG1_H_

#include <string>

#include "bilevel/methods/estimators/hypergradient.h"

namespace bilevel {

/// BSG-1 (Giovannelli, Kent and Vicente, "Inexact bilevel stochastic gradient methods for
/// constrained and unconstrained lower-level problems", 2021): first derivatives only, second ones
/// replaced by products of them, d^2g/dy^2 ~ g_y g_y' and d^2g/dxdy ~ g_x g_y'. After T steps on g
///
///   d = f_x - <g_y, f_y> / (|g_y|^2 + epsilon) g_x,   x <- x - step d
///
/// A baseline: exact where y is a scalar and g a square that vanishes at y*, elsewhere without a
/// reason to be right, and 0 / 0 as y gets to y*. A GradientMethod with this estimator is the
/// method. Coordinates of y held at a bound count in neither product.
class Bsg1Hypergradient : public HypergradientEstimator {
 public:
  struct Options : LowerSteps {
    Options() { lower_step = 0.05; }  // That of BOME's authors in their toy problems, as T = 10.
    /// Between 1e-4 (hyper-parameters) and 1e-50 (toy problems) in the experiments of BOME's
    /// authors.
    double epsilon = 1e-8;
  };
  explicit Bsg1Hypergradient(const Options& options = {}) : options_(options), unroll_(options) {}
  bool is_biased() const override { return true; }
  std::string Check(const Oracle& oracle) const override;
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;
  bool Remember(Oracle& /*oracle*/, Memory* /*memory*/) override { return true; }

 private:
  Options options_;
  Unroll unroll_;
  Vector fy_, gx_, gy_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_BASELINES_BSG1_H_
