#ifndef BILEVEL_METHODS_INTERNAL_SURROUNDINGS_H_
#define BILEVEL_METHODS_INTERNAL_SURROUNDINGS_H_

#include <limits>
#include <string>

#include "bilevel/methods/method.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// phi around an answer, evaluated afresh, and the least that is met there.
class Surroundings {
 public:
  /// phi: the answer's; visible: a change of it that is more than rounding. Nothing is owned.
  Surroundings(Oracle* oracle, HyperObjective* at, const State& answer, double phi, double visible);

  /// phi at x moved by `step`, and its gradient, in the tangent coordinates of the answer, unless
  /// that is nullptr. False: x does not move, or there is no phi, and unseen() says why.
  bool Look(const Vector& step, double* value, Vector* gradient);
  /// Whether phi falls along the step. If so, it is followed, twice as far each time, to where phi
  /// rises.
  bool Falls(const Vector& step);
  /// phi where y keeps to its branch: each part of the step starts where the last ended, since
  /// beside a fold of y*(x) a step at once leads to another.
  void LookOnBranch(const Vector& step);
  /// Whether it falls along any of the columns, to one side or the other, a long way.
  bool FallsAlongAny(const Matrix& directions);
  /// The same along what phi curves down or not at all on, by differences of its gradient: within
  /// the span of orthonormal columns;
  void LookWithin(const Matrix& basis, const Vector& gradient);
  /// or, of all directions, among those a few products with the Hessian find.
  void LookEverywhere(const Vector& gradient);
  /// f at other solutions of the lower level, where it leaves directions free, at this x and from
  /// there downhill.
  void LookAtOtherSolutions();

  double lowest() const { return lowest_; }
  const State& lowest_state() const { return lowest_state_; }
  /// Whether a fall that was followed has not ended.
  bool seems_unbounded() const { return seems_unbounded_; }
  const std::string& unseen() const { return unseen_; }
  void ForgetUnseen() { unseen_.clear(); }
  double size() const { return size_; }

 private:
  bool ToOwnCoordinates(const Vector& step, const Point& there, Vector* gradient);
  bool DifferentiateAlong(const Vector& direction, const Vector& gradient, Vector* image);
  // To one side or the other.
  bool FallsAlong(const Vector& direction, double way);
  void LookAlongFlat(const Matrix& basis, Matrix curvature);
  void Keep(const State& there, double value);

  Oracle& oracle_;
  HyperObjective& at_;
  const State& answer_;
  const double phi_, visible_, size_;
  double lowest_ = std::numeric_limits<double>::infinity();
  State lowest_state_;
  bool seems_unbounded_ = false;
  std::string unseen_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_INTERNAL_SURROUNDINGS_H_
