#include "bilevel/methods/hyper_objective/gradient_sampling.h"

#include <memory>

#include "bilevel/bilevel.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

struct Sum {  // y* = max(x0 + x1, 0).
  template <typename T>
  bool operator()(const T* x, const T* y, T* residual) const {
    residual[0] = y[0] - x[0] - x[1];
    return true;
  }
};

struct Valley {
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    *value = (x[0] - 2.0) * (x[0] - 2.0) + (x[1] - 1.0) * (x[1] - 1.0) + weight * y[0];
    return true;
  }
  double weight;
};

// phi = |x - (2, 1)|^2 + w max(x0 + x1, 0): with w >= 6 the least is on the kink x0 + x1 = 0, at
// (1/2, -1/2), which no axis lies along; with less, in the open.
TEST(GradientSampling, DescendsAlongAKink) {
  for (const double weight : {10.0, 2.0}) {
    double x[] = {3.0, 0.5}, y = 1.0;
    Problem problem;
    problem.AddUpperParameterBlock(x, 2);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Sum, 1, 2, 1>(new Sum), nullptr, x, &y);
    problem.lower()->SetParameterLowerBound(&y, 0, 0.0);
    problem.AddTerm(Level::kUpper,
                    std::make_unique<AutoDiffObjective<Valley, 2, 1>>(Valley{weight}),
                    {{x, 2}, {&y, 1}});
    Solver::Options options;
    options.method = CreateMethod("gradient_sampling");
    options.max_num_iterations = 500;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    const bool is_kink = weight > 6.0;
    EXPECT_EQ(summary.answer, is_kink ? AnswerKind::kKink : AnswerKind::kStationary);
    EXPECT_NEAR(x[0], is_kink ? 0.5 : 2.0 - 0.5 * weight, 1e-5);
    EXPECT_NEAR(x[1], is_kink ? -0.5 : 1.0 - 0.5 * weight, 1e-5);
  }
}

}  // namespace
}  // namespace bilevel
