#ifndef BILEVEL_METHODS_ESTIMATORS_ADJOINT_SOLVER_H_
#define BILEVEL_METHODS_ESTIMATORS_ADJOINT_SOLVER_H_

#include <string>

#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// How the adjoint is iterated.
struct AdjointSteps {
  enum Kind {
    /// H must be positive definite: refused where it is not.
    kConjugateGradients,
    /// MINRES (Paige and Saunders, 1975): H may be singular, if b lies in its range, or indefinite,
    /// and differenced; as many products as conjugate gradients, and the smallest residual.
    kMinimalResidual,
    /// z <- z - linear_step (H z - b): K gradient steps.
    kFixedPoint,
    /// The same from z = 0 every time: K terms of the series, whatever came before. The relative
    /// error is (I - linear_step H)^K (Lorraine, Vicol and Duvenaud, AISTATS 2020).
    kNeumann,
    /// z = H^+ b, least squares and least norm, whatever H is: conjugate gradients on the normal
    /// equations from z = 0 (Hestenes and Stiefel, 1952), two products an iteration. Eigenvalues
    /// below 1e-8 of the largest count as 0.
    kLeastNorm,
  };
  Kind kind = kConjugateGradients;
  int num_linear_iterations = 10;  ///< K, at most.
  /// Of the residual, relative to b. Not for the fixed point and the series.
  double linear_tolerance = 1e-10;
  double linear_step = 0.1;  ///< Fixed point and series only; below 2 / L.

  /// Sentence on what makes no sense; empty if nothing does.
  std::string Check() const;
};

/// H z = b for H = d^2g/dy^2 at (x, y), by products with H alone. Coordinates of y that g holds at
/// a bound have no part in it: z is 0 there.
class AdjointSolver {
 public:
  explicit AdjointSolver(const AdjointSteps& steps) : steps_(steps) {}

  /// From the start in *z, but for kNeumann and kLeastNorm. False: a failure is latched.
  bool Solve(Oracle& oracle, const Point& x, const Point& y, const Vector& b, Vector* z);
  /// |H z - b| / |b| as the last Solve knew it: of fixed point and series before their last step.
  double residual() const { return residual_; }

 private:
  void Multiply(Oracle& oracle, const Point& x, const Point& y, const Vector& v, Vector* hv);
  bool MinimizeResidual(Oracle& oracle, const Point& x, const Point& y, Vector* z);

  AdjointSteps steps_;
  double residual_ = -1.0;
  Vector gy_, r_, p_, s_, hp_;
  Vector w_[3], lanczos_[3];  // MINRES.
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_ADJOINT_SOLVER_H_
