#ifndef BILEVEL_DERIVATIVES_TAPED_COST_FUNCTION_H_
#define BILEVEL_DERIVATIVES_TAPED_COST_FUNCTION_H_

#include "bilevel/derivatives/tape.h"
#include "bilevel/terms/second_order_cost_function.h"

namespace bilevel {

/// A cost function that can be recorded: one call of its functor gives values, gradient, Jacobian
/// and Hessian. Base of the automatically differentiated ones.
class TapedCostFunction : public SecondOrderCostFunction {
 public:
  /// Calls the functor on the recording; false where it does.
  virtual bool Record(internal::Recording* recording) const = 0;

  bool EvaluateHessian(double const* const* parameters,
                       const double* weights,
                       double* hessian) const final {
    internal::Recording recording(parameters, parameter_block_sizes(), num_residuals());
    if (!Record(&recording)) return false;
    recording.Hessian(weights, hessian);
    return true;
  }

  bool EvaluateHessianProduct(double const* const* parameters,
                              const double* weights,
                              const double* direction,
                              double* product) const final {
    internal::Recording recording(parameters, parameter_block_sizes(), num_residuals());
    if (!Record(&recording)) return false;
    recording.HessianProduct(weights, direction, product);
    return true;
  }
};

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_TAPED_COST_FUNCTION_H_
