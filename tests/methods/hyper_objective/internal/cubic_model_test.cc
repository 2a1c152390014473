#include "bilevel/methods/hyper_objective/internal/cubic_model.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/decompositions.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

Matrix WithEigenvalues(const Vector& values) {
  const Matrix q = HouseholderQ(Matrix::Random(values.size(), values.size()), values.size());
  return q * values.asDiagonal() * q.transpose();
}

const Vector kSpectra[] = {(Vector(4) << 0.1, 1.0, 3.0, 50.0).finished(),
                           (Vector(4) << -2.0, -1e-3, 3.0, 50.0).finished(),
                           (Vector(4) << -7.0, -7.0, 0.0, 1e-6).finished()};

// Any s is the minimiser for g = -(B + mu I) s, mu = sigma |s|, where B + mu I >= 0.
TEST(CubicModel, MinimiserMeetsTheConditionsOfCartisGouldAndToint) {
  for (const Vector& values : kSpectra) {
    const Matrix b = WithEigenvalues(values), identity = Matrix::Identity(4, 4);
    for (const double more : {1e-4, 0.1, 1e4}) {
      const Vector s = Vector::Random(4);
      const double mu = std::max(0.0, -values[0]) + more, sigma = mu / s.norm();
      const Vector found = CubicModel(-(b + mu * identity) * s, b, 0.0).Minimize(sigma);
      EXPECT_LT((found - s).norm(), 1e-6 * s.norm()) << values.transpose() << ", " << more;
    }
  }
}

// The slope has no part along the direction of least curvature, or there is none.
TEST(CubicModel, HardCaseGoesAlongNegativeCurvature) {
  const Matrix b = WithEigenvalues(kSpectra[1]);
  const SymmetricEigen eigen(b);
  for (const double size : {0.0, 0.3}) {
    for (const double part : {0.0, 1e-14, -1e-14}) {
      const Vector g = size * (eigen.eigenvectors().col(2) + eigen.eigenvectors().col(3)) +
                       part * eigen.eigenvectors().col(0);
      const CubicModel model(g, b, 0.0);
      const double sigma = 0.8;
      const Vector s = model.Minimize(sigma);
      EXPECT_NEAR(s.norm(), 2.0 / sigma, 1e-6);
      EXPECT_LT((b * s + sigma * s.norm() * s + g).norm(), 1e-6);
      EXPECT_LE(part * s.dot(eigen.eigenvectors().col(0)), 0.0);
      EXPECT_LT(model.Change(s, sigma), 0.0);
      EXPECT_FALSE(model.is_convex());
    }
  }
}

TEST(CubicModel, IsNewtonsWithoutMuchSigma) {
  const Matrix b = WithEigenvalues(kSpectra[0]);
  const Vector s = Vector::Random(4);
  const CubicModel model(-b * s, b, 0.0);
  EXPECT_LT((model.Minimize(1e-12) - s).norm(), 1e-9);
  EXPECT_NEAR(model.NewtonDecrease(), 0.5 * s.dot(b * s), 1e-12);
  EXPECT_NEAR(model.Change(s, 0.0), -model.NewtonDecrease(), 1e-12);
  EXPECT_TRUE(model.is_convex());
}

TEST(CubicModel, LeavesFlatDirectionsAlone) {
  const Vector values = (Vector(4) << -1e-11, 2e-12, 3.0, 5.0).finished();
  const Matrix b = WithEigenvalues(values);
  const SymmetricEigen eigen(b);
  const Matrix flat = eigen.eigenvectors().leftCols(2);
  const Vector g = eigen.eigenvectors().rightCols(2) * Vector::Ones(2) + 1e-11 * flat.col(0);
  const CubicModel model(g, b, 0.0);
  EXPECT_EQ(model.flat_directions().cols(), 2);
  EXPECT_LT((flat.transpose() * model.Minimize(1e-8)).norm(), 1e-12);
  // But not where it falls.
  EXPECT_EQ(CubicModel(g + 1e-3 * flat.col(1), b, 0.0).flat_directions().cols(), 1);
}

TEST(CubicModel, LinearAndConstant) {
  const Vector g = Vector::Random(3);
  // s = -g / sqrt(sigma |g|).
  const Vector s = CubicModel(g, Matrix::Zero(3, 3), 0.0).Minimize(2.0);
  EXPECT_LT((s + g / std::sqrt(2.0 * g.norm())).norm(), 1e-8);
  EXPECT_EQ(CubicModel(Vector::Zero(3), Matrix::Zero(3, 3), 0.0).Minimize(2.0), Vector::Zero(3));
}

}  // namespace
}  // namespace bilevel
