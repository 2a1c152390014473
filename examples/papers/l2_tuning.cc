// One regularisation weight for a classifier of handwritten digits whose training labels are partly
// random.
//
//   lower level   min over Theta of the mean CE over training images + e^x |Theta|^2
//   upper level   min over x of the mean CE over validation images
//
// The experiment of Chen, Xu and Zhang, "Bilevel optimization without lower-level strong convexity
// from the hyper-objective perspective" (2023), section 7.2: 40,000 images for training, of whose
// labels a share p is drawn anew, 20,000 for validation with their labels, 10,000 for the test, at
// most 100 iterations. Pixels are 0 to 1, without an intercept. x is one number, so that a sweep
// over it, refined around its least phi by golden section, shows what any method can reach: it is
// made first, and gives the length of the steps on x: the reciprocal of phi's curvature.
//
// Theta stands for the principal axes of the training images, which leaves |Theta|^2 what it is,
// and these are scaled to a curvature of about one: methods then take the steps on Theta that
// block-wise scaled descent takes, where those on pixels need a hundred times as many.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/bda.h"
#include "bilevel/methods/hyper_objective/bgs.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/hyper_objective/ia_gm.h"
#include "bilevel/methods/value_function/bome.h"
#include "bilevel/methods/zeroth_order/igfm.h"
#include "examples/support/dense.h"
#include "examples/support/flags.h"
#include "examples/support/learning/experiment.h"
#include "examples/support/table.h"
#include "examples/support/text.h"

DEFINE_string(dataset, "mnist", "mnist or fashion_mnist");
DEFINE_string(p, "0.5,0.3,0.1", "shares of the training labels that are drawn anew");
DEFINE_int32(train, 40000, "training images; half as many are for validation");
DEFINE_double(start, -6.0, "x where methods start; steps on Theta are stable from there down");
DEFINE_int32(iterations, 12, "at most; bome makes 100");
DEFINE_int32(lower_steps, 20, "of an iteration, where it makes a number of them");
DEFINE_double(lower_step, 0.5, "their length, in units of 1 / curvature");
DEFINE_double(lower_momentum, 0.7, "and their momentum");

using bilevel::LinearModel;
using bilevel::StepRule;
using examples::Digits;

namespace {

constexpr int kPixels = Digits::kPixels, kClasses = Digits::kClasses;
const char kMethods[] =
    "lbfgs,gradient_descent,aid_cg,aid_fp,aid_neumann,itd,truncated_itd,bgs,bome,igfm,ia_gm,bda";

// e^x sum_kj (Theta_kj / scale_j)^2. Blocks: Theta (outputs x features), x.
class ScaledRidge : public bilevel::Objective {
 public:
  explicit ScaledRidge(const Eigen::VectorXd& scales)
      : inverse_(scales.array().square().inverse()) {}
  bool Evaluate(double const* const* blocks,
                const bilevel::Batch& /*batch*/,
                double* value,
                double** gradients) const override {
    const auto rate = std::exp(blocks[1][0]) * inverse_;
    *value = 0.0;
    for (int k = 0; k < kClasses; ++k) {
      const auto theta = Row(blocks[0], k);
      *value += (rate * theta.square()).sum();
      if (gradients && gradients[0]) Row(gradients[0], k) = 2.0 * rate * theta;
    }
    if (gradients && gradients[1]) gradients[1][0] = *value;
    return true;
  }
  bool has_hessian_product() const override { return true; }
  bool HessianProduct(double const* const* blocks,
                      const bilevel::Batch& /*batch*/,
                      double const* const* direction,
                      double** products) const override {
    const auto rate = std::exp(blocks[1][0]) * inverse_;
    const double dx = direction[1] ? direction[1][0] : 0.0;
    if (products[1]) products[1][0] = 0.0;
    for (int k = 0; k < kClasses; ++k) {
      const auto theta = Row(blocks[0], k);
      Eigen::ArrayXd change = dx * theta;  // Half of the rate's, and Theta's own.
      if (direction[0]) change += 2.0 * Row(direction[0], k);
      if (products[1]) products[1][0] += (rate * theta * change).sum();
      if (products[0]) Row(products[0], k) = rate * (change + dx * theta);
    }
    return true;
  }

 private:
  Eigen::Map<const Eigen::ArrayXd> Row(const double* theta, int k) const {
    return {theta + k * inverse_.size(), inverse_.size()};
  }
  Eigen::Map<Eigen::ArrayXd> Row(double* theta, int k) const {
    return {theta + k * inverse_.size(), inverse_.size()};
  }
  Eigen::ArrayXd inverse_;
};

// The images of one seed in the scaled principal axes of the training images.
struct Images {
  Images(const Digits& digits, int seed) : generator(2000 + seed) {
    using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    std::vector<int> order(digits.train_labels.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), generator);
    const auto take = [&](int first, int count, std::vector<int>* labels) {
      Rows rows(count, kPixels);
      for (int i = 0; i < count; ++i) {
        rows.row(i) = digits.train.row(order[first + i]).cast<float>() / 255.0f;
        labels->push_back(digits.train_labels[order[first + i]]);
      }
      return rows;
    };
    const Rows pixels = take(0, FLAGS_train, &train_labels);
    const examples::SymmetricEigen axes(
        (pixels.transpose() * pixels / static_cast<float>(FLAGS_train)).cast<double>());
    // Those without variance have Theta = 0.
    const double least = 1e-6 * axes.eigenvalues()[kPixels - 1];
    num_axes = static_cast<int>((axes.eigenvalues().array() > least).count());
    // Cross entropy has a curvature of up to 0.1 where all classes are as probable.
    scales = (0.1 * axes.eigenvalues().tail(num_axes).array() + 2.0 * std::exp(FLAGS_start)).sqrt();
    const Eigen::MatrixXf to_axes =
        (axes.eigenvectors().rightCols(num_axes) * scales.cwiseInverse().asDiagonal())
            .cast<float>();
    const auto features = [&](const Rows& rows) { return bilevel::Features(rows * to_axes); };
    train = std::make_unique<bilevel::Features>(features(pixels));
    validation = std::make_unique<bilevel::Features>(
        features(take(FLAGS_train, FLAGS_train / 2, &validation_labels)));
    test = std::make_unique<bilevel::Features>(features(digits.test.cast<float>() / 255.0f));
    test_labels = digits.test_labels;
  }

  std::mt19937_64 generator;
  int num_axes = 0;
  Eigen::VectorXd scales;
  std::unique_ptr<bilevel::Features> train, validation, test;
  std::vector<int> train_labels, validation_labels, test_labels;
};

struct Tuning {
  Tuning(const Images& from, double p) : images(from), labels(from.train_labels) {
    std::mt19937_64 generator = images.generator;
    std::uniform_int_distribution<int> any(0, kClasses - 1);
    for (int i = 0; i < static_cast<int>(p * FLAGS_train); ++i) labels[i] = any(generator);
    options.num_threads = FLAGS_num_threads;
    train = Train();
    validation = Validation();
    test = bilevel::SoftmaxRegression(*images.test, images.test_labels, kClasses, options);
  }
  std::unique_ptr<LinearModel> Train() const {
    return bilevel::SoftmaxRegression(*images.train, labels, kClasses, options);
  }
  std::unique_ptr<LinearModel> Validation() const {
    return bilevel::SoftmaxRegression(
        *images.validation, images.validation_labels, kClasses, options);
  }
  // From the Theta given.
  void FitTo(double x, std::vector<double>* theta) const {
    examples::Fit({{train.get(), nullptr}, {&ridge, &x}}, 500, theta, 1e-11);
  }
  double ValidationLoss(const std::vector<double>& theta) const {
    const double* blocks[] = {theta.data()};
    double value = 0.0;
    validation->Evaluate(blocks, bilevel::Batch::All(), &value, nullptr);
    return value;
  }
  // x, phi, test accuracy.
  std::vector<double> Measure(double x, const std::vector<double>& theta) const {
    return {x, ValidationLoss(theta), test->Accuracy(theta.data())};
  }

  const Images& images;
  LinearModel::Options options;
  std::vector<int> labels;
  std::unique_ptr<LinearModel> train, validation, test;
  ScaledRidge ridge{images.scales};
};

// What there is to be found: the minimiser of phi, phi'' there, and the best accuracy.
struct Sweep {
  explicit Sweep(const Tuning& data) {
    std::vector<double> theta(kClasses * data.images.num_axes, 0.0);
    const auto at = [&](double x) {
      data.FitTo(x, &theta);
      const std::vector<double> found = data.Measure(x, theta);
      if (least.empty() || found[1] < least[1]) least = found;
      if (best.empty() || found[2] > best[2]) best = found;
      return found[1];
    };
    constexpr double kStep = 0.5;
    double x = FLAGS_start + 4.0 * kStep;
    std::vector<double> phi{at(x)};
    while (x > -20.0 && x > least[0] - 1.5 * kStep) phi.push_back(at(x -= kStep));
    double left = least[0] - kStep, right = least[0] + kStep;
    // phi'' at the minimum, and that of the parabola with the slope at the methods' start.
    const size_t n = phi.size();
    if (n > 3) curvature = (phi[n - 4] - 2.0 * phi[n - 3] + phi[n - 2]) / (kStep * kStep);
    if (n > 5 && least[0] < FLAGS_start) {
      curvature = std::max(curvature, (phi[3] - phi[5]) / (2.0 * kStep * (FLAGS_start - least[0])));
    }
    const double golden = 0.5 * (std::sqrt(5.0) - 1.0);
    double a = right - golden * (right - left), b = left + golden * (right - left);
    double at_a = at(a), at_b = at(b);
    while (right - left > 0.03) {
      if (at_a < at_b) {
        right = b, b = a, at_b = at_a;
        at_a = at(a = right - golden * (right - left));
      } else {
        left = a, a = b, at_a = at_b;
        at_b = at(b = left + golden * (right - left));
      }
    }
  }
  std::vector<double> least, best;
  double curvature = 1.0;
};

std::shared_ptr<bilevel::Method> Create(const std::string& name, double x_step) {
  StepRule x;
  x.step = x_step;
  const auto lower = [](auto* options) {
    options->num_lower_steps = FLAGS_lower_steps;
    options->lower_step = FLAGS_lower_step;
    options->momentum = FLAGS_lower_momentum;
  };
  const auto method = [&](auto estimator) {
    return std::make_shared<bilevel::GradientMethod>(name, std::move(estimator), x);
  };
  if (name == "lbfgs") return bilevel::CreateMethod(name);
  if (name == "gradient_descent") return method(std::make_unique<bilevel::ExactHypergradient>());
  if (name == "aid_cg" || name == "aid_fp" || name == "aid_neumann") {
    bilevel::AidHypergradient::Options options;
    lower(&options);
    options.linear_step = FLAGS_lower_step;
    options.num_linear_iterations = name == "aid_cg" ? 10 : FLAGS_lower_steps;
    if (name == "aid_fp") options.kind = bilevel::AdjointSteps::kFixedPoint;
    if (name == "aid_neumann") {
      options.kind = bilevel::AdjointSteps::kNeumann;
      options.num_linear_iterations = 5 * FLAGS_lower_steps;
    }
    return method(std::make_unique<bilevel::AidHypergradient>(options));
  }
  if (name == "itd" || name == "truncated_itd") {
    bilevel::UnrolledHypergradient::Options options;
    lower(&options);
    if (name == "truncated_itd") {
      options.num_lower_steps = FLAGS_lower_steps * 3 / 2;
      options.num_reverse_steps = FLAGS_lower_steps;
    }
    return method(std::make_unique<bilevel::UnrolledHypergradient>(options));
  }
  if (name == "bgs") {
    bilevel::BgsHypergradient::Options options;
    lower(&options);
    // The lower level has one solution, and its Hessian an inverse.
    options.kind = bilevel::AdjointSteps::kConjugateGradients;
    options.num_reverse_steps = FLAGS_lower_steps / 2;
    return method(std::make_unique<bilevel::BgsHypergradient>(options));
  }
  if (name == "bda") {
    bilevel::BdaHypergradient::Options options;
    lower(&options);
    options.upper_step = FLAGS_lower_step;
    options.share = 0.1;  // The least of the paper's.
    return method(std::make_unique<bilevel::BdaHypergradient>(options));
  }
  if (name == "ia_gm") {
    bilevel::IaGm::Options options;
    lower(&options);
    options.x = x;
    options.w.step = FLAGS_lower_step;
    return std::make_shared<bilevel::IaGm>(options);
  }
  if (name == "bome") {
    bilevel::Bome::Options options;
    lower(&options);
    options.lower_level = bilevel::Bome::kGradientSteps;
    options.eta = 0.1;
    options.x.kind = options.y.kind = StepRule::kMomentum;
    options.x.decay_exponent = options.y.decay_exponent = 1.0;
    options.x.decay_time = options.y.decay_time = 20.0;
    options.x.step = 0.2 * x_step;
    options.y.step = 0.1 * FLAGS_lower_step;
    return std::make_shared<bilevel::Bome>(options);
  }
  if (name == "igfm") {
    bilevel::Igfm::Options options;
    options.delta = 0.1;  // Differences over 2e-3, the paper's, are below single precision's noise.
    options.x = x;
    return std::make_shared<bilevel::Igfm>(options);
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns the l2 regularisation of a classifier from validation images.", &argc, &argv);
  if (FLAGS_methods.empty()) FLAGS_methods = FLAGS_quick ? "lbfgs,aid_cg" : kMethods;
  if (FLAGS_quick) {
    FLAGS_train = 3000;
    FLAGS_seeds = 1;
    FLAGS_p = "0.5";
    FLAGS_start = -4.0;
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
    if (Create(name, 1.0)) continue;
    std::fprintf(stderr, "--methods: \"%s\" is none of %s\n", name.c_str(), kMethods);
    return 1;
  }
  examples::Runs runs;
  if (!runs.Open(FLAGS_csv,
                 {"x", "phi", "accuracy", "own accuracy", "curvature"},
                 {"x", "f", "test accuracy"},
                 &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  bool good = true;
  examples::Json json;
  std::unique_ptr<Images> images;
  int images_seed = -1;
  for (const std::string& share : examples::SplitList(FLAGS_p)) {
    const std::string setting = FLAGS_dataset + " " + std::to_string(FLAGS_train) + " p=" + share;
    for (int seed = 0; seed < FLAGS_seeds; ++seed) {
      std::vector<std::string> missing;
      for (const std::string& name : methods) {
        if (!runs.Has(setting, name, seed)) missing.push_back(name);
      }
      const std::string least = "sweep: least phi", best = "sweep: best accuracy";
      const bool has_sweep = runs.Has(setting, least, seed) && runs.Has(setting, best, seed);
      if (missing.empty() && has_sweep) continue;
      if (images_seed != seed) images = std::make_unique<Images>(digits, seed);
      images_seed = seed;
      const Tuning data(*images, std::atof(share.c_str()));
      const int size = kClasses * images->num_axes;
      if (!has_sweep) {
        const Sweep sweep(data);
        for (const auto& [name, found] :
             {std::pair(least, sweep.least), std::pair(best, sweep.best)}) {
          const std::vector<double> metrics{
              found[0], found[1], found[2], found[2], sweep.curvature};
          if (!runs.Has(setting, name, seed) && !runs.Add({setting, name, seed, 0.0, metrics, {}}))
            return 1;
        }
      }
      const double curvature = runs.Find(setting, least, seed)->metrics[4];
      for (const std::string& name : missing) {
        std::vector<double> theta(size, 0.0);
        double x = FLAGS_start;
        data.FitTo(x, &theta);
        bilevel::Problem problem;
        problem.AddUpperParameterBlock(&x, 1);
        problem.SetParameterName(&x, "x");
        problem.SetParameterName(theta.data(), "Theta");
        problem.AddTerm(bilevel::Level::kLower, data.Train(), {{theta.data(), size}});
        problem.AddTerm(bilevel::Level::kLower,
                        std::make_unique<ScaledRidge>(data.ridge),
                        {{theta.data(), size}, {&x, 1}});
        problem.AddTerm(bilevel::Level::kUpper, data.Validation(), {{theta.data(), size}});
        bilevel::Solver::Options options;
        options.method = Create(name, 1.0 / curvature);
        options.max_num_iterations =
            std::max(1, static_cast<int>(FLAGS_budget * (name == "bome" ? 100 : FLAGS_iterations)));
        options.function_tolerance = 1e-6;
        options.seed = seed;
        double last_x = 0.0;
        std::vector<double> last_theta;
        const auto measure = [&] {
          last_x = x;
          last_theta = theta;
          return data.Measure(x, theta);
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
                       run.curve.back().metrics[2],
                       curvature};
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
        runs.Table(setting, {1.0, 1.0, 100.0, 100.0, 0.0}).c_str());
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
