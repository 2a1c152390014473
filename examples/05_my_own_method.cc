// A method of your own in one file: Nesterov's accelerated gradient on the hyper-objective.
//
// Six sensors measure the same curve, each with its own unknown noise. The logarithms of their
// weights are x, the curve's coefficients y, and a few exact points of the curve the upper level:
//
//   lower level   y*(x) = argmin 1/2 sum over sensors s e^{2 x_s} |measurements_s - curve(y)|^2
//   upper level   x = argmin 1/2 |exact points - curve(y*(x))|^2 + 1/2 0.01 |x|^2
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string>

#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "ceres/ceres.h"
#include "examples/support/flags.h"
#include "examples/support/table.h"

// Y. Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)",
// 1983:   x_{k+1} = v_k - step grad phi(v_k),   v_{k+1} = x_{k+1} + k / (k + 3) (x_{k+1} - x_k).
class Nesterov : public bilevel::Method {
 public:
  explicit Nesterov(double step) : step_(step) {}

  std::string name() const override { return "nesterov"; }

  // A sentence on what is wrong, before any work; the solve then fails with it.
  std::string Check(const bilevel::Oracle& /*oracle*/) override {
    return step_ > 0.0 ? "" : "nesterov: the step must be positive";
  }

 protected:
  // One iteration. What must survive a checkpoint lives in the state, everything else may be a
  // member. What fails latches in the oracle, which ends the solve with its message.
  void Step(bilevel::Oracle& o, bilevel::State& s, bilevel::Progress* progress) override {
    bilevel::Vector& gradient = s.Get("gradient", s.x.dim());  // Zeros at first.
    bilevel::Vector& velocity = s.Get("velocity", s.x.dim());
    // s.x is v: its gradient is of the iteration before, so that what is reported below belongs to
    // the point where the state is left.
    const double k = static_cast<double>(o.iteration);
    const bilevel::Vector step = -step_ * gradient;
    const bilevel::Vector moved = velocity + step;  // x_{k+1} - x_k = (v_k - x_k) + step
    velocity = k / (k + 3.0) * moved;
    s.x.Move(step + velocity);  // Respects manifolds and bounds.

    // phi and its gradient f_x + (dy*/dx)' f_y by one lower solve and one adjoint solve.
    if (!o.Solve(s.x, &s.y) || !o.Differentiate(s.x, s.y)) return o.Fail(o.message());
    progress->objective = o.f.Gradient(s.x, s.y, &gradient, &fy_);
    if (!o.lower().Adjoint(fy_, &through_y_)) return o.Fail(o.lower().message());
    gradient += through_y_;
    progress->gradient_max_norm = gradient.lpNorm<Eigen::Infinity>();
    progress->step_norm = moved.norm();
  }

 private:
  double step_;
  bilevel::Vector fy_, through_y_;
};

constexpr int kSensors = 6, kMeasurements = 15, kCoefficients = 4;

template <typename T>
T Curve(const T* y, double t) {
  return y[0] + t * (y[1] + t * (y[2] + t * y[3]));
}

struct Measurement {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = exp(x[sensor]) * (Curve(y, t) - value);
    return true;
  }
  int sensor;
  double t, value;
};

struct ExactPoint {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = Curve(y, t) - value;
    return true;
  }
  double t, value;
};

struct Prior {
  template <typename T>
  bool operator()(const T* x, T* r) const {
    for (int i = 0; i < kSensors; ++i) r[i] = 0.1 * x[i];
    return true;
  }
};

struct Learned {
  double x[kSensors] = {}, y[kCoefficients] = {};
  bilevel::Solver::Summary summary;
};

Learned Solve(std::shared_ptr<bilevel::Method> method) {
  Learned learned;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(learned.x, kSensors);
  const double truth[kCoefficients] = {0.5, -1.0, 0.3, 0.8};
  std::mt19937 generator(3);
  std::normal_distribution<double> noise;
  for (int sensor = 0; sensor < kSensors; ++sensor) {
    const double sigma = 0.05 * std::pow(2.0, sensor);
    for (int i = 0; i < kMeasurements; ++i) {
      const double t = 2.0 * i / kMeasurements - 1.0;
      const double value = Curve(truth, t) + sigma * noise(generator);
      problem.lower()->AddResidualBlock(
          new bilevel::AutoDiffCostFunction<Measurement, 1, kSensors, kCoefficients>(
              new Measurement{sensor, t, value}),
          nullptr,
          learned.x,
          learned.y);
    }
  }
  for (const double t : {-0.9, -0.5, -0.1, 0.3, 0.7}) {
    problem.upper()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<ExactPoint, 1, kCoefficients>(
            new ExactPoint{t, Curve(truth, t)}),
        nullptr,
        learned.y);
  }
  problem.upper()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<Prior, kSensors, kSensors>(new Prior), nullptr, learned.x);

  bilevel::Solver::Options options;
  options.method = method;
  options.max_num_iterations = 5000;
  options.gradient_tolerance = 1e-8;
  options.num_threads = FLAGS_num_threads;
  bilevel::Solve(options, &problem, &learned.summary);
  return learned;
}

int main(int argc, char** argv) {
  examples::ParseFlags("A user's own method beside the library's.", &argc, &argv);
  bilevel::StepRule rule;
  rule.step = 2.0;
  const Learned own = Solve(std::make_shared<Nesterov>(rule.step));
  const Learned plain = Solve(std::make_shared<bilevel::GradientMethod>(
      "gradient_descent", std::make_unique<bilevel::ExactHypergradient>(), rule));
  const Learned reference = Solve(bilevel::CreateMethod("levenberg_marquardt"));

  examples::Table table({"method", "iterations", "phi", "|gradient|", "weight first / last"});
  for (const Learned* learned : {&own, &plain, &reference}) {
    const auto& summary = learned->summary;
    if (!summary.IsSolutionUsable()) std::printf("%s\n", summary.FullReport().c_str());
    table.Add({summary.method,
               std::to_string(summary.iterations.size() - 1),
               examples::Format("%.10f", summary.final_objective),
               examples::Format("%.1e", summary.final_gradient_max_norm),
               examples::Format("%.2f", std::exp(learned->x[0] - learned->x[kSensors - 1]))});
  }
  std::printf("%s", table.ToString().c_str());
  bool ok = examples::WriteFile(FLAGS_summary_json, own.summary.Json());
  ok = examples::WriteFile(FLAGS_trace_csv, own.summary.Csv()) && ok;
  double worst = 0.0;
  for (int i = 0; i < kSensors; ++i) worst = std::max(worst, std::abs(own.x[i] - reference.x[i]));
  std::printf("largest difference of x to levenberg_marquardt's: %.1e\n", worst);
  return ok && own.summary.IsSolutionUsable() && worst < 1e-4 ? 0 : 1;
}
