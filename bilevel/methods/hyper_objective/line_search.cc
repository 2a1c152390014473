#include "bilevel/methods/hyper_objective/line_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/memory.h"
#include "bilevel/methods/hyper_objective/internal/evaluation_log.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/oracle/lower_solver.h"
#include "ceres/gradient_problem.h"

namespace bilevel {
namespace {

constexpr double kRoundingOfGradient = 1e-8;  // Relative to the first.

// x with its product manifold, as ceres::GradientProblem wants it.
class WholeSpace final : public ceres::Manifold {
 public:
  explicit WholeSpace(const Space* space) : space_(space) {}
  int AmbientSize() const override { return space_->size(); }
  int TangentSize() const override { return space_->tangent_size(); }
  bool Plus(const double* x, const double* delta, double* sum) const override {
    return space_->Plus(x, delta, sum);
  }
  // Never whole: it would have the square of x's length of entries.
  bool PlusJacobian(const double* /*x*/, double* /*jacobian*/) const override { return false; }
  bool RightMultiplyByPlusJacobian(const double* x,
                                   const int num_rows,
                                   const double* ambient,
                                   double* tangent) const override {
    for (int row = 0; row < num_rows; ++row) {
      for (const Space::Block& b : space_->blocks()) {
        const double* const from = ambient + b.offset;
        double* const to = tangent + b.tangent_offset;
        if (!b.manifold) {
          std::copy_n(from, b.size, to);
        } else if (!b.manifold->RightMultiplyByPlusJacobian(x + b.offset, 1, from, to)) {
          return false;
        }
      }
      ambient += space_->size();
      tangent += space_->tangent_size();
    }
    return true;
  }
  bool Minus(const double* y, const double* x, double* difference) const override {
    for (const Space::Block& b : space_->blocks()) {
      double* out = difference + b.tangent_offset;
      if (b.manifold) {
        if (!b.manifold->Minus(y + b.offset, x + b.offset, out)) return false;
      } else {
        for (int i = 0; i < b.size; ++i) out[i] = y[b.offset + i] - x[b.offset + i];
      }
    }
    return true;
  }
  bool MinusJacobian(const double* /*x*/, double* /*jacobian*/) const override { return false; }

 private:
  const Space* space_;
};

// An ambient covector whose tangent projection is the given gradient: the one within the range of
// the Plus Jacobian. ceres::GradientProblem projects ambient gradients itself.
void LiftGradient(const Space& space, const double* x, const Vector& gradient, double* ambient) {
  for (const Space::Block& b : space.blocks()) {
    const auto own = gradient.segment(b.tangent_offset, b.tangent_size);
    Eigen::Map<Vector> out(ambient + b.offset, b.size);
    if (!b.manifold) {
      out = own;
      continue;
    }
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> plus(b.size,
                                                                                b.tangent_size);
    b.manifold->PlusJacobian(x + b.offset, plus.data());
    out = plus * SolveSymmetric(plus.transpose() * plus, own);
  }
}

// What a line search has looked at. It may ask again, and choose any of them, and phi there is f at
// the y that was found first: solved again, y may be another.
class Trials {
 public:
  struct Trial {
    Vector x, y;
    double phi;
    Vector gradient;  // Empty where it was not asked for.
  };
  void Add(Trial trial) {
    if (trials_.size() < kMost) trials_.emplace_back();
    std::rotate(trials_.begin(), trials_.end() - 1, trials_.end());
    trials_.front() = std::move(trial);
  }
  void Clear() { trials_.clear(); }
  const Trial* Find(const Vector& x) const {
    for (const Trial& trial : trials_) {
      if (trial.x == x) return &trial;
    }
    return nullptr;
  }

 private:
  static constexpr size_t kMost = 20;  // Ceres' own limit for one search.
  std::vector<Trial> trials_;          // The newest first.
};

class CeresObjective final : public ceres::FirstOrderFunction {
 public:
  CeresObjective(HyperObjective* phi,
                 Point* x,
                 Trials* trials,
                 EvaluationLog* log,
                 Progress* progress,
                 Monitor* monitor)
      : phi_(phi),
        x_(x),
        trials_(trials),
        log_(log),
        progress_(progress),
        monitor_(monitor),
        gradient_(x->dim()) {}
  int NumParameters() const override { return x_->space().size(); }
  bool Evaluate(const double* parameters, double* cost, double* gradient) const override {
    if (log_->is_replayed()) {
      const EvaluationLog::Entry& answer = log_->Next();
      if (answer.is_refused) return false;
      *cost = answer.phi;
      if (gradient) LiftGradient(x_->space(), parameters, answer.gradient, gradient);
      return true;
    }
    const bool ok = Ask(parameters, cost, gradient);
    if (monitor_->keeps_checkpoints()) {
      log_->Add({!ok, ok ? *cost : 0.0, ok && gradient ? gradient_ : Vector()});
    }
    return ok;
  }

 private:
  bool Ask(const double* parameters, double* cost, double* gradient) const {
    x_->value() = Eigen::Map<const Vector>(parameters, x_->value().size());
    const Trials::Trial* const known = trials_->Find(x_->value());
    if (known && (!gradient || known->gradient.size() == x_->dim())) {
      phi_->Return(*x_, known->y);
      *cost = known->phi;
      if (gradient) gradient_ = known->gradient;
    } else if (!phi_->Evaluate(
                   *x_, cost, gradient ? &gradient_ : nullptr, known ? &known->y : nullptr)) {
      progress_->note = phi_->message();
      monitor_->Reject(phi_->message());
      return false;
    } else {
      trials_->Add({x_->value(), phi_->y().value(), *cost, gradient ? gradient_ : Vector()});
    }
    if (gradient) LiftGradient(x_->space(), parameters, gradient_, gradient);
    return true;
  }

  HyperObjective* phi_;
  Point* x_;
  Trials* trials_;
  EvaluationLog* log_;
  Progress* progress_;
  Monitor* monitor_;
  mutable Vector gradient_;
};

// Passes accepted iterates on, `parameters` holding them.
class Forward final : public ceres::IterationCallback {
 public:
  Forward(HyperObjective* phi,
          Point* x,
          Trials* trials,
          EvaluationLog* log,
          const Vector* parameters,
          State* state,
          Oracle* oracle,
          Monitor* monitor,
          Progress* progress)
      : phi_(phi),
        x_(x),
        trials_(trials),
        log_(log),
        parameters_(parameters),
        state_(state),
        oracle_(oracle),
        monitor_(monitor),
        progress_(progress) {}
  ceres::CallbackReturnType operator()(const ceres::IterationSummary& s) override {
    const bool was_seen = log_->is_replayed();
    log_->CallBack();
    if (was_seen) return ceres::SOLVER_CONTINUE;
    if (x_->value() != *parameters_) {  // A line search may have looked elsewhere last.
      x_->value() = *parameters_;
      const Trials::Trial* const chosen = trials_->Find(*parameters_);
      if (!chosen) {
        progress_->note = "a line search has taken what it did not look at";
        return ceres::SOLVER_ABORT;
      }
      phi_->Return(*x_, chosen->y);
    }
    phi_->Accept();
    trials_->Clear();
    state_->x = *x_;
    state_->y = phi_->y();
    ++num_iterations_;
    if (s.iteration == 0) first_gradient_norm_ = s.gradient_max_norm;
    last_change_ = std::abs(value_ - s.cost);
    value_ = s.cost;
    gradient_norm_ = s.gradient_max_norm;
    progress_->objective = s.cost;
    progress_->gradient_max_norm = s.gradient_max_norm;
    progress_->step_norm = s.step_norm;
    bool go_on = monitor_->Report(*state_, *progress_);
    *progress_ = Progress();
    ++oracle_->iteration;
    go_on = go_on && monitor_->Rest(state_, [this](Memory* memory) { return Remember(memory); });
    return go_on ? ceres::SOLVER_CONTINUE : ceres::SOLVER_TERMINATE_SUCCESSFULLY;
  }
  // And what it has been called with.
  bool Remember(Memory* memory) {
    start_.Remember("start", state_->x.space(), memory);
    log_->Remember(memory);
    phi_->Remember(memory);
    memory->Keep("num_iterations", &num_iterations_);
    memory->Keep("value", &value_);
    memory->Keep("last_change", &last_change_);
    memory->Keep("gradient_norm", &gradient_norm_);
    memory->Keep("first_gradient_norm", &first_gradient_norm_);
    return true;
  }
  Point& start() { return start_; }
  double gradient_norm() const { return gradient_norm_; }
  bool has_reported() const { return num_iterations_ > 0; }
  // Whether a line search that fails from here fails because phi is rounding.
  bool IsAtRounding() const {
    return num_iterations_ > 1 && (last_change_ <= kHiddenInPhi * std::abs(value_) ||
                                   gradient_norm_ <= kRoundingOfGradient * first_gradient_norm_);
  }

 private:
  HyperObjective* phi_;
  Point* x_;
  Trials* trials_;
  EvaluationLog* log_;
  const Vector* parameters_;
  State* state_;
  Oracle* oracle_;
  Monitor* monitor_;
  Progress* progress_;
  Point start_;
  int num_iterations_ = 0;  // The start among them.
  double value_ = std::numeric_limits<double>::infinity();
  double last_change_ = value_, gradient_norm_ = value_, first_gradient_norm_ = 0.0;
};

const char* NameOf(ceres::LineSearchDirectionType direction) {
  switch (direction) {
    case ceres::STEEPEST_DESCENT:
      return "steepest_descent";
    case ceres::NONLINEAR_CONJUGATE_GRADIENT:
      return "ncg";
    case ceres::BFGS:
      return "bfgs";
    case ceres::LBFGS:
      return "lbfgs";
  }
  return "line_search";
}

}  // namespace

LineSearch::LineSearch(ceres::LineSearchDirectionType direction) : name_(NameOf(direction)) {
  options_.line_search_direction_type = direction;
  // Nobody knows the size of phi's curvature beforehand.
  options_.use_approximate_eigenvalue_bfgs_scaling = true;
}

std::string LineSearch::Check(const Oracle& oracle) {
  if (oracle.program().x.has_bounds()) {
    return name_ +
           " cannot honour bounds on x; \"levenberg_marquardt\" does, and \"projected_lbfgs\" "
           "where x is long";
  }
  std::string error;
  if (!options_.IsValid(&error)) return "its line search options are not valid: " + error;
  return oracle.lower().WhyNoDerivative();
}

Method::Outcome LineSearch::Minimize(Oracle& oracle,
                                     State& state,
                                     Monitor* monitor,
                                     std::string* message) {
  HyperObjective phi(&oracle, state.y);
  Point x = state.x;
  Progress progress;
  Trials trials;
  EvaluationLog log;
  Vector parameters;
  Forward forward(&phi, &x, &trials, &log, &parameters, &state, &oracle, monitor, &progress);
  if (!monitor->Resume(&state, [&](Memory* memory) { return forward.Remember(memory); })) {
    double start_value;
    if (!phi.Evaluate(x, &start_value, nullptr)) {
      *message = phi.message();
      return Outcome::kFailure;
    }
    phi.Accept();
    forward.start() = x;
  }
  parameters = forward.start().value();
  ceres::GradientProblem problem(new CeresObjective(&phi, &x, &trials, &log, &progress, monitor),
                                 new WholeSpace(&state.x.space()));
  ceres::GradientProblemSolver::Options options = options_;
  options.logging_type = ceres::SILENT;
  options.minimizer_progress_to_stdout = false;
  options.max_num_iterations = monitor->max_num_iterations();
  options.gradient_tolerance = monitor->gradient_tolerance();
  options.function_tolerance = monitor->function_tolerance();
  options.parameter_tolerance = monitor->parameter_tolerance();
  options.callbacks.push_back(&forward);
  options.update_state_every_iteration = true;
  ceres::GradientProblemSolver::Summary summary;
  ceres::Solve(options, problem, parameters.data(), &summary);
  *message = summary.message;
  // Ceres does not call back for the iterate it has converged at, nor for a start that is one.
  if (summary.termination_type == ceres::CONVERGENCE &&
      (!forward.has_reported() || parameters != state.x.value())) {
    ceres::IterationSummary last;
    x.value() = parameters;
    Vector gradient;
    const Trials::Trial* const known = trials.Find(parameters);
    if (!phi.Evaluate(x, &last.cost, &gradient, known ? &known->y : nullptr)) {
      *message = phi.message();
      return Outcome::kFailure;
    }
    last.gradient_max_norm = gradient.lpNorm<Eigen::Infinity>();
    last.step_norm = (parameters - state.x.value()).norm();
    forward(last);
  }
  // Ceres takes a step that shrinks to nothing for a small one.
  const bool is_refused = summary.termination_type == ceres::CONVERGENCE &&
                          !progress.note.empty() &&
                          forward.gradient_norm() > monitor->gradient_tolerance();
  if (is_refused) {
    *message = "no trial could be evaluated: " + progress.note;
    return Outcome::kNoConvergence;
  }
  switch (summary.termination_type) {
    case ceres::CONVERGENCE:
      return Outcome::kConverged;
    case ceres::NO_CONVERGENCE:
    case ceres::USER_SUCCESS:
      return Outcome::kNoConvergence;
    default:
      if (summary.termination_type == ceres::FAILURE && forward.IsAtRounding()) {
        *message = "no step decreases the objective any more: it has converged to rounding";
        return Outcome::kConverged;
      }
      if (!progress.note.empty()) *message += " (" + progress.note + ")";
      return Outcome::kFailure;
  }
}

}  // namespace bilevel
