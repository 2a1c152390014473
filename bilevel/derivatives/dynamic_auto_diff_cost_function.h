#ifndef BILEVEL_DERIVATIVES_DYNAMIC_AUTO_DIFF_COST_FUNCTION_H_
#define BILEVEL_DERIVATIVES_DYNAMIC_AUTO_DIFF_COST_FUNCTION_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "bilevel/derivatives/second_order_cost_function.h"
#include "ceres/dynamic_autodiff_cost_function.h"
#include "ceres/types.h"

namespace bilevel {

/// Drop-in for ceres::DynamicAutoDiffCostFunction that also has exact second derivatives: call
/// AddParameterBlock for each block and SetNumResiduals before use. The functor is
/// `template <typename T> bool operator()(T const* const* parameters, T* residuals) const`.
///
/// `Stride` derivatives are taken a pass, as in Ceres; the Hessian takes one pass for each
/// Stride x Stride tile of its lower triangle, the product one for each Stride parameters.
template <typename CostFunctor, int Stride = 4>
class DynamicAutoDiffCostFunction final : public SecondOrderCostFunction {
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

  bool EvaluateHessian(double const* const* parameters,
                       const double* weights,
                       double* hessian) const override {
    internal::ScratchArray<double> values(num_parameters());
    Gather(parameters, values.data());
    internal::ScratchArray<internal::HessianJet<Stride>*> blocks(num_blocks());
    return internal::TiledHessian<Stride>(
        [&](auto* x, auto* r) { return Call(x, blocks.data(), r); },
        values.data(),
        num_parameters(),
        weights,
        num_residuals(),
        hessian);
  }

  bool EvaluateHessianProduct(double const* const* parameters,
                              const double* weights,
                              const double* direction,
                              double* product) const override {
    internal::ScratchArray<double> values(num_parameters());
    Gather(parameters, values.data());
    internal::ScratchArray<internal::ProductJet<Stride>*> blocks(num_blocks());
    return internal::TiledHessianProduct<Stride>(
        [&](auto* x, auto* r) { return Call(x, blocks.data(), r); },
        values.data(),
        num_parameters(),
        weights,
        num_residuals(),
        direction,
        product);
  }

  const CostFunctor& functor() const { return *functor_; }

 private:
  int num_blocks() const { return static_cast<int>(parameter_block_sizes().size()); }
  int num_parameters() const {
    return std::accumulate(parameter_block_sizes().begin(), parameter_block_sizes().end(), 0);
  }

  void Gather(double const* const* parameters, double* values) const {
    for (int b = 0; b < num_blocks(); ++b) {
      values = std::copy_n(parameters[b], parameter_block_sizes()[b], values);
    }
  }

  template <typename T>
  bool Call(T* x, T** blocks, T* residuals) const {
    for (int b = 0; b < num_blocks(); ++b) {
      blocks[b] = x;
      x += parameter_block_sizes()[b];
    }
    return (*functor_)(blocks, residuals);
  }

  std::unique_ptr<CostFunctor> functor_;
  ceres::Ownership ownership_;
  ceres::DynamicAutoDiffCostFunction<CostFunctor, Stride> first_order_;
};

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_DYNAMIC_AUTO_DIFF_COST_FUNCTION_H_
