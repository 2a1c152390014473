#include "bilevel/derivatives/internal/numeric_hessian.h"

#include <cmath>

#include "Eigen/Core"
#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "ceres/autodiff_cost_function.h"
#include "ceres/cost_function.h"
#include "ceres/numeric_diff_cost_function.h"
#include "ceres/sized_cost_function.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

struct Curved {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    r[0] = exp(a[0] * b[1]) * sin(a[1]);
    r[1] = a[1] * b[0] / a[0] + sqrt(1.0 + b[1] * b[1]);
    return true;
  }
};

using Matrix4 = Eigen::Matrix<double, 4, 4, Eigen::RowMajor>;

class NumericHessianTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const AutoDiffCostFunction<Curved, 2, 2, 2> cost_function(new Curved);
    ASSERT_TRUE(cost_function.EvaluateHessian(parameters_, weights_, exact_.data()));
  }

  const double a_[2] = {1.5, 0.7};
  const double b_[2] = {-0.4, 0.9};
  const double* parameters_[2] = {a_, b_};
  const double weights_[2] = {0.8, -1.7};
  NumericHessianWorkspace workspace_;
  Matrix4 exact_;
};

TEST_F(NumericHessianTest, IsAccurateWhereTheJacobianIsExact) {
  const ceres::AutoDiffCostFunction<Curved, 2, 2, 2> cost_function(new Curved);
  Matrix4 H;
  ASSERT_TRUE(NumericHessian(cost_function, parameters_, weights_, H.data(), &workspace_));
  EXPECT_LT((H - exact_).norm(), 2e-11 * exact_.norm());
  EXPECT_EQ(H, H.transpose());

  const Eigen::Vector4d v(0.3, -100.0, 2.0, 1e-3);
  Eigen::Vector4d Hv;
  ASSERT_TRUE(NumericHessianProduct(
      cost_function, parameters_, weights_, v.data(), Hv.data(), &workspace_));
  EXPECT_LT((Hv - exact_ * v).norm(), 2e-11 * (exact_ * v).norm());
}

TEST_F(NumericHessianTest, IsRoughWhereTheJacobianIsDifferenced) {
  const ceres::NumericDiffCostFunction<Curved, ceres::CENTRAL, 2, 2, 2> cost_function(new Curved);
  Matrix4 H;
  ASSERT_TRUE(NumericHessian(cost_function, parameters_, weights_, H.data(), &workspace_));
  EXPECT_LT((H - exact_).norm(), 1e-4 * exact_.norm());
}

TEST_F(NumericHessianTest, ZeroDirectionGivesZero) {
  const ceres::AutoDiffCostFunction<Curved, 2, 2, 2> cost_function(new Curved);
  const Eigen::Vector4d v = Eigen::Vector4d::Zero();
  Eigen::Vector4d Hv = Eigen::Vector4d::Ones();
  ASSERT_TRUE(NumericHessianProduct(
      cost_function, parameters_, weights_, v.data(), Hv.data(), &workspace_));
  EXPECT_EQ(Hv, v);
}

// f(x) = sin((x - offset) / scale): f'' = -f / scale^2, at values far above the scale and below.
class Wave : public ceres::SizedCostFunction<1, 1> {
 public:
  Wave(double offset, double scale) : offset_(offset), scale_(scale) {}
  bool Evaluate(double const* const* parameters, double* r, double** jacobians) const override {
    const double phase = (parameters[0][0] - offset_) / scale_;
    r[0] = std::sin(phase);
    if (jacobians != nullptr && jacobians[0] != nullptr) jacobians[0][0] = std::cos(phase) / scale_;
    return true;
  }

 private:
  double offset_, scale_;
};

TEST(NumericHessian, FindsTheScaleOfAParameter) {
  const double weight = 1.0;
  NumericHessianWorkspace workspace;
  const auto relative_error = [&](double offset, double scale) {
    const Wave wave(offset, scale);
    const double x = offset + scale;  // Phase 1, up to rounding.
    const double* parameters[] = {&x};
    double r, H;
    EXPECT_TRUE(wave.Evaluate(parameters, &r, nullptr));
    EXPECT_TRUE(NumericHessian(wave, parameters, &weight, &H, &workspace));
    return std::abs(H * scale * scale / -r - 1.0);
  };
  EXPECT_LT(relative_error(0.0, 1.0), 1e-11);
  EXPECT_LT(relative_error(1000.0, 1.0), 1e-9);
  EXPECT_LT(relative_error(4e6, 10.0), 1e-8);  // Projected coordinates.
  EXPECT_LT(relative_error(0.0, 1e-3), 1e-9);
  EXPECT_LT(relative_error(0.0, 1e-8), 1e-9);
  EXPECT_LT(relative_error(0.0, 1e3), 1e-8);
}

// log(x), which fails for x <= 0.
class Logarithm : public ceres::SizedCostFunction<1, 1> {
 public:
  bool Evaluate(double const* const* parameters, double* r, double** jacobians) const override {
    const double x = parameters[0][0];
    if (x <= 0.0) return false;
    r[0] = std::log(x);
    if (jacobians != nullptr && jacobians[0] != nullptr) jacobians[0][0] = 1.0 / x;
    return true;
  }
};

TEST(NumericHessian, StepsStayInsideTheDomain) {
  const Logarithm cost_function;
  const double weight = 2.0;
  double x = 1e-4;  // The first step is ten times as long.
  const double* parameters[] = {&x};
  double H;
  NumericHessianWorkspace workspace;
  ASSERT_TRUE(NumericHessian(cost_function, parameters, &weight, &H, &workspace));
  EXPECT_NEAR(H * x * x / weight, -1.0, 1e-8);
}

TEST(NumericHessian, FailsWhereEvaluateFails) {
  const Logarithm cost_function;
  const double weight = 1.0;
  const double x = -1.0;
  const double* parameters[] = {&x};
  const double zero = 0.0;
  double H;
  NumericHessianWorkspace workspace;
  EXPECT_FALSE(NumericHessian(cost_function, parameters, &weight, &H, &workspace));
  EXPECT_FALSE(NumericHessianProduct(cost_function, parameters, &weight, &zero, &H, &workspace));
}

}  // namespace
}  // namespace bilevel
