// Ridge regression with a learned ridge: the smallest bilevel problem, its closed form beside it.
//
//   lower level   y*(w) = argmin 1/2 |A y - b|^2 + 1/2 e^{2w} |y|^2     12 training samples
//   upper level   w     = argmin 1/2 |C y*(w) - d|^2                    28 validation samples
#include <cmath>
#include <cstdio>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

using Eigen::Vector4d;

struct Sample {  // features' y - target
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = -T(target);
    for (int i = 0; i < 4; ++i) residual[0] += features[i] * y[i];
    return true;
  }
  Vector4d features;
  double target;
};

struct Ridge {  // e^w y, where w is a parameter block like any other.
  template <typename T>
  bool operator()(const T* y, const T* w, T* residual) const {
    for (int i = 0; i < 4; ++i) residual[i] = exp(w[0]) * y[i];
    return true;
  }
};

int main() {
  std::srand(1);  // Eigen's generator.
  const Eigen::MatrixXd A = Eigen::MatrixXd::Random(12, 4), C = Eigen::MatrixXd::Random(28, 4);
  const Vector4d truth(1.0, -0.5, 0.2, 0.0);
  const Eigen::VectorXd b = A * truth + Eigen::VectorXd::Random(12);
  const Eigen::VectorXd d = C * truth + Eigen::VectorXd::Random(28);

  // Two ordinary ceres::Problems that share parameter blocks. w is declared upper; y is the rest.
  using SampleCost = bilevel::AutoDiffCostFunction<Sample, 1, 4>;
  using RidgeCost = bilevel::AutoDiffCostFunction<Ridge, 4, 4, 1>;
  double y[4] = {}, w = 0.0;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&w, 1);
  for (int i = 0; i < 12; ++i) {
    problem.lower()->AddResidualBlock(new SampleCost(new Sample{A.row(i), b[i]}), nullptr, y);
  }
  problem.lower()->AddResidualBlock(new RidgeCost(new Ridge), nullptr, y, &w);
  for (int i = 0; i < 28; ++i) {
    problem.upper()->AddResidualBlock(new SampleCost(new Sample{C.row(i), d[i]}), nullptr, y);
  }
  bilevel::Solver::Options options;
  options.minimizer_progress_to_stdout = true;
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);  // Leaves the best point found in w and y.
  std::puts(summary.FullReport().c_str());

  // The closed form: y*(w) = H^-1 A'b with H = A'A + e^{2w} I, so that the slope of the validation
  // cost is -2 e^{2w} (C y* - d)' C H^-1 y*. Bisection finds its zero.
  double low = -5.0, high = 5.0;
  for (int i = 0; i < 60; ++i) {
    const double mid = 0.5 * (low + high), ridge = std::exp(2.0 * mid);
    const auto H = (A.transpose() * A + ridge * Eigen::Matrix4d::Identity()).ldlt();
    const Vector4d y_star = H.solve(A.transpose() * b);
    ((C * y_star - d).dot(C * H.solve(y_star)) < 0.0 ? high : low) = mid;
  }
  std::printf("w learned %.6f, w from the closed form %.6f\n", w, low);
  return summary.IsSolutionUsable() && std::abs(w - low) < 1e-4 ? 0 : 1;
}
