#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_BDA_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_BDA_H_

#include <string>

#include "bilevel/methods/estimators/hypergradient.h"

namespace bilevel {

/// BDA, bilevel descent aggregation (Liu, Mu, Yuan, Zeng and Zhang, "A generic first-order
/// algorithmic framework for bi-level programming beyond lower-level singleton", ICML 2020): the
/// steps for y descend on f as well, less and less, so that among many solutions y tends to f's
/// choice. For k = 0, ..., T - 1, from y_0
///
///   y_{k+1} = P(y_k - (a_k upper_step f_y + (1 - a_k) lower_step g_y)),   a_k = share / (k + 1)
///
/// and x <- x - step d f(x, y_T(x)) / dx by reverse accumulation, which needs second derivatives of
/// f too. x is biased by y_T - y*, which shrinks with a power of T only. A GradientMethod with this
/// estimator is the method.
class BdaHypergradient : public HypergradientEstimator {
 public:
  struct Options : LowerSteps {
    Options() { lower_step = 1.0; }  // s_l, as in Chen, Xu and Zhang (2023), section 7.1.
    double upper_step = 1.0;         ///< s_u, from there too.
    double share = 0.5;              ///< mu: 0.1, 0.5 or 0.9 there.
    /// False, the authors': y_0 is where y was at the start in every iteration. True: where it was
    /// last, which adds up the steps on f.
    bool warm_start = false;
  };
  explicit BdaHypergradient(const Options& options = {})
      : options_(options), unroll_(options, options.share, options.upper_step) {}
  bool is_biased() const override { return true; }
  bool projects_y() const override { return true; }
  std::string Check(const Oracle& oracle) const override;
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;
  bool Remember(Oracle& /*oracle*/, Memory* /*memory*/) override { return true; }

 private:
  Options options_;
  Unroll unroll_;
  Vector a_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_BDA_H_
