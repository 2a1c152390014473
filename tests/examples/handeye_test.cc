// The example on simulated streams, whose offset and poses are known; its reader.
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

#include "ceres/rotation.h"
#include "examples/run_example.h"
#include "examples/support/slam/pose_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

TEST(HandEye, OffsetAndPosesAreRecovered) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string out = testing::TempDir() + "handeye.json";
  const std::string command = "'" + ExamplePath("bilevel-tune") +
                              "' handeye --simulate --quick --baselines --json='" + out + "'";
  ASSERT_TRUE(EndsWithVerdict(command)) << command;
  const std::string json = ReadText(out);
  EXPECT_NEAR(JsonNumber(json, "time offset", "value"), 0.137, 0.004);
  EXPECT_LT(JsonNumber(json, "time offset", "low"), 0.137);
  EXPECT_GT(JsonNumber(json, "time offset", "high"), 0.137);
  // Of the inliers, 0.0105 rad and 4 mm; the distribution's tail takes its share.
  EXPECT_NEAR(JsonNumber(json, "rotation sigma", "value"), 0.0105, 0.2 * 0.0105);
  EXPECT_NEAR(JsonNumber(json, "position sigma", "value"), 0.004, 0.2 * 0.004);
  const double likelihood = JsonNumber(json, "learned", "likelihood");
  EXPECT_LT(likelihood, JsonNumber(json, "offset of turning", "likelihood") - 1.0);
  EXPECT_NEAR(likelihood, JsonNumber(json, "Nelder and Mead", "likelihood"), 0.02);
  EXPECT_LT(JsonNumber(json, "verdict", "high"), 0.0);
  EXPECT_NEAR(JsonEntry(json, "hand_eye", 3), 0.05, 0.003);
  EXPECT_NEAR(JsonEntry(json, "hand_eye", 5), 0.08, 0.003);
}

std::string ErrorOf(const std::string& text) {
  const std::string path = testing::TempDir() + "poses.csv";
  std::ofstream(path) << text;
  examples::PoseStream stream;
  std::string error;
  EXPECT_FALSE(examples::ReadPoseStream(path, &stream, &error));
  return error;
}

TEST(PoseStream, MistakesAreNamedByLine) {
  EXPECT_THAT(ErrorOf("0, 1\n"), HasSubstr("poses.csv:1: 2 columns, not 12 (KITTI), 8 (TUM)"));
  EXPECT_THAT(ErrorOf("# t\n0, 1, 2, 3, 0, 0, 0, 2\n"), HasSubstr(":2: the quaternion is not"));
  EXPECT_THAT(ErrorOf("0,1,2,3,0,0,0,1\n1,1,2,3,0,0,0,1,7\n"), HasSubstr(":2: 9 columns, not 8"));
  EXPECT_THAT(ErrorOf("0,1,2,nan,0,0,0,1\n"), HasSubstr(":1: tz is \"nan\""));
  EXPECT_THAT(ErrorOf("0,1,2,3,0,0,0,1\n"), HasSubstr("poses.csv: five poses at least"));
}

// Between samples of a steady turn and a cubic in time nothing is lost but the fourth order.
TEST(PoseStream, Interpolation) {
  examples::PoseStream stream;
  for (int i = 0; i < 8; ++i) {
    const double t = 0.1 * i + (i % 2) * 0.02;
    stream.poses.push_back(
        {t, {std::cos(0.5 * t), 0.0, 0.0, std::sin(0.5 * t)}, {t * t * t, 1.0 - t, 2.0}});
  }
  for (const double t : {0.13, 0.2, 0.35, 0.59}) {
    ASSERT_TRUE(stream.Covers(t));
    double q[4], p[3];
    stream.Interpolate(t, q, p);
    EXPECT_NEAR(q[0], std::cos(0.5 * t), 1e-6);
    EXPECT_NEAR(q[3], std::sin(0.5 * t), 1e-6);
    EXPECT_NEAR(p[0], t * t * t, 1e-14);
    EXPECT_NEAR(p[1], 1.0 - t, 1e-14);
    EXPECT_NEAR(q[0] * q[0] + q[3] * q[3], 1.0, 1e-14);
  }
  EXPECT_FALSE(stream.Covers(0.0));
}

}  // namespace
}  // namespace bilevel
