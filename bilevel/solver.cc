#include "bilevel/solver.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/describe_problem.h"
#include "bilevel/internal/prepared_problem.h"
#include "bilevel/internal/recorder.h"
#include "bilevel/internal/start_check.h"
#include "bilevel/methods/internal/answer_check.h"
#include "bilevel/methods/registry.h"
#include "bilevel/program/program.h"

namespace bilevel {
namespace {

using Summary = Solver::Summary;
using Clock = std::chrono::steady_clock;

// Relative differences of phi up to this are those of two solutions of one lower problem.
constexpr double kReproduced = 1e-6;
// And up to this those of one evaluation and the next.
constexpr double kSameObjective = 1e-9;

// One solve.
class Run {
 public:
  Run(const Solver::Options& options, PreparedProblem* prepared, Summary* summary)
      : options_(options),
        method_(*options.method),
        summary_(*summary),
        oracle_(prepared->oracle()),
        exchange_(prepared->program().exchange),
        recorder_(options, &oracle_, summary),
        start_(prepared->Start()) {
    oracle_.SetScenarioGroups(prepared->groups());
  }

  void Solve() {
    std::string complaint = method_.Check(oracle_);
    if (complaint.empty()) complaint = CheckConstraints();
    if (complaint.empty()) complaint = CheckRanks();
    if (!complaint.empty()) {
      summary_.message = complaint;
      return;
    }
    summary_.method = method_.name();
    if (!recorder_.OpenCheckpoint(&start_, &summary_.message)) return;
    State state = start_;
    Conclude(Minimize(&state));
    summary_.method = method_.name();
    const bool improved =
        summary_.termination_type == ceres::FAILURE && summary_.num_successful_steps > 0;
    std::optional<State> end;  // y solved.
    if (recorder_.have_best() && (summary_.IsSolutionUsable() || improved)) {
      end = recorder_.best();
      Judge(&*end);
      if (summary_.IsSolutionUsable()) Assess(*end);
      Leave(*end);
      NameActiveBounds(end->x);
    } else if (options_.update_state_every_iteration) {
      WriteUser(start_);
    }
    summary_.flat_upper_directions = state.flat_directions;
    KeepX();
    Count();
    const bool is_answer = end && summary_.IsSolutionUsable() && !recorder_.best_leaves_y();
    if (is_answer && options_.check_from_start) CheckFromStart(*end);
    summary_.total_time_in_seconds = recorder_.Seconds();
  }

 private:
  std::string CheckConstraints() const {
    const std::string first = oracle_.program().FirstConstraint();
    if (first.empty() || method_.TakesLowerConstraints()) return "";
    const std::string beside = oracle_.program().FirstConstraintBesideSets();
    if (method_.ProjectsY() && beside.empty()) return "";
    return method_.name() + " knows no constraints of the lower level, as is " +
           (beside.empty() ? first : beside) +
           ": \"auto\", \"levenberg_marquardt\", \"lbfgs\" and \"projected_lbfgs\" do";
  }

  // Which methods take constraints: those that leave y to the lower solver, who has but its own.
  std::string CheckRanks() const {
    if (exchange_.is_alone() || method_.TakesLowerConstraints()) return "";
    return method_.name() +
           " needs all of y, of which ranks have a part each: \"auto\", \"levenberg_marquardt\", "
           "\"lbfgs\", \"projected_lbfgs\" and \"adam\" do not";
  }

  // What the method says ended it is in Summary::message.
  Method::Outcome Minimize(State* state) {
    Method::Outcome outcome = Method::Outcome::kFailure;
    LimitTime();
    std::string thrown =
        Thrown([&] { outcome = method_.Minimize(oracle_, *state, &recorder_, &summary_.message); });
    thrown = exchange_.Complaint(Ranks::kAtItsEnd, thrown);
    if (!thrown.empty()) {
      outcome = Method::Outcome::kFailure;
      summary_.message = "the solve" + thrown;
    }
    oracle_.UseAllScenarios();
    const bool is_unexplained = recorder_.stop_message().empty();
    if (outcome != Method::Outcome::kConverged && is_unexplained &&
        exchange_.Any(oracle_.program().IsLate()) && recorder_.StopLate()) {
      outcome = Method::Outcome::kNoConvergence;
    }
    *oracle_.program().deadline = Clock::time_point::max();  // What was found is made good.
    return outcome;
  }

  void LimitTime() {
    const std::chrono::duration<double> left(options_.max_solver_time_in_seconds -
                                             recorder_.Seconds());
    const Clock::duration most = Clock::time_point::max() - Clock::now();
    if (left < most) {
      *oracle_.program().deadline =
          Clock::now() + std::chrono::duration_cast<Clock::duration>(left);
    }
  }

  void Conclude(Method::Outcome outcome) {
    switch (outcome) {
      case Method::Outcome::kConverged:
        summary_.termination_type = ceres::CONVERGENCE;
        summary_.answer = AnswerKind::kStationary;
        break;
      case Method::Outcome::kNoConvergence:
        summary_.termination_type = recorder_.stop_type();
        if (recorder_.stop_type() == ceres::FAILURE) {
          summary_.answer = AnswerKind::kNone;
        } else {
          summary_.answer =
              recorder_.stop_message().empty() ? AnswerKind::kStuck : AnswerKind::kLimit;
        }
        if (!recorder_.stop_message().empty()) summary_.message = recorder_.stop_message();
        break;
      case Method::Outcome::kFailure:
        summary_.termination_type = ceres::FAILURE;
        if (summary_.message.empty()) summary_.message = "the method failed, and gave no reason";
        break;
    }
  }

  // What the answer is worth: y solved and phi evaluated there, CONVERGENCE only past the check.
  void Judge(State* end) {
    Evidence evidence = recorder_.evidence();
    summary_.initial_objective = summary_.iterations.front().objective;
    summary_.final_objective = evidence.phi;
    summary_.final_gradient_max_norm = evidence.gradient_max_norm;
    summary_.final_lower_level_decrement = recorder_.best_decrement();
    if (recorder_.best_leaves_y()) {
      summary_.initial_objective = summary_.final_objective = -1.0;
      if (summary_.termination_type == ceres::CONVERGENCE) {
        Doubt(AnswerKind::kUndetermined, "but y was left unsolved, and phi is not known");
      }
      return;
    }
    if (!recorder_.best_is_solved()) {
      if (options_.keep_own_y) own_y_ = *end;
      if (!SolveInTheEnd(end)) {
        summary_.termination_type = ceres::FAILURE;
        return;
      }
      evidence.gradient_max_norm = Progress::kUnknown;
    } else if (std::isnan(evidence.gradient_max_norm) && Confirm(end->x, &end->y)) {
      summary_.final_objective = oracle_.f.Value(end->x, end->y);  // Values alone had not seen it.
      oracle_.Clear();
    }
    CheckObjective(*end);
    if (summary_.termination_type != ceres::CONVERGENCE) return;
    evidence.first_phi = summary_.initial_objective;
    evidence.phi = summary_.final_objective;
    const AnswerCheck* known = recorder_.verdict(*end);
    LimitTime();
    const AnswerCheck check = known ? *known : CheckAnswer(oracle_, recorder_, evidence, *end);
    *oracle_.program().deadline = Clock::time_point::max();
    summary_.final_gradient_max_norm = check.gradient_max_norm;
    summary_.answer = check.kind;
    if (check.doubt.empty()) return;
    const bool may_go_on = check.better && method_.name().find("auto (") == std::string::npos;
    Doubt(check.kind, check.doubt + (may_go_on ? "; \"auto\" goes on from there" : ""));
  }

  // The objective is f at the answer's x and y, whatever was reported of it.
  void CheckObjective(const State& end) {
    const double value = oracle_.f.Value(end.x, end.y);
    if (!oracle_.Clear().empty()) return;
    double& reported = summary_.final_objective;
    const double rounding = kSameObjective * std::max(std::abs(value), std::abs(reported)) +
                            kRoundingOfPhi * std::abs(summary_.initial_objective);
    if (std::abs(value - reported) <= rounding) return;
    if (summary_.termination_type == ceres::CONVERGENCE) {
      Doubt(AnswerKind::kStuck,
            "but f is " + Number(value) + " at its x and y, where " + Number(reported) +
                " was reported");
    }
    reported = value;
  }

  void Doubt(AnswerKind kind, const std::string& why) {
    summary_.termination_type = ceres::NO_CONVERGENCE;
    summary_.answer = kind;
    summary_.message += "; " + why;
  }

  // Judges a solved y once more, by the Hessian at x. True: it had to be solved again, and was.
  bool Confirm(const Point& x, Point* y) {
    if (!oracle_.lower().WhyNoDerivative().empty()) return false;
    const Vector before = y->value();
    bool has_moved = false;  // Where it throws, nothing was to be learned.
    Thrown([&] { has_moved = oracle_.Differentiate(x, y) && exchange_.Any(y->value() != before); });
    return has_moved;
  }

  // y <- y*(x) and phi there; NaN, for the reason in unsolved_, where there is none.
  double SolveLowerLevel(State* state) {
    oracle_.Clear();
    if (!oracle_.Solve(state->x, &state->y)) {
      unsolved_ = oracle_.message();
      return Progress::kUnknown;
    }
    Confirm(state->x, &state->y);
    const double phi = oracle_.f.Value(state->x, state->y);
    unsolved_ = oracle_.Clear();
    return phi;
  }

  // For a method whose y is not y*(x): solves it at the end and, unless phi is known there, at the
  // start; the better of both is the answer. False: the end has no y*(x).
  bool SolveInTheEnd(State* end) {
    const double gap = oracle_.g.Value(end->x, end->y);
    const double phi = SolveLowerLevel(end);
    const bool solved = std::isfinite(phi);
    if (solved) {
      summary_.final_lower_gap = gap - oracle_.g.Value(end->x, end->y);
      summary_.final_objective = phi;
      summary_.final_lower_level_decrement = oracle_.lower().relative_decrement();
    } else {
      summary_.message += "; y is the method's own, not y*(x): " + unsolved_;
    }
    double& initial = summary_.initial_objective;
    if (phi <= initial) return true;
    State first = start_;
    initial = SolveLowerLevel(&first);
    if (!std::isfinite(initial)) {
      initial = -1.0;
    } else if (!(phi <= initial)) {
      if (solved) {
        summary_.message += "; phi went from " + Number(initial) + " to " + Number(phi);
      }
      summary_.message += ": x and y are the start's";
      summary_.final_objective = initial;
      *end = first;
    }
    oracle_.Clear();
    return solved;
  }

  void Assess(const State& end) {
    const std::string thrown = Thrown([&] { method_.Finish(oracle_, end, &summary_.assessment); });
    if (!thrown.empty()) summary_.assessment.notes.push_back("assessing it" + thrown);
  }

  // In the user's memory, with the method's own y where that is asked for.
  void Leave(State end) {
    if (own_y_ && own_y_->x.value() == end.x.value()) {
      summary_.final_objective_at_own_y = oracle_.f.Value(end.x, own_y_->y);
      oracle_.Clear();
      end.y = own_y_->y;
    }
    WriteUser(end);
  }

  // phi follows a branch of y; a user who solves afresh may be on another.
  void CheckFromStart(const State& end) {
    const double phi = PhiFromStart(options_, start_.y, end, summary_.final_objective, &oracle_);
    if (!std::isnan(phi)) summary_.objective_from_start = phi;
    const double size = std::max(
        {std::abs(phi), std::abs(summary_.final_objective), std::abs(summary_.initial_objective)});
    const bool is_same = std::abs(phi - summary_.final_objective) <= kReproduced * size;
    summary_.reproducible_from_start = is_same ? 1 : 0;
  }

  void NameActiveBounds(const Point& x) {
    const Space& space = x.space();
    for (int j = 0; j < x.dim(); ++j) {
      const int i = space.AmbientIndex(j);
      if (i < 0 || (x.value()[i] > space.LowerBound(j) && x.value()[i] < space.UpperBound(j))) {
        continue;
      }
      const Space::Block& block = space.BlockOf(j);
      summary_.active_upper_bounds.push_back(block.name + "[" + std::to_string(i - block.offset) +
                                             "]");
    }
  }

  void KeepX() {
    const Space& space = start_.x.space();
    if (space.size() > kMaxKeptSize) return;
    summary_.x.resize(space.size());
    space.ReadUser(summary_.x.data());
  }

  void Count() {
    summary_.upper = oracle_.f_counts();
    summary_.lower = oracle_.g_counts();
    summary_.upper_epochs = oracle_.f.Epochs(summary_.upper);
    summary_.lower_epochs = oracle_.g.Epochs(summary_.lower);
    summary_.lower_solver = oracle_.lower_solver_counts();
    const LowerSolverReport report = oracle_.lower().Report();
    summary_.num_free_directions = report.num_free_directions;
    summary_.free_directions = report.free_directions;
    summary_.num_active_lower_bounds = report.num_active_bounds;
    summary_.weakly_active_lower_bounds = report.weakly_active;
    summary_.linear_residual = report.linear_residual;
    summary_.lower_level_remark = report.remark;
    const auto add = [&](const std::string& remark) {
      std::string& all = summary_.lower_level_remark;
      if (!remark.empty()) all += (all.empty() ? "" : "; ") + remark;
    };
    add(oracle_.program().remark);
    if (options_.lower_solver_options.num_threads > 1) {
      add("lower_solver_options.num_threads > 1: runs may differ in the last digits");
    }
  }

  const Solver::Options& options_;
  Method& method_;
  Summary& summary_;
  Oracle& oracle_;
  const Exchange& exchange_;
  Recorder recorder_;
  State start_;
  std::string unsolved_;
  std::optional<State> own_y_;  // The answer as its method left it, where that is asked for.
};

// With x or without.
void PrepareAndSolve(const Solver::Options& options,
                     bool with_x,
                     Problem* problem,
                     Summary* summary) {
  PreparedProblem::Needs needs;
  needs.scenario_groups = with_x;
  needs.compile.need_x = with_x;
  needs.ranks = with_x;
  const auto prepared = PreparedProblem::Create(options, needs, problem, &summary->message);
  if (!prepared) return;
  DescribeProblem(options, prepared->program(), summary);
  const std::string method = options.method->name();
  if (prepared->groups() && !options.method->TakesScenarioBatches()) {
    summary->message =
        method +
        " takes all scenarios in every iteration: num_scenarios_per_iteration is for first-order "
        "methods such as \"adam\"";
  } else if (!with_x && summary->num_upper_parameters > 0) {
    summary->message =
        "SolveSimpleBilevel is for problems without upper parameter blocks, and one was declared: "
        "Solve moves it";
  } else if (!with_x && !options.method->WorksWithoutX()) {
    summary->message =
        method + " moves x, and there is none: take \"auto\", \"optimistic\" or \"bome\"";
  } else {
    Run(options, prepared.get(), summary).Solve();
  }
}

void SolveGuarded(const Solver::Options& options, bool with_x, Problem* problem, Summary* summary) {
  Summary unwanted;
  if (!summary) summary = &unwanted;
  *summary = Summary();
  summary->message.clear();
  const std::string thrown = Thrown([&] { PrepareAndSolve(options, with_x, problem, summary); });
  if (thrown.empty()) return;
  summary->termination_type = ceres::FAILURE;
  summary->answer = AnswerKind::kNone;
  summary->message = "the solve" + thrown;
}

}  // namespace

void Solver::Solve(const Options& options, Problem* problem, Summary* summary) {
  SolveGuarded(options, true, problem, summary);
}

void SolveSimpleBilevel(const Solver::Options& options,
                        Problem* problem,
                        Solver::Summary* summary) {
  SolveGuarded(options, false, problem, summary);
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
