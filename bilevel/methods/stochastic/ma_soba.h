#ifndef BILEVEL_METHODS_STOCHASTIC_MA_SOBA_H_
#define BILEVEL_METHODS_STOCHASTIC_MA_SOBA_H_

#include <string>

#include "bilevel/methods/estimators/joint_direction.h"
#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// MA-SOBA (Chen, Xiao and Balasubramanian, "Optimal algorithms for stochastic bilevel optimization
/// under relaxed smoothness conditions", JMLR 2024): SOBA with a moving average h of the direction
/// of x, which does without third derivatives. Everything at (x_k, y_k, z_k, h_k):
///
///   w = f_x,j - J_i z
///   x <- x - alpha_k h,   y <- y - beta_k g_y,i,   z <- z - gamma_k (H_i z - f_y,j)
///   h <- (1 - theta_k) h + theta_k w,              h_0 = 0
///
/// A system of second order: it swings for a long time unless y, z and h are fast beside x. A rule
/// of thumb (not the paper's): beta / alpha and gamma / alpha >= 2 L_phi / mu, theta / alpha >= 4
/// L_phi; what is not given follows it. Dense in x.
class MaSoba : public StochasticMethod {
 public:
  struct Options : StochasticOptions {
    Options() {
      for (Schedule* s : {&x, &y, &z, &average}) FromCurvature(0.5, s);
    }
    /// alpha, beta, gamma and theta; the paper has all proportional to 1 / sqrt(K) for a run of K
    /// iterations.
    Schedule x, y, z, average;
  };

  MaSoba() : MaSoba(Options()) {}
  explicit MaSoba(const Options& options) : StochasticMethod("ma_soba", options), given_(options) {}

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override;
  void Iterate(Oracle& oracle, State& state) override;

 private:
  Options given_, options_;
  JointDirection d_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_MA_SOBA_H_
