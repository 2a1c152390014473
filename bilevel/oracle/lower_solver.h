#ifndef BILEVEL_ORACLE_LOWER_SOLVER_H_
#define BILEVEL_ORACLE_LOWER_SOLVER_H_

#include <memory>
#include <string>

#include "bilevel/program/space.h"
#include "bilevel/types.h"

namespace bilevel {

class Memory;

/// What summaries tell of the last solve or differentiation. -1 and empty: not known.
struct LowerSolverReport {
  int num_free_directions = 0;
  std::string free_directions;  ///< Their blocks.
  int num_active_bounds = 0;
  std::string weakly_active;  ///< Of them, those where y* is only directionally differentiable.
  double linear_residual = -1.0;
  std::string remark;  ///< Anything else worth a sentence.
};

/// y*(x) and its derivative. Not thread-safe: one a thread of control.
class LowerSolver {
 public:
  virtual ~LowerSolver() = default;

  /// Sentence on what is wrong with the options; empty if nothing.
  virtual std::string CheckOptions() const { return ""; }

  /// Whether it honours constraints of the lower level (Scenario::AddLowerEquality).
  virtual bool takes_constraints() const { return false; }
  /// Whether it projects y onto the convex sets of its blocks (Scenario::SetLowerSet).
  virtual bool projects() const { return false; }

  /// Whether its program's scenarios may be shared among ranks: it then solves its own, and says of
  /// all that is not in y (failures, products in x, counts, reports) what is so for all of them.
  virtual bool takes_ranks() const { return false; }

  /// Why there is no derivative, for methods that need one; empty where there is.
  virtual std::string WhyNoDerivative() const { return ""; }

  /// Why phi has no second derivative by AdjointVector and dy_dx; empty where it has one.
  virtual std::string WhyNoSecondDerivative() const;

  /// From the start in *y to a stationary point. False, with message() saying why and *y
  /// untouched, where there is none to be had.
  virtual bool Solve(const Point& x, Point* y) = 0;

  /// From here on Solve and Adjoint may stop at this relative accuracy where their options ask for
  /// a better one; 0: no longer. Nothing happens without has_tolerance().
  virtual void SetTolerance(double /*tolerance*/) {}
  virtual bool has_tolerance() const { return false; }

  /// Prepares derivatives at (x, y), y being stationary: one factorisation of d^2g/dy^2, which
  /// serves every call below until the next Solve or Differentiate. False: see message().
  virtual bool Differentiate(const Point& x, const Point& y) = 0;

  /// dy*/dx, tangent sizes, y down and x across.
  virtual const Matrix& dy_dx() = 0;

  /// (dy*/dx)' fy for a gradient fy in y: one solve for any number of x.
  virtual bool Adjoint(const Vector& fy, Vector* product) = 0;

  /// z with (d^2g/dy^2) z = fy, zero where a bound holds y: Adjoint's product is -(d^2g/dxdy) z.
  virtual bool AdjointVector(const Vector& /*fy*/, Vector* /*z*/) { return false; }

  /// (dy*/dx) direction, by one solve, where the solver can: false otherwise.
  virtual bool Tangent(const Vector& /*direction*/, Vector* /*motion*/) { return false; }

  /// Whether a function with gradient fy in y has a derivative along y*: false, with message(),
  /// where it depends on directions that the lower level leaves free.
  virtual bool IsDetermined(const Vector& fy) = 0;

  /// After Differentiate: a direction of y, of length 1, that the lower level leaves free, in no
  /// special position among those; false: there is none, or none is known.
  virtual bool AnyFreeDirection(Vector* /*direction*/) { return false; }

  /// Another solver of the same problem for another thread, starting with no solution of its own.
  /// It must not touch the user's memory or problems.
  virtual std::unique_ptr<LowerSolver> Fork() const = 0;

  /// For checkpoints: all members on which later solves depend to the last bit. False where they
  /// are not told.
  virtual bool Remember(Memory* /*memory*/) { return false; }

  virtual const std::string& message() const = 0;
  virtual const LowerSolverCounts& counts() const = 0;

  /// How far the last y is from y*(x), relative, in the norm of the Hessian; -1: not known.
  virtual double relative_decrement() const { return -1.0; }
  virtual LowerSolverReport Report() const { return {}; }
};

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_LOWER_SOLVER_H_
