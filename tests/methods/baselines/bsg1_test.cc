// BSG-1 where its rank-one Hessians are exact, and where they are known to mislead.
#include "bilevel/methods/baselines/bsg1.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "methods/run_toy.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

// y a scalar and g a square: -J / H = -g_x / g_y wherever y is not y*.
TEST(Bsg1, ExactForASquareOfOneVariable) {
  examples::Toy toy = Follow();
  Bsg1Hypergradient::Options bsg;
  bsg.epsilon = 1e-50;
  bsg.lower_step = 0.1;
  const ToyRun run = RunToy(&toy, Descent<Bsg1Hypergradient>("bsg1", bsg, 0.2), 100);
  ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
  EXPECT_NEAR(toy.x[0], 2.0 / 3.0, 1e-8);
  EXPECT_NEAR(run.summary.final_objective, toy.phi, 1e-15);
}

// BOME's coreset problem: it ends at the hull, but not at its point nearest to (3, -2), which is at
// 7.2, from any of the paper's starts. Values of an independent implementation.
TEST(Bsg1, CoresetEndsAtTheWrongPoint) {
  for (const auto& start : {std::make_pair(0.0, 3.0), {-3.0, 1.0}, {3.5, -1.0}}) {
    examples::Toy toy = examples::Coreset(start.first, start.second);
    Bsg1Hypergradient::Options bsg;
    bsg.epsilon = 1e-50;
    const ToyRun run = RunToy(&toy, Descent<Bsg1Hypergradient>("bsg1", bsg, 0.05), 5000);
    const std::vector<double>& y = run.y.back();
    EXPECT_NEAR(y[0], 2.977, 0.01);
    EXPECT_NEAR(y[1], 1.004, 0.01);
    EXPECT_NEAR(std::pow(y[0] - 3.0, 2) + std::pow(y[1] + 2.0, 2), 9.027, 0.02);
  }
}

// x past y's bound: y is held at 1 and phi' = 1/2. With y's share it would be -1/2.
TEST(Bsg1, CoordinatesAtABoundDoNotCount) {
  examples::Toy toy = examples::Corner(1);
  toy.x = {1.5};
  toy.y = {1.0};
  const ToyRun run =
      RunToy(&toy, Descent<Bsg1Hypergradient>("bsg1", Bsg1Hypergradient::Options{}, 0.1), 1);
  ASSERT_EQ(run.x.size(), 2u) << run.summary.FullReport();
  EXPECT_NEAR(run.x[1][0], 1.45, 1e-12);
}

TEST(Bsg1, NonsenseIsNamedBeforeAnyWork) {
  Bsg1Hypergradient::Options bsg;
  bsg.epsilon = 0.0;
  EXPECT_THAT(Refusal(Descent<Bsg1Hypergradient>("bsg1", bsg, 0.1)), HasSubstr("bsg1.epsilon"));
  bsg = {};
  bsg.lower_step = -1.0;
  EXPECT_THAT(Refusal(Descent<Bsg1Hypergradient>("bsg1", bsg, 0.1)), HasSubstr("bsg1.lower_step"));
}

}  // namespace
}  // namespace bilevel
