#ifndef BILEVEL_METHODS_VALUE_FUNCTION_BOME_H_
#define BILEVEL_METHODS_VALUE_FUNCTION_BOME_H_

#include <string>

#include "bilevel/methods/estimators/discontinuity.h"
#include "bilevel/methods/estimators/unroll.h"
#include "bilevel/methods/method.h"
#include "bilevel/methods/step_rule.h"

namespace bilevel {

/// BOME (Liu, Ye, Wright, Stone and Liu, "BOME! Bilevel optimization made easy", NeurIPS 2022):
/// descent on f under the value-function constraint q(x, y) = g(x, y) - g(x, y_hat) <= 0, with no
/// second derivatives. In the order of its Algorithm 1:
///
///   y_hat ~ argmin g(x, .)  from y          T gradient steps, or solved
///   q = g(x, y) - g(x, y_hat),  grad q = (g_x(x, y) - g_x(x, y_hat), g_y(x, y))
///   lambda = max(0, (barrier - <grad f, grad q>) / (|grad q|^2 + epsilon))
///   d = grad f + lambda grad q
///   x <- x - step_x d_x,  y <- y - step_y d_y
///
/// Two biases are in the open. y stays off y*(x) by O(step): Solve returns it solved, phi there,
/// and the gap that was closed in Summary::final_lower_gap. With y_hat from T steps, the fixed
/// point of x is that of the hypergradient with Neumann's series cut after T terms, whatever the
/// step; Summary::assessment.x_bias estimates how far that is from phi's.
///
/// Where y_hat is solved, phi(x) is known in every iteration and the best x is the answer;
/// otherwise the last one is. Manifolds by retraction, bounds by projection.
class Bome : public Method {
 public:
  enum Barrier {
    kGradientBarrier,  ///< eta |grad q|^2, the paper's choice.
    kValueBarrier,     ///< eta q, that of the authors' hyper-parameter experiments.
  };
  enum LowerLevel {
    /// Solved where the lower solver succeeds, gradient steps from the first failure on.
    kAutomatic,
    kSolved,
    kGradientSteps,
  };
  /// The lower steps are those of y_hat. T = 10 is the paper's, and 0.05 the authors' step for the
  /// coreset and min-max problems.
  struct Options : LowerSteps {
    Options() { x.step = y.step = lower_step = 0.05; }

    Barrier barrier = kGradientBarrier;
    double eta = 0.5;  ///< The paper's default; it found {0.1, 0.5, 0.9} to do equally well.
    LowerLevel lower_level = kAutomatic;
    /// Plain, momentum or Adam; 0.05 plain in the authors' coreset and min-max problems. Memories
    /// are of the joint direction, so lambda is never made from them.
    StepRule x, y;
    /// The authors have 1e-8 (1e-4 in the coreset problem), which ends 3e-6 short of the
    /// degenerate problem's solution.
    double epsilon = 1e-12;
  };

  Bome() = default;
  explicit Bome(const Options& options) : options_(options), unroll_(options) {}

  std::string name() const override { return "bome"; }
  std::string Check(const Oracle& oracle) override;
  bool ProjectsY() const override { return true; }
  bool Remember(Oracle& oracle, Memory* memory) override;
  bool WorksWithoutX() const override { return true; }
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override;

 protected:
  void Start(Oracle& oracle, State& state) override;
  void Step(Oracle& oracle, State& state, Progress* progress) override;

 private:
  bool EstimateLowerSolution(Oracle& oracle, const State& state);
  // Perhaps that is why the oracle failed.
  void SayWhyByGradientSteps(Oracle& oracle);
  bool BiasedHypergradient(Oracle& oracle, const State& state, Vector* d);

  Options options_;
  Unroll unroll_{options_};
  bool solve_ = true, first_ = true;
  double phi_ = 0.0;  // Of the iteration before, where it is known.
  std::string why_not_solved_;
  Point y_hat_, x_before_, x_start_;
  Vector fx_, fy_, qx_, qy_, gx_;
  Discontinuity steepest_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_VALUE_FUNCTION_BOME_H_
