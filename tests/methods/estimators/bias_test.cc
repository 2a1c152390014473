// Biased methods say how far x is from where phi is stationary.
#include "bilevel/methods/estimators/bias.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "bilevel/methods/estimators/hypergradient.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "examples/support/learning/quadratic_sum.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

Solver::Summary SolveWith(std::shared_ptr<Method> method, int iterations, Problem* problem) {
  Solver::Options options;
  options.method = std::move(method);
  options.max_num_iterations = iterations;
  Solver::Summary summary;
  Solve(options, problem, &summary);
  return summary;
}

QuadraticSum FlatSum() {
  QuadraticSum sum(8, 2, 4, 0.2);
  for (Matrix& h : sum.h) h *= 0.1;  // T steps of 0.1 leave most of the way.
  sum.mean_h *= 0.1;
  for (Matrix& c : sum.cs) c *= 0.1;
  sum.mean_c *= 0.1;
  for (Vector& d : sum.d) d *= 0.1;
  sum.mean_d *= 0.1;
  return sum;
}

// On a quadratic Newton's step is all of the way, wherever the method ended.
TEST(EstimateDistance, IsTheDistanceToTheClosedForm) {
  for (const char* name :
       {"itd", "truncated_itd", "itd_momentum", "aid_neumann", "bda", "bvfsm", "penalty", "bsg1"}) {
    QuadraticSum sum = FlatSum();
    Problem problem;
    sum.AddTo(&problem);
    const Solver::Summary summary = SolveWith(CreateMethod(name), 300, &problem);
    ASSERT_TRUE(summary.IsSolutionUsable()) << name << "\n" << summary.FullReport();
    const double distance = (sum.x - sum.UpperSolution()).norm();
    EXPECT_GT(distance, 0.01) << name;
    EXPECT_NEAR(summary.assessment.x_bias, distance, 0.03 * distance) << name;
    EXPECT_NE(summary.termination_type, ceres::CONVERGENCE) << name;
  }
  // Who has no bias does not pay for an estimate.
  for (const char* name : {"gradient_descent", "aid_cg", "aid_fp", "hoag", "bgs"}) {
    QuadraticSum sum = FlatSum();
    Problem problem;
    sum.AddTo(&problem);
    const Solver::Summary summary = SolveWith(CreateMethod(name), 10, &problem);
    EXPECT_TRUE(std::isnan(summary.assessment.x_bias)) << name;
  }
}

// itd settles where f_x - J z_T = 0, with T terms of Neumann's series.
TEST(EstimateDistance, OfUnrollingIsThatOfItsFixedPointInClosedForm) {
  QuadraticSum sum = FlatSum();
  const auto map = [&](const Vector& x) -> Vector {
    Vector w = sum.LowerSolution(x) - sum.mean_b, z = 0.1 * w;
    for (int t = 1; t < 10; ++t) z += 0.1 * (w -= 0.1 * sum.mean_h * w);
    return sum.rho * x + sum.mean_c.transpose() * z;
  };
  Matrix slope(2, 2);
  const Vector at_zero = map(Vector::Zero(2));
  for (int j = 0; j < 2; ++j) slope.col(j) = map(Vector::Unit(2, j)) - at_zero;
  const Vector biased = SolveSquare(slope, -at_zero);
  const double expected = (biased - sum.UpperSolution()).norm();
  EXPECT_GT(expected, 0.1);
  Problem problem;
  sum.AddTo(&problem);
  const Solver::Summary summary = SolveWith(CreateMethod("itd"), 3000, &problem);
  EXPECT_LT((sum.x - biased).norm(), 1e-3 * expected);
  EXPECT_NEAR(summary.assessment.x_bias, expected, 0.03 * expected);
}

struct Target {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - target;
    return true;
  }
  double target;
};
struct WeightedTarget {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::exp;
    r[0] = 0.3 * exp(0.5 * x[0]) * (y[0] - target);
    return true;
  }
  double target;
};

// To first order only, where phi is no quadratic: against a polished solution.
TEST(EstimateDistance, IsRightToFirstOrder) {
  double x = 0.4, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Target, 1, 1>(new Target{1.0}), nullptr, &y);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<WeightedTarget, 1, 1, 1>(new WeightedTarget{-2.0}), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Target, 1, 1>(new Target{0.3}), nullptr, &y);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Target, 1, 1>(new Target{0.1}), nullptr, &x);
  UnrolledHypergradient::Options itd;
  itd.num_lower_steps = 5;
  const Solver::Summary summary =
      SolveWith(std::make_shared<GradientMethod>(
                    "itd", std::make_unique<UnrolledHypergradient>(itd), StepRule()),
                1000,
                &problem);
  const double biased = x;
  SolveWith(CreateMethod("levenberg_marquardt"), 100, &problem);
  const double distance = std::abs(biased - x);
  EXPECT_GT(distance, 0.05);
  EXPECT_GT(summary.assessment.x_bias, distance / 1.5);
  EXPECT_LT(summary.assessment.x_bias, distance * 1.5);
}

// A coordinate that is held at its bound has no way to go, and none is counted.
TEST(EstimateDistance, CountsFreeCoordinatesOnly) {
  QuadraticSum sum = FlatSum();
  const Vector free = sum.UpperSolution();
  const double side = free[0] > 0.0 ? 1.0 : -1.0;
  Problem problem;
  sum.AddTo(&problem);
  const double bound = 0.05 * free[0];  // Nearer than where itd settles.
  if (side > 0.0) {
    problem.SetParameterUpperBound(sum.x.data(), 0, bound);
  } else {
    problem.SetParameterLowerBound(sum.x.data(), 0, bound);
  }
  sum.x[0] = bound;
  const Solver::Summary summary = SolveWith(CreateMethod("itd"), 300, &problem);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  ASSERT_EQ(sum.x[0], bound);
  // With x[0] at the bound, grad phi[1] = 0.
  const Matrix a = sum.UpperHessian();
  const double best = free[1] - a(1, 0) * (bound - free[0]) / a(1, 1);
  const double distance = std::abs(sum.x[1] - best);
  EXPECT_GT(distance, 0.01);
  EXPECT_NEAR(summary.assessment.x_bias, distance, 0.03 * distance);
}

struct Difference {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - x[0];
    return true;
  }
};
struct Both {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 1.0;
    r[1] = y[1] - 2.0;
    return true;
  }
};

// Where y*(x) is a line, no Newton step of phi is to be had.
TEST(EstimateDistance, IsUnknownWhereTheLowerLevelHasManySolutions) {
  double x = 0.0, y[2] = {0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Difference, 1, 1, 2>(new Difference), nullptr, &x, y);
  problem.upper()->AddResidualBlock(new AutoDiffCostFunction<Both, 2, 2>(new Both), nullptr, y);
  for (const char* name : {"bda", "penalty"}) {
    const Solver::Summary summary = SolveWith(CreateMethod(name), 20, &problem);
    EXPECT_TRUE(std::isnan(summary.assessment.x_bias)) << name << summary.FullReport();
  }
}

}  // namespace
}  // namespace bilevel
