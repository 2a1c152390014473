#include "bilevel/methods/zeroth_order/pattern_search.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/memory.h"

namespace bilevel {
namespace {

// The least relative decrease of phi that a step as long as the first must bring.
constexpr double kLeastShare = 1e-6;

// Orthonormal columns.
Matrix RandomFrame(const Oracle& oracle, int size) {
  Matrix frame(size, size);
  Vector direction(size);
  for (int k = 0; k < size; ++k) {
    oracle.RandomDirection(k, &direction);
    frame.col(k) = direction;
  }
  return HouseholderQ(frame, size);
}

}  // namespace

// What looking around has found, of all iterations.
struct PatternSearch::Poll {
  Point x, y;        // Of the best trial.
  double phi = 0.0;  // The least so far.
  long num_evaluated = 0;
  std::string failure;  // Of the last trial that could not be evaluated.
};

std::string PatternSearch::Check(const Oracle& /*oracle*/) {
  return FirstNotPositive({{"pattern_search.initial_step", options_.initial_step},
                           {"pattern_search.smallest_step", options_.smallest_step}});
}

Method::Outcome PatternSearch::Minimize(Oracle& oracle,
                                        State& state,
                                        Monitor* monitor,
                                        std::string* message) {
  const int m = state.x.dim();
  Poll poll;
  poll.x = state.x;
  poll.y = state.y;
  Matrix frame = Matrix::Identity(m, m);
  double step = options_.initial_step;
  const Monitor::Remember remember = [&](Memory* memory) {
    memory->Keep("phi", &poll.phi);
    memory->Keep("num_evaluated", &poll.num_evaluated);
    memory->Keep("failure", &poll.failure);
    memory->Keep("frame", &frame);
    memory->Keep("step", &step);
    steepest_.Remember(oracle, memory);
    return true;
  };
  if (!monitor->Resume(&state, remember)) {
    steepest_.Clear();
    if (!oracle.Solve(state.x, &state.y)) {
      *message = oracle.message();
      return Outcome::kFailure;
    }
    Progress progress;
    progress.objective = poll.phi = oracle.f.Value(state.x, state.y);
    if (!oracle.ok()) {
      *message = oracle.error();
      return Outcome::kFailure;
    }
    if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
  }
  while (step >= options_.smallest_step) {
    if (!monitor->Rest(&state, remember)) return Outcome::kNoConvergence;
    const auto num_before = poll.num_evaluated;
    const bool is_better = LookAround(oracle, state, frame, step, monitor, &poll);
    Progress progress;
    progress.step_is_successful = is_better;
    progress.note = poll.num_evaluated > num_before ? "phi is less nowhere around"
                                                    : "no trial could be evaluated";
    progress.objective = poll.phi;
    progress.trust_region_radius = step;
    if (is_better) {
      std::swap(state.x, poll.x);
      std::swap(state.y, poll.y);
      progress.step_norm = step;
      step = std::min(2.0 * step, options_.initial_step);
    } else {
      step *= 0.5;
      frame = RandomFrame(oracle, m);
    }
    ++oracle.iteration;
    if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
  }
  if (m > 0 && poll.num_evaluated == 0) {
    *message = "no trial could be evaluated" + (poll.failure.empty() ? "" : ": " + poll.failure);
    return Outcome::kNoConvergence;
  }
  *message = "phi is less nowhere around at steps down to the smallest";
  return Outcome::kConverged;
}

// All of them: the first to be less may be less by next to nothing, for ever. False: none is.
bool PatternSearch::LookAround(Oracle& oracle,
                               const State& state,
                               const Matrix& frame,
                               double step,
                               Monitor* monitor,
                               Poll* poll) {
  const double share = step / options_.initial_step, phi = poll->phi;
  double best = phi - kLeastShare * share * share * std::abs(phi);
  bool is_better = false;
  Point x = state.x, y = state.y;
  for (int k = 0; k < 2 * state.x.dim(); ++k) {
    x = state.x;
    y = state.y;
    if (!x.Move((k % 2 ? -step : step) * frame.col(k / 2))) continue;
    double trial = Progress::kUnknown;
    const bool is_solved = oracle.Solve(x, &y);
    if (is_solved) trial = oracle.f.Value(x, y);
    const std::string failure = is_solved ? oracle.Clear() : oracle.message();
    if (!failure.empty()) {
      monitor->Reject(failure);
      poll->failure = failure;
      continue;
    }
    ++poll->num_evaluated;
    steepest_.Add(state.x, phi, x, trial, state.y);
    if (!(trial < best)) continue;
    is_better = true;
    poll->phi = best = trial;
    std::swap(poll->x, x);
    std::swap(poll->y, y);
  }
  return is_better;
}

void PatternSearch::Finish(Oracle& oracle, const State& /*state*/, Assessment* assessment) {
  // By another lower solver: this one's report is to stay that of the answer.
  oracle.ForEach(1, [&](Oracle& worker, int) {
    const std::string jump = steepest_.FindJump(worker);
    if (!jump.empty()) assessment->notes.push_back(jump);
  });
}

}  // namespace bilevel
