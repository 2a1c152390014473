#ifndef BILEVEL_METHODS_STOCHASTIC_SOBA_H_
#define BILEVEL_METHODS_STOCHASTIC_SOBA_H_

#include <string>

#include "bilevel/methods/estimators/joint_direction.h"
#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// SOBA (Dagreou, Ablin, Vaiter and Moreau, "A framework for bilevel optimization that enables
/// stochastic and global variance reduction algorithms", NeurIPS 2022). One sample i of g and one
/// sample j of f an iteration, every oracle at (x_t, y_t, z_t):
///
///   D_y = g_y,i    D_z = H_i z - f_y,j    D_x = f_x,j - J_i z
///   y <- y - rho_t D_y,   z <- z - rho_t D_z,   x <- x - gamma_t D_x
///
/// H = d^2g/dy^2, J = d^2g/dxdy; z_0 = 0. One rho for y and z on purpose: they have the same
/// conditioning. The paper's z is the negative of this one.
class Soba : public StochasticMethod {
 public:
  struct Options : StochasticOptions {
    Options() {
      FromCurvature(0.5, &lower);
      FromCurvature(0.5, &x);
    }
    /// rho and gamma: the paper has both proportional to t^-1/2 (f and g with Lipschitz third
    /// derivatives of g), or t^-2/5 and t^-3/5 with less; its ratios gamma / rho were searched for
    /// in 1e-6 ... 1.
    Schedule lower;
    StepRule x;
  };

  Soba() : Soba(Options()) {}
  explicit Soba(const Options& options) : StochasticMethod("soba", options), given_(options) {}

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override { return options_.lower.step; }
  void Iterate(Oracle& oracle, State& state) override;

 private:
  Options given_, options_;
  JointDirection d_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_SOBA_H_
