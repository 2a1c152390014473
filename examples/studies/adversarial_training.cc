// Learning from data that an adversary may change, where the answer of the adversary is not unique.
//
// Chen, Xu and Zhang, "Bilevel optimization without lower-level strong convexity from the
// hyper-objective perspective" (2023), Example 5.4 and section 7.1; the model is Bruckner and
// Scheffer's (2011). A are features, b labels, x a linear model and y the labels that the adversary
// presents; M is diagonal, zero on the second half of the n samples and evenly spaced in [1e-9, 1]
// on the first:
//
//   lower level   y in Y*(x) = argmin 1/2n |A x - y|_M^2 + lambda/2n |y - b|_M^2
//   upper level   x = argmin 1/2n |A x - y|^2                                    over x and Y*(x)
//
// On M's support y* = (A x + lambda b) / (1 + lambda), elsewhere any y_i is a solution and the
// optimistic one is a_i x, so that
//
//   phi(x) = lambda^2 / (2n (1 + lambda)^2) sum over the support of (a_i x - b_i)^2,
//
// whatever the weights on it: least squares gives the optimum, with which every method is compared,
// in the paper's budget. Settings: the data as it is ("raw"), with x in coordinates in which A has
// orthogonal columns, by its QR factorisation ("whitened"), and with the steps on g scaled by the
// curvature in every y_i ("jacobi").
//
// A method that knows nothing of an optimistic y leaves the y_i off the support where they start.
// BGS then settles, as it should, where
//
//   lambda^2 / (1 + lambda)^2 sum over the support of (a_i x - b_i)^2 + sum over the others of
//   (a_i x - y_i)^2
//
// is least: another least-squares problem, and the prediction beside it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "bilevel/lower_level/sgm.h"
#include "bilevel/methods/hyper_objective/bda.h"
#include "bilevel/methods/hyper_objective/bgs.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/hyper_objective/ia_gm.h"
#include "bilevel/methods/value_function/bome.h"
#include "bilevel/methods/zeroth_order/igfm.h"
#include "bilevel/terms/second_order_cost_function.h"
#include "examples/support/dense.h"
#include "examples/support/flags.h"
#include "examples/support/learning/abalone.h"
#include "examples/support/plot.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"

DEFINE_string(abalone, "", "abalone.csv of the UCI repository; data of the same kind without it");
DEFINE_string(methods,
              "optimistic,bome,igfm,bgs,aid_cg,itd,bda,ia_gm",
              "names of ListMethods(), or \"all\"");
DEFINE_string(settings,
              "raw,whitened+jacobi",
              "any of raw, whitened, jacobi, whitened+jacobi; all methods run in each");
DEFINE_int32(iterations, 500, "steps of x");
DEFINE_int32(lower_iterations, 10, "lower-level steps for each of them");
DEFINE_int32(directions, 8, "of igfm");
DEFINE_bool(trace, false, "print the iterations");

using bilevel::StepRule;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kLambda = 1.0;
constexpr double kShare = kLambda / (1.0 + kLambda);
constexpr int kFeatures = 8;

// weight (a'x - y) and, below, weight sqrt(lambda) (y - label). Linear, so its second derivatives
// are zero and said to be.
class Sample : public bilevel::SecondOrderCostFunction {
 public:
  using Features = Eigen::Matrix<double, kFeatures, 1, Eigen::DontAlign>;

  Sample(const Features& a, double label, double weight, bool lower)
      : a_(a), label_(label), weight_(weight), root_(weight * std::sqrt(kLambda)), lower_(lower) {
    set_num_residuals(lower ? 2 : 1);
    *mutable_parameter_block_sizes() = {kFeatures, 1};
  }
  bool Evaluate(double const* const* p, double* r, double** j) const override {
    const double y = p[1][0];
    r[0] = weight_ * (a_.dot(Eigen::Map<const Features>(p[0])) - y);
    if (lower_) r[1] = root_ * (y - label_);
    if (j && j[0]) {
      Eigen::Map<Features>(j[0], kFeatures) = weight_ * a_;
      if (lower_) Eigen::Map<Features>(j[0] + kFeatures, kFeatures).setZero();
    }
    if (j && j[1]) {
      j[1][0] = -weight_;
      if (lower_) j[1][1] = root_;
    }
    return true;
  }
  bool EvaluateHessian(double const* const*, const double*, double* h) const override {
    std::fill_n(h, (kFeatures + 1) * (kFeatures + 1), 0.0);
    return true;
  }
  bool EvaluateHessianProduct(double const* const*,
                              const double*,
                              const double*,
                              double* product) const override {
    std::fill_n(product, kFeatures + 1, 0.0);
    return true;
  }

 private:
  Features a_;
  double label_, weight_, root_;
  bool lower_;
};

struct Game {
  MatrixXd a;
  VectorXd b, m;

  int Size() const { return static_cast<int>(b.size()); }
  int Support() const { return static_cast<int>((m.array() > 0.0).count()); }
  double Phi(const VectorXd& x) const {
    const int k = Support();
    return kShare * kShare * (a.topRows(k) * x - b.head(k)).squaredNorm() / (2.0 * Size());
  }
  VectorXd Optimum() const {
    const int k = Support();
    return examples::LeastSquares(a.topRows(k), b.head(k));
  }
  // Where y stays at y0 off the support.
  VectorXd Selected(const VectorXd& y0) const {
    MatrixXd rows = a;
    VectorXd right = y0;
    rows.topRows(Support()) *= kShare;
    right.head(Support()) = kShare * b.head(Support());
    return examples::LeastSquares(rows, right);
  }
};

struct Setting {
  std::string name;
  bool whitened, jacobi;
};

// A line of the table: a method, and where y starts.
struct Entry {
  std::string name, method;
  double y0_share;  // y0 = y0_share b.
};

// Steps are chosen once for all data: `curvature` is the largest of f in x.
std::shared_ptr<bilevel::Method> Configure(const std::string& name,
                                           const Setting& setting,
                                           int n,
                                           double curvature) {
  // Of g in y: at most (1 + lambda) / n.
  const double lower_step = setting.jacobi ? 1.0 : n / (1.0 + kLambda);
  StepRule rule;
  rule.kind = StepRule::kMomentum;
  rule.step = 0.5 / curvature;
  if (name == "bome") {
    bilevel::Bome::Options options;
    options.lower_level = bilevel::Bome::kGradientSteps;
    options.num_lower_steps = FLAGS_lower_iterations;
    options.lower_step = lower_step;
    options.jacobi = setting.jacobi;
    options.eta = setting.whitened ? 0.9 : 0.1;  // The paper tuned it among 0.9, 0.5 and 0.1.
    options.x = rule;
    options.y.kind = setting.whitened ? StepRule::kMomentum : StepRule::kGradient;
    options.x.step = (setting.whitened ? 0.5 : 2.7) / curvature;
    options.y.step = (setting.whitened ? 0.3 : 0.5) * n;
    if (setting.whitened) {
      options.x.momentum = options.y.momentum = 0.5;
      options.x.decay_exponent = options.y.decay_exponent = 1.0;
      options.x.decay_time = options.y.decay_time = 100.0;
    }
    return std::make_shared<bilevel::Bome>(options);
  }
  if (name == "igfm") {
    bilevel::Igfm::Options options;
    options.num_directions = FLAGS_directions;
    options.x = rule;
    if (!setting.whitened) options.x.step = 3.0 / curvature;
    return std::make_shared<bilevel::Igfm>(options);
  }
  if (name == "bgs") {
    bilevel::BgsHypergradient::Options options;
    options.num_lower_steps = options.num_linear_iterations = FLAGS_lower_iterations;
    options.lower_step = lower_step;
    options.jacobi = setting.jacobi;
    return std::make_shared<bilevel::GradientMethod>(
        name, std::make_unique<bilevel::BgsHypergradient>(options), rule);
  }
  if (name == "aid_cg" || name == "aid_fp") {
    bilevel::AidHypergradient::Options options;
    if (name == "aid_fp") options.kind = bilevel::AdjointSteps::kFixedPoint;
    options.num_lower_steps = options.num_linear_iterations = FLAGS_lower_iterations;
    options.lower_step = lower_step;
    options.linear_step = n / (1.0 + kLambda);
    options.jacobi = setting.jacobi;
    return std::make_shared<bilevel::GradientMethod>(
        name, std::make_unique<bilevel::AidHypergradient>(options), rule);
  }
  if (name == "itd" || name == "truncated_itd") {
    bilevel::UnrolledHypergradient::Options options;
    options.num_lower_steps = FLAGS_lower_iterations;
    options.lower_step = lower_step;
    options.jacobi = setting.jacobi;
    if (name == "truncated_itd") options.num_reverse_steps = (FLAGS_lower_iterations + 1) / 2;
    return std::make_shared<bilevel::GradientMethod>(
        name, std::make_unique<bilevel::UnrolledHypergradient>(options), rule);
  }
  // Both move y along f and g off the support, where a metric of g alone would not be one.
  if (name == "bda") {
    bilevel::BdaHypergradient::Options options;
    options.num_lower_steps = FLAGS_lower_iterations;
    options.lower_step = n / (1.0 + kLambda);
    options.upper_step = n;
    return std::make_shared<bilevel::GradientMethod>(
        name, std::make_unique<bilevel::BdaHypergradient>(options), rule);
  }
  if (name == "ia_gm") {
    bilevel::IaGm::Options options;
    options.num_lower_steps = FLAGS_lower_iterations;
    options.lower_step = n / (1.0 + kLambda);
    options.x = options.w = rule;
    options.w.step = n;
    options.w.kind = StepRule::kGradient;
    return std::make_shared<bilevel::IaGm>(options);
  }
  return bilevel::CreateMethod(name);
}

struct Run {
  VectorXd x;                // In the coordinates of the data; empty where there is none.
  std::vector<double> path;  // phi, by iteration.
  bilevel::Solver::Summary summary;
};

Run Train(const Game& game, const Entry& entry, const Setting& setting) {
  const int n = game.Size();
  // A = Q R, x = R^-1 sqrt(n) z.
  MatrixXd to_x = MatrixXd::Identity(kFeatures, kFeatures);
  if (setting.whitened) {
    const MatrixXd r = examples::HouseholderR(game.a).topRows(kFeatures);
    to_x = std::sqrt(n) * examples::SolveSquare(r, to_x);
  }
  const MatrixXd a = game.a * to_x;
  const double curvature = examples::SymmetricEigen(a.transpose() * a / n).eigenvalues().maxCoeff();
  VectorXd z = VectorXd::Zero(kFeatures), y = entry.y0_share * game.b;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(z.data(), kFeatures);
  problem.SetParameterName(z.data(), "x");
  for (int i = 0; i < n; ++i) {
    const double b = game.b[i];
    problem.lower()->AddResidualBlock(
        new Sample(a.row(i), b, std::sqrt(game.m[i] / n), true), nullptr, z.data(), &y[i]);
    problem.upper()->AddResidualBlock(
        new Sample(a.row(i), b, 1.0 / std::sqrt(n), false), nullptr, z.data(), &y[i]);
  }
  bilevel::Solver::Options options;
  options.method = Configure(entry.method, setting, n, curvature);
  options.max_num_iterations = FLAGS_iterations;
  options.num_threads = FLAGS_num_threads;
  options.minimizer_progress_to_stdout = FLAGS_trace;
  // Half of all directions are free: no method wants a basis of them.
  options.singular_handling = bilevel::SingularHandling::kDampingWithRefinement;
  if (entry.method == "optimistic") {
    options.gradient_tolerance = 1e-14;
    options.function_tolerance = options.parameter_tolerance = 0.0;
    options.max_num_iterations = 20;
  }
  if (entry.method == "igfm") {
    bilevel::Sgm::Options sgm;
    sgm.num_steps = sgm.num_lower_steps = FLAGS_lower_iterations;
    sgm.jacobi = setting.jacobi;
    sgm.lower_step = setting.jacobi ? 1.0 : n / (1.0 + kLambda);
    sgm.step = setting.jacobi ? n : sgm.lower_step;
    sgm.theta = 1e-3;  // The smallest the paper tried.
    sgm.output = bilevel::Sgm::kLastFeasible;
    options.lower_solver = [sgm](bilevel::Program* program) {
      return std::make_unique<bilevel::Sgm>(program, sgm);
    };
  }
  Run run;
  examples::Solve(options, &problem, &run.summary);
  for (const bilevel::IterationSummary& it : run.summary.iterations) {
    run.path.push_back(game.Phi(to_x * Eigen::Map<const VectorXd>(it.x.data(), kFeatures)));
  }
  if (run.summary.IsSolutionUsable()) run.x = to_x * z;
  return run;
}

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream list(text);
  for (std::string part; std::getline(list, part, ',');) parts.push_back(part);
  return parts;
}

std::string Percent(double ratio) { return examples::Format("%.2g %%", 100.0 * (ratio - 1.0)); }

int main(int argc, char** argv) {
  examples::ParseFlags("Adversarial training on abalone, beside the exact optimum.", &argc, &argv);
  examples::Abalone data;
  std::string error;
  if (FLAGS_abalone.empty()) {
    data = examples::SimulateAbalone(4177, 1);
  } else if (!examples::ReadAbalone(FLAGS_abalone, &data, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const Eigen::Index num_quick = 400;
  if (FLAGS_quick && data.rings.size() > num_quick) {
    data.features.conservativeResize(num_quick, Eigen::NoChange);
    data.rings.conservativeResize(num_quick);
  }
  std::vector<Setting> settings;
  for (const std::string& name : Split(FLAGS_settings)) {
    const Setting setting{name,
                          name == "whitened" || name == "whitened+jacobi",
                          name == "jacobi" || name == "whitened+jacobi"};
    if (name != "raw" && !setting.whitened && !setting.jacobi) {
      std::fprintf(stderr, "--settings: \"%s\" is none.\n", name.c_str());
      return 1;
    }
    settings.push_back(setting);
  }
  std::vector<Entry> entries;
  for (const std::string& name :
       FLAGS_methods == "all" ? bilevel::ListMethods() : Split(FLAGS_methods)) {
    entries.push_back({name, name, 1.0});
    if (name == "bgs") entries.push_back({"bgs from y = 0", name, 0.0});
  }

  Game game{data.features, data.rings, VectorXd::Zero(data.rings.size())};
  const int half = game.Size() / 2;
  game.m.head(half).setLinSpaced(1e-9, 1.0);
  const double phi = game.Phi(game.Optimum());
  std::printf(
      "%s: %d shells, %d of them of interest to the adversary.\n"
      "phi is %.5f at the start x = 0 and %.8f at its exact minimum. Below, how far above that\n"
      "each method ends after %d steps of x with %d lower-level steps each, and its time.\n\n",
      FLAGS_abalone.empty() ? "Simulated data" : "Abalone",
      game.Size(),
      half,
      game.Phi(VectorXd::Zero(kFeatures)),
      phi,
      FLAGS_iterations,
      FLAGS_lower_iterations);

  std::vector<std::string> header{"method"};
  std::vector<examples::Panel> panels;
  for (const Setting& setting : settings) {
    header.push_back(setting.name);
    header.push_back("s");
    panels.push_back({setting.name, "iteration", "phi / its minimum - 1", false, /*log_y=*/true});
  }
  examples::Table table(header);
  examples::Json json, gaps;
  std::string remarks, csv;
  bool good = true;
  for (const Entry& entry : entries) {
    std::vector<std::string> row{entry.name};
    for (size_t k = 0; k < settings.size(); ++k) {
      const Setting& setting = settings[k];
      const Run run = Train(game, entry, setting);
      const bool usable = run.x.size() > 0;
      const double ratio = usable ? game.Phi(run.x) / phi : NAN;
      row.push_back(usable ? Percent(ratio) : "-");
      row.push_back(examples::Format("%.1f", run.summary.total_time_in_seconds));
      gaps.Add(entry.name + ", " + setting.name, ratio - 1.0);
      const std::string who = entry.name + ", " + setting.name + ": ";
      if (!usable || run.summary.message.find("the start's") != std::string::npos) {
        remarks += who + run.summary.message + "\n";
      }
      if (std::isfinite(run.summary.assessment.x_bias)) {
        remarks += who + examples::Format("its x is biased by about %.2g\n",
                                          run.summary.assessment.x_bias);
      }
      csv += "# " + who + "\n" + run.summary.Csv();
      examples::Series series{entry.name, "lines", {}, {}};
      for (size_t i = 0; i < run.path.size(); ++i) {
        series.x.push_back(static_cast<double>(i));
        series.y.push_back(std::max(run.path[i] / phi - 1.0, 1e-15));
      }
      panels[k].series.push_back(series);
      if (entry.method == "optimistic") {
        good = good && std::abs(ratio - 1.0) < 1e-9;
        if (k == 0) remarks += "optimistic: " + run.summary.lower_level_remark + "\n";
      }
    }
    table.Add(row);
    if (entry.method == "bgs") {
      const double predicted = game.Phi(game.Selected(entry.y0_share * game.b)) / phi;
      remarks += entry.name + ": settles at another point, predicted to be " + Percent(predicted) +
                 " above the minimum\n";
      gaps.Add(entry.name + ", predicted", predicted - 1.0);
    }
  }
  std::printf("%s\n%s", table.ToString().c_str(), remarks.c_str());
  json.Add("phi", phi).Add("samples", static_cast<double>(game.Size())).Add("gaps", gaps);
  good = examples::WriteFile(FLAGS_summary_json, json.ToString()) && good;
  good = examples::WriteFile(FLAGS_trace_csv, csv) && good;
  good = examples::Plot(FLAGS_plot, "How far phi is above its minimum", panels) && good;
  return good ? 0 : 1;
}
