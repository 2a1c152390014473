#include "bilevel/methods/internal/without_x.h"

namespace bilevel {

Method::Outcome WithoutX::Minimize(Oracle& oracle,
                                   State& state,
                                   Monitor* monitor,
                                   std::string* message) {
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
  *message = "the lower level is solved, and there is no x to move";
  return Outcome::kConverged;
}

}  // namespace bilevel
