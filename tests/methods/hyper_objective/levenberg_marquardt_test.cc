// What Levenberg-Marquardt does with coordinates of x that the lower level does not have.
#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"

#include <cmath>
#include <random>

#include "bilevel/bilevel.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

constexpr int kSize = 20;

struct Data {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - data;
    return true;
  }
  double data;
};

struct Weighted {
  template <typename T>
  bool operator()(const T* y, const T* log_weight, T* r) const {
    using std::exp;
    r[0] = exp(log_weight[0]) * (y[0] - data);
    return true;
  }
  double data;
};

// Less `truth`, but for a shift that is far away in its own units.
struct Aligned {
  template <typename T>
  bool operator()(const T* y, const T* shift, T* r) const {
    r[0] = y[0] + 1e-3 * shift[0] - truth;
    return true;
  }
  double truth;
};

TEST(LevenbergMarquardt, BlocksOfTheUpperLevelAloneAreAtTheirBestAtEveryIteration) {
  // y = (a + w b) / (1 + w) with w = exp(2 x): phi, shift at its best, is quadratic in the share
  // w / (1 + w), least where the share is the regression of t - a on b - a.
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  double a[kSize], b[kSize], t[kSize], y[kSize] = {}, x = 0.0, shift = 0.0;
  double mean_u = 0.0, mean_v = 0.0;
  for (int i = 0; i < kSize; ++i) {
    a[i] = normal(random);
    b[i] = normal(random);
    t[i] = 0.9 * b[i] + 0.1 * a[i] + 5.0 + 0.1 * normal(random);
    mean_u += (b[i] - a[i]) / kSize;
    mean_v += (t[i] - a[i]) / kSize;
  }
  double uu = 0.0, uv = 0.0;
  for (int i = 0; i < kSize; ++i) {
    uu += std::pow(b[i] - a[i] - mean_u, 2);
    uv += (b[i] - a[i] - mean_u) * (t[i] - a[i] - mean_v);
  }
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddUpperParameterBlock(&shift, 1);
  for (int i = 0; i < kSize; ++i) {
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Data, 1, 1>(new Data{a[i]}), nullptr, &y[i]);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Weighted, 1, 1, 1>(new Weighted{b[i]}), nullptr, &y[i], &x);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Aligned, 1, 1, 1>(new Aligned{t[i]}), nullptr, &y[i], &shift);
  }
  Solver::Options options;
  options.method = CreateMethod("levenberg_marquardt");
  options.function_tolerance = 1e-14;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();

  ASSERT_GT(summary.iterations.size(), 2u);
  for (size_t k = 1; k < summary.iterations.size(); ++k) {
    const auto& it = summary.iterations[k];
    if (!it.step_is_successful) continue;
    const double w = std::exp(2.0 * it.x[0]), share = w / (1.0 + w);
    EXPECT_NEAR(1e-3 * it.x[1], mean_v - share * mean_u, 1e-9) << "at iteration " << k;
  }
  const double share = std::exp(2.0 * x) / (1.0 + std::exp(2.0 * x));
  EXPECT_NEAR(share, uv / uu, 1e-6);
  EXPECT_NEAR(1e-3 * shift, mean_v - share * mean_u, 1e-9);
  // Of the shift, 5000 units away, no step is too long.
  EXPECT_LE(summary.lower_solver.cold_solves + summary.lower_solver.warm_solves, 15);
}

}  // namespace
}  // namespace bilevel
