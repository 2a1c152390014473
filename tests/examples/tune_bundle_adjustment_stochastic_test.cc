// The minibatch example on a cut of its scene: it ends near the exact method.
#include <cstdlib>
#include <string>

#include "examples/run_example.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace bilevel {
namespace {

TEST(TuneBundleAdjustmentStochastic, EndsNearTheExactMethod) {
  const char* scene = "problem-16-22106-pre.txt";
  BILEVEL_REQUIRE_DATA(scene);
  const std::string example = ExamplePath("tune_bundle_adjustment_stochastic");
  if (example.empty()) GTEST_SKIP() << "the examples were not built";
  const std::string out = testing::TempDir() + "tune_bundle_adjustment_stochastic.json";
  const std::string command =
      "'" + example + "' --quick --summary_json='" + out + "' '" + DataPath(scene) + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  const std::string json = ReadText(out);
  const double exact = JsonNumber(json, "exact", "validation");
  const double start = JsonNumber(json, "", "start_validation");
  // Nine tenths of what there is to be gained.
  EXPECT_LT(JsonNumber(json, "slip", "validation") - exact, 0.1 * (start - exact));
  EXPECT_GT(start, exact);
  EXPECT_NEAR(JsonNumber(json, "slip", "scale") / JsonNumber(json, "exact", "scale"), 1.0, 0.4);
}

TEST(TuneBundleAdjustmentStochastic, SaysWhatIsWrong) {
  const std::string example = ExamplePath("tune_bundle_adjustment_stochastic");
  if (example.empty()) GTEST_SKIP() << "the examples were not built";
  const std::string log = testing::TempDir() + "tune_bundle_adjustment_stochastic.log";
  EXPECT_NE(std::system(("'" + example + "' no_such_file >'" + log + "' 2>&1").c_str()), 0);
  EXPECT_NE(ReadText(log).find("no_such_file"), std::string::npos) << ReadText(log);
}

}  // namespace
}  // namespace bilevel
