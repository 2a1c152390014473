#include "examples/support/slam/g2o.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "Eigen/Geometry"
#include "Eigen/LU"
#include "examples/support/dense.h"
#include "examples/support/slam/g2o_conventions.h"
#include "examples/support/table.h"
#include "examples/support/text.h"

namespace examples {
namespace {

Eigen::Quaterniond Rotation(double roll, double pitch, double yaw) {
  return Eigen::AngleAxisd(yaw, Eigen::Vector3d::UnitZ()) *
         Eigen::AngleAxisd(pitch, Eigen::Vector3d::UnitY()) *
         Eigen::AngleAxisd(roll, Eigen::Vector3d::UnitX());
}

bool IsSemiDefinite(const Eigen::MatrixXd& information) {
  const Eigen::VectorXd eigenvalues = SymmetricEigen(information).eigenvalues();
  return eigenvalues.minCoeff() >= -1e-9 * std::abs(eigenvalues.maxCoeff());
}

enum class Entry { kVertex, kEdge, kPrior, kPosition };  // kPosition: a prior without rotation.

struct Kind {
  const char* tag;
  bool planar;
  Entry entry;
  GraphFormat format;
  int skipped = 0;  // Fields before the measurement: a switch, a weight of a mixture, a parameter.
};
constexpr GraphFormat kG2o = GraphFormat::kG2o, kToro = GraphFormat::kToro;
constexpr Kind kKinds[] = {{"VERTEX_SE2", true, Entry::kVertex, kG2o},
                           {"VERTEX2", true, Entry::kVertex, kToro},
                           {"EDGE_SE2", true, Entry::kEdge, kG2o},
                           {"EDGE_SE2_SWITCHABLE", true, Entry::kEdge, kG2o, 1},
                           {"EDGE_SE2_MAXMIX", true, Entry::kEdge, kG2o, 1},
                           {"EDGE2", true, Entry::kEdge, kToro},
                           {"EDGE_PRIOR_SE2", true, Entry::kPrior, kG2o},
                           {"EDGE_SE2_PRIOR", true, Entry::kPrior, kG2o},
                           {"EDGE_PRIOR_SE2_XY", true, Entry::kPosition, kG2o},
                           {"VERTEX_SE3:QUAT", false, Entry::kVertex, kG2o},
                           {"VERTEX_SE3:EULER", false, Entry::kVertex, kToro},
                           {"VERTEX3", false, Entry::kVertex, kToro},
                           {"EDGE_SE3:QUAT", false, Entry::kEdge, kG2o},
                           {"EDGE_SE3_SWITCHABLE", false, Entry::kEdge, kG2o, 1},
                           {"EDGE_SE3:EULER", false, Entry::kEdge, kToro},
                           {"EDGE3", false, Entry::kEdge, kToro},
                           {"EDGE_SE3_PRIOR", false, Entry::kPrior, kG2o, 1}};

// Tags that are known, and what they are of.
constexpr std::pair<const char*, const char*> kNotUsed[] = {
    {"VERTEX_XY", "landmarks"},
    {"VERTEX_TRACKXYZ", "landmarks"},
    {"EDGE_SE2_XY", "measurements of landmarks"},
    {"EDGE_BEARING_SE2_XY", "measurements of landmarks"},
    {"EDGE_SE3_TRACKXYZ", "measurements of landmarks"},
    {"EDGE_PRIOR_XY", "priors of landmarks"},
    {"EDGE_POINTXYZ_PRIOR", "priors of landmarks"},
    {"VERTEX_SWITCH", "switches"},
    {"EDGE_SWITCH_PRIOR", "priors of switches"},
    {"EQUIV", "equivalences"},
    {"PARAMS_SE2OFFSET", "parameters"},
    {"PARAMS_CAMERACALIB", "parameters"},
    {"PARAMS_STEREOCAMERACALIB", "parameters"},
    {"ROBOTLASER1", "laser scans"}};

class Reader {
 public:
  bool Read(const std::string& path, AnyPoseGraph* graph) {
    if (!in_.Open(path)) return false;
    while (in_.Next()) {
      if (!ReadLine()) return false;
    }
    if (planar_ < 0) return in_.FailAt(0, "there is no vertex and no edge");
    if (planar_) {
      graph->emplace<PoseGraph2>();
      return Finish(&plane_, &std::get<PoseGraph2>(*graph));
    }
    graph->emplace<PoseGraph3>();
    return Finish(&space_, &std::get<PoseGraph3>(*graph));
  }
  const std::string& error() const { return in_.error(); }

 private:
  // An edge between ids, with its line.
  template <typename Graph>
  struct Content {
    struct Edge {
      long from, to;
      int line;
      typename Graph::Edge edge;
    };
    struct Prior {
      long vertex, parameter;
      int line;
      typename Graph::Prior prior;
    };
    std::map<long, typename Graph::Pose> vertices;
    std::vector<Edge> edges;
    std::vector<Prior> priors;
  };

  bool ReadLine() {
    const std::string& tag = in_[0];
    if (tag == "FIX") {
      for (int i = 1; i < std::max(in_.size(), 2); ++i) {
        long id;
        if (!in_.Integer(i, "the vertex to fix", &id)) return false;
        fixed_.emplace(id, in_.line());
      }
      return true;
    }
    for (const Kind& kind : kKinds) {
      if (tag != kind.tag) continue;
      if (planar_ == (kind.planar ? 0 : 1)) {
        return in_.Fail(tag + " in a file that began " + (planar_ ? "in the plane" : "in space"));
      }
      planar_ = kind.planar ? 1 : 0;
      return kind.planar ? ReadEntry(kind, &plane_) : ReadEntry(kind, &space_);
    }
    if (tag == "PARAMS_SE3OFFSET") return ReadOffset();
    for (const auto& [unused, what] : kNotUsed) {
      if (tag == unused) return Count(what, tag.compare(0, 6, "VERTEX") == 0);
    }
    return in_.Fail("unknown tag " + Printable(tag));
  }

  bool Count(const std::string& what, bool is_vertex) {
    ++not_used_[what];
    long id;
    if (!is_vertex) return true;
    if (!in_.Integer(1, "the id of the vertex", &id)) return false;
    other_vertices_.insert(id);
    return true;
  }

  // Where a sensor is on the body.
  bool ReadOffset() {
    long id;
    Pose3 pose;
    if (!in_.Integer(1, "the id of the parameter", &id) || !ReadPose(2, kG2o, &pose)) return false;
    const Pose3 none;
    if (pose.t != none.t || std::abs(pose.q[0]) < 1.0 - 1e-12) offsets_.insert(id);
    return true;
  }

  template <typename Graph>
  bool ReadEntry(const Kind& kind, Content<Graph>* content) {
    return kind.entry == Entry::kVertex ? ReadVertex(kind, content)
           : kind.entry == Entry::kEdge ? ReadEdge(kind, content)
                                        : ReadPrior(kind, content);
  }

  template <typename Graph>
  bool ReadVertex(const Kind& kind, Content<Graph>* content) {
    long id;
    typename Graph::Pose pose;
    if (!in_.Integer(1, "the id of the vertex", &id) || !ReadPose(2, kind.format, &pose) ||
        !in_.End(field_, "the pose")) {
      return false;
    }
    if constexpr (Graph::kDim == 3) Question("a heading", pose.v[2], 4.0);
    return content->vertices.emplace(id, pose).second ||
           in_.Fail("there is a vertex " + std::to_string(id) + " already");
  }

  template <typename Graph>
  bool ReadEdge(const Kind& kind, Content<Graph>* content) {
    typename Content<Graph>::Edge e;
    e.line = in_.line();
    if (!in_.Integer(1, "the first vertex of the edge", &e.from) ||
        !in_.Integer(2, "the second vertex of the edge", &e.to) ||
        !ReadPose(3 + kind.skipped, kind.format, &e.edge.measured)) {
      return false;
    }
    switchable_ += kind.skipped;
    if constexpr (Graph::kDim == 3) Question("a turn", e.edge.measured.v[2], 1.0);
    if (e.from == e.to) return in_.Fail("the edge leads from a vertex to itself");
    if (!ReadInformation<Graph>(kind.format, Graph::kDim, &e.edge)) return false;
    content->edges.push_back(e);
    return true;
  }

  template <typename Graph>
  bool ReadPrior(const Kind& kind, Content<Graph>* content) {
    typename Content<Graph>::Prior p{};
    p.line = in_.line();
    p.prior.information.setZero();
    if (!in_.Integer(1, "the vertex of the prior", &p.vertex) ||
        (kind.skipped && !in_.Integer(2, "the parameter of the prior", &p.parameter))) {
      return false;
    }
    if (kind.entry == Entry::kPrior) {
      if (!ReadPose(2 + kind.skipped, kind.format, &p.prior.measured) ||
          !ReadInformation<Graph>(kind.format, Graph::kDim, &p.prior)) {
        return false;
      }
    } else if constexpr (Graph::kDim == 3) {
      field_ = 4;
      if (!in_.Number(2, "x", &p.prior.measured.v[0]) ||
          !in_.Number(3, "y", &p.prior.measured.v[1]) ||
          !ReadInformation<Graph>(kind.format, 2, &p.prior)) {
        return false;
      }
    }
    content->priors.push_back(p);
    return true;
  }

  // The first `dim` rows and columns, about radians when done, of an edge or a prior.
  template <typename Graph, typename Measurement>
  bool ReadInformation(GraphFormat format, int dim, Measurement* of) {
    const bool toro_order = Graph::kDim == 3 && format == kToro;
    int k = 0;
    for (int row = 0; row < dim; ++row) {
      for (int column = row; column < dim; ++column, ++k) {
        const int r = toro_order ? kToroRows[k] : row, c = toro_order ? kToroColumns[k] : column;
        double& value = of->information(r, c);
        if (!in_.Number(field_ + k, "an entry of the information", &value)) return false;
        of->information(c, r) = value;
      }
    }
    if (!in_.End(field_ + k, "the information")) return false;
    if (!IsSemiDefinite(of->information)) {
      return in_.Fail(
          "the information is not positive semi-definite" +
          std::string(toro_order ? " in TORO's order xx xy yy hh xh yh (iSAM has its root, row "
                                   "after row)"
                                 : ""));
    }
    if constexpr (Graph::kDim == 6) {
      of->information =
          Transform(of->information, RotationJacobian(format, of->measured).inverse());
      if (!of->information.allFinite() || !IsSemiDefinite(of->information)) {
        return in_.Fail("the information about roll and yaw is lost at this pitch");
      }
    }
    return true;
  }

  bool ReadPose(int first, GraphFormat, Pose2* pose) {
    field_ = first + 3;
    return in_.Number(first, "x", &pose->v[0]) && in_.Number(first + 1, "y", &pose->v[1]) &&
           in_.Number(first + 2, "the heading", &pose->v[2]);
  }

  bool ReadPose(int first, GraphFormat format, Pose3* pose) {
    const char* names[] = {"x", "y", "z"};
    for (int k = 0; k < 3; ++k) {
      if (!in_.Number(first + k, names[k], &pose->t[k])) return false;
    }
    Eigen::Quaterniond q;
    if (format == kG2o) {
      field_ = first + 7;
      if (!in_.Number(first + 3, "qx", &q.x()) || !in_.Number(first + 4, "qy", &q.y()) ||
          !in_.Number(first + 5, "qz", &q.z()) || !in_.Number(first + 6, "qw", &q.w())) {
        return false;
      }
      if (std::abs(q.norm() - 1.0) > 0.01) return in_.Fail("the quaternion is not of length 1");
    } else {
      field_ = first + 6;
      double rpy[3];
      const char* angles[] = {"roll", "pitch", "yaw"};
      for (int k = 0; k < 3; ++k) {
        if (!in_.Number(first + 3 + k, angles[k], &rpy[k])) return false;
      }
      q = Rotation(rpy[0], rpy[1], rpy[2]);
    }
    q.normalize();
    pose->q = {q.w(), q.x(), q.y(), q.z()};
    return true;
  }

  template <typename Graph>
  bool Finish(Content<Graph>* content, Graph* graph) {
    const bool have_poses = !content->vertices.empty();
    if (!have_poses) {
      for (const auto& e : content->edges) {
        content->vertices[e.from];
        content->vertices[e.to];
      }
    }
    std::map<long, int> index;
    for (const auto& [id, pose] : content->vertices) {
      index[id] = static_cast<int>(graph->vertices.size());
      graph->vertices.push_back({id, pose});
    }
    for (const auto& [id, line] : fixed_) {
      if (other_vertices_.count(id)) continue;
      const auto found = index.find(id);
      if (found == index.end()) {
        return in_.FailAt(line, "there is no vertex " + std::to_string(id) + " to fix");
      }
      graph->vertices[found->second].fixed = true;
    }
    for (auto& e : content->edges) {
      for (const long id : {e.from, e.to}) {
        if (!index.count(id)) return in_.FailAt(e.line, "there is no vertex " + std::to_string(id));
      }
      e.edge.from = index[e.from];
      e.edge.to = index[e.to];
      graph->edges.push_back(e.edge);
    }
    if (!AddPriors(*content, index, graph)) return false;
    graph->notes = Notes();
    if (!graph->priors.empty()) {
      graph->notes += in_.path() + ": " + std::to_string(graph->priors.size()) +
                      " priors hold the graph as they are.\n";
    }
    std::string error;
    return have_poses || PlaceByOdometry(graph, &error) || in_.FailAt(0, error);
  }

  template <typename Graph>
  bool AddPriors(const Content<Graph>& content, const std::map<long, int>& index, Graph* graph) {
    for (const auto& p : content.priors) {
      const auto found = index.find(p.vertex);
      if (found == index.end()) {
        return in_.FailAt(p.line, "there is no vertex " + std::to_string(p.vertex));
      }
      if (offsets_.count(p.parameter)) {
        ++not_used_["priors of a sensor that is not at the pose"];
        continue;
      }
      graph->priors.push_back(p.prior);
      graph->priors.back().vertex = found->second;
    }
    const int weak = DropWeakPriors(graph);
    if (weak > 0) not_used_["priors that leave the graph free to turn"] = weak;
    return true;
  }

  // The first angle of more turns than there would be in radians.
  void Question(const char* what, double angle, double turns) {
    if (!question_.empty() || std::abs(angle) <= turns * 2.0 * M_PI) return;
    question_ = Format("%s:%d: %s is %.4g; are the angles degrees?\n",
                       in_.path().c_str(),
                       in_.line(),
                       what,
                       angle);
  }

  std::string Notes() const {
    std::string notes = question_;
    if (switchable_ > 0) {
      notes += in_.path() + ": " + std::to_string(switchable_) +
               " edges that the file switches or mixes are edges like the others.\n";
    }
    std::string list;
    for (const auto& [what, count] : not_used_) {
      list += (list.empty() ? "" : ", ") + std::to_string(count) + " " + what;
    }
    if (!list.empty()) notes += in_.path() + ": not used: " + list + ".\n";
    return notes;
  }

  LineReader in_;
  int planar_ = -1;            // Not known yet.
  int field_ = 0;              // The one after a pose.
  std::map<long, int> fixed_;  // And the line.
  Content<PoseGraph2> plane_;
  Content<PoseGraph3> space_;
  int switchable_ = 0;
  std::string question_;
  std::map<std::string, int> not_used_;
  std::set<long> other_vertices_;  // Of landmarks and switches.
  std::set<long> offsets_;         // Parameters that are no identity.
};

}  // namespace

bool ReadPoseGraph(const std::string& path, AnyPoseGraph* graph, std::string* error) {
  Reader reader;
  if (reader.Read(path, graph)) return true;
  *error = reader.error();
  return false;
}

}  // namespace examples
