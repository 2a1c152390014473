// The example in its quick form of 20 iterations, however long they take, on images that it draws
// itself: learning pays on unseen ones.
#include <cmath>
#include <cstdlib>
#include <string>

#include "examples/run_example.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

TEST(DenoiseImage, LearnedFiltersBeatTotalVariation) {
  if (ExamplePath("denoise_image").empty()) GTEST_SKIP() << "the examples were not built";
  const std::string out = testing::TempDir() + "denoise_image";
  const std::string command = "'" + ExamplePath("denoise_image") +
                              "' --quick --minutes=30 --images=/none --out='" + out +
                              "' --summary_json='" + out + ".json'";
  ASSERT_TRUE(EndsWithVerdict(command)) << command;
  const std::string json = ReadText(out + ".json");
  EXPECT_EQ(JsonNumber(json, "", "drawn"), 1);
  const double noisy = JsonNumber(json, "noisy", "psnr");
  EXPECT_NEAR(noisy, 20.0 * std::log10(255.0 / 25.0), 0.5);
  const double best = JsonNumber(json, "total variation, best", "psnr");
  EXPECT_GE(best, noisy + 4.0);
  EXPECT_GE(best, JsonNumber(json, "total variation, by hand", "psnr"));
  EXPECT_GE(JsonNumber(json, "learned filters", "psnr"), best + 0.6);
  EXPECT_GT(JsonNumber(json, "learned filters", "ssim"),
            JsonNumber(json, "total variation, best", "ssim"));
  EXPECT_LT(JsonNumber(json, "learning learned filters", "final"),
            JsonNumber(json, "learning cosine filters", "final"));
  EXPECT_EQ(ReadText(out + "_denoised.png").substr(1, 3), "PNG");
  EXPECT_EQ(ReadText(out + "_filters.png").substr(1, 3), "PNG");
  EXPECT_NE(ReadText(out + "_prior.h").find("constexpr double f[24][25]"), std::string::npos);
}

TEST(DenoiseImage, NonsenseIsNamed) {
  if (ExamplePath("denoise_image").empty()) GTEST_SKIP() << "the examples were not built";
  for (const char* flags : {"--crop=8", "--sigma=0", "--images=/dev/null"}) {
    const std::string command = "'" + ExamplePath("denoise_image") + "' " + flags + " 2>/dev/null";
    EXPECT_NE(std::system(command.c_str()), 0) << flags;
  }
}

}  // namespace
}  // namespace bilevel
