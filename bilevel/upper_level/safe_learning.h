#ifndef BILEVEL_UPPER_LEVEL_SAFE_LEARNING_H_
#define BILEVEL_UPPER_LEVEL_SAFE_LEARNING_H_

#include <functional>
#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/solver.h"
#include "bilevel/upper_level/verdict.h"

namespace bilevel {

struct SafeLearningOptions {
  bool IsValid(std::string* error) const;

  Solver::Options solver;
  /// Standard deviation of the prior on every coordinate of x; 0.7 for logarithms: within a factor
  /// of two in two cases of three. About a centre that statistics have given, half of it.
  double prior_sigma = 0.7;
  /// Where the prior is centred, block after block as declared; empty: at x as it is. Residual
  /// statistics at a known truth are a good one: MeasureResiduals.
  std::vector<double> centre;
  /// Blocks of x that are no part of what is learned: a motion that aligns an estimate with its
  /// truth. At their best for every estimate, without a prior, they count in no gate.
  std::vector<double*> fitted_blocks;
  /// Puts y, in the user's memory, where the user's program starts from with the x that is there.
  /// Empty: that is always the y which the memory holds now. Scores are lower solves from there.
  std::function<void()> start_y;
  /// As how many independent errors each recording's f counts. 0: n = (tr S)^2 / tr S^2, S being
  /// their covariance at the centre, where the lower level says what it is (d^2g/dy^2 is its
  /// inverse, up to a factor). That is few where the error of a trajectory is one random curve,
  /// however many poses it has.
  double num_errors_a_recording = 0.0;
};

/// What LearnSafely has found.
struct SafeLearning {
  /// kUseLearned: x holds what was learned. Else x is what it was, or the centre where that was
  /// given and does not lose.
  Verdict::Kind kind = Verdict::kNotEnoughData;
  /// In words: what to do, why, what has moved, and what the data cannot show.
  std::string message = "LearnSafely was not called";
  bool ok = false;  ///< Nothing has failed.

  std::vector<double> before, centre, learned;  ///< x; learned: the maximum a posteriori.
  std::vector<double> standard_errors;          ///< Of learned; the prior's where it alone tells.
  std::vector<std::string>
      not_shown;  ///< Coordinates that the data do not move: left at the centre.
  /// log of f by what was learned from the other recordings over what it is compared with, for
  /// each.
  std::vector<double> log_ratios;
  std::vector<double> num_errors;  ///< Of each recording: as how many its errors count.
  /// With fewer than three recordings: of the log-posterior beyond the centre's, and what is asked.
  double gain = 0.0, needed_gain = 0.0;
  Solver::Summary summary;   ///< Of the maximum a posteriori; where there was no search, at x.
  LowerSolverCounts counts;  ///< Of all solves.
};

/// Learning that does not lose on more of the same: x that minimises
///
///     F(x) = sum over recordings of n / 2 log f_s(x, y*(x)) + 1/2 |(x - centre) / prior_sigma|^2
///
/// in which the unknown scale of each recording's error is profiled out, so that the prior has its
/// weight (majorised by weights n / (2 f_s) in turn). Coordinates of which the data say less than a
/// tenth of what the prior says, by Gauss-Newton, stay at the centre. The answer has to pass a gate
/// before x becomes it:
///
///   three recordings or more   each is left out once; the mean of log_ratios is below zero by two
///                              standard errors
///   fewer                      F gains more than a fit of as many coordinates as move does by
///                              chance in one case of ten, the scale of the errors unknown; with no
///                              more errors than those there is nothing to search for
///
/// both beside the centre or x as it was, whichever has less log f.
///
/// The promise is for recordings like those learned from; nothing in them tells of others.
///
/// Recordings are the scenarios whose upper ceres::Problem has residual blocks that see y: ground
/// truth, or what is held out, in units that x does not change. They count alike, whatever their
/// weights. One without any error left keeps x as it is. Learned losses and general terms above,
/// residual blocks above of x alone and manifolds of x are refused; the solver's checkpoints are
/// not written. Adds a scenario that holds the prior, and leaves it with weight 0.
SafeLearning LearnSafely(const SafeLearningOptions& options, Problem* problem);

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_SAFE_LEARNING_H_
