#ifndef BILEVEL_TESTS_REMEDIES_H_
#define BILEVEL_TESTS_REMEDIES_H_

#include <functional>
#include <memory>
#include <utility>

#include "bilevel/bilevel.h"
#include "test_problems.h"

namespace bilevel {

// The lower level y = x, the upper y = target: x = target.
struct Follow {
  explicit Follow(double target, int num_terms = 1) {
    problem.AddUpperParameterBlock(&x, 1);
    for (int i = 0; i < num_terms; ++i) {
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &x);
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<To, 1, 1>(new To{target}), nullptr, &y);
    }
  }
  double x = 0.5, y = 0.0;
  Problem problem;
};

inline Solver::Summary SolveBy(std::shared_ptr<Method> method,
                               Problem* problem,
                               const std::function<void(Solver::Options*)>& set = {}) {
  Solver::Options options;
  options.method = std::move(method);
  options.max_num_iterations = 2000;
  if (set) set(&options);
  Solver::Summary summary;
  Solve(options, problem, &summary);
  return summary;
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_REMEDIES_H_
