// Learns the scale of bundle adjustment's robust loss on minibatches of observations, beside the
// exact method.
//
//   lower level   y*(x) = argmin sum over training observations of cauchy(|r(y)|^2; x) / 2
//   upper level   x     = argmin sum over validation observations of huber(|r(y*(x))|^2) / 2
//
// SLIP: one step of y, z and x an iteration, each on a minibatch. Bundle adjustment is far too
// badly conditioned for plain steps: those of y and z are taken in the metric of the Gauss-Newton
// Hessian at the start, factorised once. Its own y is not y*(x): Newton's method solves it in the
// end.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"
#include "bilevel/methods/stochastic/slip.h"
#include "ceres/ceres.h"
#include "examples/support/bundle_adjustment/bal.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"

DEFINE_string(
    bal,
    "build/data/problem-16-22106-pre.txt",
    "the scene: BAL, as examples/fetch_bal.sh gets it, Bundler's, or libmv's binary format");
DEFINE_double(start, 10.0, "the Cauchy scale to start from, in pixels");
DEFINE_int32(batch, 4096, "observations in a minibatch, of training and of validation");
DEFINE_int32(iterations, 1000, "of SLIP");
DEFINE_double(lower_step, 0.1, "of y and z; below twice the batch's share of the observations");
DEFINE_double(upper_step, 0.1, "of the log scale, in the first iteration");
DEFINE_int32(seed, 0, "of the split into training, validation and test, and of the minibatches");

namespace {

using examples::Format;
using Sets = std::vector<std::vector<bilevel::HeldOutResidual>>;

struct Scene {
  examples::BalScene bal;
  double log_scale = 0.0;
  bilevel::Problem problem;
  Sets held_out;  // Validation, test.

  // Points give an observation up only while they keep three.
  bool Build(std::string* error) {
    auto* loss = problem.Own(std::make_unique<bilevel::CauchyLoss>(&log_scale));
    for (const auto& o : bal.observations) {
      problem.lower()->AddResidualBlock(
          new bilevel::AutoDiffCostFunction<examples::ReprojectionError, 2, 9, 3>(
              new examples::ReprojectionError{o.u, o.v}),
          loss,
          bal.cameras[o.camera].data(),
          bal.points[o.point].data());
    }
    problem.AddUpperParameterBlock(&log_scale, 1);
    problem.SetParameterName(&log_scale, "log scale");
    bilevel::HoldoutOptions holdout;
    holdout.fractions = {0.1, 0.1};
    holdout.min_left = 3;
    holdout.seed = FLAGS_seed;
    return bilevel::SplitHoldout(
        holdout, {}, new ceres::HuberLoss(1.0), &problem, &held_out, error);
  }

  // Mean score in px^2.
  double Score(int set) const {
    const ceres::HuberLoss huber(1.0);
    return bilevel::EvaluateHoldout(held_out[set], &huber) /
           static_cast<double>(held_out[set].size());
  }
};

ceres::Solver::Options LowerOptions() {
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::DENSE_SCHUR;
  options.num_threads = FLAGS_num_threads;
  options.max_num_iterations = 300;
  options.function_tolerance = 1e-7;
  options.logging_type = ceres::SILENT;
  return options;
}

struct Result {
  bilevel::Solver::Summary summary;
  double scale, validation, test, seconds;
};

Result Learn(std::shared_ptr<bilevel::Method> method, int iterations, Scene* scene) {
  bilevel::Solver::Options options;
  options.method = std::move(method);
  options.max_num_iterations = iterations;
  options.lower_solver_options = LowerOptions();
  options.max_num_lower_newton_iterations = 100;
  options.num_threads = FLAGS_num_threads;
  options.function_tolerance = 1e-7;
  options.seed = FLAGS_seed;
  Result result;
  const double begin = examples::Now();
  examples::Solve(options, &scene->problem, &result.summary);
  result.seconds = examples::Now() - begin;
  result.scale = std::exp(scene->log_scale);
  result.validation = scene->Score(0);
  result.test = scene->Score(1);
  return result;
}

bool Read(Scene* scene) {
  std::string error;
  if (!examples::ReadScene(FLAGS_bal, &scene->bal, &error)) {
    std::fprintf(stderr, "%s.\nexamples/fetch_bal.sh fetches a scene.\n", error.c_str());
    return false;
  }
  std::printf("%s", scene->bal.notes.c_str());
  if (FLAGS_quick) {
    scene->bal = examples::Cut(scene->bal, 6, 1200);
    FLAGS_batch = 256;
    FLAGS_iterations = 400;
  }
  if (!scene->Build(&error)) {
    std::fprintf(stderr, "The scene cannot be split: %s.\n", error.c_str());
    return false;
  }
  std::printf("%zu cameras, %zu points, %d training and %zu validation observations.\n",
              scene->bal.cameras.size(),
              scene->bal.points.size(),
              scene->problem.lower()->NumResidualBlocks(),
              scene->held_out[0].size());
  return true;
}

// The solution of the scale to start from, found by way of the squares.
void SolveAtStart(Scene* scene) {
  for (const double scale : {1e8, FLAGS_start}) {
    scene->log_scale = std::log(scale);
    ceres::Solver::Summary summary;
    ceres::Solve(LowerOptions(), scene->problem.lower(), &summary);
  }
}

Result LearnOnMinibatches(Scene* scene) {
  bilevel::Slip::Options options;
  options.lower_batch = FLAGS_batch;
  options.upper_batch = std::min<int>(FLAGS_batch, static_cast<int>(scene->held_out[0].size()));
  options.sampling = bilevel::Batch::kShuffled;
  options.preconditioner = bilevel::Preconditioner::kGaussNewton;
  options.num_warm_start_steps = 0;  // y is solved.
  options.y = options.z = {FLAGS_lower_step, 0.5, 100.0};
  options.x = {FLAGS_upper_step, 0.75, 20.0};
  options.average = {0.1, 0.5, 100.0};
  return Learn(std::make_shared<bilevel::Slip>(options), FLAGS_iterations, scene);
}

Result LearnExactly(Scene* scene) {
  bilevel::LevenbergMarquardt::Options options;
  options.max_trust_region_radius = 1.0;
  return Learn(std::make_shared<bilevel::LevenbergMarquardt>(options), 50, scene);
}

struct Named {
  const char *name, *key;
  const Result* result;
};

void Print(const std::vector<Named>& results, double start_validation, double start_test) {
  examples::Table table({"",
                         "scale [px]",
                         "validation [px^2]",
                         "test [px^2]",
                         "epochs g",
                         "epochs f",
                         "factorisations",
                         "seconds"});
  table.Add({"start",
             Format("%.3g", FLAGS_start),
             Format("%.5f", start_validation),
             Format("%.5f", start_test),
             "-",
             "-",
             "-",
             "-"});
  for (const auto& [name, key, r] : results) {
    table.Add({name,
               Format("%.3g", r->scale),
               Format("%.5f", r->validation),
               Format("%.5f", r->test),
               Format("%.1f", r->summary.lower_epochs),
               Format("%.1f", r->summary.upper_epochs),
               std::to_string(r->summary.lower_solver.factorizations),
               Format("%.1f", r->seconds)});
  }
  std::printf("\n%s", table.ToString().c_str());
  std::printf(
      "Epochs are the method's own evaluations; factorisations those of lower solves, SLIP's in "
      "the end.\n");
}

bool WriteSummary(const std::vector<Named>& results, double start_validation) {
  examples::Json json;
  for (const auto& [name, key, r] : results) {
    examples::Json one;
    one.Add("scale", r->scale)
        .Add("validation", r->validation)
        .Add("test", r->test)
        .Add("seconds", r->seconds)
        .AddRaw("summary", r->summary.Json());
    json.Add(key, one);
  }
  json.Add("start_validation", start_validation);
  return examples::WriteFile(FLAGS_summary_json, json.ToString());
}

bool Draw(const std::vector<Named>& results) {
  examples::Panel by_epochs{
      "By epochs", "epochs of the training observations", "Cauchy scale [px]"};
  examples::Panel by_time{"By time", "seconds", "Cauchy scale [px]"};
  for (const auto& [name, key, r] : results) {
    examples::Series epochs{name, "linespoints", {}, {}}, seconds{name, "linespoints", {}, {}};
    for (const auto& it : r->summary.iterations) {
      if (!it.step_is_successful) continue;
      epochs.x.push_back(it.lower_epochs);
      seconds.x.push_back(it.cumulative_time_in_seconds);
      epochs.y.push_back(std::exp(it.x[0]));
      seconds.y.push_back(std::exp(it.x[0]));
    }
    // The exact method's lower solves are not the method's own evaluations.
    if (by_epochs.series.empty()) by_epochs.series.push_back(epochs);
    by_time.series.push_back(seconds);
  }
  return examples::Plot(
      FLAGS_plot, "The loss of bundle adjustment on minibatches", {by_epochs, by_time});
}

int Run() {
  Scene scene;
  if (!Read(&scene)) return 1;
  SolveAtStart(&scene);
  const auto cameras = scene.bal.cameras;
  const auto points = scene.bal.points;
  const double start_validation = scene.Score(0), start_test = scene.Score(1);
  const Result minibatch = LearnOnMinibatches(&scene);
  if (!minibatch.summary.IsSolutionUsable()) {
    std::fprintf(stderr, "SLIP failed: %s.\n", minibatch.summary.message.c_str());
    return 1;
  }
  // Both begin there.
  std::copy(cameras.begin(), cameras.end(), scene.bal.cameras.begin());
  std::copy(points.begin(), points.end(), scene.bal.points.begin());
  scene.log_scale = std::log(FLAGS_start);
  const Result exact = LearnExactly(&scene);
  if (!exact.summary.IsSolutionUsable()) {
    std::fprintf(stderr, "The exact method failed: %s.\n", exact.summary.message.c_str());
    return 1;
  }
  const std::vector<Named> results = {{"SLIP", "slip", &minibatch}, {"exact", "exact", &exact}};
  Print(results, start_validation, start_test);
  bool ok = WriteSummary(results, start_validation);
  ok = examples::WriteFile(FLAGS_trace_csv, minibatch.summary.Csv()) && ok;
  if (!FLAGS_plot.empty()) ok = Draw(results) && ok;
  return ok ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns the scale of bundle adjustment's robust loss on minibatches of observations (SLIP), "
      "and\nbeside it by the exact method.\n\n"
      "Usage: tune_bundle_adjustment_stochastic [flags] [scene]",
      &argc,
      &argv,
      &FLAGS_bal);
  if (!(FLAGS_start > 0.0)) {
    std::fprintf(stderr, "--start must be positive.\n");
    return 1;
  }
  if (FLAGS_num_threads < 1) {
    std::fprintf(stderr, "--num_threads must be positive.\n");
    return 1;
  }
  return Run();
}
