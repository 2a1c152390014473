#ifndef BILEVEL_TESTS_TEST_PROBLEMS_H_
#define BILEVEL_TESTS_TEST_PROBLEMS_H_

// Small problems shared by tests, and differences to check derivatives against.

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/bilevel.h"
#include "bilevel/learnable/losses.h"
#include "bilevel/program/program.h"
#include "bilevel/program/space.h"
#include "ceres/ceres.h"
#include "ceres/rotation.h"

namespace bilevel {

// Derivative of f at 0 by central differences with two Richardson extrapolations: h^6 remains.
template <typename Value>
Value Derivative(const std::function<Value(double)>& f, double h = 2e-2) {
  const auto central = [&](double step) -> Value { return (f(step) - f(-step)) / (2.0 * step); };
  const Value d0 = central(h), d1 = central(h / 2), d2 = central(h / 4);
  const Value e0 = (4.0 * d1 - d0) / 3.0, e1 = (4.0 * d2 - d1) / 3.0;
  return (16.0 * e1 - e0) / 15.0;
}

inline Vector TestVector(int size, double seed) {
  Vector v(size);
  for (int i = 0; i < size; ++i) v[i] = std::sin(seed + 1.7 * i) + 0.3 * std::cos(3.0 * seed * i);
  return v;
}

// Makes any cost function opaque: its second derivatives must be differenced.
class Opaque : public ceres::CostFunction {
 public:
  explicit Opaque(ceres::CostFunction* cost) : cost_(cost) {
    set_num_residuals(cost->num_residuals());
    *mutable_parameter_block_sizes() = cost->parameter_block_sizes();
  }
  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    return cost_->Evaluate(parameters, residuals, jacobians);
  }

 private:
  std::unique_ptr<ceres::CostFunction> cost_;
};

// A cost function of lambdas' size: residual = offset + scale * (sum of all parameters), or
// whatever `function` says.
class FunctionCost : public ceres::CostFunction {
 public:
  using Function = std::function<bool(double const* const*, double*, double**)>;
  FunctionCost(int num_residuals, std::vector<int> sizes, Function function)
      : function_(std::move(function)) {
    set_num_residuals(num_residuals);
    mutable_parameter_block_sizes()->assign(sizes.begin(), sizes.end());
  }
  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    return function_(parameters, residuals, jacobians);
  }

 private:
  Function function_;
};

// y - target.
struct To {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0] - target;
    return true;
  }
  double target;
};

// y - x, the simplest coupling of the levels.
struct Difference {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] - x[0];
    return true;
  }
};

// y - target.
struct Target {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0] - target;
    return true;
  }
  double target;
};

// e^w (y - target).
struct Weighted {
  template <typename T>
  bool operator()(const T* y, const T* log_weight, T* residual) const {
    using std::exp;
    residual[0] = exp(log_weight[0]) * (y[0] - target);
    return true;
  }
  double target;
};

inline ceres::CostFunction* TargetCost(double target) {
  return new AutoDiffCostFunction<Target, 1, 1>(new Target{target});
}
inline ceres::CostFunction* DifferenceCost() {
  return new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference);
}
inline ceres::CostFunction* WeightedCost(double target) {
  return new AutoDiffCostFunction<Weighted, 1, 1, 1>(new Weighted{target});
}

// A residual that mixes everything: q is a unit quaternion (Ceres' order), t a point, s a scalar.
struct Mixed {
  template <typename T>
  bool operator()(const T* q, const T* t, const T* s, T* residual) const {
    using std::exp;
    using std::sin;
    const T p[3] = {t[0] * exp(0.3 * s[0]), t[1] + 0.2, t[2] - s[0] * t[0]};
    T rotated[3];
    ceres::QuaternionRotatePoint(q, p, rotated);
    for (int i = 0; i < 3; ++i) residual[i] = rotated[i] - offset[i];
    residual[3] = 0.5 * t[0] * t[1] * s[0] - 0.1 * sin(q[1] + t[2]);
    return true;
  }
  double offset[3];
};

// Coefficients of an Eigen quaternion (x, y, z, w), seen as a unit 4-vector.
struct Alignment {
  template <typename T>
  bool operator()(const T* q, const T* s, T* residual) const {
    residual[0] = q[0] * q[1] - 0.3 * s[0] * q[3];
    residual[1] = q[2] * q[2] + 0.1 * q[0] + target;
    return true;
  }
  double target;
};

}  // namespace bilevel

#endif  // BILEVEL_TESTS_TEST_PROBLEMS_H_
