// The functors below come before any header of ours: a user's own file need not know about them.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <sstream>
#include <type_traits>
#include <utility>
#include <vector>

#include "Eigen/Dense"
#include "Eigen/Geometry"
#include "ceres/ceres.h"
#include "ceres/rotation.h"

namespace {

// Each functor is a style of user code, of 8 parameters and one residual.
struct Literals {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    *r = 2.0 * p[0] + p[1] * 3.0 - 1.0 + T(1.0) / p[2] + T(2) * p[3];
    *r += 1.0;
    *r *= 2.0;
    *r -= p[0] * p[1];
    *r /= 3.0;
    *r = -*r * *r + 1.0 / p[0] - (1.0 - p[1]) * (+p[4]);
    *r += 2. * p[0] * p[0] + p[1] * T(3) + p[2] / T(2.f) + 1. - p[3] * p[5];
    *r /= p[6];
    return true;
  }
};

struct Comparisons {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    T s = p[0] > 0 ? p[0] * p[1] : T(0.0);
    if (p[1] <= 0.5 || 0.0 < p[2] || p[0] == p[1] || p[3] != 0) s += std::max(p[1] * p[1], T(0.0));
    *r = std::min(s * s, p[2] * 100.0);
    T other = p[3] * p[4];
    std::swap(*r, other);
    *r += other;
    return true;
  }
};

struct UsingStd {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    using std::abs;
    using std::atan2;
    using std::exp;
    using std::pow;
    using std::sin;
    using std::sqrt;
    *r = sqrt(p[0] * p[0] + 1.0) + exp(p[1]) * p[2] + pow(p[2], 2.0) + pow(p[2], 2) +
         pow(2.0, p[3] * p[4]) + pow(p[0], p[1]) + abs(p[3] * p[0]) + atan2(p[0], p[1]) +
         sin(p[2] * p[5]);
    return true;
  }
};

struct Qualified {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    *r = ceres::sqrt(p[0] * p[0] + 1.0) + ceres::exp(p[1]) + ceres::pow(p[2], 2.5) +
         ceres::abs(p[3] * p[4]) + ceres::atan2(p[0], p[1]) + ceres::sin(p[2]) +
         ceres::log(p[4]) * p[5] + ceres::hypot(p[0], p[1]) + ceres::fmax(p[0] * p[6], 0.0) +
         ceres::pow(p[6], p[7]) + ceres::cos(p[1] * p[2]);
    return true;
  }
};

struct SpecialFunctions {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    using std::fdim;
    using std::fmax;
    using std::fmin;
    using std::hypot;
    using std::norm;
    *r = fmax(p[0] * p[0], p[1]) + fmin(p[0], T(0.0)) + hypot(p[0], p[1]) + fma(p[0], p[1], p[2]) +
         erf(p[3]) + erfc(p[2] * p[1]) + cbrt(p[4]) + log1p(p[5]) + expm1(p[6]) + tanh(p[7]) +
         floor(p[0]) + ceil(p[1]) + copysign(p[0] * p[3], p[1]) + norm(p[2]) + exp2(p[3]) +
         log2(p[4]) + log10(p[5]) + fdim(p[1] * p[1], p[0] * p[0]) + fmax(p[4] * p[4], 0.0) +
         fmin(100.0, p[1] * p[2]) + hypot(p[3], p[4], p[5]);
    *r += tan(p[3]) + asin(p[0]) + acos(p[1]) + atan(p[2]) + sinh(p[3]) + cosh(p[4]) +
          ceres::BesselJ0(p[5]) + ceres::BesselJ1(p[6] * p[0]) + ceres::BesselJn(3, p[7]);
    return true;
  }
};

struct Classification {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    using namespace std;
    if (!isfinite(p[0]) || isnan(p[1]) || isinf(p[2]) || !isnormal(p[3]) || signbit(p[0]) ||
        fpclassify(p[0]) == FP_ZERO || isgreater(p[0], p[1]) || isunordered(p[0], p[1])) {
      return false;
    }
    *r = isless(p[0], p[1]) && islessequal(p[0], p[1]) ? p[0] * p[1] : T(0.0);
    return true;
  }
};

struct NumericTraits {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    static_assert(std::numeric_limits<T>::is_specialized, "");
    *r = p[0] * p[0];
    if (p[1] > std::numeric_limits<T>::epsilon() && p[1] < std::numeric_limits<T>::max() &&
        *r > T(std::numeric_limits<double>::epsilon())) {
      *r *= p[2];
    }
    *r += Eigen::NumTraits<T>::epsilon() + Eigen::NumTraits<T>::dummy_precision();
    return true;
  }
};

struct Rotations {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    T o[3], q[4], aa[3], R[9], q2[4];
    ceres::AngleAxisToQuaternion(p, q);
    ceres::QuaternionProduct(q, p + 2, q2);
    ceres::AngleAxisToRotationMatrix(p, R);
    ceres::RotationMatrixToAngleAxis(R, aa);
    *r = aa[0] * q2[0] + R[3];
    ceres::RotationMatrixToQuaternion(R, q);
    ceres::QuaternionToAngleAxis(q, aa);
    *r += q[2] * aa[1];
    ceres::EulerAnglesToRotationMatrix(p, 3, R);
    ceres::QuaternionToRotation(q2, R);
    ceres::QuaternionToScaledRotation(p, R);
    ceres::AngleAxisRotatePoint(p, p + 3, o);
    *r += R[5] * o[0];
    ceres::QuaternionRotatePoint(p + 4, p, o);
    ceres::UnitQuaternionRotatePoint(p + 4, o, aa);
    ceres::CrossProduct(p, aa, o);
    *r += ceres::DotProduct(p + 3, o);
    return true;
  }
};

struct EigenVectors {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    using V = Eigen::Matrix<T, 3, 1>;
    const Eigen::Map<const V> a(p), b(p + 3);
    V c = a.cross(b) + 2.0 * a - b * 0.5;
    c += V::Constant(T(1));
    *r = c.norm() + c.dot(a) + c.normalized()[0] + c.squaredNorm() + c.sum() + (a / p[6])[0] +
         c.template lpNorm<1>() + c.stableNorm() + c.maxCoeff() + c.array().abs().sum() +
         a.array().sqrt().sum() + c.array().exp().sum();
    return true;
  }
};

struct EigenMixed {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    using V = Eigen::Matrix<T, 3, 1>;
    const Eigen::Map<const V> a(p);
    const Eigen::Matrix3d A = (Eigen::Matrix3d() << 2, 1, 0, -1, 3, 1, 0.5, 0, 1).finished();
    V c = A.cast<T>() * a;
    const V d = A * a;
    const V e = a.cwiseProduct(Eigen::Vector3d(1, 2, 3));
    const V f = a - Eigen::Vector3d(1, 2, 3).template cast<T>();
    Eigen::Map<V> m(c.data());
    m.applyOnTheLeft(A.cast<T>());
    *r = c[0] * d[1] + e[2] * f[0];
    return true;
  }
};

struct EigenGeometry {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    using Q = Eigen::Quaternion<T>;
    const Eigen::Map<const Q> q(p);
    const Eigen::Matrix<T, 3, 1> v(p[4], p[5], p[6]);
    const Q qd = Eigen::Quaterniond(1, 0, 0, 0).template cast<T>();
    const Q qn = q.normalized();
    const Eigen::Matrix<T, 3, 1> w = qn * v + (qd * q.conjugate()).vec();
    const Eigen::Matrix<T, 3, 3> R = qn.toRotationMatrix();
    const Q qr(R);
    const Eigen::AngleAxis<T> aa(qr);
    Eigen::Transform<T, 3, Eigen::Isometry> I = Eigen::Transform<T, 3, Eigen::Isometry>::Identity();
    I.linear() = R;
    I.translation() = v;
    *r = (I.inverse() * w)[0] + aa.angle() + qr.slerp(T(0.5), q).w() + q.angularDistance(qd) +
         q.inverse().x();
    return true;
  }
};

struct Decompositions {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    Eigen::Matrix<T, 3, 3> A;
    A << p[0] + 5.0, p[1], p[2], p[1], p[3] + 6.0, p[4], p[2], p[4], p[5] + 7.0;
    const Eigen::Matrix<T, 3, 1> b(p[6], p[7], p[0]);
    *r = A.llt().solve(b)[0] + A.inverse()(0, 1) + A.determinant();
    return true;
  }
};

struct ScalarTraits {  // As Lie group libraries do.
  template <typename T>
  bool operator()(const T* p, T* r) const {
    using Left = typename Eigen::ScalarBinaryOpTraits<T, double>::ReturnType;
    using Right = typename Eigen::ScalarBinaryOpTraits<double, T>::ReturnType;
    using std::atan;
    using std::cos;
    using std::sin;
    using std::sqrt;
    const Eigen::Matrix<T, 3, 1> omega(p[0], p[1], p[2]);
    const T theta2 = omega.squaredNorm();
    T imaginary, real;
    if (theta2 < Eigen::NumTraits<double>::epsilon() * 1e3) {
      imaginary = T(0.5) - T(1.0 / 48.0) * theta2;
      real = T(1) - T(1.0 / 8.0) * theta2;
    } else {
      const T theta = sqrt(theta2);
      const T half = T(0.5) * theta;
      imaginary = sin(half) / theta;
      real = cos(half);
    }
    const Eigen::Quaternion<T> q(real, imaginary * omega.x(), imaginary * omega.y(), p[3]);
    const T n = q.vec().squaredNorm();
    const Left x = T(2) * atan(sqrt(n) / q.w()) / sqrt(n) * 2.0;
    const Right y = 2.0 * x;
    *r = y * y;
    return true;
  }
};

struct Containers {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    const std::vector<T> v(3, T(1.5));
    const T copied[3] = {p[0], p[1], p[2]};
    T zero{};
    T w{2.0};
    const std::array<T, 2> pair{{p[0], p[1]}};
    T sum;  // Jets start at zero.
    if (std::is_same<T, double>::value) sum = T(0);
    for (const T& x : copied) sum += x * x;
    *r = v[0] * copied[1] * copied[2] + zero + w * pair[0] * sum;
    std::ostringstream stream;
    stream << *r;
    return !stream.str().empty();
  }
};

}  // namespace

#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "bilevel/derivatives/dual.h"
#include "bilevel/derivatives/numeric_hessian.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

template <typename Functor>
class DualBattery : public ::testing::Test {};

using Functors = ::testing::Types<Literals,
                                  Comparisons,
                                  UsingStd,
                                  Qualified,
                                  SpecialFunctions,
                                  Classification,
                                  NumericTraits,
                                  Rotations,
                                  EigenVectors,
                                  EigenMixed,
                                  EigenGeometry,
                                  Decompositions,
                                  ScalarTraits,
                                  Containers>;
TYPED_TEST_SUITE(DualBattery, Functors);

// Against extrapolated differences of Ceres' own Jacobian.
TYPED_TEST(DualBattery, HessianIsTheDerivativeOfCeresJacobian) {
  const ceres::AutoDiffCostFunction<TypeParam, 1, 8> reference(new TypeParam);
  const AutoDiffCostFunction<TypeParam, 1, 8> cost_function(new TypeParam);
  const double p[8] = {0.6, 0.8, 1.3, 0.4, 1.7, 0.9, 0.5, 1.1};
  const double* parameters[] = {p};
  const double weight = 1.5;
  Eigen::Matrix<double, 8, 8> exact, numeric;
  NumericHessianWorkspace workspace;
  ASSERT_TRUE(cost_function.EvaluateHessian(parameters, &weight, exact.data()));
  ASSERT_TRUE(NumericHessian(reference, parameters, &weight, numeric.data(), &workspace));
  EXPECT_GT(numeric.norm(), 0.1);
  EXPECT_LT((exact - numeric).cwiseAbs().maxCoeff(), 1e-9 * numeric.norm());
  EXPECT_EQ(exact, exact.transpose());

  Eigen::Matrix<double, 8, 1> direction, product;
  direction << 1, -2, 0.5, 3, -1, 0.2, 0.7, -0.4;
  ASSERT_TRUE(
      cost_function.EvaluateHessianProduct(parameters, &weight, direction.data(), product.data()));
  EXPECT_LT((product - exact * direction).norm(), 1e-13 * exact.norm());
}

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
