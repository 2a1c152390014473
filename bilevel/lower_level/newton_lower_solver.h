#ifndef BILEVEL_LOWER_LEVEL_NEWTON_LOWER_SOLVER_H_
#define BILEVEL_LOWER_LEVEL_NEWTON_LOWER_SOLVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/lower_level/hessian_system.h"
#include "bilevel/oracle/lower_solver.h"
#include "bilevel/program/program.h"
#include "bilevel/types.h"
#include "ceres/solver.h"

namespace bilevel {

/// ceres::Solve from a cold start, then damped Newton with exact second derivatives (or
/// Gauss-Newton's) to a stationary point good enough to differentiate; from a warm start Newton
/// alone, with ceres::Solve as the fallback. Scenarios run in parallel.
///
/// The damping is Levenberg's on the Hessian scaled to a unit diagonal, so an indefinite Hessian
/// far from the solution is overcome, and at the solution it is refused: a saddle is never
/// returned. Where much damping would be needed, Gauss-Newton's Hessian leads nearer first.
class NewtonLowerSolver : public LowerSolver {
 public:
  struct Options {
    ceres::Solver::Options ceres;
    /// Stop when the Newton decrement sqrt(g' H^-1 g) <= tolerance * sqrt(2 * value), or when it
    /// has reached rounding: the relative distance to y* in the Hessian's own norm.
    double tolerance = 1e-10;
    int max_num_newton_iterations = 50;  ///< And ten times as many of Gauss-Newton's.
    HessianKind hessian = HessianKind::kExact;
    SingularHandling singular_handling = SingularHandling::kAutomatic;
    /// False: Newton alone, from any start.
    bool use_ceres = true;
    /// The first solve too is taken to start near y*(x): Ceres only where Newton fails.
    bool first_is_warm = false;
    /// What remedies call these options: the owner's names, or nothing.
    std::string tolerance_name = "tolerance", limit_name = "max_num_newton_iterations";
    /// Blocks of y (the user's pointers) to hold where they are.
    std::vector<const double*> fixed_blocks;
  };

  /// The program is not owned.
  NewtonLowerSolver(Program* program, const Options& options);
  ~NewtonLowerSolver() override;

  std::string WhyNoSecondDerivative() const override;
  bool Solve(const Point& x, Point* y) override;
  void SetTolerance(double tolerance) override;
  bool has_tolerance() const override { return true; }
  bool takes_ranks() const override { return true; }
  bool Differentiate(const Point& x, const Point& y) override;
  const Matrix& dy_dx() override;
  bool Adjoint(const Vector& fy, Vector* product) override;
  bool AdjointVector(const Vector& fy, Vector* z) override;
  bool Tangent(const Vector& direction, Vector* motion) override;
  bool IsDetermined(const Vector& fy) override;
  bool AnyFreeDirection(Vector* direction) override;
  /// Newton alone: one ceres::Problem cannot be solved twice at once.
  std::unique_ptr<LowerSolver> Fork() const override;
  bool Remember(Memory* memory) override;
  const std::string& message() const override { return message_; }
  const LowerSolverCounts& counts() const override { return counts_; }

  /// dy*/dx for some coordinates of x only, into columns().
  virtual bool ComputeColumns(int first, int count);
  const Matrix& columns() const { return dy_dx_; }
  /// After Differentiate: (d^2g/dy^2)^-1 b of one scenario, in the coordinates that no bound holds;
  /// b in its y's tangent space, any number of columns.
  virtual bool SolveHessian(int scenario, const Matrix& b, Matrix* x);
  /// After Differentiate, until the next call of it or of Solve: one scenario's Hessian.
  HessianSystem& system(int scenario);
  /// After Differentiate: the decrement there, relative as Options::tolerance.
  double MeasureDecrement();
  /// Whether that decrement is as small as rounding of y allows.
  bool at_rounding() const;

  /// Of the last solve or differentiation, over all scenarios.
  double relative_decrement() const override;  ///< Largest.
  LowerSolverReport Report() const override;
  int num_free_directions() const;
  std::string free_directions() const;
  double linear_residual() const;
  double rounding() const;  ///< See HessianSystem::Rounding; the largest.
  /// Coordinates of y at a bound, and those of them with a multiplier of about zero, where y* is
  /// only directionally differentiable.
  int num_active_bounds() const;
  std::string weakly_active() const;

 protected:
  friend class DampedNewton;
  struct PerScenario;
  virtual bool SolvePart(PerScenario* part, const double* x, bool cold);
  virtual bool DifferentiatePart(PerScenario* part, const Point& x, const Point& y);
  bool Reach(PerScenario* part, const double* x, bool cold);
  void ReachFromBeside(PerScenario* part, const double* x);
  bool Newton(PerScenario* part, const double* x, bool is_warm);
  bool Follow(PerScenario* part, const double* x);
  bool RunCeres(PerScenario* part, bool tightly = false);
  bool FindActive(PerScenario* part) const;
  bool Evaluate(PerScenario* part, const double* x);
  // body(part) for all scenarios in their order, until a part's linear system has no solution.
  // False: one of any rank has none; message_ says why.
  bool SolveSystems(const std::function<bool(PerScenario*)>& body);
  static std::string WhyUnsolved(const PerScenario& part);
  virtual std::string WeaklyActive(const PerScenario& part) const;

  Program* program_;
  Options options_;
  std::vector<std::unique_ptr<PerScenario>> parts_;
  double tolerance_;  // The options', or a looser one.
  bool solved_before_ = false;
  bool have_dy_dx_ = false;
  Matrix dy_dx_;
  Vector z_;
  std::string message_;
  LowerSolverCounts counts_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_NEWTON_LOWER_SOLVER_H_
