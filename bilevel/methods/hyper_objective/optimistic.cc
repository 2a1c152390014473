#include "bilevel/methods/hyper_objective/optimistic.h"

namespace bilevel {

std::string Optimistic::name() const {
  return "optimistic (" + (inner_ ? inner_->name() : std::string("nothing")) + ")";
}

std::string Optimistic::Check(const Oracle& oracle) {
  if (!inner_) return "the optimistic path has no method to move x with";
  const std::string complaint = OptimisticLowerSolver::Check(oracle.program(), options_);
  return complaint.empty() ? inner_->Check(oracle) : complaint;
}

Method::Outcome Optimistic::Minimize(Oracle& oracle,
                                     State& state,
                                     Monitor* monitor,
                                     std::string* message) {
  oracle.SetLower(
      std::make_unique<OptimisticLowerSolver>(oracle.mutable_program(), &oracle.lower(), options_));
  return inner_->Minimize(oracle, state, monitor, message);
}

}  // namespace bilevel
