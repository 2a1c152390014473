// The tables of bilevel/methods/README.md, and the short one at the top, beside the registry.
#include <fstream>
#include <set>
#include <string>

#include "bilevel/methods/registry.h"
#include "gtest/gtest.h"
#include "test_data.h"

namespace bilevel {
namespace {

// What stands in backquotes in the first columns of the tables below a title.
std::multiset<std::string> NamesInTables(const std::string& page, const std::string& title) {
  std::multiset<std::string> names;
  std::ifstream file(SourcePath(page));
  bool is_below = false;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("#", 0) == 0) is_below = line == title;
    if (!is_below || line.rfind("| ", 0) != 0) continue;
    const std::string column = line.substr(2, line.find(" | ", 2) - 2);
    for (size_t begin = column.find('`'); begin != std::string::npos;) {
      const size_t end = column.find('`', begin + 1);
      names.insert(column.substr(begin + 1, end - begin - 1));
      begin = end == std::string::npos ? end : column.find('`', end + 1);
    }
  }
  EXPECT_FALSE(names.empty()) << page;
  return names;
}

TEST(MethodsReadme, EveryMethodStandsInOneRow) {
  const auto names = NamesInTables("bilevel/methods/README.md", "# Methods");
  for (const std::string& name : ListMethods()) EXPECT_EQ(names.count(name), 1u) << name;
}

TEST(MethodsReadme, EveryNameIsThatOfAMethod) {
  for (const auto& names : {NamesInTables("bilevel/methods/README.md", "# Methods"),
                            NamesInTables("README.md", "## Methods")}) {
    for (const std::string& name : names) EXPECT_NE(CreateMethod(name), nullptr) << name;
  }
}

}  // namespace
}  // namespace bilevel
