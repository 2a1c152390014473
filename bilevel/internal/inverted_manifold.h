#ifndef BILEVEL_INTERNAL_INVERTED_MANIFOLD_H_
#define BILEVEL_INTERNAL_INVERTED_MANIFOLD_H_

#include "ceres/manifold.h"

namespace bilevel {

/// A manifold of which only Plus and its Jacobian exist, as of a ceres::LocalParameterization
/// (Ceres 2.1), with Minus by Gauss-Newton steps on Plus, to rounding. Minus is false where they
/// do not lead there.
class InvertedManifold : public ceres::Manifold {
 public:
  /// Not owned.
  explicit InvertedManifold(const ceres::Manifold* plus) : plus_(*plus) {}

  int AmbientSize() const override { return plus_.AmbientSize(); }
  int TangentSize() const override { return plus_.TangentSize(); }
  bool Plus(const double* x, const double* delta, double* x_plus_delta) const override {
    return plus_.Plus(x, delta, x_plus_delta);
  }
  bool PlusJacobian(const double* x, double* jacobian) const override {
    return plus_.PlusJacobian(x, jacobian);
  }
  bool Minus(const double* y, const double* x, double* y_minus_x) const override;
  /// The pseudo-inverse of Plus' Jacobian.
  bool MinusJacobian(const double* x, double* jacobian) const override;

 private:
  const ceres::Manifold& plus_;
};

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_INVERTED_MANIFOLD_H_
