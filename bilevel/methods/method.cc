#include "bilevel/methods/method.h"

#include "bilevel/base/memory.h"

namespace bilevel {

Vector& State::Get(const std::string& name, int size) {
  return vectors.try_emplace(name, Vector::Zero(size)).first->second;
}

void State::Remember(const Space& x_space, const Space& y_space, Memory* memory) {
  x.Remember("x", x_space, memory);
  y.Remember("y", y_space, memory);
  memory->Keep("vectors", &vectors);
  memory->Keep("flat_directions", &flat_directions);
}

Method::Outcome Method::Minimize(Oracle& oracle,
                                 State& state,
                                 Monitor* monitor,
                                 std::string* message) {
  const Monitor::Remember remember = [&](Memory* memory) { return Remember(oracle, memory); };
  if (!monitor->Resume(&state, remember)) Start(oracle, state);
  for (;;) {
    if (!oracle.ok()) {
      *message = oracle.error();
      return Outcome::kFailure;
    }
    if (!monitor->Rest(&state, remember)) return Outcome::kNoConvergence;
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
