// Cleaning of labels: half of the training labels are replaced by random ones, and a weight for
// each training sample is learned from a few clean images, so that a linear softmax classifier
// trained with these weights predicts them well.
//
//   lower level   min over Theta of 1/n sum_i omega(w_i) CE(Theta a_i; b_i) + 0.001 |Theta|^2
//   upper level   min over w of the mean CE over the clean images
//
// The experiment of Liu, Ye, Wright, Stone and Liu, "BOME! Bilevel optimization made easy" (NeurIPS
// 2022), section 6; with --train=50000 --lower_step=0.01 --y_step=0.01 --w_step=500 it has the
// paper's data and steps. 5000 images are for the upper level, 5000 to select the iterate whose
// test accuracy is reported, 10,000 for the test. omega is a clipped w, or a sigmoid of it where a
// method has no projection. Theta starts at the fit to all noisy and clean images.
//
// Beside the methods stand the fits that the paper draws as lines: to the clean images only (solid)
// and to the clean images and the training images whose label is right (dashed).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/hyper_objective/line_search.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/methods/value_function/bome.h"
#include "examples/support/dense.h"
#include "examples/support/flags.h"
#include "examples/support/learning/experiment.h"
#include "examples/support/table.h"
#include "examples/support/text.h"

DEFINE_string(dataset, "mnist", "mnist or fashion_mnist");
DEFINE_int32(train, 5000, "training images");
DEFINE_double(corruption, 0.5, "the share of them whose label is drawn anew");
DEFINE_int32(
    iterations,
    200,
    "of the methods on all samples; lbfgs makes half as many, those on minibatches 40 times");
DEFINE_double(lower_step, 0.1, "of the steps on the lower level within an iteration");
DEFINE_double(y_step, 0.1, "of bome's Theta, with momentum 0.9");
DEFINE_string(split,
              "",
              "file with the order of the training set's images and then the training labels, "
              "instead of drawn ones: what another program had");
DEFINE_bool(from_zero, false, "start at Theta = 0 rather than at the fit to all images");
DEFINE_double(target_accuracy, 0.0, "print when the test accuracy first comes to this");
DEFINE_double(w_step, 0.0, "of w, with momentum 0.9; 0: 0.02 for each training image");

using bilevel::LinearModel;
using bilevel::StepRule;
using examples::Digits;

namespace {

constexpr int kPixels = Digits::kPixels, kClasses = Digits::kClasses, kClean = 5000, kBatch = 64;
constexpr double kRidge = 0.001;

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// False: the file has not what is wanted.
bool ReadSplit(std::vector<int>* order, std::vector<int>* labels) {
  std::ifstream file(FLAGS_split);
  const int size = static_cast<int>(order->size());
  for (int& i : *order) {
    if (!(file >> i) || i < 0 || i >= size) return false;
  }
  for (int& label : *labels) {
    if (!(file >> label) || label < 0 || label >= kClasses) return false;
  }
  return true;
}

// One split of the data, its corrupted labels, and the models on it.
struct Cleaning {
  Cleaning(const Digits& from, int num_train, int seed)
      : n(num_train), digits(from), order(from.train_labels.size()) {
    std::mt19937_64 generator(1000 + seed);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), generator);
    std::vector<int> given_labels(n);
    if (!FLAGS_split.empty()) ReadSplit(&order, &given_labels);
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < n; ++i) {
      const auto row = digits.train.row(order[i]).cast<double>();
      sum += row.sum();
      squares += row.squaredNorm();
    }
    mean = sum / (n * double{kPixels});
    deviation = std::sqrt(squares / (n * double{kPixels}) - mean * mean);
    const std::vector<int> clean = Labels(0, n), selection_labels = Labels(n + kClean, kClean);
    train_features = std::make_unique<bilevel::Features>(Pixels(0, n));
    noisy = clean;
    std::uniform_int_distribution<int> any(0, kClasses - 1);
    // The first ones, in an order that is random already.
    for (int i = 0; i < static_cast<int>(FLAGS_corruption * n); ++i) noisy[i] = any(generator);
    if (!FLAGS_split.empty()) noisy = given_labels;
    for (int i = 0; i < n; ++i) is_right.push_back(noisy[i] == clean[i]);
    validation_labels = Labels(n, kClean);
    validation_features = std::make_unique<bilevel::Features>(Pixels(n, kClean));
    validation = Validation();
    const LinearModel::Options options = Options(0.0);
    selection = bilevel::SoftmaxRegression(
        bilevel::Features(Pixels(n + kClean, kClean)), selection_labels, kClasses, options);
    test = bilevel::SoftmaxRegression(
        bilevel::Features(Standardized(digits.test)), digits.test_labels, kClasses, options);
    // To some of the training images and all clean ones, each counting the same.
    std::vector<double> theta(kPixels * kClasses, 0.0);
    const auto fit = [&](const std::vector<double>& w) {
      const double scale = 1.0 / (std::accumulate(w.begin(), w.end(), 0.0) + kClean);
      const auto some = Train(LinearModel::kClipped, scale), all = Validation(scale);
      examples::Fit({{some.get(), w.data()}, {all.get(), nullptr}, {&ridge, nullptr}}, 200, &theta);
    };
    if (!FLAGS_from_zero) fit(std::vector<double>(n, 1.0));
    start = theta;
    fit(is_right);
    dashed = theta;
    examples::Fit({{validation.get(), nullptr}, {&ridge, nullptr}}, 200, &theta);
    solid = theta;
  }

  template <typename Pixels>
  Rows Standardized(const Pixels& pixels) const {
    return (pixels.template cast<float>().array() - static_cast<float>(mean)) /
           static_cast<float>(deviation);
  }

  // Of the training set, in this split's order.
  Rows Pixels(int first, int count) const {
    Rows rows(count, kPixels);
    for (int i = 0; i < count; ++i) {
      rows.row(i) = Standardized(digits.train.row(order[first + i]));
    }
    return rows;
  }
  std::vector<int> Labels(int first, int count) const {
    std::vector<int> labels;
    for (int i = first; i < first + count; ++i) labels.push_back(digits.train_labels[order[i]]);
    return labels;
  }

  static LinearModel::Options Options(double scale) {
    LinearModel::Options options;
    options.scale = scale;
    options.num_threads = FLAGS_num_threads;
    return options;
  }

  std::unique_ptr<LinearModel> Train(LinearModel::Weights weights,
                                     double scale,
                                     const bilevel::Features* features = nullptr) const {
    LinearModel::Options options = Options(scale);
    options.weights = weights;
    return bilevel::SoftmaxRegression(
        features ? *features : *train_features, noisy, kClasses, options);
  }

  std::unique_ptr<LinearModel> Validation(double scale = 0.0,
                                          const bilevel::Features* features = nullptr) const {
    return bilevel::SoftmaxRegression(
        features ? *features : *validation_features, validation_labels, kClasses, Options(scale));
  }

  static double Loss(const LinearModel& model, const std::vector<double>& theta) {
    const double* blocks[] = {theta.data()};
    double value = 0.0;
    model.Evaluate(blocks, bilevel::Batch::All(), &value, nullptr);
    return value;
  }

  // F1 of finding the labels that are wrong: by w, or as those that Theta takes for less probable
  // than chance.
  double F1(const std::vector<double>& w, double threshold) const {
    double found = 0.0, named = 0.0, wrong = 0.0;
    for (int i = 0; i < n; ++i) {
      const bool is_named = w[i] < threshold;
      named += is_named;
      wrong += 1.0 - is_right[i];
      found += is_named && is_right[i] == 0.0;
    }
    return found > 0.0 ? 2.0 * found / (named + wrong) : 0.0;
  }
  double F1(const std::vector<double>& theta) const {
    std::vector<double> ones(n, 1.0), losses(n);
    const auto model = Train(LinearModel::kClipped, -1.0);
    const double* blocks[] = {theta.data(), ones.data()};
    double value = 0.0, *gradients[] = {nullptr, losses.data()};
    model->Evaluate(blocks, bilevel::Batch::All(), &value, gradients);
    return F1(losses, -std::log(kClasses));
  }

  int n;
  const Digits& digits;
  std::vector<int> order;
  double mean = 0.0, deviation = 1.0;
  std::unique_ptr<bilevel::Features> train_features, validation_features;
  std::vector<int> noisy, validation_labels;
  std::vector<double> is_right, start, solid, dashed;
  std::unique_ptr<LinearModel> validation, selection, test;
  bilevel::L2Regularizer ridge{kClasses, kPixels, kRidge};
};

// Theta in the principal axes of the training images, scaled to a curvature of about one: what an
// exact method solves for. Rotations leave |Theta|^2 as it is, and the ridge follows the scales.
struct ScaledAxes {
  explicit ScaledAxes(const Cleaning& data) {
    const Rows pixels = data.Pixels(0, data.n);
    const examples::SymmetricEigen axes(
        (pixels.transpose() * pixels / static_cast<float>(data.n)).cast<double>());
    // Cross entropy has a curvature of up to 0.1 in an output, and weights are a half at first.
    const Eigen::ArrayXd squares = 0.05 * axes.eigenvalues().array().max(0.0) + 2.0 * kRidge;
    const auto inverse = squares.rsqrt().matrix().asDiagonal();
    to_pixels = (axes.eigenvectors() * inverse).transpose();
    theta.resize(data.start.size());
    Matrix(theta) = Matrix(data.start) * axes.eigenvectors() * squares.sqrt().matrix().asDiagonal();
    const auto in_axes = [&](const Rows& rows) {
      return std::make_unique<bilevel::Features>(rows.cast<double>() * to_pixels.transpose());
    };
    train = in_axes(pixels);
    validation = in_axes(data.Pixels(data.n, kClean));
    log_ridge.resize(kPixels);
    Eigen::Map<Eigen::ArrayXd>(log_ridge.data(), kPixels) = -squares.log();
  }
  std::vector<double> ToPixels(const std::vector<double>& in_axes) const {
    std::vector<double> in_pixels(in_axes.size());
    Matrix(in_pixels) = Matrix(in_axes) * to_pixels;
    return in_pixels;
  }
  using RowMajor = Eigen::Matrix<double, kClasses, kPixels, Eigen::RowMajor>;
  static Eigen::Map<RowMajor> Matrix(std::vector<double>& v) {
    return Eigen::Map<RowMajor>(v.data());
  }
  static Eigen::Map<const RowMajor> Matrix(const std::vector<double>& v) {
    return Eigen::Map<const RowMajor>(v.data());
  }

  Eigen::MatrixXd to_pixels;
  std::vector<double> theta, log_ridge;  // The start; the ridge's weight along each axis.
  std::unique_ptr<bilevel::Features> train, validation;
};

struct Configuration {
  std::shared_ptr<bilevel::Method> method;
  bool sigmoid = false, scaled = false;
  int iterations = 0;
};

// "bome_T10" and the like; no method: there is none of that name.
Configuration Configure(const std::string& name, int n) {
  const int iterations = std::max(1, static_cast<int>(FLAGS_budget * FLAGS_iterations));
  Configuration c;
  c.iterations = iterations;
  StepRule w;
  w.kind = StepRule::kMomentum;
  w.step = FLAGS_w_step > 0.0 ? FLAGS_w_step : 0.02 * n;
  const size_t t = name.find("_T");
  const int steps = t == std::string::npos ? 10 : std::atoi(name.c_str() + t + 2);
  const std::string base = name.substr(0, t);
  if (base == "bome" || base == "bome_gradient") {
    bilevel::Bome::Options options;
    options.lower_level = bilevel::Bome::kGradientSteps;
    options.barrier =
        base == "bome" ? bilevel::Bome::kValueBarrier : bilevel::Bome::kGradientBarrier;
    options.eta = base == "bome" ? 0.1 : 0.5;
    options.num_lower_steps = steps;
    options.lower_step = FLAGS_lower_step;
    options.epsilon = 1e-8;
    options.x = options.y = w;
    options.y.step = FLAGS_y_step;
    c.method = std::make_shared<bilevel::Bome>(options);
  } else if (base == "aid_cg") {
    bilevel::AidHypergradient::Options options;
    options.num_lower_steps = steps;
    options.lower_step = FLAGS_lower_step;
    options.momentum = 0.9;
    c.method = std::make_shared<bilevel::GradientMethod>(
        base, std::make_unique<bilevel::AidHypergradient>(options), w);
  } else if (base == "itd") {
    bilevel::UnrolledHypergradient::Options options;
    options.num_lower_steps = steps;
    options.lower_step = FLAGS_lower_step;
    options.momentum = 0.9;
    c.method = std::make_shared<bilevel::GradientMethod>(
        base, std::make_unique<bilevel::UnrolledHypergradient>(options), w);
  } else if (name == "lbfgs") {
    ceres::GradientProblemSolver::Options options;
    options.use_approximate_eigenvalue_bfgs_scaling = true;  // phi'' is far from 1.
    c.method = std::make_shared<bilevel::LineSearch>(name, options);
    c.sigmoid = c.scaled = true;
    c.iterations = std::max(1, iterations / 2);
  } else if (name == "soba" || name == "slip") {
    c.sigmoid = true;
    c.iterations = 40 * iterations;
    const auto common = [&](bilevel::StochasticOptions* options) {
      options->lower_batch = options->upper_batch = kBatch;
      options->sampling = bilevel::Batch::kShuffledBlocks;
      options->report_interval = std::max(1, c.iterations / 50);
      options->solve_lower_level = false;
    };
    if (name == "soba") {
      bilevel::Soba::Options options;
      common(&options);
      options.lower.step = 0.02;
      options.x.step = 0.06 * n;  // A sample's part of g is 1 / n.
      options.lower.decay_exponent = options.x.decay_exponent = 0.0;
      c.method = std::make_shared<bilevel::Soba>(options);
    } else {
      bilevel::Slip::Options options;
      common(&options);
      options.num_warm_start_steps = 200;
      options.warm_start_step = options.y.step = options.z.step = 0.02;
      options.x.step = 0.3 * std::sqrt(n / 5000.0);
      options.x.decay_exponent = 0.0;
      c.method = std::make_shared<bilevel::Slip>(options);
    }
  }
  return c;
}

// Metrics of a curve.
enum { kAccuracy, kSelectionLoss, kUpper, kF1, kF1ByLoss };

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns which training labels are wrong from a few clean ones.", &argc, &argv);
  if (FLAGS_quick) {
    FLAGS_train = 2000;
    FLAGS_seeds = 1;
    FLAGS_budget = 0.5;
    if (FLAGS_methods.empty()) FLAGS_methods = "bome_T1,bome_T10,soba,slip";
  }
  if (FLAGS_methods.empty()) {
    FLAGS_methods =
        "bome_T1,bome_T5,bome_T10,bome_T20,bome_gradient_T1,bome_gradient_T10,aid_cg,itd,lbfgs,"
        "soba,slip";
  }
  std::string error;
  Digits digits;
  if (!examples::ReadDigits(FLAGS_dataset, &digits, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const int most = static_cast<int>(digits.train_labels.size()) - 2 * kClean;
  if (FLAGS_train < kBatch || FLAGS_train > most) {
    std::fprintf(stderr, "--train must be from %d to %d\n", kBatch, most);
    return 1;
  }
  if (!FLAGS_split.empty()) {
    std::vector<int> order(digits.train_labels.size()), labels(FLAGS_train);
    if (!ReadSplit(&order, &labels)) {
      std::fprintf(stderr,
                   "--split: %s has not %zu numbers of images and %d labels from 0 to 9\n",
                   FLAGS_split.c_str(),
                   order.size(),
                   FLAGS_train);
      return 1;
    }
  }
  const std::vector<std::string> methods = examples::SplitList(FLAGS_methods);
  for (const std::string& name : methods) {
    if (Configure(name, FLAGS_train).method) continue;
    std::fprintf(stderr,
                 "--methods: \"%s\" is none of bome_T<steps>, bome_gradient_T<steps>, "
                 "aid_cg[_T<steps>], itd[_T<steps>], lbfgs, soba, slip\n",
                 name.c_str());
    return 1;
  }
  examples::Runs runs;
  if (!runs.Open(FLAGS_csv,
                 {"accuracy",
                  "selected",
                  "F1",
                  "F1 selected",
                  "F1 by loss",
                  "f",
                  "resolved f",
                  "resolved accuracy"},
                 {"test accuracy", "selection loss", "f", "F1", "F1 by loss"},
                 &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const std::string setting = FLAGS_dataset + " " + std::to_string(FLAGS_train) +
                              (FLAGS_from_zero ? " from zero" : "") +
                              (FLAGS_split.empty() ? "" : " given");
  for (int seed = 0; seed < FLAGS_seeds; ++seed) {
    std::vector<std::string> missing;
    for (const char* line : {"start", "validation only", "validation and right labels"}) {
      if (!runs.Has(setting, line, seed)) missing.push_back(line);
    }
    for (const std::string& name : methods) {
      if (!runs.Has(setting, name, seed)) missing.push_back(name);
    }
    if (missing.empty()) continue;
    const Cleaning data(digits, FLAGS_train, seed);
    for (const std::string& name : missing) {
      examples::Runs::Run run{setting, name, seed, 0.0, {}, {}};
      const std::vector<double>* line = name == "start"                         ? &data.start
                                        : name == "validation only"             ? &data.solid
                                        : name == "validation and right labels" ? &data.dashed
                                                                                : nullptr;
      if (line) {
        const double accuracy = data.test->Accuracy(line->data());
        const double f = Cleaning::Loss(*data.validation, *line);
        run.metrics = {accuracy, accuracy, NAN, NAN, data.F1(*line), f, NAN, NAN};
        if (!runs.Add(run)) return 1;
        continue;
      }
      const Configuration configuration = Configure(name, data.n);
      const bool sigmoid = configuration.sigmoid;
      std::unique_ptr<ScaledAxes> axes;
      if (configuration.scaled) axes = std::make_unique<ScaledAxes>(data);
      std::vector<double> theta = axes ? axes->theta : data.start, w(data.n, sigmoid ? 0.0 : 0.5);
      bilevel::Problem problem;
      problem.AddUpperParameterBlock(w.data(), data.n);
      for (int i = 0; !sigmoid && i < data.n; ++i) {
        problem.SetParameterLowerBound(w.data(), i, 0.0);
        problem.SetParameterUpperBound(w.data(), i, 1.0);
      }
      problem.SetParameterName(w.data(), "w");
      problem.SetParameterName(theta.data(), "Theta");
      const int size = kPixels * kClasses;
      const auto weights = sigmoid ? LinearModel::kSigmoid : LinearModel::kClipped;
      const bilevel::Features* train = axes ? axes->train.get() : nullptr;
      const bilevel::Features* validation = axes ? axes->validation.get() : nullptr;
      problem.AddTerm(bilevel::Level::kLower,
                      data.Train(weights, 0.0, train),
                      {{theta.data(), size}, {w.data(), data.n}});
      if (axes) {
        double* const log_ridge = axes->log_ridge.data();
        problem.lower()->AddParameterBlock(log_ridge, kPixels);
        problem.lower()->SetParameterBlockConstant(log_ridge);
        problem.AddTerm(bilevel::Level::kLower,
                        std::make_unique<bilevel::L2Regularizer>(
                            kClasses, kPixels, kRidge, bilevel::L2Regularizer::kPerFeature),
                        {{theta.data(), size}, {log_ridge, kPixels}});
      } else {
        problem.AddTerm(bilevel::Level::kLower,
                        std::make_unique<bilevel::L2Regularizer>(kClasses, kPixels, kRidge),
                        {{theta.data(), size}});
      }
      problem.AddTerm(
          bilevel::Level::kUpper, data.Validation(0.0, validation), {{theta.data(), size}});
      bilevel::Solver::Options options;
      options.method = configuration.method;
      options.max_num_iterations = configuration.iterations;
      options.seed = seed;
      std::vector<double> last_theta, last_w;
      const auto measure = [&] {
        last_theta = axes ? axes->ToPixels(theta) : theta;
        last_w = w;
        return std::vector<double>{data.test->Accuracy(last_theta.data()),
                                   Cleaning::Loss(*data.selection, last_theta),
                                   Cleaning::Loss(*data.validation, last_theta),
                                   data.F1(w, sigmoid ? 0.0 : 0.5),
                                   data.F1(last_theta)};
      };
      const int places = FLAGS_target_accuracy > 0.0 ? 1000 : 50;
      const int every = std::max(1, configuration.iterations / places);
      if (!examples::Follow(options, &problem, every, measure, &run.curve, &error)) {
        std::fprintf(stderr, "%s, seed %d: %s\n", name.c_str(), seed, error.c_str());
        return 1;
      }
      const examples::CurvePoint& last = run.curve.back();
      const auto selected =
          std::min_element(run.curve.begin(), run.curve.end(), [](const auto& a, const auto& b) {
            return a.metrics[kSelectionLoss] < b.metrics[kSelectionLoss];
          });
      const std::unique_ptr<LinearModel> lower = data.Train(weights, 0.0);
      examples::Fit({{lower.get(), last_w.data()}, {&data.ridge, nullptr}}, 300, &last_theta);
      run.seconds = last.seconds;
      run.metrics = {last.metrics[kAccuracy],
                     selected->metrics[kAccuracy],
                     last.metrics[kF1],
                     selected->metrics[kF1],
                     selected->metrics[kF1ByLoss],
                     last.metrics[kUpper],
                     Cleaning::Loss(*data.validation, last_theta),
                     data.test->Accuracy(last_theta.data())};
      std::printf("%s, seed %d: %d iterations in %.1f s, test accuracy %.2f %%, F1 %.3f\n",
                  name.c_str(),
                  seed,
                  last.iteration,
                  last.seconds,
                  100.0 * run.metrics[0],
                  run.metrics[2]);
      if (FLAGS_target_accuracy > 0.0) {
        const auto first =
            std::find_if(run.curve.begin(), run.curve.end(), [](const examples::CurvePoint& p) {
              return p.metrics[kAccuracy] >= FLAGS_target_accuracy;
            });
        std::printf("%s, seed %d: test accuracy %g ", name.c_str(), seed, FLAGS_target_accuracy);
        if (first == run.curve.end()) {
          std::printf("not reached\n");
        } else {
          std::printf("after %.3f s, %d iterations\n", first->seconds, first->iteration);
        }
      }
      std::fflush(stdout);
      if (!runs.Add(run)) return 1;
    }
  }
  std::printf(
      "\n%s, %d training images, %.0f %% of the labels drawn anew. Test accuracy (%%) in the end\n"
      "and of the iterate with the least loss on the selection images; F1 of finding wrong labels\n"
      "by w, and as those that the selected Theta takes for less probable than chance; f; f and\n"
      "accuracy with the lower level solved for the last w.\n\n%s",
      FLAGS_dataset.c_str(),
      FLAGS_train,
      100.0 * FLAGS_corruption,
      runs.Table(setting, {100.0, 100.0, 1.0, 1.0, 1.0, 1.0, 1.0, 100.0}).c_str());
  examples::Json json;
  for (const examples::Runs::Run& run : runs.runs()) {
    if (run.setting != setting || run.seed != 0) continue;
    json.Add(run.method,
             examples::Json()
                 .Add("selected", runs.Mean(setting, run.method, 1))
                 .Add("f1", runs.Mean(setting, run.method, 2))
                 .Add("f1_selected", runs.Mean(setting, run.method, 3))
                 .Add("f1_by_loss", runs.Mean(setting, run.method, 4))
                 .Add("resolved_f", runs.Mean(setting, run.method, 6)));
  }
  bool good = examples::WriteFile(FLAGS_summary_json, json.ToString());
  good = examples::WriteFile(FLAGS_trace_csv, runs.CurvesCsv()) && good;
  good = runs.Plot(FLAGS_plot,
                   "Cleaning of labels, " + setting,
                   setting,
                   kAccuracy,
                   {{"validation only", runs.Mean(setting, "validation only", 0)},
                    {"validation and right labels",
                     runs.Mean(setting, "validation and right labels", 0)}}) &&
         good;
  return good ? 0 : 1;
}
