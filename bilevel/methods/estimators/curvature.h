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

/// By num_products steps of the Lanczos process from a random direction.
/// metric may be nullptr: M = I. What fails latches in the oracle.
Curvature EstimateCurvature(Oracle& oracle,
                            const Batch& batch,
                            const Point& x,
                            const Point& y,
                            const Metric* metric,
                            int num_products = 20);
/// The same of a level, f or g over a batch, in place of g.
Curvature EstimateCurvature(Oracle& oracle,
                            LevelView level,
                            const Point& x,
                            const Point& y,
                            const Metric* metric,
                            int num_products = 20);

/// The extreme eigenvalues of d^2 phi/dx^2, which bound the steps of x, and the hypergradient's
/// norm, at (x, y) as if y were y*(x). Products with d^2 phi are differences of hypergradients
/// along (p, dy*/dx p), their lower-level systems by conjugate gradients to 1 %: a few dozen
/// products with d^2g/dy^2 each. What fails latches in the oracle.
struct UpperCurvature {
  Curvature curvature;
  double gradient_norm = 0.0;
};
UpperCurvature EstimateUpperCurvature(Oracle& oracle,
                                      const Batch& lower,
                                      const Batch& upper,
                                      const Point& x,
                                      const Point& y,
                                      int num_products = 8);

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_CURVATURE_H_
