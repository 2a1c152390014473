// The example on few scenes: what it promises, read off its JSON. The demonstrations were made with
// a safety distance of 0.62 m and a sigma of 0.08 m.
#include <cstdlib>
#include <string>

#include "examples/run_example.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

std::string RunWith(const std::string& flags) {
  const std::string out = testing::TempDir() + "plan_motion.json";
  const std::string command =
      "'" + ExamplePath("plan_motion") + "' " + flags + " --summary_json='" + out + "'";
  EXPECT_TRUE(EndsWithVerdict(command)) << command;
  return ReadText(out);
}

TEST(PlanMotion, RecoversWhatTheDemonstratorKeepsTo) {
  if (ExamplePath("plan_motion").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = RunWith("--quick");
  EXPECT_NEAR(JsonNumber(json, "", "distance"), 0.62, 0.05 * 0.62);
  EXPECT_NEAR(JsonNumber(json, "", "sigma"), 0.08, 0.1 * 0.08);
  EXPECT_GE(JsonNumber(json, "", "reduction"), 0.9);
  EXPECT_GE(JsonNumber(json, "", "reduction_in_class"), 0.9);
  EXPECT_EQ(JsonNumber(json, "learned", "other_class"), 0);
  EXPECT_LT(JsonNumber(json, "learned", "rms"), JsonNumber(json, "best of the grid", "rms"));
}

// Nearly blind to obstacles, most plans begin in another homotopy class than their demonstration:
// they are set aside, and none is left out in the end.
TEST(PlanMotion, ScenesInAnotherHomotopyClassComeBack) {
  if (ExamplePath("plan_motion").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json =
      RunWith("--train=8 --test=1 --start_distance=0.2 --start_sigma=0.5 --nogrid");
  EXPECT_GE(JsonNumber(json, "", "set_aside"), 1);
  EXPECT_EQ(JsonNumber(json, "", "left_out"), 0);
  EXPECT_GE(JsonNumber(json, "", "rounds"), 2);
  EXPECT_NEAR(JsonNumber(json, "", "distance"), 0.62, 0.05 * 0.62);
}

// A demonstrator who keeps 0.15 m whatever it costs: the constraint finds that and his plans; of
// the penalty the best is nearer to obstacles than he was by a tenth of it, and farther off his
// plans.
TEST(PlanMotion, AConstraintFindsAClearanceThatAPenaltyViolates) {
  if (ExamplePath("plan_motion").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = RunWith("--hard --quick");
  EXPECT_NEAR(JsonNumber(json, "constraint", "distance"), 0.15, 0.01 * 0.15);
  EXPECT_LT(JsonNumber(json, "constraint", "violation"), 0.01 * 0.15);
  EXPECT_GT(JsonNumber(json, "penalty", "violation"), 0.1 * 0.15);
  EXPECT_LT(JsonNumber(json, "constraint", "rms"), 0.1 * JsonNumber(json, "penalty", "rms"));
}

// A clearance that closes gaps leaves no plan there: such a scene waits until it is smaller.
TEST(PlanMotion, ScenesWithoutAnyPlanComeBack) {
  if (ExamplePath("plan_motion").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = RunWith("--hard --train=5 --test=1 --jitter=0 --start_distance=0.6");
  EXPECT_GE(JsonNumber(json, "constraint", "set_aside"), 1);
  EXPECT_EQ(JsonNumber(json, "constraint", "left_out"), 0);
  EXPECT_NEAR(JsonNumber(json, "constraint", "distance"), 0.15, 1e-6);
}

}  // namespace
}  // namespace bilevel
