#ifndef BILEVEL_LOWER_LEVEL_NEWTON_CG_LOWER_SOLVER_H_
#define BILEVEL_LOWER_LEVEL_NEWTON_CG_LOWER_SOLVER_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/oracle/lower_solver.h"
#include "bilevel/program/program.h"

namespace bilevel {

/// y*(x) without a matrix: truncated Newton (Dembo and Steihaug, 1983) with conjugate gradients on
/// products with H = d^2g/dy^2 and a line search on g, and adjoints by conjugate gradients. For
/// lower levels with a general term too long for an assembled Hessian, such as a softmax regression
/// on all pixels; Solve takes it by itself there. Scenarios run in parallel.
///
/// Negative curvature is followed downhill. Bounds on y hold a coordinate while g's gradient pushes
/// outwards. A singular H will do where f_y lies in its range, and y then stays where the start has
/// it along the free directions.
class NewtonCgLowerSolver : public LowerSolver {
 public:
  struct Options {
    /// The last step is that whose Newton decrement sqrt(g' H^-1 g) is <= tolerance *
    /// sqrt(2 |value|) before it is taken, or the last before rounding of the value hides all
    /// progress.
    double tolerance = 1e-10;
    int max_num_iterations = 200;
    /// Products, for a Newton step or an adjoint.
    int max_num_linear_iterations = 2000;
    double linear_tolerance = 1e-10;  ///< Residual of an adjoint, relative.
  };

  /// The program is not owned.
  NewtonCgLowerSolver(Program* program, const Options& options);
  ~NewtonCgLowerSolver() override;

  std::string CheckOptions() const override;
  bool Solve(const Point& x, Point* y) override;
  void SetTolerance(double tolerance) override;
  bool has_tolerance() const override { return true; }
  bool Differentiate(const Point& x, const Point& y) override;
  /// Column by column, d^2g/dydx by differences of g_y to fourth order: for short x.
  const Matrix& dy_dx() override;
  /// Starts at the last adjoint, which is close where x has moved little.
  bool Adjoint(const Vector& fy, Vector* product) override;
  bool AdjointVector(const Vector& fy, Vector* z) override;
  std::string WhyNoSecondDerivative() const override { return ""; }
  bool IsDetermined(const Vector& fy) override;
  std::unique_ptr<LowerSolver> Fork() const override;
  bool Remember(Memory* memory) override;
  const std::string& message() const override { return message_; }
  const LowerSolverCounts& counts() const override { return counts_; }
  /// Of the last solve, the largest of all scenarios.
  double relative_decrement() const override;
  LowerSolverReport Report() const override;

 private:
  enum class Curvature { kPositive, kNegative, kFailed };
  struct PerScenario;
  bool Evaluate(const double* x, const Point& y, PerScenario* part, Vector* gradient);
  Curvature Conjugate(
      const double* x, const Vector& b, double tolerance, PerScenario* part, Vector* solution);
  bool Minimize(const double* x, PerScenario* part);
  bool SolveLinear(const Vector& b, PerScenario* part, Vector* solution);
  bool FillColumns(PerScenario* part);
  template <typename Body>
  bool ForEach(const char* what, Body body);

  Program* program_;
  Options options_;
  std::vector<std::unique_ptr<PerScenario>> parts_;
  double tolerance_, linear_tolerance_;  // The options', or looser ones.
  Point x_;
  Matrix dy_dx_;
  bool have_dy_dx_ = false;
  std::string message_;
  LowerSolverCounts counts_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_NEWTON_CG_LOWER_SOLVER_H_
