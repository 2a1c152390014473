#include "bilevel/lower_level/internal/noise_of_value.h"

#include <algorithm>
#include <cfenv>
#include <cmath>

namespace bilevel {
namespace {

class RoundingMode {
 public:
  explicit RoundingMode(int mode) : before_(std::fegetround()) { std::fesetround(mode); }
  ~RoundingMode() { std::fesetround(before_); }
  RoundingMode(const RoundingMode&) = delete;
  RoundingMode& operator=(const RoundingMode&) = delete;

 private:
  const int before_;
};

}  // namespace

double NoiseOfValue::At(const double* x, const double* y) {
  if (level_->num_terms() == 0) return 0.0;
  if (!serial_) serial_.emplace(level_, nullptr);
  double values[2];
  const int modes[2] = {FE_UPWARD, FE_DOWNWARD};
  for (const int k : {0, 1}) {
    const RoundingMode mode(modes[k]);
    if (!serial_->Value(x, y, Batch::All(), &values[k])) return largest_;
  }
  largest_ = std::max(largest_, std::abs(values[0] - values[1]));
  return largest_;
}

}  // namespace bilevel
