// Which distortion terms should a camera calibration keep? Learned, not guessed.
//
//   lower level   y*(x) = argmin  sum over training views rho(|corner - projection(y)|^2 / sigma^2)
//                               + sum over distortion terms |term(y)|^2 / tau^2
//   upper level   x     = argmin  sum over left-out views  min over its pose |reprojection|^2
//
// y: intrinsics and distortion of two cameras, their relative pose, the boards' poses. x:
// logarithms of the corner noise sigma of each camera and of the size tau that each kind of
// distortion term is expected to have, measured as displacement in the image's corner in pixels. A
// term that does not help on views it has not seen gets a small tau and vanishes; one that does
// keeps its freedom.
//
// Every view is left out once (each fold is a scenario with calibration of its own). The usual
// choices, a set of terms that is free and the others zero, are run beside it. Both are judged on
// outer folds of random partitions: views that neither the calibration nor x has seen.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"
#include "ceres/ceres.h"
#include "ceres/rotation.h"
#include "examples/support/baselines.h"
#include "examples/support/left_out_cost.h"
#include "examples/support/plot.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"
#include "examples/support/vision/calibration.h"
#include "examples/tune/command.h"
#include "examples/tune/report.h"

DEFINE_int32(folds, 6, "outer folds, for the comparison");
DEFINE_int32(partitions, 3, "random partitions into folds, for the comparison");
DEFINE_double(start_size, 3.0, "size [px] that every distortion term is expected to have at first");

namespace {

using examples::Distortion;
using examples::Fail;
using examples::Format;
using examples::Intrinsics;
using examples::Now;
using examples::Pose;
using examples::Say;
using examples::StereoCorners;

constexpr int kGroups = 4;
constexpr const char* kGroupNames[kGroups] = {"k1", "k2", "p1, p2", "k3"};
const std::vector<int> kGroupTerms[kGroups] = {{0}, {1}, {2, 3}, {4}};
// The power of the distance from the image's centre that each term grows with.
constexpr int kTerms = 5;
constexpr int kPower[kTerms] = {3, 5, 2, 2, 7};
constexpr double kFairView = 0.5;     // Pixels: a view with a larger RMS shall not decide alone.
constexpr double kWorth = 1e-3;       // A term is worth keeping for such a share of the RMS.
constexpr double kNegligible = 1e-3;  // Pixels: the size that stands for "not there".

// What a unit of each term is worth in the image's corner, in pixels.
std::array<double, kTerms> CornerDisplacement(const StereoCorners& corners, double focal) {
  const double r = 0.5 * std::hypot(corners.width, corners.height) / focal;
  std::array<double, kTerms> displacement;
  for (int j = 0; j < kTerms; ++j) displacement[j] = focal * std::pow(r, kPower[j]);
  return displacement;
}

// ------------------------------------------------------------------------------------------------

struct LeftError {
  template <typename T>
  bool operator()(const T* k, const T* d, const T* board, T* r) const {
    const T on_board[3] = {T(c.x), T(c.y), T(0.0)};
    T point[3], pixel[2];
    examples::Transform(board, on_board, point);
    examples::Project(k, d, point, pixel);
    r[0] = pixel[0] - c.u;
    r[1] = pixel[1] - c.v;
    return true;
  }
  StereoCorners::Corner c;
};

struct RightError {
  template <typename T>
  bool operator()(const T* k, const T* d, const T* right_from_left, const T* board, T* r) const {
    const T on_board[3] = {T(c.x), T(c.y), T(0.0)};
    T left[3], point[3], pixel[2];
    examples::Transform(board, on_board, left);
    examples::Transform(right_from_left, left, point);
    examples::Project(k, d, point, pixel);
    r[0] = pixel[0] - c.u;
    r[1] = pixel[1] - c.v;
    return true;
  }
  StereoCorners::Corner c;
};

// Some terms of a distortion, in pixels at the image's corner.
struct TermSize {
  template <typename T>
  bool operator()(T const* const* d, T* r) const {
    for (size_t i = 0; i < terms.size(); ++i) r[i] = displacement[terms[i]] * d[0][terms[i]];
    return true;
  }
  std::vector<int> terms;
  std::array<double, kTerms> displacement;
};

// A left-out view: its reprojection errors as a function of the calibration alone, the board's pose
// being the best one for it.
std::unique_ptr<examples::LeftOutCost> LeftOutView(const StereoCorners::View& view,
                                                   const Pose& start) {
  constexpr int kPose = examples::LeftOutCost::kUnknown;
  std::vector<examples::LeftOutCost::Part> parts;
  for (const auto& corner : view[0]) {
    parts.push_back({std::make_shared<ceres::AutoDiffCostFunction<LeftError, 2, 4, kTerms, 6>>(
                         new LeftError{corner}),
                     {0, 1, kPose}});
  }
  for (const auto& corner : view[1]) {
    parts.push_back({std::make_shared<ceres::AutoDiffCostFunction<RightError, 2, 4, kTerms, 6, 6>>(
                         new RightError{corner}),
                     {2, 3, 4, kPose}});
  }
  return std::make_unique<examples::LeftOutCost>(std::move(parts),
                                                 std::vector<int>{4, kTerms, 4, kTerms, 6},
                                                 std::vector<double>(start.begin(), start.end()));
}

// ------------------------------------------------------------------------------------------------

struct Calibration {
  std::array<Intrinsics, 2> k;
  std::array<Distortion, 2> d;
  Pose right_from_left;
  std::vector<Pose> boards;
  double* blocks[5] = {};
};

// Logarithms: corner noise of the two cameras, where outliers begin [sigmas], sizes of the terms
// [pixels]. Only ratios of them matter below, so the left camera's noise stays 1.
struct Hyper {
  std::array<double, 2> log_sigma{0.0, 0.0};
  double log_tail = std::log(3.0);
  std::array<double, kGroups> log_tau{};
};

struct Data {
  StereoCorners corners;
  examples::CalibrationGuess guess;
  std::array<double, kTerms> displacement;

  Calibration Start() const {
    Calibration c;
    c.k = guess.intrinsics;
    c.d[0].fill(0.0);
    c.d[1].fill(0.0);
    c.right_from_left = guess.right_from_left;
    c.boards = guess.boards;
    return c;
  }
};

// Corner noise of x, where given, and all terms under its priors or those in `free` alone.
void AddCalibration(const Data& data,
                    const std::vector<int>& views,
                    Hyper* x,
                    const std::vector<int>* free,
                    Calibration* c,
                    ceres::Problem* problem) {
  ceres::LossFunction* losses[2] = {nullptr, nullptr};
  for (int side = 0; side < 2 && x; ++side) {
    losses[side] = new bilevel::NoiseScaleLoss(
        new bilevel::CauchyLoss(&x->log_tail), &x->log_sigma[side], ceres::TAKE_OWNERSHIP);
  }
  for (const int view : views) {
    for (const auto& corner : data.corners.views[view][0]) {
      problem->AddResidualBlock(
          new bilevel::AutoDiffCostFunction<LeftError, 2, 4, kTerms, 6>(new LeftError{corner}),
          losses[0],
          c->k[0].data(),
          c->d[0].data(),
          c->boards[view].data());
    }
    for (const auto& corner : data.corners.views[view][1]) {
      problem->AddResidualBlock(
          new bilevel::AutoDiffCostFunction<RightError, 2, 4, kTerms, 6, 6>(new RightError{corner}),
          losses[1],
          c->k[1].data(),
          c->d[1].data(),
          c->right_from_left.data(),
          c->boards[view].data());
    }
  }
  if (free) {
    std::vector<int> constant;
    for (int j = 0; j < kTerms; ++j) {
      if (std::find(free->begin(), free->end(), j) == free->end()) constant.push_back(j);
    }
    for (Distortion& d : c->d) {
      if (free->empty()) {
        problem->SetParameterBlockConstant(d.data());
      } else if (!constant.empty()) {
        problem->SetManifold(d.data(), new ceres::SubsetManifold(kTerms, constant));
      }
    }
    return;
  }
  for (int g = 0; g < kGroups; ++g) {
    auto* loss = new bilevel::NoiseScaleLoss(nullptr, &x->log_tau[g], ceres::TAKE_OWNERSHIP);
    for (Distortion& d : c->d) {
      auto* cost = new bilevel::DynamicAutoDiffCostFunction<TermSize>(
          new TermSize{kGroupTerms[g], data.displacement});
      cost->AddParameterBlock(kTerms);
      cost->SetNumResiduals(static_cast<int>(kGroupTerms[g].size()));
      problem->AddResidualBlock(cost, loss, d.data());
    }
  }
}

ceres::Solver::Options LowerOptions() {
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::DENSE_SCHUR;
  options.max_num_iterations = 200;
  options.function_tolerance = 1e-10;
  options.logging_type = ceres::SILENT;
  return options;
}

// Plain Ceres, from the start.
bool Calibrate(const Data& data,
               const std::vector<int>& views,
               Hyper* x,
               const std::vector<int>* free,
               Calibration* c) {
  *c = data.Start();
  ceres::Problem problem;
  AddCalibration(data, views, x, free, c, &problem);
  ceres::Solver::Summary summary;
  ceres::Solve(LowerOptions(), &problem, &summary);
  return summary.IsSolutionUsable();
}

// Sum of squares over the corners of a left-out view [px^2].
double Score(const Data& data, int view, const Calibration& c) {
  const auto cost = LeftOutView(data.corners.views[view], data.guess.boards[view]);
  const double* blocks[] = {
      c.k[0].data(), c.d[0].data(), c.k[1].data(), c.d[1].data(), c.right_from_left.data()};
  Eigen::VectorXd r(cost->num_residuals());
  return cost->Evaluate(blocks, r.data(), nullptr) ? r.squaredNorm() : HUGE_VAL;
}

double NumCorners(const Data& data, const std::vector<int>& views) {
  double n = 0.0;
  for (const int v : views) n += data.corners.views[v][0].size() + data.corners.views[v][1].size();
  return n;
}

struct Split {
  std::vector<int> training, left_out;
};

// A partition of the views, the seed's; 0: every num_folds-th.
std::vector<Split> Folds(std::vector<int> views, int num_folds, unsigned seed) {
  std::mt19937 generator(seed);
  for (size_t i = views.size(); seed > 0 && i > 1; --i) {
    std::swap(views[i - 1], views[generator() % i]);
  }
  std::vector<Split> folds(num_folds);
  for (size_t i = 0; i < views.size(); ++i) {
    for (int f = 0; f < num_folds; ++f) {
      (static_cast<int>(i) % num_folds == f ? folds[f].left_out : folds[f].training)
          .push_back(views[i]);
    }
  }
  return folds;
}

// ------------------------------------------------------------------------------------------------

struct Learned {
  Hyper x;
  bilevel::Solver::Summary summary;
  bool ok = false;
};

// Leaves views out of `views`, a few at a time, and learns x from how well they are predicted.
Learned Learn(const Data& data, const std::vector<int>& views) {
  Learned learned;
  Hyper& x = learned.x;
  x.log_tau.fill(std::log(FLAGS_start_size));
  const std::vector<Split> folds =
      Folds(views, std::min(FLAGS_quick ? 4 : 6, static_cast<int>(views.size())), 0);
  std::vector<Calibration> calibrations(folds.size());
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&x.log_sigma[1], 1);
  problem.SetParameterName(&x.log_sigma[1], "log noise of the right camera");
  problem.SetParameterLowerBound(&x.log_sigma[1], 0, -std::log(4.0));
  problem.SetParameterUpperBound(&x.log_sigma[1], 0, std::log(4.0));
  problem.AddUpperParameterBlock(&x.log_tail, 1);
  problem.SetParameterName(&x.log_tail, "log scale of outliers");
  problem.SetParameterLowerBound(&x.log_tail, 0, std::log(0.5));
  problem.SetParameterUpperBound(&x.log_tail, 0, std::log(30.0));
  for (int g = 0; g < kGroups; ++g) {
    double* block = &x.log_tau[g];
    problem.AddUpperParameterBlock(block, 1);
    problem.SetParameterName(block, std::string("log size of ") + kGroupNames[g]);
    problem.SetParameterLowerBound(block, 0, std::log(kNegligible));
    problem.SetParameterUpperBound(block, 0, std::log(1e4));
  }
  for (size_t f = 0; f < folds.size(); ++f) {
    Calibration& c = calibrations[f];
    c = data.Start();
    auto* scenario =
        problem.AddScenario("without fold " + std::to_string(f), 1.0 / NumCorners(data, views));
    AddCalibration(data, folds[f].training, &x, nullptr, &c, scenario->lower());
    for (const int view : folds[f].left_out) {
      scenario->upper()->AddResidualBlock(
          LeftOutView(data.corners.views[view], data.guess.boards[view]).release(),
          new ceres::HuberLoss(kFairView * std::sqrt(NumCorners(data, {view}))),
          c.k[0].data(),
          c.d[0].data(),
          c.k[1].data(),
          c.d[1].data(),
          c.right_from_left.data());
    }
  }
  bilevel::Solver::Options options;
  options.num_threads = FLAGS_num_threads;
  options.lower_solver_options = LowerOptions();
  options.function_tolerance = 1e-5;
  bilevel::LevenbergMarquardt::Options method;
  method.initial_trust_region_radius = 1.0;
  method.max_trust_region_radius = 3.0;
  options.method = std::make_shared<bilevel::LevenbergMarquardt>(method);
  examples::Solve(options, &problem, &learned.summary);
  learned.ok = learned.summary.IsSolutionUsable();
  return learned;
}

struct Choice {
  std::string name;
  std::vector<int> free;
  std::vector<double> by_view;  // Sums of squares on outer folds [px^2].
  double seconds = 0.0;
  double Rms(double corners) const {
    double sum = 0.0;
    for (const double s : by_view) sum += s;
    return std::sqrt(sum / corners);
  }
};

// Adds the views' sums of squares, each view predicted without its own fold.
void CrossValidate(const Data& data,
                   const std::vector<Split>& folds,
                   Hyper* x,
                   const std::vector<int>* free,
                   std::vector<double>* by_view) {
  for (const Split& fold : folds) {
    Calibration c;
    const bool ok = Calibrate(data, fold.training, x, free, &c);
    for (const int v : fold.left_out) (*by_view)[v] += ok ? Score(data, v, c) : HUGE_VAL;
  }
}

// What leaving a term out changes: the RMS on left-out views, relative, and its standard error.
struct Change {
  double mean = 0.0, error = 0.0;
  bool matters() const { return mean > 2.0 * error && mean > kWorth; }
};

// By view, as the views are what varies; of the RMS, to first order.
Change Compare(const std::vector<double>& without, const std::vector<double>& with) {
  const auto n = static_cast<double>(with.size());
  double mean = 0.0, squares = 0.0, sum = 0.0;
  for (size_t v = 0; v < with.size(); ++v) {
    mean += (without[v] - with[v]) / n;
    sum += with[v];
  }
  for (size_t v = 0; v < with.size(); ++v) squares += std::pow(without[v] - with[v] - mean, 2);
  const double scale = 0.5 * n / sum;
  return {scale * mean, scale * std::sqrt(squares / (n * (n - 1.0)))};
}

Data Simulate() {
  Data data;
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  const Intrinsics k[2] = {{536.0, 536.0, 342.0, 235.0}, {540.0, 539.0, 327.0, 248.0}};
  const Distortion d[2] = {{-0.28, 0.09, 0.001, -0.0008, 0.0}, {-0.29, 0.1, -0.0012, 0.0006, 0.0}};
  const Pose right_from_left{0.01, 0.005, -0.004, -3.3, 0.04, 0.0};
  const double noise[2] = {0.15, 0.3};
  for (int view = 0; view < 13; ++view) {
    const std::string name = std::to_string(view + 1);
    Pose board;
    bool inside = false;
    while (!inside) {
      inside = true;
      for (int i = 0; i < 3; ++i) board[i] = 0.45 * uniform(generator);
      const double depth = 11.0 + 3.0 * uniform(generator);
      board[3] = -2.5 + 3.5 * uniform(generator);
      board[4] = -2.5 + 2.5 * uniform(generator);
      board[5] = depth;
      StereoCorners::View corners;
      for (int i = 0; i < 54; ++i) {
        const double on_board[3] = {double(i % 9), double(i / 9), 0.0};
        double left[3], right[3], pixel[2];
        examples::Transform(board.data(), on_board, left);
        examples::Transform(right_from_left.data(), left, right);
        for (int side = 0; side < 2; ++side) {
          examples::Project(k[side].data(), d[side].data(), side ? right : left, pixel);
          inside = inside && pixel[0] > 5 && pixel[0] < 635 && pixel[1] > 5 && pixel[1] < 475;
          corners[side].push_back({on_board[0],
                                   on_board[1],
                                   pixel[0] + noise[side] * normal(generator),
                                   pixel[1] + noise[side] * normal(generator)});
        }
      }
      if (!inside) continue;
      data.corners.names.push_back(name);
      data.corners.views.push_back(corners);
    }
  }
  return data;
}

// The steps of the study, in the order in which they run and print.
class Study {
 public:
  int Run(const std::string& path);

 private:
  bool Read(const std::string& path);
  bool CalibrateFirst();
  void CompareOnOuterFolds();
  void PrintComparison();
  void LearnFromAllViews();
  std::vector<double> LeftOut(const std::vector<int>& groups);
  void ChooseTerms();
  void PrintTerms();
  void MeasureNoise();
  void Paste();
  void PrintLines() const;
  std::vector<examples::Learned> Values() const;
  void Write(double seconds);
  bool WriteOpenCv();
  examples::Panel ErrorsByView() const;
  examples::Panel RadialDistortion() const;
  examples::Panel Sizes() const;
  examples::Panel Convergence() const;

  bool is_kept(int group) const {
    return std::find(kept_.begin(), kept_.end(), group) != kept_.end();
  }
  std::vector<double> ErrorsOfViews(const Choice& choice) const {
    std::vector<double> errors;
    for (const int v : all_) {
      errors.push_back(std::sqrt(choice.by_view[v] / (partitions_ * NumCorners(data_, {v}))));
    }
    return errors;
  }
  double Rms(const Choice& choice) const { return choice.Rms(num_corners_ * partitions_); }
  int num_views() const { return static_cast<int>(all_.size()); }

  Data data_;
  std::vector<int> all_;  // Views.
  double num_corners_ = 0.0;
  bool ok_ = true;  // Nothing has failed so far.

  const int partitions_ = FLAGS_quick ? 1 : FLAGS_partitions;
  std::vector<Choice> choices_;  // The usual ones.
  Choice learned_choice_;
  double best_rms_ = HUGE_VAL;  // Of the usual ones, in hindsight.
  std::string best_name_;
  Change to_best_;
  bilevel::Verdict verdict_;

  Learned learned_;                       // From all views,
  Calibration calibration_, paste_;       // all terms under its priors, and those kept alone.
  std::vector<int> kept_ = {0, 1, 2, 3};  // Groups of terms.
  std::array<Change, kGroups> changes_;
  examples::Json verdicts_;
  double noise_ratio_ = 0.0;  // Right over left.
};

int Study::Run(const std::string& path) {
  const double begin = Now();
  if (!Read(path) || !CalibrateFirst()) return 1;
  CompareOnOuterFolds();
  PrintComparison();
  LearnFromAllViews();
  ChooseTerms();
  PrintTerms();
  MeasureNoise();
  Paste();
  Write(Now() - begin);
  return examples::ExitCode(ok_, verdict_);
}

bool Study::Read(const std::string& path) {
  std::string error;
  if (FLAGS_simulate) {
    data_ = Simulate();
  } else if (!examples::ReadStereoCorners(path, &data_.corners, &error)) {
    return Fail(error);
  }
  if (!examples::GuessCalibration(data_.corners, &data_.guess, &error)) {
    return Fail("No calibration to start from: " + error);
  }
  all_.resize(data_.corners.views.size());
  std::iota(all_.begin(), all_.end(), 0);
  if (num_views() < 6) return Fail(path + ": six views at least are needed");
  if (!(FLAGS_start_size > 0.0) || FLAGS_folds < 2 || FLAGS_partitions < 1 || FLAGS_seed < 0) {
    return Fail(
        "--start_size and --partitions must be positive, --seed not negative, --folds 2 or more");
  }
  data_.displacement = CornerDisplacement(data_.corners, data_.guess.intrinsics[0][0]);
  return true;
}

// Poses to start from, for left-out views too.
bool Study::CalibrateFirst() {
  const std::vector<int> radial = {0};
  Calibration first;
  if (!Calibrate(data_, all_, nullptr, &radial, &first)) {
    return Fail("The first calibration failed");
  }
  data_.guess.boards = first.boards;
  data_.guess.intrinsics = first.k;
  data_.guess.right_from_left = first.right_from_left;
  num_corners_ = NumCorners(data_, all_);
  Say("%d stereo views, %.0f corners.\n", num_views(), num_corners_);
  return true;
}

// Of an outer fold neither calibration nor learning, with folds of its own within the other views,
// sees anything.
void Study::CompareOnOuterFolds() {
  const std::vector<double> zeros(num_views(), 0.0);
  choices_ = {{"no distortion", {}, zeros},
              {"k1", {0}, zeros},
              {"k1, k2", {0, 1}, zeros},
              {"k1, k2, p1, p2", {0, 1, 2, 3}, zeros},
              {"k1, k2, p1, p2, k3", {0, 1, 2, 3, 4}, zeros}};
  learned_choice_ = {"learned", {}, zeros};
  for (int p = 0; p < partitions_; ++p) {
    const std::vector<Split> outer =
        Folds(all_, std::min(FLAGS_quick ? 3 : FLAGS_folds, num_views()), FLAGS_seed + 1 + p);
    for (Choice& choice : choices_) {
      const double start = Now();
      CrossValidate(data_, outer, nullptr, &choice.free, &choice.by_view);
      choice.seconds += Now() - start;
    }
    const double start = Now();
    for (size_t f = 0; f < outer.size(); ++f) {
      const Split& fold = outer[f];
      const auto share = static_cast<double>(p * outer.size() + f) /
                         static_cast<double>(partitions_ * outer.size());
      examples::ShowProgress("learning on outer folds", 0.9 * share);  // Then on all views.
      Learned learned = Learn(data_, fold.training);
      ok_ = ok_ && learned.ok;
      if (!learned.ok) Say("A fold failed: %s.\n", learned.summary.message.c_str());
      CrossValidate(data_, {fold}, &learned.x, nullptr, &learned_choice_.by_view);
    }
    learned_choice_.seconds += Now() - start;
  }
}

void Study::PrintComparison() {
  // A view's error is the mean of all its corners: ten views tell something.
  bilevel::VerdictOptions options;
  options.num_errors_a_block = 1;
  options.fewest_errors = 10;
  verdict_ = bilevel::JudgeLearned(
      options, ErrorsOfViews(choices_.back()), ErrorsOfViews(learned_choice_), nullptr);
  examples::SayVerdict(verdict_);
  Say("Before: %s free, as OpenCV has it.\n", choices_.back().name.c_str());
  Say("\nViews of outer folds, which neither calibration nor learning has seen: RMS reprojection "
      "[px]\n\n");
  examples::Table table({"free terms", "RMS [px]", "to learned", "standard error", "seconds"});
  const double learned_rms = Rms(learned_choice_);
  for (const Choice& choice : choices_) {
    const Change change = Compare(choice.by_view, learned_choice_.by_view);
    const double rms = Rms(choice);
    if (!choice.free.empty() && rms < best_rms_) {
      best_rms_ = rms;
      best_name_ = choice.name;
      to_best_ = change;
    }
    table.Add({choice.name,
               Format("%.5f", rms),
               Format("%+.2f %%", 100.0 * (rms / learned_rms - 1.0)),
               Format("%.2f %%", 100.0 * change.error),
               Format("%.1f", choice.seconds)});
  }
  table.Add(
      {"learned", Format("%.5f", learned_rms), "", "", Format("%.1f", learned_choice_.seconds)});
  Say("%s\n", table.ToString().c_str());
}

void Study::LearnFromAllViews() {
  learned_ = Learn(data_, all_);
  ok_ = ok_ && learned_.ok;
  Say("%s\n", learned_.summary.BriefReport().c_str());
  ok_ = Calibrate(data_, all_, &learned_.x, nullptr, &calibration_) && ok_;
}

// Left-out views' sums of squares where these groups of terms are free and the others zero.
std::vector<double> Study::LeftOut(const std::vector<int>& groups) {
  std::vector<int> free;
  std::vector<double> by_view(num_views(), 0.0);
  for (const int g : groups) {
    free.insert(free.end(), kGroupTerms[g].begin(), kGroupTerms[g].end());
  }
  for (int p = 0; p < (FLAGS_quick ? 2 : FLAGS_partitions); ++p) {
    const auto folds = Folds(all_, std::min(6, num_views()), FLAGS_seed + 1 + p);
    CrossValidate(data_, folds, &learned_.x, &free, &by_view);
  }
  return by_view;
}

// From all terms, free, the one that left-out views miss least goes first, as long as they do not
// tell that it matters.
void Study::ChooseTerms() {
  for (std::vector<double> with = LeftOut(kept_); !kept_.empty();) {
    std::vector<double> least_missed;
    int least = -1;
    for (const int g : kept_) {
      std::vector<int> others = kept_;
      others.erase(std::find(others.begin(), others.end(), g));
      const std::vector<double> without = LeftOut(others);
      changes_[g] = Compare(without, with);
      if (least >= 0 && changes_[g].mean >= changes_[least].mean) continue;
      least = g;
      least_missed = without;
    }
    if (changes_[least].matters()) break;
    kept_.erase(std::find(kept_.begin(), kept_.end(), least));
    with = least_missed;
  }
}

void Study::PrintTerms() {
  examples::Table terms({"term",
                         "expected [px]",
                         "left [px]",
                         "right [px]",
                         "RMS without it",
                         "standard error",
                         "keep?"});
  for (int g = 0; g < kGroups; ++g) {
    double size[2] = {0.0, 0.0};
    for (int side = 0; side < 2; ++side) {
      for (const int j : kGroupTerms[g]) {
        size[side] = std::hypot(size[side], data_.displacement[j] * calibration_.d[side][j]);
      }
    }
    const Change& change = changes_[g];
    const double tau = std::exp(learned_.x.log_tau[g]);
    terms.Add({kGroupNames[g],
               Format("%.3g", tau),
               Format("%.2f", size[0]),
               Format("%.2f", size[1]),
               Format("%+.2f %%", 100.0 * change.mean),
               Format("%.2f %%", 100.0 * change.error),
               is_kept(g)                                                   ? "yes"
               : change.mean < -2.0 * change.error && change.mean < -kWorth ? "no, it harms"
               : change.mean > change.error && change.mean > kWorth ? "no, though it may help"
                                                                    : "no"});
    verdicts_.Add(kGroupNames[g],
                  examples::Json()
                      .Add("tau", tau)
                      .Add("rms_change", change.mean)
                      .Add("standard_error", change.error)
                      .Add("keep", is_kept(g) ? 1 : 0));
  }
  Say("Which distortion terms should I keep? Those that left-out views miss by more than two "
      "standard\nerrors and %g %%, beside the others kept. Sizes at the image's corner, under "
      "the learned priors.\n\n%s\n",
      100.0 * kWorth,
      terms.ToString().c_str());
}

// Only ratios of sigma and tau matter below; the level is that of the residuals.
void Study::MeasureNoise() {
  const Calibration& c = calibration_;
  std::array<double, 2> squares{}, count{};
  for (const int v : all_) {
    const auto cost = LeftOutView(data_.corners.views[v], c.boards[v]);
    const double* blocks[] = {
        c.k[0].data(), c.d[0].data(), c.k[1].data(), c.d[1].data(), c.right_from_left.data()};
    Eigen::VectorXd r(cost->num_residuals());
    if (!cost->Evaluate(blocks, r.data(), nullptr)) continue;
    const auto left = static_cast<Eigen::Index>(2 * data_.corners.views[v][0].size());
    squares[0] += r.head(left).squaredNorm();
    squares[1] += r.tail(r.size() - left).squaredNorm();
    count[0] += static_cast<double>(left);
    count[1] += static_cast<double>(r.size() - left);
  }
  noise_ratio_ = std::exp(learned_.x.log_sigma[1] - learned_.x.log_sigma[0]);
  Say("Corner noise: right over left %.2f, outliers from %.1f sigma; RMS residuals %.3f and %.3f "
      "px.\n",
      noise_ratio_,
      std::exp(learned_.x.log_tail),
      std::sqrt(squares[0] / count[0]),
      std::sqrt(squares[1] / count[1]));
}

// The kept terms alone, free.
void Study::Paste() {
  std::vector<int> free;
  for (int g = 0; g < kGroups; ++g) {
    if (is_kept(g)) free.insert(free.end(), kGroupTerms[g].begin(), kGroupTerms[g].end());
  }
  ok_ = Calibrate(data_, all_, &learned_.x, &free, &paste_) && ok_;
  if (verdict_.kind == bilevel::Verdict::kUseLearned) PrintLines();
  const double learned_rms = Rms(learned_choice_);
  Say("\nBest of the usual choices on unseen views, in hindsight: %s, %.5f px, %+.2f %% (standard "
      "error %.2f %%)\nto the learned %.5f px.\n",
      best_name_.c_str(),
      best_rms_,
      100.0 * (best_rms_ / learned_rms - 1.0),
      100.0 * to_best_.error,
      learned_rms);
}

void Study::PrintLines() const {
  Say("\nTo paste, the kept terms alone (OpenCV's order k1 k2 p1 p2 k3):\n\n");
  for (int side = 0; side < 2; ++side) {
    const Intrinsics& k = paste_.k[side];
    const Distortion& d = paste_.d[side];
    Say("  // %s\n  cv::Matx33d(%.4f, 0, %.4f, 0, %.4f, %.4f, 0, 0, 1)\n"
        "  cv::Vec<double, 5>(%.6f, %.6f, %.6f, %.6f, %.6f)\n",
        side ? "right" : "left",
        k[0],
        k[2],
        k[1],
        k[3],
        d[0],
        d[1],
        d[2],
        d[3],
        d[4]);
  }
}

// As the verdict has it: the kept terms alone, or the usual choice; T in squares of the board.
bool Study::WriteOpenCv() {
  const bool use = verdict_.kind == bilevel::Verdict::kUseLearned;
  Calibration c = paste_;
  if (!use && !Calibrate(data_, all_, nullptr, &choices_.back().free, &c)) {
    return Fail("The usual calibration failed");
  }
  std::string text = "%YAML:1.0\n---\n";
  const auto add = [&](const std::string& name, int rows, const std::vector<double>& values) {
    const int columns = static_cast<int>(values.size()) / rows;
    text += Format("%s: !!opencv-matrix\n   rows: %d\n   cols: %d\n   dt: d\n   data: [ ",
                   name.c_str(),
                   rows,
                   columns);
    for (size_t i = 0; i < values.size(); ++i) text += Format(i ? ", %.17g" : "%.17g", values[i]);
    text += " ]\n";
  };
  for (int side = 0; side < 2; ++side) {
    const Intrinsics& k = c.k[side];
    const Distortion& d = c.d[side];
    const std::string number = std::to_string(side + 1);
    add("M" + number, 3, {k[0], 0.0, k[2], 0.0, k[1], k[3], 0.0, 0.0, 1.0});
    add("D" + number, 1, {d.begin(), d.end()});
  }
  Eigen::Matrix3d rotation;  // Column by column, the transpose of OpenCV's order.
  ceres::AngleAxisToRotationMatrix(c.right_from_left.data(), rotation.data());
  const Eigen::Matrix3d transpose = rotation.transpose();
  add("R", 3, {transpose.data(), transpose.data() + 9});
  add("T", 3, {c.right_from_left.begin() + 3, c.right_from_left.end()});
  Say("\n%s has the calibration with %s.\n",
      FLAGS_output.c_str(),
      use ? "the terms to keep" : choices_.back().name.c_str());
  return examples::WriteFile(FLAGS_output, text);
}

// Sizes that the terms are expected to have [pixels at the image's corner], and the noise.
std::vector<examples::Learned> Study::Values() const {
  const Hyper& x = learned_.x;
  std::vector<std::string> names = {"noise of the right camera over the left's", "loss scale"};
  std::vector<double> logs = {x.log_sigma[1], x.log_tail};
  for (int g = 0; g < kGroups; ++g) {
    names.push_back(std::string("size of ") + kGroupNames[g]);
    logs.push_back(x.log_tau[g]);
  }
  return examples::FromLogs(names, logs, learned_.summary);
}

void Study::Write(double seconds) {
  Say("%.0f s in all.\n", seconds);
  examples::Json json = examples::BeginJson("calibration", verdict_, Values());
  json.Add("views", num_views())
      .Add("learned_rms", Rms(learned_choice_))
      .Add("best_hand_rms", best_rms_)
      .Add("best_hand", best_name_)
      .Add("standard_error", to_best_.error)
      .Add("no_distortion_rms", Rms(choices_[0]))
      .Add("noise_ratio", noise_ratio_)
      .Add("outliers_from", std::exp(learned_.x.log_tail))
      .Add("left_focal", paste_.k[0][0])
      .Add("left_k1", paste_.d[0][0])
      .Add("terms", verdicts_)
      .AddRaw("summary", learned_.summary.Json());
  ok_ = examples::WriteFile(FLAGS_json, json.ToString()) && ok_;
  ok_ = examples::WriteTrace(learned_.summary) && ok_;
  if (!FLAGS_output.empty()) ok_ = WriteOpenCv() && ok_;
  if (FLAGS_plot.empty()) return;
  ok_ = examples::Plot(FLAGS_plot,
                       "Which distortion terms to keep",
                       {ErrorsByView(), RadialDistortion(), Convergence(), Sizes()}) &&
        ok_;
}

examples::Panel Study::ErrorsByView() const {
  examples::Panel bars{"Unseen views, by view", "view", "RMS reprojection [px]"};
  for (const Choice* choice : {&choices_[1], &choices_[4], &learned_choice_}) {
    examples::Series series{choice->name, "linespoints", {}, ErrorsOfViews(*choice)};
    for (const int v : all_) series.x.push_back(v + 1);
    bars.series.push_back(series);
  }
  return bars;
}

examples::Panel Study::RadialDistortion() const {
  examples::Panel curve{
      "Radial distortion of the left camera", "distance from the centre [px]", "displacement [px]"};
  for (const auto& [name, c] : {std::make_pair("learned priors", &calibration_),
                                std::make_pair("kept terms alone", &paste_)}) {
    const double focal = c->k[0][0];
    const Distortion& d = c->d[0];
    examples::Series series{name, "lines", {}, {}};
    for (int i = 0; i <= 40; ++i) {
      const double r = 10.0 * i / focal;
      series.x.push_back(10.0 * i);
      series.y.push_back(focal * r * r * r * (d[0] + r * r * (d[1] + r * r * d[4])));
    }
    curve.series.push_back(series);
  }
  return curve;
}

examples::Panel Study::Convergence() const {
  examples::Panel convergence{"Learning from all views", "iteration", "left-out RMS [px]"};
  examples::Series objective{"left-out views", "linespoints", {}, {}};
  for (const auto& it : learned_.summary.iterations) {
    if (!it.step_is_successful) continue;
    objective.x.push_back(it.iteration);
    objective.y.push_back(std::sqrt(2.0 * it.objective));
  }
  convergence.series.push_back(objective);
  return convergence;
}

examples::Panel Study::Sizes() const {
  examples::Panel sizes{"Expected sizes of the terms", "iteration", "[px] at the image's corner"};
  sizes.log_y = true;
  for (int g = 0; g < kGroups; ++g) {
    sizes.series.push_back({kGroupNames[g], "linespoints", {}, {}});
    for (const auto& it : learned_.summary.iterations) {
      if (!it.step_is_successful) continue;
      sizes.series[g].x.push_back(it.iteration);
      sizes.series[g].y.push_back(std::exp(it.x[2 + g]));
    }
  }
  return sizes;
}

int Run(const std::vector<std::string>& words) {
  return Study().Run(words.empty() ? "" : words[0]);
}

}  // namespace

const examples::Command examples::kCalibration = {
    "calibration",
    "a stereo camera: which distortion terms to keep, and the noise of its corners",
    {"CORNERS"},
    "Calibrates a pair of cameras with learned priors on its distortion terms and\n"
    "learned corner noise, and says which terms to keep. CORNERS are those of a flat\n"
    "board: a header, then side,view,corner,col,row,u,v a line, side left or right,\n"
    "col and row on the board in squares, u and v in pixels.\n\n"
    "  bilevel-tune calibration corners.csv --output=stereo.yml\n",
    {"output=write both cameras and their relative pose, as OpenCV's YAML (M1 D1 M2 D2 R T): with "
     "the terms to keep, or, where the verdict is to keep what you have, with all of them"},
    {"folds=N", "partitions=N", "start_size=PIXELS", "seed=N", "simulate"},
    "",
    Run};
