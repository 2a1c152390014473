#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_G2O_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_G2O_H_

#include <string>

#include "examples/support/slam/pose_graph.h"

namespace examples {

/// Reads a pose graph in the plane or in space, told by its tags:
///
///   g2o    VERTEX_SE2 id x y heading              EDGE_SE2 from to x y heading, information
///          VERTEX_SE3:QUAT id x y z qx qy qz qw   EDGE_SE3:QUAT from to x y z qx qy qz qw, inf.
///          EDGE_PRIOR_SE2 id x y heading, inf.    EDGE_SE3_PRIOR id parameter x y z qx qy qz qw,
///          inf. EDGE_PRIOR_SE2_XY id x y, inf.         FIX id id ...
///   TORO   VERTEX2, VERTEX3 and EDGE2, EDGE3 alike, with roll, pitch, yaw in space; g2o calls
///   those
///          VERTEX_SE3:EULER and EDGE_SE3:EULER
///   vertigo, rtabmap   EDGE_SE2_SWITCHABLE from to switch ..., EDGE_SE2_MAXMIX from to weight ...
///          and EDGE_SE3_SWITCHABLE are edges like the others
///
/// The information is the upper triangle, row after row; in TORO's plane in the order xx xy yy hh
/// xh yh. g2o's rotations in space are the vector part of a unit quaternion, half an angle, and
/// TORO's are Euler angles: both are converted to the radians of PoseGraph::Edge. (GTSAM writes g2o
/// about the angle itself; the rotations of its files read as twice as uncertain.) It must be
/// positive semi-definite. Vertices are sorted by id; a file without any gets them from its edges,
/// placed along the odometry. Landmarks, switches, equivalences, scans, priors of a sensor beside
/// the pose (PARAMS_SE3OFFSET) and those that leave the frame free are counted in the graph's
/// notes, and not used. Any other tag is an error, and so is whatever makes no sense; *error names
/// the line.
bool ReadPoseGraph(const std::string& path, AnyPoseGraph* graph, std::string* error);

/// Written so that reading gives the same numbers (rotations to rounding).
bool WriteG2o(const AnyPoseGraph& graph, const std::string& path, std::string* error);
bool WriteToro(const AnyPoseGraph& graph, const std::string& path, std::string* error);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_G2O_H_
