// A lower solve that is far from its minimum counts as solved where g is large: y* here is x.
#include <cmath>
#include <cstdio>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

// 5000, whatever y is: an outlier's cost, say. g is 1.25e7 at its minimum.
struct Offset {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = 5000.0 + 0.0 * y[0];
    return true;
  }
};
struct Difference {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] - x[0];
    return true;
  }
};
struct ToOne {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0] - 1.0;
    return true;
  }
};

int main() {
  double x = 0.0, y = 0.98;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<Offset, 1, 1>(new Offset), nullptr, &y);
  problem.lower()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference),
      new ceres::ScaledLoss(new ceres::SoftLOneLoss(1.0), 1e-3, ceres::TAKE_OWNERSHIP),
      &y,
      &x);
  problem.upper()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<ToOne, 1, 1>(new ToOne), nullptr, &y);
  problem.SetParameterUpperBound(&x, 0, 0.0);  // Where it stays.
  bilevel::Solver::Options options;
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  std::printf("%s\nx %.6g  y %.6g, should be equal; relative decrement %.2g of %.0e allowed\n",
              summary.BriefReport().c_str(),
              x,
              y,
              summary.final_lower_level_decrement,
              options.lower_tolerance);
  return std::abs(x - y) < 1e-4 ? 0 : 1;
}
