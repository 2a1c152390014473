#include "bilevel/methods/internal/without_x.h"

#include "bilevel/oracle/hyper_objective.h"

namespace bilevel {

Method::Outcome WithoutX::Minimize(Oracle& oracle,
                                   State& state,
                                   Monitor* monitor,
                                   std::string* message) {
  HyperObjective phi(&oracle, state.y);
  Progress progress;
  if (!phi.Evaluate(state.x, &progress.objective, nullptr)) {
    *message = phi.message();
    return Outcome::kFailure;
  }
  state.y = phi.y();
  if (!monitor->Report(state, progress)) return Outcome::kNoConvergence;
  *message = "the lower level is solved, and there is no x to move";
  return Outcome::kConverged;
}

}  // namespace bilevel
