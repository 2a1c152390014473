#include "bilevel/solver.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <regex>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/internal/prepared_problem.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/registry.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/program/program.h"

namespace bilevel {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// A longer x is not kept in the summaries of all iterations.
constexpr int kMaxKeptSize = 1000;
// Relative changes of phi below this are rounding, of y as well.
constexpr double kRoundingOfPhi = 1e-12;

void WriteUser(const State& state) {
  state.x.space().WriteUser(state.x.value().data());
  state.y.space().WriteUser(state.y.value().data());
}

// Judges a solved y once more, by the Hessian at x. True: it had to be solved again, and was.
// *undetermined says so where f depends on directions that the lower level leaves free.
bool Confirm(Oracle& oracle, const Point& x, Point* y, std::string* undetermined) {
  if (!oracle.lower().WhyNoDerivative().empty()) return false;
  Point confirmed = *y;
  try {
    if (!oracle.Differentiate(x, &confirmed)) return false;
    if (undetermined && oracle.lower().Report().num_free_directions > 0) {
      Vector fy;
      oracle.f.Gradient(x, confirmed, nullptr, &fy);
      if (oracle.Clear().empty() && !oracle.lower().IsDetermined(fy)) {
        *undetermined = oracle.lower().message();
      }
    }
  } catch (...) {
    return false;  // Nothing was to be learned.
  }
  const bool has_moved = confirmed.value() != y->value();
  *y = confirmed;
  return has_moved;
}

// y <- y*(x) and phi there; NaN, with a message in the oracle, where there is none.
double SolveLowerLevel(Oracle& oracle, State* state) {
  oracle.Clear();
  if (!oracle.Solve(state->x, &state->y)) return kNaN;
  Confirm(oracle, state->x, &state->y, nullptr);
  const double phi = oracle.f.Value(state->x, state->y);
  oracle.Clear();
  return phi;
}

// For a method whose y is not y*(x): solves it at the end and, unless phi is known there, at the
// start; the better of both is the answer. False: the end has no y*(x).
bool SolveInTheEnd(Oracle& oracle, const State& start, State* end, Solver::Summary* summary) {
  const double gap = oracle.g.Value(end->x, end->y);
  const double phi = SolveLowerLevel(oracle, end);
  const bool solved = std::isfinite(phi);
  if (solved) {
    summary->final_lower_gap = gap - oracle.g.Value(end->x, end->y);
    summary->final_objective = phi;
    summary->final_lower_level_decrement = oracle.lower().relative_decrement();
  } else {
    summary->message += "; y is the method's own, not y*(x): " + oracle.message();
  }
  double& initial = summary->initial_objective;
  if (phi <= initial) return true;
  State first = start;
  initial = SolveLowerLevel(oracle, &first);
  if (!std::isfinite(initial)) {
    initial = -1.0;
  } else if (!(phi <= initial)) {
    summary->message +=
        "; phi went from " + Number(initial) + " to " + Number(phi) + ": x and y are the start's";
    summary->final_objective = initial;
    *end = first;
  }
  oracle.Clear();
  return solved;
}

// The change of phi that is not worth another step: what the user calls small, or rounding.
double Negligible(const Solver::Options& options, double phi, double first_phi) {
  return std::max(options.function_tolerance * std::abs(phi),
                  kRoundingOfPhi * std::max(std::abs(phi), std::abs(first_phi)));
}

// Why a solved answer that a method found by estimates is none after all, by phi's own gradient
// there: by its change a little way down, a Newton step along it promises a decrease of phi; or it
// has vanished for the way back to the start too, so that x has run off to where phi is flat.
std::string WhyNotStationary(Oracle& oracle,
                             const Solver::Options& options,
                             const State& start,
                             const State& end,
                             Solver::Summary* summary) {
  constexpr double kWay = 1e-4, kShortestWay = 1e-14, kBack = 1e-2, kFlat = 1e-9;
  const double initial = summary->initial_objective, final = summary->final_objective;
  HyperObjective phi(&oracle, end.y);
  double value;
  Vector gradient, beside;
  if (!phi.Evaluate(end.x, &value, &gradient)) return "";
  ClearHeld(end.x, gradient, &gradient);
  summary->final_gradient_max_norm = gradient.lpNorm<Eigen::Infinity>();
  if (summary->final_gradient_max_norm > options.gradient_tolerance) {
    // Beside a kink the slope turns within any way, and the shorter it is the less is promised.
    const double norm = gradient.norm();
    double promised = 0.0, slope = -1.0;
    for (double way = kWay; slope < 0.0 && way > kShortestWay; way *= 0.1) {
      Point x = end.x;
      const double length = way * (1.0 + x.value().norm()) / norm;
      if (!x.Move(-length * gradient) || !phi.Evaluate(x, &value, &beside)) return "";
      slope = gradient.dot(beside);
      const double curvature = (norm * norm - slope) / length;  // Times norm^2.
      promised = curvature > 0.0 ? 0.5 * std::pow(norm, 4) / curvature
                                 : std::numeric_limits<double>::infinity();
      if (!(promised > Negligible(options, final, initial))) return "";
    }
    return "but phi's own gradient there is " + Scientific(summary->final_gradient_max_norm) +
           " and promises a decrease of " + Scientific(promised) +
           ": the method's estimate of it is off";
  }
  Point x = end.x;
  Vector back(x.dim());
  if (!x.space().Minus(start.x.value().data(), x.value().data(), back.data())) return "";
  back *= kBack;
  if (!(initial > final) || !x.Move(back) || !phi.Evaluate(x, &value, &beside)) return "";
  ClearHeld(x, beside, &beside);
  if (beside.norm() * back.norm() > kFlat * (initial - final)) return "";
  return "but phi is flat all around: x has run off to where it no longer matters";
}

// The reason without its numbers, so that equal ones can be counted: "residual block # of ...".
std::string MaskNumbers(const std::string& reason) {
  static const std::regex number(R"((^|[^A-Za-z_0-9])-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?)");
  return std::regex_replace(reason, number, "$1#");
}

// Watches a method: keeps the best state, prints, asks the callbacks, applies the limits.
class Recorder final : public Monitor {
 public:
  Recorder(const Solver::Options& options, const Oracle* oracle, Solver::Summary* summary)
      : options_(options),
        oracle_(oracle),
        summary_(summary),
        start_(std::chrono::steady_clock::now()) {}

  bool Report(const State& state, const Progress& progress) override {
    IterationSummary it;
    it.iteration = progress.iteration >= 0 ? static_cast<int>(progress.iteration)
                                           : static_cast<int>(summary_->iterations.size());
    it.objective = progress.objective;
    if (!summary_->iterations.empty()) {
      it.objective_change = summary_->iterations.back().objective - progress.objective;
    }
    it.upper_value = progress.upper_value;
    it.held_out = progress.held_out;
    it.lower_gap = progress.lower_gap;
    it.kkt_loss = progress.kkt_loss;
    it.gradient_max_norm = progress.gradient_norm;
    it.step_norm = progress.step_norm;
    it.trust_region_radius = progress.trust_region_radius;
    it.step_is_successful = progress.accepted;
    it.note = progress.note;
    const double decrement = oracle_->lower().relative_decrement();
    if (decrement >= 0.0 && progress.y_is_solved) it.lower_level_decrement = decrement;
    it.upper = oracle_->f_counts();
    it.lower = oracle_->g_counts();
    it.upper_epochs = oracle_->f.Epochs(it.upper);
    it.lower_epochs = oracle_->g.Epochs(it.lower);
    it.lower_solver = oracle_->lower_solver_counts();
    it.cumulative_time_in_seconds = Seconds();
    if (!progress.accepted) Reject(progress.note);
    if (it.iteration > 0) {
      ++(it.step_is_successful ? summary_->num_successful_steps : summary_->num_unsuccessful_steps);
    }
    const bool better = progress.objective < best_objective_ || std::isnan(progress.objective);
    if (!have_best_ || progress.keep == Progress::kAlways ||
        (progress.keep == Progress::kIfBetter && better)) {
      have_best_ = true;
      best_is_solved_ = progress.y_is_solved;
      best_leaves_y_ = progress.leave_y;
      best_objective_ = progress.objective;
      best_ = state;
      best_gradient_norm_ = progress.gradient_norm;
      best_decrement_ = it.lower_level_decrement;
    }
    const Vector& x = state.x.value();
    if (x.size() <= kMaxKeptSize) it.x.assign(x.data(), x.data() + x.size());
    summary_->iterations.push_back(it);
    it.x.assign(x.data(), x.data() + x.size());
    if (options_.minimizer_progress_to_stdout) Print(it);
    if (options_.update_state_every_iteration) WriteUser(state);

    for (IterationCallback* callback : options_.callbacks) {
      const ceres::CallbackReturnType wish = (*callback)(it);
      if (wish == ceres::SOLVER_CONTINUE) continue;
      stop_type_ = wish == ceres::SOLVER_ABORT ? ceres::USER_FAILURE : ceres::USER_SUCCESS;
      stop_message_ = wish == ceres::SOLVER_ABORT ? "a user callback aborted the solve"
                                                  : "a user callback ended the solve";
      return false;
    }
    if (it.iteration >= options_.max_num_iterations) {
      stop_type_ = ceres::NO_CONVERGENCE;
      stop_message_ = "the maximum number of iterations (" +
                      std::to_string(options_.max_num_iterations) + ") was reached";
      return false;
    }
    if (Seconds() > options_.max_solver_time_in_seconds) {
      stop_type_ = ceres::NO_CONVERGENCE;
      stop_message_ = "the time limit was reached";
      return false;
    }
    return true;
  }

  void Reject(const std::string& reason) override {
    const std::string masked = MaskNumbers(reason);
    auto& all = summary_->rejections;
    auto at = std::find_if(all.begin(), all.end(), [&](const Solver::Summary::Rejection& known) {
      return known.reason == masked;
    });
    if (at == all.end()) at = all.insert(at, {masked, 0});
    ++at->count;
    for (; at != all.begin() && (at - 1)->count < at->count; --at) std::iter_swap(at, at - 1);
  }

  double gradient_tolerance() const override { return options_.gradient_tolerance; }
  double function_tolerance() const override { return options_.function_tolerance; }
  double parameter_tolerance() const override { return options_.parameter_tolerance; }
  int max_num_iterations() const override { return options_.max_num_iterations; }

  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  // CONVERGENCE is a promise. What speaks against it: a bound of y that is only weakly active,
  // where a gradient sees one side of phi's kink, or a gradient that moved x nowhere. Empty:
  // nothing does.
  std::string WhyNotConverged() const {
    const auto& all = summary_->iterations;
    const bool by_gradient = !all.empty() && !std::isnan(all.back().gradient_max_norm);
    if (!by_gradient) return "";
    if (const std::string weak = oracle_->lower().Report().weakly_active; !weak.empty()) {
      return "but phi has a kink there, since a bound of y is only weakly active (" + weak +
             "), and its gradient sees one side of it: \"pattern_search\" looks at both";
    }
    if (!(best_gradient_norm_ > options_.gradient_tolerance)) return "";
    const auto last = std::find_if(all.rbegin(), all.rend(), [](const IterationSummary& it) {
      return it.step_is_successful && it.step_norm > 0.0;
    });
    if (last == all.rend()) {
      return "but x has not moved although |gradient| is " + Scientific(best_gradient_norm_) +
             ": it is stuck";
    }
    // What another step as long promises, beside what is asked for and the rounding of phi.
    const double promised = best_gradient_norm_ * last->step_norm;
    if (!(promised > Negligible(options_, best_objective_, all.front().objective))) return "";
    return "but |gradient| is " + Scientific(best_gradient_norm_) +
           ", and another step as long as the last promises " + Scientific(promised) +
           " of phi = " + Number(best_objective_) + ": it is stuck";
  }
  bool have_best() const { return have_best_; }
  bool best_is_solved() const { return best_is_solved_; }
  bool best_leaves_y() const { return best_leaves_y_; }
  const State& best() const { return best_; }
  double best_objective() const { return best_objective_; }
  double best_gradient_norm() const { return best_gradient_norm_; }
  double best_decrement() const { return best_decrement_; }
  ceres::TerminationType stop_type() const { return stop_type_; }
  const std::string& stop_message() const { return stop_message_; }

 private:
  static void Print(const IterationSummary& it) {
    if (it.iteration == 0) {
      std::printf(
          "iter    objective      change   |gradient|    |step|  tr_radius   decrement "
          "factor.  time\n");
    }
    // ~: f at a y that is not y*(x).
    const bool known = !std::isnan(it.objective);
    std::printf("%4d%c% 13.6e % 10.2e % 11.2e % 10.2e % 9.2e % 11.2e %7ld %7.2f%s%s\n",
                it.iteration,
                known || std::isnan(it.upper_value) ? ' ' : '~',
                known ? it.objective : it.upper_value,
                it.objective_change,
                it.gradient_max_norm,
                it.step_norm,
                it.trust_region_radius,
                it.lower_level_decrement,
                it.lower_solver.factorizations,
                it.cumulative_time_in_seconds,
                it.step_is_successful ? "" : "  rejected: ",
                it.step_is_successful ? "" : it.note.c_str());
    std::fflush(stdout);
  }

  const Solver::Options& options_;
  const Oracle* oracle_;
  Solver::Summary* summary_;
  std::chrono::steady_clock::time_point start_;
  bool have_best_ = false, best_is_solved_ = false, best_leaves_y_ = false;
  State best_;
  double best_objective_ = kNaN, best_gradient_norm_ = kNaN, best_decrement_ = kNaN;
  ceres::TerminationType stop_type_ = ceres::NO_CONVERGENCE;
  std::string stop_message_;  // Empty: the method stopped by itself.
};

}  // namespace

Solver::Options::Options() : method(CreateMethod("auto")) {
  // Tight enough to hand over to Newton, silent unless asked.
  lower_solver_options.logging_type = ceres::SILENT;
  lower_solver_options.max_num_iterations = 200;
  lower_solver_options.function_tolerance = 1e-10;
}

bool Solver::Options::IsValid(std::string* error) const {
  const auto require = [&](bool ok, const char* what) {
    if (!ok && error) *error = what;
    return ok;
  };
  std::string lower_error;
  if (!lower_solver_options.IsValid(&lower_error)) {
    return require(false, ("lower_solver_options: " + lower_error).c_str());
  }
  return require(lower_tolerance > 0.0 && lower_tolerance < 1.0,
                 "lower_tolerance must be between 0 and 1") &&
         require(max_num_lower_newton_iterations >= 0,
                 "max_num_lower_newton_iterations must not be negative") &&
         require(max_num_iterations >= 0, "max_num_iterations must not be negative") &&
         require(max_solver_time_in_seconds >= 0.0,
                 "max_solver_time_in_seconds must not be negative") &&
         require(gradient_tolerance >= 0.0, "gradient_tolerance must not be negative") &&
         require(function_tolerance >= 0.0, "function_tolerance must not be negative") &&
         require(parameter_tolerance >= 0.0, "parameter_tolerance must not be negative") &&
         require(num_threads > 0 && num_threads <= 1024,
                 "num_threads must be between 1 and 1024") &&
         require(num_scenarios_per_iteration >= 0,
                 "num_scenarios_per_iteration must not be negative") &&
         require(method != nullptr, "the method is null") &&
         require(std::find(callbacks.begin(), callbacks.end(), nullptr) == callbacks.end(),
                 "a callback is null");
}

NewtonLowerSolver::Options Solver::Options::LowerSolverOptions() const {
  NewtonLowerSolver::Options lower;
  lower.ceres = lower_solver_options;
  lower.ceres.max_solver_time_in_seconds =
      std::min(lower.ceres.max_solver_time_in_seconds, max_solver_time_in_seconds);
  lower.tolerance = lower_tolerance;
  lower.max_num_newton_iterations = max_num_lower_newton_iterations;
  lower.hessian = lower_hessian;
  lower.singular_handling = singular_handling;
  return lower;
}

void Solver::Solve(const Options& options, Problem* problem, Summary* summary) {
  Summary unwanted;
  if (!summary) summary = &unwanted;
  *summary = Summary();
  const auto fail = [&](const std::string& what) {
    summary->termination_type = ceres::FAILURE;
    summary->message = what;
  };
  if (!problem) return fail("the problem is null");
  std::string error;
  PreparedProblem::Needs needs;
  needs.scenario_groups = true;
  const auto prepared = PreparedProblem::Create(options, needs, problem, &error);
  if (!prepared) return fail(error);
  summary->num_threads_given = summary->num_threads_used = options.num_threads;
  summary->lower_hessian = options.lower_hessian;

  Program* const program = &prepared->program();
  summary->num_upper_parameters = program->x.tangent_size();
  summary->num_lower_parameters = program->y.tangent_size();
  summary->num_scenarios = static_cast<int>(program->scenarios.size());
  summary->num_upper_residual_blocks = summary->num_lower_residual_blocks = 0;
  summary->num_exact_residual_blocks = 0;
  for (const auto& s : program->scenarios) {
    summary->num_upper_residual_blocks += s->f->num_residual_blocks();
    summary->num_lower_residual_blocks += s->g->num_residual_blocks();
    summary->num_exact_residual_blocks += s->g->num_exact_blocks();
  }
  summary->num_numeric_residual_blocks =
      summary->num_lower_residual_blocks - summary->num_exact_residual_blocks;

  Method* const method = options.method.get();
  if (prepared->groups() && !dynamic_cast<GradientMethod*>(method)) {
    return fail(method->name() +
                " takes all scenarios in every iteration: num_scenarios_per_iteration is for "
                "first-order methods such as \"adam\"");
  }
  Oracle oracle(program, &prepared->lower(), options.seed);
  oracle.SetScenarioGroups(prepared->groups());
  if (const std::string complaint = method->Check(oracle); !complaint.empty()) {
    return fail(complaint);
  }
  summary->method = method->name();

  State state = prepared->Start();
  const State start = state;
  Recorder recorder(options, &oracle, summary);
  Method::Outcome outcome = Method::Outcome::kFailure;
  std::string message;
  try {
    outcome = method->Minimize(oracle, state, &recorder, &message);
  } catch (const std::exception& e) {
    message = std::string("the solve threw: ") + e.what();
  } catch (...) {
    message = "the solve threw something that is not a std::exception";
  }
  oracle.UseAllScenarios();
  switch (outcome) {
    case Method::Outcome::kConverged:
      summary->termination_type = ceres::CONVERGENCE;
      summary->message = message;
      if (const std::string doubt = recorder.WhyNotConverged(); !doubt.empty()) {
        summary->termination_type = ceres::NO_CONVERGENCE;
        summary->message += "; " + doubt;
      }
      break;
    case Method::Outcome::kNoConvergence:
      summary->termination_type = recorder.stop_type();
      summary->message = recorder.stop_message().empty() ? message : recorder.stop_message();
      break;
    case Method::Outcome::kFailure:
      summary->termination_type = ceres::FAILURE;
      summary->message = message;
      break;
  }
  const bool improved =
      summary->termination_type == ceres::FAILURE && summary->num_successful_steps > 0;
  if (recorder.have_best() && (summary->IsSolutionUsable() || improved)) {
    State end = recorder.best();
    summary->initial_objective = summary->iterations.front().objective;
    summary->final_objective = recorder.best_objective();
    summary->final_gradient_max_norm = recorder.best_gradient_norm();
    summary->final_lower_level_decrement = recorder.best_decrement();
    if (!recorder.best_is_solved() && !recorder.best_leaves_y()) {
      if (!SolveInTheEnd(oracle, start, &end, summary)) {
        summary->termination_type = ceres::FAILURE;
      } else if (summary->termination_type == ceres::CONVERGENCE) {
        if (oracle.lower().WhyNoDerivative().empty()) {
          std::string doubt;
          try {
            doubt = WhyNotStationary(oracle, options, start, end, summary);
          } catch (const std::exception& e) {
            doubt = std::string("but phi's own gradient there threw: ") + e.what();
          }
          if (!doubt.empty()) {
            summary->termination_type = ceres::NO_CONVERGENCE;
            summary->message += "; " + doubt;
          }
        }
        oracle.Clear();
      }
    }
    // A gradient has confirmed y by the Hessian at x; values alone have not.
    if (recorder.best_is_solved() && std::isnan(recorder.best_gradient_norm())) {
      std::string undetermined;
      if (Confirm(oracle, end.x, &end.y, &undetermined)) {
        summary->final_objective = oracle.f.Value(end.x, end.y);
        oracle.Clear();
      }
      if (!undetermined.empty() && summary->termination_type == ceres::CONVERGENCE) {
        summary->termination_type = ceres::NO_CONVERGENCE;
        summary->message += "; but phi is of one y among many: " + undetermined;
      }
    }
    if (recorder.best_leaves_y()) summary->initial_objective = summary->final_objective = -1.0;
    if (summary->IsSolutionUsable()) {
      try {
        method->Finish(oracle, end, &summary->assessment);
      } catch (const std::exception& e) {
        summary->assessment.notes.push_back(std::string("assessing it threw: ") + e.what());
      }
    }
    WriteUser(end);
    for (int j = 0; j < end.x.dim(); ++j) {
      const Space& space = program->x;
      const int i = space.AmbientIndex(j);
      if (i < 0 ||
          (end.x.value()[i] > space.LowerBound(j) && end.x.value()[i] < space.UpperBound(j))) {
        continue;
      }
      const Space::Block& block = space.BlockOf(j);
      summary->active_upper_bounds.push_back(block.name + "[" + std::to_string(i - block.offset) +
                                             "]");
    }
  } else if (options.update_state_every_iteration) {
    WriteUser(start);
  }
  summary->upper = oracle.f_counts();
  summary->lower = oracle.g_counts();
  summary->upper_epochs = oracle.f.Epochs(summary->upper);
  summary->lower_epochs = oracle.g.Epochs(summary->lower);
  summary->lower_solver = oracle.lower_solver_counts();
  const LowerSolverReport report = oracle.lower().Report();
  summary->num_free_directions = report.num_free_directions;
  summary->free_directions = report.free_directions;
  summary->num_active_lower_bounds = report.num_active_bounds;
  summary->weakly_active_lower_bounds = report.weakly_active;
  summary->linear_residual = report.linear_residual;
  summary->lower_level_remark = report.remark;
  summary->flat_upper_directions = state.flat_directions;
  summary->total_time_in_seconds = recorder.Seconds();
}

void Solve(const Solver::Options& options, Problem* problem, Solver::Summary* summary) {
  Solver solver;
  solver.Solve(options, problem, summary);
}

bool Solver::Summary::IsSolutionUsable() const {
  return termination_type == ceres::CONVERGENCE || termination_type == ceres::NO_CONVERGENCE ||
         termination_type == ceres::USER_SUCCESS;
}

}  // namespace bilevel
