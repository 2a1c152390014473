#ifndef BILEVEL_DERIVATIVES_AUTO_DIFF_COST_FUNCTION_H_
#define BILEVEL_DERIVATIVES_AUTO_DIFF_COST_FUNCTION_H_

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "bilevel/derivatives/rotation.h"  // For functors that rotate.
#include "bilevel/derivatives/taped_cost_function.h"
#include "ceres/autodiff_cost_function.h"
#include "ceres/types.h"

namespace bilevel {

/// Drop-in for ceres::AutoDiffCostFunction (same template parameters, constructors and ownership)
/// that also has exact second derivatives. Residuals and Jacobians are Ceres' own, at Ceres' speed.
///
/// The functor is instantiated with double, ceres::Jet<double, N> and bilevel::TapeJet; see tape.h
/// for what the latter supports. The Hessian costs one call of the functor and one sweep over its
/// operations for each 16 parameters, a Hessian-vector product one of each. Second derivatives of
/// norms, square roots and the like are not finite where they do not exist, as first ones in Ceres.
template <typename CostFunctor,
          int kNumResiduals,  // Number of residuals, or ceres::DYNAMIC.
          int... Ns>          // Number of parameters in each parameter block.
class AutoDiffCostFunction final : public TapedCostFunction {
 public:
  explicit AutoDiffCostFunction(CostFunctor* functor,
                                ceres::Ownership ownership = ceres::TAKE_OWNERSHIP)
      : first_order_(functor, ownership) {
    Initialize();
  }

  /// For kNumResiduals == ceres::DYNAMIC.
  AutoDiffCostFunction(CostFunctor* functor,
                       int num_residuals,
                       ceres::Ownership ownership = ceres::TAKE_OWNERSHIP)
      : first_order_(functor, num_residuals, ownership) {
    Initialize();
  }

  explicit AutoDiffCostFunction(std::unique_ptr<CostFunctor> functor)
      : AutoDiffCostFunction(functor.release()) {}

  AutoDiffCostFunction(std::unique_ptr<CostFunctor> functor, int num_residuals)
      : AutoDiffCostFunction(functor.release(), num_residuals) {}

  /// Constructs the functor in place, as Ceres 2.2 does.
  template <typename... Args,
            std::enable_if_t<kNumResiduals != ceres::DYNAMIC &&
                             std::is_constructible<CostFunctor, Args&&...>::value>* = nullptr>
  explicit AutoDiffCostFunction(Args&&... args)
      : AutoDiffCostFunction(new CostFunctor(std::forward<Args>(args)...)) {}

  AutoDiffCostFunction(AutoDiffCostFunction&& other) : first_order_(std::move(other.first_order_)) {
    Initialize(other.num_residuals());
  }

  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    return first_order_.Evaluate(parameters, residuals, jacobians);
  }

  bool Record(internal::Recording* recording) const override {
    return Record(recording, std::make_index_sequence<sizeof...(Ns)>());
  }

  const CostFunctor& functor() const { return first_order_.functor(); }

 private:
  void Initialize(int num_residuals) {
    set_num_residuals(num_residuals);
    *mutable_parameter_block_sizes() = {Ns...};
  }
  void Initialize() { Initialize(first_order_.num_residuals()); }

  template <std::size_t... kBlocks>
  bool Record(internal::Recording* recording, std::index_sequence<kBlocks...>) const {
    return functor()(recording->blocks()[kBlocks]..., recording->residuals());
  }

  ceres::AutoDiffCostFunction<CostFunctor, kNumResiduals, Ns...> first_order_;
};

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_AUTO_DIFF_COST_FUNCTION_H_
