#ifndef BILEVEL_EXAMPLES_SUPPORT_SOLVE_H_
#define BILEVEL_EXAMPLES_SUPPORT_SOLVE_H_

#include "bilevel/problem.h"
#include "bilevel/solver.h"

namespace examples {

/// bilevel::Solve. With --checkpoint each solve of a program has a file, from which the same
/// command goes on; SIGINT and SIGTERM have it written after the iteration and end the program.
void Solve(const bilevel::Solver::Options& options,
           bilevel::Problem* problem,
           bilevel::Solver::Summary* summary);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SOLVE_H_
