// A method of your own in one file: Nesterov's accelerated gradient on the hyper-objective.
//
// Three sensors measure a line, each with unknown noise. The logarithms of their weights are x, the
// line y, and two exact points of it the upper level.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

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
  // One iteration. What it leaves for the next lives in the state, or is named in Remember; what
  // fails latches in the oracle, which ends the solve with its message.
  void Step(bilevel::Oracle& o, bilevel::State& s, bilevel::Progress* progress) override {
    bilevel::Vector& gradient = s.Get("gradient", s.x.dim());  // Zeros at first.
    bilevel::Vector& velocity = s.Get("velocity", s.x.dim());
    // s.x is v, with the gradient of the iteration before: what is reported is of the state left.
    const double k = static_cast<double>(o.iteration);
    const bilevel::Vector step = -step_ * gradient;
    const bilevel::Vector moved = velocity + step;  // x_{k+1} - x_k = (v_k - x_k) + step
    velocity = k / (k + 3.0) * moved;
    s.x.Move(step + velocity);  // Respects manifolds and bounds.

    // phi and its gradient f_x + (dy*/dx)' f_y by a lower and an adjoint solve.
    if (!o.Solve(s.x, &s.y) || !o.Differentiate(s.x, s.y)) return o.Fail(o.message());
    progress->objective = o.f.Gradient(s.x, s.y, &gradient, &fy_);
    if (!o.lower().Adjoint(fy_, &through_y_)) return o.Fail(o.lower().message());
    gradient += through_y_;
    progress->gradient_max_norm = gradient.lpNorm<Eigen::Infinity>();
    progress->step_norm = moved.norm();
  }
  bool Remember(bilevel::Oracle& /*o*/, bilevel::Memory* /*memory*/) override { return true; }

 private:
  double step_;
  bilevel::Vector fy_, through_y_;
};

constexpr int kSensors = 3;
struct Measurement {  // e^{x_s} (a t + b - value)
  template <typename T>
  bool operator()(const T* x, const T* line, T* r) const {
    r[0] = exp(x[sensor]) * (line[0] * t + line[1] - value);
    return true;
  }
  int sensor;
  double t, value;
};

struct ExactPoint {
  template <typename T>
  bool operator()(const T* line, T* r) const {
    r[0] = line[0] * t + line[1] - (0.5 * t - 1.0);
    return true;
  }
  double t;
};

struct Learned {
  double x[kSensors] = {}, line[2] = {};
  bilevel::Solver::Summary summary;
};

Learned Solve(std::shared_ptr<bilevel::Method> method) {
  Learned learned;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(learned.x, kSensors);
  std::mt19937 generator(3);
  std::normal_distribution<double> noise;
  for (int i = 0; i < 15 * kSensors; ++i) {
    const double t = 0.1 * (i / kSensors) - 0.7, sigma = 0.05 * std::pow(4.0, i % kSensors);
    problem.lower()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<Measurement, 1, kSensors, 2>(
            new Measurement{i % kSensors, t, 0.5 * t - 1.0 + sigma * noise(generator)}),
        nullptr,
        learned.x,
        learned.line);
  }
  for (const double t : {-0.5, 0.5}) {
    problem.upper()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<ExactPoint, 1, 2>(new ExactPoint{t}),
        nullptr,
        learned.line);
  }
  problem.upper()->AddResidualBlock(
      new bilevel::NormalPrior({0.0, 0.0, 0.0}, 10.0), nullptr, learned.x);
  bilevel::Solver::Options options;
  options.method = method;
  options.max_num_iterations = 5000;
  options.gradient_tolerance = 1e-8;
  bilevel::Solve(options, &problem, &learned.summary);
  std::puts(learned.summary.BriefReport().c_str());
  return learned;
}

int main() {
  const Learned own = Solve(std::make_shared<Nesterov>(2.0));
  const Learned reference = Solve(bilevel::CreateMethod("levenberg_marquardt"));
  double worst = 0.0;
  for (int i = 0; i < kSensors; ++i) worst = std::max(worst, std::abs(own.x[i] - reference.x[i]));
  std::printf("largest difference of x to levenberg_marquardt's: %.1e\n", worst);
  return own.summary.IsSolutionUsable() && worst < 1e-4 ? 0 : 1;
}
