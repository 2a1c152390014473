#ifndef BILEVEL_ANALYSIS_ARGMIN_COST_FUNCTION_H_
#define BILEVEL_ANALYSIS_ARGMIN_COST_FUNCTION_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/solver.h"
#include "ceres/cost_function.h"

namespace bilevel {

/// y*(x) as a ceres::CostFunction, for use inside another ceres::Problem: its parameter blocks are
/// all upper blocks of a bilevel::Problem in the order of their declaration, its residuals the
/// values (ambient, one block after the other) of chosen lower-level blocks at the solution, its
/// Jacobian their exact derivative. To score y*, wrap it: ceres::CostFunctionToFunctor, or a cost
/// function of your own that calls Evaluate.
///
/// Every evaluation solves the lower level from the solution before it. Evaluate returns false
/// where the lower level cannot be solved or differentiated; error() then says why. The user's
/// blocks of x and y are not changed. Evaluations of all functions of one problem are serialised:
/// one solve at a time.
class ArgminCostFunction : public ceres::CostFunction {
 public:
  /// options: those of the lower level are used. The problem is not owned and must outlive this;
  /// what is added to it later is not seen.
  ArgminCostFunction(const Solver::Options& options,
                     Problem* problem,
                     const std::vector<const double*>& lower_blocks);
  ~ArgminCostFunction() override;

  /// Whether construction found nothing wrong; error() says what. Evaluate returns false if not.
  bool ok() const;
  std::string error() const;

  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace bilevel

#endif  // BILEVEL_ANALYSIS_ARGMIN_COST_FUNCTION_H_
