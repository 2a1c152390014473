#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_GRADIENT_SAMPLING_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_GRADIENT_SAMPLING_H_

#include <string>

#include "bilevel/methods/method.h"

namespace bilevel {

/// Gradient sampling (Burke, Lewis and Overton, "A robust gradient sampling algorithm for
/// nonsmooth, nonconvex optimization", SIAM J. Optim. 15, 2005): for a phi with kinks, by its exact
/// gradients. With m the length of x, in each iteration
///
///   G = the gradients at x and at 2 m points drawn from the ball of radius epsilon around it
///   d = the point of least norm in the convex hull of G
///   x <- x - t d / |d| with phi(x - t d / |d|) < phi(x) - beta t |d|, t doubled from the last one
///        and halved while it fails
///   d = 0 or no t down to epsilon / 10: epsilon <- epsilon / 10
///
/// It has converged where epsilon is the smallest: to within it, no direction decreases phi. Bounds
/// on x are projected onto.
class GradientSampling : public Method {
 public:
  struct Options {
    double initial_radius = 1e-1;  ///< epsilon, relative to 1 + |x|, as the next.
    double smallest_radius = 1e-7;
  };

  GradientSampling() = default;
  explicit GradientSampling(const Options& options) : options_(options) {}

  std::string name() const override { return "gradient_sampling"; }
  std::string Check(const Oracle& oracle) override;
  bool TakesLowerConstraints() const override { return true; }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;

 private:
  Options options_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_GRADIENT_SAMPLING_H_
