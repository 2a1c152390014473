#include "bilevel/analysis/argmin_cost_function.h"

#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "ceres/ceres.h"
#include "ceres/cost_function_to_functor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pose_graph.h"
#include "sphere.h"

namespace bilevel {
namespace {

using Eigen::VectorXd;
using testing::HasSubstr;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Central differences with one Richardson step along `direction(h)`, a point at distance h.
template <typename Point>
VectorXd Difference(const ceres::CostFunction& cost,
                    int block,
                    double h,
                    const Point& point_at,
                    std::vector<const double*> parameters) {
  const auto at = [&](double step) {
    const VectorXd moved = point_at(step);
    parameters[block] = moved.data();
    VectorXd residuals(cost.num_residuals());
    EXPECT_TRUE(cost.Evaluate(parameters.data(), residuals.data(), nullptr));
    return residuals;
  };
  const auto central = [&](double step) -> VectorXd { return (at(step) - at(-step)) / (2 * step); };
  return (4.0 * central(0.5 * h) - central(h)) / 3.0;
}

struct Exponential {
  template <typename T>
  bool operator()(const T* ab, const T* prior, T* residual) const {
    using std::exp;
    for (int i = 0; i < 4; ++i) residual[i] = ab[0] * exp(ab[1] * (0.4 * i)) - (1.0 + i);
    residual[4] = exp(prior[0]) * (ab[0] - prior[1]);
    return true;
  }
};

struct ScaledBy {
  template <typename T>
  bool operator()(const T* ab, const T* log_weight, T* residual) const {
    using std::exp;
    residual[0] = exp(log_weight[0]) * (ab[0] + ab[1]);
    return true;
  }
};

// Differences of solutions need more digits than their use does.
Solver::Options Tight() {
  Solver::Options options;
  options.lower_tolerance = 1e-14;
  return options;
}

class ArgminTest : public testing::Test {
 protected:
  ArgminTest() {
    problem_.AddUpperParameterBlock(prior_, 2);
    problem_.AddUpperParameterBlock(&log_weight_, 1);
    problem_.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Exponential, 5, 2, 2>(new Exponential), nullptr, ab_, prior_);
    problem_.lower()->AddResidualBlock(
        new AutoDiffCostFunction<ScaledBy, 1, 2, 1>(new ScaledBy), nullptr, ab_, &log_weight_);
  }
  double ab_[2] = {1.0, 1.0}, prior_[2] = {0.3, 1.5}, log_weight_ = -1.0;
  Problem problem_;
};

TEST_F(ArgminTest, JacobianIsTheDerivative) {
  const ArgminCostFunction argmin(Tight(), &problem_, {ab_});
  ASSERT_TRUE(argmin.ok()) << argmin.error();
  ASSERT_EQ(argmin.num_residuals(), 2);
  ASSERT_THAT(argmin.parameter_block_sizes(), testing::ElementsAre(2, 1));
  const double prior[2] = {0.1, 1.2}, log_weight = -0.5;
  std::vector<const double*> x = {prior, &log_weight};
  double y[2];
  Eigen::Matrix<double, 2, 2, Eigen::RowMajor> by_prior;
  Eigen::Vector2d by_weight;
  double* jacobians[2] = {by_prior.data(), by_weight.data()};
  ASSERT_TRUE(argmin.Evaluate(x.data(), y, jacobians));
  for (int k = 0; k < 2; ++k) {
    const VectorXd difference = Difference(
        argmin,
        0,
        1e-3,
        [&](double h) -> VectorXd {
          Eigen::Vector2d moved(prior[0], prior[1]);
          moved[k] += h;
          return moved;
        },
        x);
    EXPECT_LT((by_prior.col(k) - difference).norm(), 1e-9 * by_prior.norm());
  }
  const VectorXd difference = Difference(
      argmin,
      1,
      1e-3,
      [&](double h) -> VectorXd { return VectorXd::Constant(1, log_weight + h); },
      x);
  EXPECT_LT((by_weight - difference).norm(), 1e-9 * difference.norm());

  // One block at a time, and the user's memory.
  Eigen::Vector2d alone;
  double* one[2] = {nullptr, alone.data()};
  ASSERT_TRUE(argmin.Evaluate(x.data(), y, one));
  EXPECT_LT((alone - by_weight).norm(), 1e-12 * by_weight.norm());
  EXPECT_EQ(ab_[0], 1.0);
  EXPECT_EQ(ab_[1], 1.0);
  EXPECT_EQ(prior_[0], 0.3);
  EXPECT_EQ(log_weight_, -1.0);
}

// What y should be.
struct Wanted {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0] - 1.1;
    residual[1] = y[1] - 0.85;
    return true;
  }
};

// The same of y*(x).
struct WantedOfArgmin {
  explicit WantedOfArgmin(ceres::CostFunction* function) : argmin(function) {}
  template <typename T>
  bool operator()(const T* prior, const T* log_weight, T* residual) const {
    T y[2];
    return argmin(prior, log_weight, y) && Wanted()(y, residual);
  }
  ceres::CostFunctionToFunctor<2, 2, 1> argmin;
};

// A saddle of y^4/4 - x y^2/2 at 0, for x > 0.
struct Fading {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = exp(x[0] - y[0]);
    return true;
  }
};

// ceres::Solve on x, from within a problem of Ceres' own, ends where the hypergradient vanishes.
TEST_F(ArgminTest, InsideAnotherProblem) {
  problem_.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Wanted, 2, 2>(new Wanted), nullptr, ab_);
  double first = 0.0;
  for (int num_threads : {1, 2}) {
    double prior[2] = {0.3, 1.5}, log_weight = -1.0;
    ceres::Problem outer;
    // Copies around one bilevel::Problem, so that two threads have something to do.
    for (int copy = 0; copy < 8; ++copy) {
      auto* argmin = new ArgminCostFunction(Tight(), &problem_, {ab_});
      ASSERT_TRUE(argmin->ok()) << argmin->error();
      outer.AddResidualBlock(
          new ceres::AutoDiffCostFunction<WantedOfArgmin, 2, 2, 1>(new WantedOfArgmin(argmin)),
          nullptr,
          prior,
          &log_weight);
    }
    outer.SetParameterBlockConstant(prior);
    ceres::Solver::Options options;
    options.num_threads = num_threads;
    options.linear_solver_type = ceres::DENSE_QR;
    options.max_num_iterations = 200;
    options.function_tolerance = options.parameter_tolerance = 1e-16;
    options.gradient_tolerance = 1e-10;
    options.logging_type = ceres::SILENT;
    ceres::Solver::Summary summary;
    ceres::Solve(options, &outer, &summary);
    ASSERT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
    EXPECT_LT(summary.final_cost, 0.9 * summary.initial_cost);
    EXPECT_EQ(ab_[0], 1.0);
    EXPECT_EQ(log_weight_, -1.0);
    if (num_threads == 1) {
      first = log_weight;
    } else {
      EXPECT_NEAR(log_weight, first, 1e-6);
    }
  }
  const double before = HypergradientChecker::Check(&problem_).gradient[2];
  log_weight_ = first;
  const auto result = HypergradientChecker::Check(&problem_);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_LT(std::abs(result.gradient[2]), 1e-6 * std::abs(before));
}

// What y wants depends on x itself: with x in the user's memory of both problems.
TEST_F(ArgminTest, OuterProblemOnTheSameMemory) {
  auto* argmin = new ArgminCostFunction({}, &problem_, {ab_});
  ceres::Problem outer;
  outer.AddResidualBlock(
      new ceres::AutoDiffCostFunction<WantedOfArgmin, 2, 2, 1>(new WantedOfArgmin(argmin)),
      nullptr,
      prior_,
      &log_weight_);
  ceres::Solver::Options options;
  options.logging_type = ceres::SILENT;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &outer, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.message;
  EXPECT_LT(summary.final_cost, 0.5 * summary.initial_cost);
  EXPECT_NE(log_weight_, -1.0);
  EXPECT_EQ(ab_[0], 1.0);
}

TEST_F(ArgminTest, FailureReturnsFalse) {
  const ArgminCostFunction argmin({}, &problem_, {ab_});
  ASSERT_TRUE(argmin.ok());
  const double bad[2] = {std::nan(""), 1.0}, good[2] = {0.3, 1.5}, log_weight = -1.0;
  const double* x[2] = {bad, &log_weight};
  double y[2];
  EXPECT_FALSE(argmin.Evaluate(x, y, nullptr));
  EXPECT_FALSE(argmin.error().empty());
  EXPECT_TRUE(argmin.ok());
  x[0] = good;
  EXPECT_TRUE(argmin.Evaluate(x, y, nullptr)) << argmin.error();  // And it recovers.

  double unknown = 0.0;
  const ArgminCostFunction wrong({}, &problem_, {&unknown});
  EXPECT_FALSE(wrong.ok());
  EXPECT_THAT(wrong.error(), HasSubstr("not variable in the lower level"));
  EXPECT_FALSE(wrong.Evaluate(x, y, nullptr));
  EXPECT_FALSE(ArgminCostFunction({}, nullptr, {ab_}).ok());
  EXPECT_FALSE(ArgminCostFunction({}, &problem_, {}).ok());
}

TEST(ArgminCostFunction, UnsolvableLowerLevelReturnsFalse) {
  double y = 0.5, x = 1.0;  // exp(x - y) / 2 squared: least at infinity.
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Fading, 1, 1, 1>(new Fading), nullptr, &y, &x);
  const ArgminCostFunction argmin({}, &problem, {&y});
  ASSERT_TRUE(argmin.ok()) << argmin.error();
  const double* parameters[1] = {&x};
  double solution;
  EXPECT_FALSE(argmin.Evaluate(parameters, &solution, nullptr));
  EXPECT_THAT(argmin.error(), HasSubstr("no stationary point"));
  EXPECT_EQ(y, 0.5);
}

// y on unit quaternions and x on a sphere: ambient Jacobians through both manifolds.
struct Attitude {
  template <typename T>
  bool operator()(const T* q, const T* axis, T* residual) const {
    for (int i = 0; i < 3; ++i) {
      const T body[3] = {T(i == 0), T(i == 1), T(i == 2)};
      T world[3];
      ceres::UnitQuaternionRotatePoint(q, body, world);
      // Measurements that no rotation meets exactly.
      residual[i] = world[0] * axis[0] + world[1] * axis[1] + world[2] * axis[2] - 0.4 * (i + 1);
      residual[i + 3] = world[i] - 0.2 * i;
    }
    return true;
  }
};

TEST(ArgminCostFunction, ManifoldsOfBothLevels) {
  double q[4] = {1, 0, 0, 0}, axis[3] = {2.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0};
  Problem problem;
  problem.AddUpperParameterBlock(axis, 3, NewSphere());
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Attitude, 6, 4, 3>(new Attitude), nullptr, q, axis);
  problem.lower()->SetManifold(q, new ceres::QuaternionManifold);
  const ArgminCostFunction argmin(Tight(), &problem, {q});
  ASSERT_TRUE(argmin.ok()) << argmin.error();
  const double x[3] = {axis[0], axis[1], axis[2]};
  const double* parameters[1] = {x};
  Eigen::Vector4d y;
  Eigen::Matrix<double, 4, 3, Eigen::RowMajor> jacobian;
  double* jacobians[1] = {jacobian.data()};
  ASSERT_TRUE(argmin.Evaluate(parameters, y.data(), jacobians)) << argmin.error();
  EXPECT_NEAR(y.norm(), 1.0, 1e-12);
  EXPECT_LT((y.transpose() * jacobian).norm(), 1e-12);
  const std::unique_ptr<ceres::Manifold> sphere(NewSphere());
  Eigen::Matrix<double, 3, 2, Eigen::RowMajor> plus;
  sphere->PlusJacobian(x, plus.data());
  for (int k = 0; k < 2; ++k) {
    const VectorXd difference =
        Difference(argmin,
                   0,
                   1e-3,
                   [&](double h) -> VectorXd {
                     const double delta[2] = {k == 0 ? h : 0.0, k == 1 ? h : 0.0};
                     VectorXd moved(3);
                     sphere->Plus(x, delta, moved.data());
                     return moved;
                   },
                   {x});
    EXPECT_LT((jacobian * plus.col(k) - difference).norm(), 1e-9 * difference.norm());
  }
}

}  // namespace
}  // namespace bilevel
