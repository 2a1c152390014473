// y*(x) as a residual of another Ceres problem, which any of Ceres' solvers may then solve.
//
// A thermometer's readings drift with the battery's voltage, by x a volt. The lower level estimates
// the temperatures y of three rooms from many readings; an expensive reference was carried through
// the rooms once. ArgminCostFunction has x as its parameter block and y*(x) as its residuals.
#include <cmath>
#include <cstdio>
#include <random>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

constexpr int kRooms = 3;

struct Reading {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] + x[0] * volts - value;
    return true;
  }
  double volts, value;
};

// Calls the argmin as if it were a templated function.
struct Reference {
  explicit Reference(ceres::CostFunction* function) : argmin(function) {}
  template <typename T>
  bool operator()(const T* x, T* r) const {
    if (!argmin(x, r)) return false;
    for (int i = 0; i < kRooms; ++i) r[i] -= measured[i];
    return true;
  }
  ceres::CostFunctionToFunctor<kRooms, 1> argmin;
  double measured[kRooms];
};

int main() {
  const double truth[kRooms] = {19.0, 21.5, 23.0}, true_x = -0.8;  // Degrees, degrees a volt.
  double x = 0.0, y[kRooms] = {20.0, 20.0, 20.0};
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  for (int i = 0; i < 60; ++i) {
    const int room = i % kRooms;
    const double volts = 1.0 - 0.01 * i;
    problem.lower()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<Reading, 1, 1, 1>(
            new Reading{volts, truth[room] + true_x * volts + 0.1 * normal(generator)}),
        new ceres::CauchyLoss(0.1),
        &x,
        &y[room]);
  }

  // Every evaluation solves the lower level, from the solution before it; the user's x and y stay.
  auto* argmin =
      new bilevel::ArgminCostFunction(bilevel::Solver::Options(), &problem, {&y[0], &y[1], &y[2]});
  if (!argmin->ok()) {
    std::fprintf(stderr, "%s\n", argmin->error().c_str());
    return 1;
  }
  auto* reference = new Reference(argmin);  // Owns it.
  for (int i = 0; i < kRooms; ++i) reference->measured[i] = truth[i] + 0.02 * normal(generator);
  ceres::Problem outer;
  outer.AddResidualBlock(
      new ceres::AutoDiffCostFunction<Reference, kRooms, 1>(reference), nullptr, &x);
  ceres::Solver::Options options;
  options.function_tolerance = options.parameter_tolerance = 1e-12;
  options.logging_type = ceres::SILENT;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &outer, &summary);
  std::printf(
      "%s\nx by ceres::Solve   %.8f (true %.1f)\n", summary.BriefReport().c_str(), x, true_x);

  // The same stated as a bilevel problem.
  for (int i = 0; i < kRooms; ++i) {
    problem.upper()->AddResidualBlock(
        new bilevel::NormalPrior({reference->measured[i]}, 1.0), nullptr, &y[i]);
  }
  const double by_ceres = x;
  x = 0.0;
  bilevel::Solver::Summary bilevel_summary;
  bilevel::Solve(bilevel::Solver::Options(), &problem, &bilevel_summary);
  std::printf("x by bilevel::Solve %.8f\n", x);
  return summary.IsSolutionUsable() && std::abs(x - by_ceres) < 1e-6 && std::abs(x - true_x) < 0.1
             ? 0
             : 1;
}
