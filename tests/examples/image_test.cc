// Images in and out, their scores against closed forms, and the energies' derivatives against
// differences.
#include "examples/support/vision/image.h"

#include <cmath>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "examples/support/vision/image_model.h"
#include "gtest/gtest.h"

namespace examples {
namespace {

Image Random(int width, int height, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int> level(0, 255);
  Image image(width, height);
  for (double& pixel : image.pixels) pixel = level(generator);
  return image;
}

TEST(Image, PngComesBack) {
  const Image image = Random(31, 17, 1);
  const std::string path = testing::TempDir() + "random.png";
  std::string error;
  ASSERT_TRUE(WritePng(path, image, &error)) << error;
  std::vector<Image> read;
  ASSERT_TRUE(ReadImages(path, &read, &error)) << error;
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(read[0].width, 31);
  EXPECT_EQ(read[0].pixels, image.pixels);
}

TEST(Image, PgmWithCommentAndBadFiles) {
  const std::string path = testing::TempDir() + "small.pgm";
  std::ofstream(path, std::ios::binary) << "P5 # two by one\n2 1\n255\n" << '\x07' << '\xff';
  std::vector<Image> read;
  std::string error;
  ASSERT_TRUE(ReadImages(path, &read, &error)) << error;
  EXPECT_EQ(read[0].pixels, (std::vector<double>{7.0, 255.0}));
  std::ofstream(path, std::ios::binary) << "P5 2 2 255\nab";
  EXPECT_FALSE(ReadImages(path, &read, &error));
  EXPECT_NE(error.find("small.pgm cannot be read: it ends early"), std::string::npos) << error;
  std::ofstream(path, std::ios::binary) << "P5 4294967297 1 255\na";  // 1 modulo 2^32.
  EXPECT_FALSE(ReadImages(path, &read, &error));
  EXPECT_FALSE(ReadImages("/none.png", &read, &error));
}

TEST(Image, ScoresHaveClosedForms) {
  const Image flat = [] {
    Image image(32, 32);
    for (double& pixel : image.pixels) pixel = 100.0;
    return image;
  }();
  Image shifted = flat;
  for (double& pixel : shifted.pixels) pixel += 10.0;
  EXPECT_NEAR(Psnr(shifted, flat), 20.0 * std::log10(25.5), 1e-12);
  EXPECT_NEAR(Ssim(flat, flat), 1.0, 1e-12);
  const double c1 = 2.55 * 2.55;  // Without variance, only the means count.
  EXPECT_NEAR(Ssim(shifted, flat), (2.0 * 110.0 * 100.0 + c1) / (110.0 * 110.0 + 1e4 + c1), 1e-9);
}

// Gradients and products of an energy along random directions in all blocks, against central
// differences whose error falls by four with half the step.
void CheckDerivatives(const bilevel::Objective& energy, std::vector<std::vector<double>> blocks) {
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  const size_t num = blocks.size();
  std::vector<std::vector<double>> direction = blocks, gradient = blocks, product = blocks;
  for (auto& block : direction) {
    for (double& d : block) d = normal(generator);
  }
  for (double& d : direction.back()) d *= 10.0;  // Pixels count in grey levels.
  const auto evaluate = [&](double step, std::vector<std::vector<double>>* g) {
    std::vector<std::vector<double>> moved = blocks;
    std::vector<const double*> in(num);
    std::vector<double*> out(num);
    for (size_t b = 0; b < num; ++b) {
      for (size_t i = 0; i < moved[b].size(); ++i) moved[b][i] += step * direction[b][i];
      in[b] = moved[b].data();
      out[b] = (*g)[b].data();
    }
    double value;
    EXPECT_TRUE(energy.Evaluate(in.data(), bilevel::Batch::All(), &value, out.data()));
    return value;
  };
  std::vector<const double*> in(num), along(num);
  std::vector<double*> out(num);
  for (size_t b = 0; b < num; ++b) {
    in[b] = blocks[b].data();
    along[b] = direction[b].data();
    out[b] = product[b].data();
  }
  ASSERT_TRUE(energy.HessianProduct(in.data(), bilevel::Batch::All(), along.data(), out.data()));
  evaluate(0.0, &gradient);
  double slope = 0.0;
  for (size_t b = 0; b < num; ++b) {
    for (size_t i = 0; i < blocks[b].size(); ++i) slope += gradient[b][i] * direction[b][i];
  }
  double value_error[2], product_error[2], norm = 0.0;
  auto ahead = blocks, behind = blocks;
  for (int k = 0; k < 2; ++k) {
    const double step = 5e-4 / (1 << k);
    const double difference = evaluate(step, &ahead) - evaluate(-step, &behind);
    value_error[k] = std::abs(difference / (2.0 * step) - slope);
    product_error[k] = norm = 0.0;
    for (size_t b = 0; b < num; ++b) {
      for (size_t i = 0; i < blocks[b].size(); ++i) {
        const double d = (ahead[b][i] - behind[b][i]) / (2.0 * step);
        product_error[k] += std::pow(d - product[b][i], 2);
        norm += std::pow(product[b][i], 2);
      }
    }
    product_error[k] = std::sqrt(product_error[k]);
  }
  EXPECT_LT(value_error[1], 1e-4 * std::abs(slope));
  EXPECT_LT(product_error[1], 1e-3 * std::sqrt(norm));
  EXPECT_NEAR(product_error[0] / product_error[1], 4.0, 0.4);
}

TEST(ImageModel, FieldsOfExpertsHaveRightDerivatives) {
  const int n = FieldsOfExperts::kFilters;
  std::mt19937 generator(2);
  std::normal_distribution<double> normal;
  std::vector<double> weights(n), coefficients(n * n);
  for (double& w : weights) w = 1.0 + 0.3 * normal(generator);
  for (double& c : coefficients) c = 0.01 * normal(generator);
  CheckDerivatives(FieldsOfExperts(11, 8), {weights, coefficients, Random(11, 8, 5).pixels});
}

// The product in the pixels alone remembers where it was.
TEST(ImageModel, FieldsOfExpertsProductInPixels) {
  const int n = FieldsOfExperts::kFilters, width = 21, height = 9;
  const FieldsOfExperts energy(width, height);
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  std::vector<double> weights(n), coefficients(n * n);
  std::vector<double> by_weights(n), one(width * height), both(width * height);
  for (double& w : weights) w = 1.0 + 0.3 * normal(generator);
  for (double& c : coefficients) c = 0.01 * normal(generator);
  for (unsigned k = 0; k < 4; ++k) {
    const Image u = Random(width, height, 4 + k / 2), du = Random(width, height, 8 + k);
    const double* at[] = {weights.data(), coefficients.data(), u.pixels.data()};
    const double* along[] = {nullptr, nullptr, du.pixels.data()};
    double* in_pixels[] = {nullptr, nullptr, one.data()};
    double* in_both[] = {by_weights.data(), nullptr, both.data()};
    ASSERT_TRUE(energy.HessianProduct(at, bilevel::Batch::All(), along, in_pixels));
    ASSERT_TRUE(energy.HessianProduct(at, bilevel::Batch::All(), along, in_both));
    for (int i = 0; i < width * height; ++i)
      EXPECT_NEAR(one[i], both[i], 1e-12 * std::abs(both[i]) + 1e-10);
    weights[k] += 0.1;
    coefficients[k] += 0.1;
  }
}

TEST(ImageModel, TotalVariationHasRightDerivatives) {
  CheckDerivatives(TotalVariation(9, 7), {{2.0, 3.0}, Random(9, 7, 5).pixels});
}

}  // namespace
}  // namespace examples
