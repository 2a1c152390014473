// Readers and writers of pose graphs: what they read, that nothing is lost in writing, and that
// whatever makes no sense is named by its line.
#include <cmath>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "Eigen/Eigenvalues"
#include "Eigen/Geometry"
#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "ceres/ceres.h"
#include "examples/support/slam/g2o.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace examples {
namespace {

using testing::HasSubstr;

std::string WriteText(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

std::string ReadText(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The message for a graph of that text.
std::string ErrorOf(const std::string& text) {
  AnyPoseGraph graph;
  std::string error;
  EXPECT_FALSE(ReadPoseGraph(WriteText("bad.g2o", text), &graph, &error));
  return error;
}

constexpr char kPlane[] =
    "# two poses\n"
    "VERTEX_SE2 7 1 2 0.5\n"
    "VERTEX_SE2 3 0 0 0\r\n"
    "\n"
    "FIX 3\n"
    "EDGE_SE2 3 7 1.25 2 0.5 4 0.5 0.25 9 0.125 16\n";

TEST(PoseGraphFile, Plane) {
  AnyPoseGraph any;
  std::string error;
  ASSERT_TRUE(ReadPoseGraph(WriteText("plane.g2o", kPlane), &any, &error)) << error;
  const auto& graph = std::get<PoseGraph2>(any);
  ASSERT_EQ(graph.vertices.size(), 2u);
  EXPECT_EQ(graph.vertices[0].id, 3);  // Sorted.
  EXPECT_TRUE(graph.vertices[0].fixed);
  EXPECT_FALSE(graph.vertices[1].fixed);
  EXPECT_EQ(graph.vertices[1].pose.v, (std::array<double, 3>{1.0, 2.0, 0.5}));
  ASSERT_EQ(graph.edges.size(), 1u);
  EXPECT_EQ(graph.edges[0].from, 0);
  EXPECT_EQ(graph.edges[0].to, 1);
  EXPECT_TRUE(graph.edges[0].IsOdometry());
  Eigen::Matrix3d expected;
  expected << 4, 0.5, 0.25, 0.5, 9, 0.125, 0.25, 0.125, 16;
  EXPECT_EQ(graph.edges[0].information, expected);
}

TEST(PoseGraphFile, MistakesAreNamedByLine) {
  EXPECT_THAT(ErrorOf("VERTEX_SE2 0 1 2 x\n"), HasSubstr("bad.g2o:1: the heading is \"x\""));
  EXPECT_THAT(ErrorOf("VERTEX_SE2 0 1 2\n"), HasSubstr(":1: the line ends where the heading"));
  EXPECT_THAT(ErrorOf("VERTEX_SE2 0 1 2 nan\n"), HasSubstr(":1: the heading is \"nan\""));
  EXPECT_THAT(ErrorOf("VERTEX_SE2 0 1 2 3 4\n"), HasSubstr(":1: something follows the pose"));
  EXPECT_THAT(ErrorOf("VERTEX_SE2 1.5 1 2 3\n"), HasSubstr(":1: the id of the vertex is \"1.5\""));
  EXPECT_THAT(ErrorOf("VERTEX_SE2 0 0 0 0\n\nVERTEX_SE2 0 1 2 3\n"),
              HasSubstr(":3: there is a vertex 0 already"));
  EXPECT_THAT(ErrorOf("VERTEX_CAM 0 1 2\n"), HasSubstr(":1: unknown tag VERTEX_CAM"));
  EXPECT_THAT(ErrorOf(std::string(kPlane) + "FIX 8\n"), HasSubstr(":7: there is no vertex 8 to"));
  EXPECT_THAT(ErrorOf(std::string(kPlane) + "FIX\n"), HasSubstr(":7: the line ends where"));
  EXPECT_THAT(ErrorOf(std::string(kPlane) + "EDGE_SE2 3 8 1 2 3 4 0 0 4 0 4\n"),
              HasSubstr(":7: there is no vertex 8"));
  EXPECT_THAT(ErrorOf(std::string(kPlane) + "EDGE_SE2 3 3 1 2 3 4 0 0 4 0 4\n"),
              HasSubstr(":7: the edge leads from a vertex to itself"));
  EXPECT_THAT(ErrorOf(std::string(kPlane) + "EDGE_SE2 3 7 1 2 3 4 0 0 4 0\n"),
              HasSubstr(":7: the line ends where an entry of the information"));
  EXPECT_THAT(ErrorOf(std::string(kPlane) + "EDGE_SE2 3 7 1 2 3 4 9 0 4 0 4\n"),
              HasSubstr(":7: the information is not positive semi-definite"));
  EXPECT_THAT(ErrorOf(std::string(kPlane) + "VERTEX_SE3:QUAT 9 0 0 0 0 0 0 1\n"),
              HasSubstr(":7: VERTEX_SE3:QUAT in a file that began in the plane"));
  EXPECT_THAT(ErrorOf("VERTEX_SE3:QUAT 9 0 0 0 0 0 0 2\n"),
              HasSubstr(":1: the quaternion is not of length 1"));
  EXPECT_THAT(ErrorOf("# nothing\n"), HasSubstr("bad.g2o: there is no vertex and no edge"));
  EXPECT_THAT(ErrorOf("EDGE_SE2 0 1 1 0 0 1 0 0 1 0 1\nEDGE_SE2 5 6 1 0 0 1 0 0 1 0 1\n"),
              HasSubstr("no path of edges leads to vertex 5"));
  // The same information in the orders of g2o and of TORO.
  EXPECT_THAT(ErrorOf("EDGE2 0 1 1 0 0 3 0 0 3 0 5\n"), HasSubstr("in TORO's order"));
  AnyPoseGraph graph;
  std::string error;
  EXPECT_FALSE(ReadPoseGraph(testing::TempDir() + "absent.g2o", &graph, &error));
  EXPECT_THAT(error, HasSubstr("absent.g2o cannot be read"));
  EXPECT_FALSE(ReadPoseGraph(WriteText("bad.g2o.gz", "\x1f\x8b\x08 cut off"), &graph, &error));
  EXPECT_THAT(error, HasSubstr("bad.g2o.gz is packed by gzip, but is damaged"));
  EXPECT_FALSE(WriteG2o(graph, testing::TempDir() + "no/such/folder.g2o", &error));
  EXPECT_THAT(error, HasSubstr("cannot be written"));
}

// As Suenderhauf's, rtabmap's and GTSAM's programs write them.
TEST(PoseGraphFile, WhatIsNotUsedIsCounted) {
  AnyPoseGraph any;
  std::string error;
  const std::string text = std::string(kPlane) +
                           "PARAMS_SE2OFFSET 0 0 0 0\n"
                           "VERTEX_XY 3 1.5 2.5\n"  // A landmark's id may be a pose's.
                           "VERTEX_XY 90 1.5 2.5\n"
                           "FIX 90\n"
                           "EDGE_SE2_XY 3 90 1.5 2.5 1 0 1\n"
                           "EDGE_PRIOR_XY 90 0 0 1 0 1\n"
                           "VERTEX_SWITCH 8 1\n"
                           "EDGE_SWITCH_PRIOR 8 1 1.0\n"
                           "EDGE_SE2_SWITCHABLE 3 7 8 1.25 2 0.5 4 0.5 0.25 9 0.125 16\n"
                           "EDGE_SE2_MAXMIX 3 7 0.01 1.25 2 0.5 4 0.5 0.25 9 0.125 16 # of a loop\n"
                           "EQUIV 3 7\n";
  ASSERT_TRUE(ReadPoseGraph(WriteText("switches.g2o", text), &any, &error)) << error;
  const auto& graph = std::get<PoseGraph2>(any);
  EXPECT_EQ(graph.vertices.size(), 2u);
  ASSERT_EQ(graph.edges.size(), 3u);
  for (int k = 1; k < 3; ++k) {
    EXPECT_EQ(graph.edges[k].measured.v, graph.edges[0].measured.v);
    EXPECT_EQ(graph.edges[k].information, graph.edges[0].information);
  }
  EXPECT_EQ(
      graph.notes,
      testing::TempDir() +
          "switches.g2o: 2 edges that the file switches or mixes are edges "
          "like the others.\n" +
          testing::TempDir() +
          "switches.g2o: not used: 1 equivalences, 2 landmarks, 1 measurements of landmarks, 1 "
          "parameters, 1 priors of landmarks, 1 priors of switches, 1 switches.\n");
  ASSERT_TRUE(ReadPoseGraph(WriteText("plain.g2o", kPlane), &any, &error)) << error;
  EXPECT_EQ(std::get<PoseGraph2>(any).notes, "");
  EXPECT_THAT(ErrorOf("EDGE_SE2_SWITCHABLE 3 7 1.25 2 0.5 4 0.5 0.25 9 0.125 16\n"),
              HasSubstr(":1: the line ends where an entry of the information"));
  EXPECT_THAT(ErrorOf("EDGE_SE2 3 7 8 1.25 2 0.5 4 0.5 0.25 9 0.125 16\n"),
              HasSubstr(":1: something follows the information"));
  EXPECT_THAT(ErrorOf("VERTEX_XY 0 1 2\n"), HasSubstr("there is no vertex and no edge"));
  EXPECT_THAT(ErrorOf("VERTEX_SWITCH on\n"), HasSubstr(":1: the id of the vertex is \"on\""));
}

TEST(PoseGraphFile, SwitchableInSpaceAndEulerAngles) {
  AnyPoseGraph quaternions, angles;
  std::string error;
  const std::string information = " 1 0 0 0 0 0 1 0 0 0 0 1 0 0 0 1 0 0 1 0 1\n";
  ASSERT_TRUE(
      ReadPoseGraph(WriteText("s.g2o", "EDGE_SE3_SWITCHABLE 0 1 9 1 2 3 0 0 0.6 0.8" + information),
                    &quaternions,
                    &error))
      << error;
  std::ostringstream yaw;
  yaw.precision(17);
  yaw << 2.0 * std::atan2(0.6, 0.8);
  ASSERT_TRUE(
      ReadPoseGraph(WriteText("e.g2o", "EDGE_SE3:EULER 0 1 1 2 3 0 0 " + yaw.str() + information),
                    &angles,
                    &error))
      << error;
  const auto& q = std::get<PoseGraph3>(quaternions).edges[0];
  const auto& e = std::get<PoseGraph3>(angles).edges[0];
  EXPECT_EQ(q.measured.t, e.measured.t);
  for (int k = 0; k < 4; ++k) EXPECT_NEAR(q.measured.q[k], e.measured.q[k], 1e-15);
  // Of half an angle there, of the angle here.
  EXPECT_NEAR(4.0 * q.information(5, 5), e.information(5, 5), 1e-12);
}

// A graph with information that couples everything.
template <typename Graph>
Graph RandomGraph() {
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  const auto pose = [&] {
    double tangent[6];
    for (double& value : tangent) value = normal(generator);
    if constexpr (Graph::kDim == 3) {
      return ExpSE2(tangent);
    } else {
      return ExpSE3(tangent);
    }
  };
  Graph graph;
  for (int i = 0; i < 5; ++i) graph.vertices.push_back({10 * i, pose(), i == 2});
  for (int i = 0; i < 5; ++i) {
    typename Graph::Information a =
        Graph::Information::NullaryExpr([&] { return normal(generator); });
    graph.edges.push_back({i, (i + 1) % 5, pose(), a * a.transpose()});
  }
  return graph;
}

double Difference(const Pose2& a, const Pose2& b) {
  double error[3];
  LogSE2(Between(a, b).v.data(), error);
  return Eigen::Map<Eigen::Vector3d>(error).norm();
}
double Difference(const Pose3& a, const Pose3& b) {
  double error[6];
  const Pose3 motion = Between(a, b);
  LogSE3(motion.q.data(), motion.t.data(), error);
  return Eigen::Map<Eigen::Matrix<double, 6, 1>>(error).norm();
}

template <typename Graph>
void ExpectSame(const Graph& a, const AnyPoseGraph& any, double tolerance) {
  ASSERT_TRUE(std::holds_alternative<Graph>(any));
  const Graph& b = std::get<Graph>(any);
  ASSERT_EQ(a.vertices.size(), b.vertices.size());
  ASSERT_EQ(a.edges.size(), b.edges.size());
  for (size_t i = 0; i < a.vertices.size(); ++i) {
    EXPECT_EQ(a.vertices[i].id, b.vertices[i].id);
    EXPECT_EQ(a.vertices[i].fixed, b.vertices[i].fixed);
    EXPECT_LE(Difference(a.vertices[i].pose, b.vertices[i].pose), tolerance);
  }
  for (size_t i = 0; i < a.edges.size(); ++i) {
    EXPECT_EQ(a.edges[i].from, b.edges[i].from);
    EXPECT_EQ(a.edges[i].to, b.edges[i].to);
    EXPECT_LE(Difference(a.edges[i].measured, b.edges[i].measured), tolerance);
    EXPECT_LE((a.edges[i].information - b.edges[i].information).norm(),
              tolerance * a.edges[i].information.norm());
  }
}

template <typename Graph>
void RoundTrip(const std::string& name) {
  const Graph graph = RandomGraph<Graph>();
  std::string error;
  AnyPoseGraph back;
  const std::string path = testing::TempDir() + name;
  ASSERT_TRUE(WriteG2o(graph, path, &error)) << error;
  ASSERT_TRUE(ReadPoseGraph(path, &back, &error)) << error;
  ExpectSame(graph, back, 1e-14);
  ASSERT_TRUE(WriteToro(graph, path, &error)) << error;
  if (graph.kDim == 6) {  // TORO has no word for a fixed vertex that g2o would not read.
    EXPECT_THAT(ReadText(path), HasSubstr("\nEDGE3 0 10 "));
  }
  ASSERT_TRUE(ReadPoseGraph(path, &back, &error)) << error;
  ExpectSame(graph, back, 1e-12);
}
TEST(PoseGraphFile, NothingIsLostInThePlane) { RoundTrip<PoseGraph2>("round2.g2o"); }
TEST(PoseGraphFile, NothingIsLostInSpace) { RoundTrip<PoseGraph3>("round3.g2o"); }

// Information about half an angle and about Euler angles is information about the angle: moving a
// pose by a small rotation vector costs as much either way.
TEST(PoseGraphFile, InformationIsConvertedToRadians) {
  AnyPoseGraph any;
  std::string error;
  ASSERT_TRUE(ReadPoseGraph(WriteText("space.g2o",
                                      "EDGE_SE3:QUAT 0 1 1 0 0 0 0 0 1 "
                                      "1 0 0 0.5 0 0 1 0 0 0 0 1 0 0 0 4 0 0 8 0 12\n"),
                            &any,
                            &error))
      << error;
  const auto& g2o = std::get<PoseGraph3>(any).edges[0].information;
  EXPECT_EQ(g2o(0, 0), 1.0);
  EXPECT_EQ(g2o(0, 3), 0.25);
  EXPECT_EQ(g2o(3, 3), 1.0);
  EXPECT_EQ(g2o(4, 4), 2.0);
  EXPECT_EQ(g2o(5, 5), 3.0);

  const double rpy[3] = {0.3, -0.7, 1.1};
  std::ostringstream line;
  line << "EDGE3 0 1 0 0 0 " << rpy[0] << " " << rpy[1] << " " << rpy[2]
       << " 1 0 0 0 0 0 1 0 0 0 0 1 0 0 0 2 0.25 0.5 3 0.75 4\n";
  ASSERT_TRUE(ReadPoseGraph(WriteText("space.graph", line.str()), &any, &error)) << error;
  const auto& edge = std::get<PoseGraph3>(any).edges[0];
  Eigen::Matrix3d of_rpy, jacobian;
  of_rpy << 2, 0.25, 0.5, 0.25, 3, 0.75, 0.5, 0.75, 4;
  constexpr double kStep = 1e-6;
  for (int k = 0; k < 3; ++k) {  // d rotation vector / d angle, by differences.
    double moved[3] = {rpy[0], rpy[1], rpy[2]};
    moved[k] += kStep;
    const Eigen::Quaterniond q = Eigen::AngleAxisd(moved[2], Eigen::Vector3d::UnitZ()) *
                                 Eigen::AngleAxisd(moved[1], Eigen::Vector3d::UnitY()) *
                                 Eigen::AngleAxisd(moved[0], Eigen::Vector3d::UnitX());
    const Pose3 turned{{q.w(), q.x(), q.y(), q.z()}, {0, 0, 0}};
    double error_of_pose[6];
    const Pose3 motion = Between(edge.measured, turned);
    LogSE3(motion.q.data(), motion.t.data(), error_of_pose);
    for (int r = 0; r < 3; ++r) jacobian(r, k) = error_of_pose[3 + r] / kStep;
  }
  const Eigen::Matrix3d back =
      jacobian.transpose() * edge.information.bottomRightCorner<3, 3>() * jacobian;
  EXPECT_LT((back - of_rpy).norm(), 1e-4);
}

TEST(PoseGraphFile, PlacedByOdometryWhereThereAreNoVertices) {
  const std::string path = WriteText("edges.g2o",
                                     "EDGE_SE2 5 4 -1 0 0 1 0 0 1 0 1\n"  // Backwards.
                                     "EDGE_SE2 4 6 9 9 0 1 0 0 1 0 1\n"   // Closes a loop, wrong.
                                     "EDGE_SE2 5 6 1 0 1.5707963267948966 1 0 0 1 0 1\n"
                                     "EDGE_SE2 6 9 2 0 0 1 0 0 1 0 1\n");
  AnyPoseGraph any;
  std::string error;
  ASSERT_TRUE(ReadPoseGraph(path, &any, &error)) << error;
  const auto& v = std::get<PoseGraph2>(any).vertices;
  ASSERT_EQ(v.size(), 4u);
  EXPECT_NEAR(Difference(v[1].pose, {{1, 0, 0}}), 0.0, 1e-15);
  EXPECT_NEAR(Difference(v[2].pose, {{2, 0, M_PI / 2}}), 0.0, 1e-15);
  EXPECT_NEAR(Difference(v[3].pose, {{2, 2, M_PI / 2}}), 0.0, 1e-15);
}

// Two conversions of one data set that others made: in g2o's terms and in those of TORO.
TEST(PoseGraphFile, SphereInBothFormats) {
  BILEVEL_REQUIRE_DATA("posegraph/sphere2500.g2o.gz");
  AnyPoseGraph g2o, toro;
  std::string error;
  ASSERT_TRUE(ReadPoseGraph(bilevel::DataPath("posegraph/sphere2500.g2o.gz"), &g2o, &error))
      << error;
  ASSERT_TRUE(ReadPoseGraph(bilevel::DataPath("posegraph/sphere2500_gtsam.txt.gz"), &toro, &error))
      << error;
  const auto &a = std::get<PoseGraph3>(g2o), &b = std::get<PoseGraph3>(toro);
  EXPECT_EQ(a.vertices.size(), 2500u);
  EXPECT_EQ(b.vertices.size(), 2500u);
  ASSERT_EQ(a.edges.size(), 4949u);
  ASSERT_EQ(b.edges.size(), 4949u);
  std::map<std::pair<int, int>, const PoseGraph3::Edge*> edges;  // In another order there.
  for (const auto& e : b.edges) edges[{e.from, e.to}] = &e;
  double worst = 0.0;
  for (const auto& e : a.edges) {
    const auto found = edges.find({e.from, e.to});
    ASSERT_NE(found, edges.end());
    EXPECT_LT(Difference(e.measured, found->second->measured), 1e-4);
    // Theirs is turned by half of the measured rotation, which eigenvalues do not see.
    const auto eigenvalues = [](const PoseGraph3::Edge& edge) {
      return Eigen::SelfAdjointEigenSolver<PoseGraph3::Information>(edge.information).eigenvalues();
    };
    const auto other = eigenvalues(*found->second);
    worst = std::max(worst, (eigenvalues(e) - other).cwiseQuotient(other).cwiseAbs().maxCoeff());
  }
  EXPECT_LT(worst, 0.02);  // Of the order of the measured pitch squared.
}

TEST(PoseGraphFile, GraphsInUse) {
  const struct {
    const char* name;
    size_t vertices, edges;
  } kFiles[] = {{"M3500.g2o.gz", 3500, 5453},
                {"kitti_00.g2o.gz", 4541, 4677},
                {"CSAIL.g2o.gz", 1045, 1172},
                {"parking-garage.g2o.gz", 1661, 6275},
                {"w100.graph.gz", 100, 300},
                {"graph_2d_circle_50nodes.graph.gz", 50, 101}};
  for (const auto& file : kFiles) {
    const std::string path = bilevel::DataPath(std::string("posegraph/") + file.name);
    if (path.empty()) GTEST_SKIP() << "no data file " << file.name;
    AnyPoseGraph graph;
    std::string error;
    ASSERT_TRUE(ReadPoseGraph(path, &graph, &error)) << error;
    std::visit(
        [&](const auto& g) {
          EXPECT_EQ(g.vertices.size(), file.vertices) << file.name;
          EXPECT_EQ(g.edges.size(), file.edges) << file.name;
        },
        graph);
  }
}

}  // namespace
}  // namespace examples
