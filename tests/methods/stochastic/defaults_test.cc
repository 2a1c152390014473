// What the methods on minibatches do where nothing is given.
#include <string>

#include "bilevel/bilevel.h"
#include "examples/support/quadratic_sum.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

Solver::Summary SolveWith(const std::string& name,
                          int iterations,
                          QuadraticSum* sum,
                          unsigned seed = 1) {
  Problem problem;
  sum->AddTo(&problem);
  Solver::Options options;
  options.method = CreateMethod(name);
  options.max_num_iterations = iterations;
  options.seed = seed;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  return summary;
}

// A default is no reason to refuse a small level, nor one with nothing to draw from.
TEST(Batches, DefaultsShrinkToSmallLevels) {
  for (const int num_terms : {1, 2, 64, 65, 256}) {
    for (const char* name : {"soba", "saba", "srba", "vrbo", "f2sa", "slip"}) {
      QuadraticSum sum(num_terms, 2, 3, 0.1);
      const Solver::Summary summary = SolveWith(name, 2, &sum);
      ASSERT_TRUE(summary.IsSolutionUsable()) << name << "\n" << summary.FullReport();
    }
  }
  // All terms where there are no more than 64, and no noise: two seeds agree.
  const auto answer = [](int num_terms, unsigned seed) {
    QuadraticSum sum(num_terms, 2, 3, 0.1);
    SolveWith("soba", 20, &sum, seed);
    return sum.x[0];
  };
  EXPECT_EQ(answer(64, 1), answer(64, 2));
  EXPECT_NE(answer(65, 1), answer(65, 2));
}

}  // namespace
}  // namespace bilevel
