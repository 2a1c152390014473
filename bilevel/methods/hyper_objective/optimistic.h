#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_OPTIMISTIC_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_OPTIMISTIC_H_

#include <memory>
#include <string>
#include <utility>

#include "bilevel/lower_level/optimistic_lower_solver.h"
#include "bilevel/methods/method.h"

namespace bilevel {

/// The exact optimistic path: for lower levels with a smooth set of solutions, flat or curved, of
/// which the one that minimises f is taken and differentiated (OptimisticLowerSolver has the
/// formulas). How x moves is any other method's business, on phi(x) = min { f(x, y) : y in Y*(x) }
/// and its exact gradient; where there is no x, the path alone is the answer. The solver's own
/// lower solver finds the first point of Y*.
class Optimistic : public Method {
 public:
  explicit Optimistic(std::unique_ptr<Method> inner,
                      const OptimisticLowerSolver::Options& options = {})
      : inner_(std::move(inner)), options_(options) {}

  std::string name() const override;
  std::string Check(const Oracle& oracle) override;
  bool WorksWithoutX() const override { return true; }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override {
    inner_->Finish(oracle, state, assessment);
  }

 private:
  std::unique_ptr<Method> inner_;
  OptimisticLowerSolver::Options options_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_OPTIMISTIC_H_
