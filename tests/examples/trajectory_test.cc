// Trajectories and pose streams as recordings have them: formats, axes, and time stamps that are
// equal, go back or count nanoseconds.
#include "examples/support/slam/trajectory.h"

#include <array>
#include <cmath>
#include <fstream>
#include <random>
#include <string>
#include <variant>
#include <vector>

#include "Eigen/Geometry"
#include "examples/support/slam/g2o.h"
#include "examples/support/slam/pose_stream.h"
#include "examples/support/slam/truth.h"
#include "examples/support/table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace examples {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string WriteText(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
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

Trajectory Read(const std::string& text) {
  Trajectory trajectory;
  std::string error;
  EXPECT_TRUE(ReadTrajectory(WriteText("good.txt", text), &trajectory, &error)) << error;
  return trajectory;
}

PoseStream Stream(const std::string& text) {
  PoseStream stream;
  std::string error;
  EXPECT_TRUE(ReadPoseStream(WriteText("good.csv", text), &stream, &error)) << error;
  return stream;
}

std::string StreamErrorOf(const std::string& text) {
  PoseStream stream;
  std::string error;
  EXPECT_FALSE(ReadPoseStream(WriteText("bad.csv", text), &stream, &error));
  return error;
}

std::string TrajectoryErrorOf(const std::string& text) {
  Trajectory trajectory;
  std::string error;
  EXPECT_FALSE(ReadTrajectory(WriteText("bad.txt", text), &trajectory, &error));
  return error;
}

TEST(TrajectoryFile, MistakesAreNamedByLine) {
  EXPECT_THAT(TrajectoryErrorOf("1 2\n"), HasSubstr("bad.txt:1: 2 columns"));
  EXPECT_THAT(TrajectoryErrorOf("1 2 3\n1 2\n"), HasSubstr(":2: 2 columns, not 3"));
  EXPECT_THAT(TrajectoryErrorOf("1 2 3\n1 2 a\n"), HasSubstr(":2: the heading is \"a\""));
  EXPECT_THAT(TrajectoryErrorOf("1 0 0 0 0 1 0 0 0 0 2 0\n"), HasSubstr(":1: the matrix is not"));
  EXPECT_THAT(TrajectoryErrorOf("1 0 0 0 0 1 0 0 0 0 -1 0\n"), HasSubstr(":1: the matrix is not"));
  EXPECT_THAT(TrajectoryErrorOf("1 0 0 0 0 0 0 3\n"), HasSubstr(":1: the quaternion"));
  EXPECT_THAT(TrajectoryErrorOf("\n# nothing\n"), HasSubstr("bad.txt: there is no pose"));
}

TEST(TrajectoryFile, NothingIsLost) {
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  for (const auto format : {Trajectory::kKitti, Trajectory::kTum, Trajectory::kPlanar}) {
    Trajectory trajectory, back;
    trajectory.format = format;
    for (int i = 0; i < 5; ++i) {
      double tangent[6];
      for (double& value : tangent) value = normal(generator);
      Pose3 pose = ExpSE3(tangent);
      if (format == Trajectory::kPlanar) {
        pose = {{std::cos(tangent[0]), 0, 0, std::sin(tangent[0])}, {tangent[1], tangent[2], 0}};
      }
      trajectory.times.push_back(0.1 * i + 1e9);
      trajectory.poses.push_back(pose);
    }
    const std::string path = testing::TempDir() + "trajectory.txt";
    std::string error;
    ASSERT_TRUE(WriteTrajectory(trajectory, path, &error)) << error;
    ASSERT_TRUE(ReadTrajectory(path, &back, &error)) << error;
    ASSERT_EQ(back.poses.size(), trajectory.poses.size());
    EXPECT_EQ(back.lines, (std::vector<int>{1, 2, 3, 4, 5}));
    for (size_t i = 0; i < back.poses.size(); ++i) {
      EXPECT_LT(Difference(back.poses[i], trajectory.poses[i]), 1e-14);
      if (format == Trajectory::kTum) {
        EXPECT_EQ(back.times[i], trajectory.times[i]);
      }
    }
  }
}

// A camera that looks along z and goes that way, then turns to its left.
TEST(TrajectoryFile, KittiSeenFromAbove) {
  Trajectory trajectory;
  std::string error;
  const std::string path = WriteText("kitti.txt",
                                     "1 0 0 0 0 1 0 0 0 0 1 0\n"
                                     "0 0 -1 -2 0 1 0 0 1 0 0 5\n");
  ASSERT_TRUE(ReadTrajectory(path, &trajectory, &error)) << error;
  const std::vector<Pose2> above = SeenFromAbove(trajectory);
  EXPECT_NEAR(Difference(above[0], {{0, 0, 0}}), 0.0, 1e-15);
  EXPECT_NEAR(Difference(above[1], {{5, 2, M_PI / 2}}), 0.0, 1e-15);
}

TEST(TrajectoryFile, KittiMatchesItsGraph) {
  BILEVEL_REQUIRE_DATA("kitti_poses/00.txt.gz");
  BILEVEL_REQUIRE_DATA("posegraph/kitti_00.g2o.gz");
  Trajectory trajectory;
  AnyPoseGraph any;
  std::string error;
  ASSERT_TRUE(ReadTrajectory(bilevel::DataPath("kitti_poses/00.txt.gz"), &trajectory, &error));
  ASSERT_TRUE(ReadPoseGraph(bilevel::DataPath("posegraph/kitti_00.g2o.gz"), &any, &error));
  const auto& graph = std::get<PoseGraph2>(any);
  const std::vector<Pose2> truth = SeenFromAbove(trajectory);
  ASSERT_EQ(truth.size(), graph.vertices.size());
  double sum = 0.0, count = 0.0, angle = 0.0;
  for (const auto& e : graph.edges) {
    if (!e.IsOdometry()) continue;
    const Pose2 motion = Between(e.measured, Between(truth[e.from], truth[e.to]));
    sum += motion.v[0] * motion.v[0];
    angle += std::abs(Wrap(motion.v[2]));
    count += 1.0;
  }
  EXPECT_LT(std::sqrt(sum / count), 0.05);  // Metres ahead, as the data's own notes say: 0.017.
  EXPECT_LT(angle / count, 0.003);
}

// A step ahead of a metre in a pose's own axes, turning to the left all the time.
std::string Arc(const Eigen::Vector3d& ahead, const Eigen::Vector3d& up) {
  std::string text;
  Eigen::Vector3d t = Eigen::Vector3d::Zero();
  for (int i = 0; i < 8; ++i) {
    const Eigen::Matrix3d r = Eigen::AngleAxisd(0.3 * i, up).toRotationMatrix();
    for (int row = 0; row < 3; ++row) {
      text += Format("%.17g %.17g %.17g %.17g ", r(row, 0), r(row, 1), r(row, 2), t[row]);
    }
    text += "\n";
    t += r * ahead;
  }
  return text;
}

// The same way by a camera, a body with z up and a planar file is the same from above.
TEST(TrajectoryFile, KittiWithZUpIsTold) {
  const Trajectory camera = Read(Arc({0, 0, 1}, {0, -1, 0})),
                   body = Read(Arc({1, 0, 0}, {0, 0, 1}));
  EXPECT_EQ(camera.format, Trajectory::kKitti);
  EXPECT_EQ(body.format, Trajectory::kKittiZUp);
  EXPECT_THAT(
      camera.notes,
      HasSubstr("good.txt: taken for poses of a camera with z ahead, as KITTI's; 100 % of"));
  EXPECT_THAT(
      body.notes,
      HasSubstr("good.txt: taken for poses of a body with z up; 100 % of the way goes along "
                "its x axis"));
  const std::vector<Pose2> a = SeenFromAbove(camera), b = SeenFromAbove(body);
  Pose2 expected;
  for (size_t i = 0; i < a.size(); ++i) {
    expected.v[2] = Wrap(0.3 * static_cast<double>(i));
    EXPECT_LT(Difference(a[i], expected), 1e-12);
    EXPECT_LT(Difference(b[i], expected), 1e-12);
    expected = Compose(expected, {{1, 0, 0}});
  }
  const Trajectory still = Read("1 0 0 0 0 1 0 0 0 0 1 0\n");
  EXPECT_EQ(still.format, Trajectory::kKitti);
  EXPECT_THAT(still.notes, HasSubstr("KITTI's; 0 %"));
}

TEST(TrajectoryFile, KittiTurnedToZUpIsTheSameFromAbove) {
  BILEVEL_REQUIRE_DATA("kitti_poses/00.txt.gz");
  Trajectory camera, back;
  std::string error;
  ASSERT_TRUE(ReadTrajectory(bilevel::DataPath("kitti_poses/00.txt.gz"), &camera, &error)) << error;
  EXPECT_EQ(camera.format, Trajectory::kKitti);
  Trajectory body = camera;
  const Eigen::Matrix3d axes = (Eigen::Matrix3d() << 0, 0, 1, -1, 0, 0, 0, -1, 0).finished();
  const Eigen::Quaterniond turn(axes);  // x is the camera's z, y is -x, z is -y.
  for (Pose3& pose : body.poses) {
    const Eigen::Quaterniond q =
        turn * Eigen::Quaterniond(pose.q[0], pose.q[1], pose.q[2], pose.q[3]) * turn.conjugate();
    const Eigen::Vector3d t = axes * Eigen::Vector3d(pose.t.data());
    pose = {{q.w(), q.x(), q.y(), q.z()}, {t[0], t[1], t[2]}};
  }
  const std::string path = testing::TempDir() + "body.txt";
  ASSERT_TRUE(WriteTrajectory(body, path, &error)) << error;
  ASSERT_TRUE(ReadTrajectory(path, &back, &error)) << error;
  EXPECT_EQ(back.format, Trajectory::kKittiZUp);
  const std::vector<Pose2> a = SeenFromAbove(camera), b = SeenFromAbove(back);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_LT(Difference(a[i], b[i]), 1e-9);
}

constexpr char kLine[] =  // Along x at 1 m/s.
    "0 0 0 0 0 0 0 1\n1 1 0 0 0 0 0 1\n2 2 0 0 0 0 0 1\n3 3 0 0 0 0 0 1\n4 4 0 0 0 0 0 1\n";

TEST(PoseStreamFile, EqualTimesAreAveraged) {
  // A quarter of a turn about z and none, of either sign: an eighth of a turn.
  const PoseStream stream = Stream(std::string(kLine) +
                                   "5,5,0,0,0,0,0,1\n5,5.5,1,0,0,0,-0.70710678,-0.70710678\n"
                                   "6,6,0,0,0,0,0,1\n");
  ASSERT_EQ(stream.poses.size(), 7u);
  EXPECT_EQ(stream.poses[5].t, 5.0);
  EXPECT_EQ(stream.poses[5].p, (std::array<double, 3>{5.25, 0.5, 0.0}));
  EXPECT_NEAR(stream.poses[5].q[0], std::cos(M_PI / 8.0), 1e-8);
  EXPECT_NEAR(stream.poses[5].q[3], std::sin(M_PI / 8.0), 1e-8);
  EXPECT_THAT(
      stream.notes,
      HasSubstr("good.csv: 1 of 8 poses have the time of another: averaged, at most 1.12 m and "
                "90 degrees from the first.\n"));
  EXPECT_EQ(Stream(kLine).notes, "");
}

TEST(PoseStreamFile, TimesThatGoBackAreSorted) {
  const PoseStream stream = Stream(
      "0 0 0 0 0 0 0 1\n2 2 0 0 0 0 0 1\n1.5 1.5 0 0 0 0 0 1\n3 3 0 0 0 0 0 1\n"
      "2.75 2.75 0 0 0 0 0 1\n4 4 0 0 0 0 0 1\n");
  ASSERT_EQ(stream.poses.size(), 6u);
  for (const auto& pose : stream.poses) EXPECT_EQ(pose.p[0], pose.t);
  for (size_t i = 1; i < 6; ++i) EXPECT_LT(stream.poses[i - 1].t, stream.poses[i].t);
  EXPECT_THAT(
      stream.notes,
      HasSubstr("good.csv: 2 of 6 times are before that of the line above, the first in line 3, "
                "by up to 0.5 s, and sorting makes the path 4 m long instead of 5.5"));
}

// Two recordings one after the other, of the same times and at different places.
TEST(PoseStreamFile, TimesThatSortIntoNoPathAreRefused) {
  std::string two = kLine;
  for (int i = 0; i < 5; ++i) two += Format("%g %d 50 0 0 0 0 1\n", i + 0.5, i);
  EXPECT_THAT(StreamErrorOf(two), HasSubstr("bad.csv:6: the time goes back, by up to 3.5 s, and"));
}

TEST(PoseStreamFile, OtherUnitsOfTimeAreToldAndConverted) {
  const struct {
    const char *times[5], *name;
  } kFiles[] = {
      {{"1403715524907143168",
        "1403715524912143168",
        "1403715524917143168",
        "1403715524922143168",
        "1403715524927143168"},
       "nanoseconds"},
      {{"0", "5000000", "10000000", "15000000", "20000000"}, "nanoseconds"},
      {{"200000000000", "200005000000", "200010000000", "200015000000", "200020000000"},
       "nanoseconds"},
      {{"1403715524907143",
        "1403715524912143",
        "1403715524917143",
        "1403715524922143",
        "1403715524927143"},
       "microseconds"},
      {{"1403715524907", "1403715524912", "1403715524917", "1403715524922", "1403715524927"},
       "milliseconds"}};
  for (const auto& file : kFiles) {
    std::string text;
    for (const char* time : file.times) text += std::string(time) + ",0,0,0,0,0,0,1\n";
    const PoseStream stream = Stream(text);
    EXPECT_THAT(stream.notes,
                HasSubstr("good.csv: the times are " + std::string(file.name) + ", taken as such"));
    for (size_t i = 1; i < 5; ++i) {  // A double has seconds since 1970 to 0.24 microseconds.
      EXPECT_NEAR(stream.poses[i].t - stream.poses[i - 1].t, 0.005, 3e-7) << file.name;
    }
  }
  EXPECT_THAT(Stream("0 0 0 0 0 0 0 1\n5000 0 0 0 0 0 0 1\n9000 0 0 0 0 0 0 1\n"
                     "14000 0 0 0 0 0 0 1\n19000 0 0 0 0 0 0 1\n")
                  .notes,
              HasSubstr("poses are 5000 s apart, at the median; are the times seconds?"));
}

TEST(PoseStreamFile, Euroc) {
  std::string text = "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x []\n";
  for (int i = 0; i < 5; ++i) {
    text += Format("%d,%d,2,3,0.5,-0.5,0.7,-0.1,0,0,0,0,0,0,0,0,0\n", i, i);
  }
  const PoseStream stream = Stream(text);
  EXPECT_EQ(stream.poses[4].p, (std::array<double, 3>{4, 2, 3}));
  EXPECT_EQ(stream.poses[4].q, (std::array<double, 4>{0.5, -0.5, 0.7, -0.1}));
  EXPECT_THAT(stream.notes, HasSubstr("17 columns, EuRoC's: quaternions are w x y z"));
}

TEST(PoseStreamFile, RtabmapWithIds) {
  std::string text = "#timestamp x y z qx qy qz qw id\n";
  for (int i = 0; i < 5; ++i) text += Format("%d %d 2 3 0 0 0.6 0.8 %d\n", i, i, 40 + i);
  const PoseStream stream = Stream(text);
  EXPECT_EQ(stream.poses[4].p, (std::array<double, 3>{4, 2, 3}));
  EXPECT_EQ(stream.poses[4].q, (std::array<double, 4>{0.8, 0, 0, 0.6}));
}

// Half a turn, which an arc sine does not tell from less.
TEST(PoseStreamFile, EqualTimesFarApartAreSaidToBe) {
  EXPECT_THAT(Stream(std::string(kLine) + "4 4 0 0 0 0 1 0\n5 5 0 0 0 0 0 1\n").notes,
              HasSubstr("at most 0 m and 180 degrees from the first"));
}

TEST(PoseStreamFile, WhatIsNoStreamIsRefused) {
  EXPECT_THAT(StreamErrorOf("0 0 0 0 0 0 0 1\n"), HasSubstr("bad.csv: five poses at least"));
  EXPECT_THAT(StreamErrorOf("1 2 3\n"), HasSubstr("bad.csv: these are not poses with times"));
  std::string equal;
  for (int i = 0; i < 9; ++i) equal += "7 0 0 0 0 0 0 1\n";
  EXPECT_THAT(StreamErrorOf(equal), HasSubstr("bad.csv: five poses at least"));
  std::string millimetres;
  for (int i = 0; i < 9; ++i) millimetres += Format("%d %d 0 0 0 0 0 1\n", i, 100 * i);
  EXPECT_THAT(Stream(millimetres).notes, HasSubstr("the positions span 800 m; are they metres?"));
}

// Rows as many as vertices are those of the vertices, whatever their times.
TEST(Truth, RowsOfEqualTimesAndBackwardOnes) {
  PoseGraph2 graph;
  std::vector<Pose2> truth;
  std::string notes, error;
  const std::string path = WriteText("truth.txt",
                                     "0 0 0 0 0 0 0 1\n2 1 0 0 0 0 0 1\n1 2 0 0 0 0 0 1\n"
                                     "1 4 0 0 0 0 0 1\n");
  graph.vertices.resize(4);
  ASSERT_TRUE(ReadTruth(path, graph, &truth, &notes, &error)) << error;
  EXPECT_EQ(truth[1].v[0], 1.0);
  EXPECT_EQ(truth[3].v[0], 4.0);
  EXPECT_THAT(notes, HasSubstr("truth.txt: times go back, but the rows are as many as vertices"));
  graph.vertices.resize(3);
  ASSERT_TRUE(ReadTruth(path, graph, &truth, &notes, &error)) << error;
  EXPECT_EQ(truth[1].v[0], 3.0);
  EXPECT_EQ(truth[2].v[0], 1.0);
  EXPECT_THAT(notes, HasSubstr("1 of 4 poses have the time of another"));
  EXPECT_THAT(notes, Not(HasSubstr("as many as vertices")));
  graph.vertices.resize(2);
  EXPECT_FALSE(ReadTruth(path, graph, &truth, &notes, &error));
  EXPECT_THAT(error, HasSubstr("truth.txt has 3 poses, the graph 2 vertices"));
}

}  // namespace
}  // namespace examples
