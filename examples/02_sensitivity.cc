// How would the map move if the odometry were noisier than we think? Answered by one factorisation,
// for a program that was written before this library existed.
//
// Above the line stands an ordinary Ceres pose graph, two laps around a block; its noise is a
// number in the residuals and no parameter of anything. Below the line stands bilevel::Sensitivity.
#include <array>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

using Pose = std::array<double, 3>;  // x [m], y [m], heading [rad]

struct RelativePose {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    const T c = cos(a[2]), s = sin(a[2]), x = b[0] - a[0], y = b[1] - a[1];
    r[0] = (c * x + s * y - measured[0]) / sigma;
    r[1] = (-s * x + c * y - measured[1]) / sigma;
    r[2] = (b[2] - a[2] - measured[2]) / (0.4 * sigma);
    return true;
  }
  Pose measured{};
  double sigma = 1.0;
};

struct Graph {
  std::vector<Pose> poses;
  ceres::Problem problem;
  std::vector<ceres::ResidualBlockId> odometry, loops;
};

// A pose a metre; the second lap meets the first at every fourth pose.
void Build(double sigma_odometry, Graph* graph) {
  constexpr int kSide = 8, kLap = 4 * kSide, kPoses = 2 * kLap;
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  std::vector<Pose>& poses = graph->poses;
  poses = {{0.0, 0.0, 0.0}};
  for (int i = 1; i < kPoses; ++i) {
    const Pose& p = poses.back();
    const double turn = i % kSide == 0 ? M_PI / 2 : 0.0;
    poses.push_back({p[0] + std::cos(p[2]), p[1] + std::sin(p[2]), p[2] + turn});
  }
  const auto measure = [&](int from, int to, double true_sigma, double sigma) {
    RelativePose edge;  // With nothing measured yet, its error is what should be.
    edge(poses[from].data(), poses[to].data(), edge.measured.data());
    edge.measured[2] *= 0.4;
    for (const int k : {0, 1}) edge.measured[k] += true_sigma * normal(generator);
    edge.measured[2] += 0.4 * true_sigma * normal(generator);
    edge.sigma = sigma;
    return graph->problem.AddResidualBlock(
        new ceres::AutoDiffCostFunction<RelativePose, 3, 3, 3>(new RelativePose(edge)),
        nullptr,
        poses[from].data(),
        poses[to].data());
  };
  for (int i = 1; i < kPoses; ++i) {
    graph->odometry.push_back(measure(i - 1, i, 0.05, sigma_odometry));
  }
  for (int i = kLap; i < kPoses; i += 4) graph->loops.push_back(measure(i - kLap, i, 0.1, 0.1));
  graph->problem.SetParameterBlockConstant(poses[0].data());

  ceres::Solver::Options options;
  options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.function_tolerance = options.gradient_tolerance = options.parameter_tolerance = 1e-15;
  options.logging_type = ceres::SILENT;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &graph->problem, &summary);
}

// ------------------------------------------------------------------------------------------------

int main() {
  Graph graph, noisier;
  Build(0.05, &graph);

  // New are two scalars that multiply the noise by their exponential. Zero leaves the problem as it
  // is, the cost functions are not touched, and there is no upper level.
  double log_odometry = 0.0, log_loops = 0.0;
  bilevel::Problem problem(nullptr, &graph.problem);
  bilevel::Sensitivity::Options options;
  options.polish = true;  // Ceres stops earlier than derivatives would like.
  bilevel::Sensitivity sensitivity(options);
  sensitivity.ScaleNoise(graph.odometry, &log_odometry);
  sensitivity.ScaleNoise(graph.loops, &log_loops);
  if (!sensitivity.Compute(&problem, {&log_odometry, &log_loops})) {
    std::fprintf(stderr, "%s\n", sensitivity.message().c_str());
    return 1;
  }
  std::puts(sensitivity.FullReport().c_str());

  // The prediction for 1 % more noise beside a solve with it.
  Build(1.01 * 0.05, &noisier);
  std::printf("pose   predicted dx, dy [mm]   re-solved dx, dy [mm]\n");
  double motion = 0.0, error = 0.0;
  for (size_t i = 1; i < graph.poses.size(); ++i) {  // The first is constant.
    Pose d, real;
    sensitivity.GetSensitivityBlock(graph.poses[i].data(), &log_odometry, d.data());
    for (int k = 0; k < 3; ++k) {
      d[k] *= std::log(1.01);
      real[k] = noisier.poses[i][k] - graph.poses[i][k];
      motion += real[k] * real[k];
      error += (d[k] - real[k]) * (d[k] - real[k]);
    }
    if (i % 9 != 0) continue;
    std::printf("%4zu %10.4f %10.4f %12.4f %10.4f\n",
                i,
                1e3 * d[0],
                1e3 * d[1],
                1e3 * real[0],
                1e3 * real[1]);
  }
  std::printf("The prediction errs by %.2f %% of the motion.\n", 100.0 * std::sqrt(error / motion));
  return error < 1e-4 * motion ? 0 : 1;
}
