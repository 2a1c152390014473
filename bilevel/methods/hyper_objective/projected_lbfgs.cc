#include "bilevel/methods/hyper_objective/projected_lbfgs.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>
#include <vector>

#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/memory.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

constexpr double kCurved = 1e-10;  // A pair's s'y below this share of |s| |y| is left out.

// B v by the pairs, the newest last, in the coordinates where v is not held.
class LimitedMemory {
 public:
  explicit LimitedMemory(int size) : size_(size) {}

  void Add(const Vector& step, const Vector& change) {
    if (!(step.dot(change) > kCurved * step.norm() * change.norm())) return;
    pairs_.push_back({step, change});
    if (static_cast<int>(pairs_.size()) > size_) pairs_.pop_front();
  }
  void Clear() { pairs_.clear(); }
  void Remember(Memory* memory) {
    int num_pairs = static_cast<int>(pairs_.size());
    memory->Keep("num_pairs", &num_pairs);
    pairs_.resize(num_pairs);
    for (int k = 0; k < num_pairs; ++k) {
      memory->Keep("step_" + std::to_string(k), &pairs_[k].first);
      memory->Keep("change_" + std::to_string(k), &pairs_[k].second);
    }
  }
  bool empty() const { return pairs_.empty(); }

  Vector Times(Vector v, const std::vector<int>& held) const {
    std::vector<double> alphas(pairs_.size(), 0.0), inverse(pairs_.size(), 0.0);
    double scale = 1.0;
    for (size_t k = pairs_.size(); k-- > 0;) {
      // The pairs of the free coordinates are those of phi restricted to them.
      const auto [step, change] = Free(pairs_[k], held);
      const double product = step.dot(change);
      if (!(product > kCurved * step.norm() * change.norm())) continue;
      inverse[k] = 1.0 / product;
      alphas[k] = inverse[k] * step.dot(v);
      v -= alphas[k] * change;
      if (scale == 1.0) scale = product / change.squaredNorm();
    }
    v *= scale;
    for (size_t k = 0; k < pairs_.size(); ++k) {
      if (inverse[k] == 0.0) continue;
      const auto [step, change] = Free(pairs_[k], held);
      v += (alphas[k] - inverse[k] * change.dot(v)) * step;
    }
    return v;
  }

 private:
  using Pair = std::pair<Vector, Vector>;
  static Pair Free(Pair pair, const std::vector<int>& held) {
    for (const int j : held) pair.first[j] = pair.second[j] = 0.0;
    return pair;
  }

  int size_;
  std::deque<Pair> pairs_;
};

// The run of one solve.
class Run {
 public:
  Run(const ProjectedLbfgs::Options& options, Oracle& oracle, State& state, Monitor* monitor)
      : options_(options),
        oracle_(oracle),
        state_(state),
        monitor_(monitor),
        phi_(&oracle, state.y),
        memory_(options.memory),
        step_(state.x.dim()) {}

  Method::Outcome Minimize(std::string* message) {
    const Monitor::Remember remember = [this](Memory* memory) { return Remember(memory); };
    if (!monitor_->Resume(&state_, remember)) {
      if (!phi_.Evaluate(state_.x, &value_, &gradient_)) {
        *message = phi_.message();
        return Method::Outcome::kFailure;
      }
      if (!Report()) return Method::Outcome::kNoConvergence;
      if (HasConverged(kNoChange, message)) return Method::Outcome::kConverged;
    }
    for (;;) {
      if (!monitor_->Rest(&state_, remember)) return Method::Outcome::kNoConvergence;
      const double before = value_;
      if (!Step()) {
        *message = refusal_.empty() ? "no step along the projected gradient decreases phi"
                                    : "no trial could be evaluated: " + refusal_;
        return Method::Outcome::kFailure;
      }
      if (!Report()) return Method::Outcome::kNoConvergence;
      if (HasConverged(before - value_, message)) return Method::Outcome::kConverged;
    }
  }

 private:
  static constexpr double kNoChange = -1.0;  // Yet.

  bool Remember(Memory* memory) {
    memory->Keep("value", &value_);
    memory->Keep("gradient", &gradient_);
    memory->Keep("step_norm", &step_norm_);
    memory_.Remember(memory);
    phi_.Remember(memory);
    return true;
  }

  bool Report() {
    phi_.Accept();
    state_.y = phi_.y();
    Progress progress;
    progress.objective = value_;
    progress.gradient_max_norm = ProjectedMaxNorm(state_.x, gradient_);
    progress.step_norm = step_norm_;
    const bool go_on = monitor_->Report(state_, progress);
    ++oracle_.iteration;
    return go_on;
  }

  bool HasConverged(double change, std::string* message) const {
    if (ProjectedMaxNorm(state_.x, gradient_) <= monitor_->gradient_tolerance()) {
      *message = "the projected gradient is below the gradient tolerance";
    } else if (change >= 0.0 && change <= monitor_->function_tolerance() * std::abs(value_)) {
      *message = "the relative change of phi is below the function tolerance";
    } else if (change >= 0.0 &&
               step_norm_ <= monitor_->parameter_tolerance() *
                                 (state_.x.value().norm() + monitor_->parameter_tolerance())) {
      *message = "the relative step is below the parameter tolerance";
    } else {
      return false;
    }
    return true;
  }

  // Along the quasi-Newton direction or, where nothing there decreases phi, the gradient's.
  bool Step() {
    std::vector<int> held;
    Vector free = gradient_;
    for (int j = 0; j < state_.x.dim(); ++j) {
      if (!state_.x.space().IsHeld(state_.x.value().data(), j, gradient_[j])) continue;
      held.push_back(j);
      free[j] = 0.0;
    }
    if (!memory_.empty()) {
      if (Search(-memory_.Times(free, held))) return true;
      memory_.Clear();
    }
    // Nobody knows the size of phi's curvature beforehand: the first step is of length one at most.
    return Search(-free / std::max(1.0, free.norm()));
  }

  bool Search(const Vector& direction) {
    refusal_.clear();
    double value;
    Vector gradient;
    double t = 1.0;
    for (int trial = 0; trial < options_.max_num_trials; ++trial, t *= 0.5) {
      Point x = state_.x;
      if (!x.Move(t * direction) ||
          !x.space().Minus(x.value().data(), state_.x.value().data(), step_.data())) {
        continue;
      }
      if (!phi_.Evaluate(x, &value, &gradient)) {
        refusal_ = phi_.message();
        monitor_->Reject(refusal_);
        continue;
      }
      if (!(step_.norm() > 0.0) || !(value <= value_ + kSufficientDecrease * gradient_.dot(step_)))
        continue;
      memory_.Add(step_, gradient - gradient_);
      step_norm_ = step_.norm();
      state_.x = x;
      value_ = value;
      std::swap(gradient_, gradient);
      return true;
    }
    return false;
  }

  const ProjectedLbfgs::Options& options_;
  Oracle& oracle_;
  State& state_;
  Monitor* monitor_;
  HyperObjective phi_;
  LimitedMemory memory_;
  double value_ = 0.0, step_norm_ = Progress::kUnknown;
  Vector gradient_, step_;  // The gradient at state_.x.
  std::string refusal_;     // Of the last trial that could not be evaluated.
};

}  // namespace

std::string ProjectedLbfgs::Check(const Oracle& oracle) {
  if (options_.memory < 1) return "projected_lbfgs.memory must be positive";
  if (options_.max_num_trials < 1) return "projected_lbfgs.max_num_trials must be positive";
  return oracle.lower().WhyNoDerivative();
}

Method::Outcome ProjectedLbfgs::Minimize(Oracle& oracle,
                                         State& state,
                                         Monitor* monitor,
                                         std::string* message) {
  return Run(options_, oracle, state, monitor).Minimize(message);
}

}  // namespace bilevel
