// Newton's steps of one scenario.
#include "bilevel/lower_level/internal/damped_newton.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"

namespace bilevel {
namespace {

// An indefinite Hessian that needs more than this is far from a minimum.
constexpr double kFarDamping = 1e-2;
// The last step is to be at most so many tolerances long, relative to y.
constexpr double kStepTolerances = 100.0;
// Full steps in a row that shrink by factors between these show a singular Hessian ahead.
constexpr double kLeastRate = 0.3, kMostRate = 0.8;
constexpr double kParallel = 0.9;
constexpr double kGood = 0.75;  // Of the decrease that a step is expected to bring.
constexpr int kMostDoublings = 20, kMostHalvings = 6;
// As long as they do, so many times the iterations.
constexpr int kMoreIterations = 4;

}  // namespace

bool DampedNewton::Run() {
  part_.ran_out = false;
  part_.noise.Forget();
  if (solver_.Follow(&part_, x_)) return true;
  if (!Evaluate()) return false;
  for (;; ++iteration_) {
    if (solver_.program_->IsLate()) return Fail(Program::kTimeIsOver);
    if (!Factorize()) return false;
    Step();
    const bool creeps = is_full_step_ && part_.decrement > 0.5 * previous_decrement_;
    if (part_.singular && creeps && !std::exchange(has_finished_, true)) {
      if (!FinishWeakDirections() || !Evaluate()) return false;
      continue;
    }
    if (IsStationary()) {
      if (!is_indefinite_ && damping_ <= floor_) {
        if (!LeaveInflection()) return FinishWeakDirections();
        if (!Evaluate()) return false;
        continue;
      }
      if (is_indefinite_) {
        if (!LeaveMaximum()) return false;
        continue;
      }
      // The undamped Hessian is to be looked at, and another step; the same once only.
      if (std::exchange(has_looked_undamped_, true)) {
        num_since_best_ = kStepsInNoise;
        return FailToArrive("no undamped step decreases its cost");
      }
      damping_ = floor_;
      is_full_step_ = false;
      if (iteration_ < max_num_iterations_) continue;
    }
    KeepBest();
    if (iteration_ >= (IsLinear() ? kMoreIterations : 1) * max_num_iterations_) {
      return FailToArrive("no stationary point");
    }
    if (Try()) {
      Accept();
      // Towards an inflection too, which it would take for an end.
      if (is_full_step_ && num_linear_ == 0 && solver_.Follow(&part_, x_)) return true;
      if (!Evaluate()) return false;
    } else if (!Reject()) {
      return false;
    }
  }
}

bool DampedNewton::Fail(const std::string& what) {
  part_.message = what;
  return false;
}

bool DampedNewton::Evaluate() { return solver_.Evaluate(&part_, x_); }

DampedNewton::Status DampedNewton::FactorizeDamped(double damping) {
  Stopwatch watch(&part_.counts.seconds_in_linear_algebra);
  ++part_.counts.factorizations;
  if (damping > kSingularDamping) ++part_.counts.damped_factorizations;
  const Status status = part_.system.factorization().Factorize(part_.yy, damping, part_.Fixed());
  const bool is_positive = status == Status::kPositiveDefinite;
  part_.kept = damping <= kSingularDamping && is_positive;
  part_.factorized = damping == 0.0 && is_positive;
  return status;
}

bool DampedNewton::Factorize() {
  for (;;) {
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
    is_indefinite_ = status != Status::kPositiveDefinite;
    bool is_far = false;
    while (status != Status::kPositiveDefinite) {
      if (status == Status::kNotFinite || damping_ > kMostDamping) {
        return Fail("its Hessian is not finite");
      }
      is_far = damping_ >= kFarDamping && MayApproach();
      if (is_far) break;
      damping_ = std::max(kFirstDamping, 4.0 * damping_);  // More would creep off a saddle.
      status = FactorizeDamped(damping_);
    }
    if (!is_far) return true;
    if (!Approach() || !Evaluate()) return false;
  }
}

void DampedNewton::Step() {
  {
    Stopwatch watch(&part_.counts.seconds_in_linear_algebra);
    part_.system.factorization().Solve(part_.gradient, &part_.step);
  }
  part_.step = -part_.step;
  decrement2_ = -part_.gradient.dot(part_.step);
  part_.decrement = std::sqrt(std::max(0.0, decrement2_));
  part_.SetRelativeDecrement();
  rounding_ = part_.Rounding();
  summands_ = std::max(part_.Summands(rounding_), part_.noise.largest() / kEpsilon);
}

bool DampedNewton::IsStationary() {
  // A step longer than the tolerance asks for one more, where it is not noise of an
  // ill-conditioned system.
  const double length = part_.singular ? 0.0 : part_.RelativeStep();
  const bool is_long = !is_indefinite_ && damping_ <= floor_ &&
                       length > kStepTolerances * solver_.tolerance_ &&
                       length < 0.5 * previous_length_ && iteration_ < max_num_iterations_;
  const bool is_linear = is_full_step_ && length > kLeastRate * previous_length_ &&
                         length < kMostRate * previous_length_;
  num_linear_ = is_linear ? num_linear_ + 1 : 0;
  if (damping_ <= floor_ && !is_indefinite_) KeepDrift();
  previous_length_ = length;
  if (is_long) return false;
  const double unit = part_.Unit();
  if (part_.decrement <= std::max(solver_.tolerance_ * unit, kUnderflow)) return true;
  if (part_.RunsAway()) return false;
  if (part_.decrement <= rounding_) return true;
  if (is_full_step_ && HasArrived()) return true;
  // A degenerate minimum: steps and value shrink together, for ever.
  if (IsLinear() && !part_.singular && length <= solver_.tolerance_) return true;
  // A decrease that the value shows is no noise.
  return is_full_step_ && is_hidden_ && part_.RelativeStep() <= kLongestStalled &&
         HasStalled(part_.decrement,
                    previous_decrement_,
                    kStalledTolerances * solver_.options_.tolerance * unit +
                        std::sqrt(part_.noise.largest()),
                    rounding_) &&
         IsInNoise(part_.decrement,
                   [&](double share, double* off) { return OffStraightLine(share, off); });
}

bool DampedNewton::HasArrived() const {
  const Vector &from = part_.start.value(), &to = part_.y.value();
  for (const Space::Block& block : space_.blocks()) {
    const double way = (to.segment(block.offset, block.size) -  //
                        from.segment(block.offset, block.size))
                           .norm();
    const double size = to.segment(block.offset, block.size).norm();
    if (part_.step.segment(block.tangent_offset, block.tangent_size).norm() >
        kRoundingOfPoint * std::max(way, size)) {
      return false;
    }
  }
  return true;
}

bool DampedNewton::OffStraightLine(double share, double* off) {
  part_.trial.value() = part_.y.value();
  double unused = 0.0;
  if (!part_.trial.Move(share * part_.step) || !part_.g.Gradient(x_,
                                                                 part_.trial.value().data(),
                                                                 Batch::All(),
                                                                 &unused,
                                                                 nullptr,
                                                                 part_.trial_gradient.data())) {
    return false;
  }
  part_.trial_gradient -= (1.0 - share) * part_.gradient;
  part_.system.factorization().Solve(part_.trial_gradient, &part_.product);
  *off = std::sqrt(std::max(0.0, part_.trial_gradient.dot(part_.product)));
  return true;
}

void DampedNewton::KeepDrift() {
  const double before = std::exchange(drift_length_, part_.RelativeStep());
  const bool is_parallel =
      drift_.size() > 0 && drift_.dot(part_.step) > kParallel * drift_.norm() * part_.step.norm();
  num_drifting_ = is_parallel && drift_length_ > kMostRate * before ? num_drifting_ + 1 : 0;
  drift_ = part_.step;
}

void DampedNewton::ClampStep() {
  if (!space_.has_bounds()) return;
  for (int j = 0; j < space_.tangent_size(); ++j) {
    const int i = space_.AmbientIndex(j);
    if (i < 0) continue;
    const double value = part_.y.value()[i];
    part_.step[j] = std::min(std::max(part_.step[j], space_.LowerBound(j) - value),
                             space_.UpperBound(j) - value);
  }
}

// A step to a bound may end an ulp beside it, where the bound is not active.
void DampedNewton::SnapToBounds() {
  if (!space_.has_bounds()) return;
  for (int j = 0; j < space_.tangent_size(); ++j) {
    const int i = space_.AmbientIndex(j);
    if (i < 0) continue;
    double& value = part_.trial.value()[i];
    const double near = kRoundingOfPoint * std::abs(part_.step[j]);
    for (const double bound : {space_.LowerBound(j), space_.UpperBound(j)}) {
      if (!std::isfinite(bound)) continue;
      if (std::abs(value - bound) <= near + kEpsilon * std::abs(bound)) value = bound;
    }
  }
}

bool DampedNewton::Try() {
  ClampStep();
  part_.product = part_.yy.selfadjointView<Eigen::Lower>() * part_.step;
  const double expected = -part_.gradient.dot(part_.step) - 0.5 * part_.step.dot(part_.product);
  part_.trial.value() = part_.y.value();
  is_usable_ = expected > 0.0 && part_.trial.Move(part_.step);
  SnapToBounds();
  if (is_usable_) {
    Stopwatch watch(&part_.counts.seconds_in_evaluation);
    is_usable_ = part_.g.Value(x_, part_.trial.value().data(), Batch::All(), &trial_value_);
    trouble_ = is_usable_ ? "" : "; " + part_.g.error();
  }
  ratio_ = is_usable_ ? (part_.value - trial_value_) / expected : -1.0;
  is_short_ = false;
  if (!is_usable_) return Shorten();
  if (IsGood()) {
    Extend();
    return true;
  }
  part_.noise.At(x_, part_.y.value().data());
  if (part_.noise.At(x_, part_.trial.value().data()) == 0.0) return Shorten();
  summands_ = std::max(summands_, part_.noise.largest() / kEpsilon);
  return IsGood() || Shorten();
}

// Newton's own direction leads down: along it one factorisation serves several trials, and a weak
// direction is not held up by a damping that is more than its curvature.
bool DampedNewton::Shorten() {
  if (is_indefinite_ || damping_ > floor_ || is_hidden_) return false;
  const double slope = part_.gradient.dot(part_.step);
  for (int k = 0; k < kMostHalvings; ++k) {
    part_.step *= 0.5;
    const double least = kSufficientDecrease * std::ldexp(slope, -k - 1);
    part_.trial.value() = part_.y.value();
    if (!part_.trial.Move(part_.step)) continue;
    SnapToBounds();
    Stopwatch watch(&part_.counts.seconds_in_evaluation);
    is_short_ = part_.g.Value(x_, part_.trial.value().data(), Batch::All(), &trial_value_) &&
                trial_value_ < part_.value + least;
    if (is_short_) return true;
  }
  return false;
}

// Where the curvature is made up it may be far too large, and y would creep, as from a saddle: a
// step as good as expected goes on for as long as the value falls, at most as far as y is large.
void DampedNewton::Extend() {
  if (!is_indefinite_ || is_hidden_ || ratio_ < kGood) return;
  for (int k = 0; k < kMostDoublings; ++k) {
    part_.step *= 2.0;
    if (part_.RelativeStep() > 1.0) return;
    ClampStep();
    part_.beyond.value() = part_.y.value();
    double value = 0.0;
    if (!part_.beyond.Move(part_.step)) return;
    std::swap(part_.trial, part_.beyond);
    SnapToBounds();
    Stopwatch watch(&part_.counts.seconds_in_evaluation);
    if (!part_.g.Value(x_, part_.trial.value().data(), Batch::All(), &value) ||
        !(value < trial_value_)) {
      std::swap(part_.trial, part_.beyond);
      return;
    }
    trial_value_ = value;
  }
}

bool DampedNewton::IsGood() {
  // Below the rounding of the value itself, the decrement decides; and where the value stays.
  is_hidden_ = IsHiddenInValue(decrement2_, summands_) ||
               IsNearRounding(part_.decrement, rounding_) ||
               (trial_value_ == part_.value && !is_indefinite_ && damping_ <= floor_);
  const double allowance = is_hidden_ ? RoundingOfValue(summands_) + decrement2_ : 0.0;
  return ratio_ > kSufficientDecrease || (is_hidden_ && trial_value_ <= part_.value + allowance);
}

void DampedNewton::Accept() {
  is_full_step_ = damping_ <= floor_ && !is_short_;
  has_looked_undamped_ = false;
  previous_decrement_ = part_.decrement;
  std::swap(part_.y, part_.trial);
  if (is_short_) return;
  if (ratio_ > kGood || is_hidden_) {
    damping_ /= 100.0;
    if (damping_ < std::max(kLeastDamping, floor_)) damping_ = floor_;
  } else if (ratio_ < 0.25) {
    damping_ = std::max(kFirstDamping, 4.0 * damping_);
  }
}

bool DampedNewton::Reject() {
  is_full_step_ = false;
  damping_ = std::max(kFirstDamping, 10.0 * damping_);
  if (damping_ <= kMostDamping) return true;
  return is_usable_ ? FailToArrive("no step decreases its cost")
                    : Fail("it cannot be evaluated near y: " + part_.g.error());
}

bool NewtonLowerSolver::Newton(PerScenario* part, const double* x, bool is_warm) {
  return DampedNewton(this, part, x, is_warm).Run();
}

}  // namespace bilevel
