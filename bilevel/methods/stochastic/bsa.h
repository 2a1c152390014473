#ifndef BILEVEL_METHODS_STOCHASTIC_BSA_H_
#define BILEVEL_METHODS_STOCHASTIC_BSA_H_

#include "bilevel/methods/stochastic/neumann_method.h"

namespace bilevel {

/// BSA (Ghadimi and Wang, "Approximation methods for bilevel programming", 2018): the loop of
/// NeumannMethod with the randomised series and an inner loop that grows,
///
///   T_k = ceil(T sqrt(1 + k)) steps of y, the t-th of them of length beta_t
///
/// beta decays within each inner loop, like 1 / t for a strongly convex g, to 2 / (mu t) where no
/// step is given; alpha_k like k^-1/2.
class Bsa : public NeumannMethod {
 public:
  struct Options : NeumannMethod::Options {
    Options() {
      FromCurvature(1.0, &y);
      FromCurvature(0.5, &x);
    }
  };

  Bsa() : Bsa(Options()) {}
  explicit Bsa(const Options& options) : NeumannMethod("bsa", options), own_(options) {}

 protected:
  void FillOptions(Defaults* defaults) override;
  void LowerPhase(Oracle& oracle, State& state) override;

 private:
  Options own_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_BSA_H_
