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

/// What of a gradient descent can follow: without those entries, and within the tangent cone of the
/// convex sets, by a short projected step.
inline Vector FeasibleGradient(const Point& point, const Vector& gradient) {
  Vector feasible = gradient;
  ClearHeld(point, gradient, &feasible);
  if (!point.space().has_sets()) return feasible;
  for (const Space::Block& block : point.space().blocks()) {
    if (!block.set) continue;
    const auto at = point.value().segment(block.offset, block.size);
    auto own = feasible.segment(block.tangent_offset, block.tangent_size);
    const double norm = own.norm();
    if (!(norm > 0.0)) continue;
    const double h = 1e-7 * (1.0 + at.norm()) / norm;
    Vector moved = at - h * own;
    block.set->Project(moved.data(), block.size);
    own = (at - moved) / h;
  }
  return feasible;
}

/// Largest entry of a gradient, but for those.
inline double ProjectedMaxNorm(const Point& point, const Vector& gradient) {
  if (point.space().has_sets()) {
    return FeasibleGradient(point, gradient).lpNorm<Eigen::Infinity>();
  }
  double largest = 0.0;
  for (int j = 0; j < point.dim(); ++j) {
    if (point.space().IsHeld(point.value().data(), j, gradient[j])) continue;
    largest = std::max(largest, std::abs(gradient[j]));
  }
  return largest;
}

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_INTERNAL_ACTIVE_BOUNDS_H_
