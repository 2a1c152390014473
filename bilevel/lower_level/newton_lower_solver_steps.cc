// Newton's steps of one scenario.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/make_blocks_positive_definite.h"
#include "bilevel/lower_level/internal/newton_lower_solver_scenario.h"

namespace bilevel {
namespace {

constexpr double kFirstDamping = 1e-4;
constexpr double kLeastDamping = 1e-7;
constexpr double kMostDamping = 1e12;
// An indefinite Hessian that needs more than this is far from a minimum.
constexpr double kFarDamping = 1e-2;
// The last step is to be at most so many tolerances long, relative to y.
constexpr double kStepTolerances = 100.0;
// A step is taken if the value falls by this share of what was expected.
constexpr double kSufficient = 1e-4;
// Full steps that do not halve the decrement have stalled if it is within so many tolerances.
constexpr double kStalledTolerances = 1e5;
// Full steps in a row that shrink by factors between these show a singular Hessian ahead.
constexpr double kLeastRate = 0.3, kMostRate = 0.8;
constexpr int kLinearSteps = 4;
// So many saddles and inflections are left on the way.
constexpr int kMostLeft = 10;
constexpr int kInverseIterations = 30;
// y that has grown by this factor seems to have no minimum to go to.
constexpr double kUnbounded = 1e6;

}  // namespace

// Damped Newton from the part's y to a stationary point, where the undamped Hessian is positive
// definite, or singular.
class NewtonLowerSolver::PerScenario::DampedNewton {
 public:
  DampedNewton(NewtonLowerSolver* solver, PerScenario* part, const double* x, bool may_run_ceres)
      : solver_(*solver),
        part_(*part),
        x_(x),
        space_(part->scenario->y),
        may_run_ceres_(may_run_ceres),
        max_num_iterations_(solver->options_.max_num_newton_iterations),
        first_norm_(part->y.value().norm()),
        floor_(part->singular ? kSingularDamping : 0.0),
        damping_(floor_) {}

  // False: the part's message says why.
  bool Run() {
    if (solver_.Follow(&part_, x_)) return true;
    if (!Evaluate()) return false;
    for (;; ++iteration_) {
      if (!Factorize()) return false;
      Step();
      if (IsStationary()) {
        if (!is_indefinite_ && damping_ <= floor_) {
          if (!LeaveInflection()) return true;
          if (!Evaluate()) return false;
          continue;
        }
        if (is_indefinite_) {
          if (!LeaveMaximum()) return false;
          continue;
        }
        damping_ = floor_;  // The undamped Hessian is to be looked at, and another step.
        is_full_step_ = false;
        if (iteration_ < max_num_iterations_) continue;
      }
      if (iteration_ >= max_num_iterations_) return FailToArrive();
      if (Try()) {
        Accept();
        if (is_full_step_ && solver_.Follow(&part_, x_)) return true;
        if (!Evaluate()) return false;
      } else if (!Reject()) {
        return false;
      }
    }
  }

 private:
  using Status = Factorization::Status;

  bool Fail(const std::string& what) {
    part_.message = what;
    return false;
  }

  bool Evaluate() {
    is_mended_ = false;
    return solver_.Evaluate(&part_, x_);
  }

  Status FactorizeDamped(double damping) {
    Stopwatch watch(&part_.counts.seconds_in_linear_algebra);
    ++part_.counts.factorizations;
    if (damping > kSingularDamping) ++part_.counts.damped_factorizations;
    const Status status = part_.system.factorization().Factorize(part_.yy, damping, part_.Fixed());
    const bool is_positive = status == Status::kPositiveDefinite;
    part_.kept = damping <= kSingularDamping && !is_mended_ && is_positive;
    part_.factorized = damping == 0.0 && is_positive;
    return status;
  }

  // The Hessian, or what is positive definite in its place. False: there is none.
  bool Factorize() {
    solver_.FindActive(&part_);
    Status status = FactorizeDamped(damping_);
    if (damping_ == 0.0 && status == Status::kNotPositiveDefinite) {
      // Singular, perhaps: a little damping is then enough.
      status = FactorizeDamped(kSingularDamping);
      if (status == Status::kPositiveDefinite) {
        floor_ = damping_ = kSingularDamping;
        part_.singular = true;
      }
    }
    is_indefinite_ = is_mended_ || status != Status::kPositiveDefinite;
    // A robust loss makes few blocks indefinite: mending those leaves the others their full steps.
    if (status == Status::kNotPositiveDefinite && MakeBlocksPositiveDefinite(space_, &part_.yy)) {
      is_mended_ = true;
      part_.evaluated = false;
      damping_ = std::max(damping_, kSingularDamping);
      status = FactorizeDamped(damping_);
    }
    while (status != Status::kPositiveDefinite) {
      if (status == Status::kNotFinite || damping_ > kMostDamping) {
        return Fail("its Hessian is not finite");
      }
      damping_ = std::max(kFirstDamping, 4.0 * damping_);  // More would creep off a saddle.
      status = FactorizeDamped(damping_);
      if (!may_run_ceres_ || damping_ < kFarDamping) continue;
      // The prediction was poor: Ceres' steps are cheaper than a chain of strongly damped ones.
      may_run_ceres_ = false;
      if (!solver_.RunCeres(&part_)) continue;
      if (!Evaluate()) return false;
      solver_.FindActive(&part_);
      damping_ = floor_;
      status = FactorizeDamped(damping_);
      is_indefinite_ = status != Status::kPositiveDefinite;
    }
    return true;
  }

  // Newton's, and its decrement.
  void Step() {
    {
      Stopwatch watch(&part_.counts.seconds_in_linear_algebra);
      part_.system.factorization().Solve(part_.gradient, &part_.step);
    }
    part_.step = -part_.step;
    decrement2_ = -part_.gradient.dot(part_.step);
    part_.decrement = std::sqrt(std::max(0.0, decrement2_));
    part_.SetRelativeDecrement();
    rounding_ = part_.Rounding();
    summands_ = part_.Summands(rounding_);
  }

  bool IsStationary() {
    // A step longer than the tolerance asks for one more, where it is not noise of an
    // ill-conditioned system.
    const double length = part_.singular ? 0.0 : part_.RelativeStep();
    const bool is_long = !is_indefinite_ && damping_ <= floor_ &&
                         length > kStepTolerances * solver_.tolerance_ &&
                         length < 0.5 * previous_length_ && iteration_ < max_num_iterations_;
    const bool is_linear = is_full_step_ && length > kLeastRate * previous_length_ &&
                           length < kMostRate * previous_length_;
    num_linear_ = is_linear ? num_linear_ + 1 : 0;
    previous_length_ = length;
    if (is_long) return false;
    const double unit = part_.Unit();
    if (part_.decrement <= std::max(solver_.tolerance_ * unit, rounding_)) return true;
    return is_full_step_ && HasStalled(part_.decrement,
                                       previous_decrement_,
                                       kStalledTolerances * solver_.options_.tolerance * unit,
                                       rounding_);
  }

  // At a stationary point that is no minimum: a bound may hold it there; from a cold start any
  // other is left along its negative curvature as well. Warm, y follows its branch to the end and
  // no further. False: there is no way.
  bool LeaveMaximum() {
    if (!has_left_bounds_ && part_.LeaveBounds()) {
      has_left_bounds_ = true;
    } else if (may_run_ceres_ || ++num_left_ > kMostLeft || !FindNegativeCurvature() ||
               !Leave({1.0, -1.0})) {
      return Fail("its stationary point is a saddle: the Hessian has a negative eigenvalue there");
    }
    is_full_step_ = false;
    damping_ = floor_;
    return Evaluate();
  }

  // Newton's steps shrink by a constant factor where the Hessian becomes singular: to a minimum, or
  // to an inflection approached from its convex side. True: it was one, and y is beyond it.
  bool LeaveInflection() {
    if (num_linear_ < kLinearSteps || num_left_ >= kMostLeft || !Leave({1.0})) return false;
    ++num_left_;
    num_linear_ = 0;
    is_full_step_ = false;
    return true;
  }

  // The step's direction <- one along which g curves down the most, by inverse iteration with the
  // damped matrix. False: g does not.
  bool FindNegativeCurvature() {
    Vector& v = part_.step;
    // Blocks that were mended hide what is looked for.
    if (is_mended_ && !Evaluate()) return false;
    double damping = std::max(damping_, kFirstDamping);
    while (FactorizeDamped(damping) != Status::kPositiveDefinite) {
      if ((damping *= 4.0) > kMostDamping) return false;
    }
    for (int j = 0; j < v.size(); ++j) v[j] = std::cos(1.0 + j);  // In no special position.
    for (int k = 0; k < kInverseIterations; ++k) {
      part_.system.factorization().Solve(Vector(v / v.norm()), &v);
    }
    v.normalize();
    if (!v.allFinite()) return false;
    part_.product = part_.yy.selfadjointView<Eigen::Lower>() * v;
    return v.dot(part_.product) < 0.0;
  }

  // y moves along the step's direction, to those sides of it, to where the value is least of what
  // is looked at, if it falls there at all.
  bool Leave(std::initializer_list<double> sides) {
    const Vector direction = part_.step.normalized();
    const double size = 1.0 + part_.y.value().norm();
    double least = part_.value - RoundingOfValue(summands_), value = 0.0;
    Point best;
    for (const double side : sides) {
      for (const double way : {1e-1, 1e-2, 1e-3}) {
        part_.trial.value() = part_.y.value();
        if (!part_.trial.Move(side * way * size * direction) ||
            !part_.g.Value(x_, part_.trial.value().data(), Batch::All(), &value)) {
          continue;
        }
        if (!(value < least)) continue;
        least = value;
        best = part_.trial;
      }
    }
    if (!(least < part_.value - RoundingOfValue(summands_))) return false;
    part_.y.value() = best.value();
    return true;
  }

  bool FailToArrive() {
    Fail("no stationary point after " + std::to_string(iteration_) +
         " Newton iterations (relative decrement " + Scientific(part_.relative_decrement) + ")" +
         trouble_);
    const double norm = part_.y.value().norm();
    if (norm > kUnbounded * (1.0 + first_norm_)) {
      part_.message += "; it seems unbounded below: y has grown to a norm of " + Number(norm);
    }
    return false;
  }

  void ClampStep() {
    if (!space_.has_bounds()) return;
    for (int j = 0; j < space_.tangent_size(); ++j) {
      const int i = space_.AmbientIndex(j);
      if (i < 0) continue;
      const double value = part_.y.value()[i];
      part_.step[j] = std::min(std::max(part_.step[j], space_.LowerBound(j) - value),
                               space_.UpperBound(j) - value);
    }
  }

  // Looks at the step within the bounds: whether it is as good as the quadratic model expects.
  bool Try() {
    ClampStep();
    part_.product = part_.yy.selfadjointView<Eigen::Lower>() * part_.step;
    const double expected = -part_.gradient.dot(part_.step) - 0.5 * part_.step.dot(part_.product);
    part_.trial.value() = part_.y.value();
    is_usable_ = expected > 0.0 && part_.trial.Move(part_.step);
    if (is_usable_) {
      Stopwatch watch(&part_.counts.seconds_in_evaluation);
      is_usable_ = part_.g.Value(x_, part_.trial.value().data(), Batch::All(), &trial_value_);
      trouble_ = is_usable_ ? "" : "; " + part_.g.error();
    }
    // Below the rounding of the value itself, the decrement decides.
    is_hidden_ =
        IsHiddenInValue(decrement2_, summands_) || IsNearRounding(part_.decrement, rounding_);
    ratio_ = is_usable_ ? (part_.value - trial_value_) / expected : -1.0;
    const double allowance = is_hidden_ ? RoundingOfValue(summands_) + decrement2_ : 0.0;
    return is_usable_ &&
           (ratio_ > kSufficient || (is_hidden_ && trial_value_ <= part_.value + allowance));
  }

  void Accept() {
    is_full_step_ = damping_ <= floor_;
    previous_decrement_ = part_.decrement;
    std::swap(part_.y, part_.trial);
    if (ratio_ > 0.75 || is_hidden_) {
      damping_ /= 100.0;
      if (damping_ < std::max(kLeastDamping, floor_)) damping_ = floor_;
    } else if (ratio_ < 0.25) {
      damping_ = std::max(kFirstDamping, 4.0 * damping_);
    }
  }

  // False: no step is short enough.
  bool Reject() {
    is_full_step_ = false;
    damping_ = std::max(kFirstDamping, 10.0 * damping_);
    if (damping_ <= kMostDamping) return true;
    return Fail(is_usable_ ? "no step decreases its cost"
                           : "it cannot be evaluated near y: " + part_.g.error());
  }

  NewtonLowerSolver& solver_;
  PerScenario& part_;
  const double* x_;
  const Space& space_;
  bool may_run_ceres_;
  const int max_num_iterations_;
  const double first_norm_;
  double floor_, damping_;
  int iteration_ = 0;
  bool has_left_bounds_ = false;
  int num_left_ = 0;    // Saddles and inflections.
  int num_linear_ = 0;  // Full steps in a row that have shrunk by a constant factor.

  // Of the matrix factorised.
  bool is_mended_ = false;  // It is not the Hessian any more.
  bool is_indefinite_ = false;

  // Of the step from y, and of its trial.
  double decrement2_ = 0.0, rounding_ = 0.0, summands_ = 0.0;
  double trial_value_ = 0.0, ratio_ = 0.0;
  bool is_usable_ = false, is_hidden_ = false;
  std::string trouble_;

  // Of the step to y.
  bool is_full_step_ = false;
  double previous_decrement_ = std::numeric_limits<double>::infinity();
  double previous_length_ = previous_decrement_;
};

bool NewtonLowerSolver::Newton(PerScenario* part, const double* x, bool may_run_ceres) {
  return PerScenario::DampedNewton(this, part, x, may_run_ceres).Run();
}

}  // namespace bilevel
