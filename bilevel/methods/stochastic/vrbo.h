#ifndef BILEVEL_METHODS_STOCHASTIC_VRBO_H_
#define BILEVEL_METHODS_STOCHASTIC_VRBO_H_

#include <string>

#include "bilevel/methods/estimators/recursion.h"
#include "bilevel/methods/stochastic/neumann_method.h"

namespace bilevel {

/// VRBO (Yang, Ji and Liang, "Provably faster algorithms for bilevel optimization", NeurIPS 2021):
/// SPIDER on u ~ g_y and on v ~ the hypergradient by the truncated series,
///
///   every q-th iteration:  u and v anew, over large batches
///   x+ = x - alpha v
///   u and v at (x+, y);  T times:  y <- y - beta u,  u and v at (x+, y)
///
/// "at" is over fresh small batches at this point and the one before:
/// u += g_y(x+, y) - g_y(x', y'), v likewise. x thus moves along the v of the point it moves from.
/// Constant steps. Dense.
class Vrbo : public NeumannMethod {
 public:
  struct Options : NeumannMethod::Options {
    Options() {
      num_lower_steps = 3;
      neumann.kind = Neumann::kTruncated;
    }
    int period = 3;                                    ///< q, the authors'.
    int large_lower_batch = 0, large_upper_batch = 0;  ///< 0: everything; theirs is 1000.
  };

  Vrbo() : Vrbo(Options()) {}
  explicit Vrbo(const Options& options) : NeumannMethod("vrbo", options), own_(options) {}

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void Iterate(Oracle& oracle, State& state) override;
  void RememberOwn(Oracle& oracle, Memory* memory) override;

 private:
  void Update(Oracle& oracle, State& state, const Batch& zeta, bool note);

  Options own_;
  Recursion u_, v_;
  SparseVector g_y_;
  Vector u_now_, v_now_, nothing_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_VRBO_H_
