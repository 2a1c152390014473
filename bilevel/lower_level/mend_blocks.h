#ifndef BILEVEL_LOWER_LEVEL_MEND_BLOCKS_H_
#define BILEVEL_LOWER_LEVEL_MEND_BLOCKS_H_

#include "bilevel/objective/level_function.h"
#include "bilevel/objective/space.h"

namespace bilevel {

/// Makes the indefinite ones of the small diagonal blocks of a Hessian over `space` (its lower
/// triangle) positive definite, with eigenvalues |lambda|. False where there are none.
bool MendBlocks(const Space& space, SparseMatrix* yy);

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_MEND_BLOCKS_H_
