#include "bilevel/derivatives/dual.h"

#include <cmath>
#include <type_traits>

#include "gtest/gtest.h"

namespace bilevel {
namespace {

using Jet = ceres::Jet<Dual<1>, 1>;

Jet Variable(double value) {
  Jet x(Dual<1>(value), 0);
  x.a.d[0] = 1.0;
  return x;
}

void ExpectDerivatives(const Jet& f, double value, double first, double second) {
  EXPECT_DOUBLE_EQ(f.a.a, value);
  EXPECT_DOUBLE_EQ(f.v[0].a, first);
  EXPECT_DOUBLE_EQ(f.a.d[0], first);
  EXPECT_DOUBLE_EQ(f.v[0].d[0], second);
}

TEST(Pow, AtZero) {
  const Jet x = Variable(0.0);
  for (const double p : {0.0, 1.0, 2.0, 3.0, 2.5}) {
    const double first = p == 1.0 ? 1.0 : 0.0;
    const double second = p == 2.0 ? 2.0 : 0.0;
    const double value = p == 0.0 ? 1.0 : 0.0;
    ExpectDerivatives(pow(x, p), value, first, second);
    ExpectDerivatives(pow(x, Jet(p)), value, first, second);
    ExpectDerivatives(ceres::pow(x, p), value, first, second);
  }
  ExpectDerivatives(pow(x, 2), 0.0, 0.0, 2.0);
  EXPECT_FALSE(std::isfinite(pow(x, 1.5).v[0].d[0]));  // x^(-1/2).
  ExpectDerivatives(pow(x, x + 3.0), 0.0, 0.0, 0.0);
  ExpectDerivatives(pow(0.0, x + 3.0), 0.0, 0.0, 0.0);
  ExpectDerivatives(pow(Variable(-2.0), 3), -8.0, 12.0, -12.0);
}

TEST(Pow, VariableExponent) {  // x^x: f' = f (1 + log x), f'' = f ((1 + log x)^2 + 1 / x).
  const double a = 1.7;
  const double f = std::pow(a, a);
  const double g = 1.0 + std::log(a);
  const Jet r = pow(Variable(a), Variable(a));
  EXPECT_NEAR(r.v[0].a, f * g, 1e-14);
  EXPECT_NEAR(r.v[0].d[0], f * (g * g + 1.0 / a), 1e-13);
  ExpectDerivatives(
      pow(2, Variable(3.0)), 8.0, 8.0 * std::log(2.0), 8.0 * std::pow(std::log(2.0), 2));
}

TEST(Dual, AbsAndCopysignAtNegativeArguments) {
  ExpectDerivatives(abs(Variable(-2.0) * Variable(2.0)), 4.0, -0.0, -2.0);
  ExpectDerivatives(copysign(Variable(3.0) * Variable(3.0), Jet(-1.0)), -9.0, -6.0, -2.0);
}

TEST(Dual, BesselEquation) {  // x^2 f'' + x f' + (x^2 - n^2) f = 0.
  for (const int n : {0, 1, 2, 5}) {
    const double x = 2.3;
    const Jet f = n == 0   ? ceres::BesselJ0(Variable(x))
                  : n == 1 ? ceres::BesselJ1(Variable(x))
                           : ceres::BesselJn(n, Variable(x));
    EXPECT_NEAR(x * x * f.v[0].d[0] + x * f.v[0].a + (x * x - n * n) * f.a.a, 0.0, 1e-14);
  }
}

// Code that takes a double out of a jet, and so would lose second derivatives, does not compile.
static_assert(!std::is_convertible<Dual<2>, double>::value, "");
static_assert(!std::is_constructible<double, Dual<2>>::value, "");
static_assert(!std::is_constructible<ceres::Jet<double, 2>, ceres::Jet<Dual<2>, 2>>::value, "");
static_assert(std::is_convertible<int, Dual<2>>::value, "");

}  // namespace
}  // namespace bilevel
