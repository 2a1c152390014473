#ifndef BILEVEL_METHODS_STOCHASTIC_SLIP_H_
#define BILEVEL_METHODS_STOCHASTIC_SLIP_H_

#include <string>

#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// SLIP (Gong, Hao and Liu, "A nearly optimal single loop algorithm for stochastic bilevel
/// optimization under unbounded smoothness", ICML 2024). T0 warm-start steps of y, once; then one
/// step of each an iteration, with samples zeta, zeta' of g and xi of f, every oracle at
/// (x_t, y_t, z_t):
///
///   y <- y - alpha g_y(zeta)
///   z <- z - gamma (H(zeta') z - f_y(xi))                      z_0 = 0
///   m <- (1 - theta_t) m + theta_t (f_x(xi) - J(zeta') z_t)    m_0 = 0; theta = 1 - beta
///   x <- x - eta_t m / |m|
///
/// Each step of x has length eta_t: with a constant one it hovers at that distance. f may
/// grow faster than a smooth function (recurrent networks). The authors' code takes f's gradients
/// at the new y and more lower steps than the paper; this is the paper's. Dense in x.
class Slip : public StochasticMethod {
 public:
  struct Options : StochasticOptions {
    Options() {
      FromCurvature(0.0, &y);
      FromCurvature(0.0, &z);
      FromCurvature(0.75, &x);
      average.step = 0.1;
    }
    int num_warm_start_steps = 3;  ///< T0.
    double warm_start_step = 0.0;  ///< 0: 1 / L.
    /// alpha, gamma, eta and theta. For a gradient of norm epsilon, theory has alpha, gamma and
    /// theta proportional to epsilon^2, eta to epsilon^3, over epsilon^-4 iterations: exponents
    /// 1/2, and 3/4 for eta. The authors ran it with constants of 0.05, 0.01, 0.05 (0.08 to 0.1
    /// elsewhere) and 0.1. Here eta alone decays, since steps of one length cannot settle. One that
    /// is not given begins with the length of a plain step of x: until it decays the steps add up
    /// to twice the way that a strongly convex phi can have left.
    Schedule y, z, x, average;
    /// zeta' = zeta: one evaluation of g an iteration, not two, over samples that are no longer
    /// independent. Not the paper's.
    bool one_sample = false;
  };

  Slip() : Slip(Options()) {}
  explicit Slip(const Options& options) : Slip("slip", options) {}

 protected:
  Slip(const std::string& method, const Options& options)
      : StochasticMethod(method, options), given_(options) {}
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override;
  /// Not in theory; but steps of one length are still short of x* when others are there.
  bool is_biased() const override { return true; }
  void Start(Oracle& oracle, State& state) override;
  void Iterate(Oracle& oracle, State& state) override;
  /// The iteration without that of y: directions first, then the moves.
  void Evaluate(Oracle& oracle, State& state);
  void MoveXAndZ(Oracle& oracle, State& state);
  const Options& options() const { return options_; }

 private:
  Options given_, options_;
  SparseVector g_y_, h_z_, j_z_, f_x_, f_y_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_SLIP_H_
