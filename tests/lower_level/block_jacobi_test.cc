// Block-Jacobi against its definition, written out densely.
#include "bilevel/lower_level/block_jacobi.h"

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "bilevel/program/program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

// Three linear residuals of blocks of y of sizes 2 and 1, shifted by x.
class Rows : public ceres::SizedCostFunction<3, 1, 2, 1> {
 public:
  explicit Rows(const Eigen::Matrix3d& a) : a_(a) {}
  bool Evaluate(double const* const* p, double* r, double** jacobians) const override {
    const Eigen::Vector3d y(p[1][0], p[1][1], p[2][0]);
    Eigen::Map<Eigen::Vector3d> residual(r);
    residual = a_ * y - p[0][0] * Eigen::Vector3d::Ones();
    if (!jacobians) return true;
    if (double* j = jacobians[0]) Eigen::Map<Eigen::Vector3d>(j, 3).setConstant(-1.0);
    if (double* j = jacobians[1]) {
      Eigen::Map<Eigen::Matrix<double, 3, 2, Eigen::RowMajor>>(j, 3, 2) = a_.leftCols<2>();
    }
    if (double* j = jacobians[2]) Eigen::Map<Eigen::Vector3d>(j, 3) = a_.col(2);
    return true;
  }

 private:
  Eigen::Matrix3d a_;
};

struct Fixture {
  double x = 0.5, y[2] = {0.2, 0.3}, z[1] = {-0.4}, idle[2] = {1.0, 2.0};
  Problem problem;
  std::unique_ptr<Program> program;
  std::unique_ptr<Oracle> oracle;
  Point at_x, at_y;
  Matrix hessian = Matrix::Zero(3, 3);

  explicit Fixture(double unit = 1.0) {
    problem.AddUpperParameterBlock(&x, 1);
    std::mt19937 generator(7);
    std::normal_distribution<double> normal;
    for (int i = 0; i < 4; ++i) {
      Eigen::Matrix3d a;
      for (double& entry : a.reshaped()) entry = normal(generator);
      a.col(2) *= unit;
      problem.lower()->AddResidualBlock(new Rows(a), nullptr, &x, y, z);
      hessian += a.transpose() * a;
    }
    problem.upper()->AddResidualBlock(new Rows(Eigen::Matrix3d::Identity()), nullptr, &x, y, z);
  }
  void Compile() {
    std::string error;
    program = problem.Compile({}, &error);
    ASSERT_TRUE(program) << error;
    oracle = std::make_unique<Oracle>(program.get(), nullptr, 1);
    at_x = Point(&program->x);
    at_y = Point(&program->y);
    program->x.ReadUser(at_x.value().data());
    program->y.ReadUser(at_y.value().data());
  }
  // M^-1 column by column, in the order of the program's blocks.
  Matrix Inverse() {
    BlockJacobi jacobi;
    jacobi.Compute(*oracle, at_x, at_y);
    EXPECT_TRUE(oracle->ok()) << oracle->error();
    Matrix inverse(at_y.dim(), at_y.dim());
    for (int j = 0; j < at_y.dim(); ++j) {
      Vector v = Vector::Unit(at_y.dim(), j);
      jacobi.Apply(&v);
      inverse.col(j) = v;
    }
    return inverse;
  }
};

TEST(BlockJacobi, InvertsTheDiagonalBlocks) {
  Fixture f;
  f.Compile();
  ASSERT_EQ(f.program->y.blocks()[0].user, f.y);
  Matrix expected = Matrix::Zero(3, 3);
  expected.topLeftCorner(2, 2) = PseudoInverse(f.hessian.topLeftCorner(2, 2));
  expected(2, 2) = 1.0 / f.hessian(2, 2);
  EXPECT_LT((f.Inverse() - expected).norm(), 1e-12);
  EXPECT_EQ(f.oracle->g_counts().linearizations, 1);
  // Two blocks of y a residual: eigenvalues of M^-1 H up to 2.
  Matrix root;
  ASSERT_TRUE(Cholesky(expected, &root));
  EXPECT_LE(SymmetricEigen(root.transpose() * f.hessian * root).eigenvalues().maxCoeff(), 2.0);
}

// In other units of a block a step has the same effect.
TEST(BlockJacobi, DoesNotDependOnUnits) {
  Fixture one, other(1e-6);
  one.Compile();
  other.Compile();
  const double scale = other.Inverse()(2, 2) / one.Inverse()(2, 2);
  EXPECT_NEAR(scale, 1e12, 1.0);
}

TEST(BlockJacobi, ABoundedBlockIsScaledByCoordinate) {
  Fixture f;
  f.problem.lower()->SetParameterLowerBound(f.y, 0, -5.0);
  f.Compile();
  const Matrix expected = f.hessian.diagonal().cwiseInverse().asDiagonal();
  EXPECT_LT((f.Inverse() - expected).norm(), 1e-12);
}

// y[0] + y[1] alone, and a block that nothing determines.
struct Sum {
  template <typename T>
  bool operator()(const T* x, const T* y, const T* idle, T* r) const {
    r[0] = 3.0 * (y[0] + y[1]) + x[0] + 0.0 * idle[0];
    return true;
  }
};

TEST(BlockJacobi, DirectionsWithoutCurvatureTakeTheLargest) {
  double x = 0.1, y[2] = {0.0, 0.0}, idle[2] = {0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  for (ceres::Problem* level : {problem.lower(), problem.upper()}) {
    level->AddResidualBlock(
        new AutoDiffCostFunction<Sum, 1, 1, 2, 2>(new Sum), nullptr, &x, y, idle);
  }
  std::string error;
  const auto program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  Oracle oracle(program.get(), nullptr, 1);
  BlockJacobi jacobi;
  Point at_x(&program->x), at_y(&program->y);
  program->x.ReadUser(at_x.value().data());
  program->y.ReadUser(at_y.value().data());
  jacobi.Compute(oracle, at_x, at_y);
  ASSERT_TRUE(oracle.ok()) << oracle.error();
  // The one curvature is 18, along (1, 1) / sqrt 2.
  for (int j = 0; j < 4; ++j) {
    Vector v = Vector::Unit(4, j);
    jacobi.Apply(&v);
    EXPECT_LT((v - Vector::Unit(4, j) / 18.0).norm(), 1e-12) << j;
  }
}

class Long : public Objective {
 public:
  bool Evaluate(double const* const*,
                const Batch&,
                double* value,
                double** jacobians) const override {
    *value = 0.0;
    if (jacobians && jacobians[0]) std::fill_n(jacobians[0], 1, 0.0);
    if (jacobians && jacobians[1]) std::fill_n(jacobians[1], 2100, 0.0);
    return true;
  }
};

TEST(BlockJacobi, RefusesLongTermsByName) {
  double x = 0.1;
  std::vector<double> y(2100, 0.0);
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  for (const Level level : {Level::kLower, Level::kUpper}) {
    problem.AddTerm(level, std::make_unique<Long>(), {{&x, 1}, {y.data(), 2100}});
  }
  std::string error;
  const auto program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  EXPECT_THAT(BlockJacobi::Check(*program, "bome.jacobi"),
              HasSubstr("bome.jacobi needs the diagonal blocks"));
}

}  // namespace
}  // namespace bilevel
