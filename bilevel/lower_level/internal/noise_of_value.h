#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_NOISE_OF_VALUE_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_NOISE_OF_VALUE_H_

#include <optional>

#include "bilevel/program/level_evaluator.h"

namespace bilevel {

/// By how much a level's value is rounding: what it changes by where every operation is rounded the
/// other way. Terms may cancel, as those of 1 - cos(y) do, to less than their value or y tells.
class NoiseOfValue {
 public:
  /// The level is not owned.
  explicit NoiseOfValue(const LevelFunction* level) : level_(level) {}

  /// At least what it was before; 0 of residuals alone, whose squares do not cancel.
  double At(const double* x, const double* y);
  double largest() const { return largest_; }
  void Forget() { largest_ = 0.0; }

 private:
  const LevelFunction* level_;
  // On the caller's thread alone, so that the noise is the same for any number of threads.
  std::optional<LevelEvaluator> serial_;
  double largest_ = 0.0;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_NOISE_OF_VALUE_H_
