#ifndef BILEVEL_UPPER_LEVEL_HOLDOUT_H_
#define BILEVEL_UPPER_LEVEL_HOLDOUT_H_

#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "ceres/cost_function.h"
#include "ceres/loss_function.h"
#include "ceres/problem.h"

namespace bilevel {

/// Which residuals leave the lower level, to validate and test what it estimates.
struct HoldoutOptions {
  enum class Kind {
    kRandom,   ///< One by one.
    kByBlock,  ///< The candidates on one of `blocks` leave together, or not at all.
    kByTime,   ///< The latest ones: training first, then the sets in their order.
  };
  Kind kind = Kind::kRandom;

  /// Of the candidates, one for each set: {0.1, 0.1} for validation and test. A set may come out
  /// smaller where too few candidates may leave; an empty one is an error.
  std::vector<double> fractions = {0.2};
  /// A residual leaves only if each of its variable lower blocks keeps as many residuals as this.
  int min_left = 1;
  unsigned seed = 0;

  /// kByBlock: a candidate on several of them goes with the first, one on none of them stays.
  std::vector<const double*> blocks;
  /// kByTime: one for each candidate; empty: the order of the candidates.
  std::vector<double> times;

  bool IsValid(std::string* error) const;
};

/// A residual block that has left the lower level.
struct HeldOutResidual {
  int index;  ///< Among the lower problem's residual blocks before the split.
  const ceres::CostFunction* cost;
  std::vector<double*> blocks;
};

/// The split alone, for those who have yet to add the residuals anywhere: candidate i stands on
/// the blocks blocks[i] (name only those whose residuals are to be counted against min_left, and
/// those of options.blocks). set[i] becomes 0 where it stays, 1 where it goes to the first set, ...
bool ChooseHoldout(const HoldoutOptions& options,
                   const std::vector<std::vector<const double*>>& blocks,
                   std::vector<int>* set,
                   std::string* error);

/// Moves residual blocks of problem->scenario(scenario)'s lower ceres::Problem to sets. The first
/// set is added to its upper problem under score_loss (nullptr: none; owned like any other loss
/// there); all are returned, to be scored with EvaluateHoldout.
///
/// Besides min_left, no lower block is left with fewer residual rows than its tangent size; one
/// that has fewer already is an error. Blocks declared upper must be so before the split.
///
/// Cost functions stay alive as long as the problem. Around a user's own ceres::Problems (see
/// Problem) removing a residual block would delete its cost function unless they were made with
/// DO_NOT_TAKE_OWNERSHIP, which Ceres cannot be asked for: wrapped_problems_own_nothing vouches for
/// it, and without it a wrapped problem is refused. Then the functions remain the user's.
///
/// candidates: of the lower problem; empty: all. On failure nothing has moved. Removing takes time
/// proportional to the problem for each residual block (a second for 16,000 of 80,000) unless the
/// user's problem has enable_fast_removal; ChooseHoldout before adding them costs nothing.
bool SplitHoldout(const HoldoutOptions& options,
                  const std::vector<ceres::ResidualBlockId>& candidates,
                  ceres::LossFunction* score_loss,
                  Problem* problem,
                  std::vector<std::vector<HeldOutResidual>>* sets,
                  std::string* error,
                  int scenario = 0,
                  bool wrapped_problems_own_nothing = false);

/// 1/2 sum rho(|r|^2) at the current values of the blocks; NaN where a residual fails there.
double EvaluateHoldout(const std::vector<HeldOutResidual>& set, const ceres::LossFunction* loss);

/// rho(|r|^2)^1/2 of each, for JudgeLearned (verdict.h); NaN where a residual fails.
std::vector<double> HoldoutErrors(const std::vector<HeldOutResidual>& set,
                                  const ceres::LossFunction* loss);

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_HOLDOUT_H_
