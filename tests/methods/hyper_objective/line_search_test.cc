// Line searches where x is as long as there are samples.
#include <algorithm>
#include <memory>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

// (y - mean(x))^2 / 2, over {y, x}.
class DistanceToMean : public Objective {
 public:
  explicit DistanceToMean(int n) : n_(n) {}
  bool Evaluate(double const* const* blocks,
                const Batch&,
                double* value,
                double** gradients) const override {
    const double r = blocks[0][0] - Mean(blocks[1]);
    *value = 0.5 * r * r;
    if (gradients && gradients[0]) gradients[0][0] = r;
    if (gradients && gradients[1]) std::fill_n(gradients[1], n_, -r / n_);
    return true;
  }
  bool has_hessian_product() const override { return true; }
  bool HessianProduct(double const* const*,
                      const Batch&,
                      double const* const* direction,
                      double** products) const override {
    const double r =
        (direction[0] ? direction[0][0] : 0.0) - (direction[1] ? Mean(direction[1]) : 0.0);
    if (products[0]) products[0][0] = r;
    if (products[1]) std::fill_n(products[1], n_, -r / n_);
    return true;
  }

 private:
  double Mean(const double* x) const {
    double sum = 0.0;
    for (int i = 0; i < n_; ++i) sum += x[i];
    return sum / n_;
  }
  int n_;
};

// y* = mean(x), and phi = (mean(x) - 3)^2 / 2 + |x|^2 / (2 n) is least at x_i = 3/2. A square
// matrix of x's length would take 32 GB here.
TEST(LineSearch, TakesNoMemoryOfTheSquareOfItsLength) {
  constexpr int kSize = 65536;
  std::vector<double> x(kSize, 0.0);
  double y = 0.0;
  x[7] = 5.0;
  Problem problem;
  problem.AddUpperParameterBlock(x.data(), kSize);
  problem.AddTerm(
      Level::kLower, std::make_unique<DistanceToMean>(kSize), {{&y, 1}, {x.data(), kSize}});
  problem.AddTerm(
      Level::kUpper, LinearRegression(Features(Eigen::MatrixXd::Ones(1, 1)), {3.0}), {{&y, 1}});
  problem.AddTerm(
      Level::kUpper, std::make_unique<L2Regularizer>(1, kSize, 0.5 / kSize), {{x.data(), kSize}});
  Solver::Options options;
  options.method = CreateMethod("lbfgs");
  options.lower_solver = [](Program* program) {
    return std::make_unique<NewtonCgLowerSolver>(program, NewtonCgLowerSolver::Options());
  };
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.message;
  EXPECT_NEAR(y, 1.5, 1e-4);
  EXPECT_NEAR(summary.final_objective, 2.25, 1e-6);
}

}  // namespace
}  // namespace bilevel
