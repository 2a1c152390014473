#include "bilevel/methods/auto.h"

#include <algorithm>
#include <cmath>

#include "bilevel/methods/hyper_objective/optimistic.h"
#include "bilevel/methods/internal/answer_check.h"
#include "bilevel/methods/internal/without_x.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

// Up to here all of dy*/dx is worth having.
constexpr int kShortX = 200;
// So often x or y is moved to something better by other means than a method's.
constexpr int kMaxRestarts = 5;

}  // namespace

// Passes reports on, and keeps what the check of an answer asks for.
class Auto::Watch final : public Monitor {
 public:
  explicit Watch(Monitor* monitor) : monitor_(monitor) {}

  bool Report(const State& state, const Progress& progress) override {
    ++num_iterations_;
    evidence_.Add(state, progress);
    if (progress.objective < best_ || std::isnan(best_)) best_ = progress.objective;
    const bool go_on = monitor_->Report(state, progress);
    stopped_ |= !go_on;
    return go_on;
  }
  void Reject(const std::string& reason) override { monitor_->Reject(reason); }
  void Judge(const State& answer, const AnswerCheck& verdict) override {
    monitor_->Judge(answer, verdict);
  }
  double gradient_tolerance() const override { return monitor_->gradient_tolerance(); }
  double function_tolerance() const override { return monitor_->function_tolerance(); }
  double parameter_tolerance() const override { return monitor_->parameter_tolerance(); }
  int max_num_iterations() const override { return monitor_->max_num_iterations(); }

  void StartAttempt() {
    num_iterations_ = -1;  // The start is none.
    best_ = Progress::kUnknown;
  }
  Assessment::Attempt Attempt(const Method& method, const std::string& ended) const {
    return {method.name(), std::max(num_iterations_, 0), best_, ended};
  }
  bool stopped() const { return stopped_; }
  const Evidence& evidence() const { return evidence_; }

 private:
  Monitor* monitor_;
  Evidence evidence_;
  bool stopped_ = false;
  int num_iterations_ = -1;
  double best_ = Progress::kUnknown;
};

Auto::Auto() : Auto(true) {}

Auto::Auto(bool may_be_set) : without_x_(std::make_unique<WithoutX>()) {
  if (may_be_set)
    optimistic_ = std::make_unique<Optimistic>(std::unique_ptr<Method>(new Auto(false)));
}

std::string Auto::Check(const Oracle& oracle) {
  // Residuals of x alone, a prior beside a general term, have little to linearise; within bounds
  // levenberg_marquardt's secant learns all of a general f.
  const bool takes_lm =
      oracle.program().x.tangent_size() <= kShortX &&
      (oracle.f.IsLeastSquares() || oracle.f.ResidualsUseY() || oracle.program().x.has_bounds()) &&
      lm_.Check(oracle).empty();
  first_ = &lbfgs_;
  if (oracle.program().x.has_bounds()) first_ = &projected_lbfgs_;
  if (takes_lm) first_ = &lm_;
  if (oracle.program().x.tangent_size() == 0) first_ = without_x_.get();
  last_ = first_;
  return first_->Check(oracle);
}

Method::Outcome Auto::Minimize(Oracle& oracle,
                               State& state,
                               Monitor* monitor,
                               std::string* message) {
  attempts_.clear();
  Watch watch(monitor);
  int num_restarts = 0;
  Method* next = first_;
  for (;;) {
    last_ = next;
    watch.StartAttempt();
    const Outcome outcome = last_->Minimize(oracle, state, &watch, message);
    attempts_.push_back(watch.Attempt(*last_, *message));
    if (watch.stopped()) return outcome;
    // Whatever the method calls it, the answer is judged by what it is.
    const AnswerCheck check = CheckAnswer(oracle, *monitor, watch.evidence(), state);
    const bool has_answer = watch.evidence().first_x.has_value();
    if (check.doubt.empty()) {
      monitor->Judge(state, check);
      return has_answer ? Outcome::kConverged : outcome;
    }
    attempts_.back().ended += "; " + check.doubt;
    if (check.kind == AnswerKind::kUndetermined) {
      next = AfterRefusal(oracle, state);
    } else if (check.is_at_kink) {
      next = AfterKink(state);
    } else if (check.better && ++num_restarts <= kMaxRestarts) {
      state.x = check.better->x;
      state.y = check.better->y;
      next = last_ == optimistic_.get() ? last_ : first_;
    } else {
      next = nullptr;
    }
    if (!next) return outcome;
    *message = "";
  }
}

// Where the lower level leaves directions free, and may: kRefuse wants no choice among solutions.
Method* Auto::AfterRefusal(Oracle& oracle, const State& state) {
  if (last_ == optimistic_.get()) {
    oracle.SetLower(nullptr);  // The path's own had no solution.
  } else {
    Point y = state.y;
    const bool is_set = optimistic_ && last_ != &bome_ && oracle.Solve(state.x, &y) &&
                        oracle.Differentiate(state.x, y) &&
                        oracle.lower().Report().num_free_directions > 0;
    oracle.Clear();
    if (!is_set) return nullptr;
    if (optimistic_->Check(oracle).empty()) return optimistic_.get();
  }
  return bome_.Check(oracle).empty() ? &bome_ : nullptr;
}

Method* Auto::AfterKink(const State& state) {
  if (state.x.dim() > kVeryShortX || last_ == &polling_) return nullptr;
  return last_ == &sampling_ ? static_cast<Method*>(&polling_) : &sampling_;
}

void Auto::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  if (attempts_.size() > 1) assessment->attempts = attempts_;
  last_->Finish(oracle, state, assessment);
  // Where the lower solver has no derivative at the answer, there is no covariance.
  if (last_ != first_) assessment->uncertainty = Uncertainty();
}

}  // namespace bilevel
