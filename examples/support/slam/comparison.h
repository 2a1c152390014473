#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_COMPARISON_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_COMPARISON_H_

#include <cmath>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "examples/support/baselines.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"

namespace examples {

/// Logarithms of factors, scored on what they were found by and on what nothing has seen.
struct Result {
  std::string name;
  std::vector<double> x;
  double train = std::nan(""), test = std::nan("");
  std::vector<double> test_errors = {};
};

struct Cost {
  std::string name;
  bilevel::LowerSolverCounts counts = {};
  double seconds = 0.0;
};

/// "1.2 0.3": the factors.
std::string Factors(const std::vector<double>& x);

/// What was learned beside other ways to find x. The first of the results is set by hand, the last
/// one learned; the first of the costs is learning's.
struct Comparison {
  std::vector<Result> results;
  std::vector<Cost> costs;

  std::string ScoreTable() const;
  std::string CostTable() const;
  /// What was learned beside what was set by hand, on the test part.
  bilevel::Verdict Judge(const bilevel::Solver::Summary& summary) const;
  /// Whether something that scores worse on the training part is better on the test: a sentence.
  std::string Overfitting() const;
  void AddTo(Json* json) const;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_COMPARISON_H_
