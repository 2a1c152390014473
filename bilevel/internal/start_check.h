#ifndef BILEVEL_INTERNAL_START_CHECK_H_
#define BILEVEL_INTERNAL_START_CHECK_H_

#include "bilevel/methods/method.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/solver.h"

namespace bilevel {

/// phi at the answer's x with y solved anew from the user's first y, by a lower solver of its own;
/// NaN where it fails. `end` and its phi are the answer's, y solved. Ceres' solve ends where it has
/// come so near to the answer's y that it leads there.
double PhiFromStart(const Solver::Options& options,
                    const Point& first_y,
                    const State& end,
                    double phi,
                    Oracle* oracle);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_START_CHECK_H_
