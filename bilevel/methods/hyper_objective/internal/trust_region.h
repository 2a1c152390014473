#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_TRUST_REGION_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_TRUST_REGION_H_

#include "bilevel/program/space.h"

namespace bilevel {

/// The minimiser of g's + s'Bs/2 over |s| <= radius, for a symmetric positive semidefinite B: that
/// of (B + mu I) s = -g with the least mu >= 0 that keeps s within (More, Sorensen, SIAM J. Sci.
/// Stat. Comput. 4, 1983), from B's eigenvectors.
Vector TrustRegionStep(const Matrix& b, const Vector& g, double radius);

/// How far a model of phi is trusted, from how it has done.
class TrustRegion {
 public:
  TrustRegion(double radius, double max_radius) : radius_(radius), max_radius_(max_radius) {}
  double radius() const { return radius_; }
  /// Of steps, in a row.
  int num_rejected() const { return num_rejected_; }

  /// A step was taken. Ratios of the actual decrease to the expected: the model's own by
  /// `model_ratio`, and that with what else has moved by `ratio`.
  void Accept(double step_norm, double model_ratio, double ratio);
  /// A step was not: the radius shrinks to where the parabola through phi, its slope along the step
  /// and its change is least, within a tenth and a half. A change of NaN is one nobody knows.
  void Reject(double step_norm, double slope, double change);
  void Remember(Memory* memory);

 private:
  double radius_, max_radius_;
  int num_rejected_ = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_INTERNAL_TRUST_REGION_H_
