// The penalty method on its authors' problem, and how it ends infeasible.
#include "bilevel/methods/value_function/penalty.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "methods/run_toy.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

// Their defaults, fewer of their 40001 iterations with longer steps.
TEST(Penalty, SumConverges) {
  for (const int num_lower_steps : {5, 10}) {
    examples::Toy toy = examples::Sum();
    Penalty::Options penalty;
    penalty.num_lower_steps = num_lower_steps;
    penalty.x.step = 1e-2;
    penalty.y.step = 1e-3;
    const ToyRun run = RunToy(&toy, std::make_shared<Penalty>(penalty), 8000);
    ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
    EXPECT_NEAR(toy.x[0], 0.5, 1e-3);
    EXPECT_NEAR(toy.y[0], 0.5, 1e-3);
    // Not only after Solve has solved y.
    EXPECT_NEAR(run.x.back()[0] + run.y.back()[0], 1.0, 1e-6);
  }
}

// Many solutions: 1 is reached, slowly.
TEST(Penalty, DegenerateLowerLevel) {
  examples::Toy toy = examples::Degenerate();
  Penalty::Options penalty;
  penalty.x.kind = penalty.y.kind = StepRule::kGradient;
  penalty.x.step = 0.05;
  penalty.y.step = 0.01;
  const ToyRun run = RunToy(&toy, std::make_shared<Penalty>(penalty), 5000);
  ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
  EXPECT_NEAR(toy.x[0], 1.0, 0.02);
  EXPECT_LT(run.summary.final_lower_gap, 1e-6);
}

// BOME's coreset problem with its authors' lambda, epsilon and rho: the weights grow too slowly to
// matter, and after 5000 iterations y is as far from the hull as the paper shows, 1 or so.
TEST(Penalty, CoresetEndsInfeasible) {
  for (const auto& start : {std::make_pair(0.0, 3.0), {-3.0, 1.0}, {3.5, -1.0}}) {
    examples::Toy toy = examples::Coreset(start.first, start.second);
    Penalty::Options penalty;
    penalty.rho = penalty.epsilon = 0.01;
    penalty.lambda = 0.1;
    penalty.x.kind = penalty.y.kind = StepRule::kGradient;
    penalty.x.step = penalty.y.step = 0.05;
    const ToyRun run = RunToy(&toy, std::make_shared<Penalty>(penalty), 5000);
    ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
    EXPECT_GT(run.summary.final_lower_gap, 0.8);
    EXPECT_LT(std::pow(run.y.back()[0] - 3.0, 2) + std::pow(run.y.back()[1] + 2.0, 2), 4.0);
  }
}

// lambda that stays biases x: with nu + rho s = m and s = 0 in the end, f_x + J m = 0 and
// f_y + H m = 0 hold whatever lambda is, so the bias is that of rho and epsilon only: none here.
TEST(Penalty, ManifoldAndResidualBlocks) {
  Penalty::Options penalty;
  penalty.x.step = 1e-2;
  penalty.y.step = 1e-3;
  SphereProblem sphere;
  const Solver::Summary summary = sphere.Run(std::make_shared<Penalty>(penalty), 8000);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(sphere.x[0], 1.0 / 3.0, 1e-2);
  EXPECT_NEAR(sphere.x[1], 0.5, 1e-2);
}

TEST(Penalty, Bounds) {
  examples::Toy toy = examples::Corner(1);  // x / 2 - y is least at x = y = 1, where y is held.
  toy.x_bound = 0.75;
  Penalty::Options penalty;
  penalty.x.kind = penalty.y.kind = StepRule::kGradient;
  penalty.x.step = penalty.y.step = 0.05;
  RunToy(&toy, std::make_shared<Penalty>(penalty), 3000);
  EXPECT_EQ(toy.x[0], 0.75);
  EXPECT_NEAR(toy.y[0], 0.75, 1e-9);
}

// Beyond y's bound, where y is held and phi' = 1/2, the multiplier of before must not count.
TEST(Penalty, LowerBounds) {
  examples::Toy toy = examples::Corner(1);
  Penalty::Options penalty;
  penalty.x.kind = penalty.y.kind = StepRule::kGradient;
  penalty.x.step = 0.02;
  penalty.y.step = 0.05;
  RunToy(&toy, std::make_shared<Penalty>(penalty), 3000);
  EXPECT_NEAR(toy.x[0], 1.0, 0.1);
}

TEST(Penalty, NonsenseIsNamedBeforeAnyWork) {
  const auto message = [](const std::function<void(Penalty::Options*)>& spoil) {
    Penalty::Options penalty;
    spoil(&penalty);
    return Refusal(std::make_shared<Penalty>(penalty));
  };
  EXPECT_THAT(message([](auto* o) { o->num_lower_steps = 0; }),
              HasSubstr("penalty.num_lower_steps"));
  EXPECT_THAT(message([](auto* o) { o->rho = 0.0; }), HasSubstr("penalty.rho"));
  EXPECT_THAT(message([](auto* o) { o->lambda = -1.0; }), HasSubstr("penalty.lambda"));
  EXPECT_THAT(message([](auto* o) { o->epsilon = NAN; }), HasSubstr("penalty.epsilon"));
  EXPECT_THAT(message([](auto* o) { o->growth = 0.9; }), HasSubstr("penalty.growth"));
  EXPECT_THAT(message([](auto* o) { o->nu = INFINITY; }), HasSubstr("penalty.nu"));
  EXPECT_THAT(message([](auto* o) { o->y.step = 0.0; }), HasSubstr("penalty.y.step"));
}

}  // namespace
}  // namespace bilevel
