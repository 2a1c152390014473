#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_TRAJECTORY_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_TRAJECTORY_H_

#include <string>
#include <vector>

#include "examples/support/slam/pose_graph.h"

namespace examples {

/// A trajectory, as ground truth comes, in the format that its first line's columns tell:
///
///   12  KITTI, a 3 x 4 matrix [R t] row after row, of the camera (z ahead, x right, y down)
///    8  TUM, time tx ty tz qx qy qz qw; the times must rise
///    3  in the plane, x y heading
struct Trajectory {
  enum Format { kKitti, kTum, kPlanar };
  Format format = kTum;
  std::vector<double> times;  ///< TUM's, seconds; the number of the row elsewhere.
  std::vector<Pose3> poses;
};

/// *error names the line.
bool ReadTrajectory(const std::string& path, Trajectory* trajectory, std::string* error);
bool WriteTrajectory(const Trajectory& trajectory, const std::string& path, std::string* error);

/// Seen from above: x and y, or ahead and left of where a KITTI camera looks; the heading.
std::vector<Pose2> SeenFromAbove(const Trajectory& trajectory);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_TRAJECTORY_H_
