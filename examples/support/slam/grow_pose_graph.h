#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_GROW_POSE_GRAPH_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_GROW_POSE_GRAPH_H_

#include "examples/support/slam/recording.h"

namespace examples {

constexpr int kStretches = 20;  ///< That a recording grows by.

/// Places the vertices as the recording grew, a stretch at a time: each begins where odometry puts
/// it (without an edge, where `graph` has it), and all poses so far are then solved for, with
/// Cauchy's loss of `scale` sigmas on loop closures. A false one then meets poses that are known
/// already, where in the whole graph, far from its solution, it looks no worse than the right ones.
///
/// graph: the recording's, with the information to be used and the vertices at the file's places.
/// Of its edges those for the estimate (set 0) count.
template <typename Graph>
void Grow(const Graph& graph, double scale, int num_threads, Recording<Graph>* recording);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_GROW_POSE_GRAPH_H_
