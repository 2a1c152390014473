#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_LINEARIZATION_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_LINEARIZATION_H_

#include <limits>
#include <string>

#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// phi(x) = f(x, y*(x)) to first order.
struct Linearization {
  double phi = std::numeric_limits<double>::quiet_NaN();
  Vector gradient;
  Vector r;  ///< The upper residuals,
  Matrix j;  ///< and their total derivative r_x + r_y dy*/dx.

  void Remember(Memory* memory);
};

/// At a solved (x, y), whose dy*/dx the lower solver then has. False, *why saying so, where the
/// lower level cannot be differentiated or f cannot be evaluated, which latches.
bool Linearize(Oracle* oracle, const Point& x, Point* y, Linearization* at, std::string* why);

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_LINEARIZATION_H_
