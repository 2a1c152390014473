#include "bilevel/methods/gradient_method.h"

namespace bilevel {

std::string GradientMethod::Check(const Oracle& oracle) {
  const std::string complaint = rule_.Check(name_);
  return complaint.empty() ? estimator_->Check(oracle) : complaint;
}

void GradientMethod::Step(Oracle& oracle, State& state, Progress* progress) {
  // The first iteration only looks, so that what is reported belongs to the point it is reported
  // at.
  const bool first = state.vectors.count("gradient") == 0;
  Vector& gradient = state.Get("gradient", state.x.dim());
  if (!first) {
    progress->step_norm = rule_.Apply(gradient, "x", oracle.iteration - 1, &state, &state.x);
    if (progress->step_norm < 0.0) {
      oracle.Fail("x is no longer finite: the step is too long");
      return;
    }
  }
  const double f = estimator_->Estimate(oracle, state, &gradient);
  if (estimator_->solves_lower_level()) {
    progress->objective = f;
  } else {  // f at such a y is not phi and does not rank iterates.
    progress->upper_value = f;
    progress->y_is_solved = false;
    progress->keep = Progress::kAlways;
  }
  progress->gradient_norm = gradient.lpNorm<Eigen::Infinity>();
}

}  // namespace bilevel
