#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_TRUTH_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_TRUTH_H_

#include <string>
#include <vector>

#include "examples/support/slam/pose_graph.h"

namespace examples {

/// The truth of a graph, one pose a vertex: a trajectory, or the vertices of a graph.
bool ReadTruth(const std::string& path,
               const PoseGraph2& graph,
               std::vector<Pose2>* truth,
               std::string* error);
bool ReadTruth(const std::string& path,
               const PoseGraph3& graph,
               std::vector<Pose3>* truth,
               std::string* error);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_TRUTH_H_
