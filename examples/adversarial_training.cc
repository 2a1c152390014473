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
// in the paper's budget. They run on the data as it is, and with x in coordinates in which A has
// orthogonal columns (its QR factorisation) and y in units in which d^2g/dy^2 has a unit diagonal
// (gradient steps on g are then Jacobi's).
#include <cmath>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "bilevel/derivatives/second_order_cost_function.h"
#include "bilevel/lower_level/sgm.h"
#include "bilevel/methods/bome.h"
#include "bilevel/methods/gradient_method.h"
#include "bilevel/methods/igfm.h"
#include "examples/support/abalone.h"
#include "examples/support/flags.h"
#include "examples/support/table.h"

DEFINE_string(abalone, "", "abalone.csv of the UCI repository; data of the same kind without it");
DEFINE_string(methods, "optimistic,bome,igfm,aid_cg,itd", "names, or \"all\"");
DEFINE_int32(iterations, 500, "steps of x");
DEFINE_int32(lower_iterations, 10, "lower-level steps for each of them");
DEFINE_int32(directions, 8, "of igfm");
DEFINE_bool(trace, false, "print the iterations");

using bilevel::StepRule;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kLambda = 1.0;

// weight (a'x - scale y) and, below, weight sqrt(lambda) (scale y - label). Linear, so its second
// derivatives are zero and said to be.
class Sample : public bilevel::SecondOrderCostFunction {
 public:
  Sample(VectorXd a, double label, double weight, double scale, bool lower)
      : a_(std::move(a)), label_(label), weight_(weight), scale_(scale), lower_(lower) {
    set_num_residuals(lower ? 2 : 1);
    *mutable_parameter_block_sizes() = {static_cast<int>(a_.size()), 1};
  }
  bool Evaluate(double const* const* p, double* r, double** j) const override {
    const Eigen::Map<const VectorXd> x(p[0], a_.size());
    const double root = weight_ * std::sqrt(kLambda), y = scale_ * p[1][0];
    r[0] = weight_ * (a_.dot(x) - y);
    if (lower_) r[1] = root * (y - label_);
    if (j && j[0]) {
      Eigen::Map<VectorXd>(j[0], a_.size()) = weight_ * a_;
      if (lower_) Eigen::Map<VectorXd>(j[0] + a_.size(), a_.size()).setZero();
    }
    if (j && j[1]) {
      j[1][0] = -weight_ * scale_;
      if (lower_) j[1][1] = root * scale_;
    }
    return true;
  }
  bool EvaluateHessian(double const* const*, const double*, double* h) const override {
    std::fill_n(h, (a_.size() + 1) * (a_.size() + 1), 0.0);
    return true;
  }
  bool EvaluateHessianProduct(double const* const*,
                              const double*,
                              const double*,
                              double* product) const override {
    std::fill_n(product, a_.size() + 1, 0.0);
    return true;
  }

 private:
  VectorXd a_;
  double label_, weight_, scale_;
  bool lower_;
};

struct Game {
  MatrixXd a;
  VectorXd b, m;
  int Size() const { return static_cast<int>(b.size()); }
  int Support() const { return (m.array() > 0.0).count(); }
  double Phi(const VectorXd& x) const {
    const int k = Support();
    const double share = kLambda / (1.0 + kLambda);
    return share * share * (a.topRows(k) * x - b.head(k)).squaredNorm() / (2.0 * Size());
  }
};

struct Run {
  std::string name, message;
  double phi = NAN, seconds = 0.0;
  bilevel::Solver::Summary summary;
};

// The method with steps for the problem as it is, or for the scaled one.
std::shared_ptr<bilevel::Method> Configure(const std::string& name, bool scaled, int n) {
  // Curvatures: of g in y at most (1 + lambda) / n or 1, of phi in x about 1/2 or 0.06 (half of the
  // samples, and (lambda / (1 + lambda))^2).
  const double lower_step = scaled ? 1.0 : n / (1.0 + kLambda);
  StepRule rule;
  rule.kind = StepRule::kMomentum;
  rule.step = scaled ? 0.5 : 0.1;
  if (name == "bome") {
    bilevel::Bome::Options options;
    // Jacobi's first step arrives, as Newton's does. y itself stays in its own units, in which the
    // joint step sees a well-conditioned f.
    options.lower_level = scaled ? bilevel::Bome::kSolved : bilevel::Bome::kGradientSteps;
    options.num_lower_steps = FLAGS_lower_iterations;
    options.lower_step = lower_step;
    options.eta = scaled ? 0.9 : 0.1;  // The paper tuned it among 0.9, 0.5 and 0.1.
    options.x = rule;
    options.x.step = scaled ? 0.2 : 0.5;
    options.y.kind = scaled ? StepRule::kMomentum : StepRule::kGradient;
    options.y.step = scaled ? 0.1 * n : 0.5 * n;
    return std::make_shared<bilevel::Bome>(options);
  }
  if (name == "igfm") {
    bilevel::Igfm::Options options;
    options.num_directions = FLAGS_directions;
    options.x = rule;
    if (!scaled) options.x.step = 0.5;
    return std::make_shared<bilevel::Igfm>(options);
  }
  if (name == "aid_cg" || name == "aid_fp") {
    bilevel::AidHypergradient::Options options;
    if (name == "aid_fp") options.kind = bilevel::AdjointSteps::kFixedPoint;
    options.num_lower_steps = options.num_linear_iterations = FLAGS_lower_iterations;
    options.lower_step = options.linear_step = lower_step;
    return std::make_shared<bilevel::GradientMethod>(
        name, std::make_unique<bilevel::AidHypergradient>(options), rule);
  }
  if (name == "itd" || name == "truncated_itd") {
    bilevel::UnrolledHypergradient::Options options;
    options.num_lower_steps = FLAGS_lower_iterations;
    options.lower_step = lower_step;
    if (name == "truncated_itd") options.num_reverse_steps = (FLAGS_lower_iterations + 1) / 2;
    return std::make_shared<bilevel::GradientMethod>(
        name, std::make_unique<bilevel::UnrolledHypergradient>(options), rule);
  }
  return bilevel::CreateMethod(name);
}

Run Train(const Game& game, const std::string& name, bool scaled) {
  const int n = game.Size(), d = static_cast<int>(game.a.cols());
  // A = Q R, x = R^-1 sqrt(n) z.
  MatrixXd to_x = MatrixXd::Identity(d, d);
  if (scaled) {
    const MatrixXd r = MatrixXd(Eigen::HouseholderQR<MatrixXd>(game.a).matrixQR().topRows(d))
                           .triangularView<Eigen::Upper>();
    to_x = std::sqrt(n) * r.inverse();
  }
  const MatrixXd a = game.a * to_x;
  VectorXd z = VectorXd::Zero(d), u(n);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(z.data(), d);
  problem.SetParameterName(z.data(), "x");
  for (int i = 0; i < n; ++i) {
    const double curvature = (game.m[i] > 0.0 ? (1.0 + kLambda) * game.m[i] : 1.0) / n;
    const double scale = scaled && name != "bome" ? 1.0 / std::sqrt(curvature) : 1.0;
    u[i] = game.b[i] / scale;
    problem.lower()->AddResidualBlock(
        new Sample(a.row(i), game.b[i], std::sqrt(game.m[i] / n), scale, true),
        nullptr,
        z.data(),
        &u[i]);
    problem.upper()->AddResidualBlock(
        new Sample(a.row(i), game.b[i], 1.0 / std::sqrt(n), scale, false),
        nullptr,
        z.data(),
        &u[i]);
  }
  bilevel::Solver::Options options;
  options.method = Configure(name, scaled, n);
  options.max_num_iterations = FLAGS_iterations;
  options.num_threads = FLAGS_num_threads;
  options.minimizer_progress_to_stdout = FLAGS_trace;
  // Half of all directions are free: no method wants a basis of them.
  options.singular_handling = bilevel::SingularHandling::kDampingWithRefinement;
  if (name == "optimistic") {
    options.gradient_tolerance = 1e-14;
    options.function_tolerance = options.parameter_tolerance = 0.0;
    options.max_num_iterations = 20;
  }
  if (name == "igfm") {
    bilevel::Sgm::Options sgm;
    sgm.num_steps = sgm.num_lower_steps = FLAGS_lower_iterations;
    sgm.lower_step = sgm.step = scaled ? 1.0 : n / (1.0 + kLambda);
    sgm.theta = 1e-3;  // The smallest the paper tried.
    sgm.output = bilevel::Sgm::kLastFeasible;
    options.lower_solver = [sgm](bilevel::Program* program) {
      return std::make_unique<bilevel::Sgm>(program, sgm);
    };
  }
  Run run;
  run.name = name;
  bilevel::Solve(options, &problem, &run.summary);
  run.seconds = run.summary.total_time_in_seconds;
  if (run.summary.IsSolutionUsable()) {
    run.phi = game.Phi(to_x * z);
  } else {
    run.message = run.summary.message;
  }
  return run;
}

int main(int argc, char** argv) {
  examples::ParseFlags("Adversarial training on abalone, beside the exact optimum.", &argc, &argv);
  examples::Abalone data;
  std::string error;
  if (FLAGS_abalone.empty()) {
    data = examples::SimulateAbalone(FLAGS_quick ? 400 : 4177, 1);
  } else if (!examples::ReadAbalone(FLAGS_abalone, &data, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  std::vector<std::string> names;
  const std::vector<std::string> known = bilevel::ListMethods();
  if (FLAGS_methods == "all") {
    names = known;
  } else {
    std::istringstream list(FLAGS_methods);
    for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  }

  Game game{data.features, data.rings, VectorXd::Zero(data.rings.size())};
  const int half = game.Size() / 2;
  game.m.head(half).setLinSpaced(1e-9, 1.0);
  const VectorXd best = game.a.topRows(half).colPivHouseholderQr().solve(game.b.head(half));
  const double phi = game.Phi(best);
  std::printf(
      "%d samples, %d of them of interest to the adversary; phi at 0 is %.5f, its exact "
      "minimum %.8f.\n\n",
      game.Size(),
      half,
      game.Phi(VectorXd::Zero(game.a.cols())),
      phi);

  examples::Table table({"method", "phi, raw", "gap", "s", "phi, scaled", "gap", "s"});
  examples::Json json, results;
  std::string refusals, csv;
  bool good = true;
  for (const std::string& name : names) {
    std::vector<std::string> row{name};
    for (const bool scaled : {false, true}) {
      const Run run = Train(game, name, scaled);
      const double gap = run.phi / phi - 1.0;
      row.push_back(std::isnan(run.phi) ? "-" : examples::Format("%.6f", run.phi));
      row.push_back(std::isnan(run.phi) ? "-" : examples::Format("%.2g %%", 100.0 * gap));
      row.push_back(examples::Format("%.1f", run.seconds));
      results.Add(name + (scaled ? "_scaled_gap" : "_raw_gap"), gap);
      if (!run.message.empty()) {
        refusals += name + (scaled ? ", scaled: " : ", raw: ") + run.message + "\n";
      }
      if (name == "optimistic") {
        good = good && std::abs(gap) < 1e-9;
        csv = run.summary.Csv();
        if (scaled) std::printf("%s\n\n", run.summary.lower_level_remark.c_str());
      }
    }
    table.Add(row);
  }
  std::printf("%s\n%s", table.ToString().c_str(), refusals.c_str());
  json.Add("phi", phi).Add("samples", static_cast<double>(game.Size())).Add("gaps", results);
  examples::WriteFile(FLAGS_summary_json, json.ToString());
  examples::WriteFile(FLAGS_trace_csv, csv);
  return good ? 0 : 1;
}
