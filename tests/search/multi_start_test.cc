#include "bilevel/search/multi_start.h"

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// phi(x) = (g(x))^2 / 2 with g = x^2 / 8 - cos(2 x) + 1.2: many minima, the least at 0.
struct Waves {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    using std::cos;
    r[0] = y[0] * y[0] / 8.0 - cos(2.0 * y[0]) + 1.2;
    return true;
  }
};

struct WavesProblem {
  explicit WavesProblem(double start) : x(start), y(start) {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Waves, 1, 1>(new Waves), nullptr, &y);
  }
  Problem problem;
  double x, y;
};

TEST(MultiStart, FindsTheLeastMinimumWhereOneStartDoesNot) {
  WavesProblem alone(5.8);
  Solver::Summary summary;
  Solve(Solver::Options(), &alone.problem, &summary);
  EXPECT_GT(std::abs(alone.x), 2.0);
  WavesProblem waves(5.8);
  MultiStartOptions options;
  options.radius = 8.0;
  std::vector<MultiStartReport> starts;
  SolveFromManyStarts(options, Solver::Options(), &waves.problem, &summary, &starts);
  EXPECT_NEAR(waves.x, 0.0, 1e-4) << summary.FullReport();
  EXPECT_NEAR(waves.y, waves.x, 1e-10);
  EXPECT_NEAR(summary.final_objective, 0.02, 1e-8);
  ASSERT_EQ(starts.size(), 17u);
  for (size_t k = 1; k < starts.size(); ++k) {
    EXPECT_LE(starts[k - 1].objective, starts[k].objective);
    EXPECT_LE(std::abs(starts[k].x[0] - 5.8), 8.0);
  }
  EXPECT_TRUE(std::isfinite(starts[2].refined_objective));
  EXPECT_TRUE(std::isnan(starts[3].refined_objective));
  EXPECT_NE(summary.message.find("best of 17 starts"), std::string::npos) << summary.message;
}

TEST(MultiStart, StaysWithinBounds) {
  WavesProblem waves(5.8);
  waves.problem.SetParameterLowerBound(&waves.x, 0, 4.0);
  MultiStartOptions options;
  std::vector<MultiStartReport> starts;
  Solver::Summary summary;
  SolveFromManyStarts(options, Solver::Options(), &waves.problem, &summary, &starts);
  for (const MultiStartReport& start : starts) EXPECT_GE(start.x[0], 4.0);
  EXPECT_GE(waves.x, 4.0);
}

TEST(MultiStart, BadOptionsChangeNothing) {
  WavesProblem waves(5.8);
  MultiStartOptions options;
  options.radius = -1.0;
  Solver::Summary summary;
  SolveFromManyStarts(options, Solver::Options(), &waves.problem, &summary, nullptr);
  EXPECT_FALSE(summary.IsSolutionUsable());
  EXPECT_NE(summary.message.find("radius"), std::string::npos);
  EXPECT_EQ(waves.x, 5.8);
}

}  // namespace
}  // namespace bilevel
