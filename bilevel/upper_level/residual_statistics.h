#ifndef BILEVEL_UPPER_LEVEL_RESIDUAL_STATISTICS_H_
#define BILEVEL_UPPER_LEVEL_RESIDUAL_STATISTICS_H_

#include <string>
#include <vector>

#include "bilevel/problem.h"

namespace bilevel {

struct ResidualStatisticsOptions {
  bool IsValid(std::string* error) const;

  /// As how many residuals of that size the values of x count. 0: the residuals alone.
  double pseudo_count = 20.0;
};

/// What MeasureResiduals has found.
struct ResidualStatistics {
  bool ok = false;
  std::string message = "MeasureResiduals was not called";  ///< In words; where not ok, why.

  /// x, block after block as declared: a centre for LearnSafely. Levels of noise are measured, and
  /// scales of losses go with them; all else is as it was.
  std::vector<double> x;
  /// Of x, conditional on y: 1 / sqrt(2 (pseudo_count + N)); infinite for what is not measured.
  /// They are right where x was as good as pseudo_count residuals, or that is 0.
  std::vector<double> standard_errors;
  std::vector<int> num_residuals;  ///< N, of x: 0 for what is not measured.
  int num_outliers = 0;            ///< Residual blocks.
};

/// Levels of noise as the residuals of the lower problems have them, at x and y as they stand in
/// the user's memory; y is to be the truth. (At an estimate residuals are too small.) In closed
/// form, for each coordinate log sigma of x and its N residuals r,
///
///     sigma^2 = (pseudo_count sigma_0^2 + sum w r^2) / (pseudo_count + N),   w = rho',
///
/// with sigma_0 and the weights w of the losses as they are in x. Outliers are left out: residual
/// blocks of n residuals that a robust loss makes less of, with |r / sigma| beyond sqrt(n) + 5, as
/// fewer than four in a million normal ones are; sigma is the one by the median of |r| there, which
/// holds while fewer than half are outliers. The scale of a loss is in sigmas and changes against
/// them, so that their product stays, unless there are outliers that it is for.
///
/// A coordinate of x is a log sigma where residuals or losses depend on it as on one,
/// dr/dx = -r or drho/dx = -2 s rho', and a log scale where drho/dx = 2 rho - 2 s rho': those of
/// ScalarNoise, DiagonalNoise, NoiseScaleLoss, the losses, and of a user's own. FullNoise is not
/// measured. Scenarios count alike but for those of weight 0. Changes nothing.
ResidualStatistics MeasureResiduals(const ResidualStatisticsOptions& options, Problem* problem);

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_RESIDUAL_STATISTICS_H_
