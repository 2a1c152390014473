#ifndef BILEVEL_TESTS_EXAMPLES_RUN_EXAMPLE_H_
#define BILEVEL_TESTS_EXAMPLES_RUN_EXAMPLE_H_

#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "gtest/gtest.h"

namespace bilevel {

/// An example's executable, in the same build as the test; empty where it was not built.
inline std::string ExamplePath(const std::string& name) {
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self));
  if (length <= 0) return "";
  const std::string path(self, length);
  const std::string build = path.substr(0, path.rfind('/', path.rfind('/') - 1));
  const std::string example = build + "/examples/" + name;
  return std::ifstream(example).good() ? example : "";
}

/// Whether an example has ended with a verdict, whichever (examples/support/verdict.h), and not
/// with a failure.
inline bool EndsWithVerdict(const std::string& command) {
  const int status = std::system(command.c_str());
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return code == 0 || code == 3 || code == 4;
}

inline std::string ReadText(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// The number `key` of the object `object` in a JSON text, or of the whole where that is empty.
inline double JsonNumber(const std::string& json,
                         const std::string& object,
                         const std::string& key) {
  size_t at = object.empty() ? 0 : json.find("\"" + object + "\": {");
  if (at != std::string::npos) at = json.find("\"" + key + "\": ", at);
  if (at == std::string::npos) {
    ADD_FAILURE() << "no " << object << " " << key;
    return 0.0;
  }
  return std::strtod(json.c_str() + at + key.size() + 4, nullptr);
}

/// Entry i of the array `key` in a JSON text; NaN where it is not there.
inline double JsonEntry(const std::string& json, const std::string& key, int i) {
  const size_t at = json.find("\"" + key + "\": [");
  std::istringstream values(at == std::string::npos ? "" : json.substr(at + key.size() + 5));
  double value = std::nan("");
  char comma;
  for (int k = 0; k <= i; ++k) {
    if (!(values >> value)) return std::nan("");
    values >> comma;
  }
  return value;
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_EXAMPLES_RUN_EXAMPLE_H_
