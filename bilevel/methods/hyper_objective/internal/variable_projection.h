#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_VARIABLE_PROJECTION_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_VARIABLE_PROJECTION_H_

#include <vector>

#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// Moves the blocks of x that the lower level does not have to where f is least, by Gauss-Newton
/// steps that cost no lower solve (Ruhe, Wedin, SIAM Review 22, 1980).
class VariableProjection {
 public:
  /// The oracle is not owned.
  explicit VariableProjection(Oracle* oracle);
  /// Whether there is nothing to move: no such block, or f is no sum of squares.
  bool empty() const { return coordinates_.empty(); }
  /// From f(x, y) = *value, which only falls.
  void Minimize(const Point& y, Point* x, double* value);

 private:
  Oracle* oracle_;
  std::vector<int> coordinates_;  // Of x, in its tangent space.
  Matrix no_dy_, j_;              // y stands still.
  Vector r_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_VARIABLE_PROJECTION_H_
