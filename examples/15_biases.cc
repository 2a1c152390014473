// What a robot's sensors have wrong, learned from a drive with ground truth:
//
//   double bias[2] = {0.0, 0.0};                   // log wheel scale, gyroscope's bias
//   problem.AddUpperParameterBlock(bias, 2);       // is learned: a block like any other
//   problem.lower()->AddResidualBlock(..., bias);  // of the residual blocks that it spoils,
//   problem.upper()->AddResidualBlock(..., truth); // by what the estimate should have been.
//   bilevel::Solve(options, &problem, &summary);
#include <array>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

using Pose = std::array<double, 3>;  // x [m], y [m], heading [rad]

constexpr double kTrueScale = 1.04, kTrueBias = -0.006;                    // [1], [rad a step]
constexpr double kSigmaWheel = 0.02, kSigmaGyro = 0.004, kSigmaFix = 0.5;  // [m], [rad], [m]

struct Step {  // Of wheels and gyroscope, in units of their noise.
  template <typename T>
  bool operator()(const T* a, const T* b, const T* bias, T* r) const {
    const T c = cos(a[2]), s = sin(a[2]), x = b[0] - a[0], y = b[1] - a[1];
    r[0] = (c * x + s * y - exp(bias[0]) * wheel) / kSigmaWheel;
    r[1] = (-s * x + c * y) / kSigmaWheel;
    r[2] = (b[2] - a[2] - (gyro - bias[1])) / kSigmaGyro;
    return true;
  }
  double wheel, gyro;
};
struct Position {  // Of a satellite's receiver, or surveyed.
  template <typename T>
  bool operator()(const T* pose, T* r) const {
    r[0] = (pose[0] - at[0]) / sigma;
    r[1] = (pose[1] - at[1]) / sigma;
    return true;
  }
  Pose at;
  double sigma;
};
using PositionCost = bilevel::AutoDiffCostFunction<Position, 2, 3>;

struct Drive {
  Drive(int seed, int size) : truth(size), poses(size) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    for (int i = 1; i < size; ++i) {
      const Pose& p = truth[i - 1];
      const double turn = 0.05 * std::sin(0.07 * i + seed);
      truth[i] = {p[0] + std::cos(p[2]), p[1] + std::sin(p[2]), p[2] + turn};
      steps.push_back({(1.0 + kSigmaWheel * normal(generator)) / kTrueScale,
                       turn + kTrueBias + kSigmaGyro * normal(generator)});
    }
    poses = truth;
    for (int i = 0; i < size; i += 20) {
      fixes.push_back({truth[i], kSigmaFix});
      for (int k = 0; k < 2; ++k) fixes.back().at[k] += kSigmaFix * normal(generator);
    }
  }

  void AddTo(double* bias, ceres::Problem* lower) {
    for (size_t i = 0; i < steps.size(); ++i) {
      lower->AddResidualBlock(
          new bilevel::AutoDiffCostFunction<Step, 3, 3, 3, 2>(new Step(steps[i])),
          nullptr,
          poses[i].data(),
          poses[i + 1].data(),
          bias);
    }
    for (size_t i = 0; i < fixes.size(); ++i) {
      lower->AddResidualBlock(
          new PositionCost(new Position(fixes[i])), nullptr, poses[20 * i].data());
    }
  }
  std::vector<Pose> truth, poses;
  std::vector<Step> steps;
  std::vector<Position> fixes;
};

int main() {
  double bias[2] = {0.0, 0.0};
  Drive learning(1, 400), test(2, 400);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(bias, 2);
  learning.AddTo(bias, problem.lower());
  for (size_t i = 0; i < learning.poses.size(); ++i) {
    problem.upper()->AddResidualBlock(
        new PositionCost(new Position{learning.truth[i], 1.0}), nullptr, learning.poses[i].data());
  }

  // The other drive is an ordinary problem in which the bias is constant.
  ceres::Problem of_test;
  test.AddTo(bias, &of_test);
  of_test.SetParameterBlockConstant(bias);
  const auto test_error = [&] {
    ceres::Solver::Summary unused;
    ceres::Solve({}, &of_test, &unused);
    double sum = 0.0;
    for (size_t i = 0; i < test.poses.size(); ++i) {
      for (int k : {0, 1}) sum += std::pow(test.poses[i][k] - test.truth[i][k], 2);
    }
    return std::sqrt(sum / test.poses.size());
  };
  const double before = test_error();

  bilevel::Solver::Options options;
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  const double after = test_error();
  // Its standard errors take the errors of neighbouring poses for independent, which they are not:
  // ComputeUncertaintyAcrossScenarios has those of many drives.
  std::puts(summary.FullReport().c_str());
  std::printf("wheel scale %.4f, truly %.4f\n", std::exp(bias[0]), kTrueScale);
  std::printf("gyroscope's bias %.5f, truly %.5f rad a step\n", bias[1], kTrueBias);
  std::printf("another drive's RMS error: %.3f m without, %.3f m with them\n", before, after);
  return summary.IsSolutionUsable() && after < 0.5 * before ? 0 : 1;
}
