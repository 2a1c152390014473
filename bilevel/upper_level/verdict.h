#ifndef BILEVEL_UPPER_LEVEL_VERDICT_H_
#define BILEVEL_UPPER_LEVEL_VERDICT_H_

#include <string>
#include <vector>

#include "bilevel/solver.h"

namespace bilevel {

/// What to do with learned values, told by errors on data that learning has not seen.
struct Verdict {
  enum Kind {
    kUseLearned,     ///< They are better there, beyond chance.
    kKeepYours,      ///< Nothing better was shown.
    kNotEnoughData,  ///< Too few errors, or the data leave directions of x free.
  };
  Kind kind = kNotEnoughData;
  /// Root mean squares of the errors, before and with what was learned.
  double before = 0.0, learned = 0.0;
  /// 95 % interval of learned - before: to be used only if all of it is below 0.
  double low = 0.0, high = 0.0;
  /// Directions of x that neither the data nor a prior hold ("0.71 a[0] + 0.71 b[0]").
  std::vector<std::string> free_directions;
  int num_errors = 0;
  /// Why there is no interval; empty where there is one.
  std::string trouble;

  /// One or more sentences: what to do, the figures, and where data are missing what would help.
  std::string ToString() const;
};

struct VerdictOptions {
  bool IsValid(std::string* error) const;

  /// Errors of neighbours are alike: the bootstrap draws stretches of so many of them. 1: they are
  /// independent. 0: a tenth of all. There must be five such stretches.
  int num_errors_a_block = 0;
  int fewest_errors = 20;
  int num_draws = 1000;
  unsigned seed = 0;
};

/// Errors before and with the learned values: norms, of the same things in the same order (poses of
/// a trajectory, held-out residuals by HoldoutErrors, one score for each recording). The interval
/// is that of the percentiles of a moving-block bootstrap of the pairs (Kuensch, 1989). summary: of
/// the Solve that learned, for its free directions; may be nullptr. What cannot be judged (options
/// that make no sense, lists of different lengths, errors that are not finite) has its `trouble`.
Verdict JudgeLearned(const VerdictOptions& options,
                     const std::vector<double>& errors_before,
                     const std::vector<double>& errors_learned,
                     const Solver::Summary* summary);

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_VERDICT_H_
