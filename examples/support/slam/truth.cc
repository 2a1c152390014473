#include "examples/support/slam/truth.h"

#include <algorithm>
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
          std::string* notes,
          std::string* error) {
  AnyPoseGraph any;
  Trajectory trajectory;
  truth->clear();
  notes->clear();
  if (ReadPoseGraph(path, &any, error)) {
    if (!std::holds_alternative<Graph>(any)) {
      *error = path + ": of graph and truth one is in the plane and the other in space";
      return false;
    }
    for (const auto& v : std::get<Graph>(any).vertices) truth->push_back(v.pose);
    *notes = std::get<Graph>(any).notes;
  } else {
    std::string second;
    if (!ReadTrajectory(path, &trajectory, &second)) {
      *error = "Neither a graph nor a trajectory: " + *error + "; " + second;
      return false;
    }
    const bool a_row_a_vertex = trajectory.poses.size() == graph.vertices.size();
    if (!a_row_a_vertex && !OrderByTime(path, &trajectory, error)) return false;
    if (!std::is_sorted(trajectory.times.begin(), trajectory.times.end())) {
      trajectory.notes +=
          path +
          ": times go back, but the rows are as many as vertices, and taken in their order.\n";
    }
    *truth = Convert(trajectory, static_cast<const typename Graph::Pose*>(nullptr));
    *notes = trajectory.notes;
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
               std::string* notes,
               std::string* error) {
  return Read(path, graph, truth, notes, error);
}
bool ReadTruth(const std::string& path,
               const PoseGraph3& graph,
               std::vector<Pose3>* truth,
               std::string* notes,
               std::string* error) {
  return Read(path, graph, truth, notes, error);
}

}  // namespace examples
