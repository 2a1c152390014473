// Learns the robust loss of bundle adjustment on a real scene.
//
//   lower level   y*(x) = argmin sum over training observations of rho(|r(y)|^2; x) / 2
//   upper level   x     = argmin sum over validation observations of huber(|r(y*(x))|^2) / 2
//
// y: 16 cameras and 22,106 points; r: reprojection errors in pixels; rho: a Cauchy loss whose
// log-scale is x, then Barron's family with shape and log-scale. A scene keeps its 7 gauge
// directions free, and a robust loss makes the lower level multivalued: so every lower level is
// begun by graduation (no loss, then ever smaller scales), and every solution is polished by
// Newton's method and refused unless it is a minimum. The grid search beside it does the same.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/levenberg_marquardt.h"
#include "ceres/ceres.h"
#include "examples/support/bal.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/table.h"

DEFINE_string(bal,
              "build/data/problem-16-22106-pre.txt",
              "the scene, as examples/fetch_bal.sh gets it");
DEFINE_double(start, 10.0, "the Cauchy scale to start from, in pixels");
DEFINE_bool(grid, true, "search 13 scales from 0.1 to 100 px as well");
DEFINE_int32(seed, 0, "of the split into training, validation and test");
DEFINE_bool(progress, false, "print the iterations");

namespace {

using examples::Format;
using Sets = std::vector<std::vector<bilevel::HeldOutResidual>>;

constexpr double kNoLoss = 1e8;  // Pixels: a Cauchy loss of this scale is the square itself.
constexpr char kFree[] = "-";

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The scene's memory, y. Both problems below work on it, one after the other.
struct Memory {
  examples::BalScene scene;
  std::vector<double> Get() const {
    std::vector<double> y;
    for (const auto& c : scene.cameras) y.insert(y.end(), c.begin(), c.end());
    for (const auto& p : scene.points) y.insert(y.end(), p.begin(), p.end());
    return y;
  }
  void Set(const std::vector<double>& y) {
    auto from = y.begin();
    for (auto& c : scene.cameras) {
      std::copy_n(from, 9, c.begin());
      from += 9;
    }
    for (auto& p : scene.points) {
      std::copy_n(from, 3, p.begin());
      from += 3;
    }
  }
};

// Bundle adjustment under `loss` on the training part, scored on the validation part. Points give
// an observation up only while they keep three.
bool Build(bilevel::LearnableLoss* loss, Memory* memory, bilevel::Problem* problem, Sets* sets) {
  for (const auto& o : memory->scene.observations) {
    problem->lower()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<examples::ReprojectionError, 2, 9, 3>(
            new examples::ReprojectionError{o.u, o.v}),
        loss,
        memory->scene.cameras[o.camera].data(),
        memory->scene.points[o.point].data());
  }
  for (const auto& block : loss->parameter_blocks()) {
    problem->AddUpperParameterBlock(block.values, block.size);
  }
  for (size_t i = 0; i < memory->scene.cameras.size(); ++i) {
    problem->SetParameterName(memory->scene.cameras[i].data(), "camera " + std::to_string(i));
  }
  bilevel::HoldoutOptions holdout;
  holdout.fractions = {0.1, 0.1};
  holdout.min_left = 3;
  holdout.seed = FLAGS_seed;
  std::string error;
  if (bilevel::SplitHoldout(holdout, {}, new ceres::HuberLoss(1.0), problem, sets, &error)) {
    return true;
  }
  std::fprintf(stderr, "The scene cannot be split: %s.\n", error.c_str());
  return false;
}

ceres::Solver::Options LowerOptions() {
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::DENSE_SCHUR;
  options.num_threads = FLAGS_num_threads;
  options.max_num_iterations = 300;
  options.function_tolerance = 1e-7;
  options.logging_type = ceres::SILENT;
  return options;
}

// Solutions under ever smaller Cauchy scales, each begun at the one before.
class Graduation {
 public:
  Graduation(Memory* memory, bilevel::Problem* problem, double* log_scale)
      : memory_(memory), problem_(problem), log_scale_(log_scale), start_(memory->Get()) {}

  // Puts into memory where a solve at `scale` begins.
  void Begin(double scale) {
    const double begin = Now();
    double last = 0.0;
    for (const double stage : {kNoLoss, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03}) {
      if (stage < scale) break;
      if (!stages_.count(stage)) {
        memory_->Set(last > 0.0 ? stages_[last] : start_);
        *log_scale_ = std::log(stage);
        ceres::Solver::Summary summary;
        ceres::Solve(LowerOptions(), problem_->lower(), &summary);
        ++num_solves_;
        stages_[stage] = memory_->Get();
      }
      last = stage;
    }
    memory_->Set(stages_[last]);
    *log_scale_ = std::log(scale);
    seconds_ += Now() - begin;
  }
  double seconds() const { return seconds_; }
  int num_solves() const { return num_solves_; }

 private:
  Memory* memory_;
  bilevel::Problem* problem_;
  double* log_scale_;
  std::vector<double> start_;
  std::map<double, std::vector<double>> stages_;
  double seconds_ = 0.0;
  int num_solves_ = 0;
};

// Mean scores of a loss's solution in px^2, and what finding it took.
struct Result {
  std::string name;
  double scale = std::nan("");  // Of a Cauchy loss.
  bool solved = false;
  std::string message;
  double train = std::nan(""), validation = std::nan(""), test = std::nan("");
  int behind = 0;  // Held-out points behind the camera that saw them.
  long lower_solves = 0, factorizations = 0;
  double seconds = 0.0;
  std::vector<double> y;
  bilevel::Solver::Summary summary;
};

// The problem of one loss, and how its solutions score.
struct Level {
  bilevel::Problem problem;
  Sets sets;
  double train_size = 0.0;

  // Learns the loss from where memory is; max_num_iterations = 0 solves the lower level alone.
  Result Solve(const std::string& name, int max_num_iterations, const Memory& memory) {
    bilevel::Solver::Options options;
    options.lower_solver_options = LowerOptions();
    options.num_threads = FLAGS_num_threads;
    options.max_num_iterations = max_num_iterations;
    // Lower solves find their way more easily where the scale changes by a factor e at most.
    bilevel::LevenbergMarquardt::Options method;
    method.max_trust_region_radius = 1.0;
    options.method = std::make_shared<bilevel::LevenbergMarquardt>(method);
    options.max_num_lower_newton_iterations = 100;
    options.function_tolerance = 1e-7;
    options.minimizer_progress_to_stdout = FLAGS_progress && max_num_iterations > 0;
    Result result;
    result.name = name;
    const double begin = Now();
    bilevel::Solve(options, &problem, &result.summary);
    result.seconds = Now() - begin;
    const auto& counts = result.summary.lower_solver;
    result.lower_solves = counts.cold_solves + counts.warm_solves;
    result.factorizations = counts.factorizations;
    result.solved = result.summary.IsSolutionUsable();
    result.message = result.summary.message;
    if (result.solved) Score(memory, &result);
    return result;
  }

  void Score(const Memory& memory, Result* result) const {
    const ceres::HuberLoss huber(1.0);
    Sets all = sets;
    all.push_back(Training());
    double* scores[] = {&result->validation, &result->test, &result->train};
    for (int k = 0; k < 3; ++k) {
      const double size = static_cast<double>(all[k].size());
      *scores[k] = bilevel::EvaluateHoldout(all[k], &huber) / size;
      for (const auto& r : all[k]) {
        double p[3];
        examples::ToCamera(r.blocks[0], r.blocks[1], p);
        result->behind += k < 2 && p[2] >= 0.0;
      }
    }
    result->y = memory.Get();
  }

  std::vector<bilevel::HeldOutResidual> Training() const {
    ceres::Problem* lower = const_cast<bilevel::Problem&>(problem).lower();
    std::vector<ceres::ResidualBlockId> ids;
    lower->GetResidualBlocks(&ids);
    std::vector<bilevel::HeldOutResidual> training(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      training[i].cost = lower->GetCostFunctionForResidualBlock(ids[i]);
      lower->GetParameterBlocksForResidualBlock(ids[i], &training[i].blocks);
    }
    return training;
  }
};

std::vector<std::string> Row(const Result& r, const Result& no_loss) {
  const auto number = [](const char* format, double value) {
    return std::isfinite(value) ? Format(format, value) : std::string(kFree);
  };
  if (!r.solved) return {r.name, number("%.3g", r.scale), kFree, kFree, kFree, kFree, kFree};
  return {r.name,
          number("%.3g", r.scale),
          number("%.5f", r.train),
          number("%.5f", r.validation),
          number("%.5f", r.test),
          number("%+.2f %%", 100.0 * (r.test / no_loss.test - 1.0)),
          std::to_string(r.behind)};
}

examples::Json ToJson(const Result& r) {
  examples::Json json;
  json.Add("solved", r.solved ? 1 : 0)
      .Add("message", r.message)
      .Add("scale", r.scale)
      .Add("train", r.train)
      .Add("validation", r.validation)
      .Add("test", r.test)
      .Add("behind_camera", r.behind)
      .Add("lower_solves", static_cast<double>(r.lower_solves))
      .Add("factorizations", static_cast<double>(r.factorizations))
      .Add("seconds", r.seconds);
  return json;
}

bool Draw(const Level& level,
          const bilevel::LearnableLoss& cauchy,
          const bilevel::LearnableLoss* barron,
          const std::vector<Result>& grid,
          const Result& learned) {
  const double size = static_cast<double>(level.sets[0].size());
  examples::Series at_grid{"grid search", "linespoints", {}, {}};
  for (const Result& r : grid) {
    at_grid.x.push_back(r.scale);
    at_grid.y.push_back(r.validation);
  }
  examples::Series iterates{"iterations", "linespoints", {}, {}};
  examples::Series by_iteration{"validation score (left)", "linespoints", {}, {}};
  examples::Series scale{"Cauchy scale (right)", "linespoints", {}, {}, true};
  for (const auto& it : learned.summary.iterations) {
    if (!it.step_is_successful) continue;
    iterates.x.push_back(std::exp(it.x[0]));
    iterates.y.push_back(it.objective / size);
    by_iteration.x.push_back(it.iteration);
    by_iteration.y.push_back(it.objective / size);
    scale.x.push_back(it.iteration);
    scale.y.push_back(std::exp(it.x[0]));
  }
  // The residuals' density, and the losses and weights at the same sizes.
  constexpr int kBins = 60;
  constexpr double kWidth = 0.1;
  std::vector<double> counts(kBins, 0.0);
  double residual[2];
  const auto training = level.Training();
  for (const auto& r : training) {
    r.cost->Evaluate(r.blocks.data(), residual, nullptr);
    const int bin = static_cast<int>(std::hypot(residual[0], residual[1]) / kWidth);
    if (bin < kBins) counts[bin] += 1.0;
  }
  examples::Series density{"training residuals (left)", "boxes", {}, {}};
  examples::Series cauchy_loss{"learned Cauchy (right)", "lines", {}, {}, true};
  examples::Series barron_loss{"learned Barron (right)", "lines", {}, {}, true};
  examples::Series square{"no loss", "lines", {}, {}};
  examples::Series cauchy_weight{"learned Cauchy", "lines", {}, {}};
  examples::Series barron_weight{"learned Barron", "lines", {}, {}};
  for (int k = 0; k < kBins; ++k) {
    const double r = (k + 0.5) * kWidth;
    density.x.push_back(r);
    density.y.push_back(100.0 * counts[k] / static_cast<double>(training.size()));
    const auto add =
        [&](const bilevel::LearnableLoss& loss, examples::Series* value, examples::Series* weight) {
          double rho[3];
          loss.Evaluate(r * r, rho);
          value->x.push_back(r);
          value->y.push_back(0.5 * rho[0]);
          weight->x.push_back(r);
          weight->y.push_back(rho[1]);
        };
    add(cauchy, &cauchy_loss, &cauchy_weight);
    if (barron) add(*barron, &barron_loss, &barron_weight);
    square.x.push_back(r);
    square.y.push_back(1.0);
  }
  std::vector<examples::Panel> panels(4);
  panels[0] = {
      "Validation score against the scale", "Cauchy scale [px]", "mean score [px^2]", true};
  panels[0].series = {at_grid, iterates};
  panels[1] = {"Convergence", "iteration", "mean score [px^2]"};
  panels[1].series = {by_iteration, scale};
  panels[1].right_label = "Cauchy scale [px]";
  panels[2] = {"Training residuals and the learned loss", "|r| [px]", "share of residuals [%]"};
  panels[2].series = {density, cauchy_loss};
  panels[2].right_label = "loss / 2 [px^2]";
  panels[3] = {"Weight of a residual in the lower level", "|r| [px]", "rho'(|r|^2)"};
  panels[3].series = {square, cauchy_weight};
  if (barron) {
    panels[2].series.push_back(barron_loss);
    panels[3].series.push_back(barron_weight);
  }
  return examples::Plot(FLAGS_plot, "Learning the robust loss of bundle adjustment", panels);
}

int Run() {
  const double begin = Now();
  Memory memory;
  std::string error;
  if (!examples::ReadBal(FLAGS_bal, &memory.scene, &error)) {
    std::fprintf(stderr, "%s.\nexamples/fetch_bal.sh fetches the scene.\n", error.c_str());
    return 1;
  }
  if (!(FLAGS_start > 0.0)) {
    std::fprintf(stderr, "--start must be positive.\n");
    return 1;
  }
  if (FLAGS_quick) memory.scene = examples::Cut(memory.scene, 6, 1200);

  Level cauchy_level;
  double log_scale = 0.0;
  auto* cauchy = cauchy_level.problem.Own(std::make_unique<bilevel::CauchyLoss>(&log_scale));
  cauchy_level.problem.SetParameterName(&log_scale, "log scale");
  if (!Build(cauchy, &memory, &cauchy_level.problem, &cauchy_level.sets)) return 1;
  std::printf(
      "%zu cameras, %zu points, %zu observations: %d for training, %zu for validation, "
      "%zu for test.\n",
      memory.scene.cameras.size(),
      memory.scene.points.size(),
      memory.scene.observations.size(),
      cauchy_level.problem.lower()->NumResidualBlocks(),
      cauchy_level.sets[0].size(),
      cauchy_level.sets[1].size());

  // Lower levels at fixed scales, from large to small so that graduation is shared.
  Graduation graduation(&memory, &cauchy_level.problem, &log_scale);
  const auto solve_at = [&](const std::string& name, double scale) {
    graduation.Begin(scale);
    Result result = cauchy_level.Solve(name, 0, memory);
    if (scale < kNoLoss) result.scale = scale;
    return result;
  };
  const Result no_loss = solve_at("no loss", kNoLoss);
  if (!no_loss.solved) {
    std::fprintf(
        stderr, "Bundle adjustment failed without any loss: %s.\n", no_loss.message.c_str());
    return 1;
  }

  // Learned.
  graduation.Begin(FLAGS_start);
  std::printf("\nLearning a Cauchy loss from %g px.\n", FLAGS_start);
  Result learned = cauchy_level.Solve("learned Cauchy", 50, memory);
  const double graduation_seconds = graduation.seconds();
  const int graduation_solves = graduation.num_solves();
  const double learned_log_scale = log_scale;
  if (learned.solved && learned.validation > no_loss.validation) {
    learned.solved = false;
    learned.message = Format(
        "it ends at %.3g px, in a basin that scores worse than no loss; start "
        "from a larger scale",
        std::exp(log_scale));
  }
  if (learned.solved) learned.scale = std::exp(log_scale);
  std::printf("%s\n", learned.summary.BriefReport().c_str());
  if (!learned.solved) std::printf("FAILURE: %s.\n", learned.message.c_str());
  const std::string cauchy_line = cauchy->Describe();

  // Barron's family contains Cauchy's loss: alpha = 0 and c = a / sqrt(2). Begin there.
  Level barron_level;
  double barron[2] = {0.0, learned_log_scale - 0.5 * std::log(2.0)};
  auto* barron_loss =
      barron_level.problem.Own(std::make_unique<bilevel::BarronLoss>(&barron[0], &barron[1]));
  Result learned_barron;
  learned_barron.name = "learned Barron";
  if (learned.solved) {
    std::printf("\nLearning Barron's loss from there.\n");
    if (!Build(barron_loss, &memory, &barron_level.problem, &barron_level.sets)) return 1;
    auto& problem = barron_level.problem;
    problem.SetParameterLowerBound(&barron[0], 0, -2.0);
    problem.SetParameterUpperBound(&barron[0], 0, 1.9);
    problem.SetParameterLowerBound(&barron[1], 0, std::log(0.3));
    problem.SetParameterUpperBound(&barron[1], 0, std::log(30.0));
    barron[1] = std::min(std::max(barron[1], std::log(0.3)), std::log(30.0));
    learned_barron = barron_level.Solve("learned Barron", 50, memory);
    std::printf("%s\n", learned_barron.summary.BriefReport().c_str());
    if (!learned_barron.solved) std::printf("FAILURE: %s.\n", learned_barron.message.c_str());
  }

  const Result by_hand = solve_at("Cauchy set by hand", 1.0);
  std::vector<Result> grid;
  Result best;
  best.name = "best of the grid";
  long grid_factorizations = 0, grid_solves = 0;
  double grid_seconds = 0.0;
  const double before_grid = graduation.seconds();
  if (FLAGS_grid) {
    for (int k = 12; k >= 0; --k) {
      grid.push_back(solve_at("best of the grid", std::pow(10.0, -1.0 + 0.25 * k)));
      const Result& r = grid.back();
      grid_factorizations += r.factorizations;
      grid_solves += r.lower_solves;
      grid_seconds += r.seconds;
      if (r.solved && !(r.validation >= best.validation)) best = r;
    }
    std::reverse(grid.begin(), grid.end());
  }

  std::printf("\nMean score of an observation, Huber(1 px) [px^2]\n\n");
  examples::Table table(
      {"", "scale [px]", "train", "validation", "test", "test, to no loss", "behind camera"});
  for (const Result* r :
       std::vector<const Result*>{&no_loss, &by_hand, &best, &learned, &learned_barron}) {
    if (r != &best || FLAGS_grid) table.Add(Row(*r, no_loss));
  }
  std::printf("%s", table.ToString().c_str());
  std::printf(
      "\nBehind camera: of the %zu held-out observations, those whose point has moved "
      "behind the camera.\n",
      cauchy_level.sets[0].size() + cauchy_level.sets[1].size());
  if (FLAGS_grid) {
    std::printf("\nThe grid\n\n");
    examples::Table grid_table(
        {"scale [px]", "validation", "test", "factorisations", "seconds", ""});
    for (const Result& r : grid) {
      grid_table.Add({Format("%.3g", r.scale),
                      r.solved ? Format("%.5f", r.validation) : kFree,
                      r.solved ? Format("%.5f", r.test) : kFree,
                      std::to_string(r.factorizations),
                      Format("%.1f", r.seconds),
                      r.solved ? "" : "rejected"});
    }
    std::printf("%s", grid_table.ToString().c_str());
  }
  std::printf("\nCost\n\n");
  examples::Table cost({"", "lower solves", "factorisations", "seconds"});
  const auto add_cost = [&](const char* name, long solves, long factorizations, double seconds) {
    cost.Add({name,
              std::to_string(solves),
              factorizations < 0 ? kFree : std::to_string(factorizations),
              Format("%.1f", seconds)});
  };
  add_cost("graduation of the start", graduation_solves, -1, graduation_seconds);
  add_cost("learned Cauchy", learned.lower_solves, learned.factorizations, learned.seconds);
  if (learned.solved) {
    add_cost("learned Barron",
             learned_barron.lower_solves,
             learned_barron.factorizations,
             learned_barron.seconds);
  }
  if (FLAGS_grid) {
    add_cost("grid search", grid_solves, grid_factorizations, grid_seconds);
    add_cost("graduation of the grid",
             graduation.num_solves() - graduation_solves,
             -1,
             graduation.seconds() - before_grid);
  }
  std::printf("%s", cost.ToString().c_str());

  if (learned.solved) {
    std::printf("\nTo paste into a Ceres program:\n\n  %s\n", cauchy_line.c_str());
    if (learned_barron.solved) std::printf("  %s\n", barron_loss->Describe().c_str());
  }
  std::printf("\n%.0f s in all.\n", Now() - begin);

  examples::Json json, grid_json;
  std::vector<double> scales, validation, test;
  for (const Result& r : grid) {
    scales.push_back(r.scale);
    validation.push_back(r.validation);
    test.push_back(r.test);
  }
  grid_json.Add("scale", scales).Add("validation", validation).Add("test", test);
  grid_json.Add("factorizations", static_cast<double>(grid_factorizations))
      .Add("seconds", grid_seconds);
  json.Add("start", FLAGS_start)
      .Add("observations", static_cast<double>(memory.scene.observations.size()))
      .Add("graduation_solves", graduation_solves)
      .Add("graduation_seconds", graduation_seconds)
      .Add("no_loss", ToJson(no_loss))
      .Add("by_hand", ToJson(by_hand))
      .Add("best_of_grid", ToJson(best))
      .Add("cauchy", ToJson(learned))
      .Add("barron", ToJson(learned_barron))
      .Add("barron_alpha", barron[0])
      .Add("barron_scale", std::exp(barron[1]))
      .Add("free_directions", learned.summary.num_free_directions)
      .Add("loss", cauchy_line)
      .Add("grid", grid_json)
      .AddRaw("summary", learned.summary.Json());
  bool ok = examples::WriteFile(FLAGS_summary_json, json.ToString());
  ok = examples::WriteFile(FLAGS_trace_csv, learned.summary.Csv()) && ok;
  if (!FLAGS_plot.empty() && learned.solved) {
    memory.Set(learned.y);
    log_scale = learned_log_scale;
    ok =
        Draw(cauchy_level, *cauchy, learned_barron.solved ? barron_loss : nullptr, grid, learned) &&
        ok;
  }
  return ok && learned.solved ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // To be watched, into a file too.
  examples::ParseFlags(
      "Learns the robust loss of bundle adjustment: the scale of a Cauchy loss, then the shape "
      "and\n"
      "scale of Barron's family, so that held-out reprojection errors are smallest; beside it a\n"
      "search over 13 scales that are solved the same way. A few minutes; --nogrid: one; --quick: "
      "seconds.\n\n"
      "Usage: tune_bundle_adjustment [flags] [scene]\n\n"
      "  tune_bundle_adjustment --plot=tuned.png --summary_json=tuned.json\n"
      "  tune_bundle_adjustment --start=0.3 --nogrid",
      &argc,
      &argv);
  if (argc > 1) FLAGS_bal = argv[1];
  if (FLAGS_num_threads < 1) {
    std::fprintf(stderr, "--num_threads must be positive.\n");
    return 1;
  }
  return Run();
}
