#ifndef BILEVEL_LOWER_LEVEL_METRIC_H_
#define BILEVEL_LOWER_LEVEL_METRIC_H_

#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// A symmetric positive definite M for first-order steps on g, y <- y - step M^-1 g_y, made at one
/// point and used at others: BlockJacobi, GaussNewtonMetric.
class Metric {
 public:
  virtual ~Metric() = default;
  /// M at (x, y). What fails latches in the oracle.
  virtual void Compute(Oracle& oracle, const Point& x, const Point& y) = 0;
  /// v <- M^-1 v, tangent coordinates. Symmetric: the same for vectors and covectors.
  virtual void Apply(Vector* v) const = 0;
  virtual void Apply(SparseVector* v) const = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_METRIC_H_
