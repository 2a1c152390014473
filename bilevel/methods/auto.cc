#include "bilevel/methods/auto.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/memory.h"
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
  /// `remember` tells what is remembered outside; the watch resumes where it is set to.
  Watch(Monitor* monitor, const Space& x, const Remember& remember) : monitor_(monitor) {
    remember_ = [this, &x, remember](Memory* memory) {
      evidence_.Remember(x, memory);
      memory->Keep("num_iterations", &num_iterations_);
      memory->Keep("best", &best_);
      return remember(memory);
    };
    resumes_ = monitor->Resume(nullptr, remember_);
  }

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

  bool Resume(State* state, const Remember& inner) override {
    if (!resumes_) return false;
    if (state) resumes_ = false;  // Who else asks watches a method of its own.
    return monitor_->Resume(state, [&](Memory* memory) {
      const Memory::Group group(memory, "inner");
      return inner(memory);
    });
  }
  bool Rest(State* state, const Remember& inner) override {
    const bool go_on = monitor_->Rest(state, [&](Memory* memory) {
      remember_(memory);
      const Memory::Group group(memory, "inner");
      return inner(memory);
    });
    stopped_ |= !go_on;
    return go_on;
  }
  bool keeps_checkpoints() const override { return monitor_->keeps_checkpoints(); }

  void StartAttempt() {
    num_iterations_ = -1;  // The start is none.
    best_ = Progress::kUnknown;
  }
  Assessment::Attempt Attempt(const Method& method, const std::string& ended) const {
    return {method.name(), std::max(num_iterations_, 0), best_, ended};
  }
  bool resumes() const { return resumes_; }
  bool stopped() const { return stopped_; }
  const Evidence& evidence() const { return evidence_; }

 private:
  Monitor* monitor_;
  Remember remember_;
  bool resumes_ = false;  // The method to come does.
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
  // Residuals of x alone, a prior beside a general term, have little to linearise.
  const bool takes_lm = oracle.program().x.tangent_size() <= kShortX &&
                        (oracle.f.IsLeastSquares() || oracle.f.ResidualsUseY()) &&
                        lm_.Check(oracle).empty();
  first_ = &lbfgs_;
  if (oracle.program().x.has_bounds()) first_ = &projected_lbfgs_;
  if (takes_lm) first_ = &lm_;
  if (oracle.program().x.tangent_size() == 0) {
    const std::string first = oracle.lower().projects()
                                  ? oracle.program().FirstConstraintBesideSets()
                                  : oracle.program().FirstConstraint();
    if (!first.empty()) {
      return "without x no constraints of the lower level are taken, as is " + first;
    }
    first_ = without_x_.get();
  }
  last_ = first_;
  return first_->Check(oracle);
}

Method::Outcome Auto::Minimize(Oracle& oracle,
                               State& state,
                               Monitor* monitor,
                               std::string* message) {
  attempts_.clear();
  int num_restarts = 0;
  Method* next = first_;
  Watch watch(monitor, state.x.space(), [&](Memory* memory) {
    memory->Keep("num_restarts", &num_restarts);
    RememberAttempts(memory);
    next = last_;
    return true;
  });
  if (watch.resumes() && last_ == optimistic_.get()) optimistic_->Check(oracle);
  for (;;) {
    last_ = next;
    if (!watch.resumes()) watch.StartAttempt();
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
    if (check.better) {
      state.x = check.better->x;
      state.y = check.better->y;
    }
    const bool may_restart = check.better && num_restarts < kMaxRestarts;
    next = nullptr;
    if (check.kind == AnswerKind::kUndetermined) {
      next = AfterRefusal(oracle, state);
    } else if (check.is_at_kink) {
      next = AfterKink(state);
    }
    if (!next && may_restart) {
      ++num_restarts;
      next = last_ == optimistic_.get() ? last_ : first_;
    }
    if (!next) return outcome;
    *message = "";
  }
}

// Where the lower level leaves directions free, and may: kRefuse wants no choice among solutions.
Method* Auto::AfterRefusal(Oracle& oracle, const State& state) {
  // They know no constraints, and need all of y.
  if (!oracle.program().FirstConstraint().empty() || !oracle.program().exchange.is_alone()) {
    return nullptr;
  }
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

// And which method is at work.
void Auto::RememberAttempts(Memory* memory) {
  const std::vector<Method*> all{
      first_, &lm_, &lbfgs_, &projected_lbfgs_, &sampling_, &polling_, &bome_, optimistic_.get()};
  int at = static_cast<int>(std::find(all.begin(), all.end(), last_) - all.begin());
  memory->Keep("method", &at);
  if (at >= 0 && at < static_cast<int>(all.size()) && all[at]) last_ = all[at];
  int num_attempts = static_cast<int>(attempts_.size());
  memory->Keep("num_attempts", &num_attempts);
  attempts_.resize(num_attempts);
  for (int k = 0; k < num_attempts; ++k) {
    const Memory::Group group(memory, "attempt_" + std::to_string(k));
    memory->Keep("method", &attempts_[k].method);
    memory->Keep("num_iterations", &attempts_[k].num_iterations);
    memory->Keep("objective", &attempts_[k].objective);
    memory->Keep("ended", &attempts_[k].ended);
  }
}

void Auto::Finish(Oracle& oracle, const State& state, Assessment* assessment) {
  if (attempts_.size() > 1) assessment->attempts = attempts_;
  last_->Finish(oracle, state, assessment);
  // Where the lower solver has no derivative at the answer, there is no covariance.
  if (last_ != first_) assessment->uncertainty = Uncertainty();
}

}  // namespace bilevel
