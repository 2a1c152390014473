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

// r = size, whatever y is.
ceres::CostFunction* Constant(double size) {
  return new FunctionCost(1, {1}, [size](double const* const*, double* residual, double** j) {
    residual[0] = size;
    if (j && j[0]) j[0][0] = 0.0;
    return true;
  });
}

// y <= min(x, (x + 1) / 2) where x has just passed 1: the tighter row holds, however large g is.
TEST(ConstrainedLowerSolver, TheTighterOfParallelRowsHolds) {
  for (const double size : {0.0, 1e3, 1e5}) {
    double x = 0.9, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(Towards({3.0}), nullptr, &y);
    problem.lower()->AddResidualBlock(Constant(size), nullptr, &y);
    problem.upper()->AddResidualBlock(Towards({3.0}), nullptr, &y);
    problem.AddLowerInequality(new Affine(Rows(1, {1.0}), Rows(1, {-1.0}), Entries({0.0})), &y, &x);
    problem.AddLowerInequality(new Affine(Rows(1, {1.0}), Rows(1, {-0.5}), Entries({0.5})), &y, &x);
    Constrained c(&problem);
    for (const double beyond : {2e-8, 1e-7, 1e-6, 1e-5}) {
      for (const double at : {0.9, 1.0 + beyond}) {
        c.x.value()[0] = at;
        ASSERT_TRUE(c.solver->Solve(c.x, &c.y)) << c.solver->message();
        ASSERT_TRUE(c.solver->Differentiate(c.x, c.y)) << c.solver->message();
      }
      EXPECT_NEAR(c.y.value()[0], 1.0 + 0.5 * beyond, 1e-9) << size;
      EXPECT_NEAR(c.solver->dy_dx()(0, 0), 0.5, 1e-9) << size << ", " << beyond;
      EXPECT_NEAR(c.solver->multipliers(0)[1], 2.0 - 0.5 * beyond, 1e-6) << size;
    }
  }
}

// Two equalities at an angle of 2e-6 fix y = (x - 2, 1).
TEST(ConstrainedLowerSolver, NearlyParallelEqualitiesBothHold) {
  for (const double size : {0.0, 1e4}) {
    double x = 2.5, y[2] = {0.0, 0.0}, other = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(Towards({0.3, 0.2}), nullptr, y);
    problem.lower()->AddResidualBlock(Towards({0.0}), nullptr, &other);
    problem.lower()->AddResidualBlock(Constant(size), nullptr, &other);
    problem.upper()->AddResidualBlock(Towards({1.0, 1.0}), nullptr, y);
    problem.AddLowerEquality(
        new Affine(Rows(2, {1.0, 2.0}), Rows(1, {-1.0}), Entries({0.0})), y, &x);
    problem.AddLowerEquality(
        new Affine(Rows(2, {1.0, 2.0 + 1e-5}), Rows(1, {-1.0}), Entries({1e-5})), y, &x);
    Constrained c(&problem);
    ASSERT_TRUE(c.solver->Solve(c.x, &c.y)) << size << ": " << c.solver->message();
    EXPECT_NEAR(c.y.value()[0], 0.5, 1e-8);
    EXPECT_NEAR(c.y.value()[1], 1.0, 1e-8);
  }
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

// A disc of radius sqrt(1 + x) and a target at an angle, off the disc or on it, in units of y.
struct InUnits {
  InUnits(double unit, double target) {
    problem.AddUpperParameterBlock(&x, 1);
    for (Level level : {Level::kLower, Level::kUpper}) {
      const double size = level == Level::kLower ? target : 0.5;
      ceres::Problem* of_level = level == Level::kLower ? problem.lower() : problem.upper();
      of_level->AddResidualBlock(
          new NormalPrior({0.6 * size * unit, 0.8 * size * unit}, unit), nullptr, y);
    }
    problem.AddLowerInequality(
        new FunctionCost(1,
                         {2, 1},
                         [unit](double const* const* p, double* c, double** j) {
                           const double a = p[0][0] / unit, b = p[0][1] / unit;
                           c[0] = a * a + b * b - 1.0 - p[1][0];
                           if (j && j[0]) j[0][0] = 2.0 * a / unit;
                           if (j && j[0]) j[0][1] = 2.0 * b / unit;
                           if (j && j[1]) j[1][0] = -1.0;
                           return true;
                         }),
        y,
        &x);
  }
  double x = 0.0, y[2] = {0.0, 0.0};
  Problem problem;
};

// Off the disc dy/dx = y / 2 at x = 0, and there is no kink though the disc is near; on it there
// is.
TEST(ConstrainedLowerSolver, UnitsOfYChangeNothing) {
  for (const double unit : {1e-12, 1e-9, 1e-6, 1.0, 1e6, 1e9}) {
    for (const double target : {2.0, 1.0 + 1e-4, 1.0}) {
      InUnits p(unit, target);
      Constrained c(&p.problem);
      Vector gradient;
      c.Phi(&gradient);
      EXPECT_NEAR(c.y.value()[0] / unit, 0.6, 1e-10) << unit;
      EXPECT_NEAR(c.y.value()[1] / unit, 0.8, 1e-10) << unit;
      if (target == 1.0) {
        EXPECT_THAT(c.solver->weakly_active(), HasSubstr("inequality 0")) << unit;
      } else {
        EXPECT_EQ(c.solver->weakly_active(), "") << unit << " " << target;
        EXPECT_NEAR(gradient[0], 0.25, 1e-9) << unit << " " << target;
      }
    }
  }
}

// Where the constraint is flat at the start, or all but flat, in any units.
TEST(ConstrainedLowerSolver, StartsWhereAConstraintIsFlat) {
  for (const double beside : {0.0, 1e-12, 1e-6, 1e3}) {
    double x[3] = {0.1, -0.2, 0.8}, y[2] = {x[0] + beside, x[1]};
    Problem problem;
    problem.AddUpperParameterBlock(x, 3);
    problem.lower()->AddResidualBlock(Towards({2.0, 1.0}), nullptr, y);
    problem.upper()->AddResidualBlock(Towards({0.2, -0.3}), nullptr, y);
    problem.AddLowerEquality(new AutoDiffCostFunction<Ball, 1, 2, 3>(new Ball), y, x);
    Constrained c(&problem);
    c.Phi();
    const Eigen::Vector2d m(x[0], x[1]), u = (Eigen::Vector2d(2.0, 1.0) - m).normalized();
    EXPECT_LT((c.y.value() - (m + x[2] * u)).norm(), 1e-10) << beside;
  }
}

// Shares of a budget x by logarithmic utilities, a general term without residuals:
// y = a x / sum a, at the price sum a / x.
struct Utility {
  template <typename T>
  bool operator()(const T* y, T* g) const {
    using std::log;
    g[0] = -1.0 * log(y[0]) - 2.0 * log(y[1]) - 0.5 * log(y[2]);
    return true;
  }
};

TEST(ConstrainedLowerSolver, SolvesABudgetInClosedForm) {
  double x = 1.7, y[3] = {0.5, 0.5, 0.5};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddTerm(Level::kLower, std::make_unique<AutoDiffObjective<Utility, 3>>(), {{y, 3}});
  problem.upper()->AddResidualBlock(Towards({0.2, 0.5, 0.1}), nullptr, y);
  problem.AddLowerEquality(new Affine(Rows(3, {1, 1, 1}), Rows(1, {-1}), Entries({0.0})), y, &x);
  Constrained c(&problem);
  Vector gradient;
  c.Phi(&gradient);
  const Vector shares = Entries({1.0, 2.0, 0.5}) / 3.5;
  EXPECT_LT((c.y.value() - x * shares).norm(), 1e-11);
  EXPECT_NEAR(c.solver->multipliers(0)[0], 3.5 / x, 1e-10);
  EXPECT_NEAR(gradient[0], (x * shares - Entries({0.2, 0.5, 0.1})).dot(shares), 1e-11);
}

// A vehicle with drag steered for kSteps: dynamics are equalities, its speed is limited by x[3],
// the throttle by bounds of ceres::Problem.
constexpr int kSteps = 30;
constexpr double kStep = 0.1;  // Seconds.

struct Stage {
  template <typename T>
  bool operator()(const T* x, const T* p, const T* v, const T* u, T* r) const {
    using std::exp;
    r[0] = exp(x[0]) * (p[0] - 1.0);
    r[1] = exp(x[1]) * v[0];
    r[2] = exp(x[2]) * u[0];
    return true;
  }
};
struct Moves {
  template <typename T>
  bool operator()(const T* p, const T* v, const T* next, T* h) const {
    h[0] = next[0] - p[0] - kStep * v[0];
    return true;
  }
};
struct Speeds {
  template <typename T>
  bool operator()(const T* v, const T* u, const T* next, T* h) const {
    h[0] = next[0] - v[0] - kStep * (u[0] - 0.3 * v[0] * v[0]);
    return true;
  }
};
struct IsNoFaster {
  template <typename T>
  bool operator()(const T* x, const T* v, T* c) const {
    c[0] = v[0] - x[3];
    return true;
  }
};

TEST(ConstrainedLowerSolver, DifferentiatesModelPredictiveControl) {
  double x[4] = {0.5, -1.0, -1.5, 0.6};
  double p[kSteps + 1] = {}, v[kSteps + 1] = {}, u[kSteps] = {};
  Problem problem;
  problem.AddUpperParameterBlock(x, 4);
  for (int k = 0; k < kSteps; ++k) {
    problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Stage, 3, 4, 1, 1, 1>(new Stage),
                                      nullptr,
                                      x,
                                      &p[k + 1],
                                      &v[k + 1],
                                      &u[k]);
    problem.lower()->SetParameterLowerBound(&u[k], 0, -1.0);
    problem.lower()->SetParameterUpperBound(&u[k], 0, 1.0);
    problem.AddLowerEquality(
        new AutoDiffCostFunction<Moves, 1, 1, 1, 1>(new Moves), &p[k], &v[k], &p[k + 1]);
    problem.AddLowerEquality(
        new AutoDiffCostFunction<Speeds, 1, 1, 1, 1>(new Speeds), &v[k], &u[k], &v[k + 1]);
    problem.AddLowerInequality(
        new AutoDiffCostFunction<IsNoFaster, 1, 4, 1>(new IsNoFaster), x, &v[k + 1]);
    problem.upper()->AddResidualBlock(Towards({0.03 * k}), nullptr, &p[k + 1]);
  }
  for (double* start : {p, v}) {
    problem.lower()->AddParameterBlock(start, 1);
    problem.lower()->SetParameterBlockConstant(start);
  }
  Constrained c(&problem);
  c.Phi();
  ASSERT_TRUE(c.solver->Differentiate(c.x, c.y)) << c.solver->message();
  EXPECT_GT(c.solver->num_active_bounds(), 0);
  EXPECT_GT(c.y.value().maxCoeff(), 0.6);
  EXPECT_THAT(&problem, HasExactHypergradient(1e-9));
}

// A membrane under a load e^x0 that rests on the ground where it sags so far: as bounds of y and as
// constraints, by two solvers.
struct Stretch {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    r[0] = a[0] - b[0];
    return true;
  }
};
struct Load {  // Of the sag y, (y - e^x)^2 / 2 but for a constant: a load of e^x and a soft ground.
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::exp;
    r[0] = 0.1 * (y[0] - weight * exp(x[0]));
    return true;
  }
  double weight;
};
struct Rests {
  template <typename T>
  bool operator()(const T* y, T* c) const {
    c[0] = y[0] - 0.4;
    return true;
  }
};

TEST(ConstrainedLowerSolver, IsWhatBoundsAre) {
  constexpr int kSide = 16;
  Vector solutions[2], derivatives[2];
  for (const bool by_bounds : {true, false}) {
    double x = 0.5;
    std::vector<double> y(kSide * kSide, 0.0);
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    for (int i = 0; i < kSide; ++i) {
      for (int j = 0; j < kSide; ++j) {
        double* const here = &y[i * kSide + j];
        const double weight = 1.0 + std::sin(0.7 * i) * std::cos(0.4 * j);
        problem.lower()->AddResidualBlock(
            new AutoDiffCostFunction<Load, 1, 1, 1>(new Load{weight}), nullptr, &x, here);
        for (const int other : {i > 0 ? -kSide : 0, j > 0 ? -1 : 0}) {
          if (other == 0) continue;
          problem.lower()->AddResidualBlock(
              new AutoDiffCostFunction<Stretch, 1, 1, 1>(new Stretch), nullptr, here, here + other);
        }
        problem.upper()->AddResidualBlock(Towards({0.3}), nullptr, here);
        if (by_bounds) {
          problem.lower()->SetParameterUpperBound(here, 0, 0.4);
        } else {
          problem.AddLowerInequality(new AutoDiffCostFunction<Rests, 1, 1>(new Rests), here);
        }
      }
    }
    std::string error;
    const auto program = problem.Compile({}, &error);
    ASSERT_TRUE(program) << error;
    NewtonLowerSolver::Options options;
    options.ceres.logging_type = ceres::SILENT;
    const auto solver = MakeNewtonLowerSolver(program.get(), options);
    Point at(&program->x), solution(&program->y);
    at.value()[0] = 0.5;
    solution.value().setZero();
    for (int k = 0; k < 4; ++k) {  // To where about half of it rests.
      at.value()[0] = -0.8 + 0.1 * k;
      ASSERT_TRUE(solver->Solve(at, &solution)) << solver->message();
      ASSERT_TRUE(solver->Differentiate(at, solution)) << solver->message();
    }
    solutions[by_bounds] = solution.value();
    derivatives[by_bounds] = solver->dy_dx().col(0);
    if (by_bounds) {
      EXPECT_GT(solver->num_active_bounds(), 50);
    }
  }
  EXPECT_LT((solutions[0] - solutions[1]).norm(), 1e-9);
  EXPECT_LT((derivatives[0] - derivatives[1]).norm(), 1e-9 * derivatives[0].norm());
}

}  // namespace
}  // namespace bilevel
