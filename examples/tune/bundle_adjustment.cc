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
//
// --per_camera learns a noise level for each camera instead of Barron's shape, together with the
// Cauchy scale: sigma_c in the loss rho(|r|^2 / sigma_c^2; x), with a prior on log sigma_c that
// counts against the held-out errors as their own variance says. Beside it, Nelder and Mead's
// simplex on the same x.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/learnable/noise.h"
#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"
#include "ceres/ceres.h"
#include "examples/support/baselines.h"
#include "examples/support/bundle_adjustment/bal.h"
#include "examples/support/left_out_cost.h"
#include "examples/support/plot.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"
#include "examples/tune/command.h"
#include "examples/tune/report.h"

DEFINE_string(holdout,
              "observation",
              "what is held out: single observations, or tracks whole (a point with all its "
              "observations, which then judges the cameras alone)");
DEFINE_bool(per_camera, false, "learn a noise level for each camera too");
DEFINE_int32(share, 1, "--per_camera: so many neighbouring cameras share a noise level");
DEFINE_double(camera_prior,
              0.5,
              "--per_camera: standard deviation of log noise expected among cameras; 0: no prior");
DEFINE_double(start_scale, 10.0, "--nosafe: the Cauchy scale to start from, in pixels");

namespace {

using examples::Fail;
using examples::Format;
using examples::Now;
using examples::Say;
using Sets = std::vector<std::vector<bilevel::HeldOutResidual>>;

constexpr double kNoLoss = 1e8;  // Pixels: a Cauchy loss of this scale is the square itself.
constexpr double kByHand = 1.0;  // A Cauchy scale [px].
constexpr int kSimplexSolves = 50;
constexpr char kFree[] = "-";
constexpr char kCauchyScale[] = "Cauchy scale";  // [px]

bool ByTrack() { return FLAGS_holdout == "track"; }

int NumObservations(const bilevel::HeldOutResidual& r) { return r.cost->num_residuals() / 2; }

double NumObservations(const std::vector<bilevel::HeldOutResidual>& set) {
  double sum = 0.0;
  for (const auto& r : set) sum += NumObservations(r);
  return sum;
}

// Huber(1 px) of an observation, or of a track's RMS error times its number of observations.
ceres::HuberLoss ScoreLoss(const bilevel::HeldOutResidual& r) {
  return ceres::HuberLoss(std::sqrt(NumObservations(r)));
}

// The scene's memory, y. All problems below work on it, one after the other.
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

// A held-out track as a function of its cameras, the point being the best one for them.
ceres::CostFunction* LeftOutTrack(const examples::BalScene& scene,
                                  const std::vector<int>& observations) {
  std::vector<examples::LeftOutCost::Part> parts;
  for (const int i : observations) {
    const auto& o = scene.observations[i];
    parts.push_back(
        {std::make_shared<ceres::AutoDiffCostFunction<examples::ReprojectionError, 2, 9, 3>>(
             new examples::ReprojectionError{o.u, o.v}),
         {static_cast<int>(parts.size()), examples::LeftOutCost::kUnknown}});
  }
  const auto& point = scene.points[scene.observations[observations[0]].point];
  return new examples::LeftOutCost(std::move(parts),
                                   std::vector<int>(observations.size(), 9),
                                   std::vector<double>(point.begin(), point.end()));
}

// Bundle adjustment under the cameras' losses on the training part, scored on the validation part
// by ScoreLoss. Points give an observation up only while they keep three.
bool Build(const std::vector<bilevel::LearnableLoss*>& losses,
           Memory* memory,
           bilevel::Problem* problem,
           Sets* sets) {
  examples::BalScene& scene = memory->scene;
  bilevel::HoldoutOptions holdout;
  holdout.fractions = {0.1, 0.1};
  holdout.min_left = 3;
  holdout.seed = FLAGS_seed;
  if (ByTrack()) {
    holdout.kind = bilevel::HoldoutOptions::Kind::kByBlock;
    for (const auto& point : scene.points) holdout.blocks.push_back(point.data());
    holdout.min_left = 0;
  }
  std::vector<std::vector<const double*>> blocks;
  for (const auto& o : scene.observations) {
    blocks.push_back({scene.cameras[o.camera].data(), scene.points[o.point].data()});
  }
  std::vector<int> set;
  std::string error;
  if (!bilevel::ChooseHoldout(holdout, blocks, &set, &error)) {
    return Fail("The scene cannot be split: " + error);
  }
  sets->assign(2, {});
  std::map<int, std::vector<int>> left_out;  // Observations by track.
  for (size_t i = 0; i < set.size(); ++i) {
    const auto& o = scene.observations[i];
    double* camera = scene.cameras[o.camera].data();
    double* point = scene.points[o.point].data();
    if (set[i] > 0 && ByTrack()) {
      left_out[o.point].push_back(static_cast<int>(i));
      continue;
    }
    auto* cost = new bilevel::AutoDiffCostFunction<examples::ReprojectionError, 2, 9, 3>(
        new examples::ReprojectionError{o.u, o.v});
    if (set[i] == 0) {
      problem->lower()->AddResidualBlock(cost, losses[o.camera], camera, point);
    } else {
      (*sets)[set[i] - 1].push_back({static_cast<int>(i), cost, {camera, point}});
    }
  }
  for (const auto& [point, observations] : left_out) {
    if (observations.size() < 2) continue;  // One never disagrees with the best point.
    bilevel::HeldOutResidual track{observations[0], LeftOutTrack(scene, observations), {}};
    for (const int i : observations) {
      track.blocks.push_back(scene.cameras[scene.observations[i].camera].data());
    }
    (*sets)[set[observations[0]] - 1].push_back(std::move(track));
  }
  for (const auto& r : (*sets)[0]) {
    problem->upper()->AddResidualBlock(const_cast<ceres::CostFunction*>(r.cost),
                                       new ceres::HuberLoss(ScoreLoss(r)),
                                       r.blocks.data(),
                                       static_cast<int>(r.blocks.size()));
  }
  for (const auto& r : (*sets)[1]) {
    problem->Own(std::unique_ptr<ceres::CostFunction>(const_cast<ceres::CostFunction*>(r.cost)));
  }
  for (size_t i = 0; i < scene.cameras.size(); ++i) {
    double* camera = scene.cameras[i].data();
    problem->SetParameterName(camera, "camera " + std::to_string(i));
    if (scene.fixed_intrinsics && problem->lower()->HasParameterBlock(camera)) {
      problem->lower()->SetManifold(camera, new ceres::SubsetManifold(9, {6, 7, 8}));
    }
    for (const auto& block : losses[i]->parameter_blocks()) {
      if (!problem->IsUpperParameterBlock(block.values)) {
        problem->AddUpperParameterBlock(block.values, block.size);
      }
    }
  }
  return true;
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
  std::vector<double> test_errors;  // Their mean square is twice the test score.
  bilevel::Solver::Summary summary;
};

// The problem of one loss, and how its solutions score.
struct Level {
  bilevel::Problem problem;
  Sets sets;

  bilevel::Solver::Options SolverOptions() const {
    bilevel::Solver::Options options;
    options.lower_solver_options = LowerOptions();
    options.num_threads = FLAGS_num_threads;
    // Lower solves find their way more easily where the scale changes by a factor e at most.
    bilevel::LevenbergMarquardt::Options method;
    method.max_trust_region_radius = 1.0;
    options.method = std::make_shared<bilevel::LevenbergMarquardt>(method);
    options.max_num_lower_newton_iterations = 100;
    options.function_tolerance = 1e-7;
    options.callbacks = {examples::ShowIterations()};
    return options;
  }

  // Of a residual held out for validation, at the score `mean`.
  double Variance(double mean) const {
    double degrees = 0.0;
    for (const auto& r : sets[0]) degrees += r.cost->num_residuals() - (ByTrack() ? 3 : 0);
    return 2.0 * mean * NumObservations(sets[0]) / degrees;
  }

  // Learns the loss from where memory is; max_num_iterations = 0 solves the lower level alone.
  Result Solve(const std::string& name, int max_num_iterations, const Memory& memory) {
    bilevel::Solver::Options options = SolverOptions();
    options.max_num_iterations = max_num_iterations;
    Result result;
    result.name = name;
    const double begin = Now();
    examples::Solve(options, &problem, &result.summary);
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
    Sets all = sets;
    all.push_back(Training());
    double* scores[] = {&result->validation, &result->test, &result->train};
    for (int k = 0; k < 3; ++k) {
      const double size = NumObservations(all[k]);
      *scores[k] = 0.0;
      for (const auto& r : all[k]) {
        const ceres::HuberLoss loss = ScoreLoss(r);
        const double score = bilevel::EvaluateHoldout({r}, &loss) / size;
        *scores[k] += score;
        if (k == 1) {
          result->test_errors.push_back(
              std::sqrt(2.0 * score * static_cast<double>(all[k].size())));
        }
        if (k == 2 || ByTrack()) continue;
        double p[3];
        examples::ToCamera(r.blocks[0], r.blocks[1], p);
        result->behind += p[2] >= 0.0;
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

// A noise level for FLAGS_share neighbouring cameras each and the Cauchy scale, in these sigmas.
struct CameraNoise {
  Level level;
  double log_scale = 0.0;
  std::vector<double> log_sigma;
  std::vector<bilevel::LearnableLoss*> losses;  // By camera.
  Result learned, simplex;
  double objective = std::nan(""), simplex_objective = std::nan("");  // With the prior.
  int simplex_evaluations = 0;
  std::vector<double> errors;  // Standard errors of log_sigma, less their mean, and of log_scale.

  size_t GroupOf(size_t camera) const { return camera / FLAGS_share; }
  std::string Name(size_t group) const {
    const size_t first = group * FLAGS_share;
    const size_t last = std::min(first + FLAGS_share, losses.size()) - 1;
    return first == last ? Format("camera %zu", first) : Format("cameras %zu-%zu", first, last);
  }

  // variance: of a held-out residual, which the prior is to count against.
  bool Build(Memory* memory, double variance) {
    const size_t cameras = memory->scene.cameras.size();
    log_sigma.assign((cameras + FLAGS_share - 1) / FLAGS_share, 0.0);
    bilevel::Problem& problem = level.problem;
    auto* cauchy = problem.Own(std::make_unique<bilevel::CauchyLoss>(&log_scale));
    std::vector<bilevel::LearnableLoss*> by_group;
    for (double& value : log_sigma) {
      by_group.push_back(problem.Own(
          std::make_unique<bilevel::NoiseScaleLoss>(cauchy, &value, ceres::DO_NOT_TAKE_OWNERSHIP)));
    }
    for (size_t c = 0; c < cameras; ++c) losses.push_back(by_group[GroupOf(c)]);
    if (!::Build(losses, memory, &problem, &level.sets)) return false;
    problem.SetParameterName(&log_scale, "log scale");
    problem.SetParameterLowerBound(&log_scale, 0, std::log(0.03));
    problem.SetParameterUpperBound(&log_scale, 0, std::log(100.0));
    for (size_t g = 0; g < log_sigma.size(); ++g) {
      problem.SetParameterName(&log_sigma[g], "log noise of " + Name(g));
      problem.SetParameterLowerBound(&log_sigma[g], 0, -std::log(100.0));
      problem.SetParameterUpperBound(&log_sigma[g], 0, std::log(100.0));
      if (FLAGS_camera_prior > 0.0) {
        problem.upper()->AddResidualBlock(
            new bilevel::NormalPrior({0.0}, FLAGS_camera_prior / std::sqrt(variance)),
            nullptr,
            &log_sigma[g]);
      }
    }
    return true;
  }

  // From one noise level for all and the scale learned with it, at whose solution memory is. The
  // lower level sees noise relative to its mean and the scale times the mean: the mean becomes 1.
  void Learn(double start, const Memory& memory) {
    log_scale = start;
    learned = level.Solve("learned noise and scale", 50, memory);
    if (!learned.solved) return;
    objective = learned.summary.final_objective;
    const bilevel::Uncertainty& uncertainty = learned.summary.assessment.uncertainty;
    const double one = 1.0, share = 1.0 / static_cast<double>(log_sigma.size());
    const double less = -share, rest = 1.0 - share;
    for (size_t g = 0; g <= log_sigma.size(); ++g) {
      std::vector<std::pair<const double*, const double*>> combination;
      if (g == log_sigma.size()) combination.emplace_back(&log_scale, &one);
      for (size_t i = 0; i < log_sigma.size(); ++i) {
        combination.emplace_back(&log_sigma[i],
                                 g == log_sigma.size() ? &share
                                 : i == g              ? &rest
                                                       : &less);
      }
      errors.push_back(std::nan(""));
      uncertainty.GetStandardError(combination, &errors.back());
    }
    double mean = 0.0;
    for (const double value : log_sigma) mean += share * value;
    for (double& value : log_sigma) value -= mean;
    log_scale += mean;
    learned.scale = std::exp(log_scale);
  }

  // Without derivatives, from the scale 1 px that one sets by hand, at whose solution memory is.
  // x and memory are left at what was learned.
  void SearchWithSimplex(Memory* memory) {
    const double learned_scale = log_scale;
    const std::vector<double> learned_sigma = log_sigma;
    std::vector<double*> coordinates = {&log_scale};
    for (double& value : log_sigma) coordinates.push_back(&value);
    const std::vector<double> start(coordinates.size(), 0.0);
    for (double* value : coordinates) *value = 0.0;
    const double begin = Now();
    examples::Phi phi(level.SolverOptions(), coordinates, {}, &level.problem);
    const auto found = examples::NelderMead(std::ref(phi), start, 0.5, 1e-5, kSimplexSolves);
    const double seconds = Now() - begin;
    for (size_t i = 0; i < coordinates.size(); ++i) *coordinates[i] = found.x[i];
    simplex = level.Solve("Nelder and Mead", 0, *memory);
    simplex.scale = std::exp(log_scale);
    simplex.seconds += seconds;
    simplex.lower_solves += phi.counts().cold_solves + phi.counts().warm_solves;
    simplex.factorizations += phi.counts().factorizations;
    simplex_objective = found.value;
    simplex_evaluations = found.evaluations;
    log_scale = learned_scale;
    log_sigma = learned_sigma;
    memory->Set(learned.y);
  }

  void Print(const Memory& memory) const {
    std::vector<int> observations(log_sigma.size(), 0);
    for (const auto& o : memory.scene.observations) ++observations[GroupOf(o.camera)];
    examples::Table table({"", "observations", "value", "95 % interval"});
    for (size_t g = 0; g <= log_sigma.size(); ++g) {
      const bool is_scale = g == log_sigma.size();
      const double value = is_scale ? log_scale : log_sigma[g];
      table.Add({is_scale ? "Cauchy scale" : Name(g),
                 is_scale ? "" : std::to_string(observations[g]),
                 Format("%.3f", std::exp(value)),
                 Format("%.3f to %.3f",
                        std::exp(value - 1.96 * errors[g]),
                        std::exp(value + 1.96 * errors[g]))});
    }
    Say("\nNoise of the cameras, relative to their mean, and the Cauchy scale, times it [px]\n\n%s",
        table.ToString().c_str());
    for (const std::string& flat : learned.summary.flat_upper_directions) {
      Say("Flat, and left alone: %s.\n", flat.c_str());
    }
    for (const std::string& bound : learned.summary.active_upper_bounds) {
      Say("On its bound: %s.\n", bound.c_str());
    }
  }

  std::string Describe() const {
    std::string text = "  const double sigma[] = {";
    for (size_t g = 0; g < log_sigma.size(); ++g) {
      text += Format("%s%.6g", g ? ", " : "", std::exp(log_sigma[g]));
    }
    const std::string index =
        FLAGS_share > 1 ? Format("camera / %d", FLAGS_share) : std::string("camera");
    return text + Format(
                      "};\n  const double s = sigma[%s];\n  new ceres::ScaledLoss(new "
                      "ceres::CauchyLoss(%.9g * s), "
                      "1.0 / (s * s), ceres::TAKE_OWNERSHIP)",
                      index.c_str(),
                      std::exp(log_scale));
  }
};

// The scene from all observations under the cameras' losses, begun where memory is.
bool WriteAdjusted(const std::vector<bilevel::LearnableLoss*>& losses, Memory* memory) {
  examples::BalScene& scene = memory->scene;
  ceres::Problem::Options options;
  options.loss_function_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
  ceres::Problem problem(options);
  for (const auto& o : scene.observations) {
    problem.AddResidualBlock(new ceres::AutoDiffCostFunction<examples::ReprojectionError, 2, 9, 3>(
                                 new examples::ReprojectionError{o.u, o.v}),
                             losses[o.camera],
                             scene.cameras[o.camera].data(),
                             scene.points[o.point].data());
  }
  for (auto& camera : scene.cameras) {
    if (scene.fixed_intrinsics && problem.HasParameterBlock(camera.data())) {
      problem.SetManifold(camera.data(), new ceres::SubsetManifold(9, {6, 7, 8}));
    }
  }
  ceres::Solver::Summary summary;
  ceres::Solve(LowerOptions(), &problem, &summary);
  std::string error = summary.message;
  if (!summary.IsSolutionUsable() || !examples::WriteBal(scene, FLAGS_output, &error)) {
    return Fail("The adjusted scene was not written: " + error);
  }
  Say("\n%s has the scene, adjusted with all observations under this loss.\n",
      FLAGS_output.c_str());
  return true;
}

// By the test errors [px] of both.
bilevel::Verdict Judge(const Result& learned, const Result& before) {
  bilevel::VerdictOptions options;
  // Errors of a track are alike, and its observations stand together.
  options.num_errors_a_block = ByTrack() ? 1 : 10;
  return bilevel::JudgeLearned(options, before.test_errors, learned.test_errors, &learned.summary);
}

std::vector<std::string> Row(const Result& r, const Result& no_loss) {
  const auto number = [](const char* format, double value) {
    return std::isfinite(value) ? Format(format, value) : std::string(kFree);
  };
  if (!r.solved) {
    return {r.name, number("%.3g", r.scale), kFree, kFree, kFree, kFree, kFree, kFree};
  }
  return {r.name,
          number("%.3g", r.scale),
          number("%.5f", r.train),
          number("%.5f", r.validation),
          number("%.5f", r.test),
          number("%+.2f %%", 100.0 * (r.test / no_loss.test - 1.0)),
          &r == &no_loss ? kFree : examples::Word(Judge(r, no_loss)),
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

// ------------------------------------------------------------------------------------------------

// The steps of the study, in the order in which they run and print.
class Study {
 public:
  int Run(const std::string& path);

 private:
  bool Read(const std::string& path);
  bool SolveWithoutLoss();
  void LearnSafely();
  void LearnCauchy();
  bool LearnBarron();
  bool LearnCameraNoise();
  void SearchGrid();
  void PrintVerdict();
  void PrintScores();
  void PrintCameraNoise();
  void PrintGrid() const;
  void PrintCost() const;
  void Paste() const;
  bool Write();
  std::vector<examples::Learned> Values() const;
  bool WriteSummary() const;
  examples::Json GridJson() const;
  examples::Json NoiseJson() const;
  bool Draw() const;
  std::vector<examples::Panel> DrawLearning() const;
  std::vector<examples::Panel> DrawLosses() const;
  examples::Panel DrawNoise() const;

  // The lower level at a fixed scale.
  Result SolveAt(const std::string& name, double scale) {
    graduation_->Begin(scale);
    Result result = cauchy_level_.Solve(name, 0, memory_);
    if (scale < kNoLoss) result.scale = scale;
    return result;
  }

  Memory memory_;
  Level cauchy_level_, barron_level_;
  double log_scale_ = 0.0, barron_[2] = {0.0, 0.0};
  bilevel::LearnableLoss *cauchy_ = nullptr, *barron_loss_ = nullptr;
  std::unique_ptr<Graduation> graduation_;
  double graduation_seconds_ = 0.0;  // Of the start.
  int graduation_solves_ = 0;

  Result no_loss_, by_hand_, learned_, learned_barron_;
  double learned_log_scale_ = 0.0;
  examples::Learned value_{kCauchyScale, std::nan("")};
  std::string cauchy_line_;
  CameraNoise noise_;
  bilevel::Verdict verdict_;

  std::vector<Result> grid_;
  Result best_;  // Of the grid.
  long grid_factorizations_ = 0, grid_solves_ = 0;
  double grid_seconds_ = 0.0, seconds_before_grid_ = 0.0;
};

int Study::Run(const std::string& path) {
  const double begin = Now();
  if (!Read(path) || !SolveWithoutLoss()) return 1;
  LearnCauchy();
  if (learned_.solved && !(FLAGS_per_camera ? LearnCameraNoise() : LearnBarron())) return 1;
  by_hand_ = SolveAt("Cauchy set by hand", kByHand);
  if (noise_.learned.solved && FLAGS_baselines) noise_.SearchWithSimplex(&memory_);
  if (FLAGS_baselines) SearchGrid();
  PrintVerdict();
  PrintScores();
  if (noise_.learned.solved) PrintCameraNoise();
  if (FLAGS_baselines) PrintGrid();
  PrintCost();
  if (learned_.solved && verdict_.kind == bilevel::Verdict::kUseLearned) Paste();
  Say("\n%.0f s in all.\n", Now() - begin);
  return examples::ExitCode(Write() && learned_.solved, verdict_);
}

bool Study::Read(const std::string& path) {
  if (!(FLAGS_start_scale > 0.0) || FLAGS_share < 1 || !(FLAGS_camera_prior >= 0.0) ||
      (!ByTrack() && FLAGS_holdout != "observation")) {
    return Fail(
        "--start_scale and --share must be positive, --camera_prior not negative, --holdout "
        "observation or track");
  }
  std::string error;
  if (!examples::ReadScene(path, &memory_.scene, &error)) return Fail(error);
  Say("%s", memory_.scene.notes.c_str());
  if (FLAGS_quick) memory_.scene = examples::Cut(memory_.scene, 6, 1200);

  bilevel::Problem& problem = cauchy_level_.problem;
  cauchy_ = problem.Own(std::make_unique<bilevel::CauchyLoss>(&log_scale_));
  problem.SetParameterName(&log_scale_, "log scale");
  const std::vector<bilevel::LearnableLoss*> equal(memory_.scene.cameras.size(), cauchy_);
  if (!Build(equal, &memory_, &problem, &cauchy_level_.sets)) return false;
  Say("%zu cameras, %zu points, %zu observations: %d for training, %zu %s for validation, "
      "%zu for test.\n",
      memory_.scene.cameras.size(),
      memory_.scene.points.size(),
      memory_.scene.observations.size(),
      problem.lower()->NumResidualBlocks(),
      cauchy_level_.sets[0].size(),
      ByTrack() ? "tracks" : "observations",
      cauchy_level_.sets[1].size());
  return true;
}

bool Study::SolveWithoutLoss() {
  graduation_ = std::make_unique<Graduation>(&memory_, &cauchy_level_.problem, &log_scale_);
  no_loss_ = SolveAt("no loss", kNoLoss);
  if (no_loss_.solved) return true;
  return Fail("Bundle adjustment failed without any loss: " + no_loss_.message);
}

void Report(const Result& result) {
  Say("%s\n", result.summary.BriefReport().c_str());
  if (!result.solved) Say("It failed: %s.\n", result.message.c_str());
}

void Study::LearnSafely() {
  const double begin = Now();
  bilevel::SafeLearningOptions options;
  options.solver = cauchy_level_.SolverOptions();
  options.start_y = [this] { graduation_->Begin(std::exp(log_scale_)); };
  const bilevel::SafeLearning safe = bilevel::LearnSafely(options, &cauchy_level_.problem);
  Say("The rule that does not lose: %s\n", safe.message.c_str());
  learned_ = cauchy_level_.Solve("learned Cauchy", 0, memory_);
  learned_.solved = learned_.solved && safe.ok;
  if (!safe.ok) learned_.message = safe.message;
  learned_.seconds = Now() - begin;
  learned_.lower_solves = safe.counts.cold_solves + safe.counts.warm_solves;
  learned_.factorizations = safe.counts.factorizations;
  value_ = examples::FromLogs({kCauchyScale}, {log_scale_}, safe)[0];
}

void Study::LearnCauchy() {
  const double start = FLAGS_safe ? kByHand : FLAGS_start_scale;
  graduation_->Begin(start);
  Say("\nLearning a Cauchy loss from %g px.\n", start);
  if (FLAGS_safe) {
    LearnSafely();
  } else {
    learned_ = cauchy_level_.Solve("learned Cauchy", 50, memory_);
  }
  graduation_seconds_ = graduation_->seconds();
  graduation_solves_ = graduation_->num_solves();
  learned_log_scale_ = log_scale_;
  // Barron's family contains Cauchy's loss, at alpha = 0 and c = a / sqrt(2), and begins there.
  barron_[1] = log_scale_ - 0.5 * std::log(2.0);
  cauchy_line_ = cauchy_->Describe();
  if (learned_.solved && learned_.validation > (1.0 + 1e-6) * no_loss_.validation) {
    learned_.solved = false;
    learned_.message = Format(
        "it ends at %.3g px, in a basin that scores worse than no loss; start "
        "from a larger scale",
        std::exp(log_scale_));
  }
  if (learned_.solved) learned_.scale = std::exp(log_scale_);
  if (!FLAGS_safe) value_ = examples::FromLogs({kCauchyScale}, {log_scale_}, learned_.summary)[0];
  Report(learned_);
}

bool Study::LearnBarron() {
  Say("\nLearning Barron's loss from there.\n");
  bilevel::Problem& problem = barron_level_.problem;
  barron_loss_ = problem.Own(std::make_unique<bilevel::BarronLoss>(&barron_[0], &barron_[1]));
  const std::vector<bilevel::LearnableLoss*> losses(memory_.scene.cameras.size(), barron_loss_);
  if (!Build(losses, &memory_, &problem, &barron_level_.sets)) return false;
  problem.SetParameterLowerBound(&barron_[0], 0, -2.0);
  problem.SetParameterUpperBound(&barron_[0], 0, 1.9);
  problem.SetParameterLowerBound(&barron_[1], 0, std::log(0.3));
  problem.SetParameterUpperBound(&barron_[1], 0, std::log(30.0));
  barron_[1] = std::min(std::max(barron_[1], std::log(0.3)), std::log(30.0));
  learned_barron_ = barron_level_.Solve("learned Barron", 50, memory_);
  Report(learned_barron_);
  return true;
}

bool Study::LearnCameraNoise() {
  Say("\nLearning the noise of cameras and the scale together from there.\n");
  if (!noise_.Build(&memory_, cauchy_level_.Variance(learned_.validation))) return false;
  const size_t num_held_out = noise_.level.sets[0].size();
  if (2 * noise_.log_sigma.size() > num_held_out) {
    Say("Little to learn %zu noise levels from: %zu %s; try --share or --holdout.\n",
        noise_.log_sigma.size(),
        num_held_out,
        ByTrack() ? "tracks" : "observations");
  }
  noise_.Learn(learned_log_scale_, memory_);
  Report(noise_.learned);
  return true;
}

// From large to small scales, so that graduation is shared.
void Study::SearchGrid() {
  seconds_before_grid_ = graduation_->seconds();
  for (int k = 12; k >= 0; --k) {
    grid_.push_back(SolveAt("best of the grid", std::pow(10.0, -1.0 + 0.25 * k)));
    const Result& r = grid_.back();
    grid_factorizations_ += r.factorizations;
    grid_solves_ += r.lower_solves;
    grid_seconds_ += r.seconds;
    if (r.solved && !(r.validation >= best_.validation)) best_ = r;
  }
  std::reverse(grid_.begin(), grid_.end());
}

void Study::PrintScores() {
  best_.name = "best of the grid";
  if (!FLAGS_per_camera) learned_barron_.name = "learned Barron";
  Say("\nMean score of an observation, Huber(1 px)%s [px^2]\n\n",
      ByTrack() ? ", held out: of a track's RMS error" : "");
  examples::Table table({"",
                         "scale [px]",
                         "train",
                         "validation",
                         "test",
                         "test, to no loss",
                         "in 95 %",
                         "behind camera"});
  for (const Result* r : {&no_loss_,
                          &by_hand_,
                          &best_,
                          &learned_,
                          &learned_barron_,
                          &noise_.simplex,
                          &noise_.learned}) {
    if (!r->name.empty() && (r != &best_ || FLAGS_baselines)) table.Add(Row(*r, no_loss_));
  }
  Say("%s", table.ToString().c_str());
  Say("\nIn 95 %%: whether a bootstrap interval of the test score tells it apart from no loss.\n");
  if (!ByTrack()) {
    Say("Behind camera: of the %zu held-out observations, those whose point has moved behind the "
        "camera.\n",
        cauchy_level_.sets[0].size() + cauchy_level_.sets[1].size());
  }
}

// Beside what validates better of what needs no learning.
void Study::PrintVerdict() {
  const Result& yours =
      by_hand_.solved && by_hand_.validation < no_loss_.validation ? by_hand_ : no_loss_;
  const Result& learned = noise_.learned.solved ? noise_.learned : learned_;
  verdict_ = Judge(learned, yours);
  examples::SayVerdict(verdict_);
  Say("(Test errors [px] of \"%s\" beside \"%s\".)\n", learned.name.c_str(), yours.name.c_str());
}

void Study::PrintCameraNoise() {
  Say("\n");
  if (noise_.simplex_evaluations > 0) {
    Say("Objective on the validation part: learned %.6g, simplex %.6g in %d solves.\n",
        noise_.objective,
        noise_.simplex_objective,
        noise_.simplex_evaluations);
  }
  noise_.Print(memory_);
}

void Study::PrintGrid() const {
  Say("\nThe grid\n\n");
  examples::Table table({"scale [px]", "validation", "test", "factorisations", "seconds", ""});
  for (const Result& r : grid_) {
    table.Add({Format("%.3g", r.scale),
               r.solved ? Format("%.5f", r.validation) : kFree,
               r.solved ? Format("%.5f", r.test) : kFree,
               std::to_string(r.factorizations),
               Format("%.1f", r.seconds),
               r.solved ? "" : "rejected"});
  }
  Say("%s", table.ToString().c_str());
}

void Study::PrintCost() const {
  Say("\nCost\n\n");
  examples::Table table({"", "lower solves", "factorisations", "seconds"});
  const auto add = [&](const std::string& name, long solves, long factorizations, double seconds) {
    table.Add({name,
               std::to_string(solves),
               factorizations < 0 ? kFree : std::to_string(factorizations),
               Format("%.1f", seconds)});
  };
  add("graduation of the start", graduation_solves_, -1, graduation_seconds_);
  add("learned Cauchy", learned_.lower_solves, learned_.factorizations, learned_.seconds);
  for (const Result* r : {&learned_barron_, &noise_.learned, &noise_.simplex}) {
    if (r->solved) add(r->name, r->lower_solves, r->factorizations, r->seconds);
  }
  if (FLAGS_baselines) {
    add("grid search", grid_solves_, grid_factorizations_, grid_seconds_);
    add("graduation of the grid",
        graduation_->num_solves() - graduation_solves_,
        -1,
        graduation_->seconds() - seconds_before_grid_);
  }
  Say("%s", table.ToString().c_str());
}

void Study::Paste() const {
  Say("\nTo paste into a Ceres program:\n\n  %s\n", cauchy_line_.c_str());
  if (learned_barron_.solved) Say("  %s\n", barron_loss_->Describe().c_str());
  if (noise_.learned.solved) Say("%s\n", noise_.Describe().c_str());
}

bool Study::Write() {
  bool ok = WriteSummary();
  if (learned_.solved && examples::IsOutputDue(verdict_)) {
    const std::vector<bilevel::LearnableLoss*> equal(memory_.scene.cameras.size(), cauchy_);
    memory_.Set(noise_.learned.solved ? noise_.learned.y : learned_.y);
    log_scale_ = learned_log_scale_;
    ok = WriteAdjusted(noise_.learned.solved ? noise_.losses : equal, &memory_) && ok;
  }
  ok = examples::WriteTrace(learned_.summary) && ok;
  if (!FLAGS_plot.empty() && learned_.solved) {
    memory_.Set(learned_.y);
    log_scale_ = learned_log_scale_;
    ok = Draw() && ok;
  }
  return ok;
}

std::vector<examples::Learned> Study::Values() const {
  if (!noise_.learned.solved) return {value_};
  const size_t groups = noise_.log_sigma.size();
  std::vector<examples::Learned> values = {
      examples::FromLog(kCauchyScale, noise_.log_scale, noise_.errors[groups])};
  for (size_t g = 0; g < groups; ++g) {
    values.push_back(
        examples::FromLog("noise of " + noise_.Name(g), noise_.log_sigma[g], noise_.errors[g]));
  }
  return values;
}

bool Study::WriteSummary() const {
  examples::Json json = examples::BeginJson("bundle-adjustment", verdict_, Values());
  json.Add("observations", static_cast<double>(memory_.scene.observations.size()))
      .Add("graduation_solves", graduation_solves_)
      .Add("graduation_seconds", graduation_seconds_)
      .Add("no_loss", ToJson(no_loss_))
      .Add("by_hand", ToJson(by_hand_))
      .Add("best_of_grid", ToJson(best_))
      .Add("cauchy", ToJson(learned_))
      .Add("barron", ToJson(learned_barron_))
      .Add("barron_alpha", barron_[0])
      .Add("barron_scale", std::exp(barron_[1]))
      .Add("per_camera", NoiseJson())
      .Add("free_directions", learned_.summary.num_free_directions)
      .Add("loss", cauchy_line_)
      .Add("grid", GridJson())
      .AddRaw("summary", learned_.summary.Json());
  return examples::WriteFile(FLAGS_json, json.ToString());
}

examples::Json Study::GridJson() const {
  std::vector<double> scales, validation, test;
  for (const Result& r : grid_) {
    scales.push_back(r.scale);
    validation.push_back(r.validation);
    test.push_back(r.test);
  }
  examples::Json json;
  return json.Add("scale", scales)
      .Add("validation", validation)
      .Add("test", test)
      .Add("factorizations", static_cast<double>(grid_factorizations_))
      .Add("seconds", grid_seconds_);
}

examples::Json Study::NoiseJson() const {
  examples::Json json = ToJson(noise_.learned);
  if (!noise_.learned.solved) return json;
  std::vector<double> sigma;
  for (const double value : noise_.log_sigma) sigma.push_back(std::exp(value));
  return json.Add("noise", sigma)
      .Add("standard_errors_of_log", noise_.errors)
      .Add("objective", noise_.objective)
      .Add("simplex_objective", noise_.simplex_objective)
      .Add("simplex_evaluations", noise_.simplex_evaluations)
      .Add("to_by_hand", examples::ToJson(Judge(noise_.learned, by_hand_)))
      .Add("flat_directions",
           static_cast<double>(noise_.learned.summary.flat_upper_directions.size()));
}

bool Study::Draw() const {
  std::vector<examples::Panel> panels;
  if (!FLAGS_safe) panels = DrawLearning();
  for (examples::Panel& panel : DrawLosses()) panels.push_back(std::move(panel));
  if (noise_.learned.solved) panels.back() = DrawNoise();
  return examples::Plot(FLAGS_plot, "Learning the robust loss of bundle adjustment", panels);
}

// Of the score alone.
std::vector<examples::Panel> Study::DrawLearning() const {
  const double size = NumObservations(cauchy_level_.sets[0]);
  examples::Series at_grid{"grid search", "linespoints", {}, {}};
  for (const Result& r : grid_) {
    at_grid.x.push_back(r.scale);
    at_grid.y.push_back(r.validation);
  }
  examples::Series iterates{"iterations", "linespoints", {}, {}};
  examples::Series by_iteration{"validation score (left)", "linespoints", {}, {}};
  examples::Series scale{"Cauchy scale (right)", "linespoints", {}, {}, true};
  for (const auto& it : learned_.summary.iterations) {
    if (!it.step_is_successful) continue;
    iterates.x.push_back(std::exp(it.x[0]));
    iterates.y.push_back(it.objective / size);
    by_iteration.x.push_back(it.iteration);
    by_iteration.y.push_back(it.objective / size);
    scale.x.push_back(it.iteration);
    scale.y.push_back(std::exp(it.x[0]));
  }
  std::vector<examples::Panel> panels = {
      {"Validation score against the scale", "Cauchy scale [px]", "mean score [px^2]", true},
      {"Convergence", "iteration", "mean score [px^2]"}};
  panels[0].series = {at_grid, iterates};
  panels[1].series = {by_iteration, scale};
  panels[1].right_label = "Cauchy scale [px]";
  return panels;
}

// The residuals' density, and the losses and weights at the same sizes.
std::vector<examples::Panel> Study::DrawLosses() const {
  constexpr int kBins = 60;
  constexpr double kWidth = 0.1;
  std::vector<double> counts(kBins, 0.0);
  double residual[2];
  const auto training = cauchy_level_.Training();
  for (const auto& r : training) {
    r.cost->Evaluate(r.blocks.data(), residual, nullptr);
    const int bin = static_cast<int>(std::hypot(residual[0], residual[1]) / kWidth);
    if (bin < kBins) counts[bin] += 1.0;
  }
  std::vector<examples::Panel> panels = {
      {"Training residuals and the learned loss", "|r| [px]", "share of residuals [%]"},
      {"Weight of a residual in the lower level", "|r| [px]", "rho'(|r|^2)"}};
  panels[0].right_label = "loss / 2 [px^2]";
  panels[0].series = {{"training residuals (left)", "boxes", {}, {}}};
  panels[1].series = {{"no loss", "lines", {}, {}}};
  const auto size = [](int bin) { return (bin + 0.5) * kWidth; };
  for (int k = 0; k < kBins; ++k) {
    panels[0].series[0].x.push_back(size(k));
    panels[0].series[0].y.push_back(100.0 * counts[k] / static_cast<double>(training.size()));
    panels[1].series[0].x.push_back(size(k));
    panels[1].series[0].y.push_back(1.0);
  }
  const auto add = [&](const bilevel::LearnableLoss& loss, const std::string& name) {
    examples::Series value{name + " (right)", "lines", {}, {}, true}, weight{name, "lines", {}, {}};
    for (int k = 0; k < kBins; ++k) {
      const double r = size(k);
      double rho[3];
      loss.Evaluate(r * r, rho);
      value.x.push_back(r);
      value.y.push_back(0.5 * rho[0]);
      weight.x.push_back(r);
      weight.y.push_back(rho[1]);
    }
    panels[0].series.push_back(value);
    panels[1].series.push_back(weight);
  };
  add(*cauchy_, "learned Cauchy");
  if (learned_barron_.solved) add(*barron_loss_, "learned Barron");
  return panels;
}

examples::Panel Study::DrawNoise() const {
  examples::Series levels{"learned", "points", {}, {}}, intervals{"95 % interval", "lines", {}, {}};
  for (size_t g = 0; g < noise_.log_sigma.size(); ++g) {
    const double camera = (static_cast<double>(g) + 0.5) * FLAGS_share - 0.5;
    levels.x.push_back(camera);
    levels.y.push_back(std::exp(noise_.log_sigma[g]));
    for (const double side : {-1.96, 1.96, std::nan("")}) {
      intervals.x.push_back(camera);
      intervals.y.push_back(std::exp(noise_.log_sigma[g] + side * noise_.errors[g]));
    }
  }
  examples::Panel panel{"Noise of the cameras", "camera", "relative to their mean"};
  panel.series = {intervals, levels};
  return panel;
}

int Run(const std::vector<std::string>& words) { return Study().Run(words[0]); }

}  // namespace

const examples::Command examples::kBundleAdjustment = {
    "bundle-adjustment",
    "the robust loss of a bundle adjustment (BAL, Bundler, libmv), and its cameras' noise",
    {"SCENE"},
    "Learns the scale of a Cauchy loss, then the shape and scale of Barron's, so that\n"
    "reprojection errors of observations that are held out are smallest; with\n"
    "--per_camera the noise of each camera and the scale together. Minutes for 10^5\n"
    "observations.\n\n"
    "  bilevel-tune bundle-adjustment problem-16-22106-pre.txt.bz2 --output=tuned.txt\n"
    "  bilevel-tune bundle-adjustment problem_01.bin --per_camera --share=20\n",
    {"per_camera",
     "share=N",
     "output=where the verdict is to use what was learned, write the scene, adjusted with all "
     "observations under the learned loss, as BAL"},
    {"holdout=KIND", "camera_prior=SIGMA", "safe", "baselines", "start_scale=PIXELS", "seed=N"},
    "",
    Run};
