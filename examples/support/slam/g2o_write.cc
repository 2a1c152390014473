#include <fstream>
#include <string>
#include <variant>

#include "examples/support/slam/g2o.h"
#include "examples/support/slam/g2o_conventions.h"

namespace examples {
namespace {

using Format = GraphFormat;

void Print(const Pose2& pose, Format, std::ostream* out) {
  for (const double value : pose.v) *out << " " << value;
}

void Print(const Pose3& pose, Format format, std::ostream* out) {
  for (const double value : pose.t) *out << " " << value;
  if (format == Format::kG2o) {
    *out << " " << pose.q[1] << " " << pose.q[2] << " " << pose.q[3] << " " << pose.q[0];
  } else {
    for (const double angle : EulerAngles(pose)) *out << " " << angle;
  }
}

template <typename Graph>
void PrintMeasured(const typename Graph::Pose& measured,
                   typename Graph::Information information,
                   Format format,
                   std::ostream* out) {
  Print(measured, format, out);
  if constexpr (Graph::kDim == 6) {
    information = Transform(information, RotationJacobian(format, measured));
  }
  if (Graph::kDim == 3 && format == Format::kToro) {
    for (int k = 0; k < 6; ++k) *out << " " << information(kToroRows[k], kToroColumns[k]);
  } else {
    for (int r = 0; r < Graph::kDim; ++r) {
      for (int c = r; c < Graph::kDim; ++c) *out << " " << information(r, c);
    }
  }
  *out << "\n";
}

template <typename Graph>
void Print(const Graph& graph, Format format, std::ostream* out) {
  const bool g2o = format == Format::kG2o, planar = Graph::kDim == 3;
  const std::string kind = g2o ? (planar ? "_SE2 " : "_SE3:QUAT ") : (planar ? "2 " : "3 ");
  for (const auto& v : graph.vertices) {
    *out << "VERTEX" << kind << v.id;
    Print(v.pose, format, out);
    *out << "\n";
  }
  for (const auto& v : graph.vertices) {
    if (v.fixed) *out << "FIX " << v.id << "\n";
  }
  for (const auto& e : graph.edges) {
    *out << "EDGE" << kind << graph.vertices[e.from].id << " " << graph.vertices[e.to].id;
    PrintMeasured<Graph>(e.measured, e.information, format, out);
  }
  // TORO has no word for a prior that g2o would not read. Parameter 0: the sensor is at the pose.
  if (!planar && !graph.priors.empty()) *out << "PARAMS_SE3OFFSET 0 0 0 0 0 0 0 1\n";
  for (const auto& p : graph.priors) {
    *out << (planar ? "EDGE_PRIOR_SE2 " : "EDGE_SE3_PRIOR ") << graph.vertices[p.vertex].id;
    if (!planar) *out << " 0";
    PrintMeasured<Graph>(p.measured, p.information, Format::kG2o, out);
  }
}

bool Write(const AnyPoseGraph& graph, Format format, const std::string& path, std::string* error) {
  std::ofstream file(path);
  file.precision(17);
  std::visit([&](const auto& g) { Print(g, format, &file); }, graph);
  file.close();
  if (file) return true;
  *error = path + " cannot be written";
  return false;
}

}  // namespace

bool WriteG2o(const AnyPoseGraph& graph, const std::string& path, std::string* error) {
  return Write(graph, Format::kG2o, path, error);
}

bool WriteToro(const AnyPoseGraph& graph, const std::string& path, std::string* error) {
  return Write(graph, Format::kToro, path, error);
}

}  // namespace examples
