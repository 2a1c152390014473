#ifndef BILEVEL_LOWER_LEVEL_OPTIMISTIC_LOWER_SOLVER_H_
#define BILEVEL_LOWER_LEVEL_OPTIMISTIC_LOWER_SOLVER_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/oracle/lower_solver.h"
#include "bilevel/program/program.h"

namespace bilevel {

/// Where the lower level's solutions form a smooth set Y*(x): the one that minimises f on it, and
/// its derivative. Exact, for flat and for curved sets.
///
/// Y*(x) must be a manifold, near y and smooth in x, whose tangent space is the null space of
/// H = d^2g/dy^2 (g is Morse-Bott). With N a basis of that space,
///
///     y*(x) = argmin f(x, y)  subject to  g_y(x, y) = 0,     g_y in range(H) only
///     KKT:   g_y = 0,   f_y + H lambda = 0   <=>   lambda = -H^+ f_y  and  N'f_y = 0
///     grad phi = f_x + g_xy lambda                                      (envelope theorem)
///
/// so phi's gradient needs second derivatives only, and finding y* third ones: the Hessian of f
/// along the curved set is
///
///     R = N'W N,   W = f_yy + D^3_y g[lambda],   dy = -H^+ g_yx dx + N dt,
///     R dt = -N'(f_yx + D^2_y D_x g[lambda] - W H^+ g_yx) dx.
///
/// Products with lambda are derivatives of exact Hessians along it, differenced to sixth order.
/// (Terms from moving the tangent frames of manifolds cancel in all of these.)
///
/// y moves by Newton steps -N R^-1 N'f_y, each followed by Newton steps on g_y back to the set, and
/// a line search on f. It stays on the connected part of Y*(x) where `start` arrives: a local
/// minimiser of f there. Where Y* is a single point this is Newton's method on g.
///
/// What N is, is decided at a polished point from all eigenvalues of H, scaled to a unit diagonal:
/// cubic in the number of coordinates that hang together in H's pattern, at most kMostCoordinates.
/// Refused with a sentence: eigenvalues without a clear gap, saddles, a set that is not smooth in
/// x. Bounds of y stay active, or inactive, on all of Y*(x) that is walked along: where one
/// changes, the set has a kink, and that is refused too.
class OptimisticLowerSolver : public LowerSolver {
 public:
  struct Options {
    /// Of Newton's method, on g and on f; it goes on until rounding stops it.
    int max_num_iterations = 50;
    /// Eigenvalues of the scaled H up to this are zero. 0: the cut is at the largest gap between
    /// 1e-13 and 1e-7; Report says where.
    double rank_tolerance = 0.0;
  };

  /// `start` finds a first point of Y*(x), and another where Newton's method does not get back to
  /// it. Neither it nor the program is owned.
  OptimisticLowerSolver(Program* program, LowerSolver* start, const Options& options);
  ~OptimisticLowerSolver() override;

  /// A sentence on what of the program or the options is not supported; empty if nothing.
  static std::string Check(const Program& program, const Options& options);

  bool Solve(const Point& x, Point* y) override;
  bool Differentiate(const Point& x, const Point& y) override;
  const Matrix& dy_dx() override;
  bool Adjoint(const Vector& fy, Vector* product) override;
  /// By the least-norm multiplier -lambda: psi_y = N N'f_y, which is 0.
  bool AdjointVector(const Vector& fy, Vector* z) override;
  std::string WhyNoSecondDerivative() const override { return ""; }
  bool IsDetermined(const Vector& fy) override;
  std::unique_ptr<LowerSolver> Fork() const override;
  bool Remember(Memory* memory) override;
  const std::string& message() const override { return message_; }
  const LowerSolverCounts& counts() const override;
  double relative_decrement() const override;
  /// The free directions are those of H that f does not determine either.
  LowerSolverReport Report() const override;

  static constexpr int kMostCoordinates = 5000;

 private:
  struct PerScenario;
  bool SolveFrom(const Point& x, const Point& y);

  Program* program_;
  LowerSolver* start_;
  std::unique_ptr<LowerSolver> own_start_;  // A fork's.
  Options options_;
  std::string refusal_;
  std::vector<std::unique_ptr<PerScenario>> parts_;
  bool solved_before_ = false, have_dy_dx_ = false;
  Matrix dy_dx_;
  std::string message_;
  LowerSolverCounts own_counts_;
  mutable LowerSolverCounts counts_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_OPTIMISTIC_LOWER_SOLVER_H_
