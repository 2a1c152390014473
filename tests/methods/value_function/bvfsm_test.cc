// BVFSM: the barrier on its authors' problem, the released form against values of an independent
// implementation.
#include "bilevel/methods/value_function/bvfsm.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "methods/run_toy.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

// The barrier leaves y room: g may exceed its minimum by mu |w|^2, so that y is off by up to 6
// sqrt(mu), which f takes, and x by 2/3 of that. As mu vanishes the solution is reached.
TEST(Bvfsm, SinesAsTheRegularisationVanishes) {
  double error[2];
  for (int i = 0; i < 2; ++i) {
    const double scale = i == 0 ? 1e-2 : 1e-3;
    BvfsmHypergradient::Options bvfsm;
    bvfsm.decay = false;
    bvfsm.mu = scale;
    bvfsm.theta = bvfsm.sigma = 0.1 * scale;
    bvfsm.offset = 0.0;
    bvfsm.w.step = bvfsm.y.step = 0.1;
    bvfsm.num_y_steps = 200;
    examples::Toy toy = examples::Sines();
    const ToyRun run = RunToy(&toy, Descent<BvfsmHypergradient>("bvfsm", bvfsm, 0.05), 600);
    ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
    error[i] = std::abs(toy.x[0] - 2.0 / 3.0 * (1.5 * M_PI - 1.0));
    // Inside the barrier: g <= g_mu, and g_mu is at most mu |w|^2 above the minimum.
    EXPECT_LT(run.summary.final_lower_gap, scale * 2.0 * 5.0 * 5.0);
    EXPECT_NEAR(toy.x[0] + toy.y[0] - 2.0, 1.5 * M_PI, 1e-8);
  }
  EXPECT_NEAR(error[0], 4.0 * std::sqrt(1e-2), 0.06);
  EXPECT_NEAR(error[1], 4.0 * std::sqrt(1e-3), 0.03);
}

// The authors' released form with their sigma: y minimises f nearly alone, g hardly counts. f* is
// 0.3383 at g = -2.
TEST(Bvfsm, ReleasedFormEndsInfeasibleOnTheAuthorsProblem) {
  BvfsmHypergradient::Options bvfsm;
  bvfsm.barrier = BvfsmHypergradient::kDetached;
  bvfsm.offset = 2.0 + 1e-8;
  examples::Toy toy = examples::Sines();
  const ToyRun run =
      RunToy(&toy, Descent<BvfsmHypergradient>("bvfsm", bvfsm, 0.01, StepRule::kAdam), 3000);
  ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
  EXPECT_LT(run.summary.iterations.back().upper_value, 1e-3);
  EXPECT_GT(run.summary.final_lower_gap, 0.45);
}

// BOME's coreset problem with its authors' settings, whose decay stands still at its last value:
// (1.951, -0.178) from any start, |y - (3, -2)|^2 = 4.42 and 0.355 off the hull.
TEST(Bvfsm, CoresetReleasedForm) {
  for (const auto& start : {std::make_pair(0.0, 3.0), {-3.0, 1.0}, {3.5, -1.0}}) {
    BvfsmHypergradient::Options bvfsm;
    bvfsm.barrier = BvfsmHypergradient::kDetached;
    bvfsm.decay = false;
    bvfsm.mu = bvfsm.theta = bvfsm.sigma = 0.1 / std::log(1.1 * 5001.0);
    bvfsm.num_w_steps = bvfsm.num_y_steps = 10;
    bvfsm.w.step = bvfsm.y.step = 0.05;
    examples::Toy toy = examples::Coreset(start.first, start.second);
    const ToyRun run = RunToy(&toy, Descent<BvfsmHypergradient>("bvfsm", bvfsm, 0.05), 5000);
    EXPECT_NEAR(run.y.back()[0], 1.951, 1e-3);
    EXPECT_NEAR(run.y.back()[1], -0.178, 1e-3);
    EXPECT_NEAR(run.summary.final_lower_gap, 0.3546, 1e-3);
  }
}

TEST(Bvfsm, ManifoldAndResidualBlocks) {
  BvfsmHypergradient::Options bvfsm;
  bvfsm.decay = false;
  bvfsm.mu = 0.0;  // |y| is 1.
  bvfsm.theta = 0.0;
  bvfsm.sigma = 1e-4;
  bvfsm.offset = 1e-3;
  bvfsm.w.step = bvfsm.y.step = 0.3;
  SphereProblem sphere;
  const Solver::Summary summary = sphere.Run(Descent<BvfsmHypergradient>("bvfsm", bvfsm, 1.0), 400);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(sphere.x[0], 1.0 / 3.0, 0.02);
  EXPECT_NEAR(sphere.x[1], 0.5, 0.02);
}

TEST(Bvfsm, NonsenseIsNamed) {
  const auto message = [](const std::function<void(BvfsmHypergradient::Options*)>& spoil) {
    BvfsmHypergradient::Options bvfsm;
    spoil(&bvfsm);
    return Refusal(Descent<BvfsmHypergradient>("bvfsm", bvfsm, 0.1));
  };
  EXPECT_THAT(message([](auto* o) { o->num_w_steps = 0; }), HasSubstr("bvfsm.num_w_steps"));
  EXPECT_THAT(message([](auto* o) { o->num_y_steps = -1; }), HasSubstr("bvfsm.num_y_steps"));
  EXPECT_THAT(message([](auto* o) { o->mu = -1.0; }), HasSubstr("bvfsm.mu"));
  EXPECT_THAT(message([](auto* o) { o->theta = NAN; }), HasSubstr("bvfsm.theta"));
  EXPECT_THAT(message([](auto* o) { o->sigma = 0.0; }), HasSubstr("bvfsm.sigma"));
  EXPECT_THAT(message([](auto* o) { o->offset = -1.0; }), HasSubstr("bvfsm.offset"));
  EXPECT_THAT(message([](auto* o) { o->w.step = 0.0; }), HasSubstr("bvfsm.w.step"));
  // What only the problem shows.
  BvfsmHypergradient::Options bvfsm;
  bvfsm.barrier = BvfsmHypergradient::kDetached;
  examples::Toy toy = examples::Sines();
  const ToyRun run = RunToy(&toy, Descent<BvfsmHypergradient>("bvfsm", bvfsm, 0.01), 10);
  EXPECT_EQ(run.summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(run.summary.message, HasSubstr("bvfsm.offset must exceed -min g"));
}

}  // namespace
}  // namespace bilevel
