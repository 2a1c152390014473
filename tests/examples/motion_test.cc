// The logarithm and the exponential of motions.
#include <cmath>
#include <random>

#include "Eigen/Core"
#include "Eigen/Geometry"
#include "examples/support/slam/pose_graph.h"
#include "gtest/gtest.h"

namespace examples {
namespace {

// The logarithm against the exponential of the 4 x 4 and 3 x 3 matrices, by scaling and squaring.
template <int N>
Eigen::Matrix<double, N, N> MatrixExponential(const Eigen::Matrix<double, N, N>& a) {
  Eigen::Matrix<double, N, N> small = a / 1024.0, term = small, sum = term;
  for (int k = 2; k < 12; ++k) sum += term = (term * small / k).eval();
  sum += Eigen::Matrix<double, N, N>::Identity();
  for (int k = 0; k < 10; ++k) sum = (sum * sum).eval();
  return sum;
}

TEST(Motion, LogIsTheMatrixLogarithm) {
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  for (const double size : {1e-9, 1e-3, 0.3, 1.2}) {
    double v[6];
    for (double& value : v) value = size * normal(generator);
    Eigen::Matrix4d a = Eigen::Matrix4d::Zero();
    a.topLeftCorner<3, 3>() << 0, -v[5], v[4], v[5], 0, -v[3], -v[4], v[3], 0;
    a.topRightCorner<3, 1>() << v[0], v[1], v[2];
    const Eigen::Matrix4d m = MatrixExponential<4>(a);
    const Eigen::Quaterniond q = Eigen::Quaterniond(Eigen::Matrix3d(m.topLeftCorner<3, 3>()));
    const double quaternion[4] = {q.w(), q.x(), q.y(), q.z()}, t[3] = {m(0, 3), m(1, 3), m(2, 3)};
    double log[6];
    LogSE3(quaternion, t, log);
    for (int k = 0; k < 6; ++k) EXPECT_NEAR(log[k], v[k], 1e-12 * size + 1e-16);
    const Pose3 exp = ExpSE3(v);
    for (int k = 0; k < 3; ++k) EXPECT_NEAR(exp.t[k], t[k], 1e-13);

    Eigen::Matrix3d b = Eigen::Matrix3d::Zero();
    b << 0, -v[2], v[0], v[2], 0, v[1], 0, 0, 0;
    const Eigen::Matrix3d n = MatrixExponential<3>(b);
    const double motion[3] = {n(0, 2), n(1, 2), std::atan2(n(1, 0), n(0, 0)) + 4.0 * M_PI};
    LogSE2(motion, log);
    for (int k = 0; k < 3; ++k) EXPECT_NEAR(log[k], v[k], 1e-12 * size + 5e-15);
    const Pose2 exp2 = ExpSE2(v);
    for (int k = 0; k < 2; ++k) EXPECT_NEAR(exp2.v[k], motion[k], 1e-13);
  }
}

}  // namespace
}  // namespace examples
