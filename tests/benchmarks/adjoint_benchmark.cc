// A weight for every sample: what one adjoint hypergradient in up to 10^6 weights costs beside a
// cold ceres::Solve of the same lower level at its default tolerances, and how much memory all of
// it takes. Both sides run in turns in one process on one thread.
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "bilevel/bilevel.h"
#include "bilevel/learnable/losses.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/program.h"
#include "ceres/ceres.h"
#include "figures.h"

namespace bilevel {
namespace {

constexpr int kKnots = 500;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double CpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Resident memory of this process, in bytes.
double Resident() {
  std::ifstream status("/proc/self/statm");
  double total = 0.0, resident = 0.0;
  status >> total >> resident;
  return 4096.0 * resident;
}

// exp of a piecewise linear function, between two knots.
struct Sample {
  template <typename T>
  bool operator()(const T* left, const T* right, T* residual) const {
    using std::exp;
    residual[0] = exp((1.0 - share) * left[0] + share * right[0]) - target;
    return true;
  }
  double share, target;
};
using Cost = AutoDiffCostFunction<Sample, 1, 1, 1>;

struct Setup {
  explicit Setup(int num_weights) : log_weights(num_weights, 0.0), knots(kKnots + 1, 0.0) {
    for (double& log_weight : log_weights) problem.AddUpperParameterBlock(&log_weight, 1);
    declared = CpuSeconds();
    for (int i = 0; i < num_weights; ++i) {
      const double at = kKnots * (i + 0.5) / num_weights;
      problem.lower()->AddResidualBlock(
          new Cost(new Sample{at - std::floor(at), Truth(at) + 0.3 * std::sin(37.0 * i)}),
          new WeightedLoss(nullptr, &log_weights[i], ceres::TAKE_OWNERSHIP),
          &knots[static_cast<int>(at)],
          &knots[static_cast<int>(at) + 1]);
    }
    for (int k = 0; k < kKnots; ++k) {
      problem.upper()->AddResidualBlock(
          new Cost(new Sample{0.5, Truth(k + 0.5)}), nullptr, &knots[k], &knots[k + 1]);
    }
  }
  static double Truth(double at) { return std::exp(std::sin(0.05 * at)); }
  std::vector<double> log_weights, knots;
  Problem problem;
  double declared;  // When all weights were.
};

void Adjoint(benchmark::State& state) {
  const int num_weights = static_cast<int>(state.range(0));
  const double before = Resident();
  Setup setup(num_weights);
  std::string error;
  const std::unique_ptr<Program> program = setup.problem.Compile({}, &error);
  if (!program) return state.SkipWithError(error.c_str());
  const double problem_memory = Resident() - before;
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.logging_type = ceres::SILENT;
  NewtonLowerSolver::Options lower_options;
  lower_options.ceres = options;
  NewtonLowerSolver lower(program.get(), lower_options);
  Oracle oracle(program.get(), &lower, 0);
  Point x(&program->x), y(&program->y);
  program->x.ReadUser(x.value().data());
  program->y.ReadUser(y.value().data());
  if (!oracle.Solve(x, &y)) return state.SkipWithError(oracle.message().c_str());
  Vector fx, fy, product;
  std::vector<double> adjoint, solve;
  for (auto _ : state) {
    std::fill(setup.knots.begin(), setup.knots.end(), 0.0);
    ceres::Solver::Summary summary;
    double begin = Now();
    ceres::Solve(options, setup.problem.lower(), &summary);
    solve.push_back(Now() - begin);
    // Another x by rounding alone, so that nothing can be taken over.
    x.value()[0] += 1e-14;
    begin = Now();
    if (!oracle.Differentiate(x, y)) return state.SkipWithError(oracle.message().c_str());
    oracle.f.Gradient(x, y, &fx, &fy);
    if (!lower.Adjoint(fy, &product)) return state.SkipWithError(lower.message().c_str());
    adjoint.push_back(Now() - begin);
    state.SetIterationTime(adjoint.back());
  }
  state.counters["solve_ms"] = 1e3 * Median(solve);
  state.counters["problem_bytes_per_weight"] = problem_memory / num_weights;
  state.counters["solver_bytes_per_weight"] = (Resident() - before - problem_memory) / num_weights;
  state.counters["ratio"] = Median(adjoint) / Median(solve);
  state.counters["target"] = 0.3;
}
BENCHMARK(Adjoint)
    ->ArgName("weights")
    ->Arg(1000)
    ->Arg(10000)
    ->Arg(100000)
    ->Iterations(5)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// CPU seconds from nothing to a hypergradient, Ceres' cold solve included.
void Million(benchmark::State& state) {
  constexpr int kWeights = 1000000;
  for (auto _ : state) {
    const double begin = CpuSeconds();
    Setup setup(kWeights);
    std::string error;
    const std::unique_ptr<Program> program = setup.problem.Compile({}, &error);
    if (!program) return state.SkipWithError(error.c_str());
    NewtonLowerSolver::Options options;
    options.ceres.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
    options.ceres.logging_type = ceres::SILENT;
    NewtonLowerSolver lower(program.get(), options);
    Oracle oracle(program.get(), &lower, 0);
    Point x(&program->x), y(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(y.value().data());
    Vector fx, fy, product;
    if (!oracle.Solve(x, &y) || !oracle.Differentiate(x, y)) {
      return state.SkipWithError(oracle.message().c_str());
    }
    oracle.f.Gradient(x, y, &fx, &fy);
    if (!lower.Adjoint(fy, &product)) return state.SkipWithError(lower.message().c_str());
    state.counters["declare_s"] = setup.declared - begin;
    state.counters["ratio"] = CpuSeconds() - begin;
    state.counters["target"] = 15.0;
  }
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  state.counters["peak_GB"] = static_cast<double>(usage.ru_maxrss) / 1048576.0;
}
BENCHMARK(Million)->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace bilevel

BENCHMARK_MAIN();
