// The damped Gauss-Newton metric against its definition, and where it is worth its price: a chain
// whose neighbours are tied together far more firmly than to the world.
#include "bilevel/lower_level/gauss_newton_metric.h"

#include <memory>
#include <string>
#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "bilevel/lower_level/block_jacobi.h"
#include "bilevel/methods/estimators/curvature.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/program/program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

struct Difference {
  template <typename T>
  bool operator()(const T* a, const T* b, const T* x, T* r) const {
    r[0] = stiffness * (b[0] - a[0] - x[0] * step);
    return true;
  }
  double stiffness, step;
};
struct Anchor {
  template <typename T>
  bool operator()(const T* a, T* r) const {
    r[0] = a[0] - target;
    return true;
  }
  double target;
};

// y_0 = 0 within 1, neighbours x apart within 1 / stiffness; x so that y_0 and the end are 0 and 1.
struct Chain {
  Chain(int length, double stiffness, int num_scenarios = 1) {
    problem.AddUpperParameterBlock(&x, 1);
    y.resize(num_scenarios);
    for (int s = 0; s < num_scenarios; ++s) {
      Scenario* scenario = s == 0 ? problem.scenario(0) : problem.AddScenario("other", 2.0);
      y[s].assign(length, 0.0);
      scenario->lower()->AddResidualBlock(
          new AutoDiffCostFunction<Anchor, 1, 1>(new Anchor{0.0}), nullptr, &y[s][0]);
      for (int i = 1; i < length; ++i) {
        scenario->lower()->AddResidualBlock(new AutoDiffCostFunction<Difference, 1, 1, 1, 1>(
                                                new Difference{stiffness + s, 1.0 / (length - 1)}),
                                            nullptr,
                                            &y[s][i - 1],
                                            &y[s][i],
                                            &x);
      }
      scenario->upper()->AddResidualBlock(
          new AutoDiffCostFunction<Anchor, 1, 1>(new Anchor{1.0}), nullptr, &y[s][length - 1]);
    }
  }
  double x = 0.0;
  std::vector<std::vector<double>> y;
  Problem problem;
};

TEST(GaussNewtonMetric, InvertsTheDampedHessianOfAllScenarios) {
  Chain chain(5, 3.0, 2);
  std::string error;
  const auto program = chain.problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  Oracle oracle(program.get(), nullptr, 1);
  Point x(&program->x), y(&program->y);
  x.value().setZero();
  y.value().setZero();
  Matrix h(10, 10);  // Linear residuals: Gauss-Newton's is the Hessian.
  Vector column, unused;
  for (int j = 0; j < 10; ++j) {
    oracle.g.HessianProduct(x, y, Vector::Unit(10, j), &column, &unused);
    h.col(j) = column;
  }
  GaussNewtonMetric metric(0.1);
  metric.Compute(oracle, x, y);
  metric.Compute(oracle, x, y);  // Once more on the same pattern.
  ASSERT_TRUE(oracle.ok()) << oracle.error();
  const Matrix damped = h + 0.1 * Matrix(h.diagonal().asDiagonal());
  const Matrix inverse = PseudoInverse(damped);
  for (int j = 0; j < 10; ++j) {
    Vector v = Vector::Unit(10, j);
    metric.Apply(&v);
    EXPECT_LT((v - inverse.col(j)).norm(), 1e-12) << j;
    SparseVector sparse;
    sparse.SetZero(&program->y);
    sparse.Touch(j);
    sparse.data()[j] = 1.0;
    metric.Apply(&sparse);
    EXPECT_EQ((sparse.dense() - v).norm(), 0.0) << j;
    EXPECT_EQ(sparse.blocks().size(), 10u);
  }
}

TEST(GaussNewtonMetric, SeesWhatCouplesTheBlocks) {
  Chain chain(30, 10.0);
  std::string error;
  const auto program = chain.problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  Oracle oracle(program.get(), nullptr, 1);
  Point x(&program->x), y(&program->y);
  x.value().setZero();
  y.value().setZero();
  BlockJacobi jacobi;
  jacobi.Compute(oracle, x, y);
  GaussNewtonMetric metric(1e-6);
  metric.Compute(oracle, x, y);
  const auto condition = [&](const Metric& m) {
    const Curvature c = EstimateCurvature(oracle, Batch::All(), x, y, &m, 30);
    return c.largest / c.smallest;
  };
  EXPECT_GT(condition(jacobi), 1e3);
  EXPECT_LT(condition(metric), 1.1);
}

// phi is least, 0, at x = 1.
TEST(GaussNewtonMetric, SobaCrossesAChainThatItDoesNotCrossByBlocks) {
  for (const bool coupled : {false, true}) {
    Chain chain(30, 10.0);
    Soba::Options soba;
    soba.preconditioner = coupled ? Preconditioner::kGaussNewton : Preconditioner::kBlockJacobi;
    soba.damping = 1e-4;
    soba.lower_batch = soba.upper_batch = 0;
    soba.lower = {0.9, 0.0, 1.0};
    soba.x.step = 0.1;
    soba.x.decay_exponent = 0.0;
    soba.solve_lower_level = false;
    Solver::Options options;
    options.method = std::make_shared<Soba>(soba);
    options.max_num_iterations = 300;
    Solver::Summary summary;
    Solve(options, &chain.problem, &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    if (coupled) {
      EXPECT_NEAR(chain.x, 1.0, 1e-6);
    } else {
      EXPECT_GT(std::abs(chain.x - 1.0), 0.05);
    }
  }
}

TEST(GaussNewtonMetric, RefusesBoundsAndNonsense) {
  Chain chain(3, 1.0);
  Soba::Options soba;
  soba.preconditioner = Preconditioner::kGaussNewton;
  soba.lower_batch = soba.upper_batch = 0;
  soba.damping = 0.0;
  Solver::Options options;
  options.method = std::make_shared<Soba>(soba);
  Solver::Summary summary;
  Solve(options, &chain.problem, &summary);
  EXPECT_THAT(summary.message, testing::HasSubstr("soba.damping must be positive"));
  chain.problem.lower()->SetParameterLowerBound(&chain.y[0][1], 0, -1.0);
  soba.damping = 0.1;
  options.method = std::make_shared<Soba>(soba);
  Solve(options, &chain.problem, &summary);
  EXPECT_THAT(summary.message, testing::HasSubstr("lower level without bounds"));
}

}  // namespace
}  // namespace bilevel
