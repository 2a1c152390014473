#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_NEWTON_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_NEWTON_H_

#include <string>

#include "bilevel/methods/method.h"

namespace bilevel {

/// Newton's method on phi(x) = f(x, y*(x)) with its exact second derivative (HyperHessian), for any
/// f and an x of up to a few hundred. It is globalised by adaptive cubic regularisation, ARC
/// (Cartis, Gould, Toint, "Adaptive cubic regularisation methods for unconstrained optimization.
/// Part I", Math. Program. 127, 2011, Algorithm 2.1). In each iteration
///
///   s = argmin m(s),   m(s) = g's + s'B s / 2 + sigma |s|^3 / 3,   g = grad phi,  B = D^2 phi
///   rho = (phi(x) - phi(x plus s)) / -m(s)
///   x <- x plus s                where rho >= eta_1,   else once more
///   sigma <- sigma / gamma       where rho > eta_2
///   sigma <- gamma sigma         where rho < eta_1, until s is half as long
///
/// m is minimised globally, along negative curvature too: a saddle of phi is left, and no answer is
/// taken for one before B has been seen to curve nowhere down. Where B's curvature is so small that
/// its sign may be rounding, phi itself is looked at.
///
/// A trial costs a lower solve, begun at y plus dy*/dx s, a gradient of f and an adjoint solve; an
/// iteration besides dy*/dx and most often four gradients of f and joint Hessian products of g a
/// coordinate of x, and no more factorisations. Coordinates held by a bound of x stay, steps are
/// projected. Manifolds on x are honoured. A direction that phi does not see is left unmoved, and
/// named.
///
/// It ends without an answer where phi has no second derivative; "lbfgs" wants none.
class Newton : public Method {
 public:
  struct Options {
    /// In the units of x (a factor e for a logarithm); determines the first sigma.
    double longest_first_step = 1.0;
    double eta_1 = 0.1, eta_2 = 0.9;  ///< As published.
    double gamma = 5.0;
    int max_num_trials = 30;  ///< In an iteration.
  };

  Newton() = default;
  explicit Newton(const Options& options) : options_(options) {}

  std::string name() const override { return "newton"; }
  std::string Check(const Oracle& oracle) override;
  bool TakesLowerConstraints() const override { return true; }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;

 private:
  class Run;
  Options options_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_NEWTON_H_
