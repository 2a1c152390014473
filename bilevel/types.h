#ifndef BILEVEL_TYPES_H_
#define BILEVEL_TYPES_H_

namespace bilevel {

enum class Level { kUpper, kLower };

/// Which d^2g/dy^2.
enum class HessianKind {
  kExact,
  /// rho' J'J: drops the residuals' and the losses' curvature.
  kGaussNewton,
};

/// What to do where d^2g/dy^2 is singular.
enum class SingularHandling {
  /// Minimum norm if the right-hand side does not see the null space, otherwise refuse.
  kAutomatic,
  /// The pseudo-inverse: the solution without a component in the null space.
  kMinimumNorm,
  /// Damping, removed again by iterative refinement: the same limit reached without computing the
  /// null space; refuses a right-hand side that is not in the range.
  kDampingWithRefinement,
  /// Refuse, naming the blocks.
  kRefuse,
};

/// What kind of answer x is, as far as could be told. CONVERGENCE goes with the first three; with
/// kUndetermined where a method says so by first-order quantities of its own (bome's KKT loss).
enum class AnswerKind {
  kStationary,    ///< The gradient of phi vanishes, or what it promises is not worth a step.
  kKink,          ///< phi has no derivative there, and falls to no side.
  kJump,          ///< phi jumps there, and falls to no side.
  kUndetermined,  ///< f depends on what the lower level leaves open, or y was to be left unsolved.
  kStuck,         ///< phi may be less nearby, and the method did not get there.
  kLimit,         ///< A limit of iterations or time, or a callback, ended the solve.
  kNone,          ///< FAILURE.
};

/// Evaluations of one level, over all its terms or over a minibatch.
struct FunctionCounts {
  long values = 0, gradients = 0, products = 0, linearizations = 0;
  /// Terms in all of them: residual blocks, and samples of general terms. Over the level's number
  /// of terms they are its epochs.
  long samples = 0;

  FunctionCounts& operator+=(const FunctionCounts& other);
};

/// What a lower solver has done so far.
struct LowerSolverCounts {
  long cold_solves = 0;  ///< Begun with ceres::Solve.
  long warm_solves = 0;  ///< Newton from where the last solution predicted.
  long failed_solves = 0;
  long factorizations = 0;
  long damped_factorizations = 0;  ///< Of them, of an indefinite or too long step's matrix.
  long chord_steps = 0;            ///< Newton steps with the factorisation of an earlier Hessian.
  long gradient_steps = 0;  ///< Without a matrix: gradients of f or g, products with Hessians.
  double seconds_in_ceres = 0, seconds_in_evaluation = 0, seconds_in_linear_algebra = 0;

  LowerSolverCounts& operator+=(const LowerSolverCounts& other);
  LowerSolverCounts operator-(const LowerSolverCounts& other) const;
};

}  // namespace bilevel

#endif  // BILEVEL_TYPES_H_
