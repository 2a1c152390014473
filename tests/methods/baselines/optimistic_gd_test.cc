// Optimistic gradient descent on x y against its linear recursion, and where it loses stability.
#include "bilevel/methods/baselines/optimistic_gd.h"

#include <cmath>
#include <complex>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "methods/run_toy.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

std::shared_ptr<Method> WithStep(double step, StepRule::Kind kind = StepRule::kOptimistic) {
  OptimisticGd::Options options;
  options.x.step = options.y.step = step;
  options.x.kind = options.y.kind = kind;
  return std::make_shared<OptimisticGd>(options);
}

double Norm(const ToyRun& run, size_t k) { return std::hypot(run.x[k][0], run.y[k][0]); }

// z = x + i y: z_{k+1} = z_k + i step (2 z_k - z_{k-1}).
TEST(OptimisticGd, FollowsTheLinearRecursion) {
  const double step = 0.05;
  examples::Toy toy = examples::MinMax();
  const ToyRun run = RunToy(&toy, WithStep(step), 2000);
  ASSERT_EQ(run.x.size(), 2001u) << run.summary.FullReport();
  std::complex<double> z(4.0, 4.0), before = z;
  for (int k = 1; k <= 2000; ++k) {
    const std::complex<double> next = z + std::complex<double>(0.0, step) * (2.0 * z - before);
    before = z;
    z = next;
    ASSERT_NEAR(run.x[k][0], z.real(), 1e-12);
    ASSERT_NEAR(run.y[k][0], z.imag(), 1e-12);
  }
  EXPECT_NEAR(Norm(run, 2000), 0.461, 1e-3);  // Of an independent implementation.
}

// The recursion's roots r^2 - (1 + 2 i step) r + i step = 0 leave the unit circle at 1 / sqrt(3).
TEST(OptimisticGd, StableIfAndOnlyIfTheStepIsBelowOneOverRootThree) {
  for (const double step : {0.3, 0.4, 0.57, 0.577, 0.578, 0.58}) {
    examples::Toy toy = examples::MinMax();
    toy.x = toy.y = {1e-3};  // Far from the box.
    const ToyRun run = RunToy(&toy, WithStep(step), 3000);
    const size_t last = run.x.size() - 1;
    if (step < 1.0 / std::sqrt(3.0)) {
      EXPECT_LT(Norm(run, last), 0.5 * Norm(run, 0)) << step;
    } else {
      EXPECT_GT(Norm(run, last), 2.0 * Norm(run, 0)) << step;
    }
    const std::complex<double> i(0.0, 1.0), b = 1.0 + 2.0 * i * step;
    const std::complex<double> root = std::sqrt(b * b - 4.0 * i * step);
    const double rate = std::max(std::abs(b + root), std::abs(b - root)) / 2.0;
    EXPECT_NEAR(Norm(run, 41) / Norm(run, 40), rate, 1e-3) << step;
  }
}

// Plain simultaneous descent and ascent spirals outwards at any step.
TEST(OptimisticGd, PlainStepsDiverge) {
  examples::Toy toy = examples::MinMax();
  toy.x = toy.y = {1e-3};
  const ToyRun run = RunToy(&toy, WithStep(0.1, StepRule::kGradient), 1000);
  EXPECT_NEAR(Norm(run, 1000) / Norm(run, 0), std::pow(1.01, 500), 1e-6);
}

// In the box, from the paper's start; phi is |10 x|, which the answer's y shows.
TEST(OptimisticGd, MinMaxInABox) {
  examples::Toy toy = examples::MinMax();
  const ToyRun run = RunToy(&toy, WithStep(0.3), 3000);
  EXPECT_EQ(run.summary.termination_type, ceres::CONVERGENCE) << run.summary.FullReport();
  EXPECT_NEAR(toy.x[0], 0.0, 1e-9);
  EXPECT_NEAR(run.y.back()[0], 0.0, 1e-9);
  EXPECT_LT(run.summary.final_objective, 1e-8);
}

TEST(OptimisticGd, RefusesOtherProblems) {
  examples::Toy toy = examples::Degenerate();
  const ToyRun run = RunToy(&toy, WithStep(0.1), 10);
  EXPECT_EQ(run.summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(run.summary.message, HasSubstr("the lower level must be the upper one's negative"));
  EXPECT_THAT(Refusal(WithStep(-1.0)), HasSubstr("optimistic_gd.x.step"));
}

}  // namespace
}  // namespace bilevel
