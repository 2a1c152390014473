// What Chen, Xu and Zhang, "Bilevel optimization without lower-level strong convexity from the
// hyper-objective perspective" (2023), state of their instances, in closed form.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/analysis/optimality.h"
#include "bilevel/bilevel.h"
#include "bilevel/lower_level/sgm.h"
#include "bilevel_problems.h"
#include "examples/support/toy_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using examples::LambdaTerm;
using examples::Toy;
using testing::HasSubstr;

const BilevelProblem& ProblemOf(const std::string& name) {
  for (const BilevelProblem& problem : AllBilevelProblems()) {
    if (problem.name == name) return problem;
  }
  ADD_FAILURE() << name << " is not there";
  return AllBilevelProblems()[0];
}

double PhiAt(Toy toy, double x) {
  toy.x = {x};
  const LowerOptimality at = CheckLowerOptimality(toy.Build().get());
  EXPECT_TRUE(at.ok) << at.message;
  return at.objective;
}

// Proposition 4.1: phi is a quadratic without a lower bound; phi_lambda is a linear function, 0,
// whatever lambda > 0: their infima differ by as much as x may be large.
TEST(HyperObjectivePaper, RegularisationChangesTheProblem) {
  for (const double x : {-2.0, 0.3, 1.0, 2.0}) {
    EXPECT_NEAR(PhiAt(examples::Regularised(), x), -0.5 * x * x, 1e-12);
    for (const double lambda : {1.0, 1e-3, 1e-6, 1e-9}) {
      Toy regularised = examples::Regularised();
      regularised.g = [lambda](const double*, const double* y, double* gx, double* gy) {
        gx[0] = 0.0;
        gy[0] = 2.0 * lambda * y[0];
        return lambda * y[0] * y[0];
      };
      regularised.y = {0.7};
      EXPECT_NEAR(PhiAt(regularised, x), 0.0, 1e-9) << lambda;
    }
  }
}

// The y of one solve by Sgm at the toy's x and y, and what Sgm says of it.
struct SgmSolve {
  SgmSolve(Toy toy, const Sgm::Options& options) {
    const auto problem = toy.Build();
    std::string error;
    const auto program = problem->Compile({}, &error);
    Sgm sgm(program.get(), options);
    Point x(&program->x), at(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(at.value().data());
    EXPECT_TRUE(sgm.Solve(x, &at)) << sgm.message();
    y.assign(at.value().data(), at.value().data() + at.value().size());
    remark = sgm.Report().remark;
    Vector gx(toy.x.size()), gy(toy.y.size());
    f = toy.f(toy.x.data(), y.data(), gx.data(), gy.data());
  }
  std::vector<double> y;
  std::string remark;
  double f;
};

Sgm::Options FewSteps(int steps, double step, double theta) {
  Sgm::Options options;
  options.theta = theta;
  options.step = options.lower_step = step;
  options.num_steps = options.num_lower_steps = steps;
  return options;
}

// Proposition 4.2, with f and the chain at x = 1: dist(y_0, Y*) = sqrt(2), f and the gradient of g
// are 1-Lipschitz, and steps along -grad f and -grad g leave f below 0 until the chain is known to
// its middle, while phi - 1/2 is 1. (With a step along +grad f alone f would be phi, and g not g*.)
TEST(HyperObjectivePaper, AChainIsOutOfReachOfFirstOrderMethods) {
  for (const int num_steps : {1, 5, 20, 100}) {
    const int size = 2 * (num_steps + 1);
    Toy toy = examples::Chain(size);
    toy.x = {1.0};
    const double phi = PhiAt(toy, 1.0);  // Newton's method is not one of those.
    EXPECT_NEAR(phi, 1.5, 1e-9);
    double square = 0.0;
    for (int i = 0; i < size; ++i) square += 2.0 / size;
    EXPECT_NEAR(std::sqrt(square), std::sqrt(2.0), 1e-12);
    for (const auto output : {Sgm::kAverage, Sgm::kBest, Sgm::kLastFeasible}) {
      Sgm::Options options = FewSteps(num_steps, 1.0, 1e-3);
      options.output = output;
      EXPECT_GE(std::abs(SgmSolve(toy, options).f - phi), 1.0 - 1e-12) << num_steps;
    }
  }
  // It says so; with steps enough it gets there and says nothing.
  Toy toy = examples::Chain(8);
  EXPECT_THAT(SgmSolve(toy, FewSteps(3, 1.0, 1e-4)).remark, HasSubstr("did not reach min g"));
  Sgm::Options enough = FewSteps(200000, 0.02, 1e-6);
  enough.lower_step = 1.0;
  enough.num_lower_steps = 20000;
  enough.output = Sgm::kLastFeasible;
  const SgmSolve reached(toy, enough);
  EXPECT_EQ(reached.remark, "");
  EXPECT_NEAR(reached.f, 1.5, 0.05);
}

// Appendix D's Lipschitz version: g's subgradients know one coordinate more a step, too.
TEST(HyperObjectivePaper, ASharpChainIsOutOfReachToo) {
  for (const int num_steps : {1, 5, 20, 100}) {
    Toy toy = examples::SharpChain(2 * (num_steps + 1));
    EXPECT_GE(std::abs(SgmSolve(toy, FewSteps(num_steps, 0.1, 1e-3)).f - 1.5), 1.0 - 1e-12);
    // 1-Lipschitz.
    std::vector<double> y(toy.y.size()), gy(toy.y.size());
    for (size_t i = 0; i < y.size(); ++i) y[i] = std::sin(3.0 * i);
    double gx = 0.0, norm = 0.0;
    toy.g(toy.x.data(), y.data(), &gx, gy.data());
    for (const double v : gy) norm += v * v;
    EXPECT_LE(norm, 1.0 + 1e-12);
    EXPECT_GE(norm, 0.5 - 1e-12);
  }
}

// Example 4.1: phi = x^2 + sign(x).
TEST(HyperObjectivePaper, PhiJumps) {
  for (const double x : {-0.5, -1e-6, 1e-6, 0.5}) {
    EXPECT_NEAR(PhiAt(examples::Discontinuous(), x), x * x + (x > 0.0 ? 1.0 : -1.0), 1e-9);
  }
}

// Example 5.1: phi = -|x|, by steps along f among all y.
TEST(HyperObjectivePaper, PhiHasAKink) {
  Sgm::Options options;
  options.output = Sgm::kBest;
  for (const double x : {-0.7, -0.1, 0.1, 1.0}) {
    Toy toy = examples::PrintedKink();
    toy.x = {x};
    EXPECT_NEAR(SgmSolve(toy, options).f, -std::abs(x), 1e-12);
  }
}

// Example 5.4: phi(x) by f's exact choice; gradients dominate by (lambda + 1) sigma+ / n, where
// the paper leaves out the 1 / n of its own levels.
TEST(HyperObjectivePaper, LeastSquaresHasDominantGradients) {
  const BilevelProblem& game = ProblemOf("sgm_least_squares");
  for (const Values& at : {Values{3, -1}, Values{0, 1}, Values{-2, 0.5}}) {
    Toy toy = examples::LeastSquaresGame();
    toy.x = at;
    const auto problem = toy.Build();
    const LowerOptimality optimality = CheckLowerOptimality(problem.get());
    ASSERT_TRUE(optimality.ok) << optimality.message;
    EXPECT_NEAR(optimality.objective, game.f(at.data(), game.solution(at).data()), 1e-12);
    const LowerRegularity regularity =
        EstimateLowerRegularity(problem.get(), Solver::Options(), 2000);
    ASSERT_TRUE(regularity.ok) << regularity.message;
    EXPECT_GE(regularity.dominance, 2.0 * 0.05 / 6.0 * (1.0 - 1e-3));
    EXPECT_LE(regularity.dominance, 2.0 * 0.9 / 6.0);
    EXPECT_NEAR(regularity.exponent, 2.0, 0.2);
  }
}

// Appendix A: at the minimiser of f over the graph of y*(x), x = y = 1/2, the value function's
// constraint q <= 0 has no gradient, and grad f = (1, 1): grad f + lambda grad q is nowhere zero,
// while x is stationary for phi.
TEST(HyperObjectivePaper, TheValueFunctionsKktConditionsAreNotNecessary) {
  const BilevelProblem& sum = ProblemOf("penalty_sum");
  const double at[2] = {0.5, 0.5}, h = 1e-6;
  const auto q = [&](double x, double y) {
    const Values best = sum.solution({x});
    return sum.g(&x, &y) - sum.g(&x, best.data());
  };
  EXPECT_NEAR((q(at[0] + h, at[1]) - q(at[0] - h, at[1])) / (2 * h), 0.0, 1e-9);
  EXPECT_NEAR((q(at[0], at[1] + h) - q(at[0], at[1] - h)) / (2 * h), 0.0, 1e-9);
  const double right = at[0] + h, left = at[0] - h;
  EXPECT_NEAR((sum.f(&right, &at[1]) - sum.f(&left, &at[1])) / (2 * h), 1.0, 1e-9);
  Values x = {0.5}, y = {0.5};
  const auto problem = sum.Build(x.data(), y.data());
  GoldsteinOptions options;
  options.delta = 1e-9;
  const GoldsteinStationarity stationary = CheckGoldsteinStationarity(problem.get(), options);
  ASSERT_TRUE(stationary.ok) << stationary.message;
  EXPECT_LT(stationary.epsilon, 1e-8);
}

}  // namespace
}  // namespace bilevel
