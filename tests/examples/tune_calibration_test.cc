// The example in its quick form: what it promises, read off its JSON.
#include <cstdlib>
#include <fstream>
#include <string>

#include "examples/run_example.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace bilevel {
namespace {

std::string Calibrate(const std::string& corners) {
  const std::string out = testing::TempDir() + "tune_calibration.json";
  const std::string command = "'" + ExamplePath("bilevel-tune") + "' calibration --quick " +
                              corners + " --json='" + out + "'";
  EXPECT_TRUE(EndsWithVerdict(command)) << command;
  return ReadText(out);
}

// Entry i of a matrix.
double YamlEntry(const std::string& yaml, const std::string& name, int i) {
  const std::string matrix = yaml.substr(yaml.find("\n" + name + ": !!opencv-matrix"));
  return JsonEntry("\"data\": " + matrix.substr(matrix.find('[')), "data", i);
}

// Than the best of the usual choices in hindsight; one partition tells no more than its standard
// error.
void ExpectNotWorse(const std::string& json) {
  const double error = JsonNumber(json, "", "standard_error");
  EXPECT_LE(JsonNumber(json, "", "learned_rms"),
            (1.0 + 2.0 * error) * JsonNumber(json, "", "best_hand_rms"));
  EXPECT_LE(error, 0.02);
}

// The simulated cameras have k1, k2, p1 and p2, and no k3.
TEST(TuneCalibration, KeepsTheTermsThatTheSimulatedCamerasHave) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string yaml = testing::TempDir() + "stereo.yml";
  const std::string json = Calibrate("--simulate --output='" + yaml + "'");
  for (const char* term : {"k1", "k2", "p1, p2"}) EXPECT_EQ(JsonNumber(json, term, "keep"), 1);
  EXPECT_EQ(JsonNumber(json, "k3", "keep"), 0);
  ExpectNotWorse(json);
  EXPECT_NEAR(JsonNumber(json, "", "left_focal"), 536.0, 3.0);
  EXPECT_NEAR(JsonNumber(json, "", "left_k1"), -0.28, 0.02);
  // As OpenCV reads it, row by row.
  const std::string text = ReadText(yaml);
  EXPECT_NEAR(YamlEntry(text, "M1", 0), 536.0, 3.0);
  EXPECT_NEAR(YamlEntry(text, "M1", 5), 235.0, 3.0);
  EXPECT_NEAR(YamlEntry(text, "M2", 2), 327.0, 3.0);
  EXPECT_NEAR(YamlEntry(text, "D1", 0), -0.28, 0.02);
  EXPECT_NEAR(YamlEntry(text, "T", 0), -3.3, 0.02);
  // A small turn w is 1 + [w]x.
  EXPECT_NEAR(YamlEntry(text, "R", 3), -0.004, 0.003);
  EXPECT_NEAR(YamlEntry(text, "R", 1), 0.004, 0.003);
}

TEST(TuneCalibration, OnRealCornersNotWorseThanTheUsualChoices) {
  const char* corners = "calib_opencv/corners.csv";
  BILEVEL_REQUIRE_DATA(corners);
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = Calibrate("'" + DataPath(corners) + "'");
  ExpectNotWorse(json);
  for (const char* term : {"k1", "k2"}) EXPECT_EQ(JsonNumber(json, term, "keep"), 1);
  EXPECT_EQ(JsonNumber(json, "k3", "keep"), 0);
}

TEST(TuneCalibration, BadCornersAreNamedByLine) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string path = testing::TempDir() + "bad_corners.csv";
  std::ofstream(path) << "side,view,corner,col,row,u,v\nleft,1,0,0,0,1.5,2.5\nleft,1,1,0,0,1.5\n";
  const std::string log = testing::TempDir() + "bad_corners.log";
  const std::string command =
      "'" + ExamplePath("bilevel-tune") + "' calibration '" + path + "' >'" + log + "' 2>&1";
  EXPECT_NE(std::system(command.c_str()), 0);
  EXPECT_NE(ReadText(log).find("bad_corners.csv:3:"), std::string::npos) << ReadText(log);
}

}  // namespace
}  // namespace bilevel
