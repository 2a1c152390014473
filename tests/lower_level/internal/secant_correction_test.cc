#include "bilevel/lower_level/internal/secant_correction.h"

#include "bilevel/base/internal/decompositions.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

constexpr int kSize = 6;

struct Pair {
  Pair() {
    const Matrix a = Matrix::Random(kSize, kSize), b = Matrix::Random(kSize, kSize);
    old_hessian = a * a.transpose() + Matrix::Identity(kSize, kSize);
    hessian = old_hessian + 0.3 * b * b.transpose();
    inverse = PseudoInverse(old_hessian);
  }
  void Apply(const Vector& g, Vector* x) {
    secant.Apply(
        g, [&](const Vector& b, Vector* y) { *y = inverse * b; }, x);
  }
  Matrix old_hessian, hessian, inverse;
  SecantCorrection secant;
};

TEST(SecantCorrection, IsTheOldInverseWithoutPairsAndMeetsTheLastSecantEquation) {
  Pair p;
  const Vector g = Vector::Random(kSize);
  Vector x;
  p.Apply(g, &x);
  EXPECT_EQ(x, p.inverse * g);
  for (int k = 0; k < 20; ++k) {  // More than are kept.
    const Vector step = Vector::Random(kSize);
    p.secant.Add(step, p.hessian * step);
    p.Apply(p.hessian * step, &x);
    EXPECT_LT((x - step).norm(), 1e-12 * step.norm());
  }
  p.secant.Clear();
  p.Apply(g, &x);
  EXPECT_EQ(x, p.inverse * g);
}

TEST(SecantCorrection, StaysPositiveDefinite) {
  Pair p;
  const Vector step = Vector::Random(kSize);
  p.secant.Add(step, -p.hessian * step);  // Ignored.
  const Vector g = Vector::Random(kSize);
  Vector x;
  p.Apply(g, &x);
  EXPECT_EQ(x, p.inverse * g);
}

// Steps with the old Hessian on a quadratic of the new one.
TEST(SecantCorrection, ConvergesFasterThanTheOldHessianAlone) {
  Pair p;
  const auto steps = [&](bool learn) {
    Vector y = Vector::Ones(kSize), x;
    p.secant.Clear();
    int count = 0;
    for (; (p.hessian * y).norm() > 1e-12 && count < 1000; ++count) {
      const Vector g = p.hessian * y;
      p.Apply(g, &x);
      y -= x;
      if (learn) p.secant.Add(-x, p.hessian * y - g);
    }
    return count;
  };
  const int without = steps(false), with = steps(true);
  EXPECT_LT(with, 20);
  EXPECT_GT(without, 2 * with);
}

}  // namespace
}  // namespace bilevel
