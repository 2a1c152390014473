#ifndef BILEVEL_MODELS_INTERNAL_LINEAR_MODEL_LOSSES_H_
#define BILEVEL_MODELS_INTERNAL_LINEAR_MODEL_LOSSES_H_

#include <algorithm>
#include <vector>

#include "Eigen/Core"
#include "bilevel/models/internal/linear_model_engine.h"
#include "bilevel/models/internal/simd_kernels.h"

namespace bilevel {
namespace internal {

// What a linear model makes of the outputs of a block of samples. One thread's memory.
template <typename T>
class LinearModelLosses {
 public:
  // A block has at most `block` samples; the description must outlive this.
  LinearModelLosses(const LinearModel::Description* description, int block);

  // From outputs, ld apart: the slopes r = d loss / d output, c apart, and the losses.
  // samples[i]: which one the i-th is.
  void Evaluate(const int* samples, int rows, const T* outputs, int ld, T* slopes, double* losses);

  // scale * omega(w_i), its slope and its curvature, each times the sample's weight in the batch;
  // batch_weights: nullptr for ones.
  void EvaluateWeights(const int* samples, int rows, const double* w, const double* batch_weights);
  double omega(int i) const { return omega_[i]; }
  double slope(int i) const { return slope_[i]; }
  double curvature(int i) const { return curvature_[i]; }

  // to = scale * H u with H = d^2 loss / d output^2 of a sample, from its slopes r.
  void Curve(int sample, const T* r, const T* u, T scale, T* to) const {
    const int c = p_.c;
    if (p_.loss == LinearModel::kSquared) {
      for (int k = 0; k < c; ++k) to[k] = scale * u[k];
      return;
    }
    const int label = static_cast<int>(p_.targets[sample]);
    if (p_.loss == LinearModel::kLogistic) {
      const T sigma = r[0] + static_cast<T>(label);
      to[0] = scale * sigma * (T(1) - sigma) * u[0];
      return;
    }
    // The probabilities are r, and r + 1 of the label.
    T mean = u[label];
    for (int k = 0; k < c; ++k) mean += r[k] * u[k];
    for (int k = 0; k < c; ++k) to[k] = scale * r[k] * (u[k] - mean);
    to[label] += scale * (u[label] - mean);
  }

 private:
  void Squared(const int* samples, int rows, const T* o, int ld, T* slopes, double* losses);
  void Logistic(const int* samples, int rows, const T* o, int ld, T* slopes, double* losses);
  void Softmax(const int* samples, int rows, const T* o, int ld, T* slopes, double* losses);

  const LinearModel::Description& p_;
  const ModelKernels<T>& kernels_;
  std::vector<T> exponentials_, shifts_;
  Eigen::Array<T, Eigen::Dynamic, 1> sums_;
  Eigen::ArrayXd omega_, slope_, curvature_;
};

}  // namespace internal
}  // namespace bilevel

#endif  // BILEVEL_MODELS_INTERNAL_LINEAR_MODEL_LOSSES_H_
