// What single measurements do to y*, against closed forms and re-solves.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "ceres/ceres.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Sensitivity::Options Polished() {
  Sensitivity::Options options;
  options.polish = true;
  return options;
}

struct LinearRow {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = T(-target);
    for (int i = 0; i < 3; ++i) residual[0] += features[i] * y[i];
    return true;
  }
  Eigen::Vector3d features;
  double target;
};

// Least squares of 12 linear residuals in 3 unknowns.
struct Regression {
  Regression() : a(12, 3), b(12) {
    for (int i = 0; i < 12; ++i) {
      a.row(i) = TestVector(3, 1.0 + 0.7 * i).transpose();
      b[i] = std::sin(5.0 * i);
      ids.push_back(ceres_problem.AddResidualBlock(
          new AutoDiffCostFunction<LinearRow, 1, 3>(new LinearRow{a.row(i).transpose(), b[i]}),
          nullptr,
          y));
    }
    problem = std::make_unique<Problem>(nullptr, &ceres_problem);
  }
  MatrixXd a;
  VectorXd b;
  double y[3] = {0, 0, 0};
  ceres::Problem ceres_problem;
  std::vector<ceres::ResidualBlockId> ids;
  std::unique_ptr<Problem> problem;
};

TEST(SensitivityToData, LinearLeastSquares) {
  Regression regression;
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(regression.problem.get(), {})) << sensitivity.message();
  const MatrixXd &a = regression.a, inverse = PseudoInverse(a);
  const Eigen::Vector3d solution = inverse * regression.b;
  const VectorXd gradient = TestVector(3, 0.3);
  std::vector<double> influence(12);
  ASSERT_TRUE(
      sensitivity.Influence({{regression.y, gradient.data()}}, regression.ids, influence.data()));
  for (int i = 0; i < 12; ++i) {
    Eigen::Vector3d to_residual, motion;
    ASSERT_TRUE(
        sensitivity.GetSensitivityToResiduals(regression.y, regression.ids[i], to_residual.data()));
    const Eigen::Vector3d expected = inverse.col(i);
    EXPECT_LT((to_residual + expected).norm(), 1e-12);

    // Left out and solved again.
    MatrixXd rest = a;
    rest.row(i).setZero();
    const Eigen::Vector3d without = LeastSquares(rest, regression.b);
    ASSERT_TRUE(sensitivity.LeaveOut(regression.ids[i], regression.y, motion.data()));
    EXPECT_LT((solution + motion - without).norm(), 1e-10);

    const double residual = a.row(i).dot(solution) - regression.b[i];
    EXPECT_NEAR(influence[i], gradient.dot(VectorXd(expected)) * residual, 1e-12);
  }
}

struct Upright {
  template <typename T>
  bool operator()(const T* q, T* residual) const {
    for (int k = 0; k < 3; ++k) residual[k] = q[k + 1] - 0.03 * k;
    return true;
  }
};
constexpr double kSeen[3] = {0.35, 0.3, 0.1};

// Points seen from a rotation with robust losses: a manifold, curvature and rho''.
struct Views {
  explicit Views(const std::vector<Eigen::Vector3d>& moved, int left_out = -1) {
    for (int i = 0; i < static_cast<int>(moved.size()); ++i) {
      if (i == left_out) continue;
      Mixed mixed;
      for (int k = 0; k < 3; ++k)
        mixed.offset[k] = kSeen[k] + 0.1 * std::cos(1.3 * i + k) + moved[i][k];
      ids.push_back(ceres_problem.AddResidualBlock(
          new AutoDiffCostFunction<Mixed, 4, 4, 3, 1>(new Mixed(mixed)),
          i % 2 ? new ceres::CauchyLoss(0.7) : nullptr,
          q,
          t,
          &s));
    }
    ceres_problem.SetManifold(q, new ceres::QuaternionManifold);
    ceres_problem.AddResidualBlock(TargetCost(0.4), nullptr, &s);
    ceres_problem.SetParameterBlockConstant(&s);
    ceres_problem.AddResidualBlock(
        new AutoDiffCostFunction<Upright, 3, 4>(new Upright), nullptr, q);
    for (int k = 0; k < 3; ++k) {
      // Something on t alone, and on q: determines what the views do not.
      ceres_problem.AddResidualBlock(
          new FunctionCost(1,
                           {3},
                           [k](double const* const* p, double* r, double** j) {
                             r[0] = p[0][k] - 0.2;
                             if (j && j[0]) {
                               for (int i = 0; i < 3; ++i) j[0][i] = i == k;
                             }
                             return true;
                           }),
          nullptr,
          t);
    }
    problem = std::make_unique<Problem>(nullptr, &ceres_problem);
  }
  // Ambient solution.
  VectorXd Solve() {
    Sensitivity polish(Polished());
    EXPECT_TRUE(polish.Compute(problem.get(), {})) << polish.message();
    VectorXd all(7);
    all << q[0], q[1], q[2], q[3], t[0], t[1], t[2];
    return all;
  }
  double q[4] = {1, 0.05, 0.02, -0.03}, t[3] = {0.3, 0.1, 0.2}, s = 0.4;
  ceres::Problem ceres_problem;
  std::vector<ceres::ResidualBlockId> ids;
  std::unique_ptr<Problem> problem;
};

// Tangent at q (Ceres' quaternions) and t.
VectorXd Minus(const VectorXd& to, const VectorXd& from) {
  VectorXd d(6);
  ceres::QuaternionManifold().Minus(to.data(), from.data(), d.data());
  d.tail(3) = to.tail(3) - from.tail(3);
  return d;
}

TEST(SensitivityToData, NonlinearAgainstResolves) {
  const std::vector<Eigen::Vector3d> none(6, Eigen::Vector3d::Zero());
  Views views(none);
  for (double& c : views.q) c /= std::sqrt(1.0038);
  const VectorXd solution = views.Solve();
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(views.problem.get(), {})) << sensitivity.message();
  for (const int i : {2, 3}) {  // Without a loss and with one.
    RowMatrix dq(3, 4), dt(3, 4);
    ASSERT_TRUE(sensitivity.GetSensitivityToResiduals(views.q, views.ids[i], dq.data()));
    ASSERT_TRUE(sensitivity.GetSensitivityToResiduals(views.t, views.ids[i], dt.data()));
    for (int k = 0; k < 3; ++k) {
      // r = h - offset: moving the offset by -h moves the residual by h.
      const VectorXd difference = Derivative<VectorXd>([&](double h) {
        std::vector<Eigen::Vector3d> moved = none;
        moved[i][k] -= h;
        Views again(moved);
        std::copy_n(views.q, 4, again.q);
        std::copy_n(views.t, 3, again.t);
        return Minus(again.Solve(), solution);
      });
      VectorXd own(6);
      own << dq.col(k), dt.col(k);
      EXPECT_LT((own - difference).norm(), 1e-7 * difference.norm()) << i << " " << k;
    }
  }
}

// The error of a Newton step towards the solution without a weak observation is of second order.
TEST(SensitivityToData, LeavingOutIsANewtonStep) {
  const std::vector<Eigen::Vector3d> none(12, Eigen::Vector3d::Zero());
  Views views(none);
  const VectorXd solution = views.Solve();
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(views.problem.get(), {})) << sensitivity.message();
  const VectorXd fq = TestVector(3, 0.2), ft = TestVector(3, 0.9);
  VectorXd influence(12);
  ASSERT_TRUE(sensitivity.Influence(
      {{views.q, fq.data()}, {views.t, ft.data()}}, views.ids, influence.data()));
  double worst = 0.0, first_order = 0.0, size = 0.0, agreement = 0.0, others = 0.0;
  for (int i = 0; i < 12; ++i) {
    VectorXd step(6);
    ASSERT_TRUE(sensitivity.LeaveOut(views.ids[i], views.q, step.data())) << sensitivity.message();
    ASSERT_TRUE(sensitivity.LeaveOut(views.ids[i], views.t, step.data() + 3));
    Views without(none, i);
    std::copy_n(views.q, 4, without.q);
    std::copy_n(views.t, 3, without.t);
    const VectorXd moved = Minus(without.Solve(), solution);
    size = std::max(size, moved.norm());
    worst = std::max(worst, (step - moved).norm());
    const double change = fq.dot(moved.head(3)) + ft.dot(moved.tail(3));
    first_order = std::max(first_order, std::abs(influence[i] - change));
    agreement += influence[i] * change;
    others += influence[i] * influence[i];
  }
  EXPECT_LT(worst, 0.2 * size);
  EXPECT_GT(agreement, 0.7 * others);  // Same signs and sizes, on the whole.
  std::printf("largest motion %.3g, Newton step off by %.2g, first order by %.2g\n",
              size,
              worst,
              first_order);
}

TEST(SensitivityToData, ScenariosBoundsAndScales) {
  // Two scenarios; y of the first is held at its bound, that of the second is free.
  double y[2] = {1.0, 1.0}, z = 0.5, scale = 0.4;
  Problem problem;
  ceres::Problem& first = *problem.lower();
  const auto held = first.AddResidualBlock(TargetCost(2.0), nullptr, &y[0]);
  first.AddResidualBlock(TargetCost(1.8), nullptr, &y[0]);
  first.SetParameterUpperBound(&y[0], 0, 1.0);
  Scenario* second = problem.AddScenario("second");
  const auto noisy = second->lower()->AddResidualBlock(TargetCost(2.0), nullptr, &y[1]);
  const auto plain = second->lower()->AddResidualBlock(TargetCost(1.0), nullptr, &y[1]);
  const auto only = second->lower()->AddResidualBlock(TargetCost(1.0), nullptr, &z);
  Sensitivity sensitivity(Polished());
  sensitivity.ScaleNoise({noisy}, &scale);
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  double d;
  ASSERT_TRUE(sensitivity.GetSensitivityToResiduals(&y[0], held, &d));
  EXPECT_EQ(d, 0.0);
  ASSERT_TRUE(sensitivity.LeaveOut(held, &y[0], &d));
  EXPECT_EQ(d, 0.0);
  ASSERT_TRUE(sensitivity.GetSensitivityToResiduals(&y[1], held, &d));
  EXPECT_EQ(d, 0.0);
  const double w = std::exp(-2.0 * scale);
  ASSERT_TRUE(sensitivity.GetSensitivityToResiduals(&y[1], noisy, &d));
  EXPECT_NEAR(d, -w / (1.0 + w), 1e-12);
  ASSERT_TRUE(sensitivity.LeaveOut(noisy, &y[1], &d));
  EXPECT_NEAR(y[1] + d, 1.0, 1e-12);
  ASSERT_TRUE(sensitivity.LeaveOut(plain, &y[1], &d));
  EXPECT_NEAR(y[1] + d, 2.0, 1e-12);
  EXPECT_FALSE(sensitivity.LeaveOut(only, &z, &d));
  EXPECT_THAT(sensitivity.message(), HasSubstr("without that residual block"));
  EXPECT_FALSE(sensitivity.LeaveOut(nullptr, &z, &d));
  EXPECT_THAT(sensitivity.message(), HasSubstr("not one of the lower level"));
  EXPECT_FALSE(sensitivity.GetSensitivityToResiduals(&scale, noisy, &d));
  EXPECT_THAT(sensitivity.message(), HasSubstr("not variable"));
  EXPECT_FALSE(Sensitivity().LeaveOut(noisy, &z, &d));
}

}  // namespace
}  // namespace bilevel
