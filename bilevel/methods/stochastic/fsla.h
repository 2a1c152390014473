#ifndef BILEVEL_METHODS_STOCHASTIC_FSLA_H_
#define BILEVEL_METHODS_STOCHASTIC_FSLA_H_

#include <string>

#include "bilevel/methods/estimators/recursion.h"
#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// FSLA (Li, Gu and Huang, "A fully single loop algorithm for bilevel optimization without Hessian
/// inverse", AAAI 2022): y, then z at the new y, then x at both, each by a fresh sample of g, z and
/// x each by one of f; STORM on x's direction, one sample at (x, y, z)_t and (x, y, z)_{t-1}:
///
///   y <- y - beta_t g_y(x, y; zeta)
///   z <- z - gamma_t (H(zeta') z - f_y(xi))
///   d <- D_t + (1 - eta_t) (d - D_{t-1}),   D = f_x(xi') - J(zeta'') z
///   x <- x - alpha_t d
///
/// All proportional to t^-1/2. Dense in x.
class Fsla : public StochasticMethod {
 public:
  struct Options : StochasticOptions {
    Options() {
      FromCurvature(0.5, &y);
      FromCurvature(0.5, &z);
      FromCurvature(0.5, &x);
    }
    Schedule y, z;                ///< beta and gamma.
    StepRule x;                   ///< alpha.
    Schedule eta{0.5, 0.5, 0.0};  ///< A decay time that is not given, 0, is that of x.
  };

  Fsla() : Fsla(Options()) {}
  explicit Fsla(const Options& options) : StochasticMethod("fsla", options), given_(options) {}

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override;
  void Start(Oracle& /*oracle*/, State& /*state*/) override { storm_.Restart(); }
  void Iterate(Oracle& oracle, State& state) override;
  void RememberOwn(Oracle& oracle, Memory* memory) override;

 private:
  Options given_, options_;
  Recursion storm_;
  SparseVector f_x_, f_y_, h_z_, j_z_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_FSLA_H_
