// The noise of a pose graph's odometry, learned from a drive with ground truth.
//
//   lower level   poses*(sigma) = argmin of the graph with odometry's sigmas      two laps of a
//   block upper level   sigma         = argmin sum |position - surveyed position|^2
//
// The sigma of loop closures is known and stays: positions see ratios of noise levels alone, so
// that one of them must be held for the others to be determined.
#include <array>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

using Pose = std::array<double, 3>;  // x [m], y [m], heading [rad]

struct RelativePose {  // A plain error in metres and radians: noise is none of its business.
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    const T c = cos(a[2]), s = sin(a[2]), x = b[0] - a[0], y = b[1] - a[1];
    r[0] = c * x + s * y - measured[0];
    r[1] = -s * x + c * y - measured[1];
    r[2] = b[2] - a[2] - measured[2];
    return true;
  }
  Pose measured;
};
using Edge = bilevel::AutoDiffCostFunction<RelativePose, 3, 3, 3>;

struct Surveyed {
  template <typename T>
  bool operator()(const T* pose, T* r) const {
    r[0] = pose[0] - truth[0];
    r[1] = pose[1] - truth[1];
    return true;
  }
  Pose truth;
};

constexpr int kSide = 20, kLap = 4 * kSide, kPoses = 2 * kLap;
constexpr double kTrueOdometry[3] = {0.10, 0.02, 0.01}, kTrueLoop = 0.05;

double RmsError(const std::vector<Pose>& poses, const std::vector<Pose>& truth) {
  double sum = 0.0;
  for (int i = 0; i < kPoses; ++i) {
    sum += std::pow(poses[i][0] - truth[i][0], 2) + std::pow(poses[i][1] - truth[i][1], 2);
  }
  return std::sqrt(sum / kPoses);
}

int main() {
  std::vector<Pose> truth{{0.0, 0.0, 0.0}};
  for (int i = 1; i < kPoses; ++i) {
    const Pose& p = truth.back();
    const double turn = i % kSide == 0 ? M_PI / 2 : 0.0;
    truth.push_back({p[0] + std::cos(p[2]), p[1] + std::sin(p[2]), p[2] + turn});
  }
  std::vector<Pose> poses = truth;  // A good start: what is wrong with it is not today's job.
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  const auto measure = [&](int from, int to, const double* sigma) {
    RelativePose edge{};  // With nothing measured yet, its error is what should be.
    Pose measured;
    edge(truth[from].data(), truth[to].data(), measured.data());
    for (int k = 0; k < 3; ++k) measured[k] += sigma[k] * normal(generator);
    return new Edge(new RelativePose{measured});
  };

  // One NoiseModel is one type of measurement. Its parameters are log sigmas, here of 5 cm, 5 cm
  // and 0.05 rad to begin with.
  double log_odometry[3] = {std::log(0.05), std::log(0.05), std::log(0.05)};
  double log_loop = std::log(kTrueLoop);
  bilevel::DiagonalNoise odometry(log_odometry, 3);
  bilevel::ScalarNoise loop(&log_loop, 3);
  const double loop_sigmas[3] = {kTrueLoop, kTrueLoop, kTrueLoop};

  bilevel::Problem problem;
  problem.AddUpperParameterBlock(log_odometry, 3);
  problem.SetParameterName(log_odometry, "log sigma of odometry");
  ceres::Problem* lower = problem.lower();
  for (int i = 1; i < kPoses; ++i) {
    odometry.AddResidualBlock(
        measure(i - 1, i, kTrueOdometry), nullptr, {poses[i - 1].data(), poses[i].data()}, lower);
  }
  for (int i = kLap; i < kPoses; i += 8) {
    loop.AddResidualBlock(measure(i - kLap, i, loop_sigmas),
                          nullptr,
                          {poses[i - kLap].data(), poses[i].data()},
                          lower);
  }
  lower->SetParameterBlockConstant(poses[0].data());
  lower->SetParameterBlockConstant(&log_loop);
  for (int i = 1; i < kPoses; ++i) {
    problem.upper()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<Surveyed, 2, 3>(new Surveyed{truth[i]}),
        nullptr,
        poses[i].data());
  }

  bilevel::Solver::Options options;
  options.max_num_iterations = 0;  // The lower level alone.
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  const double before = RmsError(poses, truth);
  options.max_num_iterations = 50;
  bilevel::Solve(options, &problem, &summary);
  const double after = RmsError(poses, truth);
  std::puts(summary.FullReport().c_str());
  std::printf("RMS position error: guessed %.3f m, learned %.3f m\n", before, after);
  std::printf("To paste:\n%s\n", odometry.Describe("odometry").c_str());
  return summary.IsSolutionUsable() && after < before ? 0 : 1;
}
