#ifndef BILEVEL_METHODS_VALUE_FUNCTION_PENALTY_H_
#define BILEVEL_METHODS_VALUE_FUNCTION_PENALTY_H_

#include <string>

#include "bilevel/methods/method.h"
#include "bilevel/methods/step_rule.h"

namespace bilevel {

/// The penalty method (Mehra and Hamm, "Penalty method for inversion-free deep bilevel
/// optimization", ACML 2021): the lower level is replaced by s = g_y(x, y) = 0, and that by an
/// augmented Lagrangian. With H = d^2g/dy^2 and J = d^2g/dxdy, in each iteration
///
///   T times   y <- y - step_y dy,   dy = f_y + H (nu + rho s) + lambda s
///   x <- x - step_x dx,             dx = f_x + J (nu + rho s)
///   if |dx|^2 + |dy|^2 < epsilon^2:   nu += rho s,  rho *= growth,
///                                     lambda, epsilon and both steps /= growth
///
/// lambda, of g itself, keeps y off saddles and maxima and must vanish for x to be right: how far
/// off x ends Summary::assessment.x_bias estimates. At convergence -(nu + rho s) is the adjoint and
/// dx the hypergradient. A product with H and J each for a gradient; no lower level is solved and
/// none need have one solution.
class Penalty : public Method {
 public:
  struct Options {
    /// The authors' for their synthetic problems, Adam in both levels.
    Options() {
      x.kind = y.kind = StepRule::kAdam;
      x.step = 1e-3;
      y.step = 1e-4;
    }
    int num_lower_steps = 10;  ///< T: 1, 5 or 10 there.
    double rho = 1.0, lambda = 10.0, epsilon = 1.0, growth = 1.1;
    double nu = 0.0;  ///< Every entry of nu in the beginning.
    StepRule x, y;
  };

  Penalty() = default;
  explicit Penalty(const Options& options) : options_(options) {}

  std::string name() const override { return "penalty"; }
  std::string Check(const Oracle& oracle) override;
  bool Remember(Oracle& oracle, Memory* memory) override;
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override;

 protected:
  void Start(Oracle& oracle, State& state) override;
  void Step(Oracle& oracle, State& state, Progress* progress) override;

 private:
  Options options_, now_;  // now_: with what has grown and shrunk.
  bool first_ = true;
  Vector s_, multiplier_, h_, j_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_VALUE_FUNCTION_PENALTY_H_
