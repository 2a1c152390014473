// Where phi jumps, a line search of Ceres ends with an x, a y and a phi that do not belong
// together: CONVERGENCE, and f in the user's memory is 20 times the Summary's and more than at the
// start.
#include <cmath>
#include <cstdio>

#include "bilevel/bilevel.h"

// A double well in y, tilted by x: the well near y = -1 ends at x = 1.54.
struct Well {
  template <typename T>
  bool operator()(const T* y, const T* x, T* g) const {
    const T q = y[0] * y[0] - 1.0;
    g[0] = q * q - x[0] * y[0];
    return true;
  }
};
struct Upper {
  template <typename T>
  bool operator()(const T* y, const T* x, T* f) const {
    const T a = y[0] + 0.4, b = x[0] - 2.9;
    f[0] = a * a + 0.05 * b * b;
    return true;
  }
};

int main() {
  int failures = 0;
  for (const char* method : {"bfgs", "ncg"}) {
    double x = -0.6, y = -1.0;
    bilevel::Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(bilevel::Level::kLower,
                    std::make_unique<bilevel::AutoDiffObjective<Well, 1, 1>>(),
                    {{&y, 1}, {&x, 1}});
    problem.AddTerm(bilevel::Level::kUpper,
                    std::make_unique<bilevel::AutoDiffObjective<Upper, 1, 1>>(),
                    {{&y, 1}, {&x, 1}});
    bilevel::Solver::Options options;
    options.method = bilevel::CreateMethod(method);
    bilevel::Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
    double f;
    Upper()(&y, &x, &f);
    std::printf("%s\n%s\nx %.6g  y %.6g  f in memory %.6g, the Summary's %.6g\n",
                summary.BriefReport().c_str(),
                summary.message.c_str(),
                x,
                y,
                f,
                summary.final_objective);
    failures += !(std::abs(f - summary.final_objective) < 1e-6);
  }
  return failures;
}
