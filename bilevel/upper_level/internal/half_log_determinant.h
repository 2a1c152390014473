#ifndef BILEVEL_UPPER_LEVEL_INTERNAL_HALF_LOG_DETERMINANT_H_
#define BILEVEL_UPPER_LEVEL_INTERNAL_HALF_LOG_DETERMINANT_H_

#include <memory>
#include <mutex>

#include "bilevel/lower_level/factorization.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/program.h"
#include "bilevel/terms/objective.h"

namespace bilevel {

class SelectedInverse;
class TornLevel;

/// 1/2 log det H with H = d^2g/dy^2 of one scenario, a function of all of x and of its y, which are
/// its blocks in this order. Its gradient is that of 1/2 <S, H(x, y)> with S = H^-1 held, of which
/// the selected inverse has all that H has entries:
///
///     sum over residual blocks b of  1/2 <S_bb, d H_b(x, y)>,
///
/// with H_b of each block by itself, differenced in the coordinates that the block has: one
/// factorisation and one selected inverse whatever the lengths of x and y are. (The Laplace
/// approximation's gradient as in TMB, Kristensen et al., J. Stat. Softw. 70(5), 2016, which sweeps
/// its tape for d H.)
class HalfLogDeterminant final : public Objective {
 public:
  /// The scenario is the program's, without general terms below and without an evaluation callback;
  /// x has no manifolds.
  HalfLogDeterminant(std::shared_ptr<const Program> program, const Program::Scenario* scenario);
  ~HalfLogDeterminant() override;

  /// 1/2 log |det H| where H is indefinite: the y at hand is not y*(x) then, which is looked for
  /// from there. False where H is singular.
  bool Evaluate(double const* const* blocks,
                const Batch& batch,
                double* value,
                double** gradients) const override;

 private:
  bool Value(bool with_inverse, double* value) const;
  bool ValueOfIndefinite(bool with_inverse, double* value) const;
  bool WriteGradients(double** gradients) const;

  const std::shared_ptr<const Program> program_;  // Owns g.
  const LevelFunction& g_;
  mutable std::mutex mutex_;
  mutable LevelEvaluator evaluator_;
  mutable Factorization factorization_;
  mutable std::unique_ptr<SelectedInverse> inverse_;
  mutable std::unique_ptr<TornLevel> torn_;  // From the first gradient on.
  mutable SparseMatrix yy_;
  mutable Vector x_, y_, gx_, gy_;
};

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_INTERNAL_HALF_LOG_DETERMINANT_H_
