// The verdict on learned values, against intervals that are known and against its promise by
// simulation.
#include "bilevel/upper_level/verdict.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

std::vector<double> Normals(int n, double sigma, std::mt19937* generator) {
  std::normal_distribution<double> normal(0.0, sigma);
  std::vector<double> v(n);
  for (double& value : v) value = normal(*generator);
  return v;
}
std::vector<double> Normals(int n, double sigma, unsigned seed) {
  std::mt19937 generator(seed);
  return Normals(n, sigma, &generator);
}

VerdictOptions Independent() {
  VerdictOptions options;
  options.num_errors_a_block = 1;
  return options;
}

// The difference of the rms of n independent normal errors has a standard deviation of
// (s_1^2 + s_2^2)^(1/2) / (2 n)^(1/2).
TEST(Verdict, IntervalOfIndependentErrors) {
  const int n = 4000;
  const Verdict verdict =
      JudgeLearned(Independent(), Normals(n, 1.0, 1), Normals(n, 0.9, 2), nullptr);
  const double expected = 2.0 * 1.96 * std::sqrt(1.0 + 0.81) / std::sqrt(2.0 * n);
  EXPECT_NEAR(verdict.high - verdict.low, expected, 0.1 * expected);
  EXPECT_LT(verdict.low, verdict.learned - verdict.before);
  EXPECT_GT(verdict.high, verdict.learned - verdict.before);
  EXPECT_EQ(verdict.kind, Verdict::kUseLearned);
  EXPECT_THAT(verdict.ToString(), HasSubstr("Use the learned values"));
}

// Where nothing is better, what was learned is advised in a fortieth of all cases: one side of 95
// %.
TEST(Verdict, SeldomAdvisesWhatIsNoBetter) {
  int num_used = 0;
  const int num_trials = 400;
  std::mt19937 generator(0);
  for (int k = 0; k < num_trials; ++k) {
    const std::vector<double> before = Normals(100, 1.0, &generator);
    const Verdict verdict =
        JudgeLearned(Independent(), before, Normals(100, 1.0, &generator), nullptr);
    num_used += verdict.kind == Verdict::kUseLearned;
  }
  EXPECT_LT(num_used, 0.05 * num_trials);
}

// Errors that drift are few in truth: blocks see that, single draws do not.
TEST(Verdict, BlocksSeeThatNeighboursAreAlike) {
  const auto drift = [](unsigned seed) {
    std::vector<double> walk = Normals(1000, 1.0, seed);
    for (size_t i = 1; i < walk.size(); ++i) walk[i] += 0.98 * walk[i - 1];
    return walk;
  };
  int num_wrong[2] = {0, 0};
  const int num_trials = 100;
  for (int k = 0; k < num_trials; ++k) {
    for (const int block : {0, 1}) {
      VerdictOptions options;
      options.num_errors_a_block = block;
      options.num_draws = 200;
      const Verdict verdict = JudgeLearned(options, drift(2 * k), drift(2 * k + 1), nullptr);
      num_wrong[block] += verdict.kind == Verdict::kUseLearned;
    }
  }
  EXPECT_LT(num_wrong[0], 0.2 * num_trials);
  EXPECT_GT(num_wrong[1], 0.3 * num_trials);
}

TEST(Verdict, KeepsWhatNothingBeats) {
  const std::vector<double> before = Normals(200, 1.0, 1);
  std::vector<double> worse = before;
  for (double& e : worse) e *= 1.2;
  const Verdict verdict = JudgeLearned({}, before, worse, nullptr);
  EXPECT_EQ(verdict.kind, Verdict::kKeepYours);
  EXPECT_GT(verdict.low, 0.0);
  EXPECT_THAT(verdict.ToString(), HasSubstr("it is worse"));
  EXPECT_EQ(JudgeLearned({}, before, before, nullptr).kind, Verdict::kKeepYours);
}

TEST(Verdict, NamesWhatTheDataLeaveFree) {
  const std::vector<double> errors = Normals(200, 1.0, 1);
  Solver::Summary summary;
  summary.flat_upper_directions = {"0.71 a[0] + 0.71 b[0]"};
  const Verdict verdict = JudgeLearned({}, errors, errors, &summary);
  EXPECT_EQ(verdict.kind, Verdict::kNotEnoughData);
  EXPECT_THAT(verdict.ToString(), HasSubstr("leave free: 0.71 a[0] + 0.71 b[0]"));
  // What is better is better, whatever else is free.
  std::vector<double> better = errors;
  for (double& e : better) e *= 0.5;
  EXPECT_EQ(JudgeLearned({}, errors, better, &summary).kind, Verdict::kUseLearned);
}

TEST(Verdict, BadInput) {
  const std::vector<double> errors = Normals(30, 1.0, 1);
  std::vector<double> broken = errors;
  broken[3] = std::numeric_limits<double>::quiet_NaN();
  VerdictOptions long_blocks;
  long_blocks.num_errors_a_block = 1000;
  VerdictOptions few_draws;
  few_draws.num_draws = 3;
  const struct {
    Verdict verdict;
    const char* says;
  } cases[] = {
      {JudgeLearned({}, errors, {1.0}, nullptr), "30 errors before and 1 with the learned values"},
      {JudgeLearned({}, errors, broken, nullptr), "with the learned values is not finite"},
      {JudgeLearned({}, broken, errors, nullptr), "an error before is not finite"},
      {JudgeLearned({}, {}, {}, nullptr), "0 errors do not tell"},
      {JudgeLearned({}, {1.0, 2.0}, {0.5, 1.0}, nullptr), "2 errors do not tell"},
      {JudgeLearned(long_blocks, errors, errors, nullptr), "in blocks of 1000 do not tell"},
      {JudgeLearned(few_draws, errors, errors, nullptr), "num_draws must be at least 40"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(c.verdict.kind, Verdict::kNotEnoughData);
    EXPECT_THAT(c.verdict.ToString(), HasSubstr(c.says));
  }
}

}  // namespace
}  // namespace bilevel
