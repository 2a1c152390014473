#ifndef BILEVEL_METHODS_STOCHASTIC_ADAMBO_H_
#define BILEVEL_METHODS_STOCHASTIC_ADAMBO_H_

#include <string>

#include "bilevel/methods/estimators/recursion.h"
#include "bilevel/methods/stochastic/neumann_method.h"

namespace bilevel {

/// AdamBO (Gong, Hao and Liu, "On the convergence of Adam-type algorithm for bilevel optimization
/// under unbounded smoothness", TMLR 2026). T0 warm-start steps of y, once; then all at (x_t, y_t):
///
///   y <- y - beta_t g_y(zeta)
///   h = f_x - J z,  z by the truncated series
///   x <- x - alpha_t Adam(h)
///
/// VR-AdamBO has STORM's d in the place of Adam's mean, which takes the same samples at (x, y)_t
/// and (x, y)_{t-1}, and is not corrected for its start:
///
///   d <- h_t + (1 - eta) (d - h_{t-1}),   v <- b v + (1 - b) h_t^2
///   x <- x - alpha_t d / (sqrt(v / (1 - b^{t+1})) + epsilon)
///
/// Coordinates of x move by about alpha_t each, whatever h is: with a constant one they hover at
/// that distance. f may grow faster than a smooth function. Dense in x; VR-AdamBO in y too.
class AdamBo : public NeumannMethod {
 public:
  struct Options : NeumannMethod::Options {
    Options() {
      x.kind = StepRule::kAdam;
      x.decay_exponent = 0.5;
      neumann.kind = Neumann::kTruncated;
    }
    int num_warm_start_steps = 3;  ///< T0, of beta's length.
    bool variance_reduction = false;
    double eta = 0.1;            ///< VR-AdamBO's, and the constants of its v.
    double square_beta = 0.999;  ///< b.
    double epsilon = 1e-8;
  };

  AdamBo() : AdamBo(Options()) {}
  explicit AdamBo(const Options& options)
      : NeumannMethod(options.variance_reduction ? "vr_adambo" : "adambo", options),
        own_(options) {}

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void Start(Oracle& oracle, State& state) override;
  void Iterate(Oracle& oracle, State& state) override;
  void RememberOwn(Oracle& oracle, Memory* memory) override;

 private:
  const Vector& Reduced(Oracle& oracle, State& state);

  Options own_;
  Recursion storm_;
  Vector h_, nothing_, step_;
  SparseVector g_y_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_ADAMBO_H_
