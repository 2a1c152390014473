// Images and labels in the IDX format, and what is said of files that are not.
#include "examples/support/learning/idx.h"

#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace examples {
namespace {

using testing::HasSubstr;

std::string Write(const std::vector<int>& bytes) {
  const std::string path = testing::TempDir() + "test.idx";
  std::ofstream file(path, std::ios::binary);
  for (const int byte : bytes) file.put(static_cast<char>(byte));
  return path;
}

std::string ImagesError(const std::vector<int>& bytes) {
  IdxImages images;
  std::string error;
  EXPECT_FALSE(ReadIdxImages(Write(bytes), &images, &error));
  return error;
}

TEST(Idx, Bytes) {
  IdxImages images;
  std::string error;
  const std::string path = Write({0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 7, 255, 0, 9});
  ASSERT_TRUE(ReadIdxImages(path, &images, &error)) << error;
  EXPECT_EQ(images.height, 1);
  EXPECT_EQ(images.width, 2);
  ASSERT_EQ(images.pixels.rows(), 2);
  EXPECT_EQ(images.pixels(0, 1), 255);
  EXPECT_EQ(images.pixels(1, 1), 9);
  std::vector<unsigned char> labels;
  ASSERT_TRUE(ReadIdxLabels(Write({0, 0, 8, 1, 0, 0, 0, 3, 4, 0, 200}), &labels, &error)) << error;
  EXPECT_EQ(labels, (std::vector<unsigned char>{4, 0, 200}));
}

TEST(Idx, WhatIsWrongIsSaid) {
  EXPECT_THAT(ImagesError({0, 0, 8}), HasSubstr("test.idx: it ends within the header"));
  EXPECT_THAT(ImagesError({0, 0, 8, 3, 0, 0}), HasSubstr("it ends within the header"));
  EXPECT_THAT(ImagesError({1, 0, 8, 3}), HasSubstr("it is not an IDX file"));
  EXPECT_THAT(ImagesError({0, 0, 13, 3}), HasSubstr("of type 13, not bytes"));
  EXPECT_THAT(ImagesError({0, 0, 8, 1, 0, 0, 0, 1, 4}), HasSubstr("1 dimensions, not 3 as images"));
  const std::vector<int> header = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2};
  for (const int size : {0, 3, 5}) {
    std::vector<int> bytes = header;
    bytes.resize(header.size() + size);
    EXPECT_THAT(ImagesError(bytes),
                HasSubstr(std::to_string(size) + " bytes of data, not as many"));
  }
  // Sizes whose product is 0 modulo 2^64.
  EXPECT_THAT(ImagesError({0, 0, 8, 3, 128, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 4}),
              HasSubstr("0 bytes of data"));
  EXPECT_THAT(ImagesError({0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2}),
              HasSubstr("the size of dimension 0 is 0"));
  std::vector<unsigned char> labels;
  std::string error;
  EXPECT_FALSE(ReadIdxLabels(testing::TempDir() + "absent.gz", &labels, &error));
  EXPECT_THAT(error, HasSubstr("absent.gz cannot be read"));
}

TEST(Idx, CompressedMnist) {
  BILEVEL_REQUIRE_DATA("mnist/t10k-images-idx3-ubyte.gz");
  IdxImages images;
  std::vector<unsigned char> labels;
  std::string error;
  const std::string path = bilevel::DataPath("mnist/t10k-images-idx3-ubyte.gz");
  ASSERT_TRUE(ReadIdxImages(path, &images, &error)) << error;
  ASSERT_TRUE(ReadIdxLabels(bilevel::DataPath("mnist/t10k-labels-idx1-ubyte.gz"), &labels, &error))
      << error;
  EXPECT_EQ(images.height, 28);
  EXPECT_EQ(images.width, 28);
  EXPECT_EQ(images.pixels.rows(), 10000);
  ASSERT_EQ(labels.size(), 10000u);
  // The first test image is a seven, as every tutorial shows.
  EXPECT_EQ(labels[0], 7);
  EXPECT_GT(images.pixels.row(0).maxCoeff(), 250);

  // The same file cut short.
  std::ifstream whole(path, std::ios::binary);
  std::string bytes(100000, '\0');
  whole.read(&bytes[0], static_cast<std::streamsize>(bytes.size()));
  const std::string cut = testing::TempDir() + "cut.gz";
  std::ofstream(cut, std::ios::binary) << bytes;
  EXPECT_FALSE(ReadIdxImages(cut, &images, &error));
  EXPECT_THAT(error, HasSubstr("cut.gz is packed by gzip, but is damaged or ends early"));
}

}  // namespace
}  // namespace examples
