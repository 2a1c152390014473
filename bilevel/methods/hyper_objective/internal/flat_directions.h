#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_FLAT_DIRECTIONS_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_FLAT_DIRECTIONS_H_

#include "bilevel/program/space.h"

namespace bilevel {

/// An orthonormal basis (columns) of the space of x, in two parts.
struct Directions {
  Matrix flat;  ///< Neither r nor phi changes along these, but by rounding.
  Matrix learnable;
};

/// By the eigenvectors of J'J, J the derivative of the residuals r, and by the slope of phi along
/// them.
Directions SplitDirections(const Matrix& j, const Vector& r, const Vector& gradient);

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_FLAT_DIRECTIONS_H_
