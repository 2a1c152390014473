#include "bilevel/methods/method.h"

namespace bilevel {

Method::Outcome Method::Minimize(Oracle& oracle,
                                 State& state,
                                 Monitor* monitor,
                                 std::string* message) {
  Start(oracle, state);
  for (;;) {
    if (!oracle.ok()) {
      *message = oracle.error();
      return Outcome::kFailure;
    }
    Progress progress;
    oracle.DrawScenarios();
    Step(oracle, state, &progress);
    ++oracle.iteration;
    if (!oracle.ok()) continue;
    if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
    if (oracle.uses_scenario_batch()) continue;  // A small gradient of some says little of all.
    if (progress.gradient_max_norm <= monitor->gradient_tolerance()) {
      *message = "the gradient is below the gradient tolerance";
      return Outcome::kConverged;
    }
  }
}

}  // namespace bilevel
