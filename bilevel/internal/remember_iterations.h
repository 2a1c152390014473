#ifndef BILEVEL_INTERNAL_REMEMBER_ITERATIONS_H_
#define BILEVEL_INTERNAL_REMEMBER_ITERATIONS_H_

#include "bilevel/base/memory.h"
#include "bilevel/solver.h"

namespace bilevel {

/// For checkpoints: the iterations of a summary, a column a field, and what is counted beside them.
void RememberIterations(Memory* memory, Solver::Summary* summary);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_REMEMBER_ITERATIONS_H_
