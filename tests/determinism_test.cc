// The same seed gives the same bits: again, and on any number of threads.
#include <cstring>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "small_problems.h"

namespace bilevel {
namespace {

// A run of it.
struct Solved {
  Solved(const std::string& method, SmallProblem::Kind kind, int num_threads) : small(kind) {
    Solver::Options options = SmallProblem::Options(method);
    options.num_threads = num_threads;
    Solve(options, &small.problem, &summary);
  }
  std::vector<double> Values() const { return small.Values(summary); }

  SmallProblem small;
  Solver::Summary summary;
};

class Determinism : public ::testing::TestWithParam<SmallProblem::Kind> {};

TEST_P(Determinism, EveryMethodOnOneTwoAndFourThreads) {
  for (const std::string& method : ListMethods()) {
    const Solved first(method, GetParam(), 1);
    const std::vector<double> expected = first.Values();
    for (const int num_threads : {1, 2, 4}) {
      const Solved run(method, GetParam(), num_threads);
      const std::vector<double> values = run.Values();
      EXPECT_EQ(run.summary.message, first.summary.message) << method << " on " << num_threads;
      ASSERT_EQ(values.size(), expected.size()) << method << " on " << num_threads;
      EXPECT_EQ(std::memcmp(values.data(), expected.data(), 8 * values.size()), 0)
          << method << " on " << num_threads << " threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Problems,
                         Determinism,
                         ::testing::Values(SmallProblem::kManyBlocks,
                                           SmallProblem::kScenarios,
                                           SmallProblem::kTerms));

}  // namespace
}  // namespace bilevel
