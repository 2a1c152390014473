#ifndef BILEVEL_TESTS_BENCHMARKS_FIGURES_H_
#define BILEVEL_TESTS_BENCHMARKS_FIGURES_H_

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace bilevel {

/// A row of the table that run.sh makes.
inline void Row(const std::string& what, double value, const char* target) {
  std::printf("  %-66s %8.3f   (target %s)\n", what.c_str(), value, target);
  std::fflush(stdout);
}

inline double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

[[noreturn]] inline void Fail(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_BENCHMARKS_FIGURES_H_
