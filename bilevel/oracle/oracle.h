#ifndef BILEVEL_ORACLE_ORACLE_H_
#define BILEVEL_ORACLE_ORACLE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bilevel/oracle/level_view.h"
#include "bilevel/program/program.h"
#include "bilevel/program/space.h"
#include "bilevel/terms/batch.h"
#include "bilevel/types.h"

namespace bilevel {

class LowerSolver;
class Memory;
class ScenarioGroups;

/// Everything a method may ask of the problem. Whatever fails latches: ok() stays false, later
/// evaluations return NaN without being made, and error() names the first culprit.
class Oracle {
 public:
  /// Nothing is owned; lower may be nullptr for methods that never solve the lower level.
  Oracle(Program* program, LowerSolver* lower, uint64_t seed);
  ~Oracle();

  LevelView f, g;

  /// A minibatch of `size` terms, always the same for the same (iteration, stream).
  Batch Draw(int size, int stream) const { return Draw(size, stream, iteration); }
  /// The index-th batch of a stream; streams are independent of each other.
  Batch Draw(int size,
             int stream,
             uint64_t index,
             Batch::Sampling sampling = Batch::kIndependent) const;
  uint64_t iteration = 0;

  /// y <- y*(x) from the start in *y. False where there is none: y is untouched, message() says
  /// why, and nothing latches, since a trial step may be rejected.
  bool Solve(const Point& x, Point* y);
  /// dy*/dx at a solved (x, y), see LowerSolver. False as Solve.
  bool Differentiate(const Point& x, const Point& y);
  /// The same after Solve. y is solved again where the Hessian at x shows what the solver, with an
  /// older one, could not see: that it was not.
  bool Differentiate(const Point& x, Point* y);
  LowerSolver& lower() { return *lower_; }
  const LowerSolver& lower() const { return *lower_; }
  /// Another lower solver from here on, for a method that brings its own; nullptr: the first again.
  /// It may start at first_lower(), which stays.
  void SetLower(std::unique_ptr<LowerSolver> lower);
  LowerSolver& first_lower() { return *first_lower_; }
  bool lower_is_the_methods() const { return lower_ != first_lower_; }

  /// From here on DrawScenarios picks one of the lower solver's groups; see UseScenarios. Not
  /// owned.
  void SetScenarioGroups(ScenarioGroups* groups) { groups_ = groups; }
  /// The group of this iteration: each one once, in another order, before any comes again. f is
  /// then its sum times the number of groups, all of f on average; g and y are those of its
  /// scenarios, with zeros in derivatives by the others' y. Nothing where there are no groups.
  void DrawScenarios();
  /// One scenario of f and g as it is, without drawing; the lower solver stays that of all.
  void UseScenario(int index);
  /// All scenarios again.
  void UseAllScenarios();
  bool uses_scenario_batch() const { return num_used_ >= 0; }

  /// body(worker, i) for i in [0, n) on the program's threads: each worker is an oracle with
  /// scratch, latch and lower solver of its own, made once. A worker's indices are always the same
  /// and in order, so that what its solver remembers does not depend on the number of threads.
  /// Counts are added here in the end; the first failure in the order of i latches here.
  void ForEach(int n, const std::function<void(Oracle& worker, int i)>& body);
  /// A direction on the unit sphere of the tangent space, always the same for the same
  /// (iteration, stream).
  void RandomDirection(int stream, Vector* direction) const;

  /// For checkpoints: the iteration, all counts, and the lower solvers. False where one of these
  /// does not tell.
  bool Remember(Memory* memory);

  const std::string& message() const { return message_; }

  bool ok() const { return error_.empty(); }
  const std::string& error() const { return error_; }
  void Fail(const std::string& what);
  /// Takes the latch back after a rejected trial; returns what failed.
  std::string Clear();

  const FunctionCounts& f_counts() const { return f_counts_; }
  const FunctionCounts& g_counts() const { return g_counts_; }
  /// The lower solver's and its forks'.
  LowerSolverCounts lower_solver_counts() const;
  const Program& program() const { return *program_; }
  Program* mutable_program() { return program_; }

 private:
  friend class LevelView;
  struct PerScenario;
  void MakeWorkers(int num_workers);
  // This rank's of the scenarios in use, by their place in parts_; and where all of them are.
  struct Parts {
    int first, count;
  };
  Parts UsedParts() const;
  Exchange UsedExchange() const;

  Program* program_;
  LowerSolver* lower_;
  LowerSolver* first_lower_;
  uint64_t seed_;
  std::vector<std::unique_ptr<PerScenario>> parts_;
  std::vector<std::unique_ptr<Oracle>> workers_;
  std::unique_ptr<LowerSolver> own_lower_;  // A worker's, or SetLower's.
  FunctionCounts f_counts_, g_counts_;
  LowerSolverCounts retired_counts_;  // Of solvers that SetLower replaced.
  ScenarioGroups* groups_ = nullptr;
  int first_used_ = 0, num_used_ = -1;      // Scenarios; -1: all.
  double used_scale_ = 1.0;                 // Of f.
  std::optional<long> num_epoch_terms_[2];  // Of g and of f, once asked for; -1: one is a stream.
  std::string error_, message_;
};

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_ORACLE_H_
