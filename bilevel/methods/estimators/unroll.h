#ifndef BILEVEL_METHODS_ESTIMATORS_UNROLL_H_
#define BILEVEL_METHODS_ESTIMATORS_UNROLL_H_

#include <string>
#include <vector>

#include "bilevel/lower_level/block_jacobi.h"
#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// The first-order steps that many methods take for y*(x).
struct LowerSteps {
  int num_lower_steps = 10;  ///< T.
  double lower_step = 0.1;   ///< Below 2 / L, L the largest eigenvalue of d^2g/dy^2.
  double momentum = 0.0;     ///< Starts anew with every T steps.
  bool nesterov = false;     ///< The momentum's kind: heavy ball or Nesterov's.
  /// Steps in the metric of BlockJacobi, taken where the T steps begin: lower_step is then about 1.
  bool jacobi = false;

  /// Sentence on what makes no sense, or what the problem lacks; empty if nothing. `name` with a
  /// dot goes before the options'.
  std::string Check(const Oracle& oracle, const std::string& name = "") const;
};

/// T first-order steps on y and their derivative by reverse accumulation (Franceschi et al., ICML
/// 2017; truncated to the last K steps: Shaban et al., AISTATS 2019). For k = 0, ..., T - 1
///
///   d_k = M^-1 ((1 - a_k) lower_step g_y(x, y_k) + a_k upper_step f_y(x, y_k)),
///   a_k = share / (k + 1)
///   v_{k+1} = momentum v_k + d_k,   v_0 = 0
///   y_{k+1} = P(y_k - v_{k+1})                       or, Nesterov,  P(y_k - d_k - momentum
///   v_{k+1})
///
/// The metric M is the identity, or BlockJacobi at y_0 and taken as constant in derivatives. The
/// share of f is 0 but for BDA. P projects onto the bounds, with a derivative of 0 where it
/// acts, and onto convex sets, with ConvexSet::ProjectDerivative.
/// On manifolds the derivatives of the retraction and of the moving frame are differenced.
class Unroll {
 public:
  explicit Unroll(const LowerSteps& steps, double share = 0.0, double upper_step = 0.0)
      : steps_(steps), share_(share), upper_step_(upper_step) {}

  /// From y_0 in *y to y_T, keeping the last K steps. False: a failure is latched.
  bool Run(Oracle& oracle, const Point& x, int num_kept, Point* y);

  /// The kept iterates: y(0), from which the first kept step begins, ..., y(K) = y_T.
  const Point& y(int k) const { return path_[k]; }

  /// The same steps on 1/2 z'Hz - fy'z, from z = 0, in the metric of the last Run: what the T steps
  /// make of the adjoint H z = fy at (x, y). False: a failure is latched.
  bool RunOnAdjoint(Oracle& oracle, const Point& x, const Point& y, const Vector& fy, Vector* z);

  /// Turns *a, a covector at y(last), into the one at y(0), and adds (dy(last)/dx)'a to *gx.
  bool Reverse(Oracle& oracle, const Point& x, int last, Vector* a, Vector* gx);

 private:
  double Share(int k) const { return share_ / (first_ + k + 1.0); }

  LowerSteps steps_;
  BlockJacobi jacobi_;
  double share_, upper_step_;
  int first_ = 0;  // Steps before the kept ones.
  std::vector<Point> path_;
  std::vector<Vector> moves_, directions_;
  Vector d_, v_, fy_, b_, c_, a_v_, h_, j_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_UNROLL_H_
