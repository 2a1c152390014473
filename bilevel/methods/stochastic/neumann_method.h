#ifndef BILEVEL_METHODS_STOCHASTIC_NEUMANN_METHOD_H_
#define BILEVEL_METHODS_STOCHASTIC_NEUMANN_METHOD_H_

#include <string>

#include "bilevel/methods/estimators/neumann.h"
#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// What the methods with Neumann sums share, and all that most of them are:
///
///   T times:  y <- y - beta_k g_y(x_k, y; a fresh zeta)
///   at y_{k+1}, by independent samples:  x <- x - alpha_k (f_x - J z),   z by Neumann's series
///
/// They differ in T, in the series, and in how the steps decay. x is biased by what the series
/// leaves out, (I - eta H)^N of z, and noisy by what a random length adds; how far off it ends
/// Summary::assessment.x_bias estimates.
class NeumannMethod : public StochasticMethod {
 public:
  struct Options : StochasticOptions {
    Options() {
      FromCurvature(0.0, &y);
      FromCurvature(0.0, &x);
    }
    int num_lower_steps = 1;  ///< T.
    Schedule y;               ///< beta.
    StepRule x;               ///< alpha.
    Neumann::Options neumann;
  };

 protected:
  NeumannMethod(const std::string& method, const Options& options)
      : StochasticMethod(method, options), neumann_(options.neumann), given_(options) {}

  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override;
  bool is_biased() const override { return true; }
  void Iterate(Oracle& oracle, State& state) override;
  virtual void LowerPhase(Oracle& oracle, State& state) {
    LowerSteps(oracle, state, options_.num_lower_steps, options_.y.At(oracle.iteration));
  }
  void Draw(Oracle& oracle, Neumann::Samples* samples);

  Options options_;
  Neumann neumann_;
  Neumann::Samples samples_;
  SparseVector d_;

 private:
  Options given_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_NEUMANN_METHOD_H_
