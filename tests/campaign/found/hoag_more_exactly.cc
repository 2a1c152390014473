// SIGSEGV of "hoag": its second lower solve at a point, the more exact one, fails.
#include <cstdio>
#include <memory>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

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

// As a tolerance may be met where a tenth of it is not.
class FirstTime : public bilevel::NewtonLowerSolver {
 public:
  using NewtonLowerSolver::NewtonLowerSolver;
  bool Solve(const bilevel::Point& x, bilevel::Point* y) override {
    return NewtonLowerSolver::Solve(x, y) && num_solves_++ < 1;
  }

 private:
  int num_solves_ = 0;
};

int main() {
  double x = 0.0, y = 0.0;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<ToOne, 1, 1>(new ToOne), nullptr, &y);
  bilevel::Solver::Options options;
  options.method = bilevel::CreateMethod("hoag");
  options.lower_solver = [&](bilevel::Program* program) {
    return std::make_unique<FirstTime>(program, options.LowerSolverOptions());
  };
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  std::printf(
      "%s\n%s\nx %g, best is 1\n", summary.BriefReport().c_str(), summary.message.c_str(), x);
  return 0;
}
