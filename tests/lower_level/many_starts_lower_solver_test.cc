#include "bilevel/lower_level/many_starts_lower_solver.h"

#include <cmath>
#include <memory>

#include "bilevel/bilevel.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

struct TwoWells {  // The left one is the deeper where x > 0.
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    const T wall = y[0] * y[0] - 1.0;
    *value = wall * wall + x[0] * y[0];
    return true;
  }
};

struct Reach {
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    *value = (x[0] - target) * (x[0] - target) + 1e-2 * y[0] * y[0];
    return true;
  }
  double target;
};

struct Outcome {
  double x, y;
  Solver::Summary summary;
};

Outcome SolveWells(double x, double y, double target, int lower_starts) {
  Outcome outcome{x, y, {}};
  Problem problem;
  problem.AddUpperParameterBlock(&outcome.x, 1);
  problem.AddTerm(Level::kLower,
                  std::make_unique<AutoDiffObjective<TwoWells, 1, 1>>(),
                  {{&outcome.x, 1}, {&outcome.y, 1}});
  problem.AddTerm(Level::kUpper,
                  std::make_unique<AutoDiffObjective<Reach, 1, 1>>(Reach{target}),
                  {{&outcome.x, 1}, {&outcome.y, 1}});
  Solver::Options options;
  options.lower_starts = lower_starts;
  Solve(options, &problem, &outcome.summary);
  return outcome;
}

// From y in the right well, which is the shallow one: alone it stays, with others it is left.
TEST(ManyStartsLowerSolver, TakesTheLeastOfSeveralMinima) {
  const Outcome alone = SolveWells(0.5, 0.9, 0.6, 1);
  EXPECT_TRUE(alone.summary.IsSolutionUsable());
  EXPECT_GT(alone.y, 0.5);
  const Outcome least = SolveWells(0.5, 0.9, 0.6, 8);
  EXPECT_TRUE(least.summary.IsSolutionUsable());
  EXPECT_LT(least.y, -0.5);
  // Stationary in y, and lower than the other.
  EXPECT_NEAR(4.0 * least.y * (least.y * least.y - 1.0) + least.x, 0.0, 1e-8);
}

// x goes from -1 to 1, along the right well, where a fresh solve from y = 0.2 falls into the left.
TEST(ManyStartsLowerSolver, AnAnswerThatAFreshSolveDoesNotGiveIsReported) {
  const Outcome followed = SolveWells(-1.0, 0.2, 1.0, 1);
  EXPECT_GT(followed.y, 0.5);
  EXPECT_EQ(followed.summary.reproducible_from_start, 0) << followed.summary.FullReport();
  const double left = [&] {
    double y = -1.0;
    for (int k = 0; k < 100; ++k) {
      y -= (4.0 * y * (y * y - 1.0) + followed.x) / (12.0 * y * y - 4.0);
    }
    return y;
  }();
  EXPECT_NEAR(followed.summary.objective_from_start,
              std::pow(followed.x - 1.0, 2) + 1e-2 * left * left,
              1e-8);
  EXPECT_EQ(SolveWells(0.5, -0.9, 0.6, 1).summary.reproducible_from_start, 1);
}

TEST(ManyStartsLowerSolver, BadOptionsAreRefused) {
  Solver::Options options;
  std::string error;
  options.lower_starts = 0;
  EXPECT_FALSE(options.IsValid(&error));
  EXPECT_EQ(error, "lower_starts must be at least 1");
  options.lower_starts = 2;
  options.lower_start_spread = -1.0;
  EXPECT_FALSE(options.IsValid(&error));
  EXPECT_EQ(error, "lower_start_spread must be positive");
}

}  // namespace
}  // namespace bilevel
