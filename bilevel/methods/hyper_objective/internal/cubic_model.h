#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_CUBIC_MODEL_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_CUBIC_MODEL_H_

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/program/space.h"

namespace bilevel {

/// The model g's + s'Bs/2 + sigma/3 |s|^3 of a function around s = 0, B symmetric. Along flat
/// directions, eigenvectors whose slope and curvature are rounding of the largest curvature and
/// whose slope is within the tolerance, it is 0, and s too.
class CubicModel {
 public:
  CubicModel(const Vector& g, const Matrix& b, double gradient_tolerance);

  /// Its global minimiser: (B + mu I) s = -g with mu = sigma |s| and B + mu I >= 0 (Cartis, Gould,
  /// Toint, "Adaptive cubic regularisation methods for unconstrained optimization. Part I", Math.
  /// Program. 127, 2011, Theorem 3.1), one of two where g has no part in the least eigenvalue's
  /// space. sigma > 0.
  Vector Minimize(double sigma) const;
  /// Its change by s, negative where it falls.
  double Change(const Vector& s, double sigma) const;

  /// Orthonormal columns.
  Matrix flat_directions() const;
  /// Those and others of so little curvature that its sign may be rounding.
  Matrix undecided_directions() const;
  double largest_curvature() const { return values_.cwiseAbs().maxCoeff(); }
  /// Whether there is none of negative curvature, but for rounding.
  bool is_convex() const;
  /// The decrease that Newton's step promises, by curvatures no less than rounding. For a convex
  /// one.
  double NewtonDecrease() const;

 private:
  Vector g_;
  Matrix b_;
  Vector values_, slopes_;  // Of B's eigenvectors.
  Matrix vectors_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_CUBIC_MODEL_H_
