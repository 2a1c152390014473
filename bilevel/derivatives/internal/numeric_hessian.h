#ifndef BILEVEL_DERIVATIVES_INTERNAL_NUMERIC_HESSIAN_H_
#define BILEVEL_DERIVATIVES_INTERNAL_NUMERIC_HESSIAN_H_

#include <vector>

#include "ceres/cost_function.h"

namespace bilevel {

/// Scratch memory for the functions below: grows to the largest cost function it has seen, so that
/// later calls allocate nothing. Use one per thread.
struct NumericHessianWorkspace {
  std::vector<double> point, residuals, jacobian, gradient, direction, difference, estimate;
  std::vector<const double*> point_blocks;
  std::vector<double*> jacobian_blocks;
};

/// H(w) and H(w) * direction of any ceres::CostFunction, as SecondOrderCostFunction defines them,
/// by central differences of J^T w with one Richardson extrapolation. The step starts at
/// 1e-3 max(1, |p_i|) and shrinks while the two differences disagree or Evaluate fails, so the
/// natural scale of a parameter may be far below its value.
///
/// Costs 4 evaluations with Jacobians a direction (the Hessian takes n directions and is then
/// symmetrised), more where the step has to shrink. The relative error is about 1e-11 where the
/// Jacobian is exact; where it is itself differenced (ceres::NumericDiffCostFunction) it is what
/// that leaves, 1e-4 or so. At a kink of the Jacobian the result is an average of both sides.
///
/// False if Evaluate fails at the point itself or however close to it, or gives no finite Jacobian.
bool NumericHessian(const ceres::CostFunction& cost_function,
                    double const* const* parameters,
                    const double* weights,
                    double* hessian,
                    NumericHessianWorkspace* workspace);
bool NumericHessianProduct(const ceres::CostFunction& cost_function,
                           double const* const* parameters,
                           const double* weights,
                           const double* direction,
                           double* product,
                           NumericHessianWorkspace* workspace);

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_INTERNAL_NUMERIC_HESSIAN_H_
