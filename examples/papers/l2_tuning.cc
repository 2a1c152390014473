// One regularisation weight for a classifier of handwritten digits whose training labels are partly
// random.
//
//   lower level   min over Theta of the mean CE over training images + e^x |Theta|^2
//   upper level   min over x of the mean CE over validation images
//
// The experiment of Chen, Xu and Zhang, "Bilevel optimization without lower-level strong convexity
// from the hyper-objective perspective" (2023), section 7.2: 40,000 images for training, of whose
// labels a share p is drawn anew, 20,000 for validation with their labels, 10,000 for the test, 100
// iterations. x is one number, so that a sweep over it shows the best that any method can reach: it
// is made first. Pixels are 0 to 1, without an intercept; x starts at 0.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/bome.h"
#include "bilevel/methods/gradient_method.h"
#include "examples/support/experiment.h"
#include "examples/support/flags.h"
#include "examples/support/table.h"

DEFINE_string(dataset, "mnist", "mnist or fashion_mnist");
DEFINE_string(p, "0.5,0.3,0.1", "shares of the training labels that are drawn anew");
DEFINE_int32(train, 40000, "training images; half as many are for validation");
DEFINE_int32(iterations, 100, "at most");
DEFINE_int32(lower_steps, 20, "of an iteration, where it makes a number of them");
DEFINE_double(lower_step, 0.1, "their length");
DEFINE_double(x_step, 0.3, "of Adam on x, for all methods but lbfgs");

using bilevel::LinearModel;
using bilevel::StepRule;
using examples::Digits;

namespace {

constexpr int kPixels = Digits::kPixels, kClasses = Digits::kClasses, kSize = kPixels * kClasses;

struct Tuning {
  Tuning(const Digits& digits, double p, int seed) {
    std::mt19937_64 generator(2000 + seed);
    std::vector<int> order(digits.train_labels.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), generator);
    const auto features = [](const auto& pixels) {
      return bilevel::Features(pixels.template cast<float>() / 255.0f);
    };
    const auto take = [&](int first, int count, std::vector<int>* labels) {
      decltype(digits.train) rows(count, kPixels);
      for (int i = first; i < first + count; ++i) {
        rows.row(i - first) = digits.train.row(order[i]);
        labels->push_back(digits.train_labels[order[i]]);
      }
      return features(rows);
    };
    train_features = std::make_unique<bilevel::Features>(take(0, FLAGS_train, &train_labels));
    std::uniform_int_distribution<int> any(0, kClasses - 1);
    for (int i = 0; i < static_cast<int>(p * FLAGS_train); ++i) train_labels[i] = any(generator);
    validation_features =
        std::make_unique<bilevel::Features>(take(FLAGS_train, FLAGS_train / 2, &validation_labels));
    options.num_threads = FLAGS_num_threads;
    train = Train();
    validation = Validation();
    test = bilevel::SoftmaxRegression(features(digits.test), digits.test_labels, kClasses, options);
  }
  std::unique_ptr<LinearModel> Train() const {
    return bilevel::SoftmaxRegression(*train_features, train_labels, kClasses, options);
  }
  std::unique_ptr<LinearModel> Validation() const {
    return bilevel::SoftmaxRegression(*validation_features, validation_labels, kClasses, options);
  }
  // From the Theta given.
  void FitTo(double x, std::vector<double>* theta) const {
    examples::Fit({{train.get(), nullptr}, {&ridge, &x}}, 500, theta);
  }
  double ValidationLoss(const std::vector<double>& theta) const {
    const double* blocks[] = {theta.data()};
    double value = 0.0;
    validation->Evaluate(blocks, bilevel::Batch::All(), &value, nullptr);
    return value;
  }

  LinearModel::Options options;
  std::unique_ptr<bilevel::Features> train_features, validation_features;
  std::vector<int> train_labels, validation_labels;
  std::unique_ptr<LinearModel> train, validation, test;
  bilevel::L2Regularizer ridge{kClasses, kPixels, 1.0, bilevel::L2Regularizer::kScalar};
};

std::shared_ptr<bilevel::Method> Create(const std::string& name) {
  StepRule x;
  x.kind = StepRule::kAdam;
  x.step = FLAGS_x_step;
  x.decay_exponent = 0.5;
  x.decay_time = 20.0;
  const auto lower = [](auto* options) {
    options->num_lower_steps = FLAGS_lower_steps;
    options->lower_step = FLAGS_lower_step;
    options->momentum = 0.9;
  };
  const auto method = [&](auto estimator) {
    return std::make_shared<bilevel::GradientMethod>(name, std::move(estimator), x);
  };
  if (name == "lbfgs") return bilevel::CreateMethod(name);
  if (name == "adam") return method(std::make_unique<bilevel::ExactHypergradient>());
  if (name == "aid_cg" || name == "aid_fp") {
    bilevel::AidHypergradient::Options options;
    lower(&options);
    options.linear_step = FLAGS_lower_step;
    options.num_linear_iterations = FLAGS_lower_steps;
    if (name == "aid_fp") options.kind = bilevel::AdjointSteps::kFixedPoint;
    return method(std::make_unique<bilevel::AidHypergradient>(options));
  }
  if (name == "itd") {
    bilevel::UnrolledHypergradient::Options options;
    lower(&options);
    return method(std::make_unique<bilevel::UnrolledHypergradient>(options));
  }
  if (name == "bome") {
    bilevel::Bome::Options options;
    lower(&options);
    options.lower_level = bilevel::Bome::kGradientSteps;
    options.x = x;
    options.y.kind = StepRule::kMomentum;
    options.y.step = 0.01;
    return std::make_shared<bilevel::Bome>(options);
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns the l2 regularisation of a classifier from validation images.", &argc, &argv);
  if (FLAGS_methods.empty()) FLAGS_methods = "lbfgs,adam,aid_cg,aid_fp,itd,bome";
  if (FLAGS_quick) {
    FLAGS_train = 3000;
    FLAGS_seeds = 1;
    FLAGS_p = "0.5";
    FLAGS_iterations = 40;
    FLAGS_methods = "lbfgs,aid_cg";
  }
  std::string error;
  Digits digits;
  if (!examples::ReadDigits(FLAGS_dataset, &digits, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const int most = 2 * static_cast<int>(digits.train_labels.size()) / 3;
  if (FLAGS_train < 100 || FLAGS_train > most) {
    std::fprintf(stderr, "--train must be from 100 to %d\n", most);
    return 1;
  }
  const std::vector<std::string> methods = examples::SplitList(FLAGS_methods);
  for (const std::string& name : methods) {
    if (Create(name)) continue;
    std::fprintf(stderr,
                 "--methods: \"%s\" is none of lbfgs, adam, aid_cg, aid_fp, itd, bome\n",
                 name.c_str());
    return 1;
  }
  examples::Runs runs;
  if (!runs.Open(FLAGS_csv,
                 {"x", "phi", "accuracy", "own accuracy"},
                 {"x", "f", "test accuracy"},
                 &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  bool good = true;
  examples::Json json;
  for (const std::string& share : examples::SplitList(FLAGS_p)) {
    const std::string setting = FLAGS_dataset + " " + std::to_string(FLAGS_train) + " p=" + share;
    for (int seed = 0; seed < FLAGS_seeds; ++seed) {
      std::vector<std::string> missing;
      for (const std::string& name : methods) {
        if (!runs.Has(setting, name, seed)) missing.push_back(name);
      }
      const bool sweep = !runs.Has(setting, "sweep: least phi", seed) ||
                         !runs.Has(setting, "sweep: best accuracy", seed);
      if (missing.empty() && !sweep) continue;
      const Tuning data(digits, std::atof(share.c_str()), seed);
      if (sweep) {
        std::vector<double> theta(kSize, 0.0);
        examples::Runs::Run least{
            setting, "sweep: least phi", seed, 0.0, {0.0, INFINITY, 0.0, 0.0}, {}};
        examples::Runs::Run best = least;
        best.method = "sweep: best accuracy";
        for (double x = 0.0; x >= -12.0; x -= 0.5) {
          data.FitTo(x, &theta);
          const double accuracy = data.test->Accuracy(theta.data());
          const std::vector<double> metrics{x, data.ValidationLoss(theta), accuracy, accuracy};
          if (metrics[1] < least.metrics[1]) least.metrics = metrics;
          if (accuracy > best.metrics[2]) best.metrics = metrics;
          if (x < least.metrics[0] - 0.9) break;  // Past the minimum.
        }
        if (!runs.Has(setting, least.method, seed) && !runs.Add(least)) return 1;
        if (!runs.Has(setting, best.method, seed) && !runs.Add(best)) return 1;
      }
      for (const std::string& name : missing) {
        std::vector<double> theta(kSize, 0.0);
        double x = 0.0;
        data.FitTo(x, &theta);
        bilevel::Problem problem;
        problem.AddUpperParameterBlock(&x, 1);
        problem.SetParameterName(&x, "x");
        problem.SetParameterName(theta.data(), "Theta");
        problem.AddTerm(bilevel::Level::kLower, data.Train(), {{theta.data(), kSize}});
        problem.AddTerm(bilevel::Level::kLower,
                        std::make_unique<bilevel::L2Regularizer>(data.ridge),
                        {{theta.data(), kSize}, {&x, 1}});
        problem.AddTerm(bilevel::Level::kUpper, data.Validation(), {{theta.data(), kSize}});
        bilevel::Solver::Options options;
        options.method = Create(name);
        options.max_num_iterations = std::max(1, static_cast<int>(FLAGS_budget * FLAGS_iterations));
        options.function_tolerance = 1e-6;
        options.seed = seed;
        double last_x = 0.0;
        std::vector<double> last_theta;
        const auto measure = [&] {
          last_x = x;
          last_theta = theta;
          return std::vector<double>{
              x, data.ValidationLoss(theta), data.test->Accuracy(theta.data())};
        };
        examples::Runs::Run run{setting, name, seed, 0.0, {}, {}};
        const int every = std::max(1, options.max_num_iterations / 50);
        if (!examples::Follow(options, &problem, every, measure, &run.curve, &error)) {
          std::fprintf(stderr, "%s, seed %d: %s\n", name.c_str(), seed, error.c_str());
          return 1;
        }
        data.FitTo(last_x, &last_theta);
        run.seconds = run.curve.back().seconds;
        run.metrics = {last_x,
                       data.ValidationLoss(last_theta),
                       data.test->Accuracy(last_theta.data()),
                       run.curve.back().metrics[2]};
        std::printf("%s, seed %d: %s, %d iterations in %.1f s, x = %.3f, test accuracy %.2f %%\n",
                    setting.c_str(),
                    seed,
                    name.c_str(),
                    run.curve.back().iteration,
                    run.seconds,
                    last_x,
                    100.0 * run.metrics[2]);
        std::fflush(stdout);
        if (!runs.Add(run)) return 1;
      }
    }
    std::printf(
        "\n%s: the x found, phi and test accuracy (%%) of the solution at x; test accuracy of the\n"
        "method's own Theta.\n\n%s\n",
        setting.c_str(),
        runs.Table(setting, {1.0, 1.0, 100.0, 100.0}).c_str());
    const double target = runs.Mean(setting, "sweep: least phi", 2);
    examples::Json part;
    part.Add("sweep", target).Add("sweep best", runs.Mean(setting, "sweep: best accuracy", 2));
    part.Add("sweep phi", runs.Mean(setting, "sweep: least phi", 1));
    for (const std::string& name : methods) {
      part.Add(name, runs.Mean(setting, name, 2)).Add(name + " phi", runs.Mean(setting, name, 1));
    }
    json.Add("p=" + share, part);
    std::string plot = FLAGS_plot;
    if (const size_t dot = plot.rfind('.'); dot != std::string::npos)
      plot.insert(dot, "_p" + share);
    good = runs.Plot(plot, setting, setting, 2, {{"sweep", target}}) && good;
  }
  good = examples::WriteFile(FLAGS_summary_json, json.ToString()) && good;
  good = examples::WriteFile(FLAGS_trace_csv, runs.CurvesCsv()) && good;
  return good ? 0 : 1;
}
