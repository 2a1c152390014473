#ifndef BILEVEL_INTERNAL_PREPARED_PROBLEM_H_
#define BILEVEL_INTERNAL_PREPARED_PROBLEM_H_

#include <memory>
#include <string>

#include "bilevel/oracle/lower_solver.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/oracle/scenario_groups.h"
#include "bilevel/problem.h"
#include "bilevel/program/program.h"
#include "bilevel/solver.h"

namespace bilevel {

/// The one policy for y*(x): what `options` ask for, with no solution of its own yet.
std::unique_ptr<LowerSolver> MakeLowerSolver(const Solver::Options& options, Program* program);

/// A problem made ready for solving: compiled, with its lower solver, an oracle, and x and y where
/// the user has them. Whatever solves, analyses or searches a problem opens one, so that what one
/// of them can solve the others can. Made once, it may solve many times.
class PreparedProblem {
 public:
  struct Needs {
    /// Its num_threads is the options'.
    Problem::CompileOptions compile;
    /// Whether the lower solver is to be in groups of options.num_scenarios_per_iteration.
    bool scenario_groups = false;
    /// Why the lower solver has no derivative is an error.
    bool derivative = false;
    /// Whether the problem may be one that is shared among ranks.
    bool ranks = false;
  };

  /// nullptr: *error says what is wrong with the problem or the options.
  static std::unique_ptr<PreparedProblem> Create(const Solver::Options& options,
                                                 const Needs& needs,
                                                 Problem* problem,
                                                 std::string* error);

  /// x and y as they stand in the user's memory.
  State Start() const;
  /// Puts x and y there.
  void WriteUser(const Point& x, const Point& y) const;

  /// Makes the lower solver and the oracle anew: the next lower solve is a cold one.
  void Restart();

  Program& program() { return *program_; }
  LowerSolver& lower() { return *lower_; }
  /// Over lower(), with options.seed; made when first asked for.
  Oracle& oracle();
  /// nullptr: there is but one group.
  ScenarioGroups* groups() { return groups_; }

 private:
  PreparedProblem(const Solver::Options& options, bool in_groups)
      : options_(options), in_groups_(in_groups) {}

  const Solver::Options options_;
  const bool in_groups_;
  std::unique_ptr<Program> program_;
  std::unique_ptr<LowerSolver> lower_;
  ScenarioGroups* groups_ = nullptr;
  std::unique_ptr<Oracle> oracle_;
};

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_PREPARED_PROBLEM_H_
