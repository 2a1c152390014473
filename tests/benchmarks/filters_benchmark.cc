// One hypergradient beside its own lower solve on whole images without a matrix: fields of experts,
// a variable for each pixel, 600 numbers above. The page README.md beside this file says what the
// row means.
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "benchmarks/hypergradient_beside_solve.h"
#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "examples/support/vision/image_model.h"

namespace bilevel {
namespace {

using examples::FieldsOfExperts;

void BM_FiltersHypergradient(benchmark::State& state) {
  constexpr int kFilters = FieldsOfExperts::kFilters;
  constexpr double kSigma = 25.0;
  const int size = static_cast<int>(state.range(0)), n = size * size;
  std::mt19937 generator(1);
  std::normal_distribution<double> normal(0.0, kSigma);
  examples::Image clean(size, size), noisy(size, size);
  for (int i = 0; i < n; ++i) {
    const double r = std::hypot(i % size - size / 2, i / size - size / 2);
    clean.pixels[i] = r < size / 3 ? 200.0 : 80.0 + 20.0 * std::sin(0.1 * r);
    noisy.pixels[i] = clean.pixels[i] + normal(generator);
  }
  std::vector<double> u = noisy.pixels, weights(kFilters, std::log(0.8 * kSigma));
  std::vector<double> coefficients(kFilters * kFilters, 0.0);
  for (int k = 0; k < kFilters; ++k) {
    coefficients[k * kFilters + k] = 1.75 / (kSigma * FieldsOfExperts::kUnit);
  }
  Problem problem;
  problem.AddUpperParameterBlock(weights.data(), kFilters);
  problem.AddUpperParameterBlock(coefficients.data(), kFilters * kFilters);
  problem.AddTerm(
      Level::kLower, std::make_unique<examples::SquaredError>(noisy, 1.0), {{u.data(), n}});
  problem.AddTerm(
      Level::kLower,
      std::make_unique<FieldsOfExperts>(size, size),
      {{weights.data(), kFilters}, {coefficients.data(), kFilters * kFilters}, {u.data(), n}});
  problem.AddTerm(
      Level::kUpper, std::make_unique<examples::SquaredError>(clean, 1.0 / n), {{u.data(), n}});
  std::string error;
  const auto program = problem.Compile(Problem::CompileOptions(), &error);
  if (!program) return state.SkipWithError(error.c_str());
  NewtonCgLowerSolver::Options options;
  options.tolerance = 1e-6;
  options.linear_tolerance = 1e-6;
  NewtonCgLowerSolver solver(program.get(), options);
  MeasureHypergradient(state, program.get(), &solver);
}
BENCHMARK(BM_FiltersHypergradient)
    ->Arg(128)
    ->Arg(256)
    ->Arg(512)
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace bilevel

BENCHMARK_MAIN();
