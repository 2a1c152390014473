#ifndef BILEVEL_TERMS_SECOND_ORDER_COST_FUNCTION_H_
#define BILEVEL_TERMS_SECOND_ORDER_COST_FUNCTION_H_

#include "ceres/cost_function.h"

namespace bilevel {

/// A ceres::CostFunction that also knows its second derivatives.
///
/// With n = sum of parameter_block_sizes() (ambient, blocks in order) and weights w of
/// num_residuals() entries, everything is asked of the weighted sum of residuals
///
///     H(w) = sum_a w_a * d^2 r_a / dp^2          (n x n, symmetric).
///
/// bilevel::AutoDiffCostFunction implements it exactly; derive from this class to supply
/// hand-written second derivatives. Any other ceres::CostFunction is differenced
/// (numeric_hessian.h), and the Summary says how many were.
///
/// Both functions must be thread-safe, write every entry of their output, leave their inputs
/// alone, and return false where Evaluate would.
class SecondOrderCostFunction : public ceres::CostFunction {
 public:
  /// Writes H(w), n x n row-major, both triangles.
  virtual bool EvaluateHessian(double const* const* parameters,
                               const double* weights,
                               double* hessian) const = 0;

  /// Writes H(w) * direction; both vectors have n entries.
  virtual bool EvaluateHessianProduct(double const* const* parameters,
                                      const double* weights,
                                      const double* direction,
                                      double* product) const = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_TERMS_SECOND_ORDER_COST_FUNCTION_H_
