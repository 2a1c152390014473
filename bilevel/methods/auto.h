#ifndef BILEVEL_METHODS_AUTO_H_
#define BILEVEL_METHODS_AUTO_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/methods/hyper_objective/gradient_sampling.h"
#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"
#include "bilevel/methods/hyper_objective/line_search.h"
#include "bilevel/methods/hyper_objective/projected_lbfgs.h"
#include "bilevel/methods/method.h"
#include "bilevel/methods/value_function/bome.h"
#include "bilevel/methods/zeroth_order/pattern_search.h"

namespace bilevel {

/// The default method: takes the one that fits the problem, looks at its answer as Solve will
/// (CheckAnswer), and goes on while that does not hold.
///
///   no x                                            one lower solve
///   x short, and f of squares                       levenberg_marquardt
///   else, x bounded                                 projected_lbfgs
///   else                                            lbfgs
///   no derivative, since y*(x) is a set             optimistic, then bome
///   at a kink, x very short                         gradient_sampling, then pattern_search
///   phi less nearby, or y of less g at the same x   the first again, from there
///
/// What was tried, and why it went on, is in Assessment::attempts.
class Auto : public Method {
 public:
  Auto();

  std::string name() const override { return "auto (" + last_->name() + ")"; }
  std::string Check(const Oracle& oracle) override;
  bool TakesLowerConstraints() const override { return true; }
  bool WorksWithoutX() const override { return true; }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override;

 private:
  class Watch;
  // A path for lower levels with sets of solutions does not take it once more.
  explicit Auto(bool may_be_set);
  Method* AfterRefusal(Oracle& oracle, const State& state);
  Method* AfterKink(const State& state);
  void RememberAttempts(Memory* memory);

  std::unique_ptr<Method> without_x_;
  LevenbergMarquardt lm_;
  LineSearch lbfgs_{ceres::LBFGS};
  ProjectedLbfgs projected_lbfgs_;
  GradientSampling sampling_;
  PatternSearch polling_;
  Bome bome_;
  std::unique_ptr<Method> optimistic_;
  Method* first_ = &lm_;
  Method* last_ = &lm_;
  std::vector<Assessment::Attempt> attempts_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_AUTO_H_
