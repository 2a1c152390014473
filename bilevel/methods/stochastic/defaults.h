#ifndef BILEVEL_METHODS_STOCHASTIC_DEFAULTS_H_
#define BILEVEL_METHODS_STOCHASTIC_DEFAULTS_H_

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/methods/estimators/curvature.h"
#include "bilevel/methods/estimators/neumann.h"
#include "bilevel/methods/step_rule.h"

namespace bilevel {

/// A schedule of the published exponent whose step and decay time are left to Defaults.
inline void FromCurvature(double exponent, Schedule* schedule) { *schedule = {0.0, exponent, 0.0}; }

/// Rule::Check where a step or a decay time of 0 means that none is given.
template <typename Rule>
std::string CheckGiven(Rule rule, const std::string& name) {
  if (rule.step == 0.0) rule.step = 1.0;
  if (rule.decay_time == 0.0) rule.decay_time = 1.0;
  return rule.Check(name);
}

/// The constants that a method on minibatches was not given, from the curvature where the run
/// starts. With mu and L the extreme eigenvalues of M^-1 d^2g/dy^2, mu_phi and L_phi those of
/// d^2 phi, and L_f the largest of M^-1 d^2f/dy^2: at y*(x), where that can be had; L and L_phi
/// also at the given y, from where y is to get there, and L over one minibatch:
///
///   steps of y, z and w           1 / L
///   steps of x, after T of y      (1 - (1 - step mu)^T) / (2 L_phi): what the T steps leave of an
///                                 error of y decays twice as fast as x moves
///   iterations until steps decay  2 / (step of x mu_phi), at least 100: like k^-1 they are then
///                                 the 2 / (mu_phi k) of strongly convex stochastic gradients
///   Neumann's series              1 / L long steps; kRandomised: (log(10) + log(1 + k) / 2) L / mu
///                                 terms, so that the bias falls like k^-1/2; kTruncated:
///                                 log(100) L / mu terms, a bias of 1 %
///   lambda of f2sa                from 2 L_f / mu, the paper's
///
/// Condition numbers count up to 1000. Where g is not convex and y*(x) is not to be had, there is
/// no mu to be found: L / mu is taken as 10, and the note says so. What is given stays what it is,
/// and where everything is, nothing is evaluated.
class Defaults {
 public:
  using Named = std::pair<const char*, Schedule*>;
  /// That of a given step, where no time is given.
  static constexpr double kDecayTime = 100.0;

  /// g and f over these batches; a minibatch of g for its L. Without `solve` the curvature is that
  /// at y. Nothing is owned.
  Defaults(Oracle* oracle,
           const Batch& lower,
           const Batch& upper,
           const Batch& minibatch,
           const Point& x,
           const Point& y,
           const Metric* metric,
           bool solve)
      : oracle_(oracle),
        lower_(lower),
        upper_(upper),
        minibatch_(minibatch),
        x_(x),
        y_(y),
        metric_(metric),
        solve_(solve) {}

  /// Steps and decay times of y's, z's and of x's, num_steps of the first before each of x. The
  /// first step of a rule is as long as a plain one: its schedule has the length of the whole
  /// (kNormalized), or of a coordinate (kAdam).
  void FillSteps(const std::vector<Named>& lower, int num_steps, Named x);
  void FillSteps(const std::vector<Named>& lower, int num_steps, StepRule* x);
  void FillSeries(Neumann::Options* neumann);
  /// The decay time of what has no step to be filled, as that of x.
  static void FillDecayTime(const Schedule& x, Schedule* schedule);
  /// value() where *knob is 0.
  void Fill(const char* name, double* knob, const std::function<double()>& value);

  double LowerStep() { return 1.0 / lower().largest; }
  double ConditionNumber() { return lower().largest / lower().smallest; }
  double UpperStep(double lower_step, int num_steps);
  /// Iterations in which steps of that length take x to where phi is least.
  double DecayTime(double upper_step);
  double GradientNorm() { return upper().gradient_norm; }
  double UpperCurvatureBound() { return upper().curvature.largest; }
  /// The least lambda of a penalty method.
  double Penalty();

  /// Sentence on what was filled; empty if nothing was.
  std::string Note() const;

 private:
  const Point& solved_y();
  const Curvature& lower();
  const UpperCurvature& upper();
  void Tell(const char* name, double value);

  Oracle* oracle_;
  Batch lower_, upper_, minibatch_;
  const Point &x_, &y_;
  const Metric* metric_;
  bool solve_, mu_is_assumed_ = false;
  std::optional<Point> solved_y_;
  std::optional<Curvature> lower_curvature_;
  std::optional<UpperCurvature> upper_curvature_;
  std::string taken_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_DEFAULTS_H_
