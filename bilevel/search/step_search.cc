#include "bilevel/search/step_search.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/internal/prepared_problem.h"

namespace bilevel {

bool StepSearch::IsValid(std::string* error) const {
  const bool empty =
      std::any_of(grids.begin(), grids.end(), [](const auto& g) { return g.empty(); });
  const char* what = grids.empty() || empty ? "grids must hold at least one value for each step"
                     : !make_method         ? "make_method must be given"
                     : num_iterations <= 0  ? "num_iterations must be positive"
                                            : nullptr;
  return !what || Refuse(what, error);
}

std::vector<double> LogGrid(double first, double last, int count) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) {
    values.push_back(first * std::pow(last / first, count > 1 ? i / (count - 1.0) : 0.0));
  }
  return values;
}

std::string StepSearchResult::Report() const {
  std::string text = "  held-out phi  iterations  steps\n";
  char line[64];
  for (const Trial& trial : trials) {
    std::snprintf(line, sizeof(line), "%14.6g  %10d ", trial.held_out, trial.num_iterations);
    text += line;
    for (const double step : trial.steps) {
      std::snprintf(line, sizeof(line), " %.4g", step);
      text += line;
    }
    text += std::isfinite(trial.held_out) ? "\n" : "  " + trial.message + "\n";
  }
  char cost[160];
  std::snprintf(cost,
                sizeof(cost),
                "%d runs, %ld samples of f, %ld of g, %.2f s\n",
                num_runs,
                upper.samples,
                lower.samples,
                seconds);
  return text + cost;
}

bool SearchSteps(const StepSearch& search,
                 const Solver::Options& options,
                 Problem* problem,
                 StepSearchResult* result,
                 std::string* error) {
  *result = StepSearchResult();
  if (!search.IsValid(error)) return false;
  if (!options.checkpoint.file.empty()) {
    return Refuse("options.checkpoint is of one solve, and these are many", error);
  }
  Solver::Options run = options;
  run.check_from_start = false;
  run.method = Solver::Options().method;  // Until a trial brings its own.
  run.max_num_iterations = search.num_iterations;
  run.callbacks.clear();
  run.minimizer_progress_to_stdout = run.update_state_every_iteration = false;
  const auto prepared = PreparedProblem::Create(run, {}, problem, error);
  if (!prepared) return false;
  const auto start = std::chrono::steady_clock::now();
  const State given = prepared->Start();
  std::vector<StepSearchResult::Trial>& trials = result->trials;
  size_t combinations = 1;
  for (const auto& grid : search.grids) combinations *= grid.size();
  for (size_t i = 0; i < combinations; ++i) {
    StepSearchResult::Trial trial{{}, 0, std::numeric_limits<double>::infinity(), ""};
    size_t rest = i;
    for (const auto& grid : search.grids) {
      trial.steps.push_back(grid[rest % grid.size()]);
      rest /= grid.size();
    }
    trials.push_back(std::move(trial));
  }
  size_t left = trials.size();
  for (;;) {
    for (size_t i = 0; i < left; ++i) {
      StepSearchResult::Trial& trial = trials[i];
      run.method = search.make_method(trial.steps);
      Solver::Summary summary;
      Solve(run, problem, &summary);
      ++result->num_runs;
      result->upper += summary.upper;
      result->lower += summary.lower;
      trial.num_iterations = run.max_num_iterations;
      trial.message = summary.message;
      double value = std::numeric_limits<double>::quiet_NaN();
      if (summary.IsSolutionUsable()) {
        const bool known =
            !summary.iterations.empty() && summary.final_lower_level_decrement >= 0.0;
        value = search.held_out ? search.held_out() : known ? summary.final_objective : value;
        if (!search.held_out && !known) {
          trial.message = "phi is not known: give held_out, or let the method solve for y";
        }
      }
      trial.held_out = std::isfinite(value) ? value : std::numeric_limits<double>::infinity();
      prepared->WriteUser(given.x, given.y);
    }
    std::stable_sort(trials.begin(), trials.begin() + left, [](const auto& a, const auto& b) {
      return a.held_out < b.held_out;
    });
    if (left == 1) break;
    left = (left + 1) / 2;
    run.max_num_iterations *= 2;
  }
  result->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (std::isfinite(trials.front().held_out)) return true;
  return Refuse("every run failed; the first: " + trials.front().message, error);
}

}  // namespace bilevel
