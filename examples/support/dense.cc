#include "examples/support/dense.h"

#include "Eigen/Geometry"

namespace examples {

Eigen::VectorXd LeastSingularVector(const Eigen::MatrixXd& a) {
  return bilevel::RightSvd(a).v.rightCols<1>();
}

// U diag(1, 1, +-1) V', whose third axes are those that make both right-handed.
Eigen::Matrix3d NearestRotation(const Eigen::Matrix3d& m) {
  Eigen::Matrix3d v = bilevel::RightSvd(m).v, u;
  u.col(0) = (m * v.col(0)).normalized();
  u.col(1) = m * v.col(1);
  u.col(1) = (u.col(1) - u.col(0).dot(u.col(1)) * u.col(0)).normalized();
  u.col(2) = u.col(0).cross(u.col(1));
  v.col(2) = v.col(0).cross(v.col(1));
  return u * v.transpose();
}

}  // namespace examples
