#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_MAKE_BLOCKS_POSITIVE_DEFINITE_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_MAKE_BLOCKS_POSITIVE_DEFINITE_H_

#include "bilevel/program/level_function.h"
#include "bilevel/program/space.h"

namespace bilevel {

/// Makes the indefinite ones of the small diagonal blocks of a Hessian over `space` (its lower
/// triangle) positive definite, with eigenvalues |lambda| where its diagonal is scaled to ones.
/// False where there are none.
bool MakeBlocksPositiveDefinite(const Space& space, SparseMatrix* yy);

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_MAKE_BLOCKS_POSITIVE_DEFINITE_H_
