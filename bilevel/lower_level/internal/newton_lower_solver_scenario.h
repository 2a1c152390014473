#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_NEWTON_LOWER_SOLVER_SCENARIO_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_NEWTON_LOWER_SOLVER_SCENARIO_H_

// What the files of NewtonLowerSolver share.

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/guarded_problem.h"
#include "bilevel/lower_level/internal/noise_of_value.h"
#include "bilevel/lower_level/internal/secant_correction.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {

// One scenario's solver.
struct NewtonLowerSolver::PerScenario {
  PerScenario(Program* program, Program::Scenario* s, int i)
      : scenario(s),
        index(i),
        g(s->g.get(), &program->pool),
        noise(s->g.get()),
        y(&s->y),
        trial(&s->y),
        start(&s->y),
        beyond(&s->y),
        gradient(Vector::Zero(s->y.tangent_size())),
        step(s->y.tangent_size()),
        trial_gradient(s->y.tangent_size()),
        product(s->y.tangent_size()),
        yy(s->g->yy_pattern()),
        yx(s->g->yx_pattern()),
        system(s->g->yy_pattern(), &s->y, s->g->num_exact_blocks() == s->g->num_residual_blocks()),
        fixed(s->y.tangent_size(), 0) {
    y.value().setZero();  // A checkpoint may be asked for before there is one.
  }

  Program::Scenario* scenario;
  const int index;
  LevelEvaluator g;
  NoiseOfValue noise;
  std::unique_ptr<GuardedProblem> ceres;  // From the first cold solve on.
  Point y, trial, start, beyond;
  double value = 0.0;
  Vector gradient, step, trial_gradient, product;
  SparseMatrix yy, yx;
  RowSparseMatrix rows;  // Of residuals, where the Hessian is singular.
  HessianSystem system;
  std::vector<char> fixed;
  bool any_fixed = false;
  bool singular = false;  // Seen at a solution: expect it again.
  // Whether small eigenvalues may not be zero; seen at the last solution.
  bool may_be_weak = true;
  // Whether the factorisation is the undamped one at y.
  bool factorized = false;
  // Whether it is that of a positive definite Hessian at some earlier point.
  bool kept = false;
  // y was taken for solved by the factorisation of another x.
  bool unconfirmed = false;
  bool ran_out = false;  // Of iterations, or of what decreases the value, in Newton's last run.
  SecantCorrection secant;
  bool evaluated = false;  // Value, gradient and Hessians are those at x and y.
  Vector x;
  double decrement = -1.0, relative_decrement = -1.0;
  std::vector<int> weakly_active;
  // Coordinates at a bound where the value curves down and has no slope: a maximum along them.
  std::vector<int> unstable;
  bool ok = true;
  std::string message;
  LowerSolverCounts counts;

  void Remember(Memory* memory);

  const std::vector<char>* Fixed() const { return any_fixed ? &fixed : nullptr; }

  double Unit() const { return std::sqrt(2.0 * std::abs(value)); }
  void SetRelativeDecrement() {
    relative_decrement = Unit() > 0.0 ? decrement / Unit() : decrement;
  }
  // What the rounding of y itself is worth in the Hessian's norm.
  double Rounding() {
    double squared = 0.0;
    for (const Space::Block& block : scenario->y.blocks()) {
      const auto scale =
          system.factorization().scale().segment(block.tangent_offset, block.tangent_size);
      const auto values = y.value().segment(block.offset, block.size);
      // Coordinates may differ by orders of magnitude in both, as a camera's do.
      squared += block.manifold ? scale.cwiseAbs2().maxCoeff() * values.squaredNorm()
                                : scale.cwiseProduct(values).squaredNorm();
    }
    return kRoundingOfPoint * std::sqrt(squared);
  }
  // Beside what has grown so far all else is rounding, and no sign of a solution.
  bool RunsAway() const {
    constexpr double kFar = 1e11;
    return y.value().norm() > kFar * (1.0 + start.value().norm());
  }
  // The size of what the value is summed from: its rounding is relative to that. Of residual blocks
  // the value itself; general terms may cancel, as 1 - cos(y) does, and are taken to be as large as
  // y in the Hessian's norm, which Rounding() measures.
  double Summands(double rounding) const {
    const double y_size = scenario->g->num_terms() > 0 ? rounding / kRoundingOfPoint : 0.0;
    return std::abs(value) + y_size * y_size;
  }
  int num_active_bounds() const {
    return any_fixed ? static_cast<int>(std::count(fixed.begin(), fixed.end(), char(1))) : 0;
  }
  std::string free_directions() {
    return system.null_space().cols() > 0 ? system.NullSpaceBlocks() : "";
  }
  // The Hessian at x and y as a system. False: the message says why.
  bool PrepareSystem(SingularHandling handling, bool is_factorized) {
    const auto jacobian = [this]() -> const RowSparseMatrix* {
      if (scenario->g->num_residual_blocks() == 0 || scenario->g->num_terms() > 0) return nullptr;
      return g.JacobianInY(x.data(), y.value().data(), &rows) ? &rows : nullptr;
    };
    const int before = system.num_factorizations();
    const bool is_prepared = system.Prepare(&yy, Fixed(), handling, is_factorized, jacobian);
    if (!is_prepared) message = system.message();
    counts.factorizations += system.num_factorizations() - before;
    may_be_weak = system.num_weak_directions() > 0;
    return is_prepared;
  }
  // By the system as it stands; the gradient has no say in directions that are free.
  double MeasuredDecrement() {
    double squared = 0.0;
    return system.SquaredNorm(gradient, &step, &squared) ? std::sqrt(std::abs(squared)) : kInfinity;
  }
  // The longest of the step's parts, relative to y's: beside a stiff coordinate, whose size the
  // decrement's tolerance then has, a soft one may be far off.
  double RelativeStep() const {
    double longest = 0.0;
    for (const Space::Block& block : scenario->y.blocks()) {
      const auto own = step.segment(block.tangent_offset, block.tangent_size).array();
      const auto values = y.value().segment(block.offset, block.size).array();
      longest =
          std::max(longest,
                   block.manifold ? std::sqrt(own.square().sum() / (1.0 + values.square().sum()))
                                  : (own.abs() / (1.0 + values.abs())).maxCoeff());
    }
    return longest;
  }
  // From a maximum at a bound a little way to where the value is less. False: y is at none.
  bool LeaveBounds() {
    const Space& space = scenario->y;
    for (const int j : unstable) {
      double& at = y.value()[space.AmbientIndex(j)];
      const double lower = space.LowerBound(j), upper = space.UpperBound(j);
      const double way = std::min(1e-3 * (1.0 + std::abs(at)), 0.5 * (upper - lower));
      at += at <= lower ? way : -way;
    }
    return !unstable.empty();
  }
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_NEWTON_LOWER_SOLVER_SCENARIO_H_
