// What a first-order method advises about its steps and batches solves the very problem that was
// refused.
#include <cmath>
#include <memory>
#include <string>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/sgm.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/zeroth_order/igfm.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "remedies.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// "may be too long": steps beyond what a double holds, and of a tenth.
TEST(Remedies, StepsTooLong) {
  using Make = std::shared_ptr<Method> (*)(double);
  const Make descent = [](double step) -> std::shared_ptr<Method> {
    StepRule rule;
    rule.step = step;
    return std::make_shared<GradientMethod>(
        "descent", std::make_unique<ExactHypergradient>(), rule);
  };
  const Make igfm = [](double step) -> std::shared_ptr<Method> {
    Igfm::Options options;
    options.x.step = step;
    return std::make_shared<Igfm>(options);
  };
  for (const Make make : {descent, igfm}) {
    Follow f(4.0), again(4.0);
    const Solver::Summary refused = SolveBy(make(1e308), &f.problem);
    EXPECT_EQ(refused.termination_type, ceres::FAILURE) << refused.FullReport();
    EXPECT_THAT(refused.message, HasSubstr("too long")) << refused.method;
    const Solver::Summary summary = SolveBy(make(0.1), &again.problem);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_NEAR(again.x, 4.0, 0.1) << summary.method;
  }
}

TEST(Remedies, BatchesLargerThanTheSum) {
  Soba::Options soba;
  soba.upper_batch = 9;
  Follow f(2.0, 4);
  EXPECT_THAT(SolveBy(std::make_shared<Soba>(soba), &f.problem).message,
              HasSubstr("use 0 for all of them"));
  soba.upper_batch = 0;
  const Solver::Summary summary = SolveBy(std::make_shared<Soba>(soba), &f.problem);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
}

// "the longest step of y and z is above the limit of stability 2 / L".
TEST(Remedies, MinibatchStepsAboveTheLimit) {
  for (const double share : {30.0, 0.5}) {
    Follow f(2.0, 4);  // L = 4: the sum of four.
    Soba::Options soba;
    soba.lower.step = share * 2.0 / 4.0;
    soba.x.step = 0.02;
    const Solver::Summary summary = SolveBy(std::make_shared<Soba>(soba), &f.problem);
    if (share > 1.0) {
      EXPECT_EQ(summary.termination_type, ceres::FAILURE) << summary.FullReport();
      EXPECT_THAT(summary.message, HasSubstr("above the limit of stability 2 / L = 0.5"));
      continue;
    }
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_NEAR(f.x, 2.0, 1e-3);
  }
}

Solver::Summary SolveBySgm(const std::string& method, const Sgm::Options& sgm, Problem* problem) {
  return SolveBy(CreateMethod(method), problem, [&](Solver::Options* options) {
    options->lower_solver = [sgm](Program* program) { return std::make_unique<Sgm>(program, sgm); };
    options->max_num_iterations = 300;
  });
}

// "gives y*(x) without a derivative: igfm needs none".
TEST(Remedies, ALowerSolverWithoutDerivatives) {
  Sgm::Options sgm;
  sgm.theta = sgm.step = 1e-3;
  sgm.lower_step = 0.5;
  sgm.num_steps = sgm.num_lower_steps = 200;
  Follow f(2.0);
  EXPECT_THAT(SolveBySgm("levenberg_marquardt", sgm, &f.problem).message,
              HasSubstr("igfm needs none"));
  const Solver::Summary summary = SolveBySgm("igfm", sgm, &f.problem);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(f.x, 2.0, 0.2);
}

// "met no y within 2 theta of min g: sgm.step is too long, or sgm.num_steps too few".
TEST(Remedies, StepsOfSgm) {
  for (const double step : {1.9, 1e-3}) {
    Sgm::Options sgm;
    sgm.theta = 1e-6;
    sgm.step = step;
    sgm.lower_step = 0.5;
    sgm.num_steps = step > 1.0 ? 5 : 30000;
    sgm.num_lower_steps = 200;
    Follow f(2.0);
    const Solver::Summary summary = SolveBySgm("igfm", sgm, &f.problem);
    const std::string report = summary.FullReport();
    EXPECT_EQ(report.find("sgm.step is too long") != std::string::npos, step > 1.0) << report;
    if (step < 1.0) {
      EXPECT_NEAR(f.x, 2.0, 0.2) << report;
    }
  }
}

}  // namespace
}  // namespace bilevel
