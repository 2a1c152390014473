#include "bilevel/methods/value_function/penalty.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/memory.h"
#include "bilevel/methods/estimators/bias.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"

namespace bilevel {

std::string Penalty::Check(const Oracle& /*oracle*/) {
  const auto positive = [](double value) { return value > 0.0 && std::isfinite(value); };
  if (options_.num_lower_steps <= 0) return "penalty.num_lower_steps must be positive";
  if (!positive(options_.rho)) return "penalty.rho must be positive";
  if (!(options_.lambda >= 0.0)) return "penalty.lambda must not be negative";
  if (!positive(options_.epsilon)) return "penalty.epsilon must be positive";
  if (!(options_.growth >= 1.0)) return "penalty.growth must be at least 1";
  if (!std::isfinite(options_.nu)) return "penalty.nu must be finite";
  const std::string complaint = options_.x.Check("penalty.x");
  return complaint.empty() ? options_.y.Check("penalty.y") : complaint;
}

void Penalty::Start(Oracle& /*oracle*/, State& state) {
  now_ = options_;
  first_ = true;
  state.vectors["penalty.nu"] = Vector::Constant(state.y.dim(), options_.nu);
}

void Penalty::Step(Oracle& o, State& s, Progress* progress) {
  // The first iteration only looks, so that what is reported belongs to the point it is reported
  // at.
  Vector& dx = s.Get("penalty.dx", s.x.dim());
  Vector& dy = s.Get("penalty.dy", s.y.dim());
  Vector& nu = s.Get("penalty.nu", s.y.dim());
  if (!first_) {
    progress->step_norm = now_.x.Apply(dx, "penalty.x", o.iteration - 1, &s, &s.x);
    if (progress->step_norm < 0.0) {
      o.Fail("x is no longer finite, or its manifold failed: penalty.x.step may be too long");
      return;
    }
  }
  first_ = false;

  const auto gradients = [&] {
    progress->upper_value = o.f.Gradient(s.x, s.y, &dx, &dy);
    o.g.Gradient(s.x, s.y, nullptr, &s_);
    multiplier_ = nu + now_.rho * s_;
    ClearHeld(s.y, s_, &multiplier_);
    ClearHeld(s.y, s_, &s_);
    o.g.HessianProduct(s.x, s.y, multiplier_, &h_, &j_);
    if (!o.ok()) return false;
    dx += j_;
    dy += h_ + now_.lambda * s_;
    return true;
  };
  for (int t = 0; t < now_.num_lower_steps; ++t) {
    if (!gradients()) return;
    const uint64_t step = o.iteration * now_.num_lower_steps + t;
    if (now_.y.Apply(dy, "penalty.y", step, &s, &s.y) < 0.0) {
      o.Fail("y is no longer finite, or its manifold failed: penalty.y.step may be too long");
      return;
    }
  }
  if (!gradients()) return;
  if (dx.squaredNorm() + dy.squaredNorm() < now_.epsilon * now_.epsilon) {
    nu = multiplier_;
    now_.rho *= now_.growth;
    for (double* shrinking : {&now_.lambda, &now_.epsilon, &now_.x.step, &now_.y.step}) {
      *shrinking /= now_.growth;
    }
  }

  progress->gradient_max_norm = std::max(
      {ProjectedMaxNorm(s.x, dx), ProjectedMaxNorm(s.y, dy), s_.lpNorm<Eigen::Infinity>()});
  progress->y_is_solved = false;
  progress->keep = Progress::kAlways;
}

void Penalty::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  assessment->x_bias = EstimateDistance(oracle, state);
}

bool Penalty::Remember(Oracle& /*oracle*/, Memory* memory) {
  memory->Keep("first", &first_);
  if (memory->recalls()) now_ = options_;
  memory->Keep("rho", &now_.rho);
  memory->Keep("lambda", &now_.lambda);
  memory->Keep("epsilon", &now_.epsilon);
  memory->Keep("x_step", &now_.x.step);
  memory->Keep("y_step", &now_.y.step);
  return true;
}

}  // namespace bilevel
