#ifndef BILEVEL_SEARCH_MULTI_START_H_
#define BILEVEL_SEARCH_MULTI_START_H_

#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/solver.h"

namespace bilevel {

/// Hyper-objectives have plateaus (a sensor whose weight is so small that nothing depends on it),
/// jumps (a lower level that changes its basin) and several minima. From coarse to fine: phi is
/// looked at from many starts, one lower solve each, and learned from the few best.
struct MultiStartOptions {
  int num_starts = 16;  ///< Beside the given x, always one of them.
  int num_refined = 3;  ///< Solve runs from so many of the best.
  /// Starts are spread over x +- radius in each tangent coordinate (a Latin hypercube), within the
  /// bounds. For logarithms: a factor exp(radius).
  double radius = 4.605170185988092;  // log(100)
  unsigned seed = 0;

  bool IsValid(std::string* error) const;
};

/// One start, and what became of it. NaN: not computed, or no solution there.
struct MultiStartReport {
  std::vector<double> x;  ///< Ambient, block after block.
  double objective, refined_objective;
};

/// Every lower solve begins at the given y. x and y are left at the best point found, and *summary
/// is that of the run which found it, its message telling how many starts led how far. starts, the
/// best first, may be nullptr.
void SolveFromManyStarts(const MultiStartOptions& multi_start,
                         const Solver::Options& options,
                         Problem* problem,
                         Solver::Summary* summary,
                         std::vector<MultiStartReport>* starts);

}  // namespace bilevel

#endif  // BILEVEL_SEARCH_MULTI_START_H_
