#include "bilevel/methods/hyper_objective/projected_lbfgs.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "bilevel/bilevel.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

constexpr int kSize = 300;  // Too long an x for dy*/dx.

struct Follow {  // y* = x.
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    *value = T(0.0);
    for (int i = 0; i < kSize; ++i) *value += 0.5 * (y[i] - x[i]) * (y[i] - x[i]);
    return true;
  }
};

// A chain: neighbours pull at each other, and each at a target of its own, in units that differ.
struct Chain {
  template <typename T>
  bool operator()(const T* y, T* value) const {
    *value = T(0.0);
    for (int i = 0; i < kSize; ++i) {
      const T off = y[i] - std::sin(0.1 * i);
      *value += 0.5 * (1.0 + i % 7) * off * off;
      if (i > 0) *value += 2.0 * (y[i] - y[i - 1]) * (y[i] - y[i - 1]);
    }
    return true;
  }
};

// The chain's minimum within bounds by Gauss-Seidel with projection, until nothing moves.
std::vector<double> Reference(double lower, double upper) {
  std::vector<double> y(kSize, 0.0);
  for (double moved = 1.0; moved > 1e-14;) {
    moved = 0.0;
    for (int i = 0; i < kSize; ++i) {
      double weight = 1.0 + i % 7, pull = weight * std::sin(0.1 * i);
      for (const int j : {i - 1, i + 1}) {
        if (j < 0 || j >= kSize) continue;
        weight += 4.0;
        pull += 4.0 * y[j];
      }
      const double next = std::min(std::max(pull / weight, lower), upper);
      moved = std::max(moved, std::abs(next - y[i]));
      y[i] = next;
    }
  }
  return y;
}

TEST(ProjectedLbfgs, LongXWithBoundsAndAGeneralUpperLevel) {
  for (const char* method : {"projected_lbfgs", "auto"}) {
    std::vector<double> x(kSize, 0.1), y(kSize, 0.0);
    Problem problem;
    problem.AddUpperParameterBlock(x.data(), kSize);
    for (int i = 0; i < kSize; ++i) {
      problem.SetParameterLowerBound(x.data(), i, -0.5);
      problem.SetParameterUpperBound(x.data(), i, 0.3);
    }
    problem.AddTerm(Level::kLower,
                    std::make_unique<AutoDiffObjective<Follow, kSize, kSize>>(),
                    {{x.data(), kSize}, {y.data(), kSize}});
    problem.AddTerm(
        Level::kUpper, std::make_unique<AutoDiffObjective<Chain, kSize>>(), {{y.data(), kSize}});
    Solver::Options options;
    options.method = CreateMethod(method);
    options.max_num_iterations = 300;
    options.function_tolerance = 1e-14;
    options.gradient_tolerance = 1e-8;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    const std::vector<double> best = Reference(-0.5, 0.3);
    for (int i = 0; i < kSize; ++i) EXPECT_NEAR(x[i], best[i], 1e-5) << i;
    EXPECT_FALSE(summary.active_upper_bounds.empty());
  }
}

}  // namespace
}  // namespace bilevel
