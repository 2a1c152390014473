#ifndef BILEVEL_LOWER_LEVEL_BOOKKEEPING_H_
#define BILEVEL_LOWER_LEVEL_BOOKKEEPING_H_

#include <chrono>
#include <cstdio>
#include <string>

namespace bilevel {

/// Adds the seconds of its life to *total.
class Stopwatch {
 public:
  explicit Stopwatch(double* total) : total_(total), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() {
    *total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  double* total_;
  std::chrono::steady_clock::time_point start_;
};

/// "1.3e-07"
inline std::string Scientific(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1e", value);
  return text;
}

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_BOOKKEEPING_H_
