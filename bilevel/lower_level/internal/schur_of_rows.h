#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_SCHUR_OF_ROWS_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_SCHUR_OF_ROWS_H_

#include <vector>

#include "bilevel/lower_level/hessian_system.h"

namespace bilevel {

/// S = B H^-1 B' for some rows of a matrix, H being what a system was prepared with, and no
/// coordinate counting that it holds fixed: S = F'F with F = L^-1 B', where each of B's rows goes
/// through those columns of the Cholesky factor L alone that it reaches, from its own coordinates
/// up the elimination tree. By whole solves where blocks were eliminated before, or H is singular.
/// False: the system's message.
bool SchurOfRows(const RowSparseMatrix& b,
                 const std::vector<int>& rows,
                 HessianSystem* system,
                 Matrix* s);

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_SCHUR_OF_ROWS_H_
