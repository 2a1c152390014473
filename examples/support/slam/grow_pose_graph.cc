#include "examples/support/slam/grow_pose_graph.h"

#include <algorithm>
#include <vector>

#include "ceres/ceres.h"
#include "examples/support/slam/pose_graph_cost.h"

namespace examples {

template <typename Graph>
void Grow(const Graph& graph, double scale, int num_threads, Recording<Graph>* recording) {
  auto& vertices = recording->graph.vertices;
  const int n = static_cast<int>(vertices.size());
  std::vector<std::vector<const typename Graph::Edge*>> edges(n);  // By their later vertex.
  for (size_t k = 0; k < graph.edges.size(); ++k) {
    const auto& e = graph.edges[k];
    if (recording->set[k] == 0) edges[std::max(e.from, e.to)].push_back(&e);
  }
  ceres::Problem problem;
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.num_threads = num_threads;
  options.logging_type = ceres::SILENT;
  ceres::Solver::Summary summary;
  for (int i = 0; i < n; ++i) {
    auto& pose = vertices[i].pose;
    pose = graph.vertices[i].pose;
    if (i > 0 && !vertices[i].fixed) {
      const auto& last = vertices[i - 1].pose;
      pose = Compose(last, Between(graph.vertices[i - 1].pose, graph.vertices[i].pose));
      for (const auto* e : edges[i]) {
        if (!e->IsOdometry()) continue;
        pose = Compose(last, e->from < e->to ? e->measured : Between(e->measured, {}));
      }
    }
    AddPose(&pose, &problem);
    if ((i == 0 && graph.priors.empty()) || vertices[i].fixed) {
      for (double* block : Blocks(&pose)) problem.SetParameterBlockConstant(block);
    }
    for (const auto* e : edges[i]) {
      problem.AddResidualBlock(MakeCost(*e),
                               e->IsOdometry() ? nullptr : new ceres::CauchyLoss(scale),
                               recording->EdgeBlocks(*e));
    }
    for (const auto& prior : graph.priors) {
      if (prior.vertex == i) problem.AddResidualBlock(MakeCost(prior), nullptr, Blocks(&pose));
    }
    const auto stretches = [&](long poses) { return poses * kStretches / n; };
    if (stretches(i + 1) > stretches(i)) ceres::Solve(options, &problem, &summary);
  }
}

template void Grow(const PoseGraph2&, double, int, Recording<PoseGraph2>*);
template void Grow(const PoseGraph3&, double, int, Recording<PoseGraph3>*);

}  // namespace examples
