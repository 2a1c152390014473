#ifndef BILEVEL_LOWER_LEVEL_CONSTRAINED_LOWER_SOLVER_H_
#define BILEVEL_LOWER_LEVEL_CONSTRAINED_LOWER_SOLVER_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/lower_level/augmented_lagrangian.h"
#include "bilevel/lower_level/newton_lower_solver.h"

namespace bilevel {

/// What ConstrainedLowerSolver hands to its base: the program with g in the place of which stand
/// augmented Lagrangians, nullptr for scenarios without constraints.
struct AugmentedProgram {
  explicit AugmentedProgram(Program* program);
  Program augmented;
  std::vector<std::unique_ptr<AugmentedLagrangian>> lagrangians;
};

/// y*(x) = argmin { g(x, y) : h(x, y) = 0, c(x, y) <= 0 } with its multipliers, and its derivative.
///
/// Cold: the augmented Lagrangian, minimised again and again by ceres::Solve and damped Newton,
/// until the constraints are met to 1e-6. From there, and from the tangent prediction of y and the
/// multipliers mu where x has moved, semismooth Newton on the KKT system (a primal-dual active
/// set; Hintermueller, Ito and Kunisch, SIAM J. Optim. 13, 2002): with A the rows h and those of c
/// where mu + rho c > 0, B and B_x their derivatives, and W, X those of the Lagrangian,
///
///     K = [W B'; B 0],   K [dy; dmu] = -[L_y; c_A],   K [dy/dx; dmu/dx] = -[X'; B_x],
///     K [z; eta] = [f_y; 0],   grad phi = f_x - X z - B_x' eta.
///
/// K is solved by Cholesky factorisations of W + B' diag(rho) B and of S = B (...)^-1 B'. That both
/// succeed says that y is a strict minimum with independent constraints: K has the inertia
/// (n, q, 0), for rho large enough (Debreu, Econometrica 20, 1952).
///
/// Rows that depend on others are left out, with a multiplier of 0; where they move otherwise with
/// x than those say, and where a multiplier or a distance is about zero, y* has one-sided
/// derivatives only, and weakly_active() names the constraint. Tangent(d) is the one-sided motion
/// along d there, but for rows that depend on others; dy_dx and Adjoint are of one side. Bounds of
/// y hold beside constraints.
///
/// Where g curves so little that its own minimum is far beyond the constraints, as in linear
/// programs, the augmented Lagrangian is minimised near y only: the proximal method of multipliers.
class ConstrainedLowerSolver : private AugmentedProgram, public NewtonLowerSolver {
 public:
  /// The program is not owned. Of the options ceres and tolerance are those of all stages.
  ConstrainedLowerSolver(Program* program, const Options& options);
  ~ConstrainedLowerSolver() override;

  std::string CheckOptions() const override;
  bool takes_constraints() const override { return true; }
  std::string WhyNoSecondDerivative() const override;
  bool Adjoint(const Vector& fy, Vector* product) override;
  bool AdjointVector(const Vector& fy, Vector* z) override;
  bool Tangent(const Vector& direction, Vector* motion) override;
  bool ComputeColumns(int first, int count) override;
  bool SolveHessian(int scenario, const Matrix& b, Matrix* x) override;
  std::unique_ptr<LowerSolver> Fork() const override;
  bool Remember(Memory* memory) override;
  LowerSolverReport Report() const override;

  /// Of a scenario's rows, as they were added, at the last solution: L = g + multipliers' (h, c).
  const Vector& multipliers(int scenario) const;
  /// KKT systems factorised so far, over all scenarios; and warm solves that had to fall back to
  /// the augmented Lagrangian.
  long num_kkt_systems() const;
  long num_fallbacks() const;

 private:
  struct Constraints;
  std::string WeaklyActive(const PerScenario& part) const override;
  bool SolvePart(PerScenario* part, const double* x, bool cold) override;
  bool DifferentiatePart(PerScenario* part, const Point& x, const Point& y) override;
  void Predict(PerScenario* part, const double* x);
  bool Approach(PerScenario* part, const double* x, bool cold);
  bool MinimizeNear(PerScenario* part, const double* x);
  bool Follow(PerScenario* part, const double* x, bool may_keep_kkt);
  bool FollowByChords(PerScenario* part, const double* x);
  std::string WhyUnmet(
      PerScenario* part, const double* x, int worst, double violated_by, double fall);
  bool PrepareKkt(PerScenario* part, const double* x);
  bool FindScales(PerScenario* part, const double* x);
  void Step(PerScenario* part);
  bool IsSolved(PerScenario* part, double share) const;
  bool FindDependent(PerScenario* part);
  bool SolveKkt(PerScenario* part, const Matrix& a, const Matrix* b, Matrix* z, Matrix* eta);
  bool Move(PerScenario* part, const Matrix& dx, Matrix* dy, Matrix* dmu);
  bool MoveToOneSide(PerScenario* part, const Vector& dx, Matrix* dy);

  Program* original_;
  std::vector<std::unique_ptr<Constraints>> constraints_;  // By scenario; nullptr: it has none.
};

/// NewtonLowerSolver, or ConstrainedLowerSolver where the program has constraints.
std::unique_ptr<NewtonLowerSolver> MakeNewtonLowerSolver(Program* program,
                                                         const NewtonLowerSolver::Options& options);

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_CONSTRAINED_LOWER_SOLVER_H_
