// The example on a cut of its scene: what it promises on the whole one, read off its JSON.
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "../test_data.h"
#include "gtest/gtest.h"

namespace {

// The example's executable, in the same build as this one; empty where it was not built.
std::string Example() {
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self));
  if (length <= 0) return "";
  const std::string path(self, length);
  const std::string build = path.substr(0, path.rfind('/', path.rfind('/') - 1));
  const std::string example = build + "/examples/tune_bundle_adjustment";
  return std::ifstream(example).good() ? example : "";
}

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The number `key` of the object `object`, or of the whole where that is empty.
double Number(const std::string& json, const std::string& object, const std::string& key) {
  size_t at = object.empty() ? 0 : json.find("\"" + object + "\": {");
  if (at != std::string::npos) at = json.find("\"" + key + "\": ", at);
  if (at == std::string::npos) {
    ADD_FAILURE() << "no " << object << " " << key;
    return 0.0;
  }
  return std::strtod(json.c_str() + at + key.size() + 4, nullptr);
}

TEST(TuneBundleAdjustment, QuickRunKeepsItsPromises) {
  const char* scene = "problem-16-22106-pre.txt";
  BILEVEL_REQUIRE_DATA(scene);
  const std::string example = Example();
  if (example.empty()) GTEST_SKIP() << "the examples were not built";
  const std::string out = testing::TempDir() + "tune_bundle_adjustment";
  const std::string command = "'" + example + "' --quick --bal='" + bilevel::DataPath(scene) +
                              "' --summary_json='" + out + ".json' --trace_csv='" + out + ".csv'";
  ASSERT_EQ(std::system(command.c_str()), 0);

  const std::string json = ReadFile(out + ".json");
  const double validation = Number(json, "cauchy", "validation");
  EXPECT_LE(validation, 1.005 * Number(json, "best_of_grid", "validation"));
  EXPECT_LE(Number(json, "cauchy", "test"), 0.975 * Number(json, "no_loss", "test"));
  EXPECT_LE(Number(json, "cauchy", "lower_solves"), 12);
  EXPECT_LE(Number(json, "barron", "validation"), 1.005 * validation);
  EXPECT_EQ(Number(json, "", "free_directions"), 7);
  EXPECT_NE(json.find("new ceres::CauchyLoss("), std::string::npos);

  // The trace: a header, and as many columns in every line.
  std::istringstream trace(ReadFile(out + ".csv"));
  std::string line;
  int lines = 0;
  long columns = 0;
  for (; std::getline(trace, line); ++lines) {
    const long here = std::count(line.begin(), line.end(), ',');
    if (lines == 0) columns = here;
    EXPECT_EQ(here, columns);
  }
  EXPECT_GE(lines, 4);
}

TEST(TuneBundleAdjustment, BadScenesAreNamedByLine) {
  const std::string example = Example();
  if (example.empty()) GTEST_SKIP() << "the examples were not built";
  const std::string scene = testing::TempDir() + "bad_scene.txt";
  std::ofstream(scene) << "1 1 2\n0 0 1.5 2.5\n0 1 3.5 4.5\n";
  const std::string log = testing::TempDir() + "bad_scene.log";
  const std::string command = "'" + example + "' '" + scene + "' >'" + log + "' 2>&1";
  EXPECT_NE(std::system(command.c_str()), 0);
  EXPECT_NE(ReadFile(log).find(":3: the point of observation 1 is 1"), std::string::npos)
      << ReadFile(log);
}

}  // namespace
