#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_BGS_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_BGS_H_

#include <string>

#include "bilevel/methods/estimators/hypergradient.h"

namespace bilevel {

/// BGS (Arbel and Mairal, "Non-convex bilevel games with critical point selection maps", NeurIPS
/// 2022): the lower level may have many solutions, and y follows the one that gradient descent
/// selects from y_0. With v = f_y(x, y_T), in the order of its Algorithm 1:
///
///   T - M steps on g from y_0, the last y          to  y_{T-M}
///   M steps that are differentiated                to  y_T
///   u = (dy_T/dx)'v,  b = (dy_T/dy_{T-M})'v        (M = 0: u = 0, b = v)
///   H z = b, H = d^2g/dy^2 at y_T, in the sense of least squares
///   d = f_x + u - (d^2g/dxdy) z,   x <- x - step d
///
/// Where y_T is a solution and g is Morse-Bott, d is the gradient of f(x, y(x)) with that
/// selection y(x), for every M. Its stationary points are not those of min f over x and over all
/// of Y*(x): they depend on y_0 along Y*(x), which no step on g changes.
///
/// A GradientMethod with this estimator is the method. M = 0 with the fixed point is AmIGO (Arbel
/// and Mairal, ICLR 2022), without its minibatches.
class BgsHypergradient : public HypergradientEstimator {
 public:
  struct Options : LowerSteps, AdjointSteps {
    /// The authors' toy problem, whose H has eigenvalues up to 1: one step of 0.9 for y; for z one
    /// gradient step of 0.9, warm-started, or the normal equations, whose solution kLeastNorm
    /// converges to.
    Options() {
      num_lower_steps = 1;
      lower_step = linear_step = 0.9;
      kind = kLeastNorm;
    }
    /// M. With 0 lower steps y is solved to tolerance instead, M is 0, and which solution is
    /// followed is the lower solver's choice.
    int num_reverse_steps = 0;
  };
  explicit BgsHypergradient(const Options& options = {})
      : options_(options), unroll_(options), adjoint_(options) {}
  bool solves_lower_level() const override { return options_.num_lower_steps == 0; }
  std::string Check(const Oracle& oracle) const override;
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;
  bool Remember(Oracle& /*oracle*/, Memory* /*memory*/) override { return true; }

 private:
  Options options_;
  Unroll unroll_;
  AdjointSolver adjoint_;
  Vector b_, hz_, jz_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_BGS_H_
