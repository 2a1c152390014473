// Absolute noise levels from the very measurements that the estimate is made of, with intervals.
//
// A trolley on a rail has odometry between its positions and a fix of each. AddMarginalLikelihood
// makes the upper level their likelihood, the positions integrated out: neither ground truth nor
// held-out measurements are needed, and the levels are determined, not their ratio alone.
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

struct Moved {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    r[0] = b[0] - a[0] - step;
    return true;
  }
  double step;
};

struct At {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    r[0] = p[0] - fix;
    return true;
  }
  double fix;
};

int main() {
  constexpr int kPositions = 500;
  constexpr double kTrueOdometry = 0.1, kTrueFix = 0.5;  // m
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  std::vector<double> position(kPositions, 0.0);

  double log_sigma[2] = {0.0, 0.0};
  bilevel::ScalarNoise odometry(&log_sigma[0]), fixes(&log_sigma[1]);
  bilevel::Problem problem;
  const char* names[2] = {"odometry", "fixes"};
  for (int i = 0; i < 2; ++i) {
    problem.AddUpperParameterBlock(&log_sigma[i], 1);
    problem.SetParameterName(&log_sigma[i], std::string("log sigma of ") + names[i]);
  }
  double truth = 0.0;
  for (int i = 0; i < kPositions; ++i) {
    if (i > 0) {
      const double step = normal(generator);
      truth += step;
      odometry.AddResidualBlock(new bilevel::AutoDiffCostFunction<Moved, 1, 1, 1>(
                                    new Moved{step + kTrueOdometry * normal(generator)}),
                                nullptr,
                                {&position[i - 1], &position[i]},
                                problem.lower());
    }
    fixes.AddResidualBlock(
        new bilevel::AutoDiffCostFunction<At, 1, 1>(new At{truth + kTrueFix * normal(generator)}),
        nullptr,
        {&position[i]},
        problem.lower());
  }

  // Once the lower level is complete. The normalisation of the measurements' densities is not to be
  // forgotten: without it infinite sigmas would be best.
  std::string message;
  if (!bilevel::AddMarginalLikelihood(&problem, &message)) {
    std::fprintf(stderr, "%s\n", message.c_str());
    return 1;
  }
  odometry.AddHalfLogDeterminant(kPositions - 1, &problem);
  fixes.AddHalfLogDeterminant(kPositions, &problem);

  const bilevel::Solver::Options options;
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  std::puts(summary.FullReport().c_str());
  bilevel::Uncertainty uncertainty;
  if (!summary.IsSolutionUsable() ||
      !bilevel::ComputeUncertainty(
          options, bilevel::HessianKind::kExact, &problem, &uncertainty, &message)) {
    std::fprintf(stderr, "%s\n", message.c_str());
    return 1;
  }
  bool ok = true;
  for (int i = 0; i < 2; ++i) {
    const double one = 1.0, sigma = std::exp(log_sigma[i]);
    const double true_sigma = i == 0 ? kTrueOdometry : kTrueFix;
    double error = 0.0;  // Standard error of the logarithm.
    ok = uncertainty.GetStandardError({{&log_sigma[i], &one}}, &error) && ok;
    std::printf("sigma of %-8s  %.4f m, 95 %% interval %.4f to %.4f, true %.1f\n",
                names[i],
                sigma,
                sigma * std::exp(-1.96 * error),
                sigma * std::exp(1.96 * error),
                true_sigma);
    ok = ok && error < 0.2 && std::abs(std::log(sigma / true_sigma)) < 3.0 * error;
  }
  return ok ? 0 : 1;
}
