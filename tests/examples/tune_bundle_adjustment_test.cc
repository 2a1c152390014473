// The example on a cut of its scene and on a simulated one: what it promises, read off its JSON.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "examples/run_example.h"
#include "examples/support/bundle_adjustment/bal.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace bilevel {
namespace {

std::string RunOn(const std::string& scene,
                  const std::string& flags,
                  const char* rule = "--nosafe ") {
  const std::string out = testing::TempDir() + "tune_bundle_adjustment";
  const std::string command = "'" + ExamplePath("bilevel-tune") + "' bundle-adjustment '" + scene +
                              "' " + rule + flags + " --json='" + out + ".json' --trace_csv='" +
                              out + ".csv'";
  EXPECT_TRUE(EndsWithVerdict(command)) << command;
  return ReadText(out + ".json");
}

TEST(TuneBundleAdjustment, QuickRunKeepsItsPromises) {
  const char* scene = "problem-16-22106-pre.txt";
  BILEVEL_REQUIRE_DATA(scene);
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = RunOn(DataPath(scene), "--quick --baselines");
  const double validation = JsonNumber(json, "cauchy", "validation");
  EXPECT_LE(validation, 1.005 * JsonNumber(json, "best_of_grid", "validation"));
  EXPECT_LE(JsonNumber(json, "cauchy", "test"), 0.975 * JsonNumber(json, "no_loss", "test"));
  EXPECT_LE(JsonNumber(json, "cauchy", "lower_solves"), 12);
  EXPECT_LE(JsonNumber(json, "barron", "validation"), 1.005 * validation);
  EXPECT_EQ(JsonNumber(json, "", "free_directions"), 7);
  EXPECT_NE(json.find("new ceres::CauchyLoss("), std::string::npos);

  // The trace: a header, and as many columns in every line.
  std::istringstream trace(ReadText(testing::TempDir() + "tune_bundle_adjustment.csv"));
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

// Cameras on an arc around points in a cube, one of them eight times as noisy as the best; one
// observation of twenty is an outlier.
constexpr int kCameras = 6, kPoints = 400;
constexpr double kNoise[kCameras] = {0.3, 0.3, 0.6, 0.6, 1.2, 2.4};

std::string SimulatedScene() {
  examples::BalScene scene;
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  for (int c = 0; c < kCameras; ++c) {
    const double angle = 0.25 * (c - 2.5);
    scene.cameras.push_back({0.02 * c, angle, 0.01, 0.1 * c, 0.05, -6.0, 800.0, -0.05, 0.01});
  }
  for (int p = 0; p < kPoints; ++p) {
    scene.points.push_back({uniform(generator), uniform(generator), uniform(generator)});
    for (int c = 0; c < kCameras; ++c) {
      double r[2];
      examples::ReprojectionError{0.0, 0.0}(scene.cameras[c].data(), scene.points.back().data(), r);
      const double sigma = generator() % 20 == 0 ? 15.0 : kNoise[c];
      for (double& value : r) value += sigma * normal(generator);
      scene.observations.push_back({c, p, r[0], r[1]});
    }
    for (double& value : scene.points.back()) value += 0.02 * normal(generator);
  }
  const std::string path = testing::TempDir() + "simulated_scene.txt";
  std::string error;
  EXPECT_TRUE(examples::WriteBal(scene, path, &error)) << error;
  return path;
}

TEST(TuneBundleAdjustment, NoiseOfCamerasIsRecovered) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string scene = SimulatedScene();
  for (const std::string holdout : {"observation", "track"}) {
    const std::string adjusted = testing::TempDir() + "adjusted_" + holdout + ".txt";
    std::remove(adjusted.c_str());
    const std::string json = RunOn(
        scene,
        "--per_camera --camera_prior=1 --baselines --holdout=" + holdout + " --output=" + adjusted);
    // As good as the simplex, in fewer solves, and better on unseen observations than equal noise,
    // outside of the interval. The adjustment has several minima near each other, and rounding
    // chooses among them: objectives within one percent are as good as each other, and the solves
    // have been 21 and 43.
    EXPECT_LE(JsonNumber(json, "per_camera", "objective"),
              1.01 * JsonNumber(json, "per_camera", "simplex_objective"));
    EXPECT_LT(JsonNumber(json, "per_camera", "lower_solves"),
              JsonNumber(json, "per_camera", "simplex_evaluations"));
    // Tracks judge the cameras alone, which are known well either way.
    const bool tracks = holdout == "track";
    if (tracks) {
      EXPECT_LT(JsonNumber(json, "to_by_hand", "low"), 0.0);
    } else {
      EXPECT_LT(JsonNumber(json, "to_by_hand", "high"), 0.0);
    }
    // Relative to the mean, within three standard errors, which say something.
    double mean = 0.0;
    for (const double noise : kNoise) mean += std::log(noise) / kCameras;
    for (int c = 0; c < kCameras; ++c) {
      const double error = JsonEntry(json, "standard_errors_of_log", c);
      EXPECT_NEAR(std::log(JsonEntry(json, "noise", c)), std::log(kNoise[c]) - mean, 3.0 * error)
          << holdout << " " << c;
      EXPECT_LT(error, tracks ? 1.0 : 0.5);
    }
    // Written back where it is to be used.
    examples::BalScene back;
    std::string error;
    const bool is_written = examples::ReadScene(adjusted, &back, &error);
    EXPECT_EQ(is_written, json.find("\"verdict\": \"use\"") != std::string::npos) << error;
    if (!is_written) continue;
    EXPECT_EQ(back.observations.size(), static_cast<size_t>(kCameras * kPoints));
  }
}

// By default the scale by hand is left only where validation tells.
TEST(TuneBundleAdjustment, TheSafeRule) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = RunOn(SimulatedScene(), "", "");
  EXPECT_EQ(JsonNumber(json, "cauchy", "solved"), 1);
  EXPECT_LE(JsonNumber(json, "cauchy", "validation"), JsonNumber(json, "by_hand", "validation"));
  EXPECT_LE(JsonNumber(json, "cauchy", "test"), 1.05 * JsonNumber(json, "by_hand", "test"));
}

// Without a prior, noise and scale have a common factor that no estimate depends on.
TEST(TuneBundleAdjustment, TheFlatDirectionIsNamed) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string json = RunOn(SimulatedScene(), "--per_camera --camera_prior=0");
  EXPECT_EQ(JsonNumber(json, "per_camera", "flat_directions"), 1);
  EXPECT_LT(JsonEntry(json, "standard_errors_of_log", 0), 1.0);  // Of the ratio to the mean.
}

TEST(TuneBundleAdjustment, BadScenesAreNamedByLine) {
  if (ExamplePath("bilevel-tune").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string scene = testing::TempDir() + "bad_scene.txt";
  std::ofstream(scene) << "1 1 2\n0 0 1.5 2.5\n0 1 3.5 4.5\n";
  const std::string log = testing::TempDir() + "bad_scene.log";
  const std::string command =
      "'" + ExamplePath("bilevel-tune") + "' bundle-adjustment '" + scene + "' >'" + log + "' 2>&1";
  EXPECT_NE(std::system(command.c_str()), 0);
  EXPECT_NE(ReadText(log).find(":3: the point of observation 1 is 1"), std::string::npos)
      << ReadText(log);
}

}  // namespace
}  // namespace bilevel
