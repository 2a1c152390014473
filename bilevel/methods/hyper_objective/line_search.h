#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_LINE_SEARCH_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_LINE_SEARCH_H_

#include <string>

#include "bilevel/methods/method.h"
#include "ceres/gradient_problem_solver.h"

namespace bilevel {

/// Ceres' own line-search minimisers on the hyper-objective with its exact gradient: L-BFGS, BFGS,
/// nonlinear conjugate gradients, steepest descent. For any upper level and any length of x: one
/// adjoint solve a gradient. Manifolds on x are honoured, bounds are not (levenberg_marquardt and
/// projected_lbfgs take them).
class LineSearch : public Method {
 public:
  /// The direction and line search fields of ceres' options are used; limits and tolerances come
  /// from the solver.
  explicit LineSearch(ceres::LineSearchDirectionType direction);
  LineSearch(std::string name, const ceres::GradientProblemSolver::Options& options)
      : name_(std::move(name)), options_(options) {}

  std::string name() const override { return name_; }
  std::string Check(const Oracle& oracle) override;
  bool TakesLowerConstraints() const override { return true; }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;

 private:
  std::string name_;
  ceres::GradientProblemSolver::Options options_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_LINE_SEARCH_H_
