#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_OPTIMISTIC_LOWER_SOLVER_SCENARIO_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_OPTIMISTIC_LOWER_SOLVER_SCENARIO_H_

// What the files of OptimisticLowerSolver share.

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/lower_level/internal/component_eigen.h"
#include "bilevel/lower_level/internal/noise_of_value.h"
#include "bilevel/lower_level/optimistic_lower_solver.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {

// One scenario. What returns a bool says in `message` why it is false.
struct OptimisticLowerSolver::PerScenario {
  static constexpr double kShortestStep = 1e-10;
  // Full steps that do not halve the decrement have stalled if it is below this, relatively.
  static constexpr double kStalled = 1e-5;

  PerScenario(Program* owner, Program::Scenario* s, const Options& o)
      : program(*owner),
        scenario(s),
        space(s->y),
        options(o),
        f(s->f.get(), &owner->pool),
        g(s->g.get(), &owner->pool),
        noise(s->g.get()),
        y(&s->y),
        trial(&s->y),
        gradient(s->y.tangent_size()),
        fy(s->y.tangent_size()),
        h(s->g->yy_pattern()),
        jacobian(s->g->yx_pattern()),
        fyy(s->f->yy_pattern()),
        fyx(s->f->yx_pattern()),
        third_yy(h),
        third_yx(jacobian),
        eigen(h),
        held(s->y.tangent_size(), 0) {}

  // f's minimiser on the set Y*(x) to which at_y leads, with all that its derivative takes.
  bool Minimize(const Vector& at_x, const Vector& at_y);

  // g, g_y, H, g_yx and the eigenvalues at y; the coordinates that bounds hold are those found at
  // the start.
  bool Evaluate(bool find_held = false);
  // What rounding of y is worth in the norm of a matrix with the diagonal d.
  double Rounding(const Vector& d) const;
  static double Unit(double of_value) { return std::sqrt(2.0 * std::abs(of_value)); }
  // The Newton step and decrement of g; returns the rounding of the latter. As far as y is from
  // the set, directions along it look curved: the step ignores eigenvalues that this explains,
  // unless nothing else is left.
  double Measure();
  // From an evaluated y, Newton's method on g, without the directions that are null, until rounding
  // stops it; then everything is evaluated at y, and N is known.
  bool Approach();
  bool FindNullSpace(double rounding);
  // A minimum has no direction along which g falls without rising first. True: y, a stationary
  // point, had one and is further on.
  bool LeaveInflection();
  // f along the set: lambda, r = N'f_y, W and R = N'W N, from what Approach has left.
  bool Project();
  // Y*(x) moves smoothly with x only if g_yx has no part in the null space.
  bool CheckSmoothness();

  // R^+ N'v; false where that part of v sees what neither level determines.
  bool SolveReduced(const Vector& v, Vector* t);
  // (f_yx + D^2_y D_x g[lambda])'v - g_yx' H^+ W v.
  void PullBack(const Vector& v, Vector* product) const;
  void Hold(Vector* v) const;  // 0 in coordinates that are held.
  std::string FreeBlocks() const;
  // Those that hold y, and those that only touch it.
  void NameBounds(LowerSolverReport* report) const;

  bool Fail(const std::string& what) {
    message = what;
    return false;
  }

  const Program& program;
  Program::Scenario* scenario;
  const Space& space;
  const Options& options;
  LevelEvaluator f, g;
  NoiseOfValue noise;  // Of g.
  Vector x;
  Point y, trial;
  double value = 0.0, f_value = 0.0, decrement = -1.0, relative_decrement = -1.0;
  Vector gradient, fy, step, lambda;
  SparseMatrix h, jacobian;         // g_yy (lower triangle), g_yx.
  SparseMatrix fyy, fyx;            // fyy: lower triangle.
  SparseMatrix third_yy, third_yx;  // D^3 g along lambda; third_yy: lower triangle.
  SparseMatrix null, w;
  Vector w_diagonal, reduced_gradient;
  ComponentEigen eigen;
  std::unique_ptr<ComponentEigen> reduced_eigen;  // Of R.
  std::vector<char> held;                         // By bounds of y, on all of the set.
  Vector multipliers;                             // g_y with what is held.
  bool evaluated = false;                         // All of it is that of x and y.
  int least_dimension = std::numeric_limits<int>::max(), most_dimension = 0;  // Met so far.
  bool ok = true;
  std::string message;
  LowerSolverCounts counts;

 private:
  // A step along the set, and what f is expected to change by a share s of it: s slope + s^2
  // bend/2.
  struct Slide {
    Vector direction;
    double slope = 0.0, bend = 0.0;
    bool is_hidden = false;  // In the rounding of f.
  };
  // Bounds; in optimistic_lower_solver_bounds.cc.
  void FindHeld();
  void Hold(SparseMatrix* yy, SparseMatrix* yx) const;
  bool Move(const Vector& direction, Point* point);
  bool CheckHeld();

  bool OffStraightLine(double share, double* off);
  // True: y is where it has fallen.
  bool FallsAlong(const Vector& direction);
  bool Descend(double rounding, double* share);
  Slide NewtonSlide(double* reduced_decrement) const;
  Slide SlideOffSaddle() const;
  bool Follow(const Slide& slide, double* share);
  bool DifferentiateHessian();
  double LengthAlongLambda() const;
  bool EvaluateHessians(double shift, Vector* entries);
  enum class Difference { kFailed, kNone, kDone };
  Difference DifferenceHessians(double size, const Vector& base, Vector* finest, double* error);
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_OPTIMISTIC_LOWER_SOLVER_SCENARIO_H_
