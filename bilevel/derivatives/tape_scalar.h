#ifndef BILEVEL_DERIVATIVES_TAPE_SCALAR_H_
#define BILEVEL_DERIVATIVES_TAPE_SCALAR_H_

#include <cmath>
#include <limits>
#include <ostream>
#include <type_traits>

#include "Eigen/Core"
#include "ceres/internal/jet_traits.h"
#include "ceres/jet.h"

namespace bilevel {

/// A number that writes the operations on it on a tape of its thread, for second derivatives in
/// reverse mode. Functors are called with `TapeJet`, the jet of dimension zero over it: to them a
/// jet like any other.
///
/// Every functor that compiles with `ceres::Jet<double, N>` is meant to compile with TapeJet:
/// literals (`2.0 * x`, `T(1)`, `x > 0`), `ceres::sqrt(x)` or `using std::sqrt; sqrt(x)`, Eigen
/// matrices, quaternions and decompositions. What it refuses, on purpose, is code that turns `x.a`
/// into a double and puts a jet together again from hand-made first derivatives
/// (ceres::CubicInterpolator, ceres::CostFunctionToFunctor): there the second derivatives would
/// silently be zero. Use cubic_interpolation.h; or ceres::AutoDiffCostFunction, whose second
/// derivatives are differenced; or write a SecondOrderCostFunction.
/// A functor must do its work in the calling thread, and keep no jet beyond the call.
struct TapeScalar {
  // The value is `factor` times that of the tape's node, up to a constant: operations with
  // constants need no node. A constant itself has a negative node.
  double value = 0.0;
  double factor = 0.0;
  int node = -1;

  TapeScalar() = default;
  template <typename S>
  using IfNumber = std::enable_if_t<std::is_arithmetic<S>::value>*;
  template <typename S, IfNumber<S> = nullptr>
  TapeScalar(S s) : value(static_cast<double>(s)) {}  // NOLINT: implicit, as a literal.

  // Compilers show this line where a functor takes `x.a` for a number.
  // clang-format off
  operator double() const = delete;  // Not a double: stay with T (or cubic_interpolation.h), or use ceres::AutoDiffCostFunction, or write a SecondOrderCostFunction.
  // clang-format on

  TapeScalar& operator+=(const TapeScalar& y) { return *this = *this + y; }
  TapeScalar& operator-=(const TapeScalar& y) { return *this = *this - y; }
  TapeScalar& operator*=(const TapeScalar& y) { return *this = *this * y; }
  TapeScalar& operator/=(const TapeScalar& y) { return *this = *this / y; }

  /// f(x) and f(x, y) from the value and all first and second derivatives. Defined by tape.h, which
  /// is to be included.
  static TapeScalar Chain(const TapeScalar& x, double f, double fx, double fxx);
  static TapeScalar Chain(const TapeScalar& x,
                          const TapeScalar& y,
                          double f,
                          double fx,
                          double fy,
                          double fxx,
                          double fxy,
                          double fyy);

  // Hidden friends: elsewhere in this namespace, sin(double) must stay what it is. Those with
  // numbers are templates, or the conversion to double would be as good a match.
  template <typename S, IfNumber<S> = nullptr>
  friend TapeScalar operator+(TapeScalar x, S y) {
    return x.value += y, x;
  }
  template <typename S, IfNumber<S> = nullptr>
  friend TapeScalar operator+(S x, TapeScalar y) {
    return y.value += x, y;
  }
  template <typename S, IfNumber<S> = nullptr>
  friend TapeScalar operator-(TapeScalar x, S y) {
    return x.value -= y, x;
  }
  template <typename S, IfNumber<S> = nullptr>
  friend TapeScalar operator*(TapeScalar x, S y) {
    x.value *= y;
    x.factor *= y;
    return x;
  }
  template <typename S, IfNumber<S> = nullptr>
  friend TapeScalar operator*(S x, const TapeScalar& y) {
    return y * x;
  }
  template <typename S, IfNumber<S> = nullptr>
  friend TapeScalar operator/(const TapeScalar& x, S y) {
    return x * (1.0 / y);
  }
  friend TapeScalar operator+(const TapeScalar& x) { return x; }
  friend TapeScalar operator-(const TapeScalar& x) { return x * -1.0; }
  template <typename S, IfNumber<S> = nullptr>
  friend TapeScalar operator-(S x, const TapeScalar& y) {
    return -y + x;
  }

  friend TapeScalar operator+(const TapeScalar& x, const TapeScalar& y) { return Sum(x, y); }
  friend TapeScalar operator-(const TapeScalar& x, const TapeScalar& y) { return x + -y; }
  friend TapeScalar operator*(const TapeScalar& x, const TapeScalar& y) { return Product(x, y); }
  friend TapeScalar operator/(const TapeScalar& x, const TapeScalar& y) {
    if (y.node < 0) return x / y.value;
    const double inverse = 1.0 / y.value;
    const double f = x.value * inverse;
    const double fxy = -inverse * inverse;
    return TapeScalar::Chain(x, y, f, inverse, -f * inverse, 0.0, fxy, -2.0 * f * fxy);
  }
  template <typename S, IfNumber<S> = nullptr>
  friend TapeScalar operator/(S x, const TapeScalar& y) {
    return TapeScalar(x) / y;
  }

#define BILEVEL_TAPE_PREDICATE(name, predicate)                                    \
  friend bool name(const TapeScalar& x, const TapeScalar& y) { return predicate; } \
  template <typename S, IfNumber<S> = nullptr>                                     \
  friend bool name(const TapeScalar& x, S y) {                                     \
    return predicate;                                                              \
  }                                                                                \
  template <typename S, IfNumber<S> = nullptr>                                     \
  friend bool name(S x, const TapeScalar& y) {                                     \
    return predicate;                                                              \
  }
  BILEVEL_TAPE_PREDICATE(operator<, Value(x) < Value(y))
  BILEVEL_TAPE_PREDICATE(operator<=, Value(x) <= Value(y))
  BILEVEL_TAPE_PREDICATE(operator>, Value(x) > Value(y))
  BILEVEL_TAPE_PREDICATE(operator>=, Value(x) >= Value(y))
  BILEVEL_TAPE_PREDICATE(operator==, Value(x) == Value(y))
  BILEVEL_TAPE_PREDICATE(operator!=, Value(x) != Value(y))
  BILEVEL_TAPE_PREDICATE(isless, std::isless(Value(x), Value(y)))
  BILEVEL_TAPE_PREDICATE(islessequal, std::islessequal(Value(x), Value(y)))
  BILEVEL_TAPE_PREDICATE(isgreater, std::isgreater(Value(x), Value(y)))
  BILEVEL_TAPE_PREDICATE(isgreaterequal, std::isgreaterequal(Value(x), Value(y)))
  BILEVEL_TAPE_PREDICATE(islessgreater, std::islessgreater(Value(x), Value(y)))
  BILEVEL_TAPE_PREDICATE(isunordered, std::isunordered(Value(x), Value(y)))
#undef BILEVEL_TAPE_PREDICATE

  friend bool isfinite(const TapeScalar& x) { return std::isfinite(x.value); }
  friend bool isinf(const TapeScalar& x) { return std::isinf(x.value); }
  friend bool isnan(const TapeScalar& x) { return std::isnan(x.value); }
  friend bool isnormal(const TapeScalar& x) { return std::isnormal(x.value); }
  friend bool signbit(const TapeScalar& x) { return std::signbit(x.value); }
  friend int fpclassify(const TapeScalar& x) { return std::fpclassify(x.value); }
  friend TapeScalar abs(const TapeScalar& x) { return std::signbit(x.value) ? -x : x; }
  friend TapeScalar copysign(const TapeScalar& x, const TapeScalar& y) {
    return std::signbit(x.value) == std::signbit(y.value) ? x : -x;
  }
  friend TapeScalar floor(const TapeScalar& x) { return std::floor(x.value); }
  friend TapeScalar ceil(const TapeScalar& x) { return std::ceil(x.value); }
  friend TapeScalar norm(const TapeScalar& x) { return x * x; }  // As std::norm: the square.
  friend TapeScalar fma(const TapeScalar& x, const TapeScalar& y, const TapeScalar& z) {
    return x * y + z;
  }
  friend TapeScalar lerp(const TapeScalar& x, const TapeScalar& y, const TapeScalar& t) {
    return x + t * (y - x);
  }
  friend TapeScalar midpoint(const TapeScalar& x, const TapeScalar& y) { return 0.5 * x + 0.5 * y; }

  // Out of line: their cost is in the library function, and it keeps functors small.
  friend TapeScalar sqrt(const TapeScalar& x);
  friend TapeScalar cbrt(const TapeScalar& x);
  friend TapeScalar exp(const TapeScalar& x);
  friend TapeScalar exp2(const TapeScalar& x);
  friend TapeScalar expm1(const TapeScalar& x);
  friend TapeScalar log(const TapeScalar& x);
  friend TapeScalar log2(const TapeScalar& x);
  friend TapeScalar log10(const TapeScalar& x);
  friend TapeScalar log1p(const TapeScalar& x);
  friend TapeScalar sin(const TapeScalar& x);
  friend TapeScalar cos(const TapeScalar& x);
  friend TapeScalar tan(const TapeScalar& x);
  friend TapeScalar asin(const TapeScalar& x);
  friend TapeScalar acos(const TapeScalar& x);
  friend TapeScalar atan(const TapeScalar& x);
  friend TapeScalar sinh(const TapeScalar& x);
  friend TapeScalar cosh(const TapeScalar& x);
  friend TapeScalar tanh(const TapeScalar& x);
  friend TapeScalar erf(const TapeScalar& x);
  friend TapeScalar erfc(const TapeScalar& x);
  friend TapeScalar BesselJ0(const TapeScalar& x);
  friend TapeScalar BesselJ1(const TapeScalar& x);
  friend TapeScalar BesselJn(int n, const TapeScalar& x);
#if defined(__cpp_lib_math_special_functions)
  friend TapeScalar cyl_bessel_j(double n, const TapeScalar& x);
#endif
  friend TapeScalar atan2(const TapeScalar& y, const TapeScalar& x);
  friend TapeScalar hypot(const TapeScalar& x, const TapeScalar& y);
  friend TapeScalar hypot(const TapeScalar& x, const TapeScalar& y, const TapeScalar& z);
  friend TapeScalar pow(const TapeScalar& x, double p);
  friend TapeScalar pow(const TapeScalar& x, const TapeScalar& p);

  friend std::ostream& operator<<(std::ostream& stream, const TapeScalar& x) {
    return stream << x.value;
  }

 private:
  static double Value(const TapeScalar& x) { return x.value; }
  static double Value(double x) { return x; }
  static TapeScalar Sum(const TapeScalar& x, const TapeScalar& y);
  static TapeScalar Product(const TapeScalar& x, const TapeScalar& y);
};

using TapeJet = ceres::Jet<TapeScalar, 0>;

}  // namespace bilevel

namespace std {

template <>
struct numeric_limits<bilevel::TapeScalar> : numeric_limits<double> {};
// Not what ?: says, which takes both ways of conversion for equally good.
template <typename S>
struct common_type<bilevel::TapeScalar, S>
    : enable_if<is_arithmetic<S>::value, bilevel::TapeScalar> {};
template <typename S>
struct common_type<S, bilevel::TapeScalar> : common_type<bilevel::TapeScalar, S> {};
template <>
struct common_type<bilevel::TapeScalar, bilevel::TapeScalar> {
  using type = bilevel::TapeScalar;
};

}  // namespace std

namespace Eigen {

template <>
struct NumTraits<bilevel::TapeScalar> : NumTraits<double> {
  using Real = bilevel::TapeScalar;
  using NonInteger = Real;
  using Nested = Real;
  using Literal = Real;
  enum { RequireInitialization = 1, ReadCost = 2, AddCost = 8, MulCost = 8 };
};
template <typename BinaryOp>
struct ScalarBinaryOpTraits<bilevel::TapeJet, double, BinaryOp> {
  using ReturnType = bilevel::TapeJet;
};
template <typename BinaryOp>
struct ScalarBinaryOpTraits<double, bilevel::TapeJet, BinaryOp> {
  using ReturnType = bilevel::TapeJet;
};

}  // namespace Eigen

namespace ceres {
namespace internal {

// A tape's scalar is a scalar to a jet, and goes together with double: fmax(x, 0.0), x < 1.
template <>
struct Rank<bilevel::TapeScalar, void> : std::integral_constant<int, 0> {};
template <>
struct UnderlyingScalar<bilevel::TapeScalar, void> {
  using type = double;
};

// What goes together with a jet over the tape: by their ranks alone, Eigen's expressions would too,
// and their comparisons be taken for the jet's.
template <typename T>
struct IsTapeOperand : std::integral_constant<bool,
                                              std::is_arithmetic<T>::value ||
                                                  std::is_same<T, bilevel::TapeScalar>::value ||
                                                  std::is_same<T, bilevel::TapeJet>::value> {};

}  // namespace internal

template <typename T>
struct PromotableJetOperands<T, bilevel::TapeJet> : internal::IsTapeOperand<T> {};
template <typename T>
struct PromotableJetOperands<bilevel::TapeJet, T> : internal::IsTapeOperand<T> {};
template <>
struct PromotableJetOperands<bilevel::TapeJet, bilevel::TapeJet> : std::true_type {};

// Ceres' own functions of jets work too, and serve those declared before this header. But they also
// record the derivatives that a jet without derivatives has no use for.
#define BILEVEL_TAPE_JET_OPERATOR(op)                                                         \
  inline bilevel::TapeJet operator op(const bilevel::TapeJet& x, const bilevel::TapeJet& y) { \
    return bilevel::TapeJet(x.a op y.a);                                                      \
  }                                                                                           \
  inline bilevel::TapeJet operator op(const bilevel::TapeJet& x, double y) {                  \
    return bilevel::TapeJet(x.a op y);                                                        \
  }                                                                                           \
  inline bilevel::TapeJet operator op(double x, const bilevel::TapeJet& y) {                  \
    return bilevel::TapeJet(x op y.a);                                                        \
  }
BILEVEL_TAPE_JET_OPERATOR(+)
BILEVEL_TAPE_JET_OPERATOR(-)
BILEVEL_TAPE_JET_OPERATOR(*)
BILEVEL_TAPE_JET_OPERATOR(/)
#undef BILEVEL_TAPE_JET_OPERATOR

#define BILEVEL_TAPE_JET_FUNCTION(f) \
  inline bilevel::TapeJet f(const bilevel::TapeJet& x) { return bilevel::TapeJet(f(x.a)); }
BILEVEL_TAPE_JET_FUNCTION(operator-)
BILEVEL_TAPE_JET_FUNCTION(abs)
BILEVEL_TAPE_JET_FUNCTION(norm)
BILEVEL_TAPE_JET_FUNCTION(sqrt)
BILEVEL_TAPE_JET_FUNCTION(cbrt)
BILEVEL_TAPE_JET_FUNCTION(exp)
BILEVEL_TAPE_JET_FUNCTION(exp2)
BILEVEL_TAPE_JET_FUNCTION(expm1)
BILEVEL_TAPE_JET_FUNCTION(log)
BILEVEL_TAPE_JET_FUNCTION(log2)
BILEVEL_TAPE_JET_FUNCTION(log10)
BILEVEL_TAPE_JET_FUNCTION(log1p)
BILEVEL_TAPE_JET_FUNCTION(sin)
BILEVEL_TAPE_JET_FUNCTION(cos)
BILEVEL_TAPE_JET_FUNCTION(tan)
BILEVEL_TAPE_JET_FUNCTION(asin)
BILEVEL_TAPE_JET_FUNCTION(acos)
BILEVEL_TAPE_JET_FUNCTION(atan)
BILEVEL_TAPE_JET_FUNCTION(sinh)
BILEVEL_TAPE_JET_FUNCTION(cosh)
BILEVEL_TAPE_JET_FUNCTION(tanh)
BILEVEL_TAPE_JET_FUNCTION(erf)
BILEVEL_TAPE_JET_FUNCTION(erfc)
BILEVEL_TAPE_JET_FUNCTION(BesselJ0)
BILEVEL_TAPE_JET_FUNCTION(BesselJ1)
#undef BILEVEL_TAPE_JET_FUNCTION

inline bilevel::TapeJet BesselJn(int n, const bilevel::TapeJet& x) {
  return bilevel::TapeJet(BesselJn(n, x.a));
}
inline bilevel::TapeJet atan2(const bilevel::TapeJet& y, const bilevel::TapeJet& x) {
  return bilevel::TapeJet(atan2(y.a, x.a));
}
inline bilevel::TapeJet copysign(const bilevel::TapeJet& x, const bilevel::TapeJet& y) {
  return bilevel::TapeJet(copysign(x.a, y.a));
}
inline bilevel::TapeJet hypot(const bilevel::TapeJet& x, const bilevel::TapeJet& y) {
  return bilevel::TapeJet(hypot(x.a, y.a));
}
inline bilevel::TapeJet hypot(const bilevel::TapeJet& x,
                              const bilevel::TapeJet& y,
                              const bilevel::TapeJet& z) {
  return bilevel::TapeJet(hypot(x.a, y.a, z.a));
}
inline bilevel::TapeJet pow(const bilevel::TapeJet& x, double p) {
  return bilevel::TapeJet(pow(x.a, p));
}
inline bilevel::TapeJet pow(const bilevel::TapeJet& x, const bilevel::TapeJet& p) {
  return bilevel::TapeJet(pow(x.a, p.a));
}
inline bilevel::TapeJet pow(double x, const bilevel::TapeJet& p) {
  return bilevel::TapeJet(pow(bilevel::TapeScalar(x), p.a));
}

}  // namespace ceres

#endif  // BILEVEL_DERIVATIVES_TAPE_SCALAR_H_
