#ifndef BILEVEL_METHODS_ESTIMATORS_JOINT_DIRECTION_H_
#define BILEVEL_METHODS_ESTIMATORS_JOINT_DIRECTION_H_

#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// The directions of y, z and x over one sample i of g and one sample j of f:
///     D_y = g_y,i    D_z = H_i z - f_y,j    D_x = f_x,j - J_i z
struct JointDirection {
  SparseVector g_y, h_z, j_z, f_x, f_y;

  /// Returns f over its sample.
  double Evaluate(
      Oracle& o, const Batch& i, const Batch& j, const Point& x, const Point& y, const Vector& z) {
    o.g(i).GradientAndProduct(x, y, z, &g_y, &h_z, &j_z);
    return o.f(j).Gradient(x, y, &f_x, &f_y);
  }

  /// D_x, D_y and D_z one after the other: dense.
  void Stack(Vector* d) const {
    const int m = static_cast<int>(f_x.dense().size()), n = static_cast<int>(g_y.dense().size());
    d->resize(m + 2 * n);
    d->head(m) = f_x.dense() - j_z.dense();
    d->segment(m, n) = g_y.dense();
    d->tail(n) = h_z.dense() - f_y.dense();
  }
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_JOINT_DIRECTION_H_
