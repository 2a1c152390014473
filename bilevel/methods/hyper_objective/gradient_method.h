#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_GRADIENT_METHOD_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_GRADIENT_METHOD_H_

#include <memory>
#include <string>
#include <utility>

#include "bilevel/methods/estimators/discontinuity.h"
#include "bilevel/methods/estimators/hypergradient.h"
#include "bilevel/methods/method.h"
#include "bilevel/methods/step_rule.h"

namespace bilevel {

/// First-order descent on the hyper-objective: a step rule along an estimated hypergradient.
/// AID-CG, AID-FP, ITD, truncated unrolling and exact gradient descent differ in the estimator,
/// momentum, Adam and normalised steps in the rule. Reports where phi jumps between two iterates
/// with y solved, or just beyond the answer.
class GradientMethod : public Method {
 public:
  GradientMethod(std::string name,
                 std::unique_ptr<HypergradientEstimator> estimator,
                 const StepRule& rule)
      : name_(std::move(name)), estimator_(std::move(estimator)), rule_(rule) {}

  std::string name() const override { return name_; }
  std::string Check(const Oracle& oracle) override;
  bool TakesScenarioBatches() const override { return true; }
  bool TakesLowerConstraints() const override { return estimator_->takes_constraints(); }
  bool ProjectsY() const override { return estimator_->projects_y(); }
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override;
  bool Remember(Oracle& oracle, Memory* memory) override;

 protected:
  void Start(Oracle& oracle, State& state) override;
  /// d ~ grad phi(x_k);  x_{k+1} = rule(x_k, d).
  void Step(Oracle& oracle, State& state, Progress* progress) override;

 private:
  std::string name_;
  std::unique_ptr<HypergradientEstimator> estimator_;
  StepRule rule_;
  Point x_start_, x_before_;
  double phi_ = 0.0;  // Of the iteration before, where it is known.
  Discontinuity steepest_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_GRADIENT_METHOD_H_
