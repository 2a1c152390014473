// What a tolerance that follows the hypergradient saves: `hoag` beside `gradient_descent`, as many
// steps along the same path, in turns on one thread. The page README.md beside this file says what
// the row means.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"

namespace bilevel {
namespace {

constexpr int kTrain = 2000, kValidation = 1000, kSteps = 50;
constexpr double kStep = 1000.0;

// A weight for every sample of a logistic regression, a third of them with the wrong label.
struct Cleaning {
  explicit Cleaning(int num_features) : x(kTrain, 0.0), theta(num_features, 0.0) {
    std::mt19937 generator(5);
    std::normal_distribution<double> normal;
    std::bernoulli_distribution wrong(0.33);
    Vector truth(num_features);
    for (double& t : truth) t = normal(generator);
    const auto make = [&](int n, bool noisy, std::vector<int>* labels) {
      Matrix a(n, num_features);
      for (int i = 0; i < n; ++i) {
        for (int j = 0; j < num_features; ++j) a(i, j) = normal(generator) / std::sqrt(1.0 + j);
        const bool label = a.row(i).dot(truth) > 0.0;
        labels->push_back(noisy && wrong(generator) ? !label : label);
      }
      return Features(a);
    };
    std::vector<int> labels, clean_labels;
    const Features train = make(kTrain, true, &labels);
    const Features clean = make(kValidation, false, &clean_labels);
    LinearModel::Options weighted;
    weighted.weights = LinearModel::kSigmoid;
    problem.AddUpperParameterBlock(x.data(), kTrain);
    problem.AddTerm(Level::kLower,
                    LogisticRegression(train, labels, weighted),
                    {{theta.data(), num_features}, {x.data(), kTrain}});
    problem.AddTerm(Level::kLower,
                    std::make_unique<L2Regularizer>(1, num_features, 1e-3),
                    {{theta.data(), num_features}});
    problem.AddTerm(
        Level::kUpper, LogisticRegression(clean, clean_labels), {{theta.data(), num_features}});
  }
  std::vector<double> x, theta;
  Problem problem;
};

// Seconds of kSteps steps; 0 where the solve failed.
template <typename Estimator>
double Run(Estimator estimator, int num_features, Vector* x, Solver::Summary* summary) {
  Cleaning cleaning(num_features);
  StepRule rule;
  rule.step = kStep;
  Solver::Options options;
  options.method = std::make_shared<GradientMethod>(
      "descent", std::make_unique<Estimator>(std::move(estimator)), rule);
  options.lower_solver = [](Program* program) {
    return std::make_unique<NewtonCgLowerSolver>(program, NewtonCgLowerSolver::Options());
  };
  options.max_num_iterations = kSteps;
  options.gradient_tolerance = options.function_tolerance = options.parameter_tolerance = 0.0;
  const auto begin = std::chrono::steady_clock::now();
  Solve(options, &cleaning.problem, summary);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  *x = Eigen::Map<const Vector>(cleaning.x.data(), kTrain);
  return summary->IsSolutionUsable() ? seconds.count() : 0.0;
}

void Hoag(benchmark::State& state) {
  const int num_features = static_cast<int>(state.range(0));
  std::vector<double> ratios;
  Vector exact_x, x;
  Solver::Summary exact, hoag;
  for (auto _ : state) {
    const double exact_seconds =
        Run<ExactHypergradient>(ExactHypergradient(), num_features, &exact_x, &exact);
    const double seconds = Run<HoagHypergradient>(HoagHypergradient({}), num_features, &x, &hoag);
    if (seconds * exact_seconds == 0.0) {
      return state.SkipWithError((exact.message + hoag.message).c_str());
    }
    ratios.push_back(seconds / exact_seconds);
    state.SetIterationTime(seconds);
  }
  std::nth_element(ratios.begin(), ratios.begin() + ratios.size() / 2, ratios.end());
  state.counters["products"] = static_cast<double>(hoag.lower_solver.gradient_steps);
  state.counters["exact_products"] = static_cast<double>(exact.lower_solver.gradient_steps);
  state.counters["difference"] = (x - exact_x).norm() / exact_x.norm();
  state.counters["objective"] = hoag.final_objective;
  state.counters["exact_objective"] = exact.final_objective;
  state.counters["first_objective"] = exact.initial_objective;
  state.counters["ratio"] = ratios[ratios.size() / 2];
  state.counters["target"] = 1.0;
}
BENCHMARK(Hoag)
    ->ArgName("features")
    ->Arg(400)
    ->Iterations(3)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
}  // namespace
}  // namespace bilevel

BENCHMARK_MAIN();
