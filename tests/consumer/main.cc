// min_x 1/2 (y* - 3)^2 with y* = argmin_y 1/2 (y - x)^2: both are 3.
#include <cmath>
#include <iostream>

#include "bilevel/bilevel.h"

struct Difference {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] - x[0];
    return true;
  }
};

struct Target {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0] - 3.0;
    return true;
  }
};

int main() {
  double x = 0.0, y = 0.0;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<Target, 1, 1>(new Target), nullptr, &y);
  bilevel::Solver::Summary summary;
  bilevel::Solve(bilevel::Solver::Options(), &problem, &summary);
  std::cout << "x " << x << ", y " << y << "\n";
  return summary.IsSolutionUsable() && std::abs(x - 3.0) < 1e-6 && std::abs(y - 3.0) < 1e-6 ? 0 : 1;
}
