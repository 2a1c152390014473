#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_TRUTH_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_TRUTH_H_

#include <string>
#include <vector>

#include "examples/support/slam/pose_graph.h"

namespace examples {

/// The truth of a graph, one pose a vertex: the rows of a trajectory in the file's order (or, where
/// they are not as many, in the order of their times, equal ones averaged), or the vertices of a
/// graph. *notes has what was made of the file, a sentence a line.
bool ReadTruth(const std::string& path,
               const PoseGraph2& graph,
               std::vector<Pose2>* truth,
               std::string* notes,
               std::string* error);
bool ReadTruth(const std::string& path,
               const PoseGraph3& graph,
               std::vector<Pose3>* truth,
               std::string* notes,
               std::string* error);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_TRUTH_H_
