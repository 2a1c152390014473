#include "bilevel/methods/hyper_objective/optimistic.h"

#include "bilevel/methods/internal/without_x.h"

namespace bilevel {

std::string Optimistic::name() const {
  return "optimistic (" + (inner_ ? inner_->name() : std::string("nothing")) + ")";
}

std::string Optimistic::Check(const Oracle& oracle) {
  if (!inner_) return "the optimistic path has no method to move x with";
  const std::string complaint = OptimisticLowerSolver::Check(oracle.program(), options_);
  if (!complaint.empty() || oracle.program().x.tangent_size() == 0) return complaint;
  return inner_->Check(oracle);
}

Method::Outcome Optimistic::Minimize(Oracle& oracle,
                                     State& state,
                                     Monitor* monitor,
                                     std::string* message) {
  oracle.SetLower(std::make_unique<OptimisticLowerSolver>(
      oracle.mutable_program(), &oracle.first_lower(), options_));
  if (state.x.dim() == 0) return WithoutX().Minimize(oracle, state, monitor, message);
  return inner_->Minimize(oracle, state, monitor, message);
}

}  // namespace bilevel
