// Where Newton's steps do not end at a minimum: saddles, inflections, noise, and nowhere.
#include "bilevel/lower_level/internal/damped_newton.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/name_blocks.h"
#include "bilevel/lower_level/internal/rise_before_fall.h"

namespace bilevel {
namespace {

// So many saddles and inflections are left on the way.
constexpr int kMostLeft = 10;
// A coordinate on which the value curves by less than this share of it may be at an inflection.
constexpr double kFlat = 1e-4;
constexpr int kInverseIterations = 30;
constexpr double kNearlySolved = 1e-3;  // Nearer than this steps may show noise.
constexpr int kDriftingSteps = 4;
constexpr int kMostWeakSteps = 10;
constexpr double kArriving = 0.3;  // Towards an inflection the decrement shrinks by 2^-1.5.
// y that has grown by this factor seems to have no minimum to go to.
constexpr double kUnbounded = 1e6;

}  // namespace

bool DampedNewton::LeaveMaximum() {
  if (!has_left_bounds_ && part_.LeaveBounds()) {
    has_left_bounds_ = true;
  } else if (is_warm_ || ++num_left_ > kMostLeft || !FindNegativeCurvature() ||
             !Leave({1.0, -1.0})) {
    return Fail("its stationary point is a saddle: the Hessian has a negative eigenvalue there" +
                Growth());
  }
  is_full_step_ = false;
  damping_ = floor_;
  return Evaluate();
}

bool DampedNewton::LeaveInflection() {
  if (num_left_ >= kMostLeft) return false;
  bool has_left = IsLinear() && Leave({1.0});
  if (const int j = FlattestCoordinate(); !has_left && j >= 0) {
    part_.step = Vector::Unit(part_.step.size(), j);
    has_left = Leave({1.0, -1.0});
  }
  if (!has_left) return false;
  ++num_left_;
  num_linear_ = 0;
  is_full_step_ = false;
  return true;
}

// -1: no coordinate is flat. Only one is looked at: each costs evaluations, and there may be many.
int DampedNewton::FlattestCoordinate() const {
  int flattest = -1;
  double least = kFlat * std::abs(part_.value);
  for (int j = 0; j < part_.step.size(); ++j) {
    const int i = space_.AmbientIndex(j);
    if (i < 0 || (part_.any_fixed && part_.fixed[j])) continue;
    const double size = 1.0 + std::abs(part_.y.value()[i]);
    const double curvature = part_.yy.valuePtr()[part_.yy.outerIndexPtr()[j]] * size * size;
    if (curvature > least) continue;
    least = curvature;
    flattest = j;
  }
  return flattest;
}

bool DampedNewton::FindNegativeCurvature() {
  Vector& v = part_.step;
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

bool DampedNewton::Leave(std::initializer_list<double> sides) {
  const Vector direction = part_.step.normalized();
  const double size = 1.0 + part_.y.value().norm();
  double least = part_.value - RoundingOfValue(summands_), length = 0.0, value = 0.0;
  double side_of_best = 1.0;
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
      length = way * size;
      side_of_best = side;
      best = part_.trial;
    }
  }
  if (length == 0.0) return false;
  part_.product = part_.yy.selfadjointView<Eigen::Lower>() * direction;
  const double rise = RiseBeforeFall(side_of_best * direction.dot(part_.gradient),
                                     direction.dot(part_.product),
                                     length,
                                     part_.value - least);
  if (rise > RoundingOfValue(std::max(summands_, std::abs(least)))) return false;
  part_.y.value() = best.value();
  return true;
}

std::string DampedNewton::Growth() const {
  const double norm = part_.y.value().norm();
  if (norm <= kUnbounded * (1.0 + first_norm_)) return "";
  return "; it seems unbounded below: y has grown to a norm of " + Number(norm);
}

bool DampedNewton::FailToArrive(const std::string& what) {
  const std::string growth = Growth();
  TakeBest();
  Fail(what + " after " + std::to_string(iteration_) + " Newton iterations (relative decrement " +
       Scientific(part_.relative_decrement) + ")" + trouble_);
  if (!growth.empty()) {
    part_.message += growth;
    return false;
  }
  part_.ran_out = true;
  if (num_drifting_ >= kDriftingSteps && drift_length_ > kLongestStalled) {
    const double whole = drift_.squaredNorm();
    const std::string names = NameBlocks(space_, whole, [&](const Space::Block& block) {
      const auto own = drift_.segment(block.tangent_offset, block.tangent_size);
      return own.squaredNorm() > 1e-2 * whole ? own.squaredNorm() : 0.0;  // Not all that follow.
    });
    part_.message += "; it seems to have no minimum near: steps of " + Number(drift_length_) +
                     " of y's size go on, hardly shorter, along " + names;
    return false;
  }
  const double least = part_.relative_decrement;
  const std::string& name = solver_.options_.tolerance_name;
  if (!part_.singular && num_since_best_ >= kStepsInNoise && least < kNearlySolved) {
    part_.message += "; its values may be noisy";
    if (const double enough = 4.0 * least; enough > solver_.tolerance_) {
      part_.message += ", which " + name + " = " + Scientific(enough) + " allows";
    }
  } else if (iteration_ >= max_num_iterations_) {
    part_.message += "; " + solver_.options_.limit_name + " may be too small";
  }
  return false;
}

// The damping that a singular Hessian needs is more than the curvature in its weak directions,
// where its steps stop short. Newton's own go on, as long as they arrive at once: towards an
// inflection they shrink by a constant factor.
bool DampedNewton::FinishWeakDirections() {
  if (!part_.singular || !part_.may_be_weak ||
      solver_.options_.singular_handling == SingularHandling::kDampingWithRefinement) {
    return true;
  }
  double before = kInfinity;
  Point last;
  for (int k = 0; k < kMostWeakSteps; ++k) {
    part_.factorized = part_.kept = false;
    if (!part_.PrepareSystem(SingularHandling::kAutomatic, false) || !part_.may_be_weak) break;
    const double decrement = part_.MeasuredDecrement(), rounding = part_.Rounding();
    if (!(decrement < kArriving * before) && decrement > rounding) {
      part_.y = last;
      return Evaluate();
    }
    part_.decrement = before = decrement;
    part_.SetRelativeDecrement();
    if (decrement <= std::max(1e-2 * solver_.tolerance_ * part_.Unit(), rounding)) break;
    part_.step = -part_.step;
    ClampStep();
    part_.trial.value() = part_.y.value();
    double value = 0.0;
    if (!part_.trial.Move(part_.step) ||
        !part_.g.Value(x_, part_.trial.value().data(), Batch::All(), &value) ||
        value > part_.value + RoundingOfValue(part_.Summands(rounding))) {
      break;
    }
    last = part_.y;
    std::swap(part_.y, part_.trial);
    if (!Evaluate()) return false;
    solver_.FindActive(&part_);
  }
  return true;
}

void DampedNewton::TakeBest() {
  if (num_since_best_ == 0 || !std::isfinite(best_decrement_)) return;
  part_.y = best_;
  part_.decrement = best_decrement_;
  part_.SetRelativeDecrement();
  part_.evaluated = part_.factorized = part_.kept = false;
}

void DampedNewton::KeepBest() {
  ++num_since_best_;
  if (is_indefinite_ || damping_ > floor_ || !(part_.decrement < best_decrement_)) return;
  best_decrement_ = part_.decrement;
  best_ = part_.y;
  num_since_best_ = 0;
}

}  // namespace bilevel
