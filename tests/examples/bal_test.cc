// Scenes for bundle adjustment: three formats read, one written, and what is wrong with a file
// named by its line or byte; what is left out with an unknown of its own.
#include "examples/support/bundle_adjustment/bal.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ceres/ceres.h"
#include "examples/support/left_out_cost.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace examples {
namespace {

using testing::HasSubstr;

double Rms(const BalScene& scene) {
  double sum = 0.0, r[2];
  for (const auto& o : scene.observations) {
    ReprojectionError{o.u, o.v}(scene.cameras[o.camera].data(), scene.points[o.point].data(), r);
    sum += r[0] * r[0] + r[1] * r[1];
  }
  return std::sqrt(sum / static_cast<double>(scene.observations.size()));
}

// libmv's bytes, word by word.
struct Bytes {
  void Word(const void* word) {
    char bytes[4];
    std::memcpy(bytes, word, 4);
    for (int i = 0; i < 4; ++i) text += bytes[big_endian ? 3 - i : i];  // On a little-endian host.
  }
  void Int(int value) { Word(&value); }
  void Floats(const std::vector<float>& values) {
    for (const float& value : values) Word(&value);
  }
  bool big_endian = false;
  std::string text;
};

// Two cameras that look along z, the second turned by a quarter about it, and a point at depth 4:
// at 1000 (0.5, 0.25) / 4 from the centre in the first, and turned likewise in the second. A third
// marker has no track.
Bytes TinyScene(bool big_endian) {
  Bytes b;
  b.big_endian = big_endian;
  b.text = big_endian ? "VP" : "vP";
  b.Floats({1000, 320, 240, 0, 0, 0, 0, 0});
  b.Int(2);
  b.Int(7);
  b.Floats({1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0});
  b.Int(3);
  b.Floats({0, 1, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0});  // Column-major: x becomes y, y becomes -x.
  b.Int(1);
  b.Int(5);
  b.Floats({0.5f, 0.25f, 4});
  b.Int(3);
  b.Int(7);
  b.Int(5);
  b.Floats({320 + 125, 240 + 62.5f});
  b.Int(3);
  b.Int(5);
  b.Floats({320 - 62.5f, 240 + 125});
  b.Int(3);
  b.Int(6);
  b.Floats({1, 1});
  return b;
}

std::string Write(const std::string& bytes) {
  const std::string path = testing::TempDir() + "scene.bin";
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string ErrorOf(const std::string& bytes) {
  BalScene scene;
  std::string error;
  EXPECT_FALSE(ReadScene(Write(bytes), &scene, &error));
  return error;
}

TEST(SceneFile, LibmvOfEitherByteOrder) {
  for (const bool big_endian : {false, true}) {
    BalScene scene;
    std::string error;
    ASSERT_TRUE(ReadScene(Write(TinyScene(big_endian).text), &scene, &error)) << error;
    ASSERT_EQ(scene.cameras.size(), 2u);
    ASSERT_EQ(scene.points.size(), 1u);
    ASSERT_EQ(scene.observations.size(), 2u);  // The third marker's track is not reconstructed.
    EXPECT_TRUE(scene.fixed_intrinsics);
    EXPECT_LT(Rms(scene), 1e-4);
    double p[3];
    ToCamera(scene.cameras[1].data(), scene.points[0].data(), p);
    EXPECT_NEAR(p[2], -4.0, 1e-6);  // In front.
  }
}

TEST(SceneFile, LibmvMistakesAreNamed) {
  const std::string good = TinyScene(false).text;
  const auto with = [&](size_t at, float value) {
    std::string bytes = good;
    std::memcpy(&bytes[at], &value, 4);
    return bytes;
  };
  EXPECT_THAT(ErrorOf("vN" + good.substr(2)), HasSubstr("scene.bin, byte 1: the markers are not"));
  EXPECT_THAT(ErrorOf(with(2, -1.0f)), HasSubstr("byte 2: the focal length is not positive"));
  EXPECT_THAT(ErrorOf(with(6, NAN)), HasSubstr("byte 6: cx is not a finite number"));
  EXPECT_THAT(ErrorOf(with(22, 0.5f)), HasSubstr("byte 22: k3 is not 0"));
  EXPECT_THAT(ErrorOf(with(42, 2.0f)), HasSubstr("the rotation of camera 0 is none"));
  EXPECT_THAT(ErrorOf(with(34, 1e30f)), HasSubstr("byte 34: 1900671690 cameras are more than"));
  EXPECT_THAT(ErrorOf(good + "x"), HasSubstr("something follows the last marker"));
  EXPECT_THAT(ErrorOf(good.substr(0, good.size() - 4)), HasSubstr("3 markers are more than"));
  EXPECT_THAT(ErrorOf(good.substr(0, 20)), HasSubstr("the file ends where k2 should be"));
  std::string twice = good;
  twice.replace(38 + 52, 4, good, 38, 4);  // The second camera's image is the first's.
  EXPECT_THAT(ErrorOf(twice), HasSubstr("the image of camera 1, 7, has come before"));
  BalScene scene;
  std::string error;
  EXPECT_FALSE(ReadScene(testing::TempDir() + "absent.bin", &scene, &error));
  EXPECT_THAT(error, HasSubstr("absent.bin cannot be read"));
}

TEST(SceneFile, NothingIsLostInBal) {
  BalScene scene, back;
  std::string error;
  ASSERT_TRUE(ReadScene(Write(TinyScene(false).text), &scene, &error));
  const std::string path = testing::TempDir() + "scene.txt";
  ASSERT_TRUE(WriteBal(scene, path, &error)) << error;
  ASSERT_TRUE(ReadScene(path, &back, &error)) << error;
  EXPECT_EQ(back.cameras, scene.cameras);
  EXPECT_EQ(back.points, scene.points);
  ASSERT_EQ(back.observations.size(), scene.observations.size());
  EXPECT_EQ(back.observations[1].camera, scene.observations[1].camera);
  EXPECT_EQ(back.observations[1].u, scene.observations[1].u);
  EXPECT_FALSE(WriteBal(scene, "/absent/scene.txt", &error));
  EXPECT_THAT(error, HasSubstr("/absent/scene.txt cannot be written"));
}

// Camera solves of a film, which fit to about a pixel.
TEST(SceneFile, LibmvSolvesFit) {
  BILEVEL_REQUIRE_DATA("ba/problem_01.bin");
  BILEVEL_REQUIRE_DATA("ba/problem_02.bin");
  BalScene scene;
  std::string error;
  ASSERT_TRUE(ReadScene(bilevel::DataPath("ba/problem_01.bin"), &scene, &error)) << error;
  EXPECT_EQ(scene.cameras.size(), 333u);
  EXPECT_EQ(scene.points.size(), 26u);
  EXPECT_EQ(scene.observations.size(), 5421u);
  EXPECT_LT(Rms(scene), 1.5);
  ASSERT_TRUE(ReadScene(bilevel::DataPath("ba/problem_02.bin"), &scene, &error)) << error;
  EXPECT_EQ(scene.observations.size(), 16718u);
  EXPECT_LT(Rms(scene), 1.0);  // With distortion.
}

// Two cameras of Bundler, the second turned by a quarter about the axis that it looks along, and
// one without a place; a point at depth 4. Pixels by hand: p = -P / P.z, then f (1 + k1 |p|^2) p.
// In the first p = (1/8, 1/4) and |p|^2 = 5/64; in the second P = (-1 + 1/4, 1/2, -4).
constexpr char kBundle[] =
    "# Bundle file v0.3\n"
    "3 1\n"
    "1000 0.5 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n"
    "0 0 0\n0 0 0\n0 0 0\n0 0 0\n0 0 0\n"
    "800 0 0\n0 -1 0\n1 0 0\n0 0 1\n0.25 0 0\n"
    "0.5 1 -4\n"
    "255 0 0\n"
    "3 0 7 129.8828125 259.765625 1 3 10 20 2 0 -150 100\n";

TEST(SceneFile, Bundler) {
  BalScene scene;
  std::string error;
  ASSERT_TRUE(ReadScene(Write(kBundle), &scene, &error)) << error;
  ASSERT_EQ(scene.cameras.size(), 2u);
  ASSERT_EQ(scene.points.size(), 1u);
  ASSERT_EQ(scene.observations.size(), 2u);
  EXPECT_EQ(scene.observations[1].camera, 1);
  EXPECT_FALSE(scene.fixed_intrinsics);
  EXPECT_LT(Rms(scene), 1e-9);
  EXPECT_EQ(scene.notes,
            testing::TempDir() +
                "scene.bin: 1 of 3 cameras have no place, and are left out with 1 "
                "observations.\n");
}

TEST(SceneFile, BundlersMistakesAreNamed) {
  const std::string good = kBundle;
  const auto with = [&](const std::string& old, const std::string& other) {
    std::string text = good;
    return text.replace(text.find(old), old.size(), other);
  };
  EXPECT_THAT(ErrorOf("# Bundle file v0.3\n"),
              HasSubstr("bin:2: the file ends where the number of"));
  EXPECT_THAT(ErrorOf(with("0 -1 0", "0 -2 0")),
              HasSubstr(":16: the rotation of camera 2 is none"));
  EXPECT_THAT(ErrorOf(with("3 0 7", "3 3 7")),
              HasSubstr(":20: a camera of point 0 is 3, not a whole"));
  EXPECT_THAT(ErrorOf(with("3 0 7", "4 0 7")), HasSubstr("ends where a camera of point 0"));
  EXPECT_THAT(ErrorOf(with("0.5 1 -4", "0.5 x -4")),
              HasSubstr(":18: a coordinate of point 0 is not"));
  EXPECT_THAT(ErrorOf(good + "7"), HasSubstr("something follows the last point"));
}

TEST(SceneFile, WhatMakesNoSenseIsSaid) {
  BalScene scene;
  std::string error;
  ASSERT_TRUE(ReadScene(Write("2 1 2\n0 0 1 2\n1 0 1 2\n0 0 0 0 0 0 500 0 0\n0 0 0 0 0 0 -500 0 0\n"
                              "1 2 3\n"),
                        &scene,
                        &error))
      << error;
  EXPECT_THAT(scene.notes, HasSubstr("1 of 2 cameras have a focal length that is not positive.\n"));
  EXPECT_THAT(scene.notes, HasSubstr("2 of 2 observations are of points behind their camera.\n"));
}

// The root mean square by Bundler's formula, computed apart from this from the file's matrices.
TEST(SceneFile, BundlerSolvesFit) {
  BILEVEL_REQUIRE_DATA("ba/Balbianello.out");
  BalScene scene;
  std::string error;
  ASSERT_TRUE(ReadScene(bilevel::DataPath("ba/Balbianello.out"), &scene, &error)) << error;
  EXPECT_EQ(scene.cameras.size(), 5u);
  EXPECT_EQ(scene.points.size(), 544u);
  EXPECT_EQ(scene.observations.size(), 1417u);
  EXPECT_NEAR(Rms(scene), 0.4232620627, 1e-6);
  EXPECT_EQ(scene.notes, "");
}

// y = (a, b, z): residuals a - z and b - z with the best z = (a + b) / 2 are +-(a - b) / 2, and
// their derivative is 1/2 -1/2 -1/2 1/2.
struct Difference {
  template <typename T>
  bool operator()(const T* a, const T* z, T* r) const {
    r[0] = a[0] - z[0];
    return true;
  }
};

TEST(LeftOutCost, TwoNumbersAndTheirMean) {
  const auto part =
      std::make_shared<ceres::AutoDiffCostFunction<Difference, 1, 1, 1>>(new Difference);
  const LeftOutCost cost(
      {{part, {0, LeftOutCost::kUnknown}}, {part, {1, LeftOutCost::kUnknown}}}, {1, 1}, {9.0});
  const double a = 3.0, b = 7.0;
  const double* y[] = {&a, &b};
  double r[2], by_a[2], by_b[2];
  double* jacobians[] = {by_a, by_b};
  ASSERT_TRUE(cost.Evaluate(y, r, jacobians));
  EXPECT_NEAR(r[0], -2.0, 1e-12);
  EXPECT_NEAR(r[1], 2.0, 1e-12);
  EXPECT_NEAR(by_a[0], 0.5, 1e-12);
  EXPECT_NEAR(by_a[1], -0.5, 1e-12);
  EXPECT_NEAR(by_b[0], -0.5, 1e-12);
  EXPECT_NEAR(by_b[1], 0.5, 1e-12);
}

// The gradient of |r|^2 of a track by its cameras, against central differences.
TEST(LeftOutCost, GradientOfATrack) {
  std::vector<std::array<double, 9>> cameras = {{0.01, 0.02, -0.01, 0.1, 0, -5, 500, -0.1, 0.01},
                                                {-0.02, 0.2, 0.01, 1.0, 0.1, -5, 510, -0.1, 0.02},
                                                {0.03, -0.2, 0.02, -1.0, 0.2, -5, 490, 0, 0}};
  const double observed[3][2] = {{31, 42}, {-62, 57}, {70, 61}};
  std::vector<LeftOutCost::Part> parts;
  for (int i = 0; i < 3; ++i) {
    parts.push_back({std::make_shared<ceres::AutoDiffCostFunction<ReprojectionError, 2, 9, 3>>(
                         new ReprojectionError{observed[i][0], observed[i][1]}),
                     {i, LeftOutCost::kUnknown}});
  }
  const LeftOutCost cost(parts, {9, 9, 9}, {0.2, 0.4, 0.1});
  double r[6];
  const double* y[] = {cameras[0].data(), cameras[1].data(), cameras[2].data()};
  std::vector<double> j[3];
  for (auto& block : j) block.resize(6 * 9);
  double* jacobians[] = {j[0].data(), j[1].data(), j[2].data()};
  ASSERT_TRUE(cost.Evaluate(y, r, jacobians));
  const auto half_square = [&] {
    double at[6], sum = 0.0;
    EXPECT_TRUE(cost.Evaluate(y, at, nullptr));
    for (const double value : at) sum += 0.5 * value * value;
    return sum;
  };
  EXPECT_GT(half_square(), 1.0);  // Not a perfect fit, where every gradient would be zero.
  for (int c = 0; c < 3; ++c) {
    for (int k = 0; k < 9; ++k) {
      double gradient = 0.0;
      for (int i = 0; i < 6; ++i) gradient += r[i] * j[c][i * 9 + k];
      const double value = cameras[c][k], h = 1e-5 * std::max(1.0, std::abs(value));
      cameras[c][k] = value + h;
      const double more = half_square();
      cameras[c][k] = value - h;
      const double less = half_square();
      cameras[c][k] = value;
      EXPECT_NEAR(gradient, (more - less) / (2.0 * h), 1e-6 * std::max(1.0, std::abs(gradient)));
    }
  }
}

}  // namespace
}  // namespace examples
