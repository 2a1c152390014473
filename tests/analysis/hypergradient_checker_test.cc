#include "bilevel/analysis/hypergradient_checker.h"

#include <cmath>
#include <limits>
#include <string>

#include "bilevel/analysis/hypergradient_matchers.h"
#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using testing::HasSubstr;
using testing::Not;

// r = y^2 / 2 + y - x, with factors that make its derivatives wrong.
struct Errors {
  double jacobian = 1.0, hessian = 1.0;
};

class Parabola : public SecondOrderCostFunction {
 public:
  explicit Parabola(const Errors& errors) : errors_(errors) {
    set_num_residuals(1);
    *mutable_parameter_block_sizes() = {1, 1};
  }
  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override {
    const double y = *parameters[0], x = *parameters[1];
    residuals[0] = 0.5 * y * y + y - x;
    if (jacobians && jacobians[0]) jacobians[0][0] = errors_.jacobian * (y + 1.0);
    if (jacobians && jacobians[1]) jacobians[1][0] = -1.0;
    return true;
  }
  bool EvaluateHessian(double const* const*, const double* w, double* hessian) const override {
    hessian[0] = errors_.hessian * w[0];
    hessian[1] = hessian[2] = hessian[3] = 0.0;
    return true;
  }
  bool EvaluateHessianProduct(double const* const*,
                              const double* w,
                              const double* direction,
                              double* product) const override {
    product[0] = errors_.hessian * w[0] * direction[0];
    product[1] = 0.0;
    return true;
  }

 private:
  Errors errors_;
};

struct Pull {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = 0.8 * (y[0] + 0.5);
    return true;
  }
};

// Lower: a parabola against a pull, so that it keeps a residual; upper: the parabola elsewhere.
class CheckerTest : public testing::Test {
 protected:
  void Build(const Errors& lower, const Errors& upper) {
    problem_.AddUpperParameterBlock(&x_, 1);
    problem_.SetParameterName(&x_, "x");
    problem_.lower()->AddResidualBlock(new Parabola(lower), nullptr, &y_, &x_);
    problem_.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Pull, 1, 1>(new Pull), nullptr, &y_);
    problem_.upper()->AddResidualBlock(new Parabola(upper), nullptr, &y_, &constant_);
    problem_.upper()->SetParameterBlockConstant(&constant_);
  }
  double x_ = 0.7, y_ = 0.3, constant_ = 0.2;
  Problem problem_;
};

TEST_F(CheckerTest, RightGradient) {
  Build({}, {});
  const auto result = HypergradientChecker::Check(&problem_);
  ASSERT_TRUE(result.ok) << result.message;
  ASSERT_EQ(result.gradient.size(), 1u);
  ASSERT_EQ(result.slopes.size(), 3u);
  for (double slope : result.slopes) EXPECT_NEAR(slope, 2.0, 0.05);
  EXPECT_LT(result.max_relative_error, 1e-10);
  EXPECT_THAT(result.Report(), HasSubstr("direction 2: Taylor remainder slope"));
  EXPECT_THAT(&problem_, HasExactHypergradient(1e-10));
  EXPECT_EQ(x_, 0.7);  // Nothing of the user's is changed.
  EXPECT_EQ(y_, 0.3);

  // The stationary point by bisection, phi' by the implicit function theorem, by hand.
  double low = -1.0, high = 1.0;
  const auto slope = [&](double y) {
    return (0.5 * y * y + y - x_) * (y + 1.0) + 0.64 * (y + 0.5);
  };
  for (int i = 0; i < 200; ++i) (slope(0.5 * (low + high)) < 0 ? low : high) = 0.5 * (low + high);
  const double y = low, r = 0.5 * y * y + y - x_;
  const double dy_dx = (y + 1.0) / ((y + 1.0) * (y + 1.0) + r + 0.64);
  const double f = 0.5 * y * y + y - constant_;
  EXPECT_NEAR(result.objective, 0.5 * f * f, 1e-14);
  EXPECT_NEAR(result.gradient[0], f * (y + 1.0) * dy_dx, 1e-13);
}

TEST_F(CheckerTest, WrongJacobianAbove) {
  Errors wrong;
  wrong.jacobian = 1.01;
  Build({}, wrong);
  HypergradientChecker::Options options;
  options.largest_step = 1e-4;
  const auto result = HypergradientChecker::Check(&problem_, options);
  ASSERT_TRUE(result.ok) << result.message;
  for (double slope : result.slopes) EXPECT_NEAR(slope, 1.0, 0.1);
  EXPECT_NEAR(result.max_relative_error, 0.01 / 1.01, 1e-5);
  EXPECT_THAT(&problem_, Not(HasExactHypergradient(1e-7)));
}

TEST_F(CheckerTest, WrongHessianBelow) {
  Errors wrong;
  wrong.hessian = 0.5;
  Build(wrong, {});
  HypergradientChecker::Options options;
  options.largest_step = 1e-4;
  const auto result = HypergradientChecker::Check(&problem_, options);
  ASSERT_TRUE(result.ok) << result.message;
  for (double slope : result.slopes) EXPECT_NEAR(slope, 1.0, 0.1);
  EXPECT_GT(result.max_relative_error, 1e-3);
  EXPECT_THAT(&problem_, Not(HasExactHypergradient(1e-7, options)));
}

TEST_F(CheckerTest, WrongJacobianBelow) {
  Errors wrong;
  wrong.jacobian = 1.1;
  Build(wrong, {});
  EXPECT_THAT(&problem_, Not(HasExactHypergradient(1e-7)));
}

TEST_F(CheckerTest, WhatIsAskedMustMakeSense) {
  using Options = HypergradientChecker::Options;
  EXPECT_FALSE(HypergradientChecker::Check(nullptr).ok);
  EXPECT_EQ(HypergradientChecker::Check(&problem_).ok, false);  // Nothing to learn yet.
  Build({}, {});
  const auto message = [&](const Options& options) {
    const auto result = HypergradientChecker::Check(&problem_, options);
    EXPECT_FALSE(result.ok);
    EXPECT_THAT(result.Report(), HasSubstr(result.message));
    return result.message;
  };
  Options options;
  options.num_steps = 2;
  EXPECT_THAT(message(options), HasSubstr("num_steps"));
  options = Options();
  options.num_directions = 0;
  EXPECT_THAT(message(options), HasSubstr("num_directions"));
  options = Options();
  options.largest_step = -1.0;
  EXPECT_THAT(message(options), HasSubstr("largest_step"));
  options = Options();
  options.solver.num_threads = 0;
  EXPECT_THAT(message(options), HasSubstr("num_threads"));
  problem_.SetParameterLowerBound(&x_, 0, 0.695);
  EXPECT_THAT(message(Options()), HasSubstr("'x' is closer than largest_step to a bound"));
  options = Options();
  options.largest_step = 1e-3;
  EXPECT_TRUE(HypergradientChecker::Check(&problem_, options).ok);
}

TEST(HypergradientCheckerResult, SaysThatItWasNotCalled) {
  EXPECT_THAT(HypergradientChecker::Result().Report(), HasSubstr("not called"));
}

}  // namespace
}  // namespace bilevel
