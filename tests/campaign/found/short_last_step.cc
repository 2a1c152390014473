// CONVERGENCE of the default method where a Newton step along the gradient promises 1e5 times what
// the function tolerance calls small: Rosenbrock's valley on top of 1.
#include <cmath>
#include <cstdio>

#include "bilevel/bilevel.h"

struct Lower {  // y* = x.
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    for (int i = 0; i < 2; ++i) r[i] = y[i] - x[i];
    return true;
  }
};
struct Upper {  // Least, 1, at (1, 1).
  template <typename T>
  bool operator()(const T* y, T* f) const {
    const T u = y[1] - y[0] * y[0], v = 1.0 - y[0];
    f[0] = 100.0 * u * u + 1e-3 * v * v + 1.0;
    return true;
  }
};

int main() {
  double x[] = {-1.2, 1.3}, y[] = {0.0, 0.0};
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.lower()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<Lower, 2, 2, 2>(new Lower), nullptr, y, x);
  problem.AddTerm(
      bilevel::Level::kUpper, std::make_unique<bilevel::AutoDiffObjective<Upper, 2>>(), {{y, 2}});
  bilevel::Solver::Options options;
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  // phi, its gradient and Hessian in closed form.
  const double u = x[1] - x[0] * x[0], v = 1.0 - x[0];
  const double phi = 100.0 * u * u + 1e-3 * v * v + 1.0;
  const double g0 = -400.0 * u * x[0] - 2e-3 * v, g1 = 200.0 * u, gg = g0 * g0 + g1 * g1;
  const double h00 = 1200.0 * x[0] * x[0] - 400.0 * x[1] + 2e-3, h01 = -400.0 * x[0];
  const double curvature = (g0 * g0 * h00 + 2.0 * g0 * g1 * h01 + g1 * g1 * 200.0) / gg;
  const double promise = 0.5 * gg / curvature;
  std::printf("%s\n%s\nx %.6g, %.6g  |gradient| %.3g\n",
              summary.BriefReport().c_str(),
              summary.message.c_str(),
              x[0],
              x[1],
              std::sqrt(gg));
  std::printf("a Newton step along it promises %.3g, function_tolerance * phi is %.3g\n",
              promise,
              options.function_tolerance * phi);
  return summary.termination_type == ceres::CONVERGENCE &&
         !(curvature > 0.0 && promise < 10.0 * options.function_tolerance * phi);
}
