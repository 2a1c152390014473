// What jobs say of files that can be read but make no sense, and do not say of those that do.
#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <random>
#include <string>
#include <variant>

#include "examples/support/slam/g2o.h"
#include "examples/support/slam/range_slam.h"
#include "examples/support/slam/recording.h"
#include "examples/support/slam/trajectory.h"
#include "examples/support/table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace examples {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Write(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

std::string NotesOfGraph(const std::string& text) {
  AnyPoseGraph graph;
  std::string error;
  EXPECT_TRUE(ReadPoseGraph(Write("odd.g2o", text), &graph, &error)) << error;
  return std::visit([](const auto& g) { return g.notes; }, graph);
}

TEST(Plausibility, DegreesInGraphs) {
  const std::string rest = " 1 0 0 1 0 1\n";
  EXPECT_EQ(NotesOfGraph("EDGE_SE2 0 1 1 0 6.28" + rest), "");
  EXPECT_THAT(NotesOfGraph("EDGE_SE2 0 1 1 0 0" + rest + "EDGE_SE2 1 2 1 0 -90" + rest +
                           "EDGE_SE2 2 3 1 0 45" + rest),
              testing::EndsWith("odd.g2o:2: a turn is -90; are the angles degrees?\n"));
  // Headings may count whole turns.
  EXPECT_EQ(NotesOfGraph("VERTEX_SE2 0 0 0 25\n"), "");
  EXPECT_THAT(NotesOfGraph("VERTEX_SE2 0 0 0 180\n"),
              HasSubstr("odd.g2o:1: a heading is 180; are"));
}

TEST(Plausibility, DegreesInTrajectories) {
  Trajectory trajectory;
  std::string error;
  ASSERT_TRUE(ReadTrajectory(Write("odd.txt", "0 0 1\n1 0 -270\n2 0 80\n"), &trajectory, &error));
  EXPECT_THAT(trajectory.notes, HasSubstr("odd.txt:2: a heading is -270; are they degrees?\n"));
  EXPECT_THAT(trajectory.notes, Not(HasSubstr(":3:")));
  ASSERT_TRUE(ReadTrajectory(Write("odd.txt", "0 0 1\n1 0 -25\n"), &trajectory, &error));
  EXPECT_EQ(trajectory.notes, "");
}

// Three beacons around a straight way, ranges and angles in the units given.
std::string NotesOfRanges(double metre, double degree) {
  std::string beacons, odometry, truth, ranges;
  const double at[3][2] = {{0, 10}, {10, -10}, {20, 10}};
  for (int b = 0; b < 3; ++b) beacons += Format("%d %g %g\n", b, at[b][0], at[b][1]);
  for (int i = 0; i < 20; ++i) {
    odometry += Format("%d 1 %g\n", i, 0.1 * (i % 3 - 1) * degree);
    truth += Format("%d %d 0 %g\n", i, i, 0.1 * degree);
    ranges += Format("%d 0 %d %g\n", i, i % 3, metre * std::hypot(i - at[i % 3][0], at[i % 3][1]));
  }
  const std::string prefix = testing::TempDir() + "odd";
  Write("odd_TL.txt", beacons);
  Write("odd_DR.txt", odometry);
  Write("odd_GT.txt", truth);
  Write("odd_TD.txt", ranges);
  RangeSlam data;
  std::string error;
  EXPECT_TRUE(ReadRangeSlam(prefix, &data, &error)) << error;
  return data.notes;
}

TEST(Plausibility, UnitsOfRanges) {
  EXPECT_EQ(NotesOfRanges(1.0, 1.0), "");
  EXPECT_THAT(NotesOfRanges(1000.0, 1.0),
              HasSubstr("odd: the median range is 1000 times that at the true poses; are all in"));
  EXPECT_THAT(NotesOfRanges(1.0, 180.0 / M_PI), Not(HasSubstr("degrees")));  // Of 6 degrees.
  EXPECT_THAT(NotesOfRanges(1.0, 1000.0),
              HasSubstr("odd: a turn is 100, a heading 100; are the angles degrees?"));
}

TEST(Plausibility, RealRecordingsRaiseNoQuestion) {
  BILEVEL_REQUIRE_DATA("range_slam/Plaza1_TL.txt.gz");
  const std::string file = bilevel::DataPath("range_slam/Plaza1_TL.txt.gz");
  RangeSlam data;
  std::string error;
  ASSERT_TRUE(ReadRangeSlam(file.substr(0, file.find("_TL")), &data, &error)) << error;
  EXPECT_EQ(data.notes, "");
}

// A simulated drive beside its truth, the truth in millimetres, and that truth in another order.
TEST(Plausibility, GraphsBesideTheirTruth) {
  Recording<PoseGraph2> recording = SimulateGraph(400, 1);
  const std::string good = CompareWithTruth(recording);
  EXPECT_THAT(good, Not(HasSubstr("?")));
  EXPECT_THAT(good, HasSubstr("% of its extent. Its odometry is 1"));
  Recording<PoseGraph2> odd = recording;
  for (auto& pose : odd.truth) pose.v[0] *= 1000.0, pose.v[1] *= 1000.0;
  EXPECT_THAT(CompareWithTruth(odd), HasSubstr("are both in metres, and is a row a vertex's?"));
  odd = recording;
  std::mt19937 generator(1);
  std::shuffle(odd.truth.begin(), odd.truth.end(), generator);
  EXPECT_THAT(CompareWithTruth(odd), HasSubstr("are both in metres, and is a row a vertex's?"));
  for (auto& vertex : odd.graph.vertices) vertex.pose.v[0] += 1e3 * (vertex.id % 2);
  EXPECT_THAT(CompareWithTruth(odd), HasSubstr("no closer than one point would be"));
}

// A square, and that square stretched, by hand.
TEST(Plausibility, TheShareIsThatOfTheExtent) {
  Recording<PoseGraph2> recording;
  for (int i = 0; i < 4; ++i) {
    const double x = i == 1 || i == 2, y = i > 1;
    recording.graph.vertices.push_back({i, {{10 * x, 10 * y, 0}}});
    recording.truth.push_back({{{10 * x, 10 * y, 0}}});
    if (i == 0) continue;
    const auto information = PoseGraph2::Information::Identity();
    recording.graph.edges.push_back({i - 1, i, {{10, 0, 0}}, information});
  }
  EXPECT_EQ(
      CompareWithTruth(recording),
      "The graph's poses, aligned, are 0 m rms from the truth, 0 % of its extent. Its odometry "
      "is 1 times as long as the truth's way.\n");
  // Stretched by a half along x about the centre: errors of 2.5 m of an extent of sqrt(50).
  for (auto& v : recording.graph.vertices) v.pose.v[0] *= 1.5;
  EXPECT_THAT(CompareWithTruth(recording),
              HasSubstr("are 2.5 m rms from the truth, 35.4 % of its"));
}

}  // namespace
}  // namespace examples
