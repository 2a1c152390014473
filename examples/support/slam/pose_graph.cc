#include "examples/support/slam/pose_graph.h"

#include <algorithm>
#include <deque>
#include <set>

#include "Eigen/Geometry"
#include "examples/support/dense.h"

namespace examples {
namespace {

template <typename Pose>
Pose Inverse(const Pose& pose) {
  return Between(pose, Pose());
}

bool IsFinite(const Pose2& pose) { return std::isfinite(pose.v[0] + pose.v[1] + pose.v[2]); }
bool IsFinite(const Pose3& pose) { return std::isfinite(pose.t[0] + pose.t[1] + pose.t[2]); }

// Breadth first in two queues: odometry before what closes loops.
template <typename Graph>
bool Place(Graph* graph, std::string* error) {
  const int n = static_cast<int>(graph->vertices.size());
  std::vector<std::vector<int>> edges_of(n);
  for (size_t k = 0; k < graph->edges.size(); ++k) {
    edges_of[graph->edges[k].from].push_back(static_cast<int>(k));
    edges_of[graph->edges[k].to].push_back(static_cast<int>(k));
  }
  std::vector<char> placed(n, 0);
  struct Link {
    int edge, from;
  };
  std::deque<Link> odometry, loops;
  const auto place = [&](int i) {
    placed[i] = 1;
    for (const int k : edges_of[i]) {
      (graph->edges[k].IsOdometry() ? odometry : loops).push_back({k, i});
    }
  };
  for (int i = 0; i < n; ++i) {
    if (graph->vertices[i].fixed) place(i);
  }
  if (odometry.empty() && loops.empty() && n > 0) place(0);
  while (!odometry.empty() || !loops.empty()) {
    auto& queue = odometry.empty() ? loops : odometry;
    const Link link = queue.front();
    queue.pop_front();
    const auto& edge = graph->edges[link.edge];
    const bool forward = edge.from == link.from;
    const int to = forward ? edge.to : edge.from;
    if (placed[to]) continue;
    graph->vertices[to].pose =
        Compose(graph->vertices[link.from].pose, forward ? edge.measured : Inverse(edge.measured));
    place(to);
  }
  for (int i = 0; i < n; ++i) {
    const auto& vertex = graph->vertices[i];
    if (placed[i] && IsFinite(vertex.pose)) continue;
    *error =
        (placed[i] ? "the edges lead too far, to vertex " : "no path of edges leads to vertex ") +
        std::to_string(vertex.id);
    return false;
  }
  return true;
}

template <typename Graph>
int Drop(Graph* graph) {
  constexpr int kPosition = Graph::kDim == 3 ? 2 : 3;
  std::set<int> positions;
  bool fixed = std::any_of(
      graph->vertices.begin(), graph->vertices.end(), [](const auto& v) { return v.fixed; });
  for (const auto& prior : graph->priors) {
    // Of a scale of its own each row and column, for metres and radians differ.
    const typename Graph::Information& w = prior.information;
    const auto rank = [&](int size) {
      const Eigen::VectorXd root = w.diagonal().head(size).cwiseSqrt();
      if (!(root.minCoeff() > 0.0)) return false;
      const Eigen::MatrixXd scaled = root.cwiseInverse().asDiagonal() *
                                     w.topLeftCorner(size, size) * root.cwiseInverse().asDiagonal();
      return SymmetricEigen(scaled).eigenvalues().minCoeff() > 1e-9;
    };
    fixed |= rank(Graph::kDim);
    if (rank(kPosition)) positions.insert(prior.vertex);
  }
  if (fixed || static_cast<int>(positions.size()) >= kPosition) return 0;
  const int dropped = static_cast<int>(graph->priors.size());
  graph->priors.clear();
  return dropped;
}

}  // namespace

Pose3 ExpSE3(const double* rho_phi) {
  const Eigen::Map<const Eigen::Vector3d> rho(rho_phi), phi(rho_phi + 3);
  const double u = phi.squaredNorm(), angle = std::sqrt(u);
  const bool small = angle < 1e-2;
  const double b = small ? 0.5 - u / 24.0 + u * u / 720.0 : (1.0 - std::cos(angle)) / u;
  const double c =
      small ? 1.0 / 6.0 - u / 120.0 + u * u / 5040.0 : (angle - std::sin(angle)) / (u * angle);
  Pose3 pose;
  ceres::AngleAxisToQuaternion(rho_phi + 3, pose.q.data());
  const Eigen::Vector3d once = phi.cross(rho);
  Eigen::Map<Eigen::Vector3d>(pose.t.data()) = rho + b * once + c * phi.cross(once);
  return pose;
}

int DropWeakPriors(PoseGraph2* graph) { return Drop(graph); }
int DropWeakPriors(PoseGraph3* graph) { return Drop(graph); }

bool PlaceByOdometry(PoseGraph2* graph, std::string* error) { return Place(graph, error); }
bool PlaceByOdometry(PoseGraph3* graph, std::string* error) { return Place(graph, error); }

}  // namespace examples
