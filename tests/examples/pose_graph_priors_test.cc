// Priors of a pose graph: read, written, what they cost, where they put the graph, and which are
// too weak to hold it.
#include <array>
#include <cmath>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "Eigen/Geometry"
#include "Eigen/LU"
#include "ceres/ceres.h"
#include "examples/support/slam/g2o.h"
#include "examples/support/slam/pose_graph_cost.h"
#include "examples/support/slam/pose_graph_levels.h"
#include "examples/support/slam/recording.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace examples {
namespace {

using testing::HasSubstr;

template <typename Graph>
Graph Read(const std::string& text) {
  const std::string path = testing::TempDir() + "priors.g2o";
  std::ofstream(path) << text;
  AnyPoseGraph graph;
  std::string error;
  EXPECT_TRUE(ReadPoseGraph(path, &graph, &error)) << error;
  return std::get<Graph>(graph);
}

std::string ErrorOf(const std::string& text) {
  const std::string path = testing::TempDir() + "bad.g2o";
  std::ofstream(path) << text;
  AnyPoseGraph graph;
  std::string error;
  EXPECT_FALSE(ReadPoseGraph(path, &graph, &error));
  return error;
}

template <typename Graph>
std::pair<double, Eigen::VectorXd> CostAndResidual(const typename Graph::Prior& prior,
                                                   typename Graph::Pose pose) {
  const std::unique_ptr<ceres::CostFunction> cost(MakeCost(prior));
  Eigen::VectorXd r(static_cast<Eigen::Index>(Graph::kDim));
  EXPECT_TRUE(cost->Evaluate(Blocks(&pose).data(), r.data(), nullptr));
  return {r.squaredNorm(), r};
}

constexpr char kPlane[] =
    "VERTEX_SE2 3 0 0 0\nVERTEX_SE2 7 8 0 0\nEDGE_SE2 3 7 8 0 0 2 0 0 1 0 1\n";
constexpr char kSpace[] =
    "VERTEX_SE3:QUAT 0 0 0 0 0 0 0 1\nVERTEX_SE3:QUAT 1 1 0 0 0 0 0 1\n"
    "EDGE_SE3:QUAT 0 1 1 0 0 0 0 0 1 1 0 0 0 0 0 1 0 0 0 0 1 0 0 0 4 0 0 4 0 4\n";
const std::string kFull = " 1 2 3 0 0 0.6 0.8 1 0.5 0 0 0 0 2 0 0 0 0 3 0 0 0 4 0 0 8 1 12\n";

TEST(PoseGraphPriors, ReadAndWritten) {
  const PoseGraph2 plane = Read<PoseGraph2>(std::string(kPlane) +
                                            "EDGE_PRIOR_SE2 7 8 1 0.5 4 0.5 0.25 9 0.125 16\n"
                                            "EDGE_PRIOR_SE2_XY 3 1 2 4 0.5 9\n");
  ASSERT_EQ(plane.priors.size(), 2u);
  EXPECT_THAT(plane.notes, testing::EndsWith("priors.g2o: 2 priors hold the graph as they are.\n"));
  EXPECT_EQ(plane.priors[0].vertex, 1);
  EXPECT_EQ(plane.priors[0].measured.v, (std::array<double, 3>{8, 1, 0.5}));
  Eigen::Matrix3d full, position;
  full << 4, 0.5, 0.25, 0.5, 9, 0.125, 0.25, 0.125, 16;
  position << 4, 0.5, 0, 0.5, 9, 0, 0, 0, 0;
  EXPECT_EQ(plane.priors[0].information, full);
  EXPECT_EQ(plane.priors[1].information, position);
  EXPECT_EQ(plane.priors[1].measured.v, (std::array<double, 3>{1, 2, 0}));

  const PoseGraph3 space = Read<PoseGraph3>("PARAMS_SE3OFFSET 0 0 0 0 0 0 0 1\n" +
                                            std::string(kSpace) + "EDGE_SE3_PRIOR 1 0" + kFull);
  ASSERT_EQ(space.priors.size(), 1u);
  EXPECT_THAT(space.notes, testing::EndsWith("priors.g2o: 1 priors hold the graph as they are.\n"));
  EXPECT_EQ(space.priors[0].measured.q, (std::array<double, 4>{0.8, 0, 0, 0.6}));
  EXPECT_EQ(space.priors[0].information(0, 1), 0.5);
  EXPECT_EQ(space.priors[0].information(4, 5), 0.25);  // About half an angle in the file.
  EXPECT_EQ(space.priors[0].information(5, 5), 3.0);

  std::string error;
  const std::string path = testing::TempDir() + "written.g2o";
  for (const AnyPoseGraph& graph : {AnyPoseGraph(plane), AnyPoseGraph(space)}) {
    for (const auto write : {WriteG2o, WriteToro}) {
      AnyPoseGraph back;
      ASSERT_TRUE(write(graph, path, &error)) << error;
      ASSERT_TRUE(ReadPoseGraph(path, &back, &error)) << error;
      ASSERT_EQ(back.index(), graph.index());
      std::visit(
          [&](const auto& g) {
            const auto& b = std::get<std::decay_t<decltype(g)>>(back);
            ASSERT_EQ(b.priors.size(), g.priors.size());
            for (size_t i = 0; i < g.priors.size(); ++i) {
              EXPECT_EQ(b.priors[i].vertex, g.priors[i].vertex);
              EXPECT_LT((b.priors[i].information - g.priors[i].information).norm(), 1e-13);
            }
          },
          graph);
    }
  }
}

TEST(PoseGraphPriors, MistakesAreNamedByLine) {
  EXPECT_THAT(ErrorOf(std::string(kPlane) + "EDGE_PRIOR_SE2 8 0 0 0 1 0 0 1 0 1\n"),
              HasSubstr("bad.g2o:4: there is no vertex 8"));
  EXPECT_THAT(ErrorOf(std::string(kPlane) + "EDGE_PRIOR_SE2_XY 7 0 0 1 2 1\n"),
              HasSubstr(":4: the information is not positive semi-definite"));
  EXPECT_THAT(ErrorOf(std::string(kSpace) + "EDGE_SE3_PRIOR 1 1 2 3\n"),
              HasSubstr(":4: the line ends where z"));
  EXPECT_THAT(ErrorOf(std::string(kSpace) + "EDGE_PRIOR_SE2 1 0 0 0 1 0 0 1 0 1\n"),
              HasSubstr(":4: EDGE_PRIOR_SE2 in a file that began in space"));
}

// d' information d, by hand: of a pose turned by 0.1 and moved by (1, 2) in the axes of the prior.
TEST(PoseGraphPriors, CostByHand) {
  PoseGraph2::Prior plane;
  plane.measured = {{3, 4, M_PI / 2}};
  plane.information << 4, 0.5, 0.25, 0.5, 9, 0.125, 0.25, 0.125, 16;
  Eigen::Vector3d d(1, 2, 0.1);
  EXPECT_NEAR(CostAndResidual<PoseGraph2>(plane, {{3 - 2, 4 + 1, M_PI / 2 + 0.1 - 4 * M_PI}}).first,
              d.dot(plane.information * d),
              1e-12);

  PoseGraph3::Prior space;
  const Eigen::Quaterniond q(Eigen::AngleAxisd(0.7, Eigen::Vector3d(1, 2, 3).normalized()));
  space.measured = {{q.w(), q.x(), q.y(), q.z()}, {1, 2, 3}};
  Eigen::Matrix<double, 6, 6> a;
  for (int i = 0; i < 36; ++i) a(i) = std::sin(1.0 + i);
  space.information = a * a.transpose();
  Eigen::Matrix<double, 6, 1> e;
  e << 0.3, -0.2, 0.5, 0.2, 0.1, -0.3;
  const Eigen::Vector3d turn = e.tail<3>(), t = q * e.head<3>() + Eigen::Vector3d(1, 2, 3);
  const Eigen::Quaterniond moved =
      q * Eigen::Quaterniond(Eigen::AngleAxisd(turn.norm(), turn.normalized()));
  const Pose3 pose{{moved.w(), moved.x(), moved.y(), moved.z()}, {t[0], t[1], t[2]}};
  EXPECT_NEAR(CostAndResidual<PoseGraph3>(space, pose).first, e.dot(space.information * e), 1e-12);
}

// Along a line it is linear least squares: x of vertices 3 and 7 with priors 0 and 10 of
// information 1 and 4, and 8 between them of information 2.
TEST(PoseGraphPriors, PutTheGraphWhereTheySay) {
  Recording<PoseGraph2> recording;
  recording.graph = Read<PoseGraph2>(std::string(kPlane) +
                                     "EDGE_PRIOR_SE2 3 0 0 0 1 0 0 1 0 1\n"
                                     "EDGE_PRIOR_SE2 7 10 0 0 4 0 0 1 0 1\n");
  recording.UseAll();
  recording.truth.resize(2);
  PoseGraphNoise noise;
  PoseGraphLevels<PoseGraph2> levels(&recording, &noise);
  levels.problem.lower()->SetParameterBlockConstant(noise.odometry);
  ceres::Solver::Options options;
  options.function_tolerance = options.gradient_tolerance = options.parameter_tolerance = 1e-14;
  options.initial_trust_region_radius = 1e16;
  options.logging_type = ceres::SILENT;
  ceres::Solver::Summary summary;
  ceres::Solve(options, levels.problem.lower(), &summary);
  const Eigen::Matrix2d normal = (Eigen::Matrix2d() << 1 + 2, -2, -2, 4 + 2).finished();
  const Eigen::Vector2d x = normal.inverse() * Eigen::Vector2d(-2 * 8, 4 * 10 + 2 * 8);
  EXPECT_NEAR(recording.graph.vertices[0].pose.v[0], x[0], 1e-9);
  EXPECT_NEAR(recording.graph.vertices[1].pose.v[0], x[1], 1e-9);
  EXPECT_EQ(levels.RelativeChi2(), 0.0);
}

TEST(PoseGraphPriors, ThoseThatLeaveTheFrameFreeAreNotUsed) {
  const std::string one = std::string(kPlane) + "EDGE_PRIOR_SE2_XY 3 0 0 1 0 1\n";
  const PoseGraph2 free = Read<PoseGraph2>(one);
  EXPECT_TRUE(free.priors.empty());
  EXPECT_THAT(free.notes, HasSubstr("not used: 1 priors that leave the graph free to turn."));
  EXPECT_EQ(Read<PoseGraph2>(one + "FIX 3\n").priors.size(), 1u);
  EXPECT_EQ(Read<PoseGraph2>(one + "EDGE_PRIOR_SE2_XY 7 8 0 1 0 1\n").priors.size(), 2u);
  EXPECT_TRUE(Read<PoseGraph2>(one + "EDGE_PRIOR_SE2_XY 3 8 0 1 0 1\n").priors.empty());
  const PoseGraph3 beside = Read<PoseGraph3>("PARAMS_SE3OFFSET 5 0 0 0.3 0 0 0 1\n" +
                                             std::string(kSpace) + "EDGE_SE3_PRIOR 1 5" + kFull);
  EXPECT_TRUE(beside.priors.empty());
  EXPECT_THAT(beside.notes, HasSubstr("1 priors of a sensor that is not at the pose"));
}

TEST(PoseGraphPriors, GoWithTheirVerticesWhereAGraphIsCut) {
  Recording<PoseGraph2> whole = SimulateGraph(20, 1);
  for (const int i : {2, 8, 9}) {
    PoseGraph2::Prior prior;
    prior.vertex = i;
    prior.measured = whole.truth[i];
    prior.information = Eigen::Vector3d(1, 1, 0).asDiagonal();
    whole.graph.priors.push_back(prior);
  }
  const Recording<PoseGraph2> two = Cut(whole, 5, 20), one = Cut(whole, 0, 5);
  ASSERT_EQ(two.graph.priors.size(), 2u);
  EXPECT_EQ(two.graph.priors[0].vertex, 3);
  EXPECT_TRUE(one.graph.priors.empty());  // One position alone holds nothing.
}

}  // namespace
}  // namespace examples
