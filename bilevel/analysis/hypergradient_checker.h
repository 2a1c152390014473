#ifndef BILEVEL_ANALYSIS_HYPERGRADIENT_CHECKER_H_
#define BILEVEL_ANALYSIS_HYPERGRADIENT_CHECKER_H_

#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/solver.h"

namespace bilevel {

/// Whether the hypergradient is the derivative of phi(x) = f(x, y*(x)), by re-solving the lower
/// level (polished, along one branch) at points around the current x:
///
///   - Taylor remainders |phi(x + h d) - phi(x) - h dphi'd| along random directions d: their slope
///     against h on a log-log scale is 2 for the right gradient, 1 for a wrong one;
///   - central differences with Richardson extrapolation, the relative error of dphi'd.
///
/// A constraint of the lower level whose own derivatives are wrong is named in the message.
/// Nothing of the user's is changed.
class HypergradientChecker {
 public:
  struct Options {
    /// The lower level's options are used. Its tolerance is tightened to 1e-12.
    Solver::Options solver;
    int num_directions = 3;
    unsigned seed = 1;
    /// Largest step, in the units of x; halved num_steps - 1 times.
    double largest_step = 1e-2;
    int num_steps = 7;
  };

  struct Result {
    bool ok = false;  ///< The numbers below were computed.
    std::string message = "HypergradientChecker was not called.";
    double objective = 0.0;
    std::vector<double> gradient;  ///< Tangent, all of x.
    /// By direction: slope of the Taylor remainders (2 is right) over the steps where they stand
    /// clear of rounding; NaN where fewer than three do (phi is linear along it).
    std::vector<double> slopes;
    /// By direction: |dphi'd - difference| / max(|dphi'd|, |difference|, |dphi| / sqrt(dim)).
    std::vector<double> relative_errors;
    double max_relative_error = -1.0;
    std::string Report() const;
  };

  static Result Check(Problem* problem, const Options& options);
  static Result Check(Problem* problem) { return Check(problem, Options()); }
};

}  // namespace bilevel

#endif  // BILEVEL_ANALYSIS_HYPERGRADIENT_CHECKER_H_
