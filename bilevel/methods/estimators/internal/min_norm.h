#ifndef BILEVEL_METHODS_ESTIMATORS_INTERNAL_MIN_NORM_H_
#define BILEVEL_METHODS_ESTIMATORS_INTERNAL_MIN_NORM_H_

#include "bilevel/program/space.h"

namespace bilevel {

/// The point of least norm in the convex hull of the columns (Wolfe, "Finding the nearest point in
/// a polytope", Mathematical Programming 11, 1976). Of gradients at points close together: the
/// direction opposite to it is the steepest on which all of them agree; where it is zero, none is.
Vector MinNormInHull(const Matrix& columns);

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_INTERNAL_MIN_NORM_H_
