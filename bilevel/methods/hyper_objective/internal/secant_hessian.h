#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_SECANT_HESSIAN_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_SECANT_HESSIAN_H_

#include "bilevel/program/space.h"

namespace bilevel {

/// What a Gauss-Newton Hessian J'J leaves out of the Hessian of |r|^2/2 and of what is added to it,
/// learned from steps (Dennis, Gay and Welsch, "An adaptive nonlinear least-squares algorithm", ACM
/// TOMS 7, 1981). Zero before the first.
class SecantHessian {
 public:
  explicit SecantHessian(int size) : s_(Matrix::Zero(size, size)) {}
  const Matrix& matrix() const { return s_; }

  /// After a step: the least change of S, in the DFP metric of the gradient's change, with which
  /// S step = target. S is first sized down to the curvature along the step.
  void Update(const Vector& step, const Vector& gradient_change, const Vector& target);
  void Remember(Memory* memory);

 private:
  Matrix s_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_SECANT_HESSIAN_H_
