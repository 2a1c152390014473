// Every iteration for H z = b against a dense solve of the same H, at points where H is positive
// definite, singular or indefinite.
#include "bilevel/methods/estimators/adjoint_solver.h"

#include <memory>
#include <string>

#include "Eigen/Core"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

constexpr int kSize = 5;

// Residuals y_i^2 - x and coupling[k] (y_k - 2 y_{k+1}): d^2g/dy^2 = diag(6 y_i^2 - 2 x) + a chain.
struct Wells {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    for (int i = 0; i < kSize; ++i) r[i] = wells * (y[i] * y[i] - x[0]);
    for (int i = 0; i + 1 < kSize; ++i) r[kSize + i] = y[i] - 2.0 * y[i + 1] + 0.1 * i;
    return true;
  }
  double wells;
};
struct Look {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] + y[3];
    return true;
  }
};

struct Fixture {
  explicit Fixture(double wells) {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Wells, 2 * kSize - 1, 1, kSize>(new Wells{wells}), nullptr, &x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Look, 1, kSize>(new Look), nullptr, y);
    std::string error;
    program = problem.Compile({}, &error);
    EXPECT_TRUE(program) << error;
    oracle = std::make_unique<Oracle>(program.get(), nullptr, 1);
    at_x = Point(&program->x);
    at_y = Point(&program->y);
    program->x.ReadUser(at_x.value().data());
    program->y.ReadUser(at_y.value().data());
    hessian.resize(kSize, kSize);
    Vector column;
    for (int i = 0; i < kSize; ++i) {
      oracle->g.HessianProduct(at_x, at_y, Vector::Unit(kSize, i), &column, nullptr);
      hessian.col(i) = column;
    }
  }
  Vector Solve(AdjointSteps::Kind kind, const Vector& b, int iterations) {
    AdjointSteps steps;
    steps.kind = kind;
    steps.num_linear_iterations = iterations;
    steps.linear_tolerance = 1e-13;
    AdjointSolver solver(steps);
    Vector z = Vector::Zero(kSize);
    EXPECT_TRUE(solver.Solve(*oracle, at_x, at_y, b, &z)) << oracle->error();
    EXPECT_NEAR(solver.residual(), (hessian * z - b).norm() / b.norm(), 1e-9);
    return z;
  }
  double x = 0.5, y[kSize] = {0.1, 0.7, -0.4, 0.9, 0.05};
  Problem problem;
  std::unique_ptr<Program> program;
  std::unique_ptr<Oracle> oracle;
  Point at_x, at_y;
  Matrix hessian;
};

const Vector kB = (Vector(kSize) << 1.0, -0.5, 0.3, 0.8, -1.1).finished();

TEST(AdjointSolver, MinimalResidualWhereTheHessianIsIndefinite) {
  Fixture fixture(2.0);
  const Vector values = SymmetricEigen(fixture.hessian).eigenvalues();
  ASSERT_LT(values.minCoeff(), -0.1);
  ASSERT_GT(values.maxCoeff(), 0.1);
  const Vector expected = SolveSquare(fixture.hessian, kB);
  EXPECT_LT((fixture.Solve(AdjointSteps::kMinimalResidual, kB, 30) - expected).norm(), 1e-9);
  // Conjugate gradients refuse.
  AdjointSolver solver{AdjointSteps()};
  Vector z = Vector::Zero(kSize);
  EXPECT_FALSE(solver.Solve(*fixture.oracle, fixture.at_x, fixture.at_y, kB, &z));
  EXPECT_NE(fixture.oracle->error().find("not positive definite"), std::string::npos);
}

TEST(AdjointSolver, MinimalResidualIsSmallestAtEveryIteration) {
  Fixture fixture(2.0);
  // The least residual in the span of b, H b, ..., H^(k-1) b.
  Matrix krylov(kSize, 0);
  for (int k = 1; k <= 4; ++k) {
    krylov.conservativeResize(kSize, k);
    krylov.col(k - 1) = k == 1 ? kB : Vector(fixture.hessian * krylov.col(k - 2));
    krylov.col(k - 1).normalize();
    const Matrix image = fixture.hessian * krylov;
    const double least = (image * LeastSquares(image, kB) - kB).norm();
    const Vector z = fixture.Solve(AdjointSteps::kMinimalResidual, kB, k);
    EXPECT_NEAR((fixture.hessian * z - kB).norm(), least, 1e-10) << k;
  }
}

TEST(AdjointSolver, SingularSystems) {
  Fixture fixture(0.0);  // A chain of four differences of five unknowns: one direction is free.
  const Matrix pseudo_inverse = PseudoInverse(fixture.hessian);
  const Vector eigenvalues = SymmetricEigen(fixture.hessian).eigenvalues();
  ASSERT_EQ((eigenvalues.array() < 1e-12).count(), 1);
  const Vector in_range = fixture.hessian * kB;
  const Vector expected = pseudo_inverse * in_range;
  for (const auto kind : {AdjointSteps::kMinimalResidual, AdjointSteps::kLeastNorm}) {
    EXPECT_LT((fixture.Solve(kind, in_range, 60) - expected).norm(), 1e-8) << kind;
  }
  EXPECT_LT((fixture.Solve(AdjointSteps::kLeastNorm, kB, 60) - pseudo_inverse * kB).norm(), 1e-7);
}

}  // namespace
}  // namespace bilevel
