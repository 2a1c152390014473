#ifndef BILEVEL_METHODS_ESTIMATORS_INTERNAL_CONJUGATE_GRADIENTS_H_
#define BILEVEL_METHODS_ESTIMATORS_INTERNAL_CONJUGATE_GRADIENTS_H_

#include "bilevel/program/space.h"

namespace bilevel {

/// *v with A v = b, from v = 0 to that residual relative to b. multiply(p, &product) is false where
/// it fails. False then, and at a direction in which A is not positive; *v is what was reached.
template <typename Multiply>
bool ConjugateGradients(
    const Vector& b, double tolerance, int max_num_iterations, Multiply multiply, Vector* v) {
  Vector r = b, p = b, product;
  v->setZero(b.size());
  double rr = r.squaredNorm();
  const double target = tolerance * tolerance * rr;
  for (int k = 0; k < max_num_iterations && rr > target; ++k) {
    if (!multiply(p, &product)) return false;
    const double curvature = p.dot(product);
    if (!(curvature > 0.0)) return false;
    *v += rr / curvature * p;
    r -= rr / curvature * product;
    const double next = r.squaredNorm();
    p = r + next / rr * p;
    rr = next;
  }
  return true;
}

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_INTERNAL_CONJUGATE_GRADIENTS_H_
