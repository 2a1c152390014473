#ifndef BILEVEL_LEARNABLE_INTERNAL_WHITENED_H_
#define BILEVEL_LEARNABLE_INTERNAL_WHITENED_H_

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "bilevel/learnable/noise.h"
#include "bilevel/terms/second_order_cost_function.h"
#include "ceres/cost_function.h"
#include "ceres/types.h"

namespace bilevel {

/// Scratch on the stack, on the heap where it is unusually long.
template <int kSize>
class StackBuffer {
 public:
  explicit StackBuffer(int size) : large_(size > kSize ? size : 0) {}
  operator double*() { return large_.empty() ? small_ : large_.data(); }

 private:
  double small_[kSize];
  std::vector<double> large_;
};

/// W(theta) r(p). An Interface of ceres::CostFunction leaves second derivatives to differences.
template <typename Interface>
class Whitened : public Interface {
 public:
  Whitened(Interface* cost,
           ceres::Ownership ownership,
           std::vector<NoiseModel::Entry> entries,
           int num_parameters)
      : cost_(cost), ownership_(ownership), entries_(std::move(entries)) {
    this->set_num_residuals(cost->num_residuals());
    *this->mutable_parameter_block_sizes() = cost->parameter_block_sizes();
    for (const int size : cost->parameter_block_sizes()) cost_size_ += size;
    this->mutable_parameter_block_sizes()->push_back(num_parameters);
  }
  ~Whitened() override {
    if (ownership_ == ceres::DO_NOT_TAKE_OWNERSHIP) static_cast<void>(cost_.release());
  }

  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    if (!cost_->Evaluate(parameters, residuals, jacobians)) return false;
    const std::vector<int>& sizes = this->parameter_block_sizes();
    const int theta_block = static_cast<int>(sizes.size()) - 1;
    const double* theta = parameters[theta_block];
    double* by_theta = jacobians ? jacobians[theta_block] : nullptr;
    const int num_parameters = sizes[theta_block];
    if (by_theta) std::fill_n(by_theta, this->num_residuals() * num_parameters, 0.0);
    // Row i of W r needs rows j >= i of r only: all in place, its diagonal entry comes first.
    for (const NoiseModel::Entry& e : entries_) {
      const double w = e.Value(theta);
      if (by_theta) {
        by_theta[e.row * num_parameters + e.parameter] += e.Slope(w) * residuals[e.column];
      }
      const bool diagonal = e.row == e.column;
      residuals[e.row] = (diagonal ? 0.0 : residuals[e.row]) + w * residuals[e.column];
      if (!jacobians) continue;
      for (int b = 0; b < theta_block; ++b) {
        if (!jacobians[b]) continue;
        double* row = jacobians[b] + e.row * sizes[b];
        const double* from = jacobians[b] + e.column * sizes[b];
        for (int k = 0; k < sizes[b]; ++k) row[k] = (diagonal ? 0.0 : row[k]) + w * from[k];
      }
    }
    return true;
  }

 protected:
  // With w the weights: the cost function's own curvature is that of W'w, and
  // d^2/(dp dtheta) = J' (dW/dtheta)' w, d^2/dtheta^2 = w' (d^2W/dtheta^2) r.
  bool Hessian(double const* const* parameters, const double* weights, double* hessian) const {
    const int n = cost_size_, m = this->parameter_block_sizes().back();
    return Prepare(parameters, weights, [&](const Parts& parts) {
      // The cost function's Hessian is packed: spread it from its end.
      if (!cost_->EvaluateHessian(parameters, parts.weights, hessian)) return false;
      for (int i = n - 1; i >= 0; --i) {
        std::copy_backward(hessian + i * n, hessian + (i + 1) * n, hessian + i * (n + m) + n);
      }
      for (int i = 0; i < n; ++i) std::fill_n(hessian + i * (n + m) + n, m, 0.0);
      std::fill_n(hessian + n * (n + m), m * (n + m), 0.0);
      for (const NoiseModel::Entry& e : entries_) {
        const double w = e.Value(parts.theta), factor = e.Slope(w) * weights[e.row];
        const int column = n + e.parameter;
        for (int k = 0; k < n; ++k) {
          hessian[k * (n + m) + column] += factor * parts.jacobian[e.column * n + k];
        }
        if (e.sign != 0) {
          hessian[column * (n + m) + column] += w * weights[e.row] * parts.residuals[e.column];
        }
      }
      for (int j = n; j < n + m; ++j) {
        for (int k = 0; k < n; ++k) hessian[j * (n + m) + k] = hessian[k * (n + m) + j];
      }
      return true;
    });
  }

  bool HessianProduct(double const* const* parameters,
                      const double* weights,
                      const double* direction,
                      double* product) const {
    const int n = cost_size_, m = this->parameter_block_sizes().back();
    return Prepare(parameters, weights, [&](const Parts& parts) {
      if (!cost_->EvaluateHessianProduct(parameters, parts.weights, direction, product)) {
        return false;
      }
      std::fill_n(product + n, m, 0.0);
      for (const NoiseModel::Entry& e : entries_) {
        const double w = e.Value(parts.theta), factor = e.Slope(w) * weights[e.row];
        const double* row = parts.jacobian + e.column * n;
        const double by_theta = direction[n + e.parameter];
        double jd = 0.0;
        for (int k = 0; k < n; ++k) {
          jd += row[k] * direction[k];
          product[k] += factor * by_theta * row[k];
        }
        product[n + e.parameter] += factor * jd;
        if (e.sign != 0) {
          product[n + e.parameter] += w * weights[e.row] * parts.residuals[e.column] * by_theta;
        }
      }
      return true;
    });
  }

 private:
  struct Parts {
    const double* theta;
    const double* weights;    // W'w.
    const double* residuals;  // r.
    const double* jacobian;   // dr/dp, all blocks side by side.
  };

  template <typename Body>
  bool Prepare(double const* const* parameters, const double* weights, Body body) const {
    const std::vector<int>& sizes = this->parameter_block_sizes();
    const int num_blocks = static_cast<int>(sizes.size()) - 1;
    const int rows = this->num_residuals(), n = cost_size_;
    StackBuffer<32> w(rows), residuals(rows);
    StackBuffer<256> blocks(rows * n), jacobian(rows * n);
    constexpr int kBlocks = 16;
    double* small[kBlocks];
    std::vector<double*> large(num_blocks > kBlocks ? num_blocks : 0);
    double** pointers = large.empty() ? small : large.data();
    for (int b = 0, at = 0; b < num_blocks; at += rows * sizes[b], ++b) pointers[b] = blocks + at;
    if (!cost_->Evaluate(parameters, residuals, pointers)) return false;
    for (int b = 0, at = 0; b < num_blocks; at += sizes[b], ++b) {
      for (int i = 0; i < rows; ++i) {
        std::copy_n(pointers[b] + i * sizes[b], sizes[b], jacobian + i * n + at);
      }
    }
    const double* theta = parameters[num_blocks];
    std::fill_n(static_cast<double*>(w), rows, 0.0);
    for (const NoiseModel::Entry& e : entries_) w[e.column] += e.Value(theta) * weights[e.row];
    return body(Parts{theta, w, residuals, jacobian});
  }

  std::unique_ptr<Interface> cost_;
  const ceres::Ownership ownership_;
  const std::vector<NoiseModel::Entry> entries_;
  int cost_size_ = 0;
};

/// With exact second derivatives.
class ExactWhitened final : public Whitened<SecondOrderCostFunction> {
 public:
  using Whitened::Whitened;
  bool EvaluateHessian(double const* const* parameters,
                       const double* weights,
                       double* hessian) const override {
    return Hessian(parameters, weights, hessian);
  }
  bool EvaluateHessianProduct(double const* const* parameters,
                              const double* weights,
                              const double* direction,
                              double* product) const override {
    return HessianProduct(parameters, weights, direction, product);
  }
};

}  // namespace bilevel

#endif  // BILEVEL_LEARNABLE_INTERNAL_WHITENED_H_
