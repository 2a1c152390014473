#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_CONSTRAINED_LOWER_SOLVER_SCENARIO_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_CONSTRAINED_LOWER_SOLVER_SCENARIO_H_

// What the files of ConstrainedLowerSolver share.

#include <string>
#include <vector>

#include "bilevel/lower_level/constrained_lower_solver.h"
#include "bilevel/lower_level/internal/newton_lower_solver_scenario.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {

// One scenario's constraints.
struct ConstrainedLowerSolver::Constraints {
  using Rows = AugmentedLagrangian::Rows;

  Constraints(const Program& program, const Program::Scenario& s, Rows* of_lagrangian)
      : scenario(s),
        rows(*of_lagrangian),
        evaluator(s.constraints.get(), nullptr),
        mu(Vector::Zero(s.constraints->num_residuals())),
        value(mu),
        b_x(mu.size(), program.x.tangent_size()),
        b_y(mu.size(), s.y.tangent_size()),
        size_of_y(Vector::Ones(s.y.tangent_size())) {}

  const Program::Scenario& scenario;
  Rows& rows;
  LevelEvaluator evaluator;

  // At the part's y: multipliers, h and c, and their derivatives.
  Vector mu, value;
  RowSparseMatrix b_x, b_y;
  Vector unit_rho;        // In which rho is counted; empty: not known yet.
  Vector curvature;       // Of g, by coordinate.
  double farthest = 0.0;  // That y has been from zero, in its norm.
  // For W_rho to be positive definite; the last that was enough at a solution.
  double rho_of_kkt = 1.0, rho_at_solution = 1.0;

  // Of K: its rows, which are independent, and S = LL'.
  std::vector<int> active;
  Matrix l;
  bool has_kkt = false;  // Of this point or an earlier one.
  // The step from y.
  Matrix dy, dmu, rhs;
  double previous = 0.0;  // Decrement.

  bool is_solved = false;  // K is that at the solution, where the part is.
  bool has_solution = false;
  // Where it was differentiated last; and how y and mu move from there along a line of x.
  bool may_ask_tangent = false;
  Vector anchor_x, anchor_y, anchor_mu, line, y_motion, mu_motion;
  // Rows met with equality that are out of K; those of them (by place) that depend on its rows, and
  // by which shares of these (down).
  std::vector<int> touching, dependent;
  std::vector<int> weak;  // Rows at which the active set changes, independent of each other.
  Matrix shares;
  std::string weakly_active, redundant;  // Names.
  Vector size_of_y;                      // By coordinate; never zero.
  long num_systems = 0, num_fallbacks = 0;

  int num_rows() const { return static_cast<int>(mu.size()); }
  bool is_inequality(int i) const { return rows.is_inequality[i]; }
  // What a violation or a multiplier is worth in y, in the norm of the Hessian.
  double Root(int i) const { return std::sqrt(rows.rho[i]); }

  bool Evaluate(const double* x, const double* y) {
    double unused = 0.0;
    return evaluator.Linearize(x, y, &unused, &value, &b_x, &b_y);
  }
  // B m for the rows of K.
  void Multiply(const RowSparseMatrix& b, const Matrix& m, Matrix* product) const {
    product->resize(active.size(), m.cols());
    for (size_t k = 0; k < active.size(); ++k) product->row(k) = b.row(active[k]) * m;
  }
  // a - B' m.
  void SubtractTransposed(const Matrix& a, const Matrix& m, Matrix* result) const {
    *result = a;
    for (size_t k = 0; k < active.size(); ++k) {
      for (RowSparseMatrix::InnerIterator it(b_y, active[k]); it; ++it) {
        result->row(it.col()) -= it.value() * m.row(k);
      }
    }
  }
  // S^-1, in place.
  void SolveSchur(Matrix* m) const {
    l.triangularView<Eigen::Lower>().solveInPlace(*m);
    l.transpose().triangularView<Eigen::Upper>().solveInPlace(*m);
  }
  void SetRho(double factor) { rows.rho = factor * unit_rho; }

  // What the rows of K make of L_rho's value, which otherwise is g.
  double Penalty() const;
  // Whether a multiplier pulls so much farther than y is long that constraints must oppose each
  // other.
  bool HasDiverged(const Vector& y);
  void ChooseActive();
  // Whether mu and the violations choose what K has; then its rows are shifted to be at y.
  bool IsActiveSetOfKkt();
  // y and mu take the step. False: they cannot.
  bool TakeStep(Point* y);
  void FactorizeSchur(const Matrix& s);
  double UpdateMultipliers(int* worst, double* violated_by);
  void MeasureY(const Vector& y);
  Vector LeastCurvature(const Vector& slope, const Vector& y) const;
  void ScaleRows();
  // How far y is from meeting row i, relative to its size.
  double Distance(int i, double violation) const;
  // Whether it is met, whatever g is: what is away no more than that is looked at as if it touched.
  bool IsMet(int i, double violation) const;
  void FindWeaklyActive();
  void Remember(Memory* memory);
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_CONSTRAINED_LOWER_SOLVER_SCENARIO_H_
