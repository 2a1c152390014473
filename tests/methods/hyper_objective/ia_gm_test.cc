// IA-GM and IAPTT-GM on their authors' problem and where f does not determine the solution alone.
#include "bilevel/methods/hyper_objective/ia_gm.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "methods/run_toy.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

// Their non-convex example with their K and steps, from all over the box; steps of x that shrink,
// since the minimum is a kink.
TEST(IaGm, SineFromEverywhere) {
  for (const bool truncate : {false, true}) {
    for (const double x : {3.0, 7.0}) {
      for (const double y : {-1.9, 1.0}) {
        examples::Toy toy = examples::Sine();
        toy.x = {x};
        toy.y = {y};
        IaGm::Options ia;
        ia.truncate_pessimistically = truncate;
        ia.x.decay_exponent = 0.6;
        ia.x.decay_time = 100.0;
        const ToyRun run = RunToy(&toy, std::make_shared<IaGm>(ia), 2000);
        ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
        EXPECT_NEAR(toy.x[0], 2.75 * M_PI, 0.03) << x << " " << y;
        EXPECT_NEAR(toy.y[0], -2.0, 0.01) << x << " " << y;
      }
    }
  }
}

// Convex with many solutions: the initialisation finds the one that f prefers, where unrolling from
// a given start ends at x = 1/2. Nesterov's steps, IA-GM (A), too.
TEST(IaGm, DegenerateLowerLevel) {
  for (const double momentum : {0.0, 0.5}) {
    examples::Toy toy = examples::Degenerate();
    IaGm::Options ia;
    ia.num_lower_steps = 20;
    ia.lower_step = 0.5;
    ia.momentum = momentum;
    ia.nesterov = true;
    const ToyRun run = RunToy(&toy, std::make_shared<IaGm>(ia), 1000);
    // It ends well, and cannot show it: y*(x) is a set on which f has a choice.
    EXPECT_EQ(run.summary.termination_type, ceres::NO_CONVERGENCE) << run.summary.FullReport();
    EXPECT_EQ(run.summary.answer, AnswerKind::kUndetermined);
    EXPECT_NEAR(toy.x[0], 1.0, 1e-4);
    EXPECT_NEAR(toy.y[1], 1.0, 1e-4);
  }
}

// The price: whatever K, w can undo the steps, and f alone is minimised in the end, here by y = 1
// and x = 0. More steps delay it: the pull on w shrinks with (1 - lower_step)^K.
TEST(IaGm, InitialisationUndoesFewLowerSteps) {
  for (const int num_steps : {1, 5}) {
    examples::Toy toy = Follow();
    IaGm::Options ia;
    ia.num_lower_steps = num_steps;
    ia.lower_step = 0.3;
    const ToyRun run = RunToy(&toy, std::make_shared<IaGm>(ia), 20000);
    EXPECT_EQ(run.summary.termination_type, ceres::NO_CONVERGENCE) << run.summary.FullReport();
    EXPECT_THAT(run.summary.message, HasSubstr("and phi falls by"));
    EXPECT_NEAR(run.x.back()[0], 0.0, 1e-6);
    EXPECT_NEAR(run.y.back()[0], 1.0, 1e-6);
    // Solve shows it: y solved is worse than at the start, which is returned.
    EXPECT_THAT(run.summary.message, HasSubstr("x and y are the start's"));
    EXPECT_NEAR(run.summary.assessment.x_bias, std::abs(toy.x[0] - 2.0 / 3.0), 1e-3);
  }
  examples::Toy toy = Follow();
  IaGm::Options ia;
  ia.num_lower_steps = 100;
  ia.lower_step = 0.3;
  RunToy(&toy, std::make_shared<IaGm>(ia), 1000);
  EXPECT_NEAR(toy.x[0], 2.0 / 3.0, 1e-8);
}

TEST(IaGm, ManifoldAndResidualBlocks) {
  for (const bool truncate : {false, true}) {
    IaGm::Options ia;
    ia.num_lower_steps = 60;
    ia.lower_step = 0.3;
    ia.truncate_pessimistically = truncate;
    ia.x.step = 1.0;
    SphereProblem sphere;
    const Solver::Summary summary = sphere.Run(std::make_shared<IaGm>(ia), 1000);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    if (truncate) {
      // Early iterates have the largest f here, and give a biased but useful x.
      EXPECT_LT(summary.final_objective, 0.1 * summary.initial_objective);
    } else {
      EXPECT_NEAR(sphere.x[0], 1.0 / 3.0, 3e-3);
      EXPECT_NEAR(sphere.x[1], 0.5, 3e-3);
    }
  }
}

TEST(IaGm, NonsenseIsNamedBeforeAnyWork) {
  const auto message = [](const std::function<void(IaGm::Options*)>& spoil) {
    IaGm::Options ia;
    spoil(&ia);
    return Refusal(std::make_shared<IaGm>(ia));
  };
  EXPECT_THAT(message([](auto* o) { o->num_lower_steps = 0; }), HasSubstr("ia_gm.num_lower_steps"));
  EXPECT_THAT(message([](auto* o) { o->lower_step = 0.0; }), HasSubstr("ia_gm.lower_step"));
  EXPECT_THAT(message([](auto* o) { o->w.step = -1.0; }), HasSubstr("ia_gm.w.step"));
  EXPECT_THAT(message([](auto* o) {
                o->momentum = 1.0;
                o->truncate_pessimistically = true;
              }),
              HasSubstr("iaptt_gm.momentum"));
}

}  // namespace
}  // namespace bilevel
