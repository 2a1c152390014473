#ifndef BILEVEL_METHODS_STOCHASTIC_AMIGO_H_
#define BILEVEL_METHODS_STOCHASTIC_AMIGO_H_

#include <string>

#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// AmIGO (Arbel and Mairal, "Amortized implicit differentiation for stochastic bilevel
/// optimization", ICLR 2022): y and z both warm-started, by SGD, a fresh sample zeta of g in each
/// step, one sample xi of f an iteration:
///
///   T times:  y <- y - beta g_y(x, y; zeta)
///   at the new y,  N times:  z <- z - gamma (H(zeta) z - f_y(xi))
///   x <- x - alpha (f_x(xi) - J(zeta) z)
///
/// Constant steps in the paper.
class Amigo : public StochasticMethod {
 public:
  struct Options : StochasticOptions {
    Options() {
      FromCurvature(0.0, &y);
      FromCurvature(0.0, &z);
      FromCurvature(0.0, &x);
    }
    int num_lower_steps = 10;   ///< T.
    int num_linear_steps = 10;  ///< N.
    Schedule y, z;              ///< beta and gamma.
    StepRule x;                 ///< alpha.
  };

  Amigo() : Amigo(Options()) {}
  explicit Amigo(const Options& options) : StochasticMethod("amigo", options), given_(options) {}

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override;
  void Iterate(Oracle& oracle, State& state) override;

 private:
  Options given_, options_;
  SparseVector f_x_, f_y_, own_f_y_, h_z_, j_z_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_AMIGO_H_
