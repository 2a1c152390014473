// What the default method does where its first answer does not hold.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

struct Same {  // y* = x.
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    *value = T(0.0);
    for (int i = 0; i < 2; ++i) *value += (y[i] - x[i]) * (y[i] - x[i]);
    return true;
  }
};

struct UpperSaddle {  // At 0; least at (0, 1) and (0, -1).
  template <typename T>
  bool operator()(const T* y, T* value) const {
    *value = y[0] * y[0] - 2.0 * y[1] * y[1] + y[1] * y[1] * y[1] * y[1];
    return true;
  }
};

struct Solved {
  std::vector<double> x, y;
  Solver::Summary summary;
};

Solved SolveSaddle(const char* method, std::vector<double> x) {
  Solved solved{std::move(x), {0.0, 0.0}, {}};
  Problem problem;
  problem.AddUpperParameterBlock(solved.x.data(), 2);
  problem.AddTerm(Level::kLower,
                  std::make_unique<AutoDiffObjective<Same, 2, 2>>(),
                  {{solved.x.data(), 2}, {solved.y.data(), 2}});
  problem.AddTerm(
      Level::kUpper, std::make_unique<AutoDiffObjective<UpperSaddle, 2>>(), {{solved.y.data(), 2}});
  Solver::Options options;
  options.method = CreateMethod(method);
  Solve(options, &problem, &solved.summary);
  return solved;
}

TEST(Auto, LeavesSaddlesAndMaxima) {
  for (const std::vector<double>& start : {std::vector<double>{0.0, 0.0}, {1.0, 0.0}}) {
    const Solved solved = SolveSaddle("auto", start);
    EXPECT_EQ(solved.summary.termination_type, ceres::CONVERGENCE) << solved.summary.message;
    EXPECT_EQ(solved.summary.answer, AnswerKind::kStationary);
    EXPECT_NEAR(solved.x[0], 0.0, 1e-4);
    EXPECT_NEAR(std::abs(solved.x[1]), 1.0, 1e-4);
    ASSERT_GE(solved.summary.assessment.attempts.size(), 2u);
    EXPECT_THAT(solved.summary.assessment.attempts[0].ended,
                HasSubstr("direction in which x has never moved"));
    // A single method says what the point is not.
    const Solved single = SolveSaddle("lbfgs", start);
    EXPECT_EQ(single.summary.termination_type, ceres::NO_CONVERGENCE);
    EXPECT_EQ(single.summary.answer, AnswerKind::kStuck);
    EXPECT_THAT(single.summary.message, HasSubstr("direction in which x has never moved"));
  }
}

// On the fixed set of problems with known answers: CONVERGENCE is nowhere said away from all listed
// minima, and most are solved.
TEST(Auto, ProblemsWithKnownAnswers) {
  int num_solved = 0;
  for (const BilevelProblem& problem : AllBilevelProblems()) {
    for (const auto form : {BilevelProblem::kResidualBlocks, BilevelProblem::kGeneralTerms}) {
      std::vector<double> x = problem.x, y = problem.y;
      const std::unique_ptr<Problem> built = problem.Build(x.data(), y.data(), form);
      Solver::Options options;
      options.max_num_iterations = 200;
      Solver::Summary summary;
      Solve(options, built.get(), &summary);
      KnownMinimum found;
      const bool is_solved = problem.MinimumAt(x, y, &found) != nullptr;
      num_solved += is_solved && form == BilevelProblem::kResidualBlocks;
      EXPECT_TRUE(is_solved || summary.termination_type != ceres::CONVERGENCE)
          << problem.name << ": " << summary.message;
    }
  }
  EXPECT_GE(num_solved, 90);  // What the best single method solves.
}

}  // namespace
}  // namespace bilevel
