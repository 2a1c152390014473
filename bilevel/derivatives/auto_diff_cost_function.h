#ifndef BILEVEL_DERIVATIVES_AUTO_DIFF_COST_FUNCTION_H_
#define BILEVEL_DERIVATIVES_AUTO_DIFF_COST_FUNCTION_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "bilevel/derivatives/dual.h"
#include "bilevel/derivatives/rotation.h"  // Overloads that functors must see: keep it here.
#include "bilevel/derivatives/second_order_cost_function.h"
#include "ceres/autodiff_cost_function.h"
#include "ceres/types.h"

namespace bilevel {
namespace internal {

// `size` default-constructed T: on the stack while that is small, else in a buffer that the thread
// keeps. The buffer is taken out of its place during use, so nested evaluations do not share it.
template <typename T>
class ScratchArray {
 public:
  explicit ScratchArray(int size) {
    if (size <= kOnStack) {
      data_ = reinterpret_cast<T*>(stack_);
      std::uninitialized_value_construct_n(data_, size);
    } else {
      heap_.swap(Kept());
      heap_.assign(size, T());
      data_ = heap_.data();
    }
  }
  ~ScratchArray() {
    if (!heap_.empty()) heap_.swap(Kept());
  }
  ScratchArray(const ScratchArray&) = delete;
  ScratchArray& operator=(const ScratchArray&) = delete;

  T* data() { return data_; }
  T& operator[](int i) { return data_[i]; }

 private:
  static_assert(std::is_trivially_destructible<T>::value, "");
  static constexpr int kOnStack = std::max<int>(1, 16384 / sizeof(T));

  static std::vector<T>& Kept() {
    static thread_local std::vector<T> kept;
    return kept;
  }

  alignas(T) unsigned char stack_[kOnStack * sizeof(T)];
  std::vector<T> heap_;
  T* data_;
};

// An even number of inner derivatives vectorises whole.
template <int kTile>
using HessianJet = ceres::Jet<Dual<kTile == 1 ? 1 : kTile + kTile % 2>, kTile>;
template <int kTile>
using ProductJet = ceres::Jet<Dual<1>, kTile>;

// The n x n weighted Hessian by square tiles of its lower triangle: in each, the outer derivatives
// run over kTile rows and the inner ones over kTile columns. `evaluate(x, r)` calls the functor on
// the n flat parameters x.
template <int kTile, typename Evaluate>
bool TiledHessian(const Evaluate& evaluate,
                  const double* values,
                  int n,
                  const double* weights,
                  int num_residuals,
                  double* hessian) {
  using T = HessianJet<kTile>;
  ScratchArray<T> x(n);
  ScratchArray<T> r(num_residuals);
  for (int i = 0; i < n; ++i) x[i].a.a = values[i];

  for (int row = 0; row < n; row += kTile) {
    const int rows = std::min(kTile, n - row);
    for (int i = 0; i < rows; ++i) x[row + i].v[i].a = 1.0;
    for (int col = 0; col <= row; col += kTile) {
      const int cols = std::min(kTile, n - col);
      for (int j = 0; j < cols; ++j) x[col + j].a.d[j] = 1.0;
      if (!evaluate(x.data(), r.data())) return false;
      for (int j = 0; j < cols; ++j) x[col + j].a.d[j] = 0.0;

      for (int i = 0; i < rows; ++i) {
        typename T::Scalar sum(0.0);
        for (int k = 0; k < num_residuals; ++k) {
          if (weights[k] != 0.0) sum += weights[k] * r[k].v[i];
        }
        for (int j = 0; j < cols; ++j) {
          hessian[(row + i) * n + col + j] = sum.d[j];
          hessian[(col + j) * n + row + i] = sum.d[j];
        }
      }
    }
    for (int i = 0; i < rows; ++i) x[row + i].v[i].a = 0.0;
  }
  return true;
}

// The weighted Hessian times `direction`, kTile entries a pass: the inner derivative is the one
// along the direction.
template <int kTile, typename Evaluate>
bool TiledHessianProduct(const Evaluate& evaluate,
                         const double* values,
                         int n,
                         const double* weights,
                         int num_residuals,
                         const double* direction,
                         double* product) {
  using T = ProductJet<kTile>;
  ScratchArray<T> x(n);
  ScratchArray<T> r(num_residuals);
  for (int i = 0; i < n; ++i) {
    x[i].a.a = values[i];
    x[i].a.d[0] = direction[i];
  }
  for (int row = 0; row < n; row += kTile) {
    const int rows = std::min(kTile, n - row);
    for (int i = 0; i < rows; ++i) x[row + i].v[i].a = 1.0;
    if (!evaluate(x.data(), r.data())) return false;
    for (int i = 0; i < rows; ++i) {
      double sum = 0.0;
      for (int k = 0; k < num_residuals; ++k) {
        if (weights[k] != 0.0) sum += weights[k] * r[k].v[i].d[0];
      }
      product[row + i] = sum;
      x[row + i].v[i].a = 0.0;
    }
  }
  return true;
}

// The smallest tile that covers n with as few tiles of at most `max` as possible.
constexpr int TileSize(int n, int max) {
  const int tiles = (n + max - 1) / max;
  return (n + tiles - 1) / tiles;
}

}  // namespace internal

/// Drop-in for ceres::AutoDiffCostFunction (same template parameters, constructors and ownership)
/// that also has exact second derivatives. Residuals and Jacobians are Ceres' own, at Ceres' speed.
///
/// The functor is instantiated with double, ceres::Jet<double, N> and two types of
/// `ceres::Jet<bilevel::Dual<M>, N>`; see dual.h for what those support. Second derivatives of
/// norms, square roots and the like are not finite where they do not exist, as first ones in Ceres.
///
/// Include this header before functors that call ceres::AngleAxisRotatePoint and the like with
/// their namespace: see rotation.h.
template <typename CostFunctor,
          int kNumResiduals,  // Number of residuals, or ceres::DYNAMIC.
          int... Ns>          // Number of parameters in each parameter block.
class AutoDiffCostFunction final : public SecondOrderCostFunction {
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

  bool EvaluateHessian(double const* const* parameters,
                       const double* weights,
                       double* hessian) const override {
    // Square tiles of at most 8 keep the jets in cache and the stack small.
    constexpr int kTile = internal::TileSize(kNumParameters, 8);
    return internal::TiledHessian<kTile>(
        [this](const auto* x, auto* r) { return this->Call(x, r, Indices()); },
        Gather(parameters).data(),
        kNumParameters,
        weights,
        num_residuals(),
        hessian);
  }

  bool EvaluateHessianProduct(double const* const* parameters,
                              const double* weights,
                              const double* direction,
                              double* product) const override {
    constexpr int kTile = internal::TileSize(kNumParameters, 16);
    return internal::TiledHessianProduct<kTile>(
        [this](const auto* x, auto* r) { return this->Call(x, r, Indices()); },
        Gather(parameters).data(),
        kNumParameters,
        weights,
        num_residuals(),
        direction,
        product);
  }

  const CostFunctor& functor() const { return first_order_.functor(); }

 private:
  static constexpr int kNumBlocks = sizeof...(Ns);
  static constexpr int kNumParameters = (Ns + ... + 0);
  static constexpr std::array<int, kNumBlocks> kSizes = {Ns...};
  using Indices = std::make_index_sequence<kNumBlocks>;

  void Initialize(int num_residuals) {
    set_num_residuals(num_residuals);
    *mutable_parameter_block_sizes() = {Ns...};
  }
  void Initialize() { Initialize(first_order_.num_residuals()); }

  static constexpr int Offset(std::size_t block) {
    int offset = 0;
    for (std::size_t i = 0; i < block; ++i) offset += kSizes[i];
    return offset;
  }

  static std::array<double, kNumParameters> Gather(double const* const* parameters) {
    std::array<double, kNumParameters> values;
    double* out = values.data();
    for (int i = 0; i < kNumBlocks; ++i) out = std::copy_n(parameters[i], kSizes[i], out);
    return values;
  }

  template <typename T, std::size_t... kBlocks>
  bool Call(const T* x, T* residuals, std::index_sequence<kBlocks...>) const {
    return functor()((x + Offset(kBlocks))..., residuals);
  }

  ceres::AutoDiffCostFunction<CostFunctor, kNumResiduals, Ns...> first_order_;
};

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_AUTO_DIFF_COST_FUNCTION_H_
