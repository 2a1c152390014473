#ifndef BILEVEL_ANALYSIS_SENSITIVITY_H_
#define BILEVEL_ANALYSIS_SENSITIVITY_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/lower_level/hessian_system.h"
#include "bilevel/problem.h"
#include "bilevel/types.h"

namespace bilevel {

/// How the solution of a lower problem moves with x: dy*/dx, by the implicit function theorem
///
///     dy*/dx = -(d^2g/dy^2)^-1 d^2g/dydx
///
/// with exact second derivatives and one factorisation; shaped like ceres::Covariance. The lower
/// problem must be solved already: derivatives away from a stationary point are refused, unless
/// Options::polish lets Newton's method get there first.
///
///     double log_sigma = 0.0;                          // Zero leaves the problem as it was.
///     bilevel::Problem problem(nullptr, &ceres_problem);
///     bilevel::Sensitivity sensitivity(options);
///     sensitivity.ScaleNoise(odometry_ids, &log_sigma);
///     if (!sensitivity.Compute(&problem, {&log_sigma})) cerr << sensitivity.message();
///     sensitivity.GetSensitivityBlockInTangentSpace(pose, &log_sigma, d);
class Sensitivity {
 public:
  struct Options {
    /// Names the first option that makes no sense.
    bool IsValid(std::string* error) const;

    /// The point counts as stationary if sqrt(g' H^-1 g) <= stationarity_tolerance * sqrt(2 * g),
    /// about its relative distance to y* in the norm of the Hessian H. ceres::Solve with its
    /// default tolerances does not get there.
    double stationarity_tolerance = 1e-8;
    /// Newton's method moves y to the stationary point first; the user's y is changed.
    bool polish = false;
    int max_num_newton_iterations = 50;
    SingularHandling singular_handling = SingularHandling::kAutomatic;
    /// Lower-level blocks to hold while y moves: another way to fix a gauge.
    std::vector<const double*> fixed_blocks;
    /// kGaussNewton: the textbook approximation, off by per cents where residuals do not vanish.
    HessianKind hessian = HessianKind::kExact;
    int num_threads = 1;
  };

  Sensitivity();
  explicit Sensitivity(const Options& options);
  ~Sensitivity();

  /// Makes *log_sigma (a scalar, the user's) an upper variable that scales the noise of existing
  /// residual blocks: each residual is divided by exp(*log_sigma), inside its loss. The cost
  /// functions, losses and the ceres::Problem stay as they are, so 0 is the problem as it stands.
  /// Call before Compute; a residual block can have one scale.
  void ScaleNoise(const std::vector<ceres::ResidualBlockId>& residual_blocks, double* log_sigma);

  /// One factorisation for all that follows. upper_blocks: for which dy*/dx is wanted, out of the
  /// problem's upper blocks and the noise scales; each costs one solve a column. False: message().
  bool Compute(Problem* problem, const std::vector<const double*>& upper_blocks);

  /// d lower / d upper, row-major, sizes of the blocks (ambient, along the upper manifold's own
  /// tangent plane where it has one). False where a block is unknown or was not computed.
  bool GetSensitivityBlock(const double* lower, const double* upper, double* block) const;
  /// The same in tangent coordinates of both.
  bool GetSensitivityBlockInTangentSpace(const double* lower,
                                         const double* upper,
                                         double* block) const;

  /// The adjoint: for a function with gradient fy with respect to one lower block (tangent), adds
  /// nothing and writes (dy*/dx)' fy for one upper block (tangent). One solve, whatever the
  /// number of upper blocks; the list form takes gradients for several lower blocks at once.
  struct BlockVector {
    const double* block;
    const double* values;  ///< Tangent size of the block.
  };
  bool Pullback(const std::vector<BlockVector>& lower_gradients,
                const double* upper,
                double* gradient) const;
  /// The motion of one lower block (tangent) when x moves along the given directions (tangent). At
  /// a kink of constraints (weakly_active) it is the one-sided derivative along these.
  bool Directional(const std::vector<BlockVector>& upper_directions,
                   const double* lower,
                   double* motion) const;

  /// What single measurements do to y*, after Compute (which may be asked for no block of x). The
  /// first call factorises d^2g/dy^2 once more. Measurements that are parameter blocks of their
  /// cost functions need none of this: declare them upper.

  /// dy* / dr for the residuals r of one lower residual block, before its loss: row-major, tangent
  /// size of the lower block by number of residuals; one solve a residual, kept for further blocks
  /// of y. Where r = (h(y) - z) / sigma, dy*/dz is -1 / sigma times this.
  ///
  ///     dy*/dr = -(d^2g/dy^2)^-1 J' (rho' I + 2 rho'' r r')
  bool GetSensitivityToResiduals(const double* lower,
                                 ceres::ResidualBlockId residual_block,
                                 double* block) const;

  /// How one lower block (tangent) moves when a residual block is left out: one Newton step of the
  /// problem without it, (H - H_i)^-1 grad g_i; the solution itself where g is quadratic. False
  /// where y is not determined without it.
  bool LeaveOut(ceres::ResidualBlockId residual_block, const double* lower, double* motion) const;

  /// For a function of y with the given gradients (as in Pullback): its change when each one of the
  /// residual blocks is left out, to first order, fy' H^-1 grad g_i (Cook and Weisberg, 1982; Koh
  /// and Liang, ICML 2017). One solve for all of them: to rank observations by what rests on them.
  bool Influence(const std::vector<BlockVector>& lower_gradients,
                 const std::vector<ceres::ResidualBlockId>& residual_blocks,
                 double* changes) const;

  /// The covariance of y*, of two lower blocks: H^-1 with H = d^2g/dy^2, which is Laplace's
  /// approximation of exp(-g) over y, g being half a sum of squares of residuals divided by their
  /// standard deviations. Shaped like ceres::Covariance: row-major, in ambient coordinates
  /// (PlusJacobian from both sides). H is what Options::hessian names. kGaussNewton gives
  /// ceres::Covariance's numbers with apply_loss_function, but for losses with rho'' > 0, whose
  /// curvature Ceres takes along; kExact is the curvature of g, and differs by the residuals' and
  /// the losses': with a robust loss it may be half of the other.
  ///
  /// Zero for constant and fixed blocks, for coordinates that a bound holds (ceres::Covariance
  /// knows no bounds), and between scenarios. With a free gauge it is the pseudo-inverse, which has
  /// no part along the free directions and depends on the units of rotation against translation:
  /// that of DENSE_SVD with null_space_rank = -1. Other free directions are refused with a
  /// sentence: that block alone, where one moves a single block; where a residual block that would
  /// see it is beyond its loss's scale; and under SingularHandling::kDampingWithRefinement, which
  /// does not look for them. kMinimumNorm asks for the pseudo-inverse of whatever it is.
  ///
  /// The first call inverts what Compute factorised on the pattern of its factor (see
  /// SelectedInverse), once for all pairs that share a residual block and more. Other pairs cost
  /// solves, one for each coordinate of a block, which are kept for the next pair with it. Not for
  /// several threads at once. False: message().
  bool GetCovarianceBlock(const double* lower1, const double* lower2, double* block) const;
  /// The same in tangent coordinates.
  bool GetCovarianceBlockInTangentSpace(const double* lower1,
                                        const double* lower2,
                                        double* block) const;

  /// Why something returned false.
  const std::string& message() const;

  /// Of the last Compute.
  double relative_decrement() const;    ///< See Options::stationarity_tolerance.
  double relative_rounding() const;     ///< May be in the derivatives; 0 where below 1e-6.
  int num_free_directions() const;      ///< Dimension of the null space of d^2g/dy^2.
  std::string free_directions() const;  ///< The blocks it lives on.
  int num_active_bounds() const;        ///< Coordinates of y held by a bound: they do not move.
  std::string weakly_active() const;    ///< At a bound with no force: derivatives one-sided.
  int num_exact_residual_blocks() const;
  int num_numeric_residual_blocks() const;
  std::string FullReport() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace bilevel

#endif  // BILEVEL_ANALYSIS_SENSITIVITY_H_
