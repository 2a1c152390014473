#ifndef BILEVEL_TESTS_EXAMPLES_EXAMPLE_H_
#define BILEVEL_TESTS_EXAMPLES_EXAMPLE_H_

#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "gtest/gtest.h"

// Examples run as programs, and what they write read off their JSON.
namespace bilevel {

/// An example's executable, in the same build as this test; empty where it was not built.
inline std::string Example(const std::string& name) {
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self));
  if (length <= 0) return "";
  const std::string path(self, length);
  const std::string build = path.substr(0, path.rfind('/', path.rfind('/') - 1));
  const std::string example = build + "/examples/" + name;
  return std::ifstream(example).good() ? example : "";
}

inline std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// The number `key` of the object `object`, or of the whole where that is empty.
inline double Number(const std::string& json, const std::string& object, const std::string& key) {
  size_t at = object.empty() ? 0 : json.find("\"" + object + "\": {");
  if (at != std::string::npos) at = json.find("\"" + key + "\": ", at);
  if (at == std::string::npos) {
    ADD_FAILURE() << "no " << object << " " << key;
    return 0.0;
  }
  return std::strtod(json.c_str() + at + key.size() + 4, nullptr);
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_EXAMPLES_EXAMPLE_H_
