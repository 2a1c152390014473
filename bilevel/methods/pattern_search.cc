#include "bilevel/methods/pattern_search.h"

#include <algorithm>

#include "Eigen/QR"
#include "bilevel/lower_level/bookkeeping.h"

namespace bilevel {

std::string PatternSearch::Check(const Oracle& /*oracle*/) {
  return FirstNotPositive({{"pattern_search.initial_step", options_.initial_step},
                           {"pattern_search.smallest_step", options_.smallest_step}});
}

Method::Outcome PatternSearch::Minimize(Oracle& oracle,
                                        State& state,
                                        Monitor* monitor,
                                        std::string* message) {
  const int m = state.x.dim();
  steepest_.Clear();
  if (!oracle.Solve(state.x, &state.y)) {
    *message = oracle.message();
    return Outcome::kFailure;
  }
  Progress progress;
  progress.objective = oracle.f.Value(state.x, state.y);
  if (!oracle.ok()) {
    *message = oracle.error();
    return Outcome::kFailure;
  }
  if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
  double phi = progress.objective, step = options_.initial_step;
  Matrix frame = Matrix::Identity(m, m);
  Vector direction(m);
  Point x = state.x, y = state.y;
  while (step >= options_.smallest_step) {
    progress = Progress();
    progress.accepted = false;
    progress.note = "phi is less nowhere around";
    progress.trust_region_radius = step;
    for (int k = 0; k < 2 * m && !progress.accepted; ++k) {
      x = state.x;
      y = state.y;
      if (!x.Move((k % 2 ? -step : step) * frame.col(k / 2)) || !oracle.Solve(x, &y)) continue;
      const double trial = oracle.f.Value(x, y);
      if (!oracle.Clear().empty()) continue;
      steepest_.Add(state.x, phi, x, trial, state.y);
      progress.accepted = trial < phi;
      if (progress.accepted) phi = trial;
    }
    if (progress.accepted) {
      std::swap(state.x, x);
      std::swap(state.y, y);
      progress.step_norm = step;
      step = std::min(2.0 * step, options_.initial_step);
    } else {
      step *= 0.5;
      for (int k = 0; k < m; ++k) {
        oracle.RandomDirection(k, &direction);
        frame.col(k) = direction;
      }
      frame = Eigen::HouseholderQR<Matrix>(frame).householderQ();
    }
    progress.objective = phi;
    ++oracle.iteration;
    if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
  }
  *message = "phi is less nowhere around at steps down to the smallest";
  return Outcome::kConverged;
}

void PatternSearch::Finish(Oracle& oracle, const State& /*state*/, Assessment* assessment) {
  // By another lower solver: this one's report is to stay that of the answer.
  oracle.ForEach(1, [&](Oracle& worker, int) {
    const std::string jump = steepest_.FindJump(worker);
    if (!jump.empty()) assessment->notes.push_back(jump);
  });
}

}  // namespace bilevel
