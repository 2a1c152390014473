#ifndef BILEVEL_METHODS_STOCHASTIC_STOCBIO_H_
#define BILEVEL_METHODS_STOCHASTIC_STOCBIO_H_

#include "bilevel/methods/stochastic/neumann_method.h"

namespace bilevel {

/// stocBiO (Ji, Yang and Liang, "Bilevel optimization: convergence analysis and enhanced design",
/// ICML 2021): the loop of NeumannMethod with the truncated series and constant steps. The theory
/// has T and Q of the order of kappa log(1 / epsilon) and batches of epsilon^-2 samples, larger in
/// the first factors; here all factors have the same.
class StocBiO : public NeumannMethod {
 public:
  struct Options : NeumannMethod::Options {
    Options() {
      num_lower_steps = 10;
      neumann.kind = Neumann::kTruncated;
    }
  };

  StocBiO() : StocBiO(Options()) {}
  explicit StocBiO(const Options& options) : NeumannMethod("stocbio", options) {}
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_STOCBIO_H_
