#ifndef BILEVEL_TESTS_CAMPAIGN_RANDOM_LOWER_H_
#define BILEVEL_TESTS_CAMPAIGN_RANDOM_LOWER_H_

// Lower levels of random problems, solved without the library.

#include <vector>

#include "Eigen/Core"
#include "campaign/random_problems.h"

namespace bilevel {

// Moves blocks along a tangent vector and, if asked, back onto their bounds.
void MoveBlocks(const RandomProblem& problem,
                const std::vector<int>& blocks,
                const Eigen::VectorXd& step,
                bool project,
                BlockValues* values);

// Minimises g of one scenario by Newton's method on Ceres' jets and differences of them.
struct LowerSolution {
  bool is_solved = false;
  double least_eigenvalue = 0.0, largest_eigenvalue = 0.0;  // Of the free part of the Hessian.
  double moved = 0.0;                                       // Largest change of a coordinate.
  double decrement = 0.0;                                   // sqrt(g' H^-1 g) at the beginning.
  double weakest_multiplier = 1e300;  // Of held bounds; 0 where one is touched without a push.
};
LowerSolution SolveLower(const RandomProblem& problem, int scenario, BlockValues* values);

}  // namespace bilevel

#endif  // BILEVEL_TESTS_CAMPAIGN_RANDOM_LOWER_H_
