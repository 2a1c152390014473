// Learns the noise of a pose graph's odometry and loop closures, and the scale of a robust loss
// against false ones.
//
//   lower level   y*(x) = argmin sum over edges of rho(|W(x) Log(Z^-1 Ti^-1 Tj)|^2; x) / 2
//   upper level   x     = argmin mean squared distance of the aligned positions to the truth, or
//                         mean squared error of loop closures that the estimate has not seen, and
//                         a weak prior around the file's sigmas
//
// y: the poses, and a switch for each loop closure where asked for. x: for each class of edges, how
// many times larger than in the file the sigmas of translation and rotation are (or of each axis),
// the loss's log-scale in sigmas, and where there is a truth the rigid motion that aligns the
// trajectory with it. All sigmas larger alike (and the loss's scale smaller) leave y*(x) as it is:
// without a prior the solver names that direction and leaves it alone.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/levenberg_marquardt.h"
#include "ceres/ceres.h"
#include "examples/support/alignment.h"
#include "examples/support/baselines.h"
#include "examples/support/flags.h"
#include "examples/support/g2o.h"
#include "examples/support/plot.h"
#include "examples/support/pose_graph_cost.h"
#include "examples/support/recording.h"
#include "examples/support/table.h"

DEFINE_string(graph, "", "the graph to learn on, g2o or TORO, .gz too; empty: simulated");
DEFINE_string(
    truth,
    "",
    "its ground truth: KITTI, TUM, \"x y heading\", or the vertices of a g2o file; empty: "
    "hold out loop closures instead");
DEFINE_string(test_graph, "", "the graph to test on (with a truth)");
DEFINE_string(test_truth, "", "its ground truth");
DEFINE_double(split, 1.0, "share of the vertices to learn on; the others are the graph to test on");
DEFINE_string(
    loss,
    "",
    "of loop closures: none, cauchy, geman_mcclure, or switchable (a weight to be "
    "estimated for each, with a prior; the same estimate as geman_mcclure); empty: cauchy "
    "if there are false ones, else none");
DEFINE_double(false_loops, 0.0, "false loop closures to inject, as a share of the true ones");
DEFINE_bool(per_axis, false, "a sigma for each axis instead of one each for moving and turning");
DEFINE_double(prior,
              10.0,
              "without a truth: the factor on a sigma that costs as much as one average error of a "
              "held-out loop closure at the start; 0: no prior");
DEFINE_double(start, 1.0, "factor on the sigmas of loop closures to start from");
DEFINE_bool(baselines, true, "search by a grid and by Nelder and Mead as well");
DEFINE_string(write_g2o, "", "write the graph, solved and with the learned information");
DEFINE_int32(seed, 0, "of the simulation, the false loop closures and the split");
DEFINE_bool(progress, false, "print the iterations");

namespace {

using examples::Format;
using examples::Now;
using examples::PoseGraph2;
using examples::PoseGraph3;
using examples::Positions;
using examples::Recording;
using examples::Rms;

constexpr double kWidest = 1000.0;  // Factors on sigma stay between this and its inverse.

// x but for the alignment.
struct Noise {
  int size = 2;  // Of each class.
  double odometry[6] = {}, loops[6] = {};
  double log_scale = std::log(5.0);
  std::string loss = "none";

  std::vector<double*> Coordinates() {
    std::vector<double*> all;
    for (int k = 0; k < size; ++k) all.push_back(odometry + k);
    for (int k = 0; k < size; ++k) all.push_back(loops + k);
    if (loss != "none") all.push_back(&log_scale);
    return all;
  }
  std::vector<double> Get() {
    std::vector<double> values;
    for (const double* p : Coordinates()) values.push_back(*p);
    return values;
  }
  void Set(const std::vector<double>& values) {
    const std::vector<double*> all = Coordinates();
    for (size_t i = 0; i < all.size(); ++i) *all[i] = values[i];
  }
};

// A recording's two levels under a noise.
template <typename Graph>
class Levels {
 public:
  Levels(Recording<Graph>* recording, Noise* noise) : recording_(recording), noise_(noise) {
    auto& vertices = recording->graph.vertices;
    for (auto& v : vertices) {
      examples::AddPose(&v.pose, problem.lower());
      for (double* block : examples::Blocks(&v.pose)) {
        problem.SetParameterName(block, "vertex " + std::to_string(v.id));
      }
    }
    bool any_fixed = false;
    for (auto& v : vertices) {
      any_fixed |= v.fixed;
      if (v.fixed) SetConstant(&v.pose);
    }
    if (!any_fixed) SetConstant(&vertices[0].pose);

    switches.assign(recording->graph.edges.size(), 1.0);
    odometry = Model(noise->odometry, noise->size);
    loops = Model(noise->loops, noise->size);
    if (noise->loss == "cauchy") {
      loss = problem.Own(std::make_unique<bilevel::CauchyLoss>(&noise->log_scale));
    } else if (noise->loss == "geman_mcclure") {
      loss = problem.Own(std::make_unique<bilevel::GemanMcClureLoss>(&noise->log_scale));
    }
    for (size_t k = 0; k < recording->graph.edges.size(); ++k) {
      if (recording->set[k] != 0) continue;
      const auto& edge = recording->graph.edges[k];
      const bool is_odometry = edge.IsOdometry();
      if (!is_odometry && noise->loss == "switchable") {
        std::vector<double*> blocks = recording->EdgeBlocks(edge);
        blocks.push_back(&switches[k]);
        loops->AddResidualBlock(examples::MakeSwitchedCost(edge), nullptr, blocks, problem.lower());
        problem.lower()->AddResidualBlock(
            examples::MakeSwitchPrior(), nullptr, &switches[k], &noise->log_scale);
        continue;
      }
      (is_odometry ? odometry : loops)
          ->AddResidualBlock(examples::MakeCost(edge),
                             is_odometry ? nullptr : loss,
                             recording->EdgeBlocks(edge),
                             problem.lower());
    }
    problem.AddUpperParameterBlock(noise->odometry, noise->size);
    problem.AddUpperParameterBlock(noise->loops, noise->size);
    problem.SetParameterName(noise->odometry, "log odometry");
    problem.SetParameterName(noise->loops, "log loops");
    const bool robust = noise->loss != "none";
    if (robust) {
      problem.AddUpperParameterBlock(&noise->log_scale, 1);
      problem.SetParameterName(&noise->log_scale, "log scale");
    }
    for (double* p : {noise->odometry, noise->loops}) {
      for (int k = 0; k < noise->size; ++k) {
        problem.SetParameterLowerBound(p, k, -std::log(kWidest));
        problem.SetParameterUpperBound(p, k, std::log(kWidest));
      }
    }
    if (robust) {
      problem.SetParameterLowerBound(&noise->log_scale, 0, std::log(0.01));
      problem.SetParameterUpperBound(&noise->log_scale, 0, std::log(1000.0));
    }
    if (recording->truth.empty()) {
      AddHeldOut();
    }
  }

  // The truth as an upper level, aligned with the trajectory as it stands in memory.
  void AddTruth() {
    auto& vertices = recording_->graph.vertices;
    const auto& pose_set = recording_->pose_set;
    const examples::PositionErrors errors(recording_->Alignment(),
                                          examples::ToPositions(recording_->truth),
                                          std::max(Rms(recording_->PositionErrors(0)), 1e-3));
    const double weight = 1.0 / std::sqrt(1.0 * std::count(pose_set.begin(), pose_set.end(), 0));
    for (size_t i = 0; i < vertices.size(); ++i) {
      if (pose_set[i] != 0) continue;
      const Eigen::Vector3d truth = examples::Position(recording_->truth[i]);
      problem.upper()->AddResidualBlock(
          Graph::kDim == 3 ? errors.InPlane(truth, weight) : errors.InSpace(truth, weight),
          nullptr,
          alignment,
          examples::Blocks(&vertices[i].pose).back());
    }
    problem.AddUpperParameterBlock(alignment, Graph::kDim);
    problem.SetParameterName(alignment, "alignment");
  }

  // Few held-out errors would have sigmas go anywhere: a prior around the file's, worth
  // `num_errors` of them as they are with the estimate in memory at each factor of `factor`.
  void AddPrior(double factor) {
    if (!(factor > 1.0)) return;
    const double held_out = Graph::kDim * static_cast<double>(recording_->EdgeErrors(1).size());
    prior_sigma_ = std::log(factor) * std::sqrt(held_out) / Rms(recording_->EdgeErrors(1));
    for (double* block : {noise_->odometry, noise_->loops}) {
      problem.upper()->AddResidualBlock(
          new bilevel::NormalPrior(std::vector<double>(noise_->size, 0.0), prior_sigma_),
          nullptr,
          block);
    }
  }

  // The root of twice phi.
  double Score() {
    if (!recording_->truth.empty()) return Rms(recording_->PositionErrors(0));
    double square = std::pow(Rms(recording_->EdgeErrors(1)), 2);
    for (const double* block : {noise_->odometry, noise_->loops}) {
      for (int k = 0; k < noise_->size; ++k) square += std::pow(block[k] / prior_sigma_, 2);
    }
    return std::sqrt(square);
  }

  // Loop closures that are false or not, and how many of each are switched off by more than half.
  struct Switched {
    int all[2] = {}, off[2] = {};
  };
  Switched CountSwitches() const {
    Switched count;
    for (size_t k = 0; k < switches.size(); ++k) {
      if (recording_->graph.edges[k].IsOdometry() || recording_->set[k] != 0) continue;
      const int is_false = recording_->is_false[k];
      ++count.all[is_false];
      count.off[is_false] += switches[k] < 0.5;
    }
    return count;
  }

  bilevel::Problem problem;
  std::unique_ptr<bilevel::NoiseModel> odometry, loops;
  bilevel::LearnableLoss* loss = nullptr;
  std::vector<double> switches;  // Of each edge; for loop closures with --loss=switchable.
  double alignment[6] = {};

 private:
  void SetConstant(typename Graph::Pose* pose) {
    for (double* block : examples::Blocks(pose)) problem.lower()->SetParameterBlockConstant(block);
  }

  static std::unique_ptr<bilevel::NoiseModel> Model(double* log_sigmas, int size) {
    if (size == 2) return std::make_unique<examples::MotionNoise>(log_sigmas, Graph::kDim);
    return std::make_unique<bilevel::DiagonalNoise>(log_sigmas, Graph::kDim);
  }

  void AddHeldOut() {
    const double count = static_cast<double>(
        std::count(recording_->set.begin(), recording_->set.end(), 1) * Graph::kDim);
    for (size_t k = 0; k < recording_->graph.edges.size(); ++k) {
      if (recording_->set[k] != 1 || recording_->is_false[k]) continue;
      problem.upper()->AddResidualBlock(
          examples::MakeCost(recording_->graph.edges[k]),
          new ceres::ScaledLoss(nullptr, 1.0 / count, ceres::TAKE_OWNERSHIP),
          recording_->EdgeBlocks(recording_->graph.edges[k]));
    }
  }

  Recording<Graph>* recording_;
  Noise* noise_;
  double prior_sigma_ = std::numeric_limits<double>::infinity();
};

// ------------------------------------------------------------------------------------------------

struct Result {
  std::string name;
  std::vector<double> x;
  double train = std::nan(""), test = std::nan("");
  std::vector<double> test_errors;
};

struct Cost {
  std::string name;
  bilevel::LowerSolverCounts counts;
  double seconds;
};

bilevel::Solver::Options SolverOptions() {
  bilevel::Solver::Options options;
  options.lower_solver_options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.lower_solver_options.max_num_iterations = 200;
  options.lower_solver_options.num_threads = FLAGS_num_threads;
  options.lower_solver_options.logging_type = ceres::SILENT;
  options.num_threads = FLAGS_num_threads;
  options.function_tolerance = 1e-4;
  bilevel::LevenbergMarquardt::Options method;
  method.initial_trust_region_radius = 1.0;  // Sigmas are often off by a factor of ten.
  options.method = std::make_shared<bilevel::LevenbergMarquardt>(method);
  options.minimizer_progress_to_stdout = FLAGS_progress;
  return options;
}

template <typename Graph>
class Job {
 public:
  Job(Recording<Graph> train, Recording<Graph> test, std::vector<double> true_x)
      : train_(std::move(train)), test_(std::move(test)), true_x_(std::move(true_x)) {}

  int Run();

 private:
  bool Draw(const std::vector<Result>& rows,
            const Result& learned,
            const bilevel::Solver::Summary& summary);
  bool has_truth() const { return !train_.truth.empty(); }
  bool has_test_graph() const { return !test_.graph.vertices.empty(); }

  // Scores of the solution at x, begun at the solution with the file's sigmas, and that at the
  // graph's own start; robust losses by graduation.
  double SolveCold(const std::vector<double>& x, examples::Phi* phi) {
    phi->Restart();
    if (noise_.loss == "none" && x != by_hand_) {
      std::isfinite((*phi)(by_hand_)) ? phi->Continue() : phi->Restart();
    }
    if (noise_.loss != "none") {
      for (const double scale : {100.0, 10.0, 1.0}) {
        if (scale <= 1.5 * std::exp(x.back())) break;
        std::vector<double> stage = x;
        stage.back() = std::log(scale);
        (*phi)(stage);
        phi->Continue();
      }
    }
    return (*phi)(x);
  }

  Result Evaluate(const std::string& name, const std::vector<double>& x) {
    Result result;
    result.name = name;
    result.x = x;
    result.train = SolveCold(x, phi_.get());
    if (has_test_graph()) {
      result.test = SolveCold(x, test_phi_.get());
      result.test_errors = test_.PositionErrors(0);
    } else {
      result.test_errors = has_truth() ? train_.PositionErrors(2) : train_.EdgeErrors(2);
      result.test = Rms(result.test_errors);
    }
    return result;
  }

  Recording<Graph> train_, test_;
  std::vector<double> true_x_, by_hand_;
  Noise noise_;
  std::unique_ptr<examples::Phi> phi_, test_phi_;
};

template <typename Graph>
int Job<Graph>::Run() {
  const double begin = Now();
  noise_.size = FLAGS_per_axis ? Graph::kDim : 2;
  noise_.loss = !FLAGS_loss.empty() ? FLAGS_loss : FLAGS_false_loops > 0.0 ? "cauchy" : "none";
  const std::set<std::string> losses = {"none", "cauchy", "geman_mcclure", "switchable"};
  if (losses.count(noise_.loss) == 0) {
    std::fprintf(stderr, "--loss must be none, cauchy, geman_mcclure or switchable.\n");
    return 1;
  }
  std::string error;
  for (Recording<Graph>* r : {&train_, &test_}) {
    examples::InjectFalseLoops(FLAGS_false_loops, FLAGS_seed, r);
    r->UseAll();
  }
  const bool share_truth = has_truth() && !has_test_graph();
  for (size_t i = 0; share_truth && i < train_.truth.size(); ++i) {
    train_.pose_set[i] = 10 * i / train_.truth.size() % 2 == 0 ? 0 : 2;
  }
  if (!has_truth() && !examples::HoldOutLoops(FLAGS_seed, &train_, &error)) {
    std::fprintf(stderr, "Loop closures cannot be held out: %s.\n", error.c_str());
    return 1;
  }
  const auto& edges = train_.graph.edges;
  const long num_odometry =
      std::count_if(edges.begin(), edges.end(), [](const auto& e) { return e.IsOdometry(); });
  const long num_loops = static_cast<long>(edges.size()) - num_odometry;
  if (num_odometry == 0 || num_loops == 0) {
    std::fprintf(stderr,
                 "The graph to learn on has %ld odometry edges and %ld loop closures: there must "
                 "be some of each.\n",
                 num_odometry,
                 num_loops);
    return 1;
  }
  std::printf("%zu poses, %ld odometry edges, %ld loop closures",
              train_.graph.vertices.size(),
              num_odometry,
              num_loops);
  if (FLAGS_false_loops > 0.0) {
    std::printf(" (%ld of them false)",
                std::count(train_.is_false.begin(), train_.is_false.end(), 1));
  }
  if (!has_truth()) {
    std::printf(", %ld held out to learn by and %ld to test",
                std::count(train_.set.begin(), train_.set.end(), 1),
                std::count(train_.set.begin(), train_.set.end(), 2));
  }
  std::printf(".\n");
  if (share_truth) {
    std::printf("Of the truth every second tenth of the way is to learn by, the others to test.\n");
  }
  if (!has_truth() && std::count(train_.set.begin(), train_.set.end(), 1) < 10 * 2 * noise_.size) {
    std::printf("WARNING: so few held-out loop closures say little about %d unknowns.\n",
                2 * noise_.size);
  }

  Levels<Graph> levels(&train_, &noise_);
  std::unique_ptr<Levels<Graph>> test_levels;
  bilevel::Solver::Options options = SolverOptions();
  if (!has_truth()) options.function_tolerance = 1e-3;  // Held-out errors tell no more.
  const auto make_phi = [&](Levels<Graph>* l) {
    return std::make_unique<examples::Phi>(
        options, noise_.Coordinates(), [l] { return l->Score(); }, &l->problem);
  };
  phi_ = make_phi(&levels);
  if (has_test_graph()) {
    test_levels = std::make_unique<Levels<Graph>>(&test_, &noise_);
    test_phi_ = make_phi(test_levels.get());
  }
  for (const auto* phi : {phi_.get(), test_phi_.get()}) {
    if (phi && !phi->error().empty()) {
      std::fprintf(stderr, "%s.\n", phi->error().c_str());
      return 1;
    }
  }

  // Learned, from each start; the truth is aligned with the first solution.
  by_hand_ = noise_.Get();
  std::vector<double> start = by_hand_;
  for (int k = 0; k < noise_.size; ++k) start[noise_.size + k] = std::log(FLAGS_start);
  std::vector<std::vector<double>> starts = {start};
  if (noise_.loss != "none") {
    for (const double scale : {1.0, 30.0}) {
      starts.push_back(start);
      starts.back().back() = std::log(scale);
      if (FLAGS_quick) break;
    }
  }
  std::vector<Cost> costs;
  examples::Table starts_table(
      {"start", "learned from there", "score", "iterations", "solves", ""});
  const auto describe = [&](const std::vector<double>& x) {
    std::string text;
    for (size_t i = 0; i < x.size(); ++i) text += Format("%s%.3g", i ? " " : "", std::exp(x[i]));
    return text;
  };
  Result learned;
  bilevel::Solver::Summary summary;
  std::vector<double> end_scores;
  Cost learning{"learned", {}, 0.0};
  bool have_upper = false;
  for (const auto& from : starts) {
    const double start_time = Now();
    const bilevel::LowerSolverCounts before = phi_->counts();
    if (!std::isfinite(SolveCold(from, phi_.get()))) {
      starts_table.Add({describe(from), "-", "-", "-", "-", "no lower solution"});
      continue;
    }
    if (!have_upper && has_truth()) levels.AddTruth();
    if (!have_upper && !has_truth()) levels.AddPrior(FLAGS_prior);
    have_upper = true;
    std::fill(std::begin(levels.alignment), std::end(levels.alignment), 0.0);
    bilevel::Solver::Summary trial;
    bilevel::Solve(options, &levels.problem, &trial);
    bilevel::LowerSolverCounts counts = trial.lower_solver;
    counts += phi_->counts() - before;
    learning.counts += counts;
    learning.seconds += Now() - start_time;
    const double score = levels.Score();
    const bool usable = trial.IsSolutionUsable();
    starts_table.Add({describe(from),
                      usable ? describe(noise_.Get()) : "-",
                      usable ? Format("%.4g", score) : "-",
                      std::to_string(trial.iterations.size()),
                      std::to_string(counts.cold_solves + counts.warm_solves),
                      trial.termination_type == ceres::CONVERGENCE ? "" : trial.message});
    if (!usable) continue;
    end_scores.push_back(score);
    if (learned.x.empty() || score < learned.train) {
      learned.x = noise_.Get();
      learned.train = score;
      summary = trial;
    }
  }
  const char* unit = has_truth() ? "m" : "sigmas in the file";
  std::printf("\nLearning: factors on the sigmas of odometry and loop closures%s, score [%s]\n\n%s",
              noise_.loss == "none" ? "" : ", scale of the loss",
              unit,
              starts_table.ToString().c_str());
  if (learned.x.empty()) {
    std::fprintf(stderr, "FAILURE: nothing was learned.\n");
    return 1;
  }
  costs.push_back(learning);
  if (*std::max_element(end_scores.begin(), end_scores.end()) > 1.01 * learned.train) {
    std::printf("\nThe starts lead to different minima; the best is taken.\n");
  }
  std::printf("\n%s\n", summary.BriefReport().c_str());
  for (const std::string& flat : summary.flat_upper_directions) {
    std::printf("Flat, and left alone: %s.\n", flat.c_str());
  }
  for (const std::string& bound : summary.active_upper_bounds) {
    std::printf("Ended on its bound: %s.\n", bound.c_str());
  }
  double warm_train = learned.train;

  // The same at the same starts, without derivatives; the first sigma stays as it is.
  std::vector<Result> others = {Evaluate("as in the file", by_hand_)};
  std::string jump;
  double from_elsewhere = std::nan("");
  if (FLAGS_baselines) {
    const auto search = [&](const char* name, auto run) {
      const double start_time = Now();
      const bilevel::LowerSolverCounts counts = phi_->counts();
      SolveCold(start, phi_.get());
      const examples::SearchResult result = run([&](const std::vector<double>& rest) {
        std::vector<double> x = start;
        std::copy(rest.begin(), rest.end(), x.begin() + 1);
        return (*phi_)(x);
      });
      costs.push_back({name, phi_->counts() - counts, Now() - start_time});
      std::vector<double> x = start;
      std::copy(result.x.begin(), result.x.end(), x.begin() + 1);
      others.push_back(Evaluate(name, x));
    };
    search("best of the grid", [&](const examples::Score& score) {
      std::vector<std::vector<double>> axes;
      for (size_t i = 1; i < start.size(); ++i) {
        axes.emplace_back();
        // Five points an axis; a learned scale of the loss, and more axes, more coarsely.
        const int step = FLAGS_quick || axes.size() > 3 ? 2 : 1;
        for (int k = -2; k <= 2; k += step) axes.back().push_back(start[i] + k * std::log(3.0));
        if (FLAGS_per_axis && axes.size() > 3) axes.back() = {start[i]};
      }
      return examples::GridSearch(score, axes);
    });
    search("Nelder-Mead", [&](const examples::Score& score) {
      return examples::NelderMead(
          score, {start.begin() + 1, start.end()}, std::log(3.0), 1e-4, FLAGS_quick ? 80 : 200);
    });
  }
  if (!true_x_.empty() && noise_.size == 2) {
    std::vector<double> x = true_x_;
    if (noise_.loss != "none") x.push_back(learned.x.back());
    others.push_back(Evaluate("true sigmas", x));
  }
  // Only what a solve from the graph's own start reproduces can be used: else go back on the way
  // that x took, in up to eight strides.
  const int last = static_cast<int>(summary.iterations.size()) - 1;
  const std::vector<double> end = learned.x;
  learned = Evaluate("learned", end);
  for (int k = 1; k <= 8 && !(learned.train <= 1.01 * warm_train); ++k) {
    if (k == 1) {
      std::printf(
          "\nA cold solve at the learned values scores %.4g instead of %.4g: the estimate has more "
          "than one solution there. Taken instead: an earlier iterate.\n",
          learned.train,
          warm_train);
    }
    const auto& it = summary.iterations[last - k * last / 8];
    if (!it.step_is_successful) continue;
    std::copy_n(it.x.begin(), end.size(), learned.x.begin());
    warm_train = std::sqrt(2.0 * it.objective);
    learned = Evaluate("learned", learned.x);
  }
  if (noise_.loss != "none") {
    // Robust losses have many solutions: from another start the same x may score otherwise, and phi
    // jumps where a solution ends.
    SolveCold(by_hand_, phi_.get());
    jump = phi_->FindJump(by_hand_, learned.x, 6);
    from_elsewhere = (*phi_)(learned.x);
    std::printf("\nOn the straight way from the file's sigmas to the learned ones: %s.\n",
                jump.empty() ? "no jump of the score" : jump.c_str());
    if (std::abs(from_elsewhere - learned.train) > 0.01 * learned.train) {
      std::printf(
          "Begun at the solution with the file's sigmas, the estimate with the learned ones scores "
          "%.4g: another solution. Begin with a large scale of the loss, as here.\n",
          from_elsewhere);
    }
  }
  others.push_back(learned);

  std::printf("\nRoot mean square %s [%s]\n\n",
              has_truth()         ? "position error"
              : FLAGS_prior > 1.0 ? "error of held-out loop closures, train: with the prior"
                                  : "error of held-out loop closures",
              unit);
  examples::Table table({"", "factors on sigmas", "train", "test", "test, to the file's"});
  for (const Result& r : others) {
    const bool have_test = std::isfinite(r.test);
    table.Add({r.name,
               describe(r.x),
               Format("%.4g", r.train),
               have_test ? Format("%.4g", r.test) : "-",
               have_test ? Format("%+.1f %%", 100.0 * (r.test / others[0].test - 1.0)) : "-"});
  }
  std::printf("%s", table.ToString().c_str());
  examples::Interval interval{0.0, 0.0};
  constexpr size_t kFewest = 20;
  if (!learned.test_errors.empty() && learned.test_errors.size() < kFewest) {
    std::printf("\nThe test part has %zu errors: too few to tell whether one is better.\n",
                learned.test_errors.size());
  } else if (!learned.test_errors.empty()) {
    const int block = std::max<int>(1, static_cast<int>(learned.test_errors.size()) / 30);
    interval = examples::BootstrapDifference(learned.test_errors, others[0].test_errors, block);
    std::printf(
        "\nOn the test part, learned less as in the file: %+.4g, 95 %% interval %+.4g to %+.4g "
        "(bootstrap over blocks): %s.\n",
        learned.test - others[0].test,
        interval.low,
        interval.high,
        interval.high < 0.0  ? "better"
        : interval.low > 0.0 ? "worse"
                             : "no difference that these data show");
  }

  for (const Result& r : others) {
    if (!(r.test < 0.99 * learned.test && r.train > 1.01 * learned.train)) continue;
    std::printf(
        "\n\"%s\" scores worse on the training part and better on the test: what was learned "
        "overfits.\n",
        r.name.c_str());
    break;
  }

  std::printf("\nCost\n\n");
  examples::Table cost_table(
      {"", "cold solves", "warm solves", "failed", "factorisations", "seconds"});
  for (const Cost& c : costs) {
    cost_table.Add({c.name,
                    std::to_string(c.counts.cold_solves),
                    std::to_string(c.counts.warm_solves),
                    std::to_string(c.counts.failed_solves),
                    std::to_string(c.counts.factorizations),
                    Format("%.1f", c.seconds)});
  }
  std::printf("%s", cost_table.ToString().c_str());
  const long solves = learning.counts.cold_solves + learning.counts.warm_solves;
  const double full = std::pow(5.0, static_cast<double>(learned.x.size()) - 1.0);
  std::printf(
      "\nA grid of 5 points an axis, one sigma held, has %.0f: %.1f times as many lower solves as "
      "learning took.\n",
      full,
      full / static_cast<double>(solves));

  // Whatever the score, absolute sigmas follow from the size of the residuals at the solution.
  SolveCold(learned.x, phi_.get());
  double common = 1.0;
  if (noise_.loss == "none") {
    double chi2 = 0.0;
    double freedom = -Graph::kDim * (static_cast<double>(train_.graph.vertices.size()) - 1.0);
    std::vector<ceres::ResidualBlockId> ids;
    levels.problem.lower()->GetResidualBlocks(&ids);
    freedom += Graph::kDim * static_cast<double>(ids.size());
    ceres::Problem::EvaluateOptions evaluate;
    evaluate.residual_blocks = ids;
    levels.problem.lower()->Evaluate(evaluate, &chi2, nullptr, nullptr, nullptr);
    chi2 *= 2.0;
    if (freedom > 0.0) common = std::sqrt(chi2 / freedom);
    std::printf(
        "\nAbsolute level: with these ratios the residuals ask for %.4g times larger sigmas "
        "(chi2 / degrees of freedom = %.4g). It is in the lines and in the file below.\n",
        common,
        common * common);
    for (int k = 0; k < noise_.size; ++k) {
      noise_.odometry[k] += std::log(common);
      noise_.loops[k] += std::log(common);
    }
  }
  std::string paste = levels.odometry->Describe("odometry") + levels.loops->Describe("loop") +
                      (levels.loss ? levels.loss->Describe() + "\n" : "");
  examples::Json switched;
  if (noise_.loss == "switchable") {
    paste += Format("const double sqrt_switch_prior = %.4g;  // Times (1 - s).\n",
                    std::exp(noise_.log_scale));
    const auto count = levels.CountSwitches();
    std::printf("\nSwitched off: %d of %d false loop closures, %d of %d true ones.\n",
                count.off[1],
                count.all[1],
                count.off[0],
                count.all[0]);
    switched.Add("false", count.off[1] / std::max(1.0, 1.0 * count.all[1]))
        .Add("true", count.off[0] / std::max(1.0, 1.0 * count.all[0]));
  }
  std::printf(
      "\nTo paste into a Ceres program (factors on the sigmas of the file's information):\n\n%s",
      paste.c_str());
  if (!FLAGS_write_g2o.empty()) {
    Graph graph = train_.graph;
    for (auto& edge : graph.edges) {
      const double* log_sigmas = edge.IsOdometry() ? noise_.odometry : noise_.loops;
      typename Graph::Information w = examples::SquareRoot(edge.information);
      for (int k = 0; k < Graph::kDim; ++k) {
        const int entry = noise_.size > 2 ? k : k < (Graph::kDim == 3 ? 2 : 3) ? 0 : 1;
        w.row(k) *= std::exp(-log_sigmas[entry]);
      }
      edge.information = w.transpose() * w;
    }
    if (!examples::WriteG2o(graph, FLAGS_write_g2o, &error)) {
      std::fprintf(stderr, "%s.\n", error.c_str());
      return 1;
    }
  }
  std::printf("\n%.0f s in all.\n", Now() - begin);

  examples::Json json;
  const auto row = [](const Result& r) {
    return examples::Json().Add("x", r.x).Add("train", r.train).Add("test", r.test);
  };
  for (const Result& r : others) {
    std::string key = r.name;
    std::replace(key.begin(), key.end(), ' ', '_');
    json.Add(key, row(r));
  }
  for (const Cost& c : costs) {
    std::string key = "cost of " + c.name;
    std::replace(key.begin(), key.end(), ' ', '_');
    json.Add(key,
             examples::Json()
                 .Add("cold_solves", static_cast<double>(c.counts.cold_solves))
                 .Add("warm_solves", static_cast<double>(c.counts.warm_solves))
                 .Add("factorizations", static_cast<double>(c.counts.factorizations))
                 .Add("seconds", c.seconds));
  }
  json.Add("test_interval", std::vector<double>{interval.low, interval.high})
      .Add("common_factor", common)
      .Add("flat_directions", static_cast<double>(summary.flat_upper_directions.size()))
      .Add("jump", jump)
      .Add("scores_of_starts", end_scores)
      .Add("score_from_elsewhere", from_elsewhere)
      .Add("paste", paste)
      .Add("switched_off", switched)
      .AddRaw("summary", summary.Json());
  bool ok = examples::WriteFile(FLAGS_summary_json, json.ToString());
  ok = examples::WriteFile(FLAGS_trace_csv, summary.Csv()) && ok;
  if (!FLAGS_plot.empty()) ok = Draw(others, learned, summary) && ok;
  return ok ? 0 : 1;
}

template <typename Graph>
bool Job<Graph>::Draw(const std::vector<Result>& rows,
                      const Result& learned,
                      const bilevel::Solver::Summary& summary) {
  std::vector<examples::Panel> panels;
  const auto map = [&](const std::string& title, Recording<Graph>* r, examples::Phi* phi) {
    Positions paths[2];
    const Positions reference = examples::ToPositions(r->truth);
    for (int k = 0; k < 2; ++k) {
      SolveCold(k == 0 ? rows[0].x : learned.x, phi);
      paths[k] = examples::Estimate(r->graph);
      if (reference.empty()) continue;
      const examples::Motion motion = r->Alignment();
      for (auto& p : paths[k]) p = motion.r * p + motion.t;
    }
    // The two axes along which it goes farthest.
    Eigen::Vector3d low = paths[1][0], high = low;
    for (const auto& p : reference.empty() ? paths[1] : reference) {
      low = low.cwiseMin(p);
      high = high.cwiseMax(p);
    }
    int least;
    (high - low).minCoeff(&least);
    const int a = least == 0 ? 1 : 0, b = least == 2 ? 1 : 2;
    const char* names[] = {"x [m]", "y [m]", "z [m]"};
    examples::Panel panel{title, names[a], names[b]};
    panel.equal_axes = true;
    const auto add = [&](const char* name, const Positions& path) {
      examples::Series series{name, "lines", {}, {}};
      for (const auto& p : path) {
        series.x.push_back(p[a]);
        series.y.push_back(p[b]);
      }
      panel.series.push_back(series);
    };
    if (!reference.empty()) add("ground truth", reference);
    add("as in the file", paths[0]);
    add("learned", paths[1]);
    panels.push_back(panel);
  };
  map("Training graph", &train_, phi_.get());
  if (has_test_graph()) map("Test graph", &test_, test_phi_.get());

  examples::Panel convergence{
      "Convergence", "iteration", has_truth() ? "rms error [m]" : "rms error"};
  examples::Series score{"score (left)", "linespoints", {}, {}};
  std::vector<examples::Series> factors;
  const char* names[] = {"odometry, translation",
                         "odometry, rotation",
                         "loops, translation",
                         "loops, rotation",
                         "scale of the loss"};
  for (size_t i = 0; i < learned.x.size(); ++i) {
    factors.push_back(
        {noise_.size == 2 ? names[i] : "sigma " + std::to_string(i), "lines", {}, {}, true});
  }
  for (const auto& it : summary.iterations) {
    if (!it.step_is_successful) continue;
    score.x.push_back(it.iteration);
    score.y.push_back(std::sqrt(2.0 * it.objective));
    for (size_t i = 0; i < factors.size(); ++i) {
      factors[i].x.push_back(it.iteration);
      factors[i].y.push_back(it.x[i] / std::log(10.0));
    }
  }
  convergence.series = {score};
  convergence.series.insert(convergence.series.end(), factors.begin(), factors.end());
  convergence.right_label = "log10 of factors";
  panels.push_back(convergence);

  if (!learned.test_errors.empty()) {
    examples::Panel errors{"Errors of the test part",
                           has_truth() ? "pose" : "loop closure held out",
                           has_truth() ? "error [m]" : "error [sigmas in the file]"};
    for (const Result* r : {&rows[0], &learned}) {
      examples::Series series{r->name, has_truth() ? "lines" : "points", {}, {}};
      for (size_t i = 0; i < r->test_errors.size(); ++i) {
        series.x.push_back(static_cast<double>(i));
        series.y.push_back(r->test_errors[i]);
      }
      errors.series.push_back(series);
    }
    panels.push_back(errors);
  }
  return examples::Plot(FLAGS_plot, "Learning the noise of a pose graph", panels);
}

bool Fail(const std::string& error) {
  std::fprintf(stderr, "%s.\n", error.c_str());
  return false;
}

template <typename Graph>
bool Fill(const examples::AnyPoseGraph& any,
          const std::string& truth,
          Recording<Graph>* recording) {
  if (!std::holds_alternative<Graph>(any)) {
    return Fail("Of the two graphs one is in the plane and the other in space");
  }
  recording->graph = std::get<Graph>(any);
  std::string error;
  return truth.empty() || examples::ReadTruth(truth, recording->graph, &recording->truth, &error) ||
         Fail(error);
}

template <typename Graph>
int RunFiles(const examples::AnyPoseGraph& any) {
  Recording<Graph> train, test;
  if (!Fill(any, FLAGS_truth, &train)) return 1;
  if (FLAGS_split < 1.0 && !train.truth.empty()) {
    const int size = static_cast<int>(train.graph.vertices.size());
    const int middle = static_cast<int>(FLAGS_split * size);
    test = examples::Cut(train, middle, size);
    train = examples::Cut(train, 0, middle);
  }
  if (!FLAGS_test_graph.empty()) {
    examples::AnyPoseGraph test_graph;
    std::string error;
    if (!examples::ReadPoseGraph(FLAGS_test_graph, &test_graph, &error)) {
      return !Fail(error);
    }
    if (!Fill(test_graph, FLAGS_test_truth, &test)) return 1;
    if (train.truth.empty() || test.truth.empty()) {
      std::fprintf(stderr, "A graph to test on needs a truth, and so does the one to learn on.\n");
      return 1;
    }
  }
  return Job<Graph>(std::move(train), std::move(test), {}).Run();
}

int Run() {
  if (FLAGS_graph.empty()) {
    const examples::TrueSigmas sigmas;
    std::vector<double> true_x;
    for (const double* s : {sigmas.odometry, sigmas.loops}) {
      for (const int k : {0, 2}) true_x.push_back(std::log(s[k] / sigmas.guess));
    }
    const int size = FLAGS_quick ? 700 : 2000;
    return Job<PoseGraph2>(examples::SimulateGraph(size, 2 * FLAGS_seed + 1),
                           examples::SimulateGraph(size, 2 * FLAGS_seed + 2),
                           true_x)
        .Run();
  }
  examples::AnyPoseGraph graph;
  std::string error;
  if (!examples::ReadPoseGraph(FLAGS_graph, &graph, &error)) {
    std::fprintf(stderr, "%s.\n", error.c_str());
    return 1;
  }
  return std::holds_alternative<PoseGraph2>(graph) ? RunFiles<PoseGraph2>(graph)
                                                   : RunFiles<PoseGraph3>(graph);
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // To be watched, into a file too.
  examples::ParseFlags(
      "Learns the noise of a pose graph's odometry and loop closures so that its positions come\n"
      "closest to the truth, or so that it foretells loop closures held out; with --false_loops "
      "or\n"
      "--loss also the scale of a robust loss. Beside it a grid and Nelder and Mead's simplex.\n\n"
      "Usage: tune_pose_graph [flags] [graph]\n\n"
      "  tune_pose_graph --false_loops=0.2 --plot=tuned.png\n"
      "  tune_pose_graph --graph=kitti_00.g2o --truth=poses/00.txt --test_graph=kitti_02.g2o \\\n"
      "      --test_truth=poses/02.txt --write_g2o=tuned.g2o\n"
      "  tune_pose_graph intel.g2o",
      &argc,
      &argv);
  if (argc > 1) FLAGS_graph = argv[1];
  if (FLAGS_num_threads < 1 || !(FLAGS_start > 0.0) || !(FLAGS_false_loops >= 0.0) ||
      !(FLAGS_split > 0.0) || FLAGS_split > 1.0 || (FLAGS_prior != 0.0 && !(FLAGS_prior > 1.0))) {
    std::fprintf(stderr,
                 "--num_threads and --start must be positive, --false_loops not negative, --split "
                 "between 0 and 1, --prior 0 or above 1.\n");
    return 1;
  }
  return Run();
}
