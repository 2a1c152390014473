#include "examples/support/slam/g2o_conventions.h"

#include <algorithm>
#include <cmath>

namespace examples {
namespace {

// d rotation vector / d (roll, pitch, yaw), in the body.
Eigen::Matrix3d EulerJacobian(const Eigen::Vector3d& rpy) {
  const double sr = std::sin(rpy[0]), cr = std::cos(rpy[0]);
  const double sp = std::sin(rpy[1]), cp = std::cos(rpy[1]);
  Eigen::Matrix3d jacobian;
  jacobian << 1.0, 0.0, -sp, 0.0, cr, sr * cp, 0.0, -sr, cr * cp;
  return jacobian;
}

}  // namespace

Eigen::Vector3d EulerAngles(const Pose3& pose) {
  const auto& [w, x, y, z] = pose.q;
  const double sin_pitch = std::clamp(2.0 * (w * y - z * x), -1.0, 1.0);
  return {std::atan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y)),
          std::asin(sin_pitch),
          std::atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))};
}

Eigen::Matrix3d RotationJacobian(GraphFormat format, const Pose3& pose) {
  return format == GraphFormat::kG2o ? Eigen::Matrix3d(2.0 * Eigen::Matrix3d::Identity())
                                     : EulerJacobian(EulerAngles(pose));
}

PoseGraph3::Information Transform(const PoseGraph3::Information& information,
                                  const Eigen::Matrix3d& jacobian) {
  PoseGraph3::Information j = PoseGraph3::Information::Identity();
  j.bottomRightCorner<3, 3>() = jacobian;
  return j.transpose() * information * j;
}

}  // namespace examples
