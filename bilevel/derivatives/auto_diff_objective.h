#ifndef BILEVEL_DERIVATIVES_AUTO_DIFF_OBJECTIVE_H_
#define BILEVEL_DERIVATIVES_AUTO_DIFF_OBJECTIVE_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bilevel/derivatives/rotation.h"  // For functors that rotate.
#include "bilevel/derivatives/tape.h"
#include "bilevel/terms/objective.h"

namespace bilevel {

/// A general term of f or g from a templated scalar function of blocks of Ns... parameters, with
/// exact first and second derivatives: what AutoDiffCostFunction is to residuals.
///
///     struct Quartic {
///       template <typename T>
///       bool operator()(const T* x, const T* y, T* value) const {
///         value[0] = pow(y[0] - x[0], 4) + y[1];
///         return true;  // False: it cannot be evaluated here.
///       }
///     };
///     problem.AddTerm(Level::kLower, std::make_unique<AutoDiffObjective<Quartic, 1, 2>>(),
///                     {{x, 1}, {y, 2}});
///
/// Given several functors, one a sample, it is their sum, of which minibatches are drawn.
/// The functor is instantiated with double and bilevel::TapeJet (tape.h); the value is not halved.
/// A gradient costs one call of the functor and one sweep over its operations, a Hessian-vector
/// product one call and two sweeps. Nothing is shared between threads.
template <typename Functor, int... Ns>
class AutoDiffObjective final : public Objective {
 public:
  /// Constructs the functor in place: AutoDiffObjective<F, 1>(3.0), or of F{3.0}.
  template <typename... Args,
            std::enable_if_t<std::is_constructible<Functor, Args&&...>::value>* = nullptr>
  explicit AutoDiffObjective(Args&&... args) {
    functors_.emplace_back(std::forward<Args>(args)...);
  }
  /// The sum of all of them; at least one.
  explicit AutoDiffObjective(std::vector<Functor> functors) : functors_(std::move(functors)) {}

  int num_terms() const override { return static_cast<int>(functors_.size()); }

  std::string CheckBlocks(const std::vector<int>& sizes) const override {
    if (functors_.empty()) return "an AutoDiffObjective has no functor";
    if (sizes == std::vector<int>{Ns...}) return "";
    std::string expected;
    for (const int n : {Ns...}) expected += (expected.empty() ? "" : ", ") + std::to_string(n);
    return "its functor takes blocks of sizes " + expected;
  }

  bool Evaluate(double const* const* blocks,
                const Batch& batch,
                double* value,
                double** gradients) const override {
    return gradients ? Differentiate(blocks, batch, nullptr, value, gradients, nullptr)
                     : Sum(blocks, batch, value, std::make_index_sequence<sizeof...(Ns)>());
  }

  bool has_hessian_product() const override { return true; }
  bool HessianProduct(double const* const* blocks,
                      const Batch& batch,
                      double const* const* direction,
                      double** products) const override {
    return Differentiate(blocks, batch, direction, nullptr, nullptr, products);
  }
  bool EvaluateWithProduct(double const* const* blocks,
                           const Batch& batch,
                           double const* const* direction,
                           double* value,
                           double** gradients,
                           double** products) const override {
    return Differentiate(blocks, batch, direction, value, gradients, products);
  }

 private:
  static constexpr int kSize = (0 + ... + Ns);
  using Flat = std::array<double, kSize>;  // All blocks, one after the other.

  // body(functor, weight) for the drawn ones, until it returns false.
  template <typename Body>
  bool ForEach(const Batch& batch, const Body& body) const {
    const int n = num_terms();
    if (n == 1) return body(functors_[0], 1.0);  // A part of every batch.
    for (int k = 0; k < batch.Count(n); ++k) {
      if (!body(functors_[batch.Term(k, n)], batch.Weight(k, n))) return false;
    }
    return true;
  }

  template <std::size_t... kBlocks>
  bool Sum(double const* const* blocks,
           const Batch& batch,
           double* value,
           std::index_sequence<kBlocks...>) const {
    *value = 0.0;
    return ForEach(batch, [&](const Functor& functor, double weight) {
      double own = 0.0;
      if (!functor(blocks[kBlocks]..., &own)) return false;
      *value += weight * own;
      return true;
    });
  }

  bool Differentiate(double const* const* blocks,
                     const Batch& batch,
                     double const* const* direction,
                     double* value,
                     double** gradients,
                     double** products) const {
    static const std::vector<int> sizes{Ns...};
    Flat way{}, gradient{}, product{}, own;
    if (direction) {
      int at = 0, block = 0;
      for (const int n : sizes) {
        if (const double* from = direction[block++]) std::copy_n(from, n, way.data() + at);
        at += n;
      }
    }
    double sum = 0.0;
    const bool ok = ForEach(batch, [&](const Functor& functor, double weight) {
      internal::Recording recording(blocks, sizes, 1);
      if (!Record(functor, &recording, std::make_index_sequence<sizeof...(Ns)>())) return false;
      double its_value;
      recording.Values(&its_value);
      sum += weight * its_value;
      if (gradients) {
        recording.Gradient(&weight, own.data());
        for (int i = 0; i < kSize; ++i) gradient[i] += own[i];
      }
      if (products) {
        recording.HessianProduct(&weight, way.data(), own.data());
        for (int i = 0; i < kSize; ++i) product[i] += own[i];
      }
      return true;
    });
    if (!ok) return false;
    if (value) *value = sum;
    Scatter(gradient, gradients);
    Scatter(product, products);
    return true;
  }

  template <std::size_t... kBlocks>
  static bool Record(const Functor& functor,
                     internal::Recording* recording,
                     std::index_sequence<kBlocks...>) {
    return functor(recording->blocks()[kBlocks]..., recording->residuals());
  }

  static void Scatter(const Flat& flat, double** blocks) {
    if (!blocks) return;
    int at = 0, block = 0;
    for (const int n : {Ns...}) {
      if (double* to = blocks[block++]) std::copy_n(flat.data() + at, n, to);
      at += n;
    }
  }

  std::vector<Functor> functors_;
};

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_AUTO_DIFF_OBJECTIVE_H_
