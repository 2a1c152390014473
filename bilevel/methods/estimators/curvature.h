#ifndef BILEVEL_METHODS_ESTIMATORS_CURVATURE_H_
#define BILEVEL_METHODS_ESTIMATORS_CURVATURE_H_

#include <string>

#include "bilevel/lower_level/metric.h"
#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// The extreme eigenvalues L and mu of M^-1 d^2g/dy^2, which bound the steps of y and z.
struct Curvature {
  double largest = 0.0;   ///< L is at least this.
  double smallest = 0.0;  ///< mu is at most this; not positive: g is not strongly convex there.
  int num_products = 0;

  /// A table of admissible steps and lengths, a line each.
  std::string Ranges() const;
};

/// By num_products steps of conjugate gradients (the Lanczos process) from a random direction.
/// metric may be nullptr: M = I. What fails latches in the oracle.
Curvature EstimateCurvature(Oracle& oracle,
                            const Batch& batch,
                            const Point& x,
                            const Point& y,
                            const Metric* metric,
                            int num_products = 20);

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_CURVATURE_H_
