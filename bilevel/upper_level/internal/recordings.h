#ifndef BILEVEL_UPPER_LEVEL_INTERNAL_RECORDINGS_H_
#define BILEVEL_UPPER_LEVEL_INTERNAL_RECORDINGS_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/program/program.h"
#include "bilevel/solver.h"
#include "bilevel/upper_level/safe_learning.h"

namespace bilevel {

/// The recordings of a problem that something is learned from: its scenarios whose upper problem
/// sees y. What fails has its sentence in message().
class Recordings {
 public:
  using Values = std::vector<double>;

  /// All must outlive this.
  Recordings(const SafeLearningOptions& options, Problem* problem);

  /// Compiles, and refuses what LearnSafely says it does.
  bool Prepare();

  int num() const { return static_cast<int>(scenarios_.size()); }
  const std::vector<Scenario*>& scenarios() const { return scenarios_; }
  const std::string& name(int recording) const { return scenarios_[recording]->name(); }
  const Space& x() const { return program_->x; }
  const Values& before() const { return x_before_; }  ///< x when prepared.
  /// A scenario for a prior on x, of weight 1 from here on.
  Scenario* AddPriorScenario();

  /// All other recordings are left out.
  void SetWeights(const std::vector<int>& recordings, const Values& weights);
  bool SolveWith(int max_num_iterations);
  /// f of recordings at x, each by a lower solve from the user's start, its fitted blocks at their
  /// best, which *x gets. *x and y stay in the user's memory, and are not looked for twice.
  bool Score(Values* x, const std::vector<int>& recordings, Values* f);
  /// Weights as they were; with `values` x and y, too.
  void Restore(bool values);

  const std::string& message() const { return message_; }
  const Solver::Summary& summary() const { return summary_; }  ///< Of the last solve.
  const LowerSolverCounts& counts() const { return counts_; }  ///< Of all.

 private:
  bool Fail(const std::string& why) {
    message_ = why;
    return false;
  }
  bool Take(Scenario* scenario);
  // Gauss-Newton on the fitted blocks alone, and f there.
  bool Fit(Scenario* scenario, double* f) const;

  const SafeLearningOptions& options_;
  Problem& problem_;
  std::unique_ptr<Program> program_;  // For the user's memory of x and y.
  std::vector<Scenario*> scenarios_;
  Values weights_before_, x_before_, y_before_;
  std::vector<int> scored_;  // Of the last score, as long as y is its.
  Values scored_x_, scored_f_;
  Scenario* prior_ = nullptr;
  std::string message_;
  Solver::Summary summary_;
  LowerSolverCounts counts_;
};

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_INTERNAL_RECORDINGS_H_
