#include "bilevel/methods/hyper_objective/ia_gm.h"

#include <algorithm>

#include "bilevel/base/memory.h"
#include "bilevel/methods/estimators/bias.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"

namespace bilevel {

std::string IaGm::Check(const Oracle& oracle) {
  const std::string dot = name() + ".";
  if (options_.num_lower_steps == 0) return dot + "num_lower_steps must be positive";
  std::string complaint = options_.LowerSteps::Check(oracle, dot);
  if (complaint.empty()) complaint = options_.x.Check(dot + "x");
  if (complaint.empty()) complaint = options_.w.Check(dot + "w");
  return complaint;
}

void IaGm::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  assessment->x_bias = EstimateDistance(oracle, state);
}

void IaGm::Start(Oracle& /*oracle*/, State& state) {
  first_ = true;
  w_ = state.y;
}

void IaGm::Step(Oracle& o, State& s, Progress* progress) {
  // The first iteration only looks, so that what is reported belongs to the point it is reported
  // at.
  Vector& dx = s.Get("ia_gm.dx", s.x.dim());
  Vector& dw = s.Get("ia_gm.dw", s.y.dim());
  if (!first_) {
    progress->step_norm = options_.x.Apply(dx, "ia_gm.x", o.iteration - 1, &s, &s.x);
    const double step_w = options_.w.Apply(dw, "ia_gm.w", o.iteration - 1, &s, &w_);
    if (progress->step_norm < 0.0 || step_w < 0.0) {
      o.Fail("x or w is no longer finite, or its manifold failed: " + name() +
             "'s steps may be too long");
      return;
    }
  }
  first_ = false;

  s.y = w_;
  const int num_steps = options_.num_lower_steps;
  if (!unroll_.Run(o, s.x, num_steps, &s.y)) return;
  int n = num_steps;
  if (options_.truncate_pessimistically) {
    double largest = o.f.Value(s.x, unroll_.y(n));
    for (int k = num_steps - 1; k >= 1; --k) {
      const double f = o.f.Value(s.x, unroll_.y(k));
      if (f > largest) {
        largest = f;
        n = k;
      }
    }
  }
  progress->upper_value = o.f.Gradient(s.x, unroll_.y(n), &dx, &dw);
  if (!o.ok() || !unroll_.Reverse(o, s.x, n, &dw, &dx)) return;

  progress->gradient_max_norm = std::max(ProjectedMaxNorm(s.x, dx), ProjectedMaxNorm(w_, dw));
  progress->y_is_solved = false;
  progress->keep = Progress::kAlways;
}

bool IaGm::Remember(Oracle& oracle, Memory* memory) {
  memory->Keep("first", &first_);
  w_.Remember("w", oracle.program().y, memory);
  return true;
}

}  // namespace bilevel
