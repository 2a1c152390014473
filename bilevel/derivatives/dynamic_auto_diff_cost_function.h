#ifndef BILEVEL_DERIVATIVES_DYNAMIC_AUTO_DIFF_COST_FUNCTION_H_
#define BILEVEL_DERIVATIVES_DYNAMIC_AUTO_DIFF_COST_FUNCTION_H_

#include <memory>
#include <type_traits>
#include <utility>

#include "bilevel/derivatives/rotation.h"  // For functors that rotate.
#include "bilevel/derivatives/taped_cost_function.h"
#include "ceres/dynamic_autodiff_cost_function.h"
#include "ceres/types.h"

namespace bilevel {

/// Drop-in for ceres::DynamicAutoDiffCostFunction that also has exact second derivatives: call
/// AddParameterBlock for each block and SetNumResiduals before use. The functor is
/// `template <typename T> bool operator()(T const* const* parameters, T* residuals) const`.
///
/// `Stride` first derivatives are taken a pass, as in Ceres; the second ones are those of
/// AutoDiffCostFunction.
template <typename CostFunctor, int Stride = 4>
class DynamicAutoDiffCostFunction final : public TapedCostFunction {
 public:
  explicit DynamicAutoDiffCostFunction(CostFunctor* functor,
                                       ceres::Ownership ownership = ceres::TAKE_OWNERSHIP)
      : functor_(functor),
        ownership_(ownership),
        first_order_(functor, ceres::DO_NOT_TAKE_OWNERSHIP) {}

  explicit DynamicAutoDiffCostFunction(std::unique_ptr<CostFunctor> functor)
      : DynamicAutoDiffCostFunction(functor.release()) {}

  /// Constructs the functor in place, as Ceres 2.2 does.
  template <typename... Args,
            std::enable_if_t<std::is_constructible<CostFunctor, Args&&...>::value>* = nullptr>
  explicit DynamicAutoDiffCostFunction(Args&&... args)
      : DynamicAutoDiffCostFunction(new CostFunctor(std::forward<Args>(args)...)) {}

  ~DynamicAutoDiffCostFunction() override {
    if (ownership_ == ceres::DO_NOT_TAKE_OWNERSHIP) functor_.release();
  }

  void AddParameterBlock(int size) {
    mutable_parameter_block_sizes()->push_back(size);
    first_order_.AddParameterBlock(size);
  }

  void SetNumResiduals(int num_residuals) {
    set_num_residuals(num_residuals);
    first_order_.SetNumResiduals(num_residuals);
  }

  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    return first_order_.Evaluate(parameters, residuals, jacobians);
  }

  bool Record(internal::Recording* recording) const override {
    return (*functor_)(recording->blocks(), recording->residuals());
  }

  const CostFunctor& functor() const { return *functor_; }

 private:
  std::unique_ptr<CostFunctor> functor_;
  ceres::Ownership ownership_;
  ceres::DynamicAutoDiffCostFunction<CostFunctor, Stride> first_order_;
};

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_DYNAMIC_AUTO_DIFF_COST_FUNCTION_H_
