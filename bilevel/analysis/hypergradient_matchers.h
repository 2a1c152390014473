#ifndef BILEVEL_ANALYSIS_HYPERGRADIENT_MATCHERS_H_
#define BILEVEL_ANALYSIS_HYPERGRADIENT_MATCHERS_H_

/// For tests with GoogleTest and GoogleMock; the library itself needs neither.
///
///     EXPECT_THAT(&problem, bilevel::HasExactHypergradient(1e-7));

#include <cmath>

#include "bilevel/analysis/hypergradient_checker.h"
#include "gmock/gmock.h"

namespace bilevel {

MATCHER_P2(HasExactHypergradient, tolerance, options, "has an exact hypergradient") {
  const HypergradientChecker::Result result = HypergradientChecker::Check(arg, options);
  *result_listener << "\n" << result.Report();
  if (!result.ok || !(result.max_relative_error <= tolerance)) return false;
  for (const double slope : result.slopes) {
    if (std::abs(slope - 2.0) > 0.1) return false;  // NaN: nothing but rounding is left.
  }
  return true;
}

inline auto HasExactHypergradient(double tolerance) {
  return HasExactHypergradient(tolerance, HypergradientChecker::Options());
}

}  // namespace bilevel

#endif  // BILEVEL_ANALYSIS_HYPERGRADIENT_MATCHERS_H_
