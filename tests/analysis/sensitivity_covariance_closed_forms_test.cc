// The covariance of y* where it is known, and what is refused.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "bilevel/analysis/sensitivity.h"
#include "bilevel/bilevel.h"
#include "ceres/ceres.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

Sensitivity::Options Polished(HessianKind hessian = HessianKind::kGaussNewton) {
  Sensitivity::Options options;
  options.polish = true;
  options.hessian = hessian;
  return options;
}

// y - z, and y_1 - y_0 - z: affine, so that everything is known.
ceres::CostFunction* Affine(std::vector<double> factors, double z) {
  std::vector<int> sizes(factors.size(), 1);
  return new FunctionCost(
      1, sizes, [factors, z](double const* const* y, double* residual, double** jacobians) {
        residual[0] = -z;
        for (size_t k = 0; k < factors.size(); ++k) {
          residual[0] += factors[k] * y[k][0];
          if (jacobians && jacobians[k]) jacobians[k][0] = factors[k];
        }
        return true;
      });
}

// Ceres takes the curvature of a loss along where it bends upwards, and then alone.
TEST(SensitivityCovariance, DiffersFromCeresWhereALossBendsUpwards) {
  double y = 0.3;
  ceres::Problem lower;
  lower.AddResidualBlock(Affine({1.0}, -1.0), new ceres::TolerantLoss(1.0, 0.5), &y);
  lower.AddResidualBlock(Affine({1.0}, 2.0), nullptr, &y);
  Problem problem(nullptr, &lower);
  double gauss_newton, exact, of_ceres;
  Sensitivity first(Polished()), second(Polished(HessianKind::kExact));
  ASSERT_TRUE(first.Compute(&problem, {})) << first.message();
  ASSERT_TRUE(second.Compute(&problem, {})) << second.message();
  ASSERT_TRUE(first.GetCovarianceBlock(&y, &y, &gauss_newton));
  ASSERT_TRUE(second.GetCovarianceBlock(&y, &y, &exact));
  ceres::Covariance covariance{ceres::Covariance::Options()};
  const std::vector<const double*> blocks = {&y};
  ASSERT_TRUE(covariance.Compute(blocks, &lower));
  ASSERT_TRUE(covariance.GetCovarianceBlock(&y, &y, &of_ceres));
  double rho[3];
  const double r = y + 1.0;
  ceres::TolerantLoss(1.0, 0.5).Evaluate(r * r, rho);
  ASSERT_GT(rho[2], 0.01);
  EXPECT_NEAR(gauss_newton, 1.0 / (1.0 + rho[1]), 1e-12);
  EXPECT_NEAR(exact, 1.0 / (1.0 + rho[1] + 2.0 * rho[2] * r * r), 1e-12);
  EXPECT_NEAR(of_ceres, exact, 1e-12);
}

// A chain y_0 ... y_3 with links of unit deviation and a measurement of the first, whose third
// coordinate a bound holds.
TEST(SensitivityCovariance, IsZeroWhereABoundHolds) {
  double y[4] = {0.0, 1.0, 1.0, 2.0};
  ceres::Problem lower;
  lower.AddResidualBlock(Affine({1.0}, 0.0), nullptr, &y[0]);
  for (int i = 0; i < 3; ++i) {
    lower.AddResidualBlock(Affine({-1.0, 1.0}, 1.0), nullptr, &y[i], &y[i + 1]);
  }
  lower.SetParameterUpperBound(&y[2], 0, 1.0);
  Problem problem(nullptr, &lower);
  Sensitivity sensitivity(Polished(HessianKind::kExact));
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  EXPECT_EQ(sensitivity.num_active_bounds(), 1);
  // y_0 and y_1: H = [2, -1; -1, 2]; y_3: H = 1.
  const double expected[4][4] = {{2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0},
                                 {1.0 / 3.0, 2.0 / 3.0, 0.0, 0.0},
                                 {0.0, 0.0, 0.0, 0.0},
                                 {0.0, 0.0, 0.0, 1.0}};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      double entry = -1.0;
      ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[i], &y[j], &entry)) << sensitivity.message();
      EXPECT_NEAR(entry, expected[i][j], 1e-14) << i << ", " << j;
    }
  }
}

struct Combination {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    r[0] = factor_a * a[0] + factor_b * b[0];
    return true;
  }
  double factor_a, factor_b;
};

// H is singular in double precision, and J is not: beside a free direction, and without.
TEST(SensitivityCovariance, OfWeakDirectionsIsByTheJacobian) {
  for (const bool is_free : {false, true}) {
    double y[2] = {0.0, 0.0}, z[2] = {0.0, 0.0};
    ceres::Problem lower;
    const auto add = [&](double factor_a, double factor_b, double* a, double* b) {
      lower.AddResidualBlock(
          new AutoDiffCostFunction<Combination, 1, 1, 1>(new Combination{factor_a, factor_b}),
          nullptr,
          a,
          b);
    };
    add(2e6, -2e6, &y[0], &y[1]);
    add(1.0, 1.0, &y[0], &y[1]);
    if (is_free) add(-2.0, 2.0, &z[0], &z[1]);
    Problem problem(nullptr, &lower);
    Sensitivity sensitivity(Polished(HessianKind::kExact));
    ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
    EXPECT_EQ(sensitivity.num_free_directions(), is_free ? 1 : 0);
    double entry;
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 2; ++j) {
        ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[i], &y[j], &entry)) << sensitivity.message();
        EXPECT_NEAR(entry, 0.25, 1e-11);
        if (!is_free) continue;
        // The pseudo-inverse of 4 [1, -1; -1, 1].
        ASSERT_TRUE(sensitivity.GetCovarianceBlock(&z[i], &z[j], &entry));
        EXPECT_NEAR(entry, i == j ? 1.0 / 16.0 : -1.0 / 16.0, 1e-11);
        ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[i], &z[j], &entry));
        EXPECT_NEAR(entry, 0.0, 1e-11);
      }
    }
  }
}

// A random walk of 400 steps, both ends measured: far pairs by solves, some asked for one way and
// some the other.
TEST(SensitivityCovariance, OfFarPairsIsByTheBridgesFormula) {
  constexpr int kSteps = 400;
  std::vector<double> y(kSteps + 1, 0.0);
  ceres::Problem lower;
  lower.AddResidualBlock(Affine({10.0}, 0.0), nullptr, &y[0]);
  lower.AddResidualBlock(Affine({10.0}, 3.0), nullptr, &y[kSteps]);
  for (int i = 0; i < kSteps; ++i) {
    lower.AddResidualBlock(Affine({-1.0, 1.0}, 0.01), nullptr, &y[i], &y[i + 1]);
  }
  Problem problem(nullptr, &lower);
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  for (int i = 0; i <= kSteps; i += 50) {
    for (int j = 0; j <= kSteps; j += 40) {
      // Resistances in parallel: 1/100 at either end, 1 for each step.
      const double s = 0.01 + std::min(i, j), t = 0.01 + kSteps - std::max(i, j);
      const double all = 0.02 + kSteps;
      double entry;
      ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[i], &y[j], &entry));
      EXPECT_NEAR(entry, s * t / all, 1e-11 * all);
      ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[j], &y[i], &entry));
      EXPECT_NEAR(entry, s * t / all, 1e-11 * all);
    }
  }
}

TEST(SensitivityCovariance, BetweenScenariosIsZeroAndOfEachItsOwn) {
  double x = 0.0, y[2] = {0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  Scenario* const scenarios[] = {problem.scenario(0), problem.AddScenario("second")};
  for (int s = 0; s < 2; ++s) {
    scenarios[s]->lower()->AddResidualBlock(Affine({1.0 + s, 1.0}, 1.0), nullptr, &y[s], &x);
  }
  Sensitivity sensitivity(Polished(HessianKind::kExact));
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  double entry;
  for (int a = 0; a < 2; ++a) {
    for (int b = 0; b < 2; ++b) {
      ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[a], &y[b], &entry));
      EXPECT_NEAR(entry, a != b ? 0.0 : a == 0 ? 1.0 : 0.25, 1e-15);
    }
  }
}

TEST(SensitivityCovariance, IsDroppedByTheNextCompute) {
  double y[2] = {0.0, 0.0}, weight = 1.0;
  ceres::Problem lower;
  lower.AddResidualBlock(
      new FunctionCost(1,
                       {1},
                       [&](double const* const* parameters, double* residual, double** jacobians) {
                         residual[0] = weight * (parameters[0][0] - 1.0);
                         if (jacobians && jacobians[0]) jacobians[0][0] = weight;
                         return true;
                       }),
      nullptr,
      &y[0]);
  lower.AddResidualBlock(Affine({-1.0, 1.0}, 0.0), nullptr, &y[0], &y[1]);
  Problem problem(nullptr, &lower);
  Sensitivity sensitivity(Polished());
  for (const double w : {1.0, 2.0}) {
    weight = w;
    ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
    double entry;
    ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[1], &y[1], &entry));
    EXPECT_NEAR(entry, 1.0 + 1.0 / (w * w), 1e-14);
  }
}

TEST(SensitivityCovariance, RefusesWhatIsFreeButNoGauge) {
  // y_0, y_1 and z_0 have a gauge; z_1 is in no residual.
  double y[2] = {0.0, 1.0}, z[2] = {0.0, 0.0};
  ceres::Problem lower;
  lower.AddResidualBlock(Affine({-1.0, 1.0}, 1.0), nullptr, &y[0], &y[1]);
  lower.AddResidualBlock(
      new FunctionCost(1,
                       {1, 2},
                       [](double const* const* p, double* residual, double** jacobians) {
                         residual[0] = p[1][0] - p[0][0];
                         if (jacobians && jacobians[0]) jacobians[0][0] = -1.0;
                         if (jacobians && jacobians[1]) {
                           jacobians[1][0] = 1.0;
                           jacobians[1][1] = 0.0;
                         }
                         return true;
                       }),
      nullptr,
      &y[0],
      z);
  Problem problem(nullptr, &lower);
  double block[4] = {-1.0, -1.0, -1.0, -1.0};
  Sensitivity automatic(Polished());
  ASSERT_TRUE(automatic.Compute(&problem, {})) << automatic.message();
  EXPECT_FALSE(automatic.GetCovarianceBlock(z, z, block));
  EXPECT_THAT(automatic.message(), HasSubstr("lower block 2 is not determined"));
  EXPECT_FALSE(automatic.GetCovarianceBlock(&y[0], z, block));
  EXPECT_EQ(block[0], -1.0);
  // What it leaves alone has its own.
  ASSERT_TRUE(automatic.GetCovarianceBlock(&y[0], &y[0], block)) << automatic.message();
  EXPECT_NEAR(block[0], 2.0 / 9.0, 1e-12);
  EXPECT_FALSE(automatic.GetCovarianceBlock(z, z, block));  // Nor later.

  Sensitivity::Options options = Polished();
  options.singular_handling = SingularHandling::kMinimumNorm;
  Sensitivity minimum(options);
  ASSERT_TRUE(minimum.Compute(&problem, {})) << minimum.message();
  // The eigenvalues of a path of three are 0, 1 and 3.
  ASSERT_TRUE(minimum.GetCovarianceBlock(&y[0], &y[0], block)) << minimum.message();
  EXPECT_NEAR(block[0], 2.0 / 9.0, 1e-12);
  ASSERT_TRUE(minimum.GetCovarianceBlock(z, z, block));
  EXPECT_NEAR(block[0], 5.0 / 9.0, 1e-12);
  for (int k = 1; k < 4; ++k) EXPECT_NEAR(block[k], 0.0, 1e-12);

  options.singular_handling = SingularHandling::kDampingWithRefinement;
  Sensitivity damped(options);
  ASSERT_TRUE(damped.Compute(&problem, {})) << damped.message();
  EXPECT_FALSE(damped.GetCovarianceBlock(&y[0], &y[0], block));
  EXPECT_THAT(damped.message(), HasSubstr("kDampingWithRefinement"));

  options.singular_handling = SingularHandling::kRefuse;
  Sensitivity refusing(options);
  EXPECT_FALSE(refusing.Compute(&problem, {}));
  EXPECT_FALSE(refusing.GetCovarianceBlock(&y[0], &y[0], block));
  EXPECT_THAT(refusing.message(), HasSubstr("singular"));
}

// Tukey's loss takes a chain's only link away: its two halves are free, and not as a gauge is.
TEST(SensitivityCovariance, RefusesWhatIsFreeByALoss) {
  double y[4] = {0.0, 1.0, 52.0, 53.0};
  ceres::Problem lower;
  lower.AddResidualBlock(Affine({-1.0, 1.0}, 1.0), nullptr, &y[0], &y[1]);
  lower.AddResidualBlock(Affine({-1.0, 1.0}, 1.0), new ceres::TukeyLoss(3.0), &y[1], &y[2]);
  lower.AddResidualBlock(Affine({-1.0, 1.0}, 1.0), nullptr, &y[2], &y[3]);
  Problem problem(nullptr, &lower);
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  EXPECT_EQ(sensitivity.num_free_directions(), 2);
  double entry;
  EXPECT_FALSE(sensitivity.GetCovarianceBlock(&y[0], &y[0], &entry));
  EXPECT_THAT(sensitivity.message(), HasSubstr("residual block 1 of the lower problem is beyond"));
}

// A line that throws when it is told to.
class ThrowingLine final : public ceres::Manifold {
 public:
  explicit ThrowingLine(const bool* is_broken) : is_broken_(is_broken) {}
  int AmbientSize() const override { return 1; }
  int TangentSize() const override { return 1; }
  bool Plus(const double* x, const double* delta, double* sum) const override {
    sum[0] = x[0] + delta[0];
    return true;
  }
  bool PlusJacobian(const double*, double* jacobian) const override {
    if (*is_broken_) throw std::runtime_error("it broke");
    jacobian[0] = 1.0;
    return true;
  }
  bool Minus(const double* y, const double* x, double* delta) const override {
    delta[0] = y[0] - x[0];
    return true;
  }
  bool MinusJacobian(const double*, double* jacobian) const override {
    jacobian[0] = 1.0;
    return true;
  }

 private:
  const bool* is_broken_;
};

TEST(SensitivityCovariance, CatchesWhatAManifoldThrows) {
  bool is_broken = false;
  double y = 0.0, entry = -1.0;
  ceres::Problem lower;
  lower.AddParameterBlock(&y, 1, new ThrowingLine(&is_broken));
  lower.AddResidualBlock(Affine({2.0}, 1.0), nullptr, &y);
  Problem problem(nullptr, &lower);
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  is_broken = true;
  EXPECT_FALSE(sensitivity.GetCovarianceBlock(&y, &y, &entry));
  EXPECT_THAT(sensitivity.message(), HasSubstr("the covariance threw: it broke"));
  EXPECT_EQ(entry, -1.0);
  ASSERT_TRUE(sensitivity.GetCovarianceBlockInTangentSpace(&y, &y, &entry));
  EXPECT_NEAR(entry, 0.25, 1e-15);
}

// Rings of points on three axes that know nothing of each other, in units as far apart as 1e10:
// each has the pseudo-inverse of the ring's Laplacian, whatever the others' variances.
TEST(SensitivityCovariance, OfAGaugeInUnitsFarApart) {
  constexpr int kPoints = 8;
  constexpr double kPi = 3.14159265358979323846;
  const double weights[3] = {1e5, 1.0, 1e-5};
  double y[3][kPoints] = {};
  ceres::Problem lower;
  for (int axis = 0; axis < 3; ++axis) {
    for (int i = 0; i < kPoints; ++i) {
      lower.AddResidualBlock(Affine({-weights[axis], weights[axis]}, 0.1 * i),
                             nullptr,
                             &y[axis][i],
                             &y[axis][(i + 1) % kPoints]);
    }
  }
  Problem problem(nullptr, &lower);
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  EXPECT_EQ(sensitivity.num_free_directions(), 3);
  for (int axis = 0; axis < 3; ++axis) {
    for (int j = 0; j < kPoints; ++j) {
      double expected = 0.0, entry = 0.0;
      for (int k = 1; k < kPoints; ++k) {
        const double angle = 2.0 * kPi * k / kPoints;
        expected += std::cos(angle * j) / (2.0 - 2.0 * std::cos(angle)) / kPoints;
      }
      ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[axis][0], &y[axis][j], &entry))
          << sensitivity.message();
      EXPECT_NEAR(entry * weights[axis] * weights[axis], expected, 1e-5) << axis << ", " << j;
    }
  }
}

TEST(SensitivityCovariance, SaysWhatIsWrong) {
  double x = 0.0, y[2] = {0.0, 0.0}, stranger = 0.0, idle = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(Affine({1.0, 1.0, 1.0}, 1.0), nullptr, &y[0], &y[1], &x);
  problem.lower()->SetParameterBlockConstant(&y[1]);
  problem.lower()->AddParameterBlock(&idle, 1);
  Sensitivity sensitivity(Polished());
  double entry = -1.0;
  EXPECT_FALSE(sensitivity.GetCovarianceBlock(&y[0], &y[0], &entry));
  EXPECT_EQ(sensitivity.message(), "Sensitivity::Compute was not called.");
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  const auto expect_refusal = [&](const double* a, const double* b, double* to, const char* what) {
    EXPECT_FALSE(sensitivity.GetCovarianceBlock(a, b, to));
    EXPECT_THAT(sensitivity.message(), HasSubstr(what));
    EXPECT_FALSE(sensitivity.GetCovarianceBlockInTangentSpace(a, b, to));
    EXPECT_THAT(sensitivity.message(), HasSubstr(what));
  };
  expect_refusal(nullptr, &y[0], &entry, "the first block is null");
  expect_refusal(&y[0], nullptr, &entry, "the second block is null");
  expect_refusal(&y[0], &y[0], nullptr, "no memory");
  expect_refusal(&y[0], &stranger, &entry, "the second block is no parameter block");
  expect_refusal(&x, &y[0], &entry, "is an upper parameter block");
  expect_refusal(&idle, &y[0], &entry, "the first block is in no residual block");
  EXPECT_EQ(entry, -1.0);
  ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[0], &y[1], &entry));
  EXPECT_EQ(entry, 0.0);
  ASSERT_TRUE(sensitivity.GetCovarianceBlock(&y[0], &y[0], &entry));
  EXPECT_NEAR(entry, 1.0, 1e-15);
}

}  // namespace
}  // namespace bilevel
