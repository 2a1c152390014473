// What the default method does where its first answer does not hold.
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/stochastic_method.h"
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

// Whether the problem is solved, from its given start. CONVERGENCE is nowhere said away from all
// listed minima.
bool IsSolvedBy(const std::string& method,
                const BilevelProblem& problem,
                BilevelProblem::Form form) {
  std::vector<double> x = problem.x, y = problem.y;
  const std::unique_ptr<Problem> built = problem.Build(x.data(), y.data(), form);
  Solver::Options options;
  options.method = CreateMethod(method);
  options.max_num_iterations = 200;
  Solver::Summary summary;
  Solve(options, built.get(), &summary);
  KnownMinimum found;
  const bool is_solved = problem.MinimumAt(x, y, &found) != nullptr;
  EXPECT_TRUE(is_solved || summary.termination_type != ceres::CONVERGENCE)
      << problem.name << " by " << method << ": " << summary.message;
  return is_solved;
}

TEST(Auto, SolvesNoFewerProblemsThanAnyMethod) {
  std::map<std::string, int> num_solved;
  for (const BilevelProblem& problem : AllBilevelProblems()) {
    for (const std::string& method : ListMethods()) {
      if (dynamic_cast<StochasticMethod*>(CreateMethod(method).get())) continue;
      num_solved[method] += IsSolvedBy(method, problem, BilevelProblem::kResidualBlocks);
    }
  }
  for (const auto& [method, number] : num_solved) EXPECT_GE(num_solved["auto"], number) << method;
  EXPECT_GE(num_solved["auto"], 116);  // Of 121.
}

TEST(Auto, SolvesGeneralTerms) {
  int num_solved = 0;
  for (const BilevelProblem& problem : AllBilevelProblems()) {
    num_solved += IsSolvedBy("auto", problem, BilevelProblem::kGeneralTerms);
  }
  EXPECT_GE(num_solved, 109);  // Of 121.
}

}  // namespace
}  // namespace bilevel
