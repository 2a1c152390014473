#ifndef BILEVEL_INTERNAL_RECORDER_H_
#define BILEVEL_INTERNAL_RECORDER_H_

#include <chrono>
#include <optional>
#include <string>

#include "bilevel/internal/checkpoint.h"
#include "bilevel/methods/internal/answer_check.h"
#include "bilevel/methods/method.h"
#include "bilevel/solver.h"

namespace bilevel {

/// A longer x is not kept in summaries.
constexpr int kMaxKeptSize = 1000;

/// Puts x and y into the user's memory.
void WriteUser(const State& state);

/// Watches a method for Solve: fills Summary::iterations, keeps the best state, prints, asks the
/// callbacks, applies the limits.
class Recorder final : public Monitor {
 public:
  /// Nothing is owned.
  Recorder(const Solver::Options& options, Oracle* oracle, Solver::Summary* summary);

  bool Report(const State& state, const Progress& progress) override;
  void Reject(const std::string& reason) override;
  void Judge(const State& answer, const AnswerCheck& verdict) override;
  bool Resume(State* state, const Remember& remember) override;
  bool Rest(State* state, const Remember& remember) override;
  bool keeps_checkpoints() const override { return checkpoint_.is_wanted(); }
  double gradient_tolerance() const override { return options_.gradient_tolerance; }
  double function_tolerance() const override { return options_.function_tolerance; }
  double parameter_tolerance() const override { return options_.parameter_tolerance; }
  int max_num_iterations() const override { return options_.max_num_iterations; }

  double Seconds() const;

  /// Where a checkpoint is to be resumed, *start becomes that of its run. False: *error says what
  /// is wrong with it.
  bool OpenCheckpoint(State* start, std::string* error);

  bool have_best() const { return have_best_; }
  /// Ends the run as at the time limit, where there is an answer to end it with.
  bool StopLate();
  bool best_is_solved() const { return best_is_solved_; }
  bool best_leaves_y() const { return best_leaves_y_; }
  const State& best() const { return best_; }
  double best_decrement() const { return best_decrement_; }
  /// That of the best state.
  const Evidence& evidence() const { return evidence_; }
  /// What the method's own check said of this answer; nullptr where it has not looked.
  const AnswerCheck* verdict(const State& answer) const;
  /// Why the run was stopped; an empty message: the method ended by itself.
  ceres::TerminationType stop_type() const { return stop_type_; }
  const std::string& stop_message() const { return stop_message_; }

 private:
  void KeepIfBest(const State& state, const Progress& progress, const IterationSummary& it);
  bool Stop(ceres::TerminationType type, const std::string& message);
  void RememberOwn(Memory* memory);
  bool IsBeforeLimit() const;
  bool RememberAll(State* state, const Remember& remember, Memory* memory);

  const Solver::Options& options_;
  Oracle* oracle_;
  Solver::Summary* summary_;
  std::chrono::steady_clock::time_point start_;
  bool have_best_ = false, best_is_solved_ = false, best_leaves_y_ = false;
  State best_;
  Evidence evidence_;
  State judged_;
  std::optional<AnswerCheck> verdict_;
  double best_decrement_ = Progress::kUnknown;
  ceres::TerminationType stop_type_ = ceres::NO_CONVERGENCE;
  std::string stop_message_;
  Checkpoint checkpoint_;
  bool has_rested_ = false;
  double last_rest_ = 0.0;  // In seconds.
};

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_RECORDER_H_
