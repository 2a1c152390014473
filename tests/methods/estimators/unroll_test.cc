// The reverse sweep of every lower-level map against differences of the map itself, few steps and
// far from y*, in x and in y_0; on a manifold, with bounds.
#include "bilevel/methods/estimators/unroll.h"

#include <cmath>
#include <memory>
#include <string>

#include "bilevel/bilevel.h"
#include "bilevel/program/program.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

struct Rotate {
  template <typename T>
  bool operator()(const T* x, const T* q, const T* y, T* r) const {
    using std::sin;
    for (int i = 0; i < 4; ++i) r[i] = q[i] - (0.5 + 0.1 * i) * x[0] - (i == 2 ? x[1] : T(0.0));
    r[4] = y[0] - sin(x[1]) * q[1];
    r[5] = y[0] * y[1] - x[0];
    return true;
  }
};
struct Look {
  template <typename T>
  bool operator()(const T* x, const T* q, const T* y, T* r) const {
    r[0] = q[0] * q[1] - 0.1 * y[0] * x[1];
    r[1] = q[2] + 0.3 * q[3] * x[0] + y[1];
    return true;
  }
};

struct Fixture {
  double x[2] = {0.8, 0.3}, q[4], y[2] = {0.2, 0.9};
  Problem problem;
  std::unique_ptr<Program> program;
  std::unique_ptr<Oracle> oracle;
  Fixture() {
    const double start[4] = {0.9, 0.1, -0.3, 0.2}, norm = std::sqrt(0.81 + 0.01 + 0.09 + 0.04);
    for (int i = 0; i < 4; ++i) q[i] = start[i] / norm;
    problem.AddUpperParameterBlock(x, 2);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Rotate, 6, 2, 4, 2>(new Rotate), nullptr, x, q, y);
    problem.lower()->SetManifold(q, new ceres::QuaternionManifold);
    problem.lower()->SetParameterUpperBound(y, 0, 0.25);  // Met on the way.
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Look, 2, 2, 4, 2>(new Look), nullptr, x, q, y);
    std::string error;
    program = problem.Compile({}, &error);
    EXPECT_TRUE(program) << error;
    oracle = std::make_unique<Oracle>(program.get(), nullptr, 1);
  }
  Point X() const {
    Point point(&program->x);
    program->x.ReadUser(point.value().data());
    return point;
  }
  Point Y() const {
    Point point(&program->y);
    program->y.ReadUser(point.value().data());
    return point;
  }
};

TEST(Unroll, IsTheDerivativeOfItsMap) {
  constexpr int kSteps = 5;
  Fixture fixture;
  Oracle& o = *fixture.oracle;
  int met = 0;
  for (const double share : {0.0, 0.7}) {
    for (const int kind : {0, 1, 2}) {
      for (const int last : {kSteps, 3}) {
        LowerSteps steps;
        steps.num_lower_steps = kSteps;
        steps.lower_step = 0.3;
        steps.momentum = kind > 0 ? 0.6 : 0.0;
        steps.nesterov = kind > 1;
        Unroll unroll(steps, share, 0.4);
        const auto value = [&](const Point& x, Point y) {
          EXPECT_TRUE(unroll.Run(o, x, kSteps, &y)) << o.error();
          return o.f.Value(x, unroll.y(last));
        };
        const Point x = fixture.X(), y = fixture.Y();
        value(x, y);
        Vector gx, a;
        for (int k = 1; k <= kSteps; ++k) met += unroll.y(k).value()[4] == 0.25;
        o.f.Gradient(x, unroll.y(last), &gx, &a);
        ASSERT_TRUE(unroll.Reverse(o, x, last, &a, &gx)) << o.error();
        const auto derivative = [&](bool in_x, int j) {
          return Derivative<double>(
              [&](double h) {
                Point moved_x = x, moved_y = y;
                if (in_x) {
                  moved_x.Move(h * Vector::Unit(x.dim(), j));
                } else {
                  moved_y.Move(h * Vector::Unit(y.dim(), j));
                }
                return value(moved_x, moved_y);
              },
              2e-3);
        };
        for (int j = 0; j < x.dim(); ++j) EXPECT_NEAR(gx[j], derivative(true, j), 1e-8) << kind;
        for (int j = 0; j < y.dim(); ++j) EXPECT_NEAR(a[j], derivative(false, j), 1e-8) << kind;
      }
    }
  }
  EXPECT_GT(met, 0);
}

// Keeping K of T steps is unrolling K steps from y_{T-K}.
TEST(Unroll, TruncationDifferentiatesTheLastSteps) {
  Fixture fixture;
  Oracle& o = *fixture.oracle;
  LowerSteps all;
  all.num_lower_steps = 7;
  all.lower_step = 0.2;
  LowerSteps last = all;
  last.num_lower_steps = 3;
  Unroll truncated(all), rest(last);
  const Point x = fixture.X();
  Point y = fixture.Y();
  ASSERT_TRUE(truncated.Run(o, x, 3, &y));
  Point again = truncated.y(0);
  ASSERT_TRUE(rest.Run(o, x, 3, &again));
  EXPECT_EQ(y.value(), again.value());
  Vector a = TestVector(y.dim(), 0.3), b = a, gx = Vector::Zero(2), gx_rest = gx;
  ASSERT_TRUE(truncated.Reverse(o, x, 3, &a, &gx));
  ASSERT_TRUE(rest.Reverse(o, x, 3, &b, &gx_rest));
  EXPECT_EQ(a, b);
  EXPECT_EQ(gx, gx_rest);
}

}  // namespace
}  // namespace bilevel
