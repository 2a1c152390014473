#include "examples/support/slam/truth.h"

#include <variant>

#include "examples/support/slam/g2o.h"
#include "examples/support/slam/trajectory.h"

namespace examples {
namespace {

std::vector<Pose2> Convert(const Trajectory& trajectory, const Pose2*) {
  return SeenFromAbove(trajectory);
}
std::vector<Pose3> Convert(const Trajectory& trajectory, const Pose3*) { return trajectory.poses; }

template <typename Graph>
bool Read(const std::string& path,
          const Graph& graph,
          std::vector<typename Graph::Pose>* truth,
          std::string* error) {
  AnyPoseGraph any;
  Trajectory trajectory;
  truth->clear();
  if (ReadPoseGraph(path, &any, error)) {
    if (!std::holds_alternative<Graph>(any)) {
      *error = path + ": of graph and truth one is in the plane and the other in space";
      return false;
    }
    for (const auto& v : std::get<Graph>(any).vertices) truth->push_back(v.pose);
  } else {
    std::string second;
    if (!ReadTrajectory(path, &trajectory, &second)) {
      *error = "Neither a graph nor a trajectory: " + *error + "; " + second;
      return false;
    }
    *truth = Convert(trajectory, static_cast<const typename Graph::Pose*>(nullptr));
  }
  if (truth->size() == graph.vertices.size()) return true;
  *error = path + " has " + std::to_string(truth->size()) + " poses, the graph " +
           std::to_string(graph.vertices.size()) + " vertices";
  return false;
}

}  // namespace

bool ReadTruth(const std::string& path,
               const PoseGraph2& graph,
               std::vector<Pose2>* truth,
               std::string* error) {
  return Read(path, graph, truth, error);
}
bool ReadTruth(const std::string& path,
               const PoseGraph3& graph,
               std::vector<Pose3>* truth,
               std::string* error) {
  return Read(path, graph, truth, error);
}

}  // namespace examples
