#include "bilevel/models/internal/linear_model_losses.h"

#include <algorithm>
#include <cmath>

namespace bilevel {
namespace internal {

template <typename T>
LinearModelLosses<T>::LinearModelLosses(const LinearModel::Description* description, int block)
    : p_(*description),
      kernels_(GetModelKernels<T>()),
      exponentials_(static_cast<size_t>(block) * description->c),
      shifts_(block),
      sums_(block),
      omega_(Eigen::ArrayXd::Zero(block)),
      slope_(omega_),
      curvature_(omega_) {}

template <typename T>
void LinearModelLosses<T>::Evaluate(
    const int* samples, int rows, const T* outputs, int ld, T* slopes, double* losses) {
  switch (p_.loss) {
    case LinearModel::kSquared:
      return Squared(samples, rows, outputs, ld, slopes, losses);
    case LinearModel::kLogistic:
      return Logistic(samples, rows, outputs, ld, slopes, losses);
    case LinearModel::kSoftmax:
      return Softmax(samples, rows, outputs, ld, slopes, losses);
  }
}

template <typename T>
void LinearModelLosses<T>::Squared(
    const int* samples, int rows, const T* o, int ld, T* slopes, double* losses) {
  const int c = p_.c;
  for (int i = 0; i < rows; ++i) {
    const double* const target = &p_.targets[static_cast<size_t>(samples[i]) * c];
    double sum = 0.0;
    for (int k = 0; k < c; ++k) {
      const double error = static_cast<double>(o[i * ld + k]) - target[k];
      slopes[i * c + k] = static_cast<T>(error);
      sum += error * error;
    }
    losses[i] = 0.5 * sum;
  }
}

// log(1 + e^u), where u is the output, negated for the label 1.
template <typename T>
void LinearModelLosses<T>::Logistic(
    const int* samples, int rows, const T* o, int ld, T* slopes, double* losses) {
  T* const e = exponentials_.data();
  for (int i = 0; i < rows; ++i) e[i] = -std::abs(o[i * ld]);
  kernels_.exp(e, rows);
  std::copy_n(e, rows, sums_.data());
  kernels_.log1p(sums_.data(), rows);
  for (int i = 0; i < rows; ++i) {
    const T sign = T(1) - T(2) * static_cast<T>(p_.targets[samples[i]]);
    const T u = sign * o[i * ld];
    const T positive = static_cast<T>(u > T(0));  // No branch on what is random.
    slopes[i] = sign * std::max(positive, e[i]) / (T(1) + e[i]);
    losses[i] = static_cast<double>(std::max(u, T(0))) + static_cast<double>(sums_[i]);
  }
}

template <typename T>
void LinearModelLosses<T>::Softmax(
    const int* samples, int rows, const T* o, int ld, T* slopes, double* losses) {
  const int c = p_.c;
  T* const e = exponentials_.data();
  for (int i = 0; i < rows; ++i) {
    const T* const from = o + i * ld;
    T largest = from[0];
    for (int k = 1; k < c; ++k) largest = std::max(largest, from[k]);
    for (int k = 0; k < c; ++k) e[i * c + k] = from[k] - largest;
    shifts_[i] = from[static_cast<int>(p_.targets[samples[i]])] - largest;
  }
  kernels_.exp(e, rows * c);
  for (int i = 0; i < rows; ++i) {
    T sum = 0;
    for (int k = 0; k < c; ++k) sum += e[i * c + k];
    sums_[i] = sum;
    const T inverse = T(1) / sum;
    T* const to = slopes + i * c;
    for (int k = 0; k < c; ++k) to[k] = e[i * c + k] * inverse;
    to[static_cast<int>(p_.targets[samples[i]])] -= T(1);
  }
  sums_.head(rows) = sums_.head(rows).log();
  for (int i = 0; i < rows; ++i) {
    losses[i] = static_cast<double>(sums_[i]) - static_cast<double>(shifts_[i]);
  }
}

template <typename T>
void LinearModelLosses<T>::EvaluateWeights(const int* samples,
                                           int rows,
                                           const double* w,
                                           const double* batch_weights) {
  auto omega = omega_.head(rows);
  auto slope = slope_.head(rows);
  auto curvature = curvature_.head(rows);
  if (p_.weights == LinearModel::kNone) {
    omega.setConstant(p_.scale);
  } else {
    for (int i = 0; i < rows; ++i) slope[i] = w[p_.WeightOf(samples[i])];
    if (p_.weights == LinearModel::kClipped) {
      omega = p_.scale * slope.max(0.0).min(1.0);
      slope = (slope >= 0.0 && slope <= 1.0).template cast<double>() * p_.scale;
      curvature.setZero();
    } else if (p_.weights == LinearModel::kSigmoid) {
      omega = (1.0 + (-slope).exp()).inverse();
      slope = p_.scale * omega * (1.0 - omega);
      curvature = slope * (1.0 - 2.0 * omega);
      omega *= p_.scale;
    } else {
      omega = p_.scale * slope.exp();
      slope = omega;
      curvature = omega;
    }
  }
  if (!batch_weights) return;
  for (int i = 0; i < rows; ++i) {
    omega[i] *= batch_weights[i];
    slope[i] *= batch_weights[i];
    curvature[i] *= batch_weights[i];
  }
}

template class LinearModelLosses<float>;
template class LinearModelLosses<double>;

}  // namespace internal
}  // namespace bilevel
