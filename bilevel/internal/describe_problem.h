#ifndef BILEVEL_INTERNAL_DESCRIBE_PROBLEM_H_
#define BILEVEL_INTERNAL_DESCRIBE_PROBLEM_H_

#include "bilevel/program/program.h"
#include "bilevel/solver.h"

namespace bilevel {

/// The Summary's fields that are known before anything is solved: sizes, threads, derivatives.
void DescribeProblem(const Solver::Options& options,
                     const Program& program,
                     Solver::Summary* summary);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_DESCRIBE_PROBLEM_H_
