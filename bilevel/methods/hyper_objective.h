#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_H_

#include <string>

#include "bilevel/objective/oracle.h"

namespace bilevel {

/// phi(x) = f(x, y*(x)) and its exact gradient f_x + (dy*/dx)' f_y by one adjoint solve.
/// Every evaluation starts the lower level from the last solution accepted with Accept (or from
/// the first start), never from another trial, so phi is a function of x along one branch.
class HyperObjective {
 public:
  /// start: where the first lower solve begins. The oracle is not owned.
  HyperObjective(Oracle* oracle, const Point& start)
      : oracle_(oracle), accepted_(start), y_(start) {}

  /// gradient (tangent of x) may be nullptr. False: message() says why; the oracle's latch is
  /// taken back, since x was a trial.
  bool Evaluate(const Point& x, double* phi, Vector* gradient);

  /// Makes the last evaluated y the start of those to come.
  void Accept() { accepted_ = y_; }

  /// y*(x) of the last evaluation.
  const Point& y() const { return y_; }
  const std::string& message() const { return message_; }

 private:
  bool Fail(const std::string& what);

  Oracle* oracle_;
  Point accepted_, y_;
  Vector fy_, pulled_back_;
  std::string message_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_H_
