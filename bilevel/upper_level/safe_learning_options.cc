#include <algorithm>
#include <cmath>

#include "bilevel/upper_level/safe_learning.h"

namespace bilevel {

bool SafeLearningOptions::IsValid(std::string* error) const {
  if (!(prior_sigma > 0.0) || !std::isfinite(prior_sigma)) {
    *error = "prior_sigma must be positive";
  } else if (!(num_errors_a_recording >= 0.0) || !std::isfinite(num_errors_a_recording)) {
    *error = "num_errors_a_recording must not be negative";
  } else if (!std::all_of(
                 centre.begin(), centre.end(), [](double c) { return std::isfinite(c); })) {
    *error = "centre must be finite";
  } else if (std::count(fitted_blocks.begin(), fitted_blocks.end(), nullptr) > 0) {
    *error = "a fitted block is null";
  } else if (solver.max_num_iterations < 1) {
    *error = "solver.max_num_iterations must be positive: there would be nothing learned";
  } else {
    return solver.IsValid(error);
  }
  return false;
}

}  // namespace bilevel
