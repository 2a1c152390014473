#ifndef BILEVEL_LEARNABLE_AUTO_DIFF_LOSS_H_
#define BILEVEL_LEARNABLE_AUTO_DIFF_LOSS_H_

#include <cstddef>
#include <limits>
#include <utility>

#include "bilevel/derivatives/dual.h"
#include "bilevel/terms/learnable_loss.h"
#include "ceres/jet.h"

namespace bilevel {

/// A learnable loss from its formula, as ceres::AutoDiffCostFunction is a cost function from its:
///
///     struct Charbonnier {  // rho = 2 a^2 (sqrt(1 + s / a^2) - 1), a = exp(log_scale)
///       template <typename T>
///       T operator()(const T& s, const T* log_scale) const {
///         const T a2 = exp(2.0 * log_scale[0]);
///         return 2.0 * a2 * (sqrt(1.0 + s / a2) - 1.0);
///       }
///     };
///     auto* loss = new bilevel::AutoDiffLearnableLoss<Charbonnier, 1>(Charbonnier(), &log_scale);
///
/// Ns are the sizes of the blocks of theta, in the order of the functor's arguments. All
/// derivatives come from one evaluation with ceres::Jet<bilevel::Dual<1>, N>. s = 0 is an ordinary
/// argument, so the formula must have two derivatives there: sqrt(s) has not. As in losses.h, a
/// negative or NaN s gives NaN.
template <typename Functor, int... Ns>
class AutoDiffLearnableLoss final : public LearnableLoss {
 public:
  /// One pointer for each of Ns; the functor must be callable from several threads.
  template <typename... Doubles>
  explicit AutoDiffLearnableLoss(Functor functor, Doubles*... blocks)
      : LearnableLoss({ParameterBlock{blocks, Ns}...}), functor_(std::move(functor)) {}

  using LearnableLoss::Evaluate;
  void Evaluate(double s,
                double const* const* theta,
                double rho[3],
                double* rho_theta,
                double* rho_s_theta) const override {
    if (rho_theta == nullptr && rho_s_theta == nullptr) {
      Write(Call<1>(s, theta), rho);
      return;
    }
    const auto result = Call<1 + kNumParameters>(s, theta);
    Write(result, rho);
    for (int i = 0; i < kNumParameters; ++i) {
      if (rho_theta != nullptr) rho_theta[i] = result.v[1 + i].a;
      if (rho_s_theta != nullptr) rho_s_theta[i] = result.v[1 + i].d[0];
    }
  }

 private:
  static constexpr int kNumParameters = (Ns + ... + 0);

  template <typename T>
  static void Write(const T& result, double rho[3]) {
    rho[0] = result.a.a;
    rho[1] = result.v[0].a;
    rho[2] = result.v[0].d[0];
  }

  // The outer derivatives are by s and, if kSize > 1, theta; the inner one is by s.
  template <int kSize>
  ceres::Jet<Dual<1>, kSize> Call(double s, double const* const* theta) const {
    using T = ceres::Jet<Dual<1>, kSize>;
    if (!(s >= 0.0)) s = std::numeric_limits<double>::quiet_NaN();
    T x[1 + kNumParameters];
    x[0] = T(Dual<1>(s), 0);
    x[0].a.d[0] = 1.0;
    const T* blocks[sizeof...(Ns) + 1];
    int block = 0;
    int entry = 1;
    for (const int size : {Ns...}) {
      blocks[block] = x + entry;
      for (int i = 0; i < size; ++i, ++entry) {
        x[entry] = kSize > 1 ? T(Dual<1>(theta[block][i]), entry) : T(Dual<1>(theta[block][i]));
      }
      ++block;
    }
    return Apply(x[0], blocks, std::make_index_sequence<sizeof...(Ns)>());
  }

  template <typename T, std::size_t... Is>
  T Apply(const T& s, const T* const* blocks, std::index_sequence<Is...>) const {
    return functor_(s, blocks[Is]...);
  }

  Functor functor_;
};

}  // namespace bilevel

#endif  // BILEVEL_LEARNABLE_AUTO_DIFF_LOSS_H_
