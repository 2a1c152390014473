#include "bilevel/methods/hyper_objective/gradient_method.h"

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/memory.h"
#include "bilevel/methods/estimators/bias.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {

std::string GradientMethod::Check(const Oracle& oracle) {
  std::string complaint = rule_.Check(name_);
  if (!complaint.empty()) return complaint;
  if (estimator_->needs_derivative()) complaint = oracle.lower().WhyNoDerivative();
  if (!complaint.empty()) return complaint;
  complaint = estimator_->Check(oracle);
  return complaint.empty() ? complaint : name_ + "." + complaint;
}

void GradientMethod::Start(Oracle& /*oracle*/, State& state) {
  x_start_ = state.x;
  steepest_.Clear();
}

void GradientMethod::Step(Oracle& oracle, State& state, Progress* progress) {
  // The first iteration only looks, so that what is reported belongs to the point it is reported
  // at.
  const bool first = state.vectors.count("gradient") == 0;
  Vector& gradient = state.Get("gradient", state.x.dim());
  x_before_ = state.x;
  if (!first) {
    progress->step_norm = rule_.Apply(gradient, "x", oracle.iteration - 1, &state, &state.x);
    if (progress->step_norm < 0.0) {
      oracle.Fail("x is no longer finite, or its manifold failed: the step may be too long");
      return;
    }
  }
  const double f = estimator_->Estimate(oracle, state, &gradient);
  if (!oracle.ok()) return;
  if (estimator_->solves_lower_level() && !oracle.uses_scenario_batch()) {
    progress->objective = f;
    if (!first) steepest_.Add(x_before_, phi_, state.x, f, state.y);
    phi_ = f;
  } else {  // f at such a y, or of some scenarios, is not phi and does not rank iterates.
    progress->upper_value = f;
    progress->y_is_solved = false;
    progress->keep = Progress::kAlways;
  }
  progress->gradient_max_norm = ProjectedMaxNorm(state.x, gradient);
}

bool GradientMethod::Remember(Oracle& oracle, Memory* memory) {
  const Space& space = oracle.program().x;
  x_start_.Remember("x_start", space, memory);
  x_before_.Remember("x_before", space, memory);
  memory->Keep("phi", &phi_);
  steepest_.Remember(oracle, memory);
  return estimator_->Remember(oracle, memory);
}

void GradientMethod::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  if (const std::string remark = estimator_->Remark(); !remark.empty()) {
    assessment->notes.push_back(remark);
  }
  if (estimator_->is_biased()) assessment->x_bias = EstimateDistance(oracle, state);
  // Descent that ends at an edge has not crossed it: one look a little further, the way it came.
  constexpr double kShare = 1e-3;
  Point beyond = state.x, y = state.y;
  Vector way(state.x.dim());
  if (!state.x.space().Minus(state.x.value().data(), x_start_.value().data(), way.data()) ||
      !beyond.Move(kShare * way)) {
    return;
  }
  // By another lower solver: this one's report is to stay that of the answer.
  oracle.ForEach(1, [&](Oracle& worker, int) {
    if (worker.Solve(beyond, &y)) {
      const double phi = worker.f.Value(state.x, state.y);
      steepest_.Add(state.x, phi, beyond, worker.f.Value(beyond, y), state.y);
    }
    const std::string jump = steepest_.FindJump(worker);
    if (!jump.empty()) assessment->notes.push_back(jump);
    worker.Clear();
  });
}

}  // namespace bilevel
