#include "bilevel/methods/hyper_objective/newton.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/memory.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"
#include "bilevel/methods/hyper_objective/internal/cubic_model.h"
#include "bilevel/methods/internal/evidence.h"
#include "bilevel/methods/internal/surroundings.h"
#include "bilevel/oracle/hyper_hessian.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

// Digits enough for a step. It is phi that judges a step: beside a kink what there is will do.
constexpr HyperHessian::Options kForSteps = {1e-6, kInfinity};
// The first sigma is this small a share of phi's curvature, unless a step is then too long.
constexpr double kFirstSigma = 1e-6;
// No step is so many times as long as the one before.
constexpr double kMostGrowth = 10.0;

}  // namespace

// The run of one solve.
class Newton::Run {
 public:
  Run(const Options& options, Oracle& oracle, State& state, Monitor* monitor, std::string* message)
      : options_(options),
        oracle_(oracle),
        state_(state),
        monitor_(*monitor),
        message_(*message),
        phi_(&oracle, state.y),
        hessian_(&oracle, kForSteps),
        held_(state.x.dim()),
        longest_(options.longest_first_step) {
    phi_.set_use_tangent(false);  // dy*/dx is there.
  }

  Outcome Minimize() {
    const Monitor::Remember remember = [this](Memory* memory) { return Remember(memory); };
    if (!monitor_.Resume(&state_, remember)) {
      if (!phi_.Evaluate(state_.x, &value_, &gradient_)) {
        message_ = phi_.message();
        return Outcome::kFailure;
      }
      first_value_ = value_;
      Report();
      if (!outcome_) Differentiate();
    }
    while (!outcome_) {
      if (!monitor_.Rest(&state_, remember)) return Outcome::kNoConvergence;
      if (!Step()) continue;
      Report();
      if (!outcome_ && !WasLastStep()) Differentiate();
    }
    return *outcome_;
  }

 private:
  // x is an answer, unless phi falls where B does not tell: then the run goes on from there.
  void Converge(const std::string& message) {
    if (free_.empty() || !FallsWhereUndecided()) End(Outcome::kConverged, message);
  }

  void End(Outcome outcome, const std::string& message) {
    outcome_ = outcome;
    message_ = message;
  }

  bool Remember(Memory* memory) {
    memory->Keep("first_value", &first_value_);
    memory->Keep("value", &value_);
    memory->Keep("gradient", &gradient_);
    memory->Keep("held", &held_);
    memory->Keep("second_derivative", &b_);
    memory->Keep("dy_dx", &dy_dx_);
    memory->Keep("sigma", &sigma_);
    memory->Keep("longest", &longest_);
    phi_.Remember(memory);
    if (memory->recalls()) MakeModel();
    return true;
  }

  void Report() {
    phi_.Accept();
    state_.y = phi_.y();
    Progress progress;
    progress.objective = value_;
    progress.gradient_max_norm = ProjectedMaxNorm(state_.x, gradient_);
    progress.step_norm = step_norm_;
    if (is_hidden_) progress.keep = Progress::kAlways;  // phi is rounding: the gradient has told.
    if (!monitor_.Report(state_, progress)) outcome_ = Outcome::kNoConvergence;
    ++oracle_.iteration;
  }

  // B at x, and whether x is where the run is to end.
  void Differentiate() {
    const bool is_small = ProjectedMaxNorm(state_.x, gradient_) <= monitor_.gradient_tolerance();
    for (int j = 0; j < state_.x.dim(); ++j) {
      held_[j] = state_.x.space().IsHeld(state_.x.value().data(), j, gradient_[j]);
    }
    if (!hessian_.Evaluate(state_.x, state_.y, held_, &b_)) {
      oracle_.Clear();
      const std::string why = "there is no second derivative of phi: " + hessian_.message();
      return is_small ? End(Outcome::kConverged,
                            "the projected gradient is below the gradient tolerance; " + why)
                      : End(Outcome::kFailure, why);
    }
    dy_dx_ = hessian_.dy_dx();
    MakeModel();
    if (is_small && (free_.empty() || model_->is_convex())) {
      Converge(
          "the projected gradient is below the gradient tolerance, and phi curves nowhere down");
    }
  }

  // Whether phi falls along a direction of so little curvature that the model does not tell. If so,
  // x goes there.
  bool FallsWhereUndecided() {
    const Matrix undecided = model_->undecided_directions();
    Matrix directions = Matrix::Zero(state_.x.dim(), undecided.cols());
    directions(free_, Eigen::all) = undecided;
    Surroundings around(&oracle_, &phi_, state_, value_, Negligible(0.0, value_, first_value_));
    if (!around.FallsAlongAny(directions) || around.seems_unbounded()) return false;
    State there = around.lowest_state();
    double value;
    Vector gradient, step(state_.x.dim());
    if (!phi_.Evaluate(there.x, &value, &gradient, &there.y.value()) ||
        !there.x.space().Minus(there.x.value().data(), state_.x.value().data(), step.data())) {
      return false;
    }
    MoveTo(there.x, step.norm(), value, &gradient);
    Report();
    if (!outcome_) Differentiate();
    return true;
  }

  // m, of the coordinates that no bound holds.
  void MakeModel() {
    free_.clear();
    for (int j = 0; j < state_.x.dim(); ++j) {
      if (!held_[j]) free_.push_back(j);
    }
    state_.flat_directions.clear();
    if (free_.empty()) return;
    model_.emplace(gradient_(free_), b_(free_, free_), monitor_.gradient_tolerance());
    const Matrix flat = model_->flat_directions();
    for (int i = 0; i < flat.cols(); ++i) {
      Vector direction = Vector::Zero(state_.x.dim());
      direction(free_) = flat.col(i);
      state_.flat_directions.push_back(NameDirection(state_.x.space(), direction));
    }
  }

  // Its minimiser of a length up to `longest`, by as large a sigma as that takes.
  Vector Minimize(double longest) {
    if (!(sigma_ > 0.0)) {
      sigma_ = kFirstSigma * std::max(model_->largest_curvature() / longest,
                                      gradient_(free_).norm() / (longest * longest));
    }
    Vector s = model_->Minimize(sigma_);
    for (; s.norm() > longest && std::isfinite(sigma_); s = model_->Minimize(sigma_)) {
      sigma_ *= options_.gamma;
    }
    return s;
  }

  // One that decreases phi. False: the run has ended, or gone on where B did not tell.
  bool Step() {
    std::string refusal;
    double longest = longest_;
    for (int trial = 0; trial < options_.max_num_trials; ++trial) {
      const Vector full = Minimize(longest);
      longest = 0.5 * full.norm();
      Point x, y = state_.y;
      Vector step;
      double expected = 0.0;
      // Bounds make it another.
      const auto take = [&](const Vector& s) {
        x = state_.x;
        step.setZero(x.dim());
        step(free_) = s;
        if (!x.Move(step) ||
            !x.space().Minus(x.value().data(), state_.x.value().data(), step.data())) {
          return false;
        }
        expected = -model_->Change(step(free_), sigma_);
        return step.norm() > 0.0 && expected > 0.0;
      };
      // Where phi curves down without a slope, the other side will do.
      if (!take(full) && !take(-full)) continue;
      oracle_.program().MoveY(dy_dx_ * step, &y);
      double value;
      Vector gradient;
      if (!phi_.Evaluate(x, &value, &gradient, &y.value())) {
        refusal = phi_.message();
        monitor_.Reject(refusal);
        continue;
      }
      const double rho = (value_ - value) / expected;
      is_hidden_ = expected < kHiddenInPhi * std::abs(value_) &&
                   std::abs(value - value_) < kRoundingOfPhi * std::abs(value_);
      if (is_hidden_ &&
          !(ProjectedMaxNorm(x, gradient) < 0.5 * ProjectedMaxNorm(state_.x, gradient_))) {
        Converge("further steps are lost in the rounding of phi");
        return false;
      }
      if (!is_hidden_ && !(rho >= options_.eta_1)) continue;
      if (is_hidden_ || rho > options_.eta_2) sigma_ /= options_.gamma;
      promised_ = model_->is_convex() ? model_->NewtonDecrease() : kInfinity;
      is_newtons_ = expected >= 0.5 * promised_;
      MoveTo(x, step.norm(), value, &gradient);
      return true;
    }
    GiveUp(refusal);
    return false;
  }

  void MoveTo(const Point& x, double step_norm, double value, Vector* gradient) {
    step_norm_ = step_norm;
    longest_ = kMostGrowth * step_norm;
    state_.x = x;
    value_ = value;
    std::swap(gradient_, *gradient);
  }

  void GiveUp(const std::string& refusal) {
    const double promised = model_->is_convex() ? model_->NewtonDecrease() : kInfinity;
    if (promised <= Negligible(0.0, value_, first_value_)) {
      Converge("no step decreases phi, and Newton's was expected to by " + Scientific(promised) +
               " only");
    } else if (ProjectedMaxNorm(state_.x, gradient_) <= monitor_.gradient_tolerance()) {
      Converge(
          "the projected gradient is below the gradient tolerance, and phi falls nowhere that "
          "bounds leave");
    } else {
      End(Outcome::kFailure,
          refusal.empty() ? "no step along phi's model decreases it"
                          : "no trial could be evaluated: " + refusal);
    }
  }

  // By what Newton's step has promised: one that sigma or a bound has kept short says little.
  bool WasLastStep() {
    const double tolerance = monitor_.parameter_tolerance();
    if (promised_ <= Negligible(monitor_.function_tolerance(), value_, first_value_)) {
      Converge(
          "the relative change of phi that Newton's step promised was below the function "
          "tolerance");
      return true;
    }
    if (is_newtons_ && step_norm_ <= tolerance * (state_.x.value().norm() + tolerance)) {
      Converge("the relative step is below the parameter tolerance");
      return true;
    }
    return false;
  }

  const Options& options_;
  Oracle& oracle_;
  State& state_;
  Monitor& monitor_;
  std::string& message_;
  HyperObjective phi_;
  HyperHessian hessian_;

  double first_value_ = 0.0;
  double value_ = 0.0;  // At state_.x, as all these.
  Vector gradient_;
  std::vector<char> held_;  // By bounds that the gradient pushes against.
  Matrix b_, dy_dx_;
  std::vector<int> free_;  // The other coordinates, and phi's model in them.
  std::optional<CubicModel> model_;

  double sigma_ = 0.0;                                            // Not known yet.
  double longest_;                                                // Step to come.
  double step_norm_ = Progress::kUnknown, promised_ = kInfinity;  // Of the last step.
  bool is_newtons_ = false;                                       // But for a little.
  bool is_hidden_ = false;          // phi could not tell it from rounding.
  std::optional<Outcome> outcome_;  // Once the run has ended.
};

std::string Newton::Check(const Oracle& oracle) {
  const std::string wrong =
      FirstNotPositive({{"newton.longest_first_step", options_.longest_first_step},
                        {"newton.eta_1", options_.eta_1},
                        {"newton.eta_2", options_.eta_2},
                        {"newton.max_num_trials", options_.max_num_trials}});
  if (!wrong.empty()) return wrong;
  if (!(options_.gamma > 1.0)) return "newton.gamma must be larger than 1";
  if (!(options_.eta_1 <= options_.eta_2 && options_.eta_2 < 1.0)) {
    return "newton.eta_1 must be at most newton.eta_2, and that less than 1";
  }
  return oracle.lower().WhyNoSecondDerivative();
}

Method::Outcome Newton::Minimize(Oracle& oracle,
                                 State& state,
                                 Monitor* monitor,
                                 std::string* message) {
  return Run(options_, oracle, state, monitor, message).Minimize();
}

}  // namespace bilevel
