#include "bilevel/internal/recorder.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <regex>

#include "bilevel/base/memory.h"
#include "bilevel/internal/iteration_fields.h"
#include "bilevel/internal/remember_iterations.h"
#include "bilevel/oracle/lower_solver.h"

namespace bilevel {
namespace {

constexpr char kTimeLimit[] = "the time limit was reached";

// The reason without its numbers, so that equal ones can be counted: "residual block # of ...".
std::string MaskNumbers(const std::string& reason) {
  static const std::regex number(R"((^|[^A-Za-z_0-9])-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?)");
  return std::regex_replace(reason, number, "$1#");
}

}  // namespace

void WriteUser(const State& state) {
  state.x.space().WriteUser(state.x.value().data());
  state.y.space().WriteUser(state.y.value().data());
}

Recorder::Recorder(const Solver::Options& options, Oracle* oracle, Solver::Summary* summary)
    : options_(options),
      oracle_(oracle),
      summary_(summary),
      start_(std::chrono::steady_clock::now()),
      checkpoint_(options, oracle) {}

double Recorder::Seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

bool Recorder::Report(const State& state, const Progress& progress) {
  IterationSummary it;
  static_cast<Progress&>(it) = progress;
  if (it.iteration < 0) it.iteration = static_cast<long>(summary_->iterations.size());
  if (!summary_->iterations.empty()) {
    it.objective_change = summary_->iterations.back().objective - it.objective;
  }
  const double decrement = oracle_->lower().relative_decrement();
  if (decrement >= 0.0 && it.y_is_solved) it.lower_level_decrement = decrement;
  it.upper = oracle_->f_counts();
  it.lower = oracle_->g_counts();
  it.upper_epochs = oracle_->f.Epochs(it.upper);
  it.lower_epochs = oracle_->g.Epochs(it.lower);
  it.lower_solver = oracle_->lower_solver_counts();
  it.cumulative_time_in_seconds = Seconds();
  if (!it.step_is_successful) Reject(it.note);
  if (it.iteration > 0) {
    ++(it.step_is_successful ? summary_->num_successful_steps : summary_->num_unsuccessful_steps);
  }
  KeepIfBest(state, progress, it);
  const Vector& x = state.x.value();
  if (x.size() <= kMaxKeptSize) it.x.assign(x.data(), x.data() + x.size());
  summary_->iterations.push_back(it);
  it.x.assign(x.data(), x.data() + x.size());
  const Exchange& exchange = oracle_->program().exchange;
  const bool is_first = exchange.is_alone() || exchange.ranks()->rank() == 0;
  if (options_.minimizer_progress_to_stdout && is_first) PrintIteration(it);
  if (options_.update_state_every_iteration) WriteUser(state);

  ceres::CallbackReturnType said = ceres::SOLVER_CONTINUE;
  for (size_t i = 0; i < options_.callbacks.size() && said == ceres::SOLVER_CONTINUE; ++i) {
    said = (*options_.callbacks[i])(it);
  }
  Vector wish(2);
  wish << said, Seconds() > options_.max_solver_time_in_seconds;
  wish = exchange.ByRank("after an iteration", nullptr, wish).rowwise().maxCoeff();
  if (wish[0] == ceres::SOLVER_ABORT) {
    return Stop(ceres::USER_FAILURE, "a user callback aborted the solve");
  }
  if (wish[0] == ceres::SOLVER_TERMINATE_SUCCESSFULLY) {
    return Stop(ceres::USER_SUCCESS, "a user callback ended the solve");
  }
  if (it.iteration >= options_.max_num_iterations) {
    return Stop(ceres::NO_CONVERGENCE,
                "the maximum number of iterations (" + std::to_string(options_.max_num_iterations) +
                    ") was reached");
  }
  if (wish[1] > 0.0) {
    return Stop(ceres::NO_CONVERGENCE, kTimeLimit);
  }
  return true;
}

bool Recorder::StopLate() {
  if (have_best_) Stop(ceres::NO_CONVERGENCE, kTimeLimit);
  return have_best_;
}

void Recorder::KeepIfBest(const State& state,
                          const Progress& progress,
                          const IterationSummary& it) {
  const double best_phi = evidence_.phi;
  const double best_gradient = evidence_.gradient_max_norm;
  evidence_.Add(state, progress);
  const bool better = progress.objective < best_phi || std::isnan(progress.objective);
  if (!have_best_ || progress.keep == Progress::kAlways ||
      (progress.keep == Progress::kIfBetter && better)) {
    have_best_ = true;
    best_is_solved_ = progress.y_is_solved;
    best_leaves_y_ = progress.leave_y;
    best_ = state;
    best_decrement_ = it.lower_level_decrement;
    evidence_.phi = progress.objective;
    evidence_.gradient_max_norm = progress.gradient_max_norm;
  } else {
    evidence_.phi = best_phi;
    evidence_.gradient_max_norm = best_gradient;
  }
}

void Recorder::Judge(const State& answer, const AnswerCheck& verdict) {
  judged_ = answer;
  verdict_ = verdict;
}

const AnswerCheck* Recorder::verdict(const State& answer) const {
  if (!verdict_ || judged_.x.value() != answer.x.value()) return nullptr;
  const bool is_it = oracle_->program().exchange.All(judged_.y.value() == answer.y.value());
  return is_it ? &*verdict_ : nullptr;
}

bool Recorder::OpenCheckpoint(State* start, std::string* error) {
  return checkpoint_.Open(summary_->method, start, error);
}

// All that Report and the answer's check go by.
void Recorder::RememberOwn(Memory* memory) {
  const Memory::Group group(memory, "run");
  memory->Keep("have_best", &have_best_);
  memory->Keep("best_is_solved", &best_is_solved_);
  memory->Keep("best_leaves_y", &best_leaves_y_);
  if (have_best_) {
    const Memory::Group best(memory, "best");
    best_.Remember(oracle_->program().x, oracle_->program().y, memory);
  }
  memory->Keep("best_decrement", &best_decrement_);
  evidence_.Remember(oracle_->program().x, memory);
  double seconds = Seconds();
  memory->Keep("seconds", &seconds);
  if (memory->recalls()) {
    start_ = std::chrono::steady_clock::now() -
             std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                 std::chrono::duration<double>(seconds));
  }
  RememberIterations(memory, summary_);
}

bool Recorder::RememberAll(State* state, const Remember& remember, Memory* memory) {
  {
    const Memory::Group group(memory, "method");
    if (!remember(memory)) return false;
  }
  if (!state) return true;
  RememberOwn(memory);
  {
    const Memory::Group group(memory, "state");
    state->Remember(oracle_->program().x, oracle_->program().y, memory);
  }
  const Memory::Group group(memory, "oracle");
  return oracle_->Remember(memory);
}

bool Recorder::Resume(State* state, const Remember& remember) {
  Memory* const memory = checkpoint_.to_resume();
  if (!memory || !stop_message_.empty()) return false;
  const bool is_told = RememberAll(state, remember, memory);
  std::string why = oracle_->Clear();
  if (!is_told) why = "the method, or its lower solver, does not tell what it remembers";
  if (!memory->error().empty()) why = memory->error();
  if (!why.empty()) {
    Stop(ceres::FAILURE, "'" + options_.checkpoint.file + "' cannot be resumed: " + why);
  }
  if (state) {
    summary_->resumed_from_iteration = static_cast<long>(oracle_->iteration);
    checkpoint_.Resumed(oracle_->iteration);
  }
  return true;
}

// Whether the next iteration may be the last that limits allow, as far as that can be foreseen: a
// checkpoint is to go on from, with other limits.
bool Recorder::IsBeforeLimit() const {
  const double now = Seconds();
  return oracle_->iteration + 1 >= static_cast<uint64_t>(options_.max_num_iterations) ||
         now + 2.0 * (now - last_rest_) > options_.max_solver_time_in_seconds;
}

bool Recorder::Rest(State* state, const Remember& remember) {
  if (!stop_message_.empty()) return false;  // It could not be resumed.
  if (!checkpoint_.is_wanted()) return true;
  const bool stops = options_.checkpoint.stop && *options_.checkpoint.stop != 0;
  // The first shows whether there can be any, before there is something to lose.
  const bool is_due =
      !has_rested_ || stops || IsBeforeLimit() || checkpoint_.IsDue(oracle_->iteration);
  last_rest_ = Seconds();
  if (!is_due) return true;
  has_rested_ = true;
  Memory memory;
  if (!RememberAll(state, remember, &memory)) {
    return Stop(ceres::FAILURE,
                "no checkpoint of " + summary_->method +
                    " can be written: the method, or its lower solver, does not tell what it "
                    "remembers (Method::Remember, LowerSolver::Remember)");
  }
  const bool is_first = summary_->num_checkpoints == 0;
  if (checkpoint_.Write(&memory, oracle_->iteration, &summary_->checkpoint_error)) {
    ++summary_->num_checkpoints;
    summary_->checkpoint_error.clear();
  } else if (is_first && summary_->resumed_from_iteration < 0) {
    return Stop(ceres::FAILURE, summary_->checkpoint_error);
  }
  if (!stops) return true;
  return Stop(ceres::NO_CONVERGENCE,
              summary_->checkpoint_error.empty()
                  ? "it was asked to stop; '" + options_.checkpoint.file + "' holds how to go on"
                  : "it was asked to stop, and " + summary_->checkpoint_error);
}

bool Recorder::Stop(ceres::TerminationType type, const std::string& message) {
  stop_type_ = type;
  stop_message_ = message;
  return false;
}

void Recorder::Reject(const std::string& reason) {
  const std::string masked = MaskNumbers(reason);
  auto& all = summary_->rejections;
  auto at = std::find_if(all.begin(), all.end(), [&](const Solver::Summary::Rejection& known) {
    return known.reason == masked;
  });
  if (at == all.end()) at = all.insert(at, {masked, 0});
  ++at->count;
  for (; at != all.begin() && (at - 1)->count < at->count; --at) std::iter_swap(at, at - 1);
}

}  // namespace bilevel
