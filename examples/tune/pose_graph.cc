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
//
// By default by the rule that does not lose on more of the same (LearnSafely), from the noise that
// the edges have at the truth; --nosafe minimises f alone.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"
#include "ceres/ceres.h"
#include "examples/support/baselines.h"
#include "examples/support/plot.h"
#include "examples/support/slam/alignment.h"
#include "examples/support/slam/comparison.h"
#include "examples/support/slam/g2o.h"
#include "examples/support/slam/grow_pose_graph.h"
#include "examples/support/slam/pose_graph_levels.h"
#include "examples/support/slam/recording.h"
#include "examples/support/slam/trajectory.h"
#include "examples/support/slam/truth.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"
#include "examples/tune/command.h"
#include "examples/tune/report.h"

DEFINE_string(
    truth,
    "",
    "its ground truth: KITTI, TUM, \"x y heading\", or the vertices of a g2o file; without "
    "one, loop closures are held out to learn by");
DEFINE_string(test_truth, "", "its ground truth");
DEFINE_double(split, 1.0, "share of the vertices to learn on; the others are the graph to test on");
DEFINE_string(
    loss,
    "",
    "of loop closures: none, cauchy, geman_mcclure, or switchable (a weight to be "
    "estimated for each, with a prior; the same estimate as geman_mcclure); by default cauchy "
    "where there are false ones, else none");
DEFINE_double(false_loops,
              0.0,
              "false loop closures to put in, as a share of the true ones, to see what they do");
DEFINE_bool(per_axis, false, "a sigma for each axis instead of one each for moving and turning");
DEFINE_string(along,
              "",
              "--simulate: odometry and loop closures along this trajectory, its truth; KITTI, TUM "
              "or \"x y heading\"");
DEFINE_string(test_along, "", "--simulate: along another, to test on");
DEFINE_double(prior_factor,
              10.0,
              "without a truth: the factor on a sigma that costs as much as one average error of a "
              "held-out loop closure at the start; 0: no prior");
DEFINE_double(start_factor, 1.0, "--nosafe: factor on the sigmas of loop closures to start from");
DEFINE_int32(search_points, 100, "--baselines: points that the grid and the simplex may each try");
DEFINE_double(search_seconds, 60.0, "--baselines: seconds that they may each take");

namespace {

using examples::Cost;
using examples::Factors;
using examples::Fail;
using examples::Format;
using examples::Now;
using examples::PoseGraph2;
using examples::PoseGraph3;
using examples::PoseGraphNoise;
using examples::Positions;
using examples::Recording;
using examples::Result;
using examples::Rms;
using examples::Say;
using Vector = std::vector<double>;  // x but for the alignment.

bilevel::Solver::Options SolverOptions(bool has_truth, int num_threads) {
  bilevel::Solver::Options options;
  options.lower_solver_options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.lower_solver_options.max_num_iterations = 200;
  options.lower_solver_options.num_threads = num_threads;
  options.lower_solver_options.logging_type = ceres::SILENT;
  options.num_threads = num_threads;
  options.function_tolerance = has_truth ? 1e-4 : 1e-3;  // Held-out errors tell no more.
  return options;
}

template <typename Graph>
class Job {
 public:
  Job(Recording<Graph> train, Recording<Graph> test, Vector true_x)
      : train_data_(std::move(train)), test_data_(std::move(test)), true_x_(std::move(true_x)) {}

  int Run();

 private:
  bool has_truth() const { return !train_data_.truth.empty(); }
  bool has_test_graph() const { return !test_data_.graph.vertices.empty(); }
  const char* unit() const { return has_truth() ? "m" : "sigmas in the file"; }

  bool Prepare();
  bool Start();
  bool SolveToLearn(const Vector& x);
  bool LearnFrom(const Vector& start);
  Vector CoarseScan(const Vector& start);
  bool LearnSafely();
  bool Learn();
  void Search();
  void LookForJumps();
  Result Evaluate(const std::string& name, const Vector& x);
  void Report();
  bool Paste();
  bool WriteGraph() const;
  std::vector<examples::Learned> Values() const;
  bool WriteSummary() const;
  bool Draw();
  examples::Panel DrawConvergence();

  Recording<Graph> train_data_, test_data_;  // As read.
  Vector true_x_, by_hand_, start_;
  bilevel::ResidualStatistics measured_;
  bilevel::SafeLearning safe_;
  std::unique_ptr<examples::PoseGraphEstimator<Graph>> train_, test_;
  std::shared_ptr<bilevel::LevenbergMarquardt> method_;

  long num_loops_ = 0;
  bool have_upper_ = false;
  Result learned_;
  bilevel::Solver::Summary summary_;  // Of the run that ended there.
  Cost learning_{"learned"};
  Vector end_scores_;
  examples::Table starts_{{"start", "learned from there", "score", "iterations", "solves", ""}};

  examples::Comparison comparison_;
  std::string search_note_, jump_, paste_;
  double from_elsewhere_ = std::nan(""), common_ = 1.0;
  bilevel::Verdict verdict_;
  examples::Json switched_;
};

template <typename Graph>
int Job<Graph>::Run() {
  const double begin = Now();
  if (!Prepare() || !(FLAGS_safe ? LearnSafely() : Learn())) return 1;
  comparison_.results.push_back(Evaluate("as in the file", by_hand_));
  if (FLAGS_baselines && !FLAGS_safe) Search();
  if (measured_.ok) {
    comparison_.results.push_back(Evaluate("residuals at the truth", measured_.x));
  }
  if (!true_x_.empty() && train_->noise.size == 2) {
    Vector x = true_x_;
    if (x.size() < by_hand_.size()) x.push_back(learned_.x.back());
    comparison_.results.push_back(Evaluate("true sigmas", x));
  }
  if (train_->noise.loss != "none" && !FLAGS_safe) LookForJumps();
  learned_ = Evaluate("learned", learned_.x);
  comparison_.results.push_back(learned_);
  comparison_.costs.insert(comparison_.costs.begin(), learning_);
  verdict_ = comparison_.Judge(summary_);
  if (FLAGS_safe && learned_.x == by_hand_) verdict_.kind = safe_.kind;
  Report();
  if (!Paste()) return 1;
  Say("\n%.0f s in all.\n", Now() - begin);
  bool ok = WriteSummary();
  ok = examples::WriteTrace(summary_) && ok;
  if (!FLAGS_plot.empty()) ok = Draw() && ok;
  return examples::ExitCode(ok, verdict_);
}

// Which part of the data is for what.
template <typename Graph>
bool Job<Graph>::Prepare() {
  PoseGraphNoise noise;
  noise.size = FLAGS_per_axis ? Graph::kDim : 2;
  noise.loss = !FLAGS_loss.empty() ? FLAGS_loss : FLAGS_false_loops > 0.0 ? "cauchy" : "none";
  const std::set<std::string> losses = {"none", "cauchy", "geman_mcclure", "switchable"};
  if (losses.count(noise.loss) == 0) {
    return Fail("--loss must be none, cauchy, geman_mcclure or switchable");
  }
  for (Recording<Graph>* r : {&train_data_, &test_data_}) {
    examples::InjectFalseLoops(FLAGS_false_loops, FLAGS_seed, r);
    r->UseAll();
  }
  Recording<Graph>& train = train_data_;
  const bool share_truth = has_truth() && !has_test_graph();
  for (size_t i = 0; share_truth && i < train.truth.size(); ++i) {
    train.pose_set[i] = 10 * i / train.truth.size() % 2 == 0 ? 0 : 2;
  }
  const auto& edges = train.graph.edges;
  const long num_odometry =
      std::count_if(edges.begin(), edges.end(), [](const auto& e) { return e.IsOdometry(); });
  num_loops_ = static_cast<long>(edges.size()) - num_odometry;
  if (num_odometry == 0 || num_loops_ == 0) {
    return Fail(
        Format("The graph to learn on has %ld odometry edges and %ld loop closures: there "
               "must be some of each",
               num_odometry,
               num_loops_));
  }
  std::string error;
  if (!has_truth() && !examples::HoldOutLoops(FLAGS_seed, &train, &error)) {
    return Fail("Loop closures cannot be held out: " + error);
  }
  Say("%zu poses, %ld odometry edges, %ld loop closures",
      train.graph.vertices.size(),
      num_odometry,
      num_loops_);
  if (FLAGS_false_loops > 0.0) {
    Say(" (%ld of them false)", std::count(train.is_false.begin(), train.is_false.end(), 1));
  }
  const long num_held_out = std::count(train.set.begin(), train.set.end(), 1);
  if (!has_truth()) {
    Say(", %ld held out to learn by and %ld to test",
        num_held_out,
        std::count(train.set.begin(), train.set.end(), 2));
  }
  Say(".\n");
  if (share_truth) {
    Say("Of the truth every second tenth of the way is to learn by, the others to test.\n");
  }
  if (!has_truth() && num_held_out < 10 * 2 * noise.size) {
    Say("WARNING: so few held-out loop closures say little about %d unknowns.\n", 2 * noise.size);
  }

  const bilevel::Solver::Options options = SolverOptions(has_truth(), FLAGS_num_threads);
  by_hand_ = start_ = noise.Get();
  for (int k = 0; k < noise.size; ++k) start_[noise.size + k] = std::log(FLAGS_start_factor);
  train_ = std::make_unique<examples::PoseGraphEstimator<Graph>>(train, noise, options);
  if (has_test_graph())
    test_ = std::make_unique<examples::PoseGraphEstimator<Graph>>(test_data_, noise, options);
  for (const auto* e : {train_.get(), test_.get()}) {
    if (e && !e->phi.error().empty()) return Fail(e->phi.error());
  }
  if (has_truth()) measured_ = MeasureAtTruth(train, noise);
  return true;
}

// By the rule that does not lose, beginning at the estimate with the file's sigmas.
template <typename Graph>
bool Job<Graph>::LearnSafely() {
  if (!SolveToLearn(by_hand_)) return Fail("there is no estimate with the file's sigmas");
  const double begin = Now();
  auto& levels = train_->levels;
  bilevel::SafeLearningOptions options;
  options.solver = SolverOptions(has_truth(), FLAGS_num_threads);
  options.solver.callbacks = {examples::ShowIterations()};
  if (has_truth()) {
    levels.AddTruth();
    options.fitted_blocks = {levels.alignment};
  }
  if (train_->noise.loss != "none") options.start_y = [this] { train_->Grow(); };
  if (measured_.ok) {
    options.centre = measured_.x;
    options.centre.resize(measured_.x.size() + Graph::kDim, 0.0);
    options.prior_sigma = 0.35;
  }
  safe_ = bilevel::LearnSafely(options, &levels.problem);
  learning_.counts += safe_.counts;
  learning_.seconds += Now() - begin;
  if (has_truth()) Say("\nResiduals at the truth: %s\n", measured_.message.c_str());
  if (!safe_.ok) return Fail("" + safe_.message);
  Say("\nThe rule that does not lose: %s\n", safe_.message.c_str());
  learned_ = {"learned", train_->noise.Get()};
  summary_ = safe_.summary;
  return true;
}

// By the score alone, and what that falls back on where phi jumps.
template <typename Graph>
bool Job<Graph>::Learn() {
  bilevel::LevenbergMarquardt::Options options;
  options.initial_trust_region_radius = 1.0;  // Sigmas are often off by a factor of ten.
  method_ = std::make_shared<bilevel::LevenbergMarquardt>(options);
  std::string trouble;
  if (!Start()) {
    trouble = "There is no lower solution at the start";
  } else if (!LearnFrom(start_)) {
    trouble = learned_.x.empty() ? "Nothing was learned from there"
                                 : "A cold solve does not find the estimate that learning ended at";
  } else if (method_->is_stuck()) {
    trouble = "Learning ended at a kink or a jump of the score";
  }
  if (!trouble.empty()) {
    const Vector better = CoarseScan(start_);
    if (better != start_ && SolveToLearn(better)) LearnFrom(better);
  }
  Say("\nLearning: factors on the sigmas of odometry and loop closures%s, score [%s]\n\n%s",
      train_->noise.loss == "none" ? "" : ", scale of the loss",
      unit(),
      starts_.ToString().c_str());
  if (!trouble.empty()) {
    Say("\n%s, where no gradient helps: tried too was the best of factors 9 on rotations and on "
        "loop closures, and taken is the best that a cold solve reproduces.\n",
        trouble.c_str());
  }
  if (learned_.x.empty()) return Fail("nothing was learned");
  Say("\n%s\n", summary_.BriefReport().c_str());
  for (const std::string& flat : summary_.flat_upper_directions) {
    Say("Flat, and left alone: %s.\n", flat.c_str());
  }
  for (const std::string& bound : summary_.active_upper_bounds) {
    Say("Ended on its bound: %s.\n", bound.c_str());
  }
  return true;
}

// The start of x, with its solution in memory: with a robust loss, the widest at which no narrower
// one scores much better. The false loop closures have let go there, and phi is smoothest.
template <typename Graph>
bool Job<Graph>::Start() {
  if (train_->noise.loss == "none") return SolveToLearn(start_);
  const double begin = Now();
  const bilevel::LowerSolverCounts before = train_->phi.counts();
  Vector x = start_;
  double best_score = std::numeric_limits<double>::infinity();
  examples::Table table({"scale of the loss", "score"});
  for (double scale = 30.0; scale > 0.1; scale /= 3.0) {
    x.back() = std::log(scale);
    const double score = train_->SolveCold(x);
    table.Add({Format("%.3g", scale), Format("%.4g", score)});
    if (score >= best_score / 1.5) continue;
    best_score = score;
    start_ = x;
  }
  Say("\nThe graph as it grew, with a wide loss and with narrower ones, score [%s]\n\n%s",
      unit(),
      table.ToString().c_str());
  learning_.counts += train_->phi.counts() - before;
  learning_.seconds += Now() - begin;
  return std::isfinite(best_score) && SolveToLearn(start_);
}

template <typename Graph>
bool Job<Graph>::SolveToLearn(const Vector& x) {
  const double begin = Now();
  const bilevel::LowerSolverCounts before = train_->phi.counts();
  const double score = train_->SolveCold(x);
  learning_.counts += train_->phi.counts() - before;
  learning_.seconds += Now() - begin;
  return std::isfinite(score);
}

// Learns from there, where memory holds the solution. False: nothing, or a cold solve at the end
// finds another estimate; then the last iterate is taken at which it finds the same.
template <typename Graph>
bool Job<Graph>::LearnFrom(const Vector& start) {
  auto& levels = train_->levels;
  const double begin = Now();
  bilevel::LowerSolverCounts counts;
  const auto finish =
      [&](const std::string& end, double score, size_t iterations, const std::string& note) {
        learning_.counts += counts;
        learning_.seconds += Now() - begin;
        starts_.Add({Factors(start),
                     end,
                     std::isfinite(score) ? Format("%.4g", score) : "-",
                     std::to_string(iterations),
                     std::to_string(counts.cold_solves + counts.warm_solves),
                     note});
      };
  if (!have_upper_) has_truth() ? levels.AddTruth() : levels.AddPrior(FLAGS_prior_factor);
  have_upper_ = true;
  std::fill(std::begin(levels.alignment), std::end(levels.alignment), 0.0);
  bilevel::Solver::Options options = SolverOptions(has_truth(), FLAGS_num_threads);
  options.method = method_;
  options.callbacks = {examples::ShowIterations()};
  bilevel::Solver::Summary summary;
  examples::Solve(options, &levels.problem, &summary);
  counts = summary.lower_solver;
  if (!summary.IsSolutionUsable()) {
    finish("-", std::nan(""), summary.iterations.size(), summary.message);
    return false;
  }
  const double score = levels.Score();
  const Vector end = train_->noise.Get();
  end_scores_.push_back(score);

  Result result{"learned", end};
  result.train = train_->SolveCold(end);
  const bool reproduced = result.train <= 1.01 * score;
  if (!reproduced) {
    // By bisection; the start is one.
    const bilevel::LowerSolverCounts before = train_->phi.counts();
    int good = 0, bad = static_cast<int>(summary.iterations.size()) - 1;
    result.x = start;
    result.train = std::sqrt(2.0 * summary.initial_objective);
    while (bad - good > 1) {
      const int middle = (good + bad) / 2;
      const auto& it = summary.iterations[middle];
      const Vector x(it.x.begin(), it.x.begin() + static_cast<long>(end.size()));
      const double cold = train_->SolveCold(x);
      const bool same = cold <= 1.01 * std::sqrt(2.0 * it.objective);
      (same ? good : bad) = middle;
      if (!same || cold >= result.train) continue;
      result.x = x;
      result.train = cold;
    }
    counts += train_->phi.counts() - before;
  }
  finish(Factors(end),
         score,
         summary.iterations.size(),
         reproduced ? "" : Format("cold: another estimate; taken: %.4g", result.train));
  if (learned_.x.empty() || result.train < learned_.train) {
    learned_ = result;
    summary_ = summary;
  }
  return reproduced;
}

// The best of nine: the rotations' sigmas and the loop closures' as they are, nine times larger,
// nine times smaller.
template <typename Graph>
Vector Job<Graph>::CoarseScan(const Vector& start) {
  const double begin = Now();
  const bilevel::LowerSolverCounts before = train_->phi.counts();
  const int size = train_->noise.size;
  Vector best = start;
  double best_score = train_->SolveCold(start);
  for (int point = 0; point < 9; ++point) {
    if (point == 4) continue;
    Vector x = start;
    for (int k = 0; k < 2 * size; ++k) {
      const bool rotates = size == 2 ? k % 2 == 1 : k % size >= (Graph::kDim == 3 ? 2 : 3);
      if (rotates) x[k] += (point % 3 - 1) * std::log(9.0);
      if (k >= size) x[k] += (point / 3 - 1) * std::log(9.0);
    }
    const double score = train_->phi(x);
    if (score >= best_score) continue;
    best_score = score;
    best = x;
  }
  learning_.counts += train_->phi.counts() - before;
  learning_.seconds += Now() - begin;
  return best;
}

// The same without derivatives: a grid and a simplex, the first sigma as it is; side by side where
// there are two threads. Each has an estimator of its own, so that neither disturbs the other.
template <typename Graph>
void Job<Graph>::Search() {
  struct Trial {
    const char* name;
    std::function<examples::SearchResult(const examples::Score&)> run;
    examples::SearchResult result = {};
    Cost cost = {};
    bool stopped = false;
  };
  const int most = FLAGS_quick ? std::min(40, FLAGS_search_points) : FLAGS_search_points;
  const Vector rest(start_.begin() + 1, start_.end());
  const auto grid = [&](const examples::Score& score) {
    // As many axes as the points allow, of three points each.
    std::vector<Vector> axes;
    long points = 1;
    for (const double middle : rest) {
      const double far = 2.0 * std::log(3.0);
      axes.push_back({middle});
      if (3 * points > most) continue;
      axes.back() = {middle - far, middle, middle + far};
      points *= 3;
    }
    return examples::GridSearch(score, axes);
  };
  const auto simplex = [&](const examples::Score& score) {
    return examples::NelderMead(score, rest, std::log(3.0), 1e-4, most);
  };
  Trial trials[] = {{"best of the grid", grid}, {"Nelder-Mead", simplex}};
  const auto run = [&](Trial* trial) {
    const bool together = FLAGS_num_threads > 1;
    examples::PoseGraphEstimator<Graph> own(
        train_data_,
        PoseGraphNoise{train_->noise.size, {}, {}, std::log(5.0), train_->noise.loss},
        SolverOptions(has_truth(), together ? 1 : FLAGS_num_threads));
    own.levels.prior_sigma = train_->levels.prior_sigma;
    const double begin = Now();
    own.SolveCold(start_);
    trial->result = trial->run([&](const Vector& tail) {
      if (Now() - begin > FLAGS_search_seconds) {
        trial->stopped = true;
        return std::numeric_limits<double>::infinity();
      }
      Vector x = start_;
      std::copy(tail.begin(), tail.end(), x.begin() + 1);
      return own.phi(x);
    });
    trial->cost = {trial->name, own.phi.counts(), Now() - begin};
  };
  if (FLAGS_num_threads > 1) {
    std::thread other(run, &trials[1]);
    run(&trials[0]);
    other.join();
  } else {
    for (Trial& t : trials) run(&t);
  }
  for (Trial& t : trials) {
    comparison_.costs.push_back(t.cost);
    Vector x = start_;
    std::copy(t.result.x.begin(), t.result.x.end(), x.begin() + 1);
    comparison_.results.push_back(Evaluate(t.name, x));
    if (t.stopped) {
      search_note_ += Format(
          "\n%s was stopped after %.0f s (--search_seconds).\n", t.name, FLAGS_search_seconds);
    } else if (&t == &trials[1] && t.result.evaluations >= most) {
      search_note_ += Format(
          "\n%s was stopped after %d points (--search_points).\n", t.name, t.result.evaluations);
    }
  }
  // A better valley is a start like another.
  const Result* best = &comparison_.results[comparison_.results.size() - 2];
  if (comparison_.results.back().train < best->train) best = &comparison_.results.back();
  if (best->train >= 0.999 * learned_.train) return;
  Say("\n\"%s\" scores %.4g, in another valley: learning went on from there, at the cost of "
      "both.\n",
      best->name.c_str(),
      best->train);
  if (SolveToLearn(best->x)) LearnFrom(best->x);
}

// Robust losses have many solutions: from another start the same x may score otherwise, and phi
// jumps where a solution ends.
template <typename Graph>
void Job<Graph>::LookForJumps() {
  train_->SolveCold(by_hand_);
  jump_ = train_->phi.FindJump(by_hand_, learned_.x, 6);
  from_elsewhere_ = train_->phi(learned_.x);
  Say("\nOn the straight way from the file's sigmas to the learned ones: %s.\n",
      jump_.empty() ? "no jump of the score" : jump_.c_str());
  if (from_elsewhere_ <= 1.01 * learned_.train) return;
  Say("Begun at the solution with the file's sigmas, the estimate with the learned ones scores "
      "%.4g: another solution. Begin at the graph as it grew, as here.\n",
      from_elsewhere_);
}

template <typename Graph>
Result Job<Graph>::Evaluate(const std::string& name, const Vector& x) {
  for (Result known : comparison_.results) {
    if (known.x != x) continue;
    known.name = name;
    return known;
  }
  Result result{name, x};
  result.train = train_->SolveCold(x);
  if (test_) {
    result.test = test_->SolveCold(x);
    result.test_errors = test_->recording.PositionErrors(0);
  } else {
    result.test_errors =
        has_truth() ? train_->recording.PositionErrors(2) : train_->recording.EdgeErrors(2);
    result.test = Rms(result.test_errors);
  }
  return result;
}

template <typename Graph>
void Job<Graph>::Report() {
  examples::SayVerdict(verdict_);
  Say("\nRoot mean square %s [%s]\n\n%s\n%s",
      has_truth()                ? "position error"
      : FLAGS_prior_factor > 1.0 ? "error of held-out loop closures, train: with the prior"
                                 : "error of held-out loop closures",
      unit(),
      comparison_.ScoreTable().c_str(),
      comparison_.Overfitting().c_str());
  Say("\nCost\n\n%s%s", comparison_.CostTable().c_str(), search_note_.c_str());
  if (train_->noise.loss != "none") {
    Say("\nA cold solve is begun by %d of ever longer parts of the graph; these are in the seconds "
        "alone.\n",
        examples::kStretches);
  }
  if (!FLAGS_baselines) return;
  const double full = std::pow(5.0, static_cast<double>(learned_.x.size()) - 1.0);
  const bilevel::LowerSolverCounts& counts = learning_.counts;
  Say("\nA grid of 5 points an axis, one sigma held, has %.0f: %.1f times as many lower solves as "
      "learning took.\n",
      full,
      full / static_cast<double>(counts.cold_solves + counts.warm_solves));
}

// What was learned goes back to where the graph came from.
template <typename Graph>
bool Job<Graph>::Paste() {
  train_->SolveCold(learned_.x);
  auto& noise = train_->noise;
  auto& levels = train_->levels;
  if (noise.loss == "none" && train_->recording.graph.priors.empty()) {
    // Whatever the score, absolute sigmas follow from the size of the residuals at the solution.
    const double chi2 = levels.RelativeChi2();
    if (chi2 > 0.0) common_ = std::sqrt(chi2);
    Say("\nAbsolute level: with these ratios the residuals ask for %.4g times larger sigmas "
        "(chi2 / degrees of freedom = %.4g).%s\n",
        common_,
        chi2,
        verdict_.kind == bilevel::Verdict::kUseLearned
            ? " It is in the lines and in the file below."
            : "");
    for (int k = 0; k < noise.size; ++k) {
      noise.odometry[k] += std::log(common_);
      noise.loops[k] += std::log(common_);
    }
  }
  paste_ = levels.odometry->Describe("odometry") + levels.loops->Describe("loop") +
           (levels.loss ? levels.loss->Describe() + "\n" : "");
  if (noise.loss == "switchable") {
    paste_ += Format("const double sqrt_switch_prior = %.4g;  // Times (1 - s).\n",
                     std::exp(noise.log_scale));
    const auto count = levels.CountSwitches();
    Say("\nSwitched off: %d of %d false loop closures, %d of %d true ones.\n",
        count.off[1],
        count.all[1],
        count.off[0],
        count.all[0]);
    switched_.Add("false", count.off[1] / std::max(1.0, 1.0 * count.all[1]))
        .Add("true", count.off[0] / std::max(1.0, 1.0 * count.all[0]));
  }
  if (verdict_.kind == bilevel::Verdict::kUseLearned) {
    Say("\nTo paste into a Ceres program (factors on the sigmas of the file's "
        "information):\n\n%s",
        paste_.c_str());
  }
  return !examples::IsOutputDue(verdict_) || WriteGraph();
}

// In the user's format: TORO's where the name ends like that, else g2o.
template <typename Graph>
bool Job<Graph>::WriteGraph() const {
  const auto tuned = examples::WithNoise(train_->recording.graph, train_->noise);
  const std::string& path = FLAGS_output;
  const bool is_toro = path.size() > 6 && path.compare(path.size() - 6, 6, ".graph") == 0;
  std::string error;
  if (!(is_toro ? examples::WriteToro : examples::WriteG2o)(tuned, path, &error)) {
    return Fail(error);
  }
  Say("\n%s has the graph, solved and with the learned information%s.\n",
      path.c_str(),
      train_->noise.loss == "none" ? "" : "; these files have no word for the robust loss above");
  return true;
}

// Factors on the file's sigmas, and the loss's scale [sigmas].
template <typename Graph>
std::vector<examples::Learned> Job<Graph>::Values() const {
  const int size = train_->noise.size;
  std::vector<std::string> names;
  for (const char* edges : {"odometry", "loop"}) {
    for (int k = 0; k < size; ++k) {
      names.push_back(std::string(edges) + (size > 2 ? Format(" axis %d", k + 1)
                                            : k == 0 ? " translation"
                                                     : " rotation"));
    }
  }
  if (learned_.x.size() > names.size()) names.emplace_back("loss scale");
  return FLAGS_safe ? examples::FromLogs(names, learned_.x, safe_)
                    : examples::FromLogs(names, learned_.x, summary_);
}

template <typename Graph>
bool Job<Graph>::WriteSummary() const {
  examples::Json json = examples::BeginJson("pose-graph", verdict_, Values());
  comparison_.AddTo(&json);
  json.Add("loops", static_cast<double>(num_loops_))
      .Add("rule", FLAGS_safe ? safe_.message : "")
      .Add("common_factor", common_)
      .Add("flat_directions", static_cast<double>(summary_.flat_upper_directions.size()))
      .Add("jump", jump_)
      .Add("scores_of_starts", end_scores_)
      .Add("score_from_elsewhere", from_elsewhere_)
      .Add("paste", paste_)
      .Add("switched_off", switched_)
      .AddRaw("summary", summary_.Json());
  return examples::WriteFile(FLAGS_json, json.ToString());
}

template <typename Graph>
bool Job<Graph>::Draw() {
  const Result &by_hand = comparison_.results[0], &learned = learned_;
  std::vector<examples::Panel> panels;
  const auto map = [&](const std::string& title, examples::PoseGraphEstimator<Graph>* e) {
    std::vector<std::pair<std::string, Positions>> paths;
    if (has_truth()) paths.push_back({"ground truth", examples::ToPositions(e->recording.truth)});
    for (const Result* r : {&by_hand, &learned}) {
      e->SolveCold(r->x);
      paths.push_back({r->name, examples::Estimate(e->recording.graph)});
      if (!has_truth()) continue;
      const examples::Motion motion = e->recording.Alignment();
      for (auto& p : paths.back().second) p = motion.r * p + motion.t;
    }
    panels.push_back(examples::Map(title, paths));
  };
  if (!FLAGS_safe || !test_) map("Training graph", train_.get());
  if (test_) map("Test graph", test_.get());

  if (!FLAGS_safe) panels.push_back(DrawConvergence());

  if (!learned_.test_errors.empty()) {
    examples::Panel errors{"Errors of the test part",
                           has_truth() ? "pose" : "loop closure held out",
                           has_truth() ? "error [m]" : "error [sigmas in the file]"};
    for (const Result* r : {&by_hand, &learned}) {
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

// Of the score alone.
template <typename Graph>
examples::Panel Job<Graph>::DrawConvergence() {
  examples::Panel convergence{
      "Convergence", "iteration", has_truth() ? "rms error [m]" : "rms error"};
  examples::Series score{"score (left)", "linespoints", {}, {}};
  std::vector<examples::Series> factors;
  const char* names[] = {"odometry, translation",
                         "odometry, rotation",
                         "loops, translation",
                         "loops, rotation",
                         "scale of the loss"};
  for (size_t i = 0; i < learned_.x.size(); ++i) {
    factors.push_back(
        {train_->noise.size == 2 ? names[i] : "sigma " + std::to_string(i), "lines", {}, {}, true});
  }
  for (const auto& it : summary_.iterations) {
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
  return convergence;
}

// ------------------------------------------------------------------------------------------------

template <typename Graph>
bool Fill(const examples::AnyPoseGraph& any,
          const std::string& truth,
          Recording<Graph>* recording) {
  if (!std::holds_alternative<Graph>(any)) {
    return Fail("Of the two graphs one is in the plane and the other in space");
  }
  recording->graph = std::get<Graph>(any);
  std::string notes, error;
  if (!truth.empty() &&
      !examples::ReadTruth(truth, recording->graph, &recording->truth, &notes, &error)) {
    return Fail(error);
  }
  Say("%s%s", recording->graph.notes.c_str(), notes.c_str());
  if (!truth.empty()) Say("%s", examples::CompareWithTruth(*recording).c_str());
  return true;
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
  if (!FLAGS_test.empty()) {
    examples::AnyPoseGraph test_graph;
    std::string error;
    if (!examples::ReadPoseGraph(FLAGS_test, &test_graph, &error)) {
      return !Fail(error);
    }
    if (!Fill(test_graph, FLAGS_test_truth, &test)) return 1;
    if (train.truth.empty() || test.truth.empty()) {
      return !Fail("A graph to test on needs a truth, and so does the one to learn on");
    }
  }
  return Job<Graph>(std::move(train), std::move(test), {}).Run();
}

// A user's guess of all sigmas is within a factor of two in two cases of three, and the same for
// both recordings.
int RunAlong() {
  std::mt19937 generator(FLAGS_seed);
  std::normal_distribution<double> normal(0.0, 0.7);
  double guess[4];
  Vector true_x;
  for (double& g : guess) {
    true_x.push_back(normal(generator));
    g = std::exp(-true_x.back());
  }
  std::vector<Recording<PoseGraph2>> recordings;
  for (const std::string& path : {FLAGS_along, FLAGS_test_along}) {
    examples::Trajectory trajectory;
    std::string error;
    if (path.empty()) {
      recordings.emplace_back();
    } else if (examples::ReadTrajectory(path, &trajectory, &error)) {
      recordings.push_back(
          examples::SimulateAlong(examples::SeenFromAbove(trajectory),
                                  guess,
                                  2 * FLAGS_seed + 1 + static_cast<unsigned>(recordings.size())));
    } else {
      return !Fail(error);
    }
  }
  return Job<PoseGraph2>(recordings[0], recordings[1], true_x).Run();
}

int RunSimulated() {
  if (!FLAGS_along.empty()) return RunAlong();
  const examples::TrueSigmas sigmas;
  Vector true_x;
  for (const double* s : {sigmas.odometry, sigmas.loops}) {
    for (const int k : {0, 2}) true_x.push_back(std::log(s[k] / sigmas.guess));
  }
  const int size = FLAGS_quick ? 700 : 2000;
  return Job<PoseGraph2>(examples::SimulateGraph(size, 2 * FLAGS_seed + 1),
                         examples::SimulateGraph(size, 2 * FLAGS_seed + 2),
                         true_x)
      .Run();
}

int Run(const std::vector<std::string>& words) {
  if (!(FLAGS_start_factor > 0.0) || !(FLAGS_false_loops >= 0.0) || FLAGS_search_points < 1 ||
      !(FLAGS_search_seconds > 0.0) || !(FLAGS_split > 0.0) || FLAGS_split > 1.0 ||
      (FLAGS_prior_factor != 0.0 && !(FLAGS_prior_factor > 1.0))) {
    return !Fail(
        "--start_factor, --search_points and --search_seconds must be positive, --false_loops not "
        "negative, --split between 0 and 1, --prior_factor 0 or above 1");
  }
  if (!FLAGS_simulate && !(FLAGS_along + FLAGS_test_along).empty()) {
    return !Fail("--along and --test_along go with --simulate");
  }
  if (FLAGS_simulate) return RunSimulated();
  examples::AnyPoseGraph graph;
  std::string error;
  if (!examples::ReadPoseGraph(words[0], &graph, &error)) return !Fail(error);
  return std::holds_alternative<PoseGraph2>(graph) ? RunFiles<PoseGraph2>(graph)
                                                   : RunFiles<PoseGraph3>(graph);
}

}  // namespace

const examples::Command examples::kPoseGraph = {
    "pose-graph",
    "the noise of a pose graph's odometry and loop closures (g2o, TORO), and a robust loss",
    {"GRAPH"},
    "Learns how much larger or smaller the sigmas of a graph's odometry and loop\n"
    "closures should be than in the file, so that its positions come closest to a\n"
    "truth, or so that it foretells loop closures held out.\n\n"
    "  bilevel-tune pose-graph intel.g2o --output=tuned.g2o\n"
    "  bilevel-tune pose-graph kitti_00.g2o --truth=00.txt \\\n"
    "      --test=kitti_02.g2o --test_truth=02.txt\n",
    {"truth=FILE",
     "test=GRAPH",
     "test_truth=FILE",
     "loss=LOSS",
     "output=where the verdict is to use what was learned, write the graph, solved and with the "
     "learned information, as g2o, or as TORO where FILE ends in .graph"},
    {"per_axis",
     "split=SHARE",
     "safe",
     "baselines",
     "false_loops=SHARE",
     "prior_factor=FACTOR",
     "start_factor=FACTOR",
     "search_points=N",
     "search_seconds=SECONDS",
     "seed=N",
     "simulate",
     "along=FILE",
     "test_along=FILE"},
    "",
    Run};
