#ifndef BILEVEL_ORACLE_HYPER_OBJECTIVE_H_
#define BILEVEL_ORACLE_HYPER_OBJECTIVE_H_

#include <string>

#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// phi(x) = f(x, y*(x)) and its exact gradient f_x + (dy*/dx)' f_y by one adjoint solve.
/// Every evaluation starts the lower level from the last solution accepted with Accept (or from
/// the first start), moved along its tangent dy*/dx where that is at hand, never from another
/// trial, so phi is a function of x along one branch.
class HyperObjective {
 public:
  /// start: where the first lower solve begins. The oracle is not owned.
  HyperObjective(Oracle* oracle, const Point& start)
      : oracle_(oracle), accepted_(start), y_(start) {}

  /// gradient (tangent of x) may be nullptr. False: message() says why; the oracle's latch is
  /// taken back, since x was a trial.
  /// y starts at y_start, or where trials do.
  bool Evaluate(const Point& x, double* phi, Vector* gradient, const Vector* y_start = nullptr);

  /// Makes the last evaluated (x, y) the start of those to come.
  void Accept();
  /// Makes (x, y), evaluated before, the last evaluated again.
  void Return(const Point& x, const Vector& y);
  /// Whether trials start at y plus dy*/dx dx, by one solve a line, rather than at y.
  void set_use_tangent(bool use) { use_tangent_ = use; }

  /// For checkpoints.
  void Remember(Memory* memory);

  /// y*(x) of the last evaluation.
  const Point& y() const { return y_; }
  const std::string& message() const { return message_; }

 private:
  bool Fail(const std::string& what);
  void Predict(const Point& x);

  Oracle* oracle_;
  Point accepted_, y_;
  Vector accepted_x_;  // Empty before the first Accept.
  bool use_tangent_ = true;
  bool differentiated_ = false;   // The lower solver's factorisation is that at the last (x, y).
  bool may_ask_tangent_ = false;  // And that is the accepted one.
  Vector fy_, pulled_back_;
  Vector last_x_, dx_, line_, motion_;  // motion_ = dy*/dx line_.
  std::string message_;
};

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_HYPER_OBJECTIVE_H_
