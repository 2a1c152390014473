// SIGSEGV: the estimate of the bias asks for a hypergradient where the lower level has no solution.
#include <cstdio>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

struct Lower {  // y* = x, for x below 1.
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] - x[0];
    return x[0] < 1.0;
  }
};
struct ToZero {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0];
    return true;
  }
};

int main() {
  for (const char* method : {"itd", "bda", "bvfsm", "penalty"}) {
    double x = 1.0 - 5e-6, y = x;
    bilevel::Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<Lower, 1, 1, 1>(new Lower), nullptr, &y, &x);
    problem.upper()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<ToZero, 1, 1>(new ToZero), nullptr, &y);
    bilevel::Solver::Options options;
    options.method = bilevel::CreateMethod(method);
    options.max_num_iterations = 0;
    bilevel::Solver::Summary summary;
    std::printf("%s ...\n", method);
    std::fflush(stdout);
    bilevel::Solve(options, &problem, &summary);
    std::printf("%s\n", summary.BriefReport().c_str());
  }
  return 0;
}
