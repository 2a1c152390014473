// The second derivative of phi beside bounds, kinks and free directions.
#include <cmath>
#include <memory>

#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/lower_level/optimistic_lower_solver.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "oracle/phi_around.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// A chain of which only differences are known, below and above: y is free to move as a whole.
struct Link {
  template <typename T>
  bool operator()(const T* a, const T* b, const T* x, T* r) const {
    using std::exp;
    r[0] = exp(x[0] * weight) * (b[0] - a[0] - step);
    r[1] = 0.3 * (b[0] - a[0]) * (b[0] - a[0]) - x[1] * step;
    return true;
  }
  double step, weight;
};
struct Gap {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    r[0] = (b[0] - a[0]) * (b[0] - a[0]) - 0.7;
    return true;
  }
};

TEST(HyperHessian, FreeGauge) {
  double x[2] = {0.4, -0.3}, y[4] = {0.0, 0.5, 1.1, 1.4};
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < i; ++j) {
      problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Link, 2, 1, 1, 2>(
                                            new Link{0.5 * (i - j) + 0.1 * i * j, 1.0 * j}),
                                        nullptr,
                                        &y[j],
                                        &y[i],
                                        x);
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<Gap, 1, 1, 1>(new Gap), nullptr, &y[j], &y[i]);
    }
  }
  Phi phi(&problem);
  const Matrix hessian = phi.Hessian();
  EXPECT_EQ(phi.lower->Report().num_free_directions, 1);
  EXPECT_LT(Off(hessian, phi.DifferencedGradients()), 1e-8);
}

// Evaluations stay within the bounds of x and of y: beyond them there is nothing to evaluate.
struct RootOf {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::sqrt;
    if (x[0] < 0.0) return false;
    r[0] = y[0] - sqrt(x[0] + 0.3) * (1.0 + 0.3 * y[0]);
    r[1] = 0.7 * y[0] + x[0] * x[0] - 0.2;
    return true;
  }
};
struct AtBound {
  explicit AtBound(double at) : x(at) {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<RootOf, 2, 1, 1>(new RootOf), nullptr, &x, &y);
    problem.upper()->AddResidualBlock(TargetCost(0.5), nullptr, &y);
  }
  double x, y = 1.0;
  Problem problem;
};

double SecondDerivative(double x, bool has_bound) {
  AtBound at(x);
  if (has_bound) at.problem.SetParameterLowerBound(&at.x, 0, 0.0);
  Phi phi(&at.problem);
  const double result = phi.Hessian()(0, 0);
  EXPECT_LT(phi.hessian->relative_error(), 1e-7);
  return result;
}

TEST(HyperHessian, OneSidedAtABoundOfX) {
  // Without a bound it comes nearer until it can be evaluated to both sides,
  const double near = SecondDerivative(1e-4, false), twice = SecondDerivative(2e-4, false);
  EXPECT_NEAR(SecondDerivative(1e-4, true), near, 1e-7 * near);
  // and at the end of that there is nothing to both sides.
  EXPECT_NEAR(SecondDerivative(0.0, true), 2.0 * near - twice, 1e-6 * near);
  AtBound beyond(0.0);
  Phi phi(&beyond.problem);
  Matrix unused;
  EXPECT_FALSE(phi.Evaluate(&unused));
  EXPECT_FALSE(phi.oracle->ok());
  EXPECT_THAT(phi.hessian->message(), HasSubstr("residual block"));
}

// y0 y1 = x of the lower level is a curve, of which f takes the point nearest to (1, 0.5): phi is
// the squared distance.
struct Hyperbola {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] * y[1] - x[0];
    return true;
  }
};
struct NearTo {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 1.0;
    r[1] = y[1] - 0.5;
    return true;
  }
};

TEST(HyperHessian, AlongOptimisticSolutions) {
  double x = 1.3, y[2] = {1.5, 1.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Hyperbola, 1, 2, 1>(new Hyperbola), nullptr, y, &x);
  problem.upper()->AddResidualBlock(new AutoDiffCostFunction<NearTo, 2, 2>(new NearTo), nullptr, y);
  std::unique_ptr<LowerSolver> start;
  Phi phi(&problem, 1, [&](Program* program) -> std::unique_ptr<LowerSolver> {
    start = Phi::Newton(program);
    return std::make_unique<OptimisticLowerSolver>(
        program, start.get(), OptimisticLowerSolver::Options());
  });
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedGradients()), 1e-8);
}

struct FirstOfTwo {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[which] - x[0];
    return true;
  }
  int which;
};

// y* = x; f bends within a unit around `centre`, by itself or with a break.
struct BendAt {
  template <typename T>
  bool operator()(const T* y, T* value) const {
    using std::log;
    const T a = y[0] - centre;
    *value = 0.05 * a * a + log(1.0 + a * a);
    return true;
  }
  double centre;
};
struct BreakAt {
  template <typename T>
  bool operator()(const T* y, T* value) const {
    const T a = y[0] - centre;
    *value = 0.5 * a * a;
    if (a > 0.0) *value += a * a;
    return true;
  }
  double centre;
};
template <typename F>
struct Copy {
  Copy(double at, F f) : x(at), y(at) {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.AddTerm(Level::kUpper, std::make_unique<AutoDiffObjective<F, 1>>(f), {{&y, 1}});
  }
  double x, y;
  Problem problem;
};

// Coordinates of maps are far from 0, and what is learned of them is not.
TEST(HyperHessian, FarFromZero) {
  for (const double centre : {0.0, 1e3, 1e5, 5e5, 5e6}) {
    Copy<BendAt> copy(centre, BendAt{centre});
    Phi phi(&copy.problem);
    EXPECT_NEAR(phi.Hessian()(0, 0), 2.1, 1e-6) << centre;
  }
}

TEST(HyperHessian, ABreakAtThePointIsSeen) {
  for (const double off : {0.0, 1e-9, 1e-7}) {
    Copy<BreakAt> copy(0.3, BreakAt{0.3 + off});
    Phi phi(&copy.problem);
    Matrix hessian;
    HyperHessian second(phi.oracle.get());
    ASSERT_TRUE(phi.lower->Differentiate(phi.x, phi.y));
    EXPECT_FALSE(second.Evaluate(phi.x, phi.y, {}, &hessian)) << off;
    EXPECT_THAT(second.message(), HasSubstr("kink"));
  }
}

TEST(HyperHessian, RefusalsSayWhy) {
  Matrix unused;
  {  // Weakly active: y* = max(x, 0) at x = 0.
    double x = 0.0, y = 0.5;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.lower()->SetParameterLowerBound(&y, 0, 0.0);
    problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
    Phi phi(&problem);
    EXPECT_FALSE(phi.Evaluate(&unused));
    EXPECT_THAT(phi.hessian->message(), HasSubstr("weakly active"));
    EXPECT_TRUE(phi.oracle->ok());
  }
  for (const double beside : {0.0, 1e-5}) {  // At Huber's kink y* bends: phi'' is 1/4 and 1.
    double x = 2.0 + beside, y = 0.5;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.lower()->AddResidualBlock(TargetCost(0.0), new ceres::HuberLoss(1.0), &y);
    problem.upper()->AddResidualBlock(TargetCost(0.0), nullptr, &y);
    Phi phi(&problem);
    if (beside > 0.0) {
      EXPECT_NEAR(phi.Hessian()(0, 0), 1.0, 1e-8);
      continue;
    }
    EXPECT_FALSE(phi.Evaluate(&unused));
    EXPECT_THAT(phi.hessian->message(), HasSubstr("kink"));
  }
  {  // y1 is free; f has no slope along it, but a curvature that x shifts.
    double x = 0.3, y[2] = {0.0, 0.3};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<FirstOfTwo, 1, 2, 1>(new FirstOfTwo{0}), nullptr, y, &x);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<FirstOfTwo, 1, 2, 1>(new FirstOfTwo{1}), nullptr, y, &x);
    Phi phi(&problem);
    EXPECT_FALSE(phi.Evaluate(&unused));
    EXPECT_THAT(phi.hessian->message(), HasSubstr("leaves free"));
  }
  {  // Gauss-Newton's Hessian is not g's.
    double x = 0.5, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
    Phi phi(&problem, 1, [](Program* program) -> std::unique_ptr<LowerSolver> {
      NewtonLowerSolver::Options options;
      options.hessian = HessianKind::kGaussNewton;
      return std::make_unique<NewtonLowerSolver>(program, options);
    });
    EXPECT_FALSE(phi.Evaluate(&unused));
    EXPECT_THAT(phi.hessian->message(), HasSubstr("HessianKind::kExact"));
  }
}

}  // namespace
}  // namespace bilevel
