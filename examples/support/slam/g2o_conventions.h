#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_G2O_CONVENTIONS_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_G2O_CONVENTIONS_H_

#include "Eigen/Core"
#include "examples/support/slam/pose_graph.h"

/// What reading and writing of g2o and TORO share.
namespace examples {

enum class GraphFormat { kG2o, kToro };

/// TORO's order of the upper triangle in the plane; the others go row by row.
constexpr int kToroRows[] = {0, 0, 1, 2, 0, 1}, kToroColumns[] = {0, 1, 1, 2, 2, 2};

/// Roll, pitch, yaw.
Eigen::Vector3d EulerAngles(const Pose3& pose);

/// d rotation vector / d what the format's information is about: half the rotation vector (g2o), or
/// Euler angles (TORO), at a pose.
Eigen::Matrix3d RotationJacobian(GraphFormat format, const Pose3& pose);

/// J' information J, J of the rotation alone.
PoseGraph3::Information Transform(const PoseGraph3::Information& information,
                                  const Eigen::Matrix3d& jacobian);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_G2O_CONVENTIONS_H_
