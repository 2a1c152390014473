// One hypergradient beside its own lower solve on images: a variable for each pixel, a residual for
// each pixel's data and for each pair of 4-neighbours under a robust loss with learned weight and
// scale. The page README.md beside this file says what the row means.
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "benchmarks/hypergradient_beside_solve.h"
#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

namespace bilevel {
namespace {

struct DataError {
  template <typename T>
  bool operator()(const T* u, T* r) const {
    r[0] = u[0] - value;
    return true;
  }
  double value;
};

struct Difference {
  template <typename T>
  bool operator()(const T* u, const T* v, T* r) const {
    r[0] = u[0] - v[0];
    return true;
  }
};

struct Charbonnier {
  template <typename T>
  T operator()(const T& s, const T* x) const {
    const T a2 = exp(2.0 * x[1]);
    return 2.0 * exp(x[0]) * (sqrt(s + a2) - sqrt(a2));
  }
};

void BM_ImageHypergradient(benchmark::State& state) {
  const int size = static_cast<int>(state.range(0));
  std::mt19937 generator(1);
  std::normal_distribution<double> normal(0.0, 0.1);
  std::vector<double> u(static_cast<size_t>(size) * size), truth(u.size());
  double x[2] = {std::log(0.1), std::log(0.02)};
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  auto* loss = new AutoDiffLearnableLoss<Charbonnier, 2>(Charbonnier(), x);
  auto* difference = new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference);
  for (int i = 0; i < size * size; ++i) {
    truth[i] = std::hypot(i % size - size / 2, i / size - size / 2) < size / 3 ? 1.0 : 0.0;
    u[i] = truth[i] + normal(generator);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<DataError, 1, 1>(new DataError{u[i]}), nullptr, &u[i]);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<DataError, 1, 1>(new DataError{truth[i]}), nullptr, &u[i]);
    if (i % size > 0) problem.lower()->AddResidualBlock(difference, loss, &u[i - 1], &u[i]);
    if (i >= size) problem.lower()->AddResidualBlock(difference, loss, &u[i - size], &u[i]);
  }
  std::string error;
  const auto program = problem.Compile(Problem::CompileOptions(), &error);
  if (!program) return state.SkipWithError(error.c_str());
  NewtonLowerSolver::Options options;
  options.use_ceres = false;
  NewtonLowerSolver solver(program.get(), options);
  MeasureHypergradient(state, program.get(), &solver);
  state.counters["factorizations"] = static_cast<double>(solver.counts().factorizations);
}
BENCHMARK(BM_ImageHypergradient)
    ->Arg(128)
    ->Arg(256)
    ->Arg(512)
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace bilevel

BENCHMARK_MAIN();
