#ifndef BILEVEL_METHODS_ESTIMATORS_INTERNAL_ACTIVE_BOUNDS_H_
#define BILEVEL_METHODS_ESTIMATORS_INTERNAL_ACTIVE_BOUNDS_H_

#include <algorithm>
#include <cmath>

#include "bilevel/program/space.h"

namespace bilevel {

/// Zeroes the entries of v in coordinates where the point stands at a bound that a move along
/// -gradient would cross; v may be the gradient itself.
inline void ClearHeld(const Point& point, const Vector& gradient, Vector* v) {
  if (!point.space().has_bounds()) return;
  for (int j = 0; j < point.dim(); ++j) {
    if (point.space().IsHeld(point.value().data(), j, gradient[j])) (*v)[j] = 0.0;
  }
}

/// Largest entry of a gradient, but for those.
inline double ProjectedMaxNorm(const Point& point, const Vector& gradient) {
  double largest = 0.0;
  for (int j = 0; j < point.dim(); ++j) {
    if (point.space().IsHeld(point.value().data(), j, gradient[j])) continue;
    largest = std::max(largest, std::abs(gradient[j]));
  }
  return largest;
}

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_INTERNAL_ACTIVE_BOUNDS_H_
