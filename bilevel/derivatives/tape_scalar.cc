// The elementary functions of TapeScalar, with their first and second derivatives.
#include <cmath>

#include "bilevel/derivatives/tape.h"
#include "ceres/jet.h"

namespace bilevel {
namespace {

constexpr double kLn2 = 0.693147180559945309417;
constexpr double kLn10 = 2.30258509299404568402;
constexpr double kTwoOverSqrtPi = 1.12837916709551257390;

}  // namespace

TapeScalar sqrt(const TapeScalar& x) {
  const double f = std::sqrt(x.value);
  const double fx = 0.5 / f;
  return TapeScalar::Chain(x, f, fx, -0.5 * fx / x.value);
}
TapeScalar cbrt(const TapeScalar& x) {
  const double f = std::cbrt(x.value);
  const double fx = 1.0 / (3.0 * f * f);
  return TapeScalar::Chain(x, f, fx, -2.0 / 3.0 * fx / x.value);
}
TapeScalar exp(const TapeScalar& x) {
  const double f = std::exp(x.value);
  return TapeScalar::Chain(x, f, f, f);
}
TapeScalar exp2(const TapeScalar& x) {
  const double f = std::exp2(x.value);
  return TapeScalar::Chain(x, f, f * kLn2, f * kLn2 * kLn2);
}
TapeScalar expm1(const TapeScalar& x) {
  const double f = std::expm1(x.value);
  return TapeScalar::Chain(x, f, f + 1.0, f + 1.0);
}
TapeScalar log(const TapeScalar& x) {
  const double inverse = 1.0 / x.value;
  return TapeScalar::Chain(x, std::log(x.value), inverse, -inverse * inverse);
}
TapeScalar log2(const TapeScalar& x) {
  const double fx = 1.0 / (x.value * kLn2);
  return TapeScalar::Chain(x, std::log2(x.value), fx, -fx / x.value);
}
TapeScalar log10(const TapeScalar& x) {
  const double fx = 1.0 / (x.value * kLn10);
  return TapeScalar::Chain(x, std::log10(x.value), fx, -fx / x.value);
}
TapeScalar log1p(const TapeScalar& x) {
  const double fx = 1.0 / (1.0 + x.value);
  return TapeScalar::Chain(x, std::log1p(x.value), fx, -fx * fx);
}
TapeScalar sin(const TapeScalar& x) {
  const double f = std::sin(x.value);
  return TapeScalar::Chain(x, f, std::cos(x.value), -f);
}
TapeScalar cos(const TapeScalar& x) {
  const double f = std::cos(x.value);
  return TapeScalar::Chain(x, f, -std::sin(x.value), -f);
}
TapeScalar tan(const TapeScalar& x) {
  const double f = std::tan(x.value);
  const double fx = 1.0 + f * f;
  return TapeScalar::Chain(x, f, fx, 2.0 * f * fx);
}
TapeScalar asin(const TapeScalar& x) {
  const double fx = 1.0 / std::sqrt(1.0 - x.value * x.value);
  return TapeScalar::Chain(x, std::asin(x.value), fx, x.value * fx * fx * fx);
}
TapeScalar acos(const TapeScalar& x) {
  const double fx = -1.0 / std::sqrt(1.0 - x.value * x.value);
  return TapeScalar::Chain(x, std::acos(x.value), fx, x.value * fx * fx * fx);
}
TapeScalar atan(const TapeScalar& x) {
  const double fx = 1.0 / (1.0 + x.value * x.value);
  return TapeScalar::Chain(x, std::atan(x.value), fx, -2.0 * x.value * fx * fx);
}
TapeScalar sinh(const TapeScalar& x) {
  const double f = std::sinh(x.value);
  return TapeScalar::Chain(x, f, std::cosh(x.value), f);
}
TapeScalar cosh(const TapeScalar& x) {
  const double f = std::cosh(x.value);
  return TapeScalar::Chain(x, f, std::sinh(x.value), f);
}
TapeScalar tanh(const TapeScalar& x) {
  const double f = std::tanh(x.value);
  const double fx = 1.0 - f * f;
  return TapeScalar::Chain(x, f, fx, -2.0 * f * fx);
}
TapeScalar erf(const TapeScalar& x) {
  const double fx = kTwoOverSqrtPi * std::exp(-x.value * x.value);
  return TapeScalar::Chain(x, std::erf(x.value), fx, -2.0 * x.value * fx);
}
TapeScalar erfc(const TapeScalar& x) {
  const double fx = -kTwoOverSqrtPi * std::exp(-x.value * x.value);
  return TapeScalar::Chain(x, std::erfc(x.value), fx, -2.0 * x.value * fx);
}

// Bessel functions of the first kind: J_n' = (J_{n-1} - J_{n+1}) / 2, J_{-n} = (-1)^n J_n.
TapeScalar BesselJn(int n, const TapeScalar& x) {
  const auto J = [&x](int order) { return ceres::BesselJn(order, x.value); };
  return TapeScalar::Chain(
      x, J(n), 0.5 * (J(n - 1) - J(n + 1)), 0.25 * (J(n - 2) - 2.0 * J(n) + J(n + 2)));
}
TapeScalar BesselJ0(const TapeScalar& x) { return BesselJn(0, x); }
TapeScalar BesselJ1(const TapeScalar& x) { return BesselJn(1, x); }

#if defined(__cpp_lib_math_special_functions)
TapeScalar cyl_bessel_j(double n, const TapeScalar& x) {
  // J_n' = n / x J_n - J_{n+1}, without the orders below zero that the standard leaves out, and
  // x^2 J_n'' + x J_n' + (x^2 - n^2) J_n = 0.
  const double f = std::cyl_bessel_j(n, x.value);
  if (x.value == 0.0) {
    return TapeScalar::Chain(x, f, n == 1.0 ? 0.5 : 0.0, n == 0.0 ? -0.5 : (n == 2.0 ? 0.25 : 0.0));
  }
  const double ratio = n / x.value;
  const double fx = ratio * f - std::cyl_bessel_j(n + 1.0, x.value);
  return TapeScalar::Chain(x, f, fx, (ratio * ratio - 1.0) * f - fx / x.value);
}
#endif

TapeScalar atan2(const TapeScalar& y, const TapeScalar& x) {
  const double q = 1.0 / (x.value * x.value + y.value * y.value);
  const double fy = x.value * q;
  const double fx = -y.value * q;
  const double fxx = -2.0 * fx * fy;
  return TapeScalar::Chain(
      y, x, std::atan2(y.value, x.value), fy, fx, -fxx, fx * fx - fy * fy, fxx);
}
TapeScalar hypot(const TapeScalar& x, const TapeScalar& y) {
  const double f = std::hypot(x.value, y.value);
  const double fx = x.value / f;
  const double fy = y.value / f;
  return TapeScalar::Chain(x, y, f, fx, fy, fy * fy / f, -fx * fy / f, fx * fx / f);
}
TapeScalar hypot(const TapeScalar& x, const TapeScalar& y, const TapeScalar& z) {
  const double f = std::hypot(x.value, y.value, z.value);
  if (!(f > 0.0) || std::isinf(f)) return sqrt(x * x + y * y + z * z);
  return f * sqrt(norm(x / f) + norm(y / f) + norm(z / f));
}

TapeScalar pow(const TapeScalar& x, double p) {
  // x^0 and x^1 have derivatives at zero although the general formulas have 0 * inf there.
  const double first = p == 0.0 ? 0.0 : p * std::pow(x.value, p - 1.0);
  const double second = p == 0.0 || p == 1.0 ? 0.0 : p * (p - 1.0) * std::pow(x.value, p - 2.0);
  return TapeScalar::Chain(x, std::pow(x.value, p), first, second);
}
TapeScalar pow(const TapeScalar& x, const TapeScalar& p) {
  if (p.node < 0) return pow(x, p.value);
  // At zero all derivatives up to the second vanish for p > 2, and those by p for p > 0; the others
  // are infinite, or NaN.
  if (x.value == 0.0 && (p.value > 2.0 || (x.node < 0 && p.value > 0.0))) return 0.0;
  const double f = std::pow(x.value, p.value);
  const double log_x = std::log(x.value);
  const double f_over_x = std::pow(x.value, p.value - 1.0);
  return TapeScalar::Chain(x,
                           p,
                           f,
                           p.value * f_over_x,
                           f * log_x,
                           p.value * (p.value - 1.0) * std::pow(x.value, p.value - 2.0),
                           f_over_x * (1.0 + p.value * log_x),
                           f * log_x * log_x);
}

}  // namespace bilevel
