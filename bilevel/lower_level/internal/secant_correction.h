#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_SECANT_CORRECTION_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_SECANT_CORRECTION_H_

#include "bilevel/program/space.h"

namespace bilevel {

/// What steps taken with an old Hessian H0 have taught about the present one: limited-memory BFGS
/// around H0^-1 (Nocedal, Math. Comp. 1980, with the two-loop recursion).
class SecantCorrection {
 public:
  void Clear() { num_pairs_ = 0; }
  /// A step and the change of the gradient along it. Ignored where the curvature is not positive.
  void Add(const Vector& step, const Vector& change);
  void Remember(Memory* memory);

  /// x = B^-1 g, where solve(b, &x) applies H0^-1. x must not alias g.
  template <typename Solve>
  void Apply(const Vector& g, Solve&& solve, Vector* x) {
    rhs_ = g;
    for (int k = num_pairs_ - 1; k >= 0; --k) {
      alpha_[k] = steps_.col(k).dot(rhs_) / curvature_[k];
      rhs_ -= alpha_[k] * changes_.col(k);
    }
    solve(rhs_, x);
    for (int k = 0; k < num_pairs_; ++k) {
      const double beta = changes_.col(k).dot(*x) / curvature_[k];
      *x += (alpha_[k] - beta) * steps_.col(k);
    }
  }

 private:
  static constexpr int kMostPairs = 8;
  int num_pairs_ = 0;
  Matrix steps_, changes_;  // Columns, the oldest first.
  double curvature_[kMostPairs], alpha_[kMostPairs];
  Vector rhs_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_SECANT_CORRECTION_H_
