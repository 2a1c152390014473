#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_LEVENBERG_MARQUARDT_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_LEVENBERG_MARQUARDT_H_

#include <string>

#include "bilevel/methods/estimators/discontinuity.h"
#include "bilevel/methods/method.h"

namespace bilevel {

/// Levenberg-Marquardt on the upper residuals r(x, y*(x)), with the exact total derivative
/// J = r_x + r_y dy*/dx from one factorisation an iteration, and y following x by
/// y plus (dy*/dx) dx, then corrected. For short x and an upper level of residual blocks, to which
/// general terms may be added: log-determinants, say, for a likelihood.
///
/// The upper residuals do not vanish at the solution, so Gauss-Newton alone would converge
/// linearly: their second-order part, and that of general terms, is learned by secant updates
/// (Dennis, Gay and Welsch, "An adaptive nonlinear least-squares algorithm", ACM TOMS 7, 1981),
/// used whenever it predicts the last step better. Globalised by a trust region on x; bounds by
/// fixing active coordinates and projecting. A direction that the upper level does not see is left
/// unmoved.
///
/// Blocks of x that the lower level does not have (an alignment to the truth, say) are moved to
/// their best at every trial, by Gauss-Newton steps that cost no lower solve (Ruhe, Wedin, SIAM
/// Review 22, 1980).
class LevenbergMarquardt : public Method {
 public:
  struct Options {
    /// Longest first step, in the units of x (a factor e for a logarithm).
    double initial_trust_region_radius = 0.5;
    double max_trust_region_radius = 1e16;
    bool use_secant = true;
  };

  LevenbergMarquardt() = default;
  explicit LevenbergMarquardt(const Options& options) : options_(options) {}

  std::string name() const override { return "levenberg_marquardt"; }
  std::string Check(const Oracle& oracle) override;
  bool TakesLowerConstraints() const override { return true; }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;
  /// The uncertainty of x, where f is least squares; and whether phi jumps where it surprised.
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override;

  /// Whether the last run ended where no step decreases phi although its gradient promises that: at
  /// a kink or a jump.
  bool is_stuck() const { return answer_.is_stuck; }

 private:
  class Run;
  // What a run leaves.
  struct Answer {
    // At the last accepted x.
    Matrix gauss_newton;
    Vector gradient;
    double squared_residuals = 0.0;
    int num_residuals = 0;
    bool is_stuck = false;
    // The step that changed phi the most, and by much else than expected.
    Discontinuity surprise;
  };

  Options options_;
  Answer answer_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_LEVENBERG_MARQUARDT_H_
