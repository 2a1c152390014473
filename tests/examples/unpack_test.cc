// Packed files: gzip, bzip2 and xz against the tools of that name, joined, damaged, and made to
// fill the memory.
#include "examples/support/unpack.h"

#include <cstdlib>
#include <fstream>
#include <random>
#include <string>

#include "examples/run_example.h"
#include "examples/support/text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace examples {
namespace {

using testing::HasSubstr;

class Packed : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string tool = GetParam();
    if (std::system(("command -v " + tool + " >/dev/null").c_str()) != 0)
      GTEST_SKIP() << "no " << tool;
    path_ = testing::TempDir() + "packed." + tool;
    Write("");
    Pack("echo 1");
    std::string bytes, error;
    ReadFile(path_, &bytes, &error);
    if (error.find("this was built without its library") != std::string::npos)
      GTEST_SKIP() << error;
  }
  // What the tool makes of what the command writes, added to the file.
  void Pack(const std::string& command) const {
    ASSERT_EQ(
        std::system(("{ " + command + "; } | " + GetParam() + " -c >>'" + path_ + "'").c_str()), 0);
  }
  void Write(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }

  std::string path_;
};

TEST_P(Packed, IsReadAsIfItWereNot) {
  std::mt19937 generator(1);
  std::string text;  // Of several pieces of what is unpacked at once.
  for (int i = 0; i < 60000; ++i) text += std::to_string(generator()) + "\n";
  const std::string plain = testing::TempDir() + "plain.txt";
  std::ofstream(plain) << text;
  Write("");
  Pack("cat '" + plain + "'");
  std::string bytes, error;
  ASSERT_TRUE(ReadFile(path_, &bytes, &error)) << error;
  EXPECT_EQ(bytes, text);
  Pack("echo more");  // Joined.
  ASSERT_TRUE(ReadFile(path_, &bytes, &error)) << error;
  EXPECT_EQ(bytes, text + "more\n");
}

TEST_P(Packed, DamageIsNamed) {
  Write("");
  Pack("seq 1 20000");
  const std::string whole = bilevel::ReadText(path_);
  const std::string message = path_ + " is packed by ";
  std::string bytes, error;
  for (const size_t size : {size_t{6}, whole.size() / 2, whole.size() - 1}) {
    Write(whole.substr(0, size));
    EXPECT_FALSE(ReadFile(path_, &bytes, &error)) << size;
    EXPECT_THAT(error, HasSubstr(message));
    EXPECT_THAT(error, HasSubstr("but is damaged or ends early"));
    EXPECT_EQ(bytes, "");
  }
  std::string flipped = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 4);
  for (const std::string& bad : {flipped, whole + "what follows"}) {
    Write(bad);
    EXPECT_FALSE(ReadFile(path_, &bytes, &error));
    EXPECT_THAT(error, HasSubstr(message));
  }
}

TEST_P(Packed, BombsEndInASentence) {
  Write("");
  Pack("head -c 90000000 /dev/zero");
  std::string bytes, error;
  EXPECT_FALSE(ReadFile(path_, &bytes, &error));
  EXPECT_THAT(error,
              HasSubstr(path_ + " unpacks to more than any text would, 61 MiB and more from"));
  Write("");
  Pack("head -c 20000000 /dev/zero");  // Small enough to be meant.
  EXPECT_TRUE(ReadFile(path_, &bytes, &error)) << error;
  EXPECT_EQ(bytes.size(), 20000000u);
}

INSTANTIATE_TEST_SUITE_P(Tools,
                         Packed,
                         testing::Values("gzip", "bzip2", "xz"),
                         [](const auto& tool) { return std::string(tool.param); });

// A dictionary of 384 MiB, which xz -9 does not ask for.
TEST(ReadFile, AnXzFileMayNotAskForAllMemory) {
  const std::string path = testing::TempDir() + "dictionary.xz";
  const std::string command =
      "echo 1 | xz --lzma2=dict=384MiB,mode=fast,mf=hc3 >'" + path + "' 2>/dev/null";
  if (std::system(command.c_str()) != 0) GTEST_SKIP() << "no xz, or no memory for it";
  std::string bytes, error;
  EXPECT_FALSE(ReadFile(path, &bytes, &error));
  EXPECT_THAT(error,
              testing::AnyOf(HasSubstr("dictionary.xz takes too much memory to unpack"),
                             HasSubstr("without its library")));
}

TEST(ReadFile, WhatCannotBeReadIsSaid) {
  std::string bytes, error;
  EXPECT_FALSE(ReadFile(testing::TempDir(), &bytes, &error));  // A folder.
  EXPECT_THAT(error, HasSubstr(testing::TempDir() + " cannot be read"));
  EXPECT_FALSE(ReadFile(testing::TempDir() + "absent", &bytes, &error));
  EXPECT_THAT(error, HasSubstr("absent cannot be read"));
}

}  // namespace
}  // namespace examples
