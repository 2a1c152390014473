#include "examples/support/learning/minibatch_experiment.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/search/step_search.h"
#include "examples/support/flags.h"
#include "examples/support/learning/minibatch_methods.h"
#include "examples/support/table.h"
#include "examples/support/text.h"

DEFINE_bool(search, false, "search for the methods' steps on seed 0, and print them");
DEFINE_double(y_step, 0.0, "of every method, instead of its own");
DEFINE_double(x_step, 0.0, "of every method, instead of its own");
DEFINE_int32(exact_iterations, 40, "of lbfgs and exact");

namespace examples {
namespace {

using Description = MinibatchExperiment::Description;
using Steps = MinibatchExperiment::Steps;

bool IsExact(const std::string& name) { return name == "lbfgs" || name == "exact"; }

// Empty, and a sentence on stderr, where one is unknown.
std::vector<std::string> ChooseMethods() {
  std::vector<std::string> methods = SplitList(FLAGS_methods);
  if (methods.empty() && FLAGS_quick) return {"slip", "soba"};
  if (methods.empty()) {
    methods = MinibatchMethods();
    methods.insert(methods.end(), {"lbfgs", "exact"});
  }
  for (const std::string& name : methods) {
    if (IsExact(name) || CallsPerIteration(name) > 0.0) continue;
    std::string known;
    for (const std::string& other : MinibatchMethods()) known += other + ", ";
    std::fprintf(
        stderr, "--methods: \"%s\" is none of %slbfgs, exact\n", name.c_str(), known.c_str());
    return {};
  }
  return methods;
}

Steps StepsOf(const Description& description, const std::string& name) {
  const auto found = description.steps.find(name);
  Steps steps = found == description.steps.end() ? Steps{1.0, 1.0} : found->second;
  if (FLAGS_y_step > 0.0) steps.y = FLAGS_y_step;
  if (FLAGS_x_step > 0.0) steps.x = FLAGS_x_step;
  return steps;
}

int Iterations(const Description& description, const std::string& name) {
  const double calls = CallsPerIteration(name);
  const double own = IsExact(name)
                         ? FLAGS_exact_iterations
                         : description.slip_iterations * CallsPerIteration("slip") / calls;
  return std::max(1, static_cast<int>(FLAGS_budget * own));
}

std::shared_ptr<bilevel::Method> Create(const Description& description,
                                        const std::string& name,
                                        const Steps& steps) {
  if (name == "lbfgs") return bilevel::CreateMethod(name);
  if (name == "exact") {
    bilevel::StepRule x;
    x.kind = bilevel::StepRule::kMomentum;
    x.step = steps.x;
    return std::make_shared<bilevel::GradientMethod>(
        name, std::make_unique<bilevel::ExactHypergradient>(), x);
  }
  bilevel::StochasticOptions common;
  common.lower_batch = common.upper_batch = description.batch;
  common.sampling = bilevel::Batch::kShuffledBlocks;
  common.report_interval = std::max(1, Iterations(description, name) / 50);
  common.solve_lower_level = false;
  return CreateMinibatchMethod(name, common, steps.y, steps.x);
}

}  // namespace

bool MinibatchExperiment::Search(const Description& description,
                                 const std::vector<std::string>& methods) {
  Split(0);
  for (const std::string& name : methods) {
    if (IsExact(name)) continue;
    bilevel::Problem* const problem = Start();
    bilevel::StepSearch search;
    const bool normalized = name == "slip" || name == "bo_rep";
    search.grids = {description.y_grid, normalized ? description.length_grid : description.x_grid};
    search.make_method = [&](const std::vector<double>& steps) {
      return Create(description, name, {steps[0], steps[1]});
    };
    // Doubled until one is left, which makes a full run.
    search.num_iterations = Iterations(description, name);
    for (size_t left = search.grids[0].size() * search.grids[1].size(); left > 1;) {
      search.num_iterations = std::max(1, search.num_iterations / 2);
      left = (left + 1) / 2;
    }
    search.held_out = [&] { return SelectionLoss(); };
    bilevel::StepSearchResult result;
    std::string error;
    if (!bilevel::SearchSteps(search, {}, problem, &result, &error)) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), error.c_str());
      return false;
    }
    std::printf("%s\n%s\n", name.c_str(), result.Report().c_str());
    std::fflush(stdout);
  }
  return true;
}

bool MinibatchExperiment::RunMethod(const Description& description, Runs::Run* run) {
  const std::string& name = run->method;
  bilevel::Problem* const problem = Start();
  bilevel::Solver::Options options;
  options.method = Create(description, name, StepsOf(description, name));
  options.max_num_iterations = Iterations(description, name);
  options.seed = run->seed;
  std::string error;
  const int every = std::max(1, options.max_num_iterations / 50);
  if (!Follow(
          options, problem, every, [this] { return Measure(); }, &run->curve, &error)) {
    std::fprintf(stderr, "%s, seed %d: %s\n", name.c_str(), run->seed, error.c_str());
    return false;
  }
  const CurvePoint& last = run->curve.back();
  run->seconds = last.seconds;
  run->metrics = Finish(run->curve);
  std::printf("%s, seed %d: %d iterations in %.1f s, %s %.2f %%\n",
              name.c_str(),
              run->seed,
              last.iteration,
              last.seconds,
              description.curve_metrics[0].c_str(),
              100.0 * last.metrics[0]);
  std::fflush(stdout);
  return true;
}

int MinibatchExperiment::Run(const Description& description) {
  const std::vector<std::string> methods = ChooseMethods();
  if (methods.empty()) return 1;
  if (FLAGS_search) return Search(description, methods) ? 0 : 1;
  Runs runs;
  std::string error;
  if (!runs.Open(FLAGS_csv, description.metrics, description.curve_metrics, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const std::string& setting = description.setting;
  const std::vector<std::string>& lines = description.lines;
  for (int seed = 0; seed < FLAGS_seeds; ++seed) {
    bool split = false;
    for (const std::vector<std::string>& names : {lines, methods}) {
      for (const std::string& name : names) {
        if (runs.Has(setting, name, seed)) continue;
        if (!split) Split(seed);
        split = true;
        Runs::Run run{setting, name, seed, 0.0, {}, {}};
        if (std::count(lines.begin(), lines.end(), name) > 0) {
          run.metrics = Line(name);
        } else if (!RunMethod(description, &run)) {
          return 1;
        }
        if (!runs.Add(run)) return 1;
      }
    }
  }
  std::printf(
      "\n%s\n\n%s", description.heading.c_str(), runs.Table(setting, description.scales).c_str());
  Json json;
  for (const Runs::Run& run : runs.runs()) {
    if (run.setting != setting || run.seed != 0) continue;
    Json own;
    for (const auto& [name, metric] : description.json_metrics) {
      own.Add(name, runs.Mean(setting, run.method, metric));
    }
    json.Add(run.method, own);
  }
  bool good = WriteFile(FLAGS_summary_json, json.ToString());
  good = WriteFile(FLAGS_trace_csv, runs.CurvesCsv()) && good;
  std::vector<std::pair<std::string, double>> beside;
  for (const std::string& line : lines) beside.emplace_back(line, runs.Mean(setting, line, 0));
  return runs.Plot(FLAGS_plot, description.title, setting, 0, beside) && good ? 0 : 1;
}

}  // namespace examples
