// BDA against its own closed form on a problem that is linear in x, and its bias in T.
#include "bilevel/methods/hyper_objective/bda.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "methods/run_toy.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

// Where the descent on 1/2 (x - y_2)^2 + 1/2 (y_1 - 1)^2 ends for y_T = y_T(0) + slope x, by the
// recursion itself.
double DegenerateEnd(int num_steps, double step, double share) {
  double y[2][2];
  for (int i = 0; i < 2; ++i) {
    const double x = i;
    double y1 = 0.0, y2 = 0.0;
    for (int k = 0; k < num_steps; ++k) {
      const double a = share / (k + 1.0);
      y1 -= step * (a * (y1 - 1.0) + (1.0 - a) * (y1 - x));
      y2 -= step * a * (y2 - x);
    }
    y[i][0] = y1;
    y[i][1] = y2;
  }
  const double p = 1.0 - (y[1][1] - y[0][1]), q = y[1][0] - y[0][0];
  return (p * y[0][1] + q * (1.0 - y[0][0])) / (p * p + q * q);
}

// The reservation of the literature: 1 is approached with a small power of T only. Unrolling
// without f's share stays at 1/2, whatever T.
TEST(Bda, BiasOnTheDegenerateProblem) {
  const double published[3] = {0.81, 0.94, 0.98};
  for (int i = 0; i < 3; ++i) {
    const int num_steps = static_cast<int>(std::pow(10, i + 1));
    BdaHypergradient::Options bda;
    bda.num_lower_steps = num_steps;
    bda.lower_step = bda.upper_step = 0.5;
    examples::Toy toy = examples::Degenerate();
    const ToyRun run = RunToy(&toy, Descent<BdaHypergradient>("bda", bda, 0.5), 200);
    // f has a choice among y*(x), which it makes roughly: no derivative can confirm that.
    EXPECT_EQ(run.summary.termination_type, ceres::NO_CONVERGENCE) << run.summary.FullReport();
    EXPECT_EQ(run.summary.answer, AnswerKind::kUndetermined);
    EXPECT_NEAR(run.x.back()[0], published[i], 0.005);
    EXPECT_NEAR(run.x.back()[0], DegenerateEnd(num_steps, 0.5, 0.5), 1e-9);

    UnrolledHypergradient::Options itd;
    itd.num_lower_steps = num_steps;
    itd.lower_step = 0.5;
    toy = examples::Degenerate();
    EXPECT_NEAR(
        RunToy(&toy, Descent<UnrolledHypergradient>("itd", itd, 0.5), 200).x.back()[0], 0.5, 1e-3);
  }
}

// One solution below: y_T - y* is of the order of a_T, and so is x's error.
TEST(Bda, ErrorIsOfTheOrderOfOneOverTWhereTheSolutionIsUnique) {
  double error[2];
  for (int i = 0; i < 2; ++i) {
    BdaHypergradient::Options bda;
    bda.num_lower_steps = i == 0 ? 100 : 1000;
    bda.lower_step = bda.upper_step = 0.5;
    examples::Toy toy = Follow();
    RunToy(&toy, Descent<BdaHypergradient>("bda", bda, 0.3), 200);
    error[i] = std::abs(toy.x[0] - 2.0 / 3.0);
  }
  EXPECT_NEAR(error[0] / error[1], 10.0, 0.5);
  EXPECT_LT(error[1], 1e-3);
}

TEST(Bda, ManifoldAndResidualBlocks) {
  BdaHypergradient::Options bda;
  bda.num_lower_steps = 100;
  bda.lower_step = bda.upper_step = 0.3;
  SphereProblem sphere;
  const Solver::Summary summary = sphere.Run(Descent<BdaHypergradient>("bda", bda, 1.0), 300);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(sphere.x[0], 1.0 / 3.0, 1e-2);
  EXPECT_NEAR(sphere.x[1], 0.5, 1e-2);
}

TEST(Bda, NonsenseIsNamedBeforeAnyWork) {
  const auto message = [](const std::function<void(BdaHypergradient::Options*)>& spoil) {
    BdaHypergradient::Options bda;
    spoil(&bda);
    return Refusal(Descent<BdaHypergradient>("bda", bda, 0.1));
  };
  EXPECT_THAT(message([](auto* o) { o->share = 1.5; }), HasSubstr("bda.share"));
  EXPECT_THAT(message([](auto* o) { o->upper_step = 0.0; }), HasSubstr("bda.upper_step"));
  EXPECT_THAT(message([](auto* o) { o->lower_step = NAN; }), HasSubstr("bda.lower_step"));
  EXPECT_THAT(message([](auto* o) { o->num_lower_steps = 0; }), HasSubstr("bda.num_lower_steps"));
}

}  // namespace
}  // namespace bilevel
