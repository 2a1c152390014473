#ifndef BILEVEL_METHODS_STOCHASTIC_ALSET_H_
#define BILEVEL_METHODS_STOCHASTIC_ALSET_H_

#include "bilevel/methods/stochastic/neumann_method.h"

namespace bilevel {

/// ALSET (Chen, Sun and Yin, "Closing the gap: tighter analysis of alternating stochastic gradient
/// methods for bilevel problems", NeurIPS 2021): the loop of NeumannMethod with the randomised
/// series, x and y on one time scale. The paper's run of K iterations has steps of the order of
/// K^-1/2, T any number of lower steps, and N of the order of kappa log K; T = 1, the default here,
/// makes it a single loop, at more samples in kappa than T of the order of kappa. Here K is not
/// known: alpha_k and beta_k fall like k^-1/2 and N grows like log k.
class Alset : public NeumannMethod {
 public:
  struct Options : NeumannMethod::Options {
    Options() {
      FromCurvature(0.5, &y);
      FromCurvature(0.5, &x);
    }
  };

  Alset() : Alset(Options()) {}
  explicit Alset(const Options& options) : NeumannMethod("alset", options) {}
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_ALSET_H_
