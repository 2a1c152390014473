#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_ALIGNMENT_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_ALIGNMENT_H_

#include <string>
#include <utility>
#include <vector>

#include "Eigen/Core"
#include "ceres/cost_function.h"
#include "examples/support/plot.h"
#include "examples/support/slam/pose_graph.h"

/// How far a trajectory is from the truth, but for a rigid motion.
namespace examples {

using Positions = std::vector<Eigen::Vector3d>;

Eigen::Vector3d Position(const Pose2& pose);
Eigen::Vector3d Position(const Pose3& pose);

double Rms(const std::vector<double>& errors);

struct Motion {
  Eigen::Matrix3d r = Eigen::Matrix3d::Identity();
  Eigen::Vector3d t = Eigen::Vector3d::Zero();
};

/// The rigid motion that brings `from` closest to `to` (Kabsch); about z alone in the plane.
Motion Align(const Positions& from, const Positions& to, bool planar);

/// The aligned position less the true one, times a weight. What is left of the alignment is
/// learned: a correction about the trajectory's centre (shift, turn), in units that change it by
/// ten typical errors. phi is quadratic in it, so that it need not use up the trust region of what
/// is not.
class PositionErrors {
 public:
  /// typical_error: root mean square [m] of the positions as `aligned`.
  PositionErrors(const Motion& aligned, const Positions& truth, double typical_error);

  /// Of an alignment of kSize and a pose's last block.
  ceres::CostFunction* InPlane(const Eigen::Vector3d& truth, double weight) const;
  ceres::CostFunction* InSpace(const Eigen::Vector3d& truth, double weight) const;

 private:
  Motion aligned_;
  Eigen::Vector3d centre_;
  double unit_, turn_unit_;
};

/// Paths, seen along the axis along which the first goes least.
Panel Map(const std::string& title, const std::vector<std::pair<std::string, Positions>>& paths);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_ALIGNMENT_H_
