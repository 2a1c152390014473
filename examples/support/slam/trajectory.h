#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_TRAJECTORY_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_TRAJECTORY_H_

#include <string>
#include <vector>

#include "examples/support/slam/pose_graph.h"

namespace examples {

/// A trajectory between blanks or commas, in the format that its first line's columns tell:
///
///   12  KITTI, a 3 x 4 matrix [R t] row after row, of the camera (z ahead, x right, y down) or
///       of a body with z up: z is ahead where it goes most along it, and up where least
///    8  TUM, time tx ty tz qx qy qz qw; 9 as rtabmap has it, with an id that is not used
///   17  EuRoC, time tx ty tz qw qx qy qz and nine columns that are not used
///    3  in the plane, x y heading
///
/// Times are seconds. Those since 1970 in milli-, micro- or nanoseconds are told by their size, and
/// others in nanoseconds by steps above two million.
struct Trajectory {
  enum Format { kKitti, kKittiZUp, kTum, kPlanar };
  Format format = kTum;
  std::vector<double> times;  ///< As the file has them, in its order; elsewhere the row's number.
  std::vector<Pose3> poses;
  std::vector<int> lines;  ///< Of each pose.
  std::string notes;       ///< What was made of the file, a sentence a line, to be printed.
};

/// *error names the line.
bool ReadTrajectory(const std::string& path, Trajectory* trajectory, std::string* error);
bool WriteTrajectory(const Trajectory& trajectory, const std::string& path, std::string* error);

/// Sorts the poses by their times and averages those of equal times, and notes it. False where that
/// makes the path twice as long as in the file's order: then the times are wrong.
bool OrderByTime(const std::string& path, Trajectory* trajectory, std::string* error);

/// Seen from above: x and y, or ahead and left of where a KITTI camera looks; the heading.
std::vector<Pose2> SeenFromAbove(const Trajectory& trajectory);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_TRAJECTORY_H_
