// Successive halving over steps: what it runs, what it costs, what it finds.
#include "bilevel/search/step_search.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "examples/support/learning/quadratic_sum.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

StepSearch SobaSearch(bool solve) {
  StepSearch search;
  search.grids = {LogGrid(0.01, 10.0, 4), LogGrid(1e-4, 0.1, 2)};
  search.make_method = [solve](const std::vector<double>& steps) {
    Soba::Options soba;
    soba.lower_batch = soba.upper_batch = 4;
    soba.lower.step = steps[0];
    soba.x.step = steps[1];
    soba.solve_lower_level = solve;
    return std::make_shared<Soba>(soba);
  };
  search.num_iterations = 50;
  return search;
}

TEST(LogGrid, IsEvenInLogarithms) {
  const std::vector<double> grid = LogGrid(1e-3, 10.0, 5);
  ASSERT_EQ(grid.size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(std::log10(grid[i]), i - 3.0, 1e-12);
  EXPECT_EQ(LogGrid(0.5, 2.0, 1), std::vector<double>{0.5});
}

TEST(StepSearch, HalvesTheFieldAndDoublesTheRuns) {
  QuadraticSum sum(32, 3, 4, 0.3, 0.5);
  sum.x.setConstant(1.0);
  Problem problem;
  sum.AddTo(&problem);
  const Vector x = sum.x, y = sum.y;
  StepSearch search = SobaSearch(false);
  int asked = 0;
  // The true phi, up to a constant: its gradient is linear.
  const auto phi = [&] {
    const Vector e = sum.x - sum.UpperSolution();
    return 0.5 * e.dot(sum.UpperHessian() * e);
  };
  search.held_out = [&] {
    ++asked;
    return phi();
  };
  const double start = phi();
  StepSearchResult result;
  std::string error;
  ASSERT_TRUE(SearchSteps(search, Solver::Options(), &problem, &result, &error)) << error;
  // 8 combinations: 8, 4, 2 and 1 runs of 50, 100, 200 and 400 iterations.
  EXPECT_EQ(result.num_runs, 15);
  ASSERT_EQ(result.trials.size(), 8u);
  EXPECT_EQ(result.trials[0].num_iterations, 400);
  EXPECT_EQ(result.trials[1].num_iterations, 200);
  EXPECT_EQ(result.trials[7].num_iterations, 50);
  // Steps of 10 are above the limit of stability; short steps of x hardly move.
  EXPECT_NEAR(result.steps()[1], 0.1, 1e-12);
  EXPECT_GT(result.steps()[0], 0.02);
  EXPECT_LT(result.steps()[0], 5.0);
  EXPECT_LT(result.trials[0].held_out, 0.1 * start);
  int failed = 0;
  for (const auto& trial : result.trials) failed += std::isinf(trial.held_out);
  EXPECT_GE(failed, 1);
  EXPECT_TRUE(std::isinf(result.trials[7].held_out));
  EXPECT_EQ(asked, 15 - failed);
  // An iteration of soba is 4 samples of each level.
  EXPECT_LE(result.upper.samples, 4 * 1600);
  EXPECT_GT(result.upper.samples, 4 * 1200);
  EXPECT_EQ((sum.x - x).norm() + (sum.y - y).norm(), 0.0);
  EXPECT_THAT(result.Report(), HasSubstr("15 runs"));
  EXPECT_THAT(result.Report(), HasSubstr("limit of stability"));
}

TEST(StepSearch, TakesPhiItselfWhereYIsSolved) {
  QuadraticSum sum(32, 3, 4, 0.3, 0.5);
  sum.x.setConstant(1.0);
  Problem problem;
  sum.AddTo(&problem);
  StepSearch search = SobaSearch(true);
  StepSearchResult result;
  std::string error;
  ASSERT_TRUE(SearchSteps(search, Solver::Options(), &problem, &result, &error)) << error;
  EXPECT_NEAR(result.steps()[1], 0.1, 1e-12);
  // f = phi at the answer is at least its least value.
  const Vector e = sum.LowerSolution(sum.UpperSolution());
  double least = 0.5 * sum.rho * sum.UpperSolution().squaredNorm();
  for (const Vector& b : sum.b) least += 0.5 * (e - b).squaredNorm() / sum.num_terms();
  EXPECT_GE(result.trials[0].held_out, least);
  EXPECT_LT(result.trials[0].held_out, 1.05 * least);
  // Nothing to go by where y is left.
  search = SobaSearch(false);
  EXPECT_FALSE(SearchSteps(search, Solver::Options(), &problem, &result, &error));
  EXPECT_THAT(error, HasSubstr("give held_out"));
}

TEST(StepSearch, RefusesNonsense) {
  QuadraticSum sum(8, 2, 2, 0.3);
  Problem problem;
  sum.AddTo(&problem);
  StepSearchResult result;
  std::string error;
  StepSearch search;
  EXPECT_FALSE(SearchSteps(search, Solver::Options(), &problem, &result, &error));
  EXPECT_THAT(error, HasSubstr("grids"));
  search.grids = {{0.1}};
  EXPECT_FALSE(SearchSteps(search, Solver::Options(), &problem, &result, &error));
  EXPECT_THAT(error, HasSubstr("make_method"));
  search = SobaSearch(true);
  search.num_iterations = 0;
  EXPECT_FALSE(SearchSteps(search, Solver::Options(), &problem, &result, &error));
  EXPECT_THAT(error, HasSubstr("num_iterations"));
  search = SobaSearch(true);
  search.make_method = [](const std::vector<double>&) { return nullptr; };
  EXPECT_FALSE(SearchSteps(search, Solver::Options(), &problem, &result, &error));
  EXPECT_THAT(error, HasSubstr("the method is null"));
}

}  // namespace
}  // namespace bilevel
