#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_RECORDING_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_RECORDING_H_

#include <string>
#include <vector>

#include "examples/support/slam/alignment.h"
#include "examples/support/slam/pose_graph.h"

namespace examples {

/// A pose graph, what is known about it, and which part of that is for what. Graph: PoseGraph2 or
/// PoseGraph3.
template <typename Graph>
struct Recording {
  using Pose = typename Graph::Pose;
  Graph graph;
  std::vector<Pose> truth;     ///< Empty: none.
  std::vector<int> pose_set;   ///< Of each vertex's truth: 0 is to learn by, 2 to test.
  std::vector<int> set;        ///< Of each edge: 0 is for the estimate, 1 validation, 2 test.
  std::vector<char> is_false;  ///< Of each edge: injected.

  /// Everything for the estimate and to learn by.
  void UseAll();

  /// The motion that brings the positions to learn by closest to their truth.
  Motion Alignment() const;
  /// Distance to the truth of each aligned position of a set [m].
  std::vector<double> PositionErrors(int which) const;
  /// Root mean square of each edge of a set but false ones, in its sigmas, over its dimensions.
  std::vector<double> EdgeErrors(int which);
  /// The parameter blocks of its two poses.
  std::vector<double*> EdgeBlocks(const typename Graph::Edge& edge);
};

template <typename Pose>
Positions ToPositions(const std::vector<Pose>& poses) {
  Positions positions;
  for (const Pose& pose : poses) positions.push_back(Position(pose));
  return positions;
}
template <typename Graph>
Positions Estimate(const Graph& graph) {
  Positions positions;
  for (const auto& v : graph.vertices) positions.push_back(Position(v.pose));
  return positions;
}

/// How the graph as it stands compares with its truth, in two sentences; questions where it cannot
/// be that.
template <typename Graph>
std::string CompareWithTruth(const Recording<Graph>& recording);

/// The vertices from `begin` to before `end`, with the edges between them and their priors.
template <typename Graph>
Recording<Graph> Cut(const Recording<Graph>& whole, int begin, int end);

/// Adds edges between places that are not the same, with what a loop closure elsewhere measured; a
/// share of the loop closures.
template <typename Graph>
void InjectFalseLoops(double share, unsigned seed, Recording<Graph>* recording);

/// A fifth of the loop closures each for validation and for test, in runs of ten neighbours: one
/// that is closed next to it gives away what another says.
template <typename Graph>
bool HoldOutLoops(unsigned seed, Recording<Graph>* recording, std::string* error);

/// A graph that was never driven: streets on a grid, a pose a metre, loops where a place is met
/// again. The graph's information is a guess, 0.1 m and 0.1 rad for everything.
struct TrueSigmas {
  double odometry[3] = {0.03, 0.03, 0.005}, loops[3] = {0.2, 0.2, 0.02};
  double guess = 0.1;
};
Recording<PoseGraph2> SimulateGraph(int size, unsigned seed);

/// A trajectory that was driven, with simulated measurements: odometry from pose to pose with
/// sigmas of 0.03 m and 0.002 rad, and loops with 0.2 m and 0.02 rad, at most one in five poses,
/// where one is within 4 m of another that is 100 poses away or more. The graph's information is
/// of sigmas guess[0 ... 3] times as large: odometry's for moving and turning, and loops'.
Recording<PoseGraph2> SimulateAlong(const std::vector<Pose2>& trajectory,
                                    const double* guess,
                                    unsigned seed);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_RECORDING_H_
