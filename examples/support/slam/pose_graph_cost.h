#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_GRAPH_COST_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_GRAPH_COST_H_

#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/learnable/noise.h"
#include "ceres/ceres.h"
#include "examples/support/slam/pose_graph.h"

/// A pose graph's poses and edges in a ceres::Problem, for both kinds of poses.
namespace examples {

std::vector<double*> Blocks(Pose2* pose);
std::vector<double*> Blocks(Pose3* pose);

/// With the manifold of its rotation.
void AddPose(Pose2* pose, ceres::Problem* problem);
void AddPose(Pose3* pose, ceres::Problem* problem);

/// W Log(Z^-1 Ti^-1 Tj) of the Blocks of both poses; W is upper triangular and W'W the edge's
/// information, which may be singular.
ceres::CostFunction* MakeCost(const PoseGraph2::Edge& edge);
ceres::CostFunction* MakeCost(const PoseGraph3::Edge& edge);
/// W (translation, Log of rotation) of Z^-1 T.
ceres::CostFunction* MakeCost(const PoseGraph2::Prior& prior);
ceres::CostFunction* MakeCost(const PoseGraph3::Prior& prior);
Eigen::Matrix3d SquareRoot(const PoseGraph2::Information& information);
Eigen::Matrix<double, 6, 6> SquareRoot(const PoseGraph3::Information& information);

/// Switchable constraints (Suenderhauf and Protzel, IROS 2012): the error above times the edge's
/// switch s, and of (s, log a) the prior a (1 - s). The best s leaves a^2 u / (1 + u), u = error^2
/// / a^2: Geman and McClure's loss of scale a.
ceres::CostFunction* MakeSwitchedCost(const PoseGraph2::Edge& edge);
ceres::CostFunction* MakeSwitchedCost(const PoseGraph3::Edge& edge);
ceres::CostFunction* MakeSwitchPrior();

/// One sigma for the translation and one for the rotation of a motion of 3 or 6 coordinates.
class MotionNoise final : public bilevel::NoiseModel {
 public:
  MotionNoise(double* log_sigmas, int size);
  /// As factors on sigmas.
  std::string Describe(const std::string& name) const override;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_GRAPH_COST_H_
