#ifndef BILEVEL_METHODS_ZEROTH_ORDER_PATTERN_SEARCH_H_
#define BILEVEL_METHODS_ZEROTH_ORDER_PATTERN_SEARCH_H_

#include <string>

#include "bilevel/methods/estimators/discontinuity.h"
#include "bilevel/methods/method.h"

namespace bilevel {

/// Looks a step along each direction of a frame and its opposite, goes where phi is least, and
/// halves the step where it is not less by enough anywhere, or doubles it: a direct search (Kolda,
/// Lewis and Torczon, SIAM Review 45, 2003). The first frame is x's axes, each later one is drawn
/// at random, so that a kink that hides descent from one shows it to another (Audet and Dennis,
/// SIAM J. Optim. 17, 2006).
///
/// From values of phi alone, for short x, where phi has kinks or jumps: at most twice x's length of
/// lower solves an iteration, from the y of the best x so far, which must be less by a share of phi
/// that shrinks with the square of the step. Bounds by projection.
class PatternSearch : public Method {
 public:
  struct Options {
    double initial_step =
        0.1;  ///< And the largest. In the units of x: a tenth of a sigma learned as a logarithm.
    double smallest_step = 1e-4;
  };

  PatternSearch() = default;
  explicit PatternSearch(const Options& options) : options_(options) {}

  std::string name() const override { return "pattern_search"; }
  std::string Check(const Oracle& oracle) override;
  bool TakesLowerConstraints() const override { return true; }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override;
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override;

 private:
  struct Poll;
  bool LookAround(Oracle& oracle,
                  const State& state,
                  const Matrix& frame,
                  double step,
                  Monitor* monitor,
                  Poll* poll);

  Options options_;
  Discontinuity steepest_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ZEROTH_ORDER_PATTERN_SEARCH_H_
