// A short campaign: random problems, and whether what Solve says of its answers is so. The long one
// is random_problems_campaign.
#include "campaign/random_problems.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "bilevel/bilevel.h"
#include "campaign/random_check.h"
#include "campaign/random_lower.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// Of solved ones fewer: a check costs many lower solves.
constexpr unsigned kNumProblems = 30, kNumSolved = 12;

Solver::Summary SolveBy(const std::string& method,
                        const Solver::Options& given,
                        RandomProblem* random) {
  Solver::Options options = given;
  options.method = CreateMethod(method);
  options.max_num_iterations = 100;
  Solver::Summary summary;
  Solve(options, random->problem(), &summary);
  return summary;
}

TEST(RandomProblems, AreFunctionsOfTheirSeeds) {
  for (unsigned seed = 1; seed <= kNumProblems; ++seed) {
    const RandomProblem one(seed), two(seed);
    EXPECT_EQ(one.Describe(), two.Describe());
    EXPECT_EQ(one.Values(), two.Values());
    EXPECT_EQ(one.F(one.Values()), two.F(two.Values()));
  }
}

// What the check evaluates is what Ceres does, where a level has no general terms.
TEST(RandomProblems, AreWhatTheCheckEvaluates) {
  int num_compared = 0;
  for (unsigned seed = 1; seed <= kNumProblems; ++seed) {
    RandomProblem random(seed);
    for (int s = 0; s < random.num_scenarios(); ++s) {
      Scenario* scenario = random.problem()->scenario(s);
      for (const Level level : {Level::kLower, Level::kUpper}) {
        if (scenario->num_terms(level) > 0) continue;
        ceres::Problem* of_ceres = level == Level::kLower ? scenario->lower() : scenario->upper();
        double cost = 0.0, size = 0.0;
        of_ceres->Evaluate(ceres::Problem::EvaluateOptions(), &cost, nullptr, nullptr, nullptr);
        const double own = random.Evaluate(level, s, random.Values(), &size);
        EXPECT_NEAR(own, cost, 1e-12 * size) << random.Describe();
        ++num_compared;
      }
    }
  }
  EXPECT_GT(num_compared, 30);
}

TEST(RandomProblems, GradientsAgreeWithDifferences) {
  for (unsigned seed = 1; seed <= kNumProblems; ++seed) {
    const RandomProblem random(seed);
    const std::vector<int> y = random.Lower(0);
    const std::vector<double> gradient = random.Gradient(Level::kLower, 0, y, random.Values());
    const int n = static_cast<int>(gradient.size());
    double size = 0.0;
    random.Evaluate(Level::kLower, 0, random.Values(), &size);
    for (int j = 0; j < n; ++j) {
      const double slope = Derivative<double>(
          [&](double h) {
            BlockValues there = random.Values();
            MoveBlocks(random, y, h * Eigen::VectorXd::Unit(n, j), false, &there);
            return random.Evaluate(Level::kLower, 0, there, nullptr);
          },
          1e-3);
      EXPECT_NEAR(gradient[j], slope, 1e-7 * (1.0 + size)) << random.Describe();
    }
  }
}

TEST(RandomProblems, ConvergenceIsWhatItPromises) {
  int num_verified = 0;
  for (unsigned seed = 1; seed <= kNumSolved; ++seed) {
    for (const std::string method :
         {"auto", "levenberg_marquardt", "projected_lbfgs", "newton", "bfgs"}) {
      RandomProblem random(seed);
      const Solver::Options options;
      const Solver::Summary summary = SolveBy(method, options, &random);
      EXPECT_FALSE(summary.message.empty()) << random.Describe();
      const RandomVerdict verdict = RandomCheck(random, options, summary).Run();
      EXPECT_NE(verdict.kind, RandomVerdict::kViolation) << random.Describe() << '\n'
                                                         << method << ": " << verdict.why << '\n'
                                                         << summary.FullReport();
      num_verified += verdict.kind == RandomVerdict::kVerified;
    }
  }
  EXPECT_GT(num_verified, 20);
}

// The check is no check unless it refuses the starts, of which it is said that they were answers.
TEST(RandomProblems, StartsAreNoAnswers) {
  int num_refused = 0, num_checked = 0;
  for (unsigned seed = 1; seed <= kNumSolved; ++seed) {
    RandomProblem random(seed);
    Solver::Options options;
    options.method = CreateMethod("auto");
    options.max_num_iterations = 0;
    Solver::Summary summary;
    Solve(options, random.problem(), &summary);
    if (!summary.IsSolutionUsable() || summary.final_objective < 0.0) continue;
    summary.termination_type = ceres::CONVERGENCE;
    summary.answer = AnswerKind::kStationary;
    const RandomVerdict verdict = RandomCheck(random, options, summary).Run();
    ++num_checked;
    num_refused += verdict.kind == RandomVerdict::kViolation;
  }
  EXPECT_GT(num_checked, 8);
  EXPECT_GT(num_refused, 3 * num_checked / 4);
}

}  // namespace
}  // namespace bilevel
