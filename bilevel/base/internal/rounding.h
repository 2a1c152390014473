#ifndef BILEVEL_BASE_INTERNAL_ROUNDING_H_
#define BILEVEL_BASE_INTERNAL_ROUNDING_H_

#include <cmath>
#include <limits>

namespace bilevel {

// What is only rounding, and what is progress, for all solvers and methods.

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

/// A trial counts where the value falls by this share of what was predicted (Armijo).
constexpr double kSufficientDecrease = 1e-4;

/// A point is known to this share of its size.
constexpr double kRoundingOfPoint = 16.0 * kEpsilon;

/// Relative changes of phi below this are as much y's distance to y*(x) as x's.
constexpr double kRoundingOfPhi = 1e-12;
/// And below this phi itself cannot tell a step from rounding.
constexpr double kHiddenInPhi = 1e-13;

/// An eigenvalue of a product J'J below this share of the largest.
constexpr double kRoundingOfProduct = 1e-12;

/// A curvature s'Hs below this share of |s| |Hs| is as good as none.
constexpr double kRoundingOfCurvature = 1e-14;
/// Below this it is not to be divided by, in a Hessian that must stay positive definite.
constexpr double kLeastCurvature = 1e-12;

/// The square of a decrement below this has no digits left.
constexpr double kUnderflow = 1e-150;

/// What of a value, summed from parts of this size, a comparison must allow for.
inline double RoundingOfValue(double size) { return 1e4 * kEpsilon * size; }

/// Whether a decrease of a value, summed from parts of this size, cannot be seen in it.
inline bool IsHiddenInValue(double decrease, double size) {
  return decrease < 1e3 * kEpsilon * size;
}

/// Whether a Newton decrement is near what rounding of the point makes of it, `rounding`.
inline bool IsNearRounding(double decrement, double rounding) {
  return decrement <= 1e3 * rounding;
}

/// Whether Newton's method has come to the end of its means: a full step has not halved the
/// decrement, which is small already.
inline bool HasStalled(double decrement, double previous, double small, double rounding) {
  return decrement > 0.5 * previous && decrement <= small + 1e4 * rounding;
}
/// But steps also stop shrinking where a bound was met, and beside a fold, where y*(x) ends. There
/// the gradient a share of the step on is what the Hessian says, or off it by 64 times less at an
/// eighth of that share; in noise it is off by about itself, at any. off(share, &by), in the norm
/// of the decrement, is false where it cannot be evaluated.
template <typename Off>
bool IsInNoise(double decrement, const Off& off) {
  constexpr double kShare = 1.0 / 8.0, kMostOfSmooth = 1.0 / 25.0;
  double far, close;
  return !off(kShare, &far) || !off(kShare * kShare, &close) ||
         (far > kMostOfSmooth * decrement && close > kMostOfSmooth * far);
}
/// But a step longer than this, relative to the point, is no rounding: the value may be large for
/// reasons of its own, and with it what a small decrement is.
constexpr double kLongestStalled = 1e-4;

/// Whether a bound's multiplier is about zero: one that a step of a millionth of the coordinate's
/// own size would explain.
inline bool IsWeakMultiplier(double multiplier, double curvature, double value) {
  return std::abs(multiplier) <= 1e-6 * std::abs(curvature) * (1.0 + std::abs(value));
}

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_ROUNDING_H_
