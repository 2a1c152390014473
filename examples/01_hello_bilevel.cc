// Ridge regression with a learned ridge: the smallest bilevel problem, its closed form beside it.
//
//   lower level   y*(w) = argmin 1/2 |A y - b|^2 + 1/2 e^{2w} |y|^2     on training data
//   upper level   w     = argmin 1/2 |C y*(w) - d|^2                    on validation data
#include <cmath>
#include <cstdio>
#include <random>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

struct Row {  // One sample: features' y - target.
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = T(-target);
    for (int i = 0; i < 4; ++i) residual[0] += features[i] * y[i];
    return true;
  }
  Eigen::Vector4d features;
  double target;
};

struct Ridge {
  template <typename T>
  bool operator()(const T* y, const T* log_weight, T* residual) const {
    for (int i = 0; i < 4; ++i) residual[i] = exp(log_weight[0]) * y[i];
    return true;
  }
};

int main() {
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  const Eigen::Vector4d truth(1.0, -0.5, 0.2, 0.0);
  double y[4] = {0.0, 0.0, 0.0, 0.0}, log_weight = 0.0;

  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&log_weight, 1);
  Eigen::Matrix4d AtA = Eigen::Matrix4d::Zero(), CtC = AtA;
  Eigen::Vector4d Atb = Eigen::Vector4d::Zero(), Ctd = Atb;
  double dtd = 0.0;
  for (int i = 0; i < 40; ++i) {
    Row row;
    for (double& feature : row.features) feature = normal(generator);
    row.target = row.features.dot(truth) + 2.0 * normal(generator);
    const bool training = i < 12;
    (training ? problem.lower() : problem.upper())
        ->AddResidualBlock(new bilevel::AutoDiffCostFunction<Row, 1, 4>(new Row(row)), nullptr, y);
    (training ? AtA : CtC) += row.features * row.features.transpose();
    (training ? Atb : Ctd) += row.features * row.target;
    if (!training) dtd += row.target * row.target;
  }
  problem.lower()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<Ridge, 4, 4, 1>(new Ridge), nullptr, y, &log_weight);

  bilevel::Solver::Options options;
  options.minimizer_progress_to_stdout = true;
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  std::puts(summary.FullReport().c_str());

  // The closed form: y*(w) solves the normal equations; search w on a fine grid.
  double best = 1e300, best_log_weight = 0.0;
  for (double w = -5.0; w <= 5.0; w += 1e-4) {
    const Eigen::Vector4d y_star =
        (AtA + std::exp(2.0 * w) * Eigen::Matrix4d::Identity()).ldlt().solve(Atb);
    const double value = 0.5 * (y_star.dot(CtC * y_star) - 2.0 * y_star.dot(Ctd) + dtd);
    if (value < best) {
      best = value;
      best_log_weight = w;
    }
  }
  std::printf("learned      log weight %8.4f   validation cost %.8f\n",
              log_weight,
              summary.final_objective);
  std::printf("closed form  log weight %8.4f   validation cost %.8f\n", best_log_weight, best);
  return summary.IsSolutionUsable() ? 0 : 1;
}
