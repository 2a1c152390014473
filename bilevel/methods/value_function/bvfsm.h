#ifndef BILEVEL_METHODS_VALUE_FUNCTION_BVFSM_H_
#define BILEVEL_METHODS_VALUE_FUNCTION_BVFSM_H_

#include <string>

#include "bilevel/methods/estimators/hypergradient.h"
#include "bilevel/methods/step_rule.h"

namespace bilevel {

/// BVFSM, the bi-level value-function-based sequential minimisation (Liu, Liu, Zeng and Zhang,
/// "Value-function-based sequential minimization for bi-level optimization", 2021; BVFIM, ICML
/// 2021). With mu, theta and sigma decreasing over the iterations, in each of them
///
///   w ~ argmin g(x, w) + mu |w|^2,  g_mu its value           by T_w steps from the last w
///   y ~ argmin f(x, y) + P(g(x, y) - g_mu) + theta |y|^2     by T_y steps from the last y
///   d = f_x(x, y) + P' (g_x(x, y) - g_x(x, w)),   x <- x - step d
///
/// P is a barrier: with slack = offset + g_mu - g(x, y),
///
///   kLogarithm   -sigma log(slack), P' = sigma / slack; steps for y are halved until the slack is
///                positive and the sum no larger; a y outside starts from w, which is inside
///   kDetached    what the authors released: P' = sigma / (offset + g_mu), whatever g(x, y) is,
///                which is a penalty on g of that weight and ends where that is too small
///
/// First derivatives only. |y| is of the values in memory. A GradientMethod with this estimator is
/// the method.
class BvfsmHypergradient : public HypergradientEstimator {
 public:
  enum Barrier { kLogarithm, kDetached };
  struct Options {
    /// The authors' demonstration: T_w = 50, T_y = 25, plain steps of 0.01, mu = theta = 0.01,
    /// sigma = 0.001. All depend on the problem's scale.
    Options() { w.step = y.step = 0.01; }
    Barrier barrier = kLogarithm;
    int num_w_steps = 50;
    int num_y_steps = 25;
    StepRule w, y;  ///< kLogarithm: of y only the step counts.
    double mu = 0.01, theta = 0.01, sigma = 0.001;
    /// In iteration k = 1, 2, ... the three are divided by log(1.1 (k + 1)), as theirs.
    bool decay = true;
    /// BOME's authors' for g >= 0. kDetached: more than -min g.
    double offset = 1e-4;
  };
  explicit BvfsmHypergradient(const Options& options = {}) : options_(options) {}
  bool is_biased() const override { return true; }
  std::string Check(const Oracle& oracle) const override;
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;
  bool Remember(Oracle& /*oracle*/, Memory* /*memory*/) override { return true; }

 private:
  bool StepInside(Oracle& oracle, const Point& x, double limit, double* slack, Point* y);

  Options options_;
  double sigma_ = 0.0, theta_ = 0.0;
  Point w_, trial_;
  Vector fy_, gy_, gx_, wx_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_VALUE_FUNCTION_BVFSM_H_
