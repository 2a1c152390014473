// The version stands in CMakeLists.txt; whatever else names it agrees.
#include <fstream>
#include <regex>
#include <sstream>
#include <string>

#include "bilevel/version.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace bilevel {
namespace {

TEST(Packaging, VersionsAgree) {
  const struct {
    const char *file, *pattern;
  } kPlaces[] = {{"CMakeLists.txt", "project\\(bilevel VERSION ([0-9.]+)"},
                 {"CHANGELOG.md", "\n## ([0-9.]+)"},
                 {"CITATION.cff", "\nversion: ([0-9.]+)"},
                 {"package.xml", "<version>([0-9.]+)</version>"}};
  for (const auto& place : kPlaces) {
    std::ostringstream text;
    text << std::ifstream(SourcePath(place.file)).rdbuf();
    const std::string content = text.str();
    std::smatch match;
    ASSERT_TRUE(std::regex_search(content, match, std::regex(place.pattern))) << place.file;
    EXPECT_EQ(match[1], Version()) << place.file;  // The changelog's newest comes first.
  }
}

}  // namespace
}  // namespace bilevel
