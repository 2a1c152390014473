// The notions of optimality of Chen, Xu and Zhang (2023) where they are known in closed form.
#include "bilevel/analysis/optimality.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/sgm.h"
#include "examples/support/toy_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "methods/run_toy.h"

namespace bilevel {
namespace {

using examples::Toy;
using testing::HasSubstr;

Solver::Options WithSgm(const Sgm::Options& sgm) {
  Solver::Options options;
  options.lower_solver = [sgm](Program* program) { return std::make_unique<Sgm>(program, sgm); };
  return options;
}

// phi = (x - 3)^2 / 4 + (x - 1)^2 / 2.
TEST(LowerOptimality, IsThatOfTheClosedForm) {
  Toy toy = examples::NonUnique();
  toy.x = {0.0};
  toy.y = {0.3, -0.9};
  const auto problem = toy.Build();
  const LowerOptimality at = CheckLowerOptimality(problem.get());
  ASSERT_TRUE(at.ok) << at.message;
  EXPECT_NEAR(at.objective, 2.75, 1e-12);
  EXPECT_NEAR(at.lower_value, 0.0, 1e-12);
  EXPECT_NEAR(at.zeta_f, 0.5 * (0.7 * 0.7 + 2.9 * 2.9 + 1.0) - 2.75, 1e-12);
  EXPECT_NEAR(at.zeta_g, 0.5 * 0.6 * 0.6, 1e-12);
  EXPECT_NEAR(at.generalized_gradient, std::sqrt(2.0) * 0.6, 1e-12);
  EXPECT_EQ(toy.y[0], 0.3);  // The user's memory is as it was.
  // On Y*, but not where f is least: optimal for g alone.
  toy.y = {1.0, -1.0};
  const LowerOptimality on = CheckLowerOptimality(problem.get());
  ASSERT_TRUE(on.ok) << on.message;
  EXPECT_NEAR(on.zeta_g, 0.0, 1e-15);
  EXPECT_NEAR(on.zeta_f, 0.5 * (9.0 + 1.0) - 2.75, 1e-12);
}

// |y| <= 1, g = y^2 / 2 from 1: the step of length 1 / L ends at 0; from 1 along -g_y = 3 it is
// held.
TEST(LowerOptimality, TheGeneralisedGradientIsProjected) {
  for (const double target : {0.0, 4.0}) {
    Toy toy = Follow();
    toy.x = {target};
    toy.y = {1.0};
    toy.y_bound = 1.0;
    const LowerOptimality at = CheckLowerOptimality(toy.Build().get());
    ASSERT_TRUE(at.ok) << at.message;
    EXPECT_NEAR(at.generalized_gradient, target == 0.0 ? 1.0 : 0.0, 1e-12);
    EXPECT_NEAR(at.zeta_g, target == 0.0 ? 0.5 : 0.0, 1e-12);
  }
}

// phi = -|x|: f's choice is at a bound, which takes an Sgm.
TEST(LowerOptimality, SaysWhereItKnowsNoPhi) {
  Toy toy = examples::PrintedKink();
  toy.x = {0.5};
  toy.y = {0.25};
  const auto problem = toy.Build();
  const LowerOptimality refused = CheckLowerOptimality(problem.get());
  EXPECT_FALSE(refused.ok);
  EXPECT_THAT(refused.message, HasSubstr("takes an Sgm"));
  EXPECT_THAT(refused.Report(), HasSubstr("not checked"));
  Sgm::Options sgm;
  sgm.output = Sgm::kBest;
  const LowerOptimality at = CheckLowerOptimality(problem.get(), WithSgm(sgm));
  ASSERT_TRUE(at.ok) << at.message;
  EXPECT_NEAR(at.objective, -0.5, 1e-12);
  EXPECT_NEAR(at.zeta_f, 0.625, 1e-12);
  EXPECT_FALSE(CheckLowerOptimality(nullptr).ok);
}

GoldsteinStationarity Goldstein(Toy* toy, double delta, const Sgm::Options* sgm = nullptr) {
  GoldsteinOptions options;
  if (sgm) options.solver = WithSgm(*sgm);
  options.delta = delta;
  return CheckGoldsteinStationarity(toy->Build().get(), options);
}

// phi = sum of x_i / 2 - clamp(x_i, -1, 1): gradients +-1/2.
TEST(GoldsteinStationarity, SeesAKinkWithinDeltaAndNotBeyond) {
  Toy toy = examples::Corner(1);
  toy.x = {1.0 + 1e-4};
  EXPECT_NEAR(Goldstein(&toy, 1e-3).epsilon, 0.0, 1e-9);
  EXPECT_NEAR(Goldstein(&toy, 1e-5).epsilon, 0.5, 1e-9);
  Toy plane = examples::Corner(2);
  plane.x = {0.3, -0.2};
  const GoldsteinStationarity smooth = Goldstein(&plane, 1e-2);
  ASSERT_TRUE(smooth.ok) << smooth.message;
  EXPECT_EQ(smooth.num_points, 5);
  EXPECT_NEAR(smooth.epsilon, std::sqrt(0.5), 1e-9);
  EXPECT_EQ(smooth.half_width, 0.0);
}

// phi = x^2 - |x|: by values alone, 2 x - 1 right of 0, and 0 in the middle of the kink.
TEST(GoldsteinStationarity, ByValuesAlone) {
  Sgm::Options sgm;
  sgm.output = Sgm::kBest;
  for (const double x : {0.0, 0.3}) {
    Toy toy = examples::NonSmooth(1);
    toy.x = {x};
    const GoldsteinStationarity at = Goldstein(&toy, 1e-2, &sgm);
    ASSERT_TRUE(at.ok) << at.message;
    EXPECT_EQ(at.num_points, 100);
    EXPECT_NEAR(at.epsilon - at.half_width, x == 0.0 ? 0.0 : 0.4, 1e-9) << x;
  }
}

TEST(GoldsteinStationarity, AJumpIsTold) {
  Toy toy = examples::Discontinuous();
  toy.x = {1e-4};
  const GoldsteinStationarity at = Goldstein(&toy, 1e-3);
  EXPECT_THAT(at.message, HasSubstr("jump")) << at.Report();
  GoldsteinOptions nonsense;
  nonsense.delta = -1.0;
  EXPECT_THAT(CheckGoldsteinStationarity(toy.Build().get(), nonsense).message, HasSubstr("delta"));
  nonsense = GoldsteinOptions();
  nonsense.num_points = 1;
  EXPECT_THAT(CheckGoldsteinStationarity(toy.Build().get(), nonsense).message,
              HasSubstr("num_points"));
}

Toy Lower(std::vector<double> y, examples::LambdaTerm::Function g) {
  Toy toy;
  toy.x = {0.5};
  toy.y = std::move(y);
  toy.f = [](const double*, const double*, double*, double*) { return 0.0; };
  toy.g = std::move(g);
  return toy;
}

// Example 5.3 as printed: g = y1^2 - 2 x y1. |g_y| = 2 dist and g - g* = dist^2, y2 free. The paper
// has L = 1 and alpha = 1/4: the former is too small, the latter right but loose.
TEST(LowerRegularity, OfExample53) {
  Toy toy = Lower({3.0, -1.0}, [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = -2.0 * y[0];
    gy[0] = 2.0 * (y[0] - x[0]);
    gy[1] = 0.0;
    return y[0] * y[0] - 2.0 * x[0] * y[0];
  });
  const LowerRegularity r = EstimateLowerRegularity(toy.Build().get(), Solver::Options());
  ASSERT_TRUE(r.ok) << r.message;
  EXPECT_NEAR(r.exponent, 2.0, 1e-6);
  EXPECT_NEAR(r.growth, 1.0, 1e-5);
  EXPECT_NEAR(r.dominance, 2.0, 1e-6);
  EXPECT_NEAR(r.smoothness, std::sqrt(8.0), 1e-6);  // |(2, 2)|: by x and by y.
  EXPECT_NEAR(r.lipschitz_y, 5.0, 1e-12);
  EXPECT_NEAR(r.lipschitz_x, 6.0, 1e-12);
}

// Example 5.2: strongly convex with eigenvalues 1 and 4, so alpha = 1 and L (by y) = 4.
TEST(LowerRegularity, OfAStronglyConvexOne) {
  Toy toy = Lower({3.0, -1.0}, [](const double*, const double* y, double* gx, double* gy) {
    gx[0] = 0.0;
    gy[0] = y[0];
    gy[1] = 4.0 * y[1];
    return 0.5 * y[0] * y[0] + 2.0 * y[1] * y[1];
  });
  const LowerRegularity r = EstimateLowerRegularity(toy.Build().get(), Solver::Options());
  ASSERT_TRUE(r.ok) << r.message;
  EXPECT_NEAR(r.exponent, 2.0, 0.1);
  EXPECT_GE(r.dominance, 1.0 - 1e-9);
  EXPECT_LE(r.dominance, 4.0);
  EXPECT_LE(r.smoothness, 4.0 + 1e-9);
  EXPECT_GE(r.smoothness, 1.0);
}

// g = |y - x|^p / p: the exponent and the growth, as far as Sgm's smooth steps know g*.
TEST(LowerRegularity, MeasuresTheExponent) {
  for (const double p : {2.0, 3.0, 4.0}) {
    Toy toy = Lower({2.0}, [p](const double* x, const double* y, double* gx, double* gy) {
      const double d = y[0] - x[0];
      gy[0] = (d > 0.0 ? 1.0 : d < 0.0 ? -1.0 : 0.0) * std::pow(std::abs(d), p - 1.0);
      gx[0] = -gy[0];
      return std::pow(std::abs(d), p) / p;
    });
    Sgm::Options sgm;
    sgm.theta = 1e-20;  // What its one step leaves is the least g of the steps on g.
    sgm.lower_step = 0.2;
    sgm.num_lower_steps = 300000;
    sgm.num_steps = 1;
    const LowerRegularity r = EstimateLowerRegularity(toy.Build().get(), WithSgm(sgm));
    ASSERT_TRUE(r.ok) << r.message;
    EXPECT_NEAR(r.exponent, p, 0.03 * p);
    EXPECT_NEAR(r.growth, 1.0 / p, 0.1 / p);
  }
}

// g = |y - x|: the first step is at the solution, and there is no run to fit.
TEST(LowerRegularity, SaysWhereTheRunIsTooShort) {
  Toy toy = Lower({2.0}, [](const double* x, const double* y, double* gx, double* gy) {
    gy[0] = y[0] > x[0] ? 1.0 : -1.0;
    gx[0] = -gy[0];
    return std::abs(y[0] - x[0]);
  });
  Sgm::Options sgm;
  sgm.theta = sgm.step = sgm.lower_step = 1e-3;
  const LowerRegularity r = EstimateLowerRegularity(toy.Build().get(), WithSgm(sgm));
  EXPECT_FALSE(r.ok);
  EXPECT_THAT(r.message, HasSubstr("fewer than three points"));
  EXPECT_THAT(EstimateLowerRegularity(nullptr, Solver::Options()).message, HasSubstr("null"));
}

// g = max(|n1'y|, |n2'y|) of unit vectors with n1'n2 = 0.6: Polyak's steps project on one line
// after the other, and g >= sqrt(0.2) dist.
TEST(LowerRegularity, OfAWeakSharpMinimum) {
  Toy toy = Lower({1.0, 1.7}, [](const double*, const double* y, double* gx, double* gy) {
    const double values[2] = {y[0], 0.6 * y[0] + 0.8 * y[1]};
    const int i = std::abs(values[1]) > std::abs(values[0]);
    const double sign = values[i] > 0.0 ? 1.0 : -1.0;
    gx[0] = 0.0;
    gy[0] = sign * (i ? 0.6 : 1.0);
    gy[1] = sign * (i ? 0.8 : 0.0);
    return std::abs(values[i]);
  });
  Sgm::Options sgm;
  sgm.theta = sgm.step = sgm.lower_step = 1e-4;
  sgm.num_lower_steps = 200000;
  sgm.num_steps = 1;
  const LowerRegularity r = EstimateLowerRegularity(toy.Build().get(), WithSgm(sgm));
  ASSERT_TRUE(r.ok) << r.message;
  EXPECT_GE(r.num_points, 8);
  EXPECT_NEAR(r.exponent, 1.0, 0.05);
  EXPECT_GE(r.sharpness, 0.5 * std::sqrt(0.2) - 1e-3);
  EXPECT_LE(r.sharpness, 0.5);
  EXPECT_NEAR(r.lipschitz_y, 1.0, 1e-12);
}

}  // namespace
}  // namespace bilevel
