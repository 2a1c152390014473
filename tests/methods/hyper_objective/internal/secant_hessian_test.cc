#include "bilevel/methods/hyper_objective/internal/secant_hessian.h"

#include "gtest/gtest.h"

namespace bilevel {
namespace {

constexpr int kSize = 5;

Matrix RandomSymmetric() {
  const Matrix a = Matrix::Random(kSize, kSize);
  return a + a.transpose();
}

TEST(SecantHessian, MeetsTheSecantConditionAndStaysSymmetric) {
  const Matrix missing = RandomSymmetric(), a = Matrix::Random(kSize, kSize);
  const Matrix hessian = a * a.transpose() + missing;
  SecantHessian s(kSize);
  EXPECT_EQ(s.matrix(), Matrix::Zero(kSize, kSize));
  for (int k = 0; k < 10; ++k) {
    const Vector step = Vector::Random(kSize);
    s.Update(step, hessian * step, missing * step);
    EXPECT_LT((s.matrix() * step - missing * step).norm(), 1e-9 * s.matrix().norm());
    EXPECT_LT((s.matrix() - s.matrix().transpose()).norm(), 1e-12 * s.matrix().norm());
  }
}

TEST(SecantHessian, OfOneCoordinateIsTheQuotient) {
  SecantHessian s(1);
  const auto vector = [](double value) { return Vector::Constant(1, value); };
  s.Update(vector(0.5), vector(4.0), vector(1.5));
  EXPECT_DOUBLE_EQ(s.matrix()(0, 0), 3.0);
  s.Update(vector(-2.0), vector(1.0), vector(14.0));
  EXPECT_DOUBLE_EQ(s.matrix()(0, 0), -7.0);
}

// Of all symmetric changes that meet the condition, the least in the norm |V^-1/2 E V^-1/2| for any
// V with V step = change (Dennis, Schnabel, "Numerical Methods for Unconstrained Optimization",
// 1983, theorem 9.3.1): here V is the identity, where the least is in Frobenius' norm.
TEST(SecantHessian, ChangesLeast) {
  const Matrix target = RandomSymmetric();
  const Vector step = Vector::Random(kSize);
  SecantHessian s(kSize);
  s.Update(step, step, target * step);
  for (int k = 0; k < 20; ++k) {
    // Another that meets it: a symmetric matrix that does not see the step is added.
    const Matrix project =
        Matrix::Identity(kSize, kSize) - step * step.transpose() / step.dot(step);
    const Matrix other = s.matrix() + 0.1 * project * RandomSymmetric() * project;
    ASSERT_LT((other * step - target * step).norm(), 1e-12);
    EXPECT_LE(s.matrix().norm(), other.norm());
  }
}

// "Sizing": curvature learned where the residuals were large must not outlive them.
TEST(SecantHessian, IsSizedDownToTheCurvatureAlongTheStep) {
  const Vector first = Vector::Unit(kSize, 0);
  SecantHessian s(kSize);
  s.Update(first, first, 8.0 * first);
  EXPECT_DOUBLE_EQ(s.matrix()(0, 0), 8.0);
  // A gradient that does not change along the step corrects nothing, but sizes.
  s.Update(first, Vector::Unit(kSize, 1), 2.0 * first);
  EXPECT_DOUBLE_EQ(s.matrix()(0, 0), 2.0);
  s.Update(first, Vector::Unit(kSize, 1), 5.0 * first);  // Never up.
  EXPECT_DOUBLE_EQ(s.matrix()(0, 0), 2.0);
}

}  // namespace
}  // namespace bilevel
