// BGS against the derivative of the solution that gradient descent selects, by hand.
#include "bilevel/methods/hyper_objective/bgs.h"

#include <cmath>
#include <memory>
#include <string>

#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "examples/support/toy_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "methods/run_toy.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

// g = 1/4 (|y|^2 - x^2)^2: Y*(x) is the circle of radius x. Steps on g move y along u = y_0 / |y_0|
// only, so that y(x) = x u and, with f = 1/2 |y - p|^2, phi' = x - u'p.
struct Circle {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = (y[0] * y[0] + y[1] * y[1] - x[0] * x[0]) / std::sqrt(2.0);
    return true;
  }
};
struct NearPoint {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - kPoint[0];
    r[1] = y[1] - kPoint[1];
    return true;
  }
  static constexpr double kPoint[2] = {2.0, 0.5};
};

struct OnCircle {
  double x = 0.7, y[2] = {0.6, 0.8};
  Problem problem;
  OnCircle() {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Circle, 1, 1, 2>(new Circle), nullptr, &x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<NearPoint, 2, 2>(new NearPoint), nullptr, y);
  }
  Solver::Summary Run(const BgsHypergradient::Options& bgs, double step, int num_iterations) {
    StepRule rule;
    rule.step = step;
    Solver::Options options;
    options.method =
        std::make_shared<GradientMethod>("bgs", std::make_unique<BgsHypergradient>(bgs), rule);
    options.max_num_iterations = num_iterations;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    return summary;
  }
};

// For every M.
TEST(Bgs, GradientOfTheSelection) {
  for (const int m : {0, 1, 5}) {
    OnCircle circle;
    BgsHypergradient::Options bgs;
    bgs.num_lower_steps = 300;
    bgs.num_reverse_steps = m;
    bgs.lower_step = 0.2;
    const Solver::Summary summary = circle.Run(bgs, 0.1, 0);
    ASSERT_EQ(summary.iterations.size(), 1u) << summary.FullReport();
    const double expected = 0.7 - (0.6 * 2.0 + 0.8 * 0.5);
    EXPECT_NEAR(summary.iterations[0].gradient_max_norm, std::abs(expected), 1e-10) << m;
  }
}

// The literature's reservation: it ends at u'p, which depends on y_0, while the optimum is |p|.
TEST(Bgs, EndsAtTheSelectionsStationaryPoint) {
  for (const int m : {0, 3}) {
    OnCircle circle;
    BgsHypergradient::Options bgs;
    bgs.num_lower_steps = 10;
    bgs.num_reverse_steps = m;
    bgs.lower_step = 0.2;
    const Solver::Summary summary = circle.Run(bgs, 0.2, 300);
    // The selection is gradient descent's, not f's.
    EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE) << summary.FullReport();
    EXPECT_EQ(summary.answer, AnswerKind::kUndetermined);
    const double at = 0.6 * 2.0 + 0.8 * 0.5, optimum = std::hypot(2.0, 0.5);
    EXPECT_NEAR(circle.x, at, 1e-8) << m;
    EXPECT_NEAR(summary.final_objective, 0.5 * (optimum * optimum - at * at), 1e-8);
    EXPECT_GT(summary.final_objective, 0.8);  // The optimum's is 0.
  }
}

// y_2 is free below and stays where it begins, as for unrolling: x = (1 + y_2) / 2.
TEST(Bgs, DegenerateLowerLevelKeepsWhatGradientDescentKeeps) {
  for (const double free : {0.0, 0.4}) {
    examples::Toy toy = examples::Degenerate();
    toy.y[1] = free;
    const auto problem = toy.Build();
    Solver::Options options;
    options.method = CreateMethod("bgs");  // The published steps suit this H.
    options.max_num_iterations = 500;
    Solver::Summary summary;
    Solve(options, problem.get(), &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_NEAR(toy.x[0], 0.5 * (1.0 + free), 1e-8);
  }
}

// A line of solutions and a Hessian that is differenced, so its null space is one to rounding only.
// From y = 0 descent keeps y_1 = y_2 = x / 2: phi' = x / 2 - 3 / 2 + x - 1 = 0 at 5/3.
TEST(Bgs, DifferencedSingularHessian) {
  examples::Toy toy = examples::NonUnique();
  BgsHypergradient::Options bgs;
  bgs.num_lower_steps = 10;
  bgs.lower_step = 0.3;
  StepRule rule;
  Solver::Options options;
  options.method =
      std::make_shared<GradientMethod>("bgs", std::make_unique<BgsHypergradient>(bgs), rule);
  options.max_num_iterations = 1000;
  const auto problem = toy.Build();
  Solver::Summary summary;
  Solve(options, problem.get(), &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(toy.x[0], 5.0 / 3.0, 1e-6);
  EXPECT_NEAR(toy.y[0], 5.0 / 6.0, 1e-6);  // f's choice is 1/3.
}

TEST(Bgs, Manifold) {
  for (const int m : {0, 3}) {
    BgsHypergradient::Options bgs;
    bgs.num_lower_steps = 20;
    bgs.num_reverse_steps = m;
    bgs.lower_step = 0.4;
    SphereProblem sphere;
    const Solver::Summary summary = sphere.Run(Descent<BgsHypergradient>("bgs", bgs, 1.0), 1000);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_NEAR(sphere.x[0], 1.0 / 3.0, 3e-3);
    EXPECT_NEAR(sphere.x[1], 0.5, 3e-3);
  }
}

// Where conjugate gradients refuse: f_y has a part that H does not reach.
TEST(Bgs, LeastNormWhereConjugateGradientsBreakDown) {
  examples::Toy toy = examples::Degenerate();
  const auto problem = toy.Build();
  Solver::Options options;
  options.method = CreateMethod("aid_cg");
  toy.y[1] = 1.0;
  Solver::Summary summary;
  Solve(options, problem.get(), &summary);
  EXPECT_THAT(summary.message, HasSubstr("its Hessian is not positive definite"));
}

// One warm-started gradient step for y and for z, the authors' single loop, where H is regular:
// g = 1/2 (y - x)^2, f = 1/2 (y - 1)^2 + 1/4 x^2, so x = 2/3.
struct FollowX {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - x[0];
    return true;
  }
};
struct NearOne {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - 1.0;
    r[1] = std::sqrt(0.5) * x[0];
    return true;
  }
};

TEST(Bgs, SingleLoop) {
  double x = 0.2, y = -0.3;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<FollowX, 1, 1, 1>(new FollowX), nullptr, &x, &y);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<NearOne, 2, 1, 1>(new NearOne), nullptr, &x, &y);
  BgsHypergradient::Options bgs;
  bgs.kind = AdjointSteps::kFixedPoint;
  bgs.num_linear_iterations = 1;
  Solver::Options options;
  options.method =
      std::make_shared<GradientMethod>("bgs", std::make_unique<BgsHypergradient>(bgs), StepRule());
  options.max_num_iterations = 1000;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(x, 2.0 / 3.0, 1e-9);
  EXPECT_EQ(summary.lower.products, 2 * static_cast<long>(summary.iterations.size()));
}

TEST(Bgs, NonsenseIsNamedBeforeAnyWork) {
  const auto message = [](const std::function<void(BgsHypergradient::Options*)>& spoil) {
    BgsHypergradient::Options bgs;
    spoil(&bgs);
    OnCircle circle;
    const Solver::Summary summary = circle.Run(bgs, 0.1, 10);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    EXPECT_EQ(summary.lower.gradients + summary.lower.values, 0);
    return summary.message;
  };
  EXPECT_THAT(message([](auto* o) { o->num_reverse_steps = 2; }),
              HasSubstr("bgs.num_reverse_steps must be between 0 and num_lower_steps"));
  EXPECT_THAT(message([](auto* o) { o->lower_step = NAN; }), HasSubstr("bgs.lower_step"));
  EXPECT_THAT(message([](auto* o) { o->num_lower_steps = -1; }), HasSubstr("bgs.num_"));
  EXPECT_THAT(message([](auto* o) { o->num_linear_iterations = 0; }),
              HasSubstr("bgs.num_linear_iterations"));
  EXPECT_THAT(message([](auto* o) { o->linear_tolerance = -1.0; }),
              HasSubstr("bgs.linear_tolerance"));
}

}  // namespace
}  // namespace bilevel
