#ifndef BILEVEL_BASE_INTERNAL_FINITE_DIFFERENCES_H_
#define BILEVEL_BASE_INTERNAL_FINITE_DIFFERENCES_H_

namespace bilevel {

/// Central differences of fourth order, with five points of which the middle one counts for
/// nothing:
///
///     f'(0) = sum over k of kFourthOrder[k].Weight(h) f(kFourthOrder[k].at h) + O(h^4)
struct DifferencePoint {
  double at;
  double twelfths;

  double Weight(double h) const { return twelfths / (12.0 * h); }
};

inline constexpr DifferencePoint kFourthOrder[] = {
    {1.0, 8.0}, {-1.0, -8.0}, {2.0, -1.0}, {-2.0, 1.0}};

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_FINITE_DIFFERENCES_H_
