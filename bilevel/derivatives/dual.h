#ifndef BILEVEL_DERIVATIVES_DUAL_H_
#define BILEVEL_DERIVATIVES_DUAL_H_

#include <cmath>
#include <limits>
#include <ostream>
#include <type_traits>

#include "Eigen/Core"
#include "ceres/internal/jet_traits.h"
#include "ceres/jet.h"

namespace bilevel {

/// A value and its derivatives along M directions. `ceres::Jet<Dual<M>, N>` is therefore a
/// second-order jet: `x.a.a` is the value, `x.v[i].a` = dx/dp_i (equally `x.a.d[j]` = dx/dq_j) and
/// `x.v[i].d[j]` = d^2x/dp_i dq_j.
///
/// The scalar of AutoDiffLearnableLoss: formulas of a few operations, for which a tape (tape.h)
/// would cost several times as much. Cost functions use the tape. As there, what compiles with
/// `ceres::Jet<double, N>` is meant to compile with it, and code that turns `x.a` into a double is
/// refused.
///
/// Default-initialised duals are uninitialised; value-initialised ones (`Dual<M>()`) are zero.
template <int M>
struct Dual {
  // Before the value: the layout that vectorises (by up to five times). A plain array, so that
  // Dual<M>() is zero while `Dual<M> x;` costs nothing.
  double d[M];
  double a;

  Dual() = default;

  template <typename S, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
  Dual(S value) : d{}, a(static_cast<double>(value)) {}  // NOLINT: implicit, as a literal.

  Eigen::Map<Eigen::Array<double, M, 1>> D() { return Eigen::Map<Eigen::Array<double, M, 1>>(d); }
  Eigen::Map<const Eigen::Array<double, M, 1>> D() const {
    return Eigen::Map<const Eigen::Array<double, M, 1>>(d);
  }

  Dual& operator+=(const Dual& y) { return *this = *this + y; }
  Dual& operator-=(const Dual& y) { return *this = *this - y; }
  Dual& operator*=(const Dual& y) { return *this = *this * y; }
  Dual& operator/=(const Dual& y) { return *this = *this / y; }

  /// f(x) from f and df/dx at x.a, and f(x, y) from f and its two partial derivatives.
  static Dual Chain(const Dual& x, double f, double fx) {
    Dual r;
    r.a = f;
    r.D() = fx * x.D();
    return r;
  }
  static Dual Chain(const Dual& x, const Dual& y, double f, double fx, double fy) {
    Dual r;
    r.a = f;
    r.D() = fx * x.D() + fy * y.D();
    return r;
  }

  bool IsConstant() const { return (D() == 0.0).all(); }

  // Friends rather than templates, so that arithmetic operands convert on either side.
  friend Dual operator+(const Dual& x) { return x; }
  friend Dual operator-(const Dual& x) {
    Dual r;
    r.a = -x.a;
    r.D() = -x.D();
    return r;
  }
  friend Dual operator+(const Dual& x, const Dual& y) {
    Dual r;
    r.a = x.a + y.a;
    r.D() = x.D() + y.D();
    return r;
  }
  friend Dual operator-(const Dual& x, const Dual& y) {
    Dual r;
    r.a = x.a - y.a;
    r.D() = x.D() - y.D();
    return r;
  }
  friend Dual operator*(const Dual& x, const Dual& y) { return Chain(x, y, x.a * y.a, y.a, x.a); }
  friend Dual operator/(const Dual& x, const Dual& y) {
    const double inverse = 1.0 / y.a;
    const double f = x.a * inverse;
    return Chain(x, y, f, inverse, -f * inverse);
  }
  friend Dual operator+(Dual x, double y) { return x.a += y, x; }
  friend Dual operator+(double x, Dual y) { return y.a += x, y; }
  friend Dual operator-(Dual x, double y) { return x.a -= y, x; }
  friend Dual operator-(double x, const Dual& y) { return -y + x; }
  friend Dual operator*(const Dual& x, double y) { return Chain(x, x.a * y, y); }
  friend Dual operator*(double x, const Dual& y) { return Chain(y, x * y.a, x); }
  friend Dual operator/(const Dual& x, double y) { return x * (1.0 / y); }

  friend bool operator<(const Dual& x, const Dual& y) { return x.a < y.a; }
  friend bool operator<=(const Dual& x, const Dual& y) { return x.a <= y.a; }
  friend bool operator>(const Dual& x, const Dual& y) { return x.a > y.a; }
  friend bool operator>=(const Dual& x, const Dual& y) { return x.a >= y.a; }
  friend bool operator==(const Dual& x, const Dual& y) { return x.a == y.a; }
  friend bool operator!=(const Dual& x, const Dual& y) { return x.a != y.a; }

  friend bool isfinite(const Dual& x) { return std::isfinite(x.a); }
  friend bool isinf(const Dual& x) { return std::isinf(x.a); }
  friend bool isnan(const Dual& x) { return std::isnan(x.a); }
  friend bool isnormal(const Dual& x) { return std::isnormal(x.a); }
  friend bool signbit(const Dual& x) { return std::signbit(x.a); }
  friend int fpclassify(const Dual& x) { return std::fpclassify(x.a); }
  friend bool isless(const Dual& x, const Dual& y) { return std::isless(x.a, y.a); }
  friend bool islessequal(const Dual& x, const Dual& y) { return std::islessequal(x.a, y.a); }
  friend bool isgreater(const Dual& x, const Dual& y) { return std::isgreater(x.a, y.a); }
  friend bool isgreaterequal(const Dual& x, const Dual& y) { return std::isgreaterequal(x.a, y.a); }
  friend bool islessgreater(const Dual& x, const Dual& y) { return std::islessgreater(x.a, y.a); }
  friend bool isunordered(const Dual& x, const Dual& y) { return std::isunordered(x.a, y.a); }

  friend Dual abs(const Dual& x) { return std::signbit(x.a) ? -x : x; }
  friend Dual copysign(const Dual& x, const Dual& y) {
    return std::signbit(x.a) == std::signbit(y.a) ? x : -x;
  }
  friend Dual floor(const Dual& x) { return Dual(std::floor(x.a)); }
  friend Dual ceil(const Dual& x) { return Dual(std::ceil(x.a)); }
  friend Dual norm(const Dual& x) { return x * x; }  // As std::norm: the square.
  friend Dual fma(const Dual& x, const Dual& y, const Dual& z) { return x * y + z; }
  friend Dual lerp(const Dual& x, const Dual& y, const Dual& t) { return x + t * (y - x); }
  friend Dual midpoint(const Dual& x, const Dual& y) { return 0.5 * x + 0.5 * y; }

  friend Dual sqrt(const Dual& x) {
    const double f = std::sqrt(x.a);
    return Chain(x, f, 0.5 / f);
  }
  friend Dual cbrt(const Dual& x) {
    const double f = std::cbrt(x.a);
    return Chain(x, f, 1.0 / (3.0 * f * f));
  }
  friend Dual exp(const Dual& x) {
    const double f = std::exp(x.a);
    return Chain(x, f, f);
  }
  friend Dual exp2(const Dual& x) {
    const double f = std::exp2(x.a);
    return Chain(x, f, f * kLn2);
  }
  friend Dual expm1(const Dual& x) {
    const double f = std::expm1(x.a);
    return Chain(x, f, f + 1.0);
  }
  friend Dual log(const Dual& x) { return Chain(x, std::log(x.a), 1.0 / x.a); }
  friend Dual log2(const Dual& x) { return Chain(x, std::log2(x.a), 1.0 / (x.a * kLn2)); }
  friend Dual log10(const Dual& x) { return Chain(x, std::log10(x.a), 1.0 / (x.a * kLn10)); }
  friend Dual log1p(const Dual& x) { return Chain(x, std::log1p(x.a), 1.0 / (1.0 + x.a)); }
  friend Dual sin(const Dual& x) { return Chain(x, std::sin(x.a), std::cos(x.a)); }
  friend Dual cos(const Dual& x) { return Chain(x, std::cos(x.a), -std::sin(x.a)); }
  friend Dual tan(const Dual& x) {
    const double f = std::tan(x.a);
    return Chain(x, f, 1.0 + f * f);
  }
  friend Dual asin(const Dual& x) {
    return Chain(x, std::asin(x.a), 1.0 / std::sqrt(1.0 - x.a * x.a));
  }
  friend Dual acos(const Dual& x) {
    return Chain(x, std::acos(x.a), -1.0 / std::sqrt(1.0 - x.a * x.a));
  }
  friend Dual atan(const Dual& x) { return Chain(x, std::atan(x.a), 1.0 / (1.0 + x.a * x.a)); }
  friend Dual sinh(const Dual& x) { return Chain(x, std::sinh(x.a), std::cosh(x.a)); }
  friend Dual cosh(const Dual& x) { return Chain(x, std::cosh(x.a), std::sinh(x.a)); }
  friend Dual tanh(const Dual& x) {
    const double f = std::tanh(x.a);
    return Chain(x, f, 1.0 - f * f);
  }
  friend Dual erf(const Dual& x) {
    return Chain(x, std::erf(x.a), kTwoOverSqrtPi * std::exp(-x.a * x.a));
  }
  friend Dual erfc(const Dual& x) {
    return Chain(x, std::erfc(x.a), -kTwoOverSqrtPi * std::exp(-x.a * x.a));
  }
  friend Dual atan2(const Dual& y, const Dual& x) {
    const double inverse = 1.0 / (x.a * x.a + y.a * y.a);
    return Chain(y, x, std::atan2(y.a, x.a), x.a * inverse, -y.a * inverse);
  }
  friend Dual hypot(const Dual& x, const Dual& y) {
    const double f = std::hypot(x.a, y.a);
    return Chain(x, y, f, x.a / f, y.a / f);
  }
  friend Dual hypot(const Dual& x, const Dual& y, const Dual& z) {
    const double f = std::hypot(x.a, y.a, z.a);
    return Chain(x, y, f, x.a / f, y.a / f) + Chain(z, 0.0, z.a / f);
  }

  friend Dual pow(const Dual& x, double p) {
    // x^0 and x^1 have derivatives at zero although the general formula has 0 * inf there.
    return Chain(x, std::pow(x.a, p), p == 0.0 ? 0.0 : p * std::pow(x.a, p - 1.0));
  }
  friend Dual pow(const Dual& x, const Dual& p) {
    if (p.IsConstant()) return pow(x, p.a);
    const double f = std::pow(x.a, p.a);
    // f log(x) -> 0 for x -> 0 and p > 0.
    const double f_log_x = x.a == 0.0 && p.a > 0.0 ? 0.0 : f * std::log(x.a);
    return Chain(x, p, f, p.a * std::pow(x.a, p.a - 1.0), f_log_x);
  }

  // Bessel functions of the first kind: J_n' = (J_{n-1} - J_{n+1}) / 2, J_{-n} = (-1)^n J_n.
  friend Dual BesselJn(int n, const Dual& x) {
    using ceres::BesselJn;
    return Chain(x, BesselJn(n, x.a), 0.5 * (BesselJn(n - 1, x.a) - BesselJn(n + 1, x.a)));
  }
  friend Dual BesselJ0(const Dual& x) { return BesselJn(0, x); }
  friend Dual BesselJ1(const Dual& x) { return BesselJn(1, x); }
#if defined(__cpp_lib_math_special_functions)
  friend Dual cyl_bessel_j(double n, const Dual& x) {
    // J_n' = n / x J_n - J_{n+1}, without the orders below zero that the standard leaves out.
    const double f = std::cyl_bessel_j(n, x.a);
    const double first = x.a == 0.0 ? (n == 1.0 ? 0.5 : 0.0) : n / x.a * f;
    return Chain(x, f, first - std::cyl_bessel_j(n + 1.0, x.a));
  }
#endif

  friend std::ostream& operator<<(std::ostream& stream, const Dual& x) {
    stream << x.a << " (";
    for (int k = 0; k < M; ++k) stream << (k > 0 ? ", " : "") << x.d[k];
    return stream << ")";
  }

 private:
  static constexpr double kLn2 = 0.693147180559945309417;
  static constexpr double kLn10 = 2.30258509299404568402;
  static constexpr double kTwoOverSqrtPi = 1.12837916709551257390;
};

}  // namespace bilevel

namespace std {

template <int M>
struct numeric_limits<bilevel::Dual<M>> : numeric_limits<double> {};

}  // namespace std

namespace Eigen {

template <int M>
struct NumTraits<bilevel::Dual<M>> : NumTraits<double> {
  using Real = bilevel::Dual<M>;
  using NonInteger = Real;
  using Nested = Real;
  using Literal = Real;
  enum { RequireInitialization = 0, ReadCost = 1 + M, AddCost = 1 + M, MulCost = 1 + 3 * M };
};

template <typename BinaryOp, int M>
struct ScalarBinaryOpTraits<bilevel::Dual<M>, double, BinaryOp> {
  using ReturnType = bilevel::Dual<M>;
};
template <typename BinaryOp, int M>
struct ScalarBinaryOpTraits<double, bilevel::Dual<M>, BinaryOp> {
  using ReturnType = bilevel::Dual<M>;
};
template <typename BinaryOp, int M, int N>
struct ScalarBinaryOpTraits<ceres::Jet<bilevel::Dual<M>, N>, double, BinaryOp> {
  using ReturnType = ceres::Jet<bilevel::Dual<M>, N>;
};
template <typename BinaryOp, int M, int N>
struct ScalarBinaryOpTraits<double, ceres::Jet<bilevel::Dual<M>, N>, BinaryOp> {
  using ReturnType = ceres::Jet<bilevel::Dual<M>, N>;
};

}  // namespace Eigen

// Overloads stand in namespace ceres so that both `pow(x, y)` and `ceres::pow(x, y)` find them.
namespace ceres {
namespace internal {

// A dual is a scalar to a jet, and goes together with double: fmax(x, 0.0), x < 1.
template <int M>
struct Rank<bilevel::Dual<M>, void> : std::integral_constant<int, 0> {};
template <int M>
struct UnderlyingScalar<bilevel::Dual<M>, void> {
  using type = double;
};

}  // namespace internal

template <typename S, int M, int N, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
inline Jet<bilevel::Dual<M>, N> operator+(Jet<bilevel::Dual<M>, N> x, S s) {
  x.a.a += s;
  return x;
}
template <typename S, int M, int N, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
inline Jet<bilevel::Dual<M>, N> operator+(S s, Jet<bilevel::Dual<M>, N> x) {
  x.a.a += s;
  return x;
}
template <typename S, int M, int N, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
inline Jet<bilevel::Dual<M>, N> operator-(Jet<bilevel::Dual<M>, N> x, S s) {
  x.a.a -= s;
  return x;
}
template <typename S, int M, int N, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
inline Jet<bilevel::Dual<M>, N> operator-(S s, const Jet<bilevel::Dual<M>, N>& x) {
  return {static_cast<double>(s) - x.a, -x.v};
}
template <typename S, int M, int N, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
inline Jet<bilevel::Dual<M>, N> operator*(const Jet<bilevel::Dual<M>, N>& x, S s) {
  return {x.a * static_cast<double>(s), x.v * static_cast<double>(s)};
}
template <typename S, int M, int N, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
inline Jet<bilevel::Dual<M>, N> operator*(S s, const Jet<bilevel::Dual<M>, N>& x) {
  return x * s;
}
template <typename S, int M, int N, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
inline Jet<bilevel::Dual<M>, N> operator/(const Jet<bilevel::Dual<M>, N>& x, S s) {
  return x * (1.0 / static_cast<double>(s));
}
template <typename S, int M, int N, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
inline Jet<bilevel::Dual<M>, N> operator/(S s, const Jet<bilevel::Dual<M>, N>& x) {
  return bilevel::Dual<M>(s) / x;
}

// For jets of jets Ceres' pow gives NaN or zero second derivatives at x = 0.
template <int M, int N>
inline Jet<bilevel::Dual<M>, N> pow(const Jet<bilevel::Dual<M>, N>& x, double p) {
  using Dual = bilevel::Dual<M>;
  const Dual derivative = p == 0.0 ? Dual(0.0) : p * pow(x.a, p - 1.0);
  return {pow(x.a, p), derivative * x.v};
}

template <int M, int N>
inline Jet<bilevel::Dual<M>, N> pow(const Jet<bilevel::Dual<M>, N>& x,
                                    const Jet<bilevel::Dual<M>, N>& p) {
  using Dual = bilevel::Dual<M>;
  bool is_constant = p.a.IsConstant();
  for (int i = 0; is_constant && i < N; ++i) {
    is_constant = p.v[i].a == 0.0 && p.v[i].IsConstant();
  }
  if (is_constant) return pow(x, p.a.a);
  // At zero all derivatives up to the second vanish for p > 2; below they are infinite, or NaN.
  if (x.a.a == 0.0 && p.a.a > 2.0) return Jet<Dual, N>(Dual(0.0));
  const Dual f = pow(x.a, p.a);
  return {f, (p.a * pow(x.a, p.a - 1.0)) * x.v + (f * log(x.a)) * p.v};
}

template <typename S, int M, int N, std::enable_if_t<std::is_arithmetic<S>::value>* = nullptr>
inline Jet<bilevel::Dual<M>, N> pow(S x, const Jet<bilevel::Dual<M>, N>& p) {
  if (x == S(0) && p.a.a > 0.0) return Jet<bilevel::Dual<M>, N>(bilevel::Dual<M>(0.0));
  return pow(Jet<bilevel::Dual<M>, N>(bilevel::Dual<M>(x)), p);
}

}  // namespace ceres

#endif  // BILEVEL_DERIVATIVES_DUAL_H_
