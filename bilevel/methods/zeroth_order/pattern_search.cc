#include "bilevel/methods/zeroth_order/pattern_search.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "Eigen/QR"
#include "bilevel/base/internal/bookkeeping.h"

namespace bilevel {
namespace {

// The least relative decrease of phi that a step as long as the first must bring.
constexpr double kSufficient = 1e-6;

}  // namespace

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
  Point x = state.x, y = state.y, best_x = x, best_y = y;
  long evaluated = 0;
  std::string failure;  // Of the last trial that could not be evaluated.
  while (step >= options_.smallest_step) {
    progress = Progress();
    progress.step_is_successful = false;
    progress.note = "phi is less nowhere around";
    progress.trust_region_radius = step;
    // All of them: the first to be less may be less by next to nothing, for ever.
    const double share = step / options_.initial_step;
    double best = phi - kSufficient * share * share * std::abs(phi);
    for (int k = 0; k < 2 * m; ++k) {
      x = state.x;
      y = state.y;
      if (!x.Move((k % 2 ? -step : step) * frame.col(k / 2))) continue;
      std::string what;
      double trial = Progress::kUnknown;
      if (oracle.Solve(x, &y)) {
        trial = oracle.f.Value(x, y);
        what = oracle.Clear();
      } else {
        what = oracle.message();
      }
      if (!what.empty()) {
        monitor->Reject(what);
        failure = what;
        continue;
      }
      ++evaluated;
      steepest_.Add(state.x, phi, x, trial, state.y);
      if (!(trial < best)) continue;
      progress.step_is_successful = true;
      best = trial;
      std::swap(best_x, x);
      std::swap(best_y, y);
    }
    if (progress.step_is_successful) {
      phi = best;
      std::swap(state.x, best_x);
      std::swap(state.y, best_y);
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
  if (m > 0 && evaluated == 0) {
    *message = "no trial could be evaluated" + (failure.empty() ? "" : ": " + failure);
    return Outcome::kNoConvergence;
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
