#ifndef BILEVEL_METHODS_HYPER_OBJECTIVE_PROJECTED_LBFGS_H_
#define BILEVEL_METHODS_HYPER_OBJECTIVE_PROJECTED_LBFGS_H_

#include <string>

#include "bilevel/methods/method.h"

namespace bilevel {

/// Projected L-BFGS (Bertsekas, "Projected Newton methods for optimization problems with simple
/// constraints", SIAM J. Control Optim. 20, 1982; with Liu and Nocedal's limited-memory matrix,
/// 1989): for a long x with bounds and any f. With P the projection onto the bounds, A the
/// coordinates held at one (x_j there, and -grad phi_j outwards), F the others, in each iteration
///
///   d_F = -B_F grad phi_F  by the last pairs (s, grad phi's change), both of F;   d_A = 0
///   x <- P(x + t d),  t = 1, 1/2, ... until phi falls by c grad phi'(x - P(x + t d))
///
/// One lower solve and one adjoint solve a trial. Manifolds on x are honoured.
class ProjectedLbfgs : public Method {
 public:
  struct Options {
    int memory = 20;  ///< Pairs kept.
    int max_num_trials = 30;
  };

  ProjectedLbfgs() = default;
  explicit ProjectedLbfgs(const Options& options) : options_(options) {}

  std::string name() const override { return "projected_lbfgs"; }
  std::string Check(const Oracle& oracle) override;
  bool TakesLowerConstraints() const override { return true; }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;

 private:
  Options options_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_HYPER_OBJECTIVE_PROJECTED_LBFGS_H_
