// Files and names made to do harm: none is taken for what it is not, and nothing of them reaches a
// terminal, gnuplot or JSON but as text.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "examples/run_example.h"
#include "examples/support/bundle_adjustment/bal.h"
#include "examples/support/learning/abalone.h"
#include "examples/support/learning/libsvm.h"
#include "examples/support/learning/runs.h"
#include "examples/support/plot.h"
#include "examples/support/slam/g2o.h"
#include "examples/support/slam/pose_stream.h"
#include "examples/support/slam/range_slam.h"
#include "examples/support/slam/trajectory.h"
#include "examples/support/table.h"
#include "examples/support/text.h"
#include "examples/support/vision/calibration.h"
#include "examples/support/vision/image.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace examples {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Write(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

// What reading `text` says; empty where it is accepted.
template <typename Data>
std::string ErrorOf(bool (*read)(const std::string&, Data*, std::string*),
                    const std::string& name,
                    const std::string& text) {
  Data data;
  std::string error;
  const bool accepted = read(Write(name, text), &data, &error);
  EXPECT_EQ(accepted, error.empty()) << error;
  return error;
}

bool ReadSamples(const std::string& path, SparseSamples* samples, std::string* error) {
  return ReadLibsvm(path, {0, 1}, 1, 0, samples, error);
}

// The text is accepted without its '@' and refused with a NUL there.
template <typename Data>
void ExpectNoNul(bool (*read)(const std::string&, Data*, std::string*),
                 const std::string& name,
                 std::string text) {
  std::string without = text;
  without.erase(without.find('@'), 1);
  EXPECT_EQ(ErrorOf(read, name, without), "");
  text[text.find('@')] = '\0';
  EXPECT_THAT(ErrorOf(read, name, text), HasSubstr(name)) << text;
}

// C's functions take a NUL for the end of a text, and "5\0garbage" for 5.
TEST(HostileFiles, NulEndsNoNumber) {
  ExpectNoNul(ReadAbalone, "nul.csv", "M,1,2,3@4,4,5,6,7,8\n");
  ExpectNoNul(ReadScene, "nul.txt", "0 1 0\n1 2 3@4\n");
  ExpectNoNul(ReadStereoCorners, "nul.csv", "header\nleft,one,0,1,2,3@4,4\n");
  ExpectNoNul(ReadPoseGraph, "nul.g2o", "VERTEX_SE2 0 1 2@3 4\n");
  ExpectNoNul(ReadPoseGraph, "nul.g2o", "VERTEX_SE2 0@1 1 2 4\n");
  ExpectNoNul(ReadImages, "nul.pgm", "P5 1@ 1 255\na");
  ExpectNoNul(ReadSamples, "nul.libsvm", "1 2:3@4\n");
  ExpectNoNul(ReadPoseStream,
              "nul.csv",
              "0,0,0,0,0,0,0,1\n1,0,0,0,0,0,0,1\n2,0,0,0,0,0,0,1\n3,0,0,0,0,0,0,1\n"
              "4,5@6,0,0,0,0,0,1\n");
  ExpectNoNul(ReadTrajectory, "nul.txt", "1 2@3 4\n");
}

TEST(HostileFiles, BeaconsFitAnInt) {
  const std::string prefix = testing::TempDir() + "beacon";
  const auto read = [&](const std::string& beacon, RangeSlam* data) {
    Write("beacon_TL.txt", beacon + " 1 2\n");
    Write("beacon_DR.txt", "0 0 0\n");
    Write("beacon_GT.txt", "0 0 0 0\n");
    Write("beacon_TD.txt", "0 0 " + beacon + " 1\n");
    std::string error;
    ReadRangeSlam(prefix, data, &error);
    return error;
  };
  RangeSlam data;
  EXPECT_EQ(read("2147483647", &data), "");
  ASSERT_EQ(data.beacons.size(), 1u);
  EXPECT_EQ(data.beacons[0].id, std::numeric_limits<int>::max());
  for (const char* beacon : {"2e43", "2147483648", "-1e300", "0.5"}) {
    EXPECT_THAT(read(beacon, &data),
                HasSubstr("beacon_TL.txt:1: the beacon is not a whole number"));
  }
}

// An index beyond an int would wrap round to a negative column.
TEST(HostileFiles, IndicesOfFeaturesAreBounded) {
  EXPECT_THAT(ErrorOf(ReadSamples, "a.libsvm", "1 5000000000:1\n"),
              HasSubstr("a.libsvm:1: \"5000"));
  EXPECT_THAT(ErrorOf(ReadSamples, "a.libsvm", "1 0:1\n"), HasSubstr("an index from 1 to 4194304"));
  EXPECT_THAT(ErrorOf(ReadSamples, "a.libsvm", "1 2:1 2:1\n"), HasSubstr("an index from 3"));
  EXPECT_THAT(ErrorOf(ReadSamples, "a.libsvm", "1 1:nan\n"), HasSubstr("a finite number"));
  EXPECT_THAT(ErrorOf(ReadSamples, "a.libsvm", "1 1:2x\n"), HasSubstr("a finite number"));
  EXPECT_THAT(ErrorOf(ReadSamples, "a.libsvm", "1 1:0\n"), HasSubstr("has no length"));
  EXPECT_THAT(ErrorOf(ReadSamples, "a.libsvm", "7 1:1\n"), HasSubstr("there is no class 7"));
}

// Finite numbers whose sum or product is not.
TEST(HostileFiles, GraphsStayFinite) {
  const std::string far =
      "EDGE_SE2 0 1 1e308 0 0 1 0 0 1 0 1\nEDGE_SE2 1 2 1e308 0 0 1 0 0 1 0 1\n";
  EXPECT_THAT(ErrorOf(ReadPoseGraph, "a.g2o", far),
              HasSubstr("the edges lead too far, to vertex 2"));
  const std::string steep =
      "EDGE3 0 1 0 0 0 0.3 1.5707963267948966 1.1 "
      "1 0 0 0 0 0 1 0 0 0 0 1 0 0 0 1e280 0 0 3 0 4\n";
  EXPECT_THAT(ErrorOf(ReadPoseGraph, "a.g2o", steep), HasSubstr("is lost at this pitch"));
}

// "\x1b[2J" clears a terminal's screen.
TEST(HostileFiles, MessagesArePrintable) {
  const std::string escape = "\x1b[2J\xff", shown = "?[2J?";
  EXPECT_THAT(ErrorOf(ReadPoseGraph, "a.g2o", escape), HasSubstr("unknown tag " + shown));
  EXPECT_THAT(ErrorOf(ReadPoseGraph, "a.g2o", "FIX " + escape), HasSubstr("\"" + shown + "\""));
  EXPECT_THAT(ErrorOf(ReadTrajectory, "a.txt", "1 2 " + escape), HasSubstr("\"" + shown + "\""));
  EXPECT_THAT(ErrorOf(ReadSamples, "a.txt", "1 " + escape), HasSubstr("\"" + shown + "\""));
  EXPECT_THAT(ErrorOf(ReadStereoCorners, "a.csv", "header\nleft," + escape + ",0,1,2,3,4"),
              HasSubstr("a.csv:2: the view's name"));
  std::string header = escape + ".pgm";
  header.resize(512, '\0');
  const std::string error = ErrorOf(ReadImages, "a.tar", header);
  EXPECT_THAT(error, HasSubstr("a.tar, " + shown + ".pgm cannot be read"));
  EXPECT_TRUE(IsPrintable(error));
  const std::string field(1000, '1');
  EXPECT_LT(ErrorOf(ReadTrajectory, "a.txt", "1 2 " + field + "x").size(), 300u);
}

// Rows of the file of runs reach tables and the keys of JSON.
TEST(HostileFiles, RowsOfRunsAreText) {
  const std::string path = Write("runs.csv",
                                 "setting,method,seed,seconds,f\ns,good,1,2,nan\n"
                                 "s,b\xff"
                                 "d,1,2,3\ns,b\x1b,1,2,3\ns,bad,1e300,2,3\ns,bad,1,2,3x\n");
  Runs runs;
  std::string error;
  ASSERT_TRUE(runs.Open(path, {"f"}, {}, &error)) << error;
  ASSERT_EQ(runs.runs().size(), 1u);
  EXPECT_EQ(runs.runs()[0].method, "good");
}

// In a gnuplot script a new line begins a command, and system runs what it is given.
TEST(HostileFiles, JsonIsUtf8) {
  const std::string json = Json().Add("caf\xc3\xa9 \xff", "\xc3(\n\"").ToString();
  EXPECT_EQ(json, "{\n\"caf\xc3\xa9 \\ufffd\": \"\\ufffd(\\u000a\\\"\"\n}\n");
}

TEST(HostileFiles, GnuplotGetsNoCommand) {
  const std::string victim = "by_gnuplot", folder = testing::TempDir();
  const std::string command = "\nsystem \"touch " + victim + "\"\n#";
  const std::vector<Panel> panels{
      {command, command, command, false, false, false, {{command, "lines", {0, 1}, {0, 1}}}}};
  std::remove(victim.c_str());
  EXPECT_FALSE(Plot(folder + "a" + command + ".svg", "title", panels));
  EXPECT_FALSE(std::ifstream(folder + "a" + command + ".gnuplot").good());
  EXPECT_TRUE(Plot(folder + "titles.svg", "'" + command, panels));
  const std::string script = bilevel::ReadText(folder + "titles.gnuplot");
  EXPECT_THAT(script, HasSubstr("title ''.\"'\".' system \"touch by_gnuplot\" #' font"));
  EXPECT_THAT(script, Not(HasSubstr("\nsystem")));
  EXPECT_FALSE(std::ifstream(victim).good());
}

// Whoever reads the output may leave before its end.
TEST(HostileFiles, AClosedPipeEndsNoRun) {
  const std::string example = bilevel::ExamplePath("filter_fusion");
  if (example.empty()) GTEST_SKIP() << "the examples were not built";
  const std::string out = testing::TempDir() + "closed_pipe.json", code = out + ".code";
  std::remove(out.c_str());
  const std::string command = "{ sleep 0.2; '" + example + "' --quick --summary_json='" + out +
                              "'; echo $? > '" + code + "'; } | true";
  EXPECT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(bilevel::ReadText(code), "0\n");
  EXPECT_THAT(bilevel::ReadText(out), HasSubstr("}"));
}

}  // namespace
}  // namespace examples
