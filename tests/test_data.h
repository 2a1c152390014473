#ifndef BILEVEL_TESTS_TEST_DATA_H_
#define BILEVEL_TESTS_TEST_DATA_H_

#include <string>

#include "gtest/gtest.h"

namespace bilevel {

/// The path of a data file: below the folder that the environment variable BILEVEL_DATA_DIR names,
/// else build/data/ of the checkout (examples/fetch_bal.sh); empty where it is in neither.
std::string DataPath(const std::string& relative_path);

/// The path of a file of the checkout.
std::string SourcePath(const std::string& relative_path);

}  // namespace bilevel

/// Skips the test, with the reason, where the data file is absent.
#define BILEVEL_REQUIRE_DATA(relative_path)             \
  if (bilevel::DataPath(relative_path).empty()) {       \
    GTEST_SKIP() << "no data file " << (relative_path); \
  }                                                     \
  static_assert(true, "require a semicolon")

#endif  // BILEVEL_TESTS_TEST_DATA_H_
