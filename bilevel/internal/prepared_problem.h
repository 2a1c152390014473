#ifndef BILEVEL_INTERNAL_PREPARED_PROBLEM_H_
#define BILEVEL_INTERNAL_PREPARED_PROBLEM_H_

#include <memory>
#include <string>

#include "bilevel/oracle/lower_solver.h"
#include "bilevel/oracle/scenario_groups.h"
#include "bilevel/problem.h"
#include "bilevel/program/program.h"
#include "bilevel/solver.h"

namespace bilevel {

/// The one policy for y*(x): what `options` ask for, with no solution of its own yet.
std::unique_ptr<LowerSolver> MakeLowerSolver(const Solver::Options& options, Program* program);

/// A problem made ready for solving: compiled, with its lower solver, x and y where the user has
/// them. Solve, ComputeUncertainty, HypergradientChecker and ArgminCostFunction all open one, so
/// that what one of them can solve the others can.
class PreparedProblem {
 public:
  struct Needs {
    bool upper_level = true;
    /// Whether the lower solver is to be in groups of options.num_scenarios_per_iteration.
    bool scenario_groups = false;
    /// Why the lower solver has no derivative is an error.
    bool derivative = false;
  };

  /// nullptr: *error says what is wrong with the problem or the options.
  static std::unique_ptr<PreparedProblem> Create(const Solver::Options& options,
                                                 const Needs& needs,
                                                 Problem* problem,
                                                 std::string* error);

  /// The user's x and y.
  State Start() const;

  Program& program() { return *program_; }
  LowerSolver& lower() { return *lower_; }
  /// nullptr: there is but one group.
  ScenarioGroups* groups() { return groups_; }

 private:
  PreparedProblem() = default;

  std::unique_ptr<Program> program_;
  std::unique_ptr<LowerSolver> lower_;
  ScenarioGroups* groups_ = nullptr;
};

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_PREPARED_PROBLEM_H_
