#ifndef BILEVEL_METHODS_STOCHASTIC_TTSA_H_
#define BILEVEL_METHODS_STOCHASTIC_TTSA_H_

#include "bilevel/methods/stochastic/neumann_method.h"

namespace bilevel {

/// TTSA (Hong, Wai, Wang and Yang, "A two-timescale stochastic algorithm framework for bilevel
/// optimization", SIOPT 2023): the loop of NeumannMethod with T = 1, the randomised series, and a
/// slower x: beta_k proportional to k^-2/5, alpha_k to k^-3/5, N growing like log k.
class Ttsa : public NeumannMethod {
 public:
  struct Options : NeumannMethod::Options {
    Options() {
      FromCurvature(0.4, &y);
      FromCurvature(0.6, &x);
    }
  };

  Ttsa() : Ttsa(Options()) {}
  explicit Ttsa(const Options& options) : NeumannMethod("ttsa", options) {}
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_TTSA_H_
