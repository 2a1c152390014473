// Constraints of the lower level against closed forms and against differences of re-solves.
#include "bilevel/lower_level/constrained_lower_solver.h"

#include <cmath>
#include <string>
#include <vector>

#include "bilevel/analysis/hypergradient_matchers.h"
#include "constrained_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// y should be `target`.
ceres::CostFunction* Towards(const std::vector<double>& target) {
  return new NormalPrior(target, 1.0);
}

// min 1/2 |y - a|^2 subject to p'y = x:  y = a + p (x - p'a) / |p|^2.
TEST(ConstrainedLowerSolver, SolvesAnEqualityInClosedForm) {
  const Vector p = Entries({1.0, 2.0, -1.0}), a = Entries({0.3, -0.2, 0.5});
  const Vector b = Entries({1.0, 0.0, 2.0});
  double x = 0.7, y[3] = {0.0, 0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(Towards({0.3, -0.2, 0.5}), nullptr, y);
  problem.upper()->AddResidualBlock(Towards({1.0, 0.0, 2.0}), nullptr, y);
  problem.AddLowerEquality(new Affine(p.transpose(), Rows(1, {-1.0}), Entries({0.0})), y, &x);
  Constrained c(&problem);
  Vector gradient;
  c.Phi(&gradient);
  const Vector expected = a + p * (x - p.dot(a)) / p.squaredNorm();
  EXPECT_LT((c.y.value() - expected).norm(), 1e-12);
  EXPECT_NEAR(gradient[0], p.dot(expected - b) / p.squaredNorm(), 1e-12);
  EXPECT_NEAR(c.solver->multipliers(0)[0], (p.dot(a) - x) / p.squaredNorm(), 1e-12);
  EXPECT_LT((c.solver->dy_dx() - p / p.squaredNorm()).norm(), 1e-12);
  EXPECT_EQ(c.solver->weakly_active(), "");
}

struct Ball {  // |y - m|^2 <= r^2, x = (m, r).
  template <typename T>
  bool operator()(const T* y, const T* x, T* c) const {
    c[0] = (y[0] - x[0]) * (y[0] - x[0]) + (y[1] - x[1]) * (y[1] - x[1]) - x[2] * x[2];
    return true;
  }
};

// The nearest point of a ball to a:  y = m + r (a - m) / |a - m|.
TEST(ConstrainedLowerSolver, SolvesABallInClosedForm) {
  const Eigen::Vector2d a(2.0, 1.0), b(0.2, -0.3);
  for (const bool is_taped : {true, false}) {
    double x[3] = {0.1, -0.2, 0.8}, y[2] = {0.0, 0.0};
    Problem problem;
    problem.AddUpperParameterBlock(x, 3);
    problem.lower()->AddResidualBlock(Towards({2.0, 1.0}), nullptr, y);
    problem.upper()->AddResidualBlock(Towards({0.2, -0.3}), nullptr, y);
    ceres::CostFunction* ball = new AutoDiffCostFunction<Ball, 1, 2, 3>(new Ball);
    if (!is_taped) {
      delete ball;
      ball = new ceres::AutoDiffCostFunction<Ball, 1, 2, 3>(new Ball);
    }
    problem.AddLowerInequality(ball, y, x);
    Constrained c(&problem);
    Vector gradient;
    c.Phi(&gradient);
    const Eigen::Vector2d m(x[0], x[1]), u = (a - m).normalized(), expected = m + x[2] * u;
    const Eigen::Matrix2d dm =
        Eigen::Matrix2d::Identity() -
        x[2] / (a - m).norm() * (Eigen::Matrix2d::Identity() - u * u.transpose());
    const double tolerance = is_taped ? 1e-12 : 1e-9;
    EXPECT_LT((c.y.value() - expected).norm(), tolerance);
    EXPECT_LT((gradient.head<2>() - dm.transpose() * (expected - b)).norm(), tolerance);
    EXPECT_NEAR(gradient[2], u.dot(expected - b), tolerance);
    // And where it does not hold y.
    x[2] = 5.0;
    c.program->x.ReadUser(c.x.value().data());
    c.Phi(&gradient);
    EXPECT_LT((c.y.value() - a).norm(), tolerance);
    EXPECT_LT(gradient.norm(), tolerance);
  }
}

TEST(ConstrainedLowerSolver, DifferentiatesAPathPastDiscs) {
  PathPastDiscs path(0.02);
  Constrained c(&path.problem);
  Vector gradient;
  c.Phi(&gradient);
  const Point y0 = c.y;
  for (int j = 0; j < 3; ++j) {
    const double differenced = Derivative<double>(
        [&](double h) {
          Point moved = c.x;
          EXPECT_TRUE(moved.Move(h * Vector::Unit(3, j)));
          c.y = y0;
          return c.Phi(moved);
        },
        1e-3);
    EXPECT_NEAR(gradient[j], differenced, 1e-8 * gradient.norm()) << j;
  }
  EXPECT_THAT(&path.problem, HasExactHypergradient(1e-6));
}

// A margin that grows changes the active set again and again.
TEST(ConstrainedLowerSolver, FollowsChangesOfTheActiveSetInFewSteps) {
  PathPastDiscs path(0.0);
  Constrained c(&path.problem, 1e-10);
  Vector gradient;
  c.Phi(&gradient);
  const long before = c.solver->num_kkt_systems();
  int num_changes = 0, num_solves = 0;
  std::string last = c.solver->Report().remark;
  for (; num_solves < 60; ++num_solves) {
    Point moved = c.x;
    ASSERT_TRUE(moved.Move(0.001 * Vector::Unit(3, 2)));
    c.x = moved;
    c.Phi(&gradient);
    num_changes += c.solver->Report().remark != last;
    last = c.solver->Report().remark;
  }
  const double steps = double(c.solver->num_kkt_systems() - before) / num_solves;
  EXPECT_GE(num_changes, 5);
  EXPECT_LE(steps, 3.5);
  EXPECT_EQ(c.solver->num_fallbacks(), 0);
}

}  // namespace
}  // namespace bilevel
