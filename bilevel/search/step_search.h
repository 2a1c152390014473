#ifndef BILEVEL_SEARCH_STEP_SEARCH_H_
#define BILEVEL_SEARCH_STEP_SEARCH_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/solver.h"

namespace bilevel {

/// Which steps a method should take, from short runs: every combination of the grids first, then
/// the better half for twice as many iterations, and so on until one is left (successive halving;
/// Jamieson and Talwalkar, AISTATS 2016). N combinations cost N (1 + ceil(log2 N)) runs of
/// num_iterations, all from the same start.
///
///     StepSearch search;
///     search.grids = {LogGrid(1e-3, 1.0, 4), LogGrid(1e-4, 1e-1, 4)};
///     search.make_method = [](const std::vector<double>& steps) {
///       Soba::Options soba;
///       soba.lower.step = steps[0];
///       soba.x.step = steps[1];
///       return std::make_shared<Soba>(soba);
///     };
struct StepSearch {
  std::vector<std::vector<double>> grids;  ///< One for each step.
  /// The method for one value of each grid.
  std::function<std::shared_ptr<Method>(const std::vector<double>&)> make_method;
  int num_iterations = 100;  ///< Of the first runs.
  /// An estimate of phi at the x and y that a run has left in the user's memory; the smallest
  /// wins. Empty: phi with y solved, which needs a method that does not leave its y.
  std::function<double()> held_out;

  bool IsValid(std::string* error) const;
};

/// `count` values from `first` to `last`, evenly spaced in their logarithms.
std::vector<double> LogGrid(double first, double last, int count);

struct StepSearchResult {
  /// One combination and its longest run. The estimate is infinite where a run failed.
  struct Trial {
    std::vector<double> steps;
    int num_iterations;
    double held_out;
    std::string message;
  };
  std::vector<Trial> trials;  ///< The best first.
  int num_runs = 0;
  FunctionCounts upper, lower;  ///< What all runs asked of f and g.
  double seconds = 0.0;

  const std::vector<double>& steps() const { return trials.front().steps; }
  /// A table of the trials and the cost.
  std::string Report() const;
};

/// options.method, max_num_iterations, callbacks and progress are the search's. x and y are left as
/// they were. False: *error says what makes no sense, or that every run failed.
bool SearchSteps(const StepSearch& search,
                 const Solver::Options& options,
                 Problem* problem,
                 StepSearchResult* result,
                 std::string* error);

}  // namespace bilevel

#endif  // BILEVEL_SEARCH_STEP_SEARCH_H_
