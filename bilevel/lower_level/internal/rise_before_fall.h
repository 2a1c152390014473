#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_RISE_BEFORE_FALL_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_RISE_BEFORE_FALL_H_

#include <algorithm>
#include <cmath>

namespace bilevel {

/// By how much a function rises along a line before it is less than at its beginning by fall, at a
/// distance of length: by the cubic that begins with this slope and curvature. A rise beyond
/// rounding tells a minimum in front of something lower from an inflection.
inline double RiseBeforeFall(double slope, double curvature, double length, double fall) {
  const double third =
      6.0 * (fall + length * (slope + 0.5 * curvature * length)) / (length * length * length);
  const double squared = curvature > 0.0 ? curvature * curvature + 2.0 * slope * third : 0.0;
  return 2.0 / 3.0 * std::pow(std::max(0.0, squared), 1.5) / (third * third);
}

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_RISE_BEFORE_FALL_H_
