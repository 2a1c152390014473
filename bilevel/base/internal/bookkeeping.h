#ifndef BILEVEL_BASE_INTERNAL_BOOKKEEPING_H_
#define BILEVEL_BASE_INTERNAL_BOOKKEEPING_H_

#include <chrono>
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>

namespace bilevel {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

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

/// To nine digits, however small it is.
inline std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return text;
}

/// False, for a caller to return, with *error (may be nullptr) saying why.
inline bool Refuse(const std::string& what, std::string* error) {
  if (error) *error = what;
  return false;
}

/// "sgm.theta must be positive", of the first option that is not, or not finite; empty if all are.
inline std::string FirstNotPositive(std::initializer_list<std::pair<const char*, double>> options) {
  for (const auto& [name, value] : options) {
    if (!(value > 0.0) || !std::isfinite(value)) return std::string(name) + " must be positive";
  }
  return "";
}

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_BOOKKEEPING_H_
