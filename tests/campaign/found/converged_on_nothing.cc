// CONVERGENCE of "auto" without an iteration and with phi = -1: the lower level is not solved at
// the start, and is when the answer that there is none of is checked.
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

// As a warm solve from elsewhere may succeed where the first has not.
class SecondTime : public bilevel::NewtonLowerSolver {
 public:
  using NewtonLowerSolver::NewtonLowerSolver;
  bool Solve(const bilevel::Point& x, bilevel::Point* y) override {
    return NewtonLowerSolver::Solve(x, y) && num_solves_++ > 0;
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
  options.lower_solver = [&](bilevel::Program* program) {
    return std::make_unique<SecondTime>(program, options.LowerSolverOptions());
  };
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  std::printf(
      "%s\n%s\nx %g, best is 1\n", summary.BriefReport().c_str(), summary.message.c_str(), x);
  return summary.termination_type == ceres::CONVERGENCE && x != 1.0;
}
