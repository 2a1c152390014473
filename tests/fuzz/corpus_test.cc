// Every reader of files on its corpus and on random changes of it: what fuzz.cc does for hours,
// with any compiler and in a second.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz/readers.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace fuzz {
namespace {

constexpr int kMutations = 2000;

std::vector<std::string> Corpus(const std::string& name) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry :
       std::filesystem::directory_iterator(bilevel::SourcePath("tests/fuzz/corpus/" + name))) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> inputs;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

// One to four changes: a bit, a byte, a piece that goes, or one that comes again elsewhere.
std::string Mutate(std::string input, std::mt19937* generator) {
  const auto below = [&](size_t size) { return (*generator)() % std::max<size_t>(size, 1); };
  for (size_t changes = 1 + below(4); changes > 0; --changes) {
    const size_t at = below(input.size() + 1), size = 1 + below(16);
    switch (at < input.size() ? below(4) : 3) {
      case 0:
        input[at] = static_cast<char>(input[at] ^ (1 << below(8)));
        break;
      case 1:
        input[at] = static_cast<char>(below(256));
        break;
      case 2:
        input.erase(at, size);
        break;
      default:
        input.insert(at, input.substr(below(input.size()), size));
    }
  }
  return input;
}

class Corpora : public testing::TestWithParam<Reader> {};

TEST_P(Corpora, AreAcceptedOrRefusedAsPromised) {
  const std::vector<std::string> inputs = Corpus(GetParam().name);
  ASSERT_FALSE(inputs.empty());
  const std::string memory = "/dev/shm";
  const std::string folder = std::filesystem::exists(memory) ? memory : testing::TempDir();
  int accepted = 0;
  for (const std::string& input : inputs) {
    ASSERT_NO_THROW(accepted += Read(GetParam(), folder, input)) << testing::PrintToString(input);
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, static_cast<int>(inputs.size()));
  std::mt19937 generator(1);
  for (int k = 0; k < kMutations; ++k) {
    const std::string input = Mutate(inputs[k % inputs.size()], &generator);
    ASSERT_NO_THROW(Read(GetParam(), folder, input)) << testing::PrintToString(input);
  }
}

INSTANTIATE_TEST_SUITE_P(Readers, Corpora, testing::ValuesIn(Readers()), [](const auto& reader) {
  return std::string(reader.param.name);
});

}  // namespace
}  // namespace fuzz
