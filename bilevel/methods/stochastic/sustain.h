#ifndef BILEVEL_METHODS_STOCHASTIC_SUSTAIN_H_
#define BILEVEL_METHODS_STOCHASTIC_SUSTAIN_H_

#include <string>

#include "bilevel/methods/estimators/recursion.h"
#include "bilevel/methods/stochastic/neumann_method.h"

namespace bilevel {

/// SUSTAIN (Khanduri et al., "A near-optimal algorithm for stochastic bilevel optimization via
/// double-momentum", NeurIPS 2021): STORM on g_y and on the hypergradient by the randomised series,
/// each with one set of samples at (x, y)_t and (x, y)_{t-1}, its p and factors included:
///
///   u = STORM(g_y(zeta); eta^g_t),    v = STORM(f_x - J z; eta^f_t)
///   y <- y - beta_t u,    x <- x - alpha_t v
///
/// alpha and beta proportional to t^-1/3, the etas to t^-2/3. Dense.
///
/// MRBO (Yang, Ji and Liang, "Provably faster algorithms for bilevel optimization", NeurIPS 2021)
/// is the same with the truncated series.
class Sustain : public NeumannMethod {
 public:
  struct Options : NeumannMethod::Options {
    Options() {
      FromCurvature(1.0 / 3.0, &y);
      FromCurvature(1.0 / 3.0, &x);
      eta_g = eta_f = {0.5, 2.0 / 3.0, 0.0};
    }
    Schedule eta_g, eta_f;  ///< A decay time that is not given, 0, is that of x.
  };

  Sustain() : Sustain(Options()) {}
  explicit Sustain(const Options& options) : Sustain("sustain", options) {}

 protected:
  Sustain(const std::string& method, const Options& options)
      : NeumannMethod(method, options), own_(options) {}
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  void Start(Oracle& oracle, State& state) override;
  void Iterate(Oracle& oracle, State& state) override;
  void RememberOwn(Oracle& oracle, Memory* memory) override;

 private:
  Options own_;
  Schedule eta_g_, eta_f_;
  Recursion u_, v_;
  SparseVector g_y_;
  Vector nothing_;
};

class Mrbo : public Sustain {
 public:
  struct Options : Sustain::Options {
    Options() { neumann.kind = Neumann::kTruncated; }
  };

  Mrbo() : Mrbo(Options()) {}
  explicit Mrbo(const Options& options) : Sustain("mrbo", options) {}
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_SUSTAIN_H_
