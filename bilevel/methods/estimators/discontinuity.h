#ifndef BILEVEL_METHODS_ESTIMATORS_DISCONTINUITY_H_
#define BILEVEL_METHODS_ESTIMATORS_DISCONTINUITY_H_

#include <string>

#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// Remembers the pair of points between which phi rose the most a unit of x, and looks whether it
/// jumps there. phi is discontinuous where y*(x) is, as in Example 4.1 of Chen, Xu and Zhang
/// (2023): no gradient tells, and descent ends at the edge as if it had converged.
class Discontinuity {
 public:
  void Clear() { slope_ = 0.0; }
  bool empty() const { return slope_ == 0.0; }
  /// The y belong to the start of a lower solve at the x.
  void Add(const Point& xa, double phi_a, const Point& xb, double phi_b, const Point& y);
  /// Takes this pair whatever its slope, where phi was not known on the way.
  void Set(const Point& xa, const Point& xb, const Point& y);
  /// Halves the pair, keeping the half with the larger difference, while that does not shrink.
  /// A sentence where it never does, or an empty one: three or four lower solves for a smooth phi,
  /// fifty at a jump. Where the lower solver does not know how accurate it is, the pair is widened
  /// instead, while the difference does not grow: up to twenty.
  std::string FindJump(Oracle& oracle) const;
  void Remember(const Oracle& oracle, Memory* memory);

 private:
  double slope_ = 0.0;
  Point xa_, xb_, y_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_DISCONTINUITY_H_
