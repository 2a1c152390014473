#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_DAMPED_NEWTON_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_DAMPED_NEWTON_H_

#include <initializer_list>
#include <limits>
#include <string>

#include "bilevel/lower_level/internal/newton_lower_solver_scenario.h"

namespace bilevel {

// Damped Newton from the part's y to a stationary point, where the undamped Hessian is positive
// definite, or singular. Where it is indefinite, y comes nearer by Gauss-Newton's first.
class DampedNewton {
  using PerScenario = NewtonLowerSolver::PerScenario;

 public:
  DampedNewton(NewtonLowerSolver* solver, PerScenario* part, const double* x, bool is_warm)
      : solver_(*solver),
        part_(*part),
        x_(x),
        space_(part->scenario->y),
        is_warm_(is_warm),
        max_num_iterations_(solver->options_.max_num_newton_iterations),
        first_norm_(part->y.value().norm()),
        floor_(part->singular ? kSingularDamping : 0.0),
        damping_(floor_) {}

  // False: the part's message says why.
  bool Run();

 private:
  using Status = Factorization::Status;

  static constexpr double kLeastDamping = 1e-7, kFirstDamping = 1e-4, kMostDamping = 1e12;
  // Full steps that do not halve the decrement have stalled if it is within so many tolerances.
  static constexpr double kStalledTolerances = 1e5;
  // Near a minimum so many steps that do not lessen the decrement show noise.
  static constexpr int kStepsInNoise = 5;
  static constexpr int kLinearSteps = 4;

  bool Fail(const std::string& what);
  bool Evaluate();
  Status FactorizeDamped(double damping);
  // The Hessian, damped where it is not positive definite; y moves where that is not near. False:
  // there is none.
  bool Factorize();
  // From where the Hessian is indefinite, Levenberg-Marquardt with Gauss-Newton's Hessian until the
  // exact one is to be looked at again; no more where its steps have ended, or need much damping.
  bool MayApproach() const;
  bool Approach();
  bool EvaluateGaussNewton();
  bool FactorizeGaussNewton();
  // Newton's, and its decrement.
  void Step();
  bool IsStationary();
  // Whether steps shrink by a constant factor, towards a singular Hessian.
  bool IsLinear() const { return num_linear_ >= kLinearSteps; }
  // Whether the step is rounding of the way that y has come, which may have led to about 0.
  bool HasArrived() const;
  // By how much, in the norm of the decrement, the gradient a share of the step on is off what the
  // Hessian says. False: it cannot be evaluated.
  bool OffStraightLine(double share, double* off);
  // At a stationary point that is no minimum: a bound may hold it there; from a cold start any
  // other is left along its negative curvature as well. Warm, y follows its branch to the end and
  // no further. False: there is no way.
  bool LeaveMaximum();
  // Newton's steps shrink by a constant factor where the Hessian becomes singular: to a minimum, or
  // to an inflection approached from its convex side; and y may have begun at one. True: it was
  // one, and y is beyond it.
  bool LeaveInflection();
  int FlattestCoordinate() const;
  // The step's direction <- one along which g curves down the most, by inverse iteration with the
  // damped matrix. False: g does not.
  bool FindNegativeCurvature();
  // y moves along the step's direction, to those sides of it, to where the value is least of what
  // is looked at, if it falls there at all.
  bool Leave(std::initializer_list<double> sides);
  // "; it seems unbounded below: ...", where y has grown that far.
  std::string Growth() const;
  bool FailToArrive(const std::string& what);
  bool FinishWeakDirections();
  void TakeBest();
  // By decrements of the Hessian itself.
  void KeepBest();
  // Of an undamped step: where y goes when it does not arrive.
  void KeepDrift();
  void ClampStep();
  void SnapToBounds();
  // Looks at the step within the bounds: whether it is as good as the quadratic model expects.
  bool Try();
  bool IsGood();
  void Extend();
  bool Shorten();
  void Accept();
  // False: no step is short enough.
  bool Reject();

  NewtonLowerSolver& solver_;
  PerScenario& part_;
  const double* x_;
  const Space& space_;
  bool is_warm_;
  const int max_num_iterations_;
  const double first_norm_;
  double floor_, damping_;
  int iteration_ = 0;
  int num_approach_ = 0;  // Steps of Gauss-Newton.
  bool has_approached_ = false;
  bool has_left_bounds_ = false;
  bool has_finished_ = false;         // The weak directions, once.
  bool has_looked_undamped_ = false;  // From this y.
  int num_left_ = 0;                  // Saddles and inflections.
  int num_linear_ = 0;                // Full steps in a row that have shrunk by a constant factor.
  int num_drifting_ = 0;              // Undamped steps that point where the one before did, as far.
  double drift_length_ = 0.0;
  Vector drift_;

  // Of the matrix factorised.
  bool is_indefinite_ = false;

  // Of the step from y, and of its trial.
  double decrement2_ = 0.0, rounding_ = 0.0, summands_ = 0.0;
  double trial_value_ = 0.0, ratio_ = 0.0;
  bool is_usable_ = false, is_hidden_ = false, is_short_ = false;
  std::string trouble_;

  // The best y of a positive definite Hessian.
  Point best_;
  double best_decrement_ = std::numeric_limits<double>::infinity();
  int num_since_best_ = 0;  // Steps.

  // Of the step to y.
  bool is_full_step_ = false;
  double previous_decrement_ = std::numeric_limits<double>::infinity();
  double previous_length_ = previous_decrement_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_DAMPED_NEWTON_H_
