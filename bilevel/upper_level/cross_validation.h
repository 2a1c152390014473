#ifndef BILEVEL_UPPER_LEVEL_CROSS_VALIDATION_H_
#define BILEVEL_UPPER_LEVEL_CROSS_VALIDATION_H_

#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/upper_level/holdout.h"
#include "ceres/loss_function.h"
#include "ceres/problem.h"

namespace bilevel {

/// How the candidates are divided among folds.
struct CrossValidationOptions {
  HoldoutOptions::Kind kind = HoldoutOptions::Kind::kRandom;
  /// 0 with kByBlock: one for each of `blocks` (leave one beacon, camera, sensor out).
  int num_folds = 5;
  unsigned seed = 0;  ///< kRandom.
  /// kByBlock: candidates on one of them share a fold; one on several goes with the first, one on
  /// none is never held out. Blocks may be constants: a beacon's known position, say.
  std::vector<const double*> blocks;
  /// kByTime: one for each candidate; empty: their order. Folds are stretches of time.
  std::vector<double> times;

  bool IsValid(std::string* error) const;
};

/// k-fold cross-validation as an upper level: for each fold a scenario whose lower level is the
/// first scenario's without the fold's residual blocks, over copies of its y, and whose upper level
/// is those residual blocks under score_loss (nullptr: none). phi is then the cost of all held-out
/// residuals, each predicted without its own fold, and one evaluation solves k lower levels. The
/// first scenario keeps every residual and needs no upper level: its y ends at the estimate from
/// all data under the learned x.
///
/// What it can tell. Errors held out in their own units, with noise in a loss (NoiseScaleLoss), see
/// x through the predictions y*(x) only, so that, as with ground truth, ratios of noise levels are
/// determined and their common factor is flat. Errors whitened by a NoiseModel are a likelihood
/// once AddHalfLogDeterminant is added with their number, see noise.h: then levels are determined.
/// A fold must be independent of what stays. Where errors are shared between neighbours in time or
/// by a sensor (a bias, a miscalibration), a random fold is predicted well by its neighbours'
/// errors and rewards an estimate that follows them: hold out what shares the error together, a
/// sensor at a time. What never is held out, odometry between held-out ranges say, is judged only
/// by how well it predicts.
///
/// Functions and manifolds are shared between the folds, so that the lower problem must be one that
/// `problem` made, not a user's own wrapped one. A candidate stays below in its own fold where one
/// of its blocks would be left with fewer residual rows than its tangent size. It must have no
/// general terms. Variable blocks of y are copied at their current values: solve the first scenario
/// before for a good start. folds[i], where not nullptr, becomes what fold i holds out, on the
/// copies.
///
/// candidates: of the first scenario's lower problem; empty: all. False: nothing was added.
bool AddCrossValidation(const CrossValidationOptions& options,
                        const std::vector<ceres::ResidualBlockId>& candidates,
                        ceres::LossFunction* score_loss,
                        Problem* problem,
                        std::vector<std::vector<HeldOutResidual>>* folds,
                        std::string* error);

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_CROSS_VALIDATION_H_
