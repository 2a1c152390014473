// Learns the noise levels of range-only localisation: a robot lawn mower with wheel odometry, a
// gyroscope, and radio ranges to four beacons at known places.
//
//   lower level   y*(x) = argmin sum of squared odometry and range errors over their noise levels x
//   upper level   x     = argmin sum |position in y*(x) - surveyed position|^2 / 2, or, without a
//                         survey, the ranges to each beacon as predicted without that beacon
//
// y: the pose at every range, and constants of the sensors. x: logarithms of the noise levels and
// of the scale of a Cauchy loss on ranges. Two estimators: "plain" knows one constant bias of all
// ranges; "calibrated" adds what the residuals show when they are looked at, a scale of ranges and
// a drift of the gyroscope, and tells sideways slip from forward slip. Either may have a bias of
// its own for each beacon, or a scale of the wheels, with priors whose widths are learned as well:
// what the data do not support is learned to be small.
//
// By default by the rule that does not lose on more of the same (LearnSafely), from the noise that
// residuals have where positions are the survey's; --nosafe minimises f alone.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/learnable/losses.h"
#include "bilevel/learnable/noise.h"
#include "bilevel/upper_level/cross_validation.h"
#include "ceres/ceres.h"
#include "examples/support/baselines.h"
#include "examples/support/plot.h"
#include "examples/support/position_error.h"
#include "examples/support/slam/range_slam.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"
#include "examples/tune/command.h"
#include "examples/tune/report.h"

DEFINE_bool(halves,
            false,
            "with --test still learn on the first half alone, and test on the second");
DEFINE_bool(more, false, "learn without the survey, with more constants and elsewhere as well");

namespace {

using bilevel::AutoDiffCostFunction;
using examples::Format;
using examples::Now;
using examples::PositionError;
using examples::RangeSlam;
using examples::Say;
using Pose = std::array<double, 3>;  // x, y, heading.

// Errors in units of a noise that grows with the root of time, from one pose to the next.
struct TranslationError {
  template <typename T>
  bool operator()(const T* a, const T* b, const T* wheels, T* r) const {
    using std::cos;
    using std::sin;
    const T c = cos(a[2]), s = sin(a[2]), dx = b[0] - a[0], dy = b[1] - a[1];
    r[0] = (c * dx + s * dy - (1.0 + wheels[0]) * motion.x) / root;
    r[1] = (-s * dx + c * dy - (1.0 + wheels[0]) * motion.y) / root;
    return true;
  }
  examples::PlanarMotion motion;
  double root;
};
struct TurnError {
  template <typename T>
  bool operator()(const T* a, const T* b, const T* drift, T* r) const {
    r[0] = (b[2] - a[2] - turn - drift[0] * seconds) / root;
    return true;
  }
  double turn, seconds, root;
};
struct RangeError {
  template <typename T>
  bool operator()(const T* pose,
                  const T* beacon,
                  const T* bias,
                  const T* own_bias,
                  const T* scale,
                  T* r) const {
    using std::sqrt;
    const T dx = pose[0] - beacon[0], dy = pose[1] - beacon[1];
    r[0] = scale[0] * sqrt(dx * dx + dy * dy) + bias[0] + own_bias[0] - range;
    return true;
  }
  double range;
};
struct Itself {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0];
    return true;
  }
};

// x, in logarithms. Odometry's are noise levels of a tenth of a second, the clock of the robot.
struct Settings {
  double translation[2] = {std::log(0.05), std::log(0.05)};  // Forward, sideways [m].
  double turn = std::log(0.01);                              // [rad]
  double range = std::log(0.3);                              // [m]
  double scale = std::log(1.0);                              // Of the Cauchy loss [sigmas].
  double own_bias = std::log(0.3);                           // Of a beacon's own bias [m].
  double wheels = std::log(0.01);                            // Of the wheels' scale.
};

struct Model {
  bool calibrated = false;
  // More constants, each with a prior about none of it, whose width is learned.
  bool own_bias = false, wheels = false;
};
constexpr Model kPlain, kCalibrated = {true};
enum class Score { kTruth, kBeacons, kRandom, kTime };

// One recording under an estimator: the bilevel problem of its settings, and where y lives.
class Estimator {
 public:
  Estimator(const RangeSlam& data, Model model, const Settings& settings)
      : data_(data),
        model_(model),
        x_(settings),
        poses_(data.ranges.size()),
        sideways_(x_.translation, 2),
        all_ways_(x_.translation, 2),
        turn_(&x_.turn),
        own_bias_prior_(&x_.own_bias),
        wheels_prior_(&x_.wheels) {
    Declare(x_.translation, model.calibrated ? 2 : 1, "log sigma translation");
    Declare(&x_.turn, 1, "log sigma turn");
    Declare(&x_.range, 1, "log sigma range");
    Declare(&x_.scale, 1, "log scale of the loss");
    if (model.own_bias) Declare(&x_.own_bias, 1, "log sigma of a beacon's bias");
    if (model.wheels) Declare(&x_.wheels, 1, "log sigma of the wheels' scale");
    DeadReckon();
    AddLowerLevel();
  }

  // The upper level. False: why, in error.
  bool ScoreBy(Score score, std::string* error) {
    if (!FLAGS_safe || score != Score::kTruth) AddPriors();
    if (score == Score::kTruth) {
      for (size_t i = 0; i < poses_.size(); ++i) {
        problem_.upper()->AddResidualBlock(new AutoDiffCostFunction<PositionError, 2, 3>(
                                               new PositionError{truth_[i].x, truth_[i].y}),
                                           nullptr,
                                           poses_[i].data());
      }
      return true;
    }
    // The cost functions of ranges are errors in metres, sigma is in their loss: held-out ranges
    // are scored in metres, and a larger sigma does not help.
    using Kind = bilevel::HoldoutOptions::Kind;
    bilevel::CrossValidationOptions folds;
    folds.kind = score == Score::kBeacons  ? Kind::kByBlock
                 : score == Score::kRandom ? Kind::kRandom
                                           : Kind::kByTime;
    folds.num_folds = score == Score::kBeacons ? 0 : 4;
    for (const auto& beacon : beacons_) folds.blocks.push_back(beacon.data());
    return bilevel::AddCrossValidation(
        folds, ranges_, new ceres::HuberLoss(1.0), &problem_, nullptr, error);
  }

  // Scored by the truth, from where x and y are.
  bool Learn(std::string* message) {
    if (!FLAGS_safe) return Solve(50);
    const double begin = Now();
    Estimator at_truth(data_, model_, x_);
    std::string error;
    if (!Solve(0) || !at_truth.ScoreBy(Score::kTruth, &error)) return false;
    at_truth.HoldPositions();
    if (!at_truth.Solve(0)) return false;
    const bilevel::ResidualStatistics measured = bilevel::MeasureResiduals({}, &at_truth.problem_);
    bilevel::SafeLearningOptions options;
    options.solver = Options();
    if (measured.ok) {
      options.centre = measured.x;
      options.prior_sigma = 0.35;
    }
    safe_ = bilevel::LearnSafely(options, &problem_);
    *message = "Residuals at the survey: " + measured.message +
               "\nThe rule that does not lose: " + safe_.message + "\n";
    summary_ = safe_.summary;
    summary_.lower_solver = safe_.counts;
    seconds_ = Now() - begin;
    return safe_.ok;
  }

  // Learns from where x and y are; 0 iterations: solves the lower level.
  bool Solve(int max_num_iterations) {
    bilevel::Solver::Options options = Options();
    options.max_num_iterations = max_num_iterations;
    const double begin = Now();
    examples::Solve(options, &problem_, &summary_);
    seconds_ = Now() - begin;
    return summary_.IsSolutionUsable();
  }

  static bilevel::Solver::Options Options() {
    bilevel::Solver::Options options;
    options.lower_solver_options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
    options.lower_solver_options.max_num_iterations = 500;
    options.lower_solver_options.logging_type = ceres::SILENT;
    options.max_num_lower_newton_iterations = 100;
    options.function_tolerance = 1e-3;  // A two-thousandth of the RMS position error.
    options.num_threads = FLAGS_num_threads;
    options.callbacks = {examples::ShowIterations()};
    return options;
  }

  std::vector<double> Errors() const {
    std::vector<double> errors;
    for (size_t i = 0; i < poses_.size(); ++i) {
      errors.push_back(std::hypot(poses_[i][0] - truth_[i].x, poses_[i][1] - truth_[i].y));
    }
    return errors;
  }

  // Of a tenth of a second [m, m, rad], of a range [m], and the loss's scale [sigmas].
  std::vector<examples::Learned> Values() const {
    std::vector<std::string> names = {"translation", "turn", "range", "loss scale"};
    if (model_.calibrated) names.insert(names.begin() + 1, "sideways translation");
    std::vector<double> x;
    for (const double* coordinate : coordinates_) x.push_back(*coordinate);
    return FLAGS_safe ? examples::FromLogs(names, x, safe_)
                      : examples::FromLogs(names, x, summary_);
  }

  // Lines of C++.
  std::string Describe() const {
    const bilevel::NoiseModel& translation = Translation();
    std::string text = "  " + translation.Describe("translation") + "\n  " +
                       turn_.Describe("turn") + "\n  ceres::LossFunction* range_loss =\n      " +
                       range_loss_->Describe() + ";\n";
    text += Format("  // Of the sensors, as estimated: range bias %.3f m", bias_);
    if (model_.calibrated) {
      text += Format(", range scale %.4f, gyroscope's drift %.5f rad/s", scale_, drift_);
    }
    return text + "\n";
  }

  const Settings& settings() const { return x_; }
  void Set(const Settings& settings) { x_ = settings; }
  // A survey sees ratios of noise levels: of all settings with this solution, takes those whose
  // range noise is that of the residuals (median of their magnitudes, as for a normal
  // distribution).
  void Normalise() {
    std::vector<double> residuals;
    for (size_t i = 0; i < poses_.size(); ++i) {
      const RangeSlam::Range& z = data_.ranges[i];
      double r = 0.0;
      RangeError{z.range}(
          poses_[i].data(), beacons_[z.beacon].data(), &bias_, &own_biases_[z.beacon], &scale_, &r);
      residuals.push_back(std::abs(r));
    }
    std::nth_element(residuals.begin(), residuals.begin() + residuals.size() / 2, residuals.end());
    const double shift = std::log(residuals[residuals.size() / 2] / 0.6745) - x_.range;
    for (double* x :
         {&x_.translation[0], &x_.translation[1], &x_.turn, &x_.range, &x_.own_bias, &x_.wheels}) {
      *x += shift;
    }
    x_.scale -= shift;
  }
  bilevel::Problem* problem() { return &problem_; }
  const std::vector<double*>& coordinates() const { return coordinates_; }
  const bilevel::Solver::Summary& summary() const { return summary_; }
  double seconds() const { return seconds_; }
  // Of the prior's width, and what was estimated.
  std::string DescribeMore() const {
    if (!model_.own_bias && !model_.wheels) return "";
    if (model_.wheels) return Format("%.2g: %+.2g", std::exp(x_.wheels), wheels_);
    std::string text = Format("%.2g m:", std::exp(x_.own_bias));
    for (const double bias : own_biases_) text += Format(" %+.2f", bias);
    return text + " m";
  }
  const std::vector<Pose>& poses() const { return poses_; }
  const std::vector<RangeSlam::Pose>& truth() const { return truth_; }

 private:
  void Declare(double* block, int size, const char* name) {
    problem_.AddUpperParameterBlock(block, size);
    problem_.SetParameterName(block, name);
    for (int i = 0; i < size; ++i) coordinates_.push_back(block + i);
  }

  // Broad ones: a decade from the guess costs as much as one position off by half a metre. They
  // decide where nothing else does, as on the common factor of all noise levels.
  void AddPriors() {
    std::string error;
    const auto add = [&](double* block, int size) {
      bilevel::AddNormalPrior(
          block, {block, block + size}, {std::log(10.0) / 0.5}, &problem_, &error);
    };
    add(x_.translation, model_.calibrated ? 2 : 1);
    for (double* block : {&x_.turn, &x_.range, &x_.scale}) add(block, 1);
    if (model_.own_bias) add(&x_.own_bias, 1);
    if (model_.wheels) add(&x_.wheels, 1);
  }

  // At the survey; headings and the sensors' constants are estimated.
  void HoldPositions() {
    for (size_t i = 0; i < poses_.size(); ++i) {
      poses_[i][0] = truth_[i].x;
      poses_[i][1] = truth_[i].y;
      problem_.lower()->SetManifold(poses_[i].data(),
                                    new ceres::SubsetManifold(3, std::vector<int>{0, 1}));
    }
  }

  // Where the first lower solve begins: odometry from the surveyed start, turned so that its first
  // minute fits the survey.
  void DeadReckon() {
    for (const RangeSlam::Range& z : data_.ranges) truth_.push_back(TruthAt(data_, z.time));
    double dot = 0.0, cross = 0.0;
    poses_[0] = {0.0, 0.0, 0.0};
    for (size_t i = 1; i < poses_.size(); ++i) {
      const examples::PlanarMotion m = Integrate(data_, truth_[i - 1].time, truth_[i].time);
      const Pose& a = poses_[i - 1];
      const double c = std::cos(a[2]), s = std::sin(a[2]);
      poses_[i] = {a[0] + c * m.x - s * m.y, a[1] + s * m.x + c * m.y, a[2] + m.turn};
      if (truth_[i].time > truth_[0].time + 60.0) continue;
      const double x = truth_[i].x - truth_[0].x, y = truth_[i].y - truth_[0].y;
      dot += poses_[i][0] * x + poses_[i][1] * y;
      cross += poses_[i][0] * y - poses_[i][1] * x;
    }
    const double turn = std::atan2(cross, dot), c = std::cos(turn), s = std::sin(turn);
    for (Pose& p : poses_) {
      p = {truth_[0].x + c * p[0] - s * p[1], truth_[0].y + s * p[0] + c * p[1], p[2] + turn};
    }
  }

  const bilevel::NoiseModel& Translation() const {
    if (model_.calibrated) return sideways_;
    return all_ways_;
  }

  void AddLowerLevel() {
    ceres::Problem* lower = problem_.lower();
    for (const RangeSlam::Beacon& b : data_.beacons) beacons_.push_back({b.x, b.y});
    own_biases_.assign(beacons_.size(), 0.0);
    range_loss_ = problem_.Own(std::make_unique<bilevel::NoiseScaleLoss>(
        new bilevel::CauchyLoss(&x_.scale), &x_.range, ceres::TAKE_OWNERSHIP));
    for (size_t i = 0; i < poses_.size(); ++i) {
      const RangeSlam::Range& z = data_.ranges[i];
      double* pose = poses_[i].data();
      ranges_.push_back(lower->AddResidualBlock(
          new AutoDiffCostFunction<RangeError, 1, 3, 2, 1, 1, 1>(new RangeError{z.range}),
          range_loss_,
          pose,
          beacons_[z.beacon].data(),
          &bias_,
          &own_biases_[z.beacon],
          &scale_));
      if (i == 0) continue;
      double* last = poses_[i - 1].data();
      const double from = data_.ranges[i - 1].time, seconds = z.time - from;
      const double root = std::sqrt(std::max(seconds, 0.01) / 0.1);
      const examples::PlanarMotion motion = Integrate(data_, from, z.time);
      Translation().AddResidualBlock(new AutoDiffCostFunction<TranslationError, 2, 3, 3, 1>(
                                         new TranslationError{motion, root}),
                                     nullptr,
                                     {last, pose, &wheels_},
                                     lower);
      turn_.AddResidualBlock(new AutoDiffCostFunction<TurnError, 1, 3, 3, 1>(
                                 new TurnError{motion.turn, seconds, root}),
                             nullptr,
                             {last, pose, &drift_},
                             lower);
    }
    // The robot starts at a surveyed place.
    lower->AddResidualBlock(
        new AutoDiffCostFunction<PositionError, 2, 3>(new PositionError{truth_[0].x, truth_[0].y}),
        new ceres::ScaledLoss(nullptr, 100.0, ceres::TAKE_OWNERSHIP),
        poses_[0].data());
    for (auto& beacon : beacons_) {
      if (lower->HasParameterBlock(beacon.data())) lower->SetParameterBlockConstant(beacon.data());
    }
    for (double& bias : own_biases_) {
      if (lower->HasParameterBlock(&bias)) Bind(&bias, model_.own_bias, own_bias_prior_);
    }
    Bind(&wheels_, model_.wheels, wheels_prior_);
    if (model_.calibrated) return;
    lower->SetParameterBlockConstant(&drift_);
    lower->SetParameterBlockConstant(&scale_);
  }

  // To zero, unless it is to be estimated.
  void Bind(double* constant, bool estimate, const bilevel::ScalarNoise& prior) {
    if (estimate) {
      prior.AddResidualBlock(new AutoDiffCostFunction<Itself, 1, 1>(new Itself),
                             nullptr,
                             {constant},
                             problem_.lower());
    } else {
      problem_.lower()->SetParameterBlockConstant(constant);
    }
  }

  const RangeSlam data_;
  const Model model_;
  Settings x_;
  std::vector<Pose> poses_;
  std::vector<std::array<double, 2>> beacons_;
  std::vector<double> own_biases_;
  double bias_ = 0.0, scale_ = 1.0, drift_ = 0.0, wheels_ = 0.0;
  std::vector<RangeSlam::Pose> truth_;
  bilevel::Problem problem_;
  const bilevel::DiagonalNoise sideways_;
  const bilevel::ScalarNoise all_ways_, turn_, own_bias_prior_, wheels_prior_;
  bilevel::NoiseScaleLoss* range_loss_ = nullptr;
  std::vector<ceres::ResidualBlockId> ranges_;
  std::vector<double*> coordinates_;
  bilevel::SafeLearning safe_;
  bilevel::Solver::Summary summary_;
  double seconds_ = 0.0;
};

double Mean(const std::vector<double>& v) {
  double sum = 0.0;
  for (double e : v) sum += e;
  return sum / static_cast<double>(v.size());
}

double Rms(const std::vector<double>& v) {
  double sum = 0.0;
  for (double e : v) sum += e * e;
  return std::sqrt(sum / static_cast<double>(v.size()));
}

// Position errors of an estimator with given settings on a recording; empty where the lower level
// has no solution. Begins at the solution of those set by hand, which is found from anywhere.
std::vector<double> Test(const RangeSlam& data, Model model, const Settings& settings) {
  Estimator estimator(data, model, Settings());
  std::string error;
  estimator.ScoreBy(Score::kTruth, &error);
  if (!estimator.Solve(0)) return {};
  estimator.Set(settings);
  if (!estimator.Solve(0)) return {};
  return estimator.Errors();
}

std::string Cell(const std::vector<double>& errors) {
  return errors.empty() ? "-" : Format("%.3f (%.3f)", Mean(errors), Rms(errors));
}

struct Recording {
  std::string name;
  RangeSlam data;
};

std::string Row(const Settings& s, Model model) {
  std::string text = Format("%.2g", std::exp(s.translation[0]));
  if (model.calibrated) text += Format(", %.2g", std::exp(s.translation[1]));
  return text +
         Format(", %.2g, %.2g, %.2g", std::exp(s.turn), std::exp(s.range), std::exp(s.scale));
}

// What one way to settings gave and took.
struct Outcome {
  std::string name;
  Settings settings;
  double score = std::nan("");
  std::vector<double> train, test;
  long cold = 0, warm = 0, factorizations = 0;
  double seconds = 0.0;
  std::string note = {};  // How it came about.
  std::vector<examples::Learned> values = {};
};

examples::Json ToJson(const Outcome& o) {
  examples::Json json;
  return json.Add("score", o.score)
      .Add("train_mean", o.train.empty() ? std::nan("") : Mean(o.train))
      .Add("train_rms", o.train.empty() ? std::nan("") : Rms(o.train))
      .Add("test_mean", o.test.empty() ? std::nan("") : Mean(o.test))
      .Add("test_rms", o.test.empty() ? std::nan("") : Rms(o.test))
      .Add("cold_solves", static_cast<double>(o.cold))
      .Add("warm_solves", static_cast<double>(o.warm))
      .Add("factorizations", static_cast<double>(o.factorizations))
      .Add("seconds", o.seconds);
}

void SetCounts(const bilevel::LowerSolverCounts& counts, double seconds, Outcome* o) {
  o->cold = counts.cold_solves;
  o->warm = counts.warm_solves;
  o->factorizations = counts.factorizations;
  o->seconds = seconds;
}

// Learns on `train` against the survey; a grid and a simplex beside it.
std::vector<Outcome> Compare(const RangeSlam& train,
                             const RangeSlam& test,
                             Model model,
                             std::string* lines,
                             bilevel::Solver::Summary* summary) {
  std::vector<Outcome> outcomes;
  std::string error;
  const auto finish = [&](Outcome o) {
    o.train = Test(train, model, o.settings);
    o.test = Test(test, model, o.settings);
    outcomes.push_back(std::move(o));
  };
  {
    Estimator by_hand(train, model, Settings());
    by_hand.ScoreBy(Score::kTruth, &error);
    by_hand.Solve(0);
    Outcome o{"set by hand", by_hand.settings(), by_hand.summary().final_objective, {}, {}};
    SetCounts(by_hand.summary().lower_solver, by_hand.seconds(), &o);
    finish(o);
  }
  {
    Estimator learner(train, model, Settings());
    learner.ScoreBy(Score::kTruth, &error);
    std::string note;
    const bool learned = learner.Learn(&note);
    if (learned && !FLAGS_safe) learner.Normalise();
    Outcome o{"learned", learner.settings(), learner.summary().final_objective, {}, {}};
    o.note = note;
    o.values = learner.Values();
    SetCounts(learner.summary().lower_solver, learner.seconds(), &o);
    *summary = learner.summary();
    *lines = learner.Describe();
    finish(o);
  }
  if (!FLAGS_baselines || FLAGS_safe) return outcomes;
  // Of the levels only ratios matter: the searches hold the range's, so as not to waste a
  // dimension, and take the others by factors of ten.
  for (const bool grid : {true, false}) {
    Estimator searcher(train, model, Settings());
    searcher.ScoreBy(Score::kTruth, &error);
    std::vector<double*> searched;
    std::vector<double> start;
    std::vector<std::vector<double>> axes;
    for (double* x : searcher.coordinates()) {
      if (x == &searcher.settings().range) continue;
      searched.push_back(x);
      start.push_back(*x);
      axes.emplace_back();
      for (const double decade : {-2.0, -1.0, 0.0}) {
        if ((FLAGS_quick || model.calibrated) && decade == -2.0) continue;
        axes.back().push_back(*x + decade * std::log(10.0));
      }
    }
    examples::Phi phi(Estimator::Options(), searched, nullptr, searcher.problem());
    const auto score = [&](const std::vector<double>& x) { return phi(x); };
    const examples::SearchResult best =
        grid ? examples::GridSearch(score, axes)
             : examples::NelderMead(score, start, 1.0, 1e-4, FLAGS_quick ? 30 : 100);
    for (size_t i = 0; i < searched.size(); ++i) *searched[i] = best.x[i];
    Outcome o{grid ? Format("best of a grid of %d", best.evaluations) : "Nelder and Mead",
              searcher.settings(),
              best.value,
              {},
              {}};
    SetCounts(phi.counts(), phi.seconds(), &o);
    finish(o);
  }
  return outcomes;
}

void Print(const std::vector<Outcome>& outcomes, Model model) {
  examples::Table table({"", "settings", "train [m]", "test [m]", "cold", "warm", "fact.", "s"});
  for (const Outcome& o : outcomes) {
    table.Add({o.name,
               Row(o.settings, model),
               Cell(o.train),
               Cell(o.test),
               std::to_string(o.cold),
               std::to_string(o.warm),
               std::to_string(o.factorizations),
               Format("%.2f", o.seconds)});
  }
  Say("%s", table.ToString().c_str());
  const Outcome &by_hand = outcomes[0], &learned = outcomes[1];
  Say("\nLearning took as long as %.1f cold solves.", learned.seconds / by_hand.seconds);
  if (!FLAGS_baselines) {
    Say("\n");
    return;
  }
  // The range's level stays put in a grid: only ratios matter.
  const double full = std::pow(5.0, model.calibrated ? 4.0 : 3.0);
  const double solves = static_cast<double>(learned.cold + learned.warm);
  Say("\nA grid of 5 points an axis has %.0f: %.0f times as many lower solves as learning took.\n",
      full,
      full / solves);
}

// What more constants of the sensors bring on recordings that nothing was learned from.
examples::Json LearnMore(const RangeSlam& train, const std::vector<Recording>& tests) {
  struct Row {
    const char *name, *key;
    Model model;
    size_t base;  // The row that has fewer constants.
  };
  const Row rows[] = {{"plain", "plain", kPlain, 0},
                      {"  and a bias of each beacon", "plain_bias", {false, true}, 0},
                      {"calibrated", "calibrated", kCalibrated, 0},
                      {"  and a bias of each beacon", "calibrated_bias", {true, true}, 2},
                      {"  and a scale of the wheels", "calibrated_wheels", {true, false, true}, 2}};
  std::vector<std::string> head = {"", "prior's width: estimates"};
  for (const Recording& r : tests) {
    head.push_back(r.name);
    head.push_back("less by (95 %)");
  }
  examples::Table table(head);
  examples::Json json;
  std::vector<std::vector<std::vector<double>>> errors;  // Of each row, of each test.
  for (const Row& row : rows) {
    Estimator e(train, row.model, Settings());
    std::string error;
    e.ScoreBy(Score::kTruth, &error);
    std::string note;
    const bool learned = e.Learn(&note);
    std::vector<std::string> cells = {row.name, learned ? e.DescribeMore() : "-"};
    std::vector<std::vector<double>>& mine = errors.emplace_back();
    for (size_t t = 0; t < tests.size(); ++t) {
      mine.push_back(learned ? Test(tests[t].data, row.model, e.settings())
                             : std::vector<double>());
      cells.push_back(mine[t].empty() ? "-" : Format("%.3f", Rms(mine[t])));
      cells.emplace_back();
      const std::vector<double>& base = errors[row.base][t];
      if (row.base == errors.size() - 1 || mine[t].empty() || base.empty()) continue;
      const bilevel::Verdict v = bilevel::JudgeLearned({}, base, mine[t], nullptr);
      cells.back() = Format(
          "%.3f (%.3f to %.3f) %s", v.before - v.learned, -v.high, -v.low, examples::Word(v));
    }
    table.Add(cells);
    json.Add(row.key,
             examples::Json().Add("test_rms", mine[0].empty() ? std::nan("") : Rms(mine[0])));
  }
  Say("\nMore constants of the sensors: RMS position errors [m] where nothing was learned from, "
      "and what they\nare less by than without the constant (calibrated: than plain).\n%s",
      table.ToString().c_str());
  return json;
}

bool Draw(const RangeSlam& test, const std::vector<Outcome>& plain, const Outcome& calibrated) {
  std::vector<examples::Panel> panels(2);
  panels[0] = {"The unseen half", "x [m]", "y [m]"};
  panels[0].equal_axes = true;
  panels[1] = {"Position error", "time [s]", "error [m]"};
  const auto add = [&](const std::string& name, Model model, const Settings& settings) {
    Estimator e(test, model, Settings());
    std::string error;
    e.ScoreBy(Score::kTruth, &error);
    if (!e.Solve(0)) return;
    e.Set(settings);
    if (!e.Solve(0)) return;
    examples::Series path{name, "lines", {}, {}}, errors{name, "lines", {}, e.Errors()};
    if (panels[0].series.empty()) {
      examples::Series truth{"survey", "lines", {}, {}};
      for (const auto& t : e.truth()) {
        truth.x.push_back(t.x);
        truth.y.push_back(t.y);
      }
      panels[0].series.push_back(truth);
    }
    for (size_t i = 0; i < e.poses().size(); ++i) {
      path.x.push_back(e.poses()[i][0]);
      path.y.push_back(e.poses()[i][1]);
      errors.x.push_back(e.truth()[i].time - e.truth()[0].time);
    }
    panels[0].series.push_back(path);
    panels[1].series.push_back(errors);
  };
  add("set by hand", kPlain, plain[0].settings);
  add("learned", kPlain, plain[1].settings);
  add("calibrated, learned", kCalibrated, calibrated.settings);
  examples::Series beacons{"beacons", "points", {}, {}};
  for (const auto& b : test.beacons) {
    beacons.x.push_back(b.x);
    beacons.y.push_back(b.y);
  }
  panels[0].series.push_back(beacons);
  return examples::Plot(FLAGS_plot, "Range-only localisation with learned noise", panels);
}

// Of any of a recording's four files.
std::string Prefix(std::string path) {
  for (const char* end : {".gz", ".bz2", ".xz", ".txt", "_DR", "_TD", "_GT", "_TL"}) {
    const std::string tail = end;
    const bool has_it = path.size() > tail.size() &&
                        path.compare(path.size() - tail.size(), tail.size(), tail) == 0;
    if (has_it) path.resize(path.size() - tail.size());
  }
  return path;
}

bool Read(const std::string& path, std::vector<Recording>* recordings) {
  const std::string prefix = Prefix(path);
  Recording r{prefix.substr(prefix.rfind('/') + 1), {}};
  std::string error;
  if (!ReadRangeSlam(prefix, &r.data, &error)) return examples::Fail(error);
  Say("%s", r.data.notes.c_str());
  recordings->push_back(std::move(r));
  return true;
}

void Simulate(std::vector<Recording>* recordings) {
  examples::RangeSlamNoise noise;
  noise.outlier_share = 0.05;
  recordings->push_back({"simulation 1", examples::SimulateRangeSlam(400.0, noise, 1)});
  recordings->push_back({"simulation 2", examples::SimulateRangeSlam(400.0, noise, 2)});
}

// The steps of the study, in the order in which they run and print.
class Study {
 public:
  int Run(const std::vector<std::string>& words);

 private:
  bool Read(const std::vector<std::string>& words);
  void CompareBySurvey(Model model);
  void LearnBlind();
  void TestElsewhere(Model model) const;
  bool Write();
  // The estimator that the verdict is about: calibrated, unless plain alone is to be used.
  int best() const {
    const auto use = bilevel::Verdict::kUseLearned;
    return verdicts_[0].kind == use && verdicts_[1].kind != use ? 0 : 1;
  }

  std::vector<Recording> recordings_, unseen_;  // Nothing is learned from the unseen ones.
  RangeSlam train_, test_;                      // Halves of the first recording.
  // By model, the plain one first.
  std::vector<std::vector<Outcome>> outcomes_;
  std::string lines_[2];
  bilevel::Verdict verdicts_[2];
  bilevel::Solver::Summary summaries_[2];
  examples::Json json_;
  bool ok_ = true;  // Nothing has failed so far.
};

int Study::Run(const std::vector<std::string>& words) {
  const double begin = Now();
  if (!Read(words)) return 1;
  CompareBySurvey(kPlain);
  CompareBySurvey(kCalibrated);
  examples::SayVerdict(verdicts_[best()]);
  Say("(Position errors [m] of the %s estimator, beside its noise as set by hand.)\n",
      best() == 0 ? "plain" : "calibrated");
  for (int k : {0, 1}) {
    if (verdicts_[k].kind != bilevel::Verdict::kUseLearned) continue;
    Say("\nTo paste (%s):\n\n%s", k == 0 ? "plain" : "calibrated", lines_[k].c_str());
  }
  if (FLAGS_more) {
    LearnBlind();
    json_.Add("more", LearnMore(train_, unseen_));
  }
  if (FLAGS_more && unseen_.size() > 1) {
    Say("\nLearned on one (rows), tested on another (columns)\n");
    TestElsewhere(kPlain);
    TestElsewhere(kCalibrated);
  }
  Say("\n%.0f s in all.\n", Now() - begin);
  return examples::ExitCode(Write(), verdicts_[best()]);
}

bool Study::Read(const std::vector<std::string>& words) {
  if (FLAGS_simulate) {
    Simulate(&recordings_);
  } else if (!::Read(words[0], &recordings_) ||
             (!FLAGS_test.empty() && !::Read(FLAGS_test, &recordings_))) {
    return false;
  }
  const RangeSlam& first = recordings_[0].data;
  const double half = FLAGS_quick ? 0.25 : 0.5;
  const bool whole = !FLAGS_test.empty() && !FLAGS_halves;
  train_ = whole ? first : Cut(first, 0.0, half);
  test_ = whole ? recordings_[1].data : Cut(first, 0.5, 0.5 + half);
  if (train_.ranges.size() < 20 || test_.ranges.size() < 20) {
    return examples::Fail("There are fewer than 20 ranges to learn on or to test on");
  }
  unseen_ = {{recordings_[whole].name + (whole ? "" : ", second half"), test_}};
  if (!whole && !FLAGS_quick && recordings_.size() > 1) unseen_.push_back(recordings_[1]);
  Say("%s: learning on %zu ranges, testing on %zu %s. Position errors are mean (RMS).\n\n",
      recordings_[0].name.c_str(),
      train_.ranges.size(),
      test_.ranges.size(),
      whole ? ("of " + recordings_[1].name).c_str() : "later ones");
  return true;
}

void Study::CompareBySurvey(Model model) {
  const bool plain = !model.calibrated;
  Say(plain ? "Plain: sigma of translation [m], turn [rad], range [m], Cauchy's scale.\n"
            : "\nCalibrated: sigma forward, sideways [m], turn [rad], range [m], "
              "Cauchy's scale.\n");
  bilevel::Solver::Summary& summary = summaries_[plain ? 0 : 1];
  outcomes_.push_back(Compare(train_, test_, model, &lines_[plain ? 0 : 1], &summary));
  const std::vector<Outcome>& outcomes = outcomes_.back();
  verdicts_[plain ? 0 : 1] = bilevel::JudgeLearned(
      {}, outcomes[0].test, outcomes[1].test, FLAGS_safe ? nullptr : &summary);
  Say("%s\n", verdicts_[plain ? 0 : 1].ToString().c_str());
  Say("%s\n", outcomes[1].note.c_str());
  Print(outcomes, model);
  Say("%s\n", summary.BriefReport().c_str());
  ok_ = ok_ && summary.IsSolutionUsable() && !outcomes[1].test.empty();
  if (!ok_) Say("\nIt failed: %s.\n", summary.message.c_str());
  examples::Json group;
  const char* names[] = {"by_hand", "learned", "grid", "nelder_mead"};
  for (size_t i = 0; i < outcomes.size(); ++i) group.Add(names[i], ToJson(outcomes[i]));
  json_.Add(plain ? "plain" : "calibrated", group);
}

// What ranges tell without a survey, by what is held out together.
void Study::LearnBlind() {
  Say("\nWithout the survey (plain): ranges predicted where they were held out.\n");
  examples::Table table({"held out", "settings", "train [m]", "test [m]", "cold", "warm", "s"});
  std::string error;
  for (const auto& [score, name, key] :
       {std::tuple(Score::kBeacons, "one beacon at a time", "beacons"),
        std::tuple(Score::kRandom, "random quarters", "random"),
        std::tuple(Score::kTime, "quarters of time", "time")}) {
    Estimator e(train_, kPlain, Settings());
    Outcome o;
    const bool solved = e.ScoreBy(score, &error) && e.Solve(50);
    if (solved) e.Normalise();
    o.settings = e.settings();
    o.score = e.summary().final_objective;
    SetCounts(e.summary().lower_solver, e.seconds(), &o);
    if (solved) {
      o.train = e.Errors();
      o.test = Test(test_, kPlain, o.settings);
    }
    table.Add({name,
               Row(o.settings, kPlain),
               Cell(o.train),
               Cell(o.test),
               std::to_string(o.cold),
               std::to_string(o.warm),
               Format("%.2f", o.seconds)});
    json_.Add(key, ToJson(o));
    if (FLAGS_quick) break;
  }
  Say("%s", table.ToString().c_str());
  if (FLAGS_quick) return;
  Say("Ranges close in time share an error: held out at random, their neighbours foretell it, and "
      "the\nestimate that follows the error scores best. What shares an error is held out "
      "together.\n");
}

void Study::TestElsewhere(Model model) const {
  const std::vector<Recording> sets = {
      {recordings_[0].name + ", first half", train_}, unseen_[0], unseen_[1]};
  examples::Table table(
      {model.calibrated ? "calibrated" : "plain", sets[0].name, sets[1].name, sets[2].name});
  for (int from = -1; from < 3; ++from) {
    Settings settings;
    if (from >= 0) {
      Estimator e(sets[from].data, model, Settings());
      std::string error;
      e.ScoreBy(Score::kTruth, &error);
      std::string note;
      e.Learn(&note);
      settings = e.settings();
    }
    std::vector<std::string> row = {from < 0 ? "set by hand" : sets[from].name};
    for (const Recording& to : sets) row.push_back(Cell(Test(to.data, model, settings)));
    table.Add(row);
  }
  Say("%s\n", table.ToString().c_str());
}

bool Study::Write() {
  examples::Json json =
      examples::BeginJson("range", verdicts_[best()], outcomes_[best()][1].values);
  json.Append(json_)
      .Add("estimator", best() == 0 ? "plain" : "calibrated")
      .Add("rule_plain", outcomes_[0][1].note)
      .Add("rule_calibrated", outcomes_[1][1].note)
      .Add("lines", lines_[0] + lines_[1])
      .Add("verdict_plain", examples::ToJson(verdicts_[0]))
      .Add("verdict_calibrated", examples::ToJson(verdicts_[1]))
      .AddRaw("summary", summaries_[0].Json());
  bool ok = examples::WriteFile(FLAGS_json, json.ToString()) && ok_;
  ok = examples::WriteTrace(summaries_[0]) && ok;
  if (!FLAGS_plot.empty()) ok = Draw(test_, outcomes_[0], outcomes_[1][1]) && ok;
  return ok;
}

int Run(const std::vector<std::string>& words) { return Study().Run(words); }

}  // namespace

const examples::Command examples::kRange = {
    "range",
    "odometry and range noise of localisation by radio beacons, and the sensors' constants",
    {"PREFIX"},
    "Learns the noise of odometry and ranges, and the loss on ranges, on the first\n"
    "half of a recording with a survey, and tests them on the second; by two\n"
    "estimators, \"plain\" and \"calibrated\" (a scale of ranges and a drift of the\n"
    "gyroscope too). A recording is PREFIX_DR.txt (time distance turn a line), _TD\n"
    "(time sender beacon range), _GT (the survey: time x y heading) and _TL (beacon\n"
    "x y), as CMU's Plaza recordings are.\n\n"
    "  bilevel-tune range data/Plaza2\n"
    "  bilevel-tune range data/Plaza2 --test=data/Plaza1 --json=noise.json\n",
    {"test=PREFIX"},
    {"halves", "more", "safe", "baselines", "simulate"},
    "recordings hold no noise; the report and --json have it",
    Run};
