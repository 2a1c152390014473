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
    *r = A.llt().solve(b)[0] + A.inverse()(0, 1) + A.determinant() + A.ldlt().solve(b)[1];
    return true;
  }
};

struct EigenComparisons {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    const Eigen::Map<const Eigen::Array<T, 8, 1>> a(p);
    *r = (a > T(1.0)).select(a * a, a * a * a).sum();
    if ((a > T(1.6)).any() && (a < T(2.0)).all() && (a != T(1.0)).any()) *r *= a.maxCoeff();
    *r += a.max(T(1.0)).square().sum();
    return true;
  }
};

#ifdef NDEBUG  // Ceres checks that nobody does so.
struct InPlaceRotation {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    T point[3] = {p[3], p[4], p[5]};
    ceres::AngleAxisRotatePoint(p, point, point);
    *r = point[0] * point[1] + p[6] * point[2];
    return true;
  }
};
#endif

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

#include <atomic>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <thread>

#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "bilevel/derivatives/dual.h"
#include "bilevel/derivatives/dynamic_auto_diff_cost_function.h"
#include "bilevel/derivatives/internal/numeric_hessian.h"
#include "bilevel/derivatives/tape.h"
#include "count_allocations.h"
#include "derivatives/tape_derivatives.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

template <typename Functor>
class TapeBattery : public ::testing::Test {};

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
                                  EigenComparisons,
#ifdef NDEBUG
                                  InPlaceRotation,
#endif
                                  ScalarTraits,
                                  Containers>;
TYPED_TEST_SUITE(TapeBattery, Functors, );

// Against extrapolated differences of Ceres' own Jacobian, and against forward mode.
TYPED_TEST(TapeBattery, HessianIsTheDerivativeOfCeresJacobian) {
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

  if constexpr (!std::is_same<TypeParam, Rotations>::value) {  // rotation.h is not for duals.
    using Jet = ceres::Jet<Dual<8>, 8>;
    Jet x[8], r;
    for (int i = 0; i < 8; ++i) {
      x[i] = Jet(Dual<8>(p[i]), i);
      x[i].a.d[i] = 1.0;
    }
    ASSERT_TRUE(TypeParam()(x, &r));
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < 8; ++j) {
        EXPECT_NEAR(exact(i, j), weight * r.v[i].d[j], 1e-13 * exact.norm()) << i << " " << j;
      }
    }
  }

  Eigen::Matrix<double, 8, 1> direction, product;
  direction << 1, -2, 0.5, 3, -1, 0.2, 0.7, -0.4;
  ASSERT_TRUE(
      cost_function.EvaluateHessianProduct(parameters, &weight, direction.data(), product.data()));
  EXPECT_LT((product - exact * direction).norm(), 1e-13 * exact.norm());
}

// All second derivatives of f(x, y).
template <typename F>
Eigen::Matrix2d Hessian(const F& f, double x, double y) {
  const double p[2] = {x, y};
  const auto r =
      TapeDerivatives<2, 1>([&f](const auto* q, auto* value) { *value = f(q[0], q[1]); }, p)[0];
  Eigen::Matrix2d H;
  H << r.v[0].d[0], r.v[0].d[1], r.v[1].d[0], r.v[1].d[1];
  return H;
}

Eigen::Matrix2d Symmetric(double xx, double xy, double yy) {
  return (Eigen::Matrix2d() << xx, xy, xy, yy).finished();
}

TEST(Tape, AdjointsThatAreZeroStillHaveDerivatives) {
  EXPECT_EQ(Hessian([](const auto& x, const auto& y) { return x * y; }, 0, 0), Symmetric(0, 1, 0));
  EXPECT_EQ(Hessian([](const auto& x, const auto& y) { return (x * x) * (y * y + 1.0); }, 0, 0),
            Symmetric(2, 0, 0));
}

TEST(Tape, ConstantsFoldIntoFactors) {
  EXPECT_EQ(Hessian([](const auto& x, const auto& y) { return 3.0 - 2.0 * x + y / 4.0; }, 1, 2),
            Symmetric(0, 0, 0));
  const auto f = [](const auto& x, const auto& y) {
    const auto z = -(2.0 * (x - 1.0)) / 4.0;  // (1 - x) / 2
    return 8.0 * z * z - z * (1.0 - y) + 0.0 * sqrt(x) + (z - z) * y;
  };
  EXPECT_LT((Hessian(f, 1.7, 0.3) - Symmetric(4, -0.5, 0)).norm(), 1e-14);
}

struct Two {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    r[0] = sqrt(p[0]);
    r[1] = p[0] * p[0];
    return true;
  }
};

TEST(Tape, UnusedAndUnweightedOperationsDoNotCount) {
  const auto f = [](const auto& x, const auto& y) {
    const auto unused = sqrt(x);  // Without derivatives at zero.
    (void)unused;
    return y * y;
  };
  EXPECT_EQ(Hessian(f, 0, 3), Symmetric(0, 0, 2));
  const auto singular = [](const auto& x, const auto& y) { return sqrt(x) + y; };
  EXPECT_FALSE(std::isfinite(Hessian(singular, 0, 3)(0, 0)));

  const AutoDiffCostFunction<Two, 2, 1> cost_function(new Two);
  const double zero = 0.0;
  const double* parameters[] = {&zero};
  const double weights[2] = {0.0, 1.0};
  double H;
  ASSERT_TRUE(cost_function.EvaluateHessian(parameters, weights, &H));
  EXPECT_EQ(H, 2.0);
}

struct Shared {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    const T square = p[0] * p[0];
    r[0] = square;
    r[1] = 3.0 * square;
    r[2] = T(7.0);
    return true;
  }
};

TEST(Tape, ResidualsThatShareANodeAddUp) {
  const AutoDiffCostFunction<Shared, 3, 1> cost_function(new Shared);
  const double x = 1.3;
  const double* parameters[] = {&x};
  const double weights[3] = {1.0, 10.0, 5.0};
  double H;
  ASSERT_TRUE(cost_function.EvaluateHessian(parameters, weights, &H));
  EXPECT_DOUBLE_EQ(H, 62.0);
}

TEST(Tape, PowAtZero) {
  const double zero = 0.0;
  for (const double p : {0.0, 1.0, 2.0, 3.0, 2.5}) {
    for (const bool jet : {false, true}) {
      const auto f = TapeDerivatives<1, 1>(
          [&](const auto* x, auto* r) {
            using T = std::decay_t<decltype(*x)>;
            *r = jet ? pow(*x, T(p)) : ceres::pow(*x, p);
          },
          &zero)[0];
      EXPECT_EQ(f.a.a, p == 0.0 ? 1.0 : 0.0);
      EXPECT_EQ(f.v[0].a, p == 1.0 ? 1.0 : 0.0);
      EXPECT_EQ(f.v[0].d[0], p == 2.0 ? 2.0 : 0.0);
    }
  }
  EXPECT_EQ(Hessian([](const auto& x, const auto& y) { return pow(x, y); }, 0, 2.5),
            Symmetric(0, 0, 0));
  EXPECT_EQ(Hessian([](const auto&, const auto& y) { return pow(0, y); }, 1, 2),
            Symmetric(0, 0, 0));
}

TEST(Tape, Powers) {
  const double x = 1.7, y = 2.3;
  const double f = std::pow(x, y), l = std::log(x);
  const Eigen::Matrix2d expected = f * Symmetric(y * (y - 1.0) / (x * x), (1.0 + y * l) / x, l * l);
  EXPECT_LT(
      (Hessian([](const auto& a, const auto& b) { return pow(a, b); }, x, y) - expected).norm(),
      1e-14 * expected.norm());
  EXPECT_NEAR(Hessian([](const auto&, const auto& b) { return pow(2, b); }, x, 3.0)(1, 1),
              8.0 * std::pow(std::log(2.0), 2),
              1e-14);
  EXPECT_NEAR(
      Hessian([](const auto& a, const auto&) { return pow(a, 3); }, -2.0, y)(0, 0), -12.0, 0.0);
}

TEST(Tape, BesselEquation) {  // x^2 f'' + x f' + (x^2 - n^2) f = 0.
  const double x = 2.3;
  for (const int n : {0, 1, 2, 5}) {
    const auto f = TapeDerivatives<1, 1>(
        [n](const auto* p, auto* r) {
          *r = n == 0 ? ceres::BesselJ0(*p) : n == 1 ? ceres::BesselJ1(*p) : ceres::BesselJn(n, *p);
        },
        &x)[0];
    EXPECT_NEAR(x * x * f.v[0].d[0] + x * f.v[0].a + (x * x - n * n) * f.a.a, 0.0, 1e-14);
  }
}

#if defined(__cpp_lib_math_special_functions)
TEST(Tape, CylindricalBesselFunctions) {
  for (const int n : {0, 1, 2, 3}) {
    for (const double x : {0.0, 0.8, 2.3}) {
      const double p[2] = {x, x};
      const auto f = TapeDerivatives<2, 2>(
          [n](const auto* q, auto* r) {
            r[0].a = cyl_bessel_j(static_cast<double>(n), q[0].a);
            r[1] = BesselJn(n, q[1]);
          },
          p);
      EXPECT_NEAR(f[0].a.a, f[1].a.a, 1e-14);
      EXPECT_NEAR(f[0].v[0].a, f[1].v[1].a, 1e-14);
      EXPECT_NEAR(f[0].v[0].d[0], f[1].v[1].d[1], 1e-14);
    }
  }
}
#endif

// A functor that evaluates another cost function's Hessian between its own operations.
struct Nested {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    const T before = p[0] * p[1];
    const double x[8] = {0.6, 0.8, 1.3, 0.4, 1.7, 0.9, 0.5, 1.1};
    const double* parameters[] = {x};
    const double weight = 1.0;
    double H[64];
    if (!inner.EvaluateHessian(parameters, &weight, H)) return false;
    r[0] = H[0] * before * before;
    return true;
  }
  AutoDiffCostFunction<UsingStd, 1, 8> inner{new UsingStd};
};

TEST(Tape, RecordingsNest) {
  const AutoDiffCostFunction<Nested, 1, 2> cost_function(new Nested);
  const double p[2] = {2.0, 3.0};
  const double* parameters[] = {p};
  const double weight = 1.0;
  Eigen::Matrix2d H;
  ASSERT_TRUE(cost_function.EvaluateHessian(parameters, &weight, H.data()));
  const double x[8] = {0.6, 0.8, 1.3, 0.4, 1.7, 0.9, 0.5, 1.1};
  const double* inner[] = {x};
  double h[64];
  ASSERT_TRUE(cost_function.functor().inner.EvaluateHessian(inner, &weight, h));
  EXPECT_LT((H - h[0] * Symmetric(18, 24, 8)).norm(), 1e-12 * H.norm());
}

struct Throws {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    r[0] = p[0] * p[0];
    if (p[0] > 1.0) throw std::runtime_error("too far");
    return true;
  }
};

struct ThrowsInside {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    const T square = p[0] * p[0];
    const double two = 2.0;
    const double* parameters[] = {&two};
    double H;
    try {
      inner.EvaluateHessian(parameters, &two, &H);
    } catch (const std::runtime_error&) {
      r[0] = square * p[0];
      return true;
    }
    return false;
  }
  AutoDiffCostFunction<Throws, 1, 1> inner{new Throws};
};

TEST(Tape, SurvivesExceptions) {
  const AutoDiffCostFunction<Throws, 1, 1> throws(new Throws);
  const AutoDiffCostFunction<ThrowsInside, 1, 1> throws_inside(new ThrowsInside);
  double x = 2.0;
  const double* parameters[] = {&x};
  const double weight = 1.0;
  double H;
  EXPECT_THROW(throws.EvaluateHessian(parameters, &weight, &H), std::runtime_error);
  EXPECT_THROW(throws.EvaluateHessianProduct(parameters, &weight, &x, &H), std::runtime_error);
  x = 0.5;
  ASSERT_TRUE(throws.EvaluateHessian(parameters, &weight, &H));
  EXPECT_EQ(H, 2.0);
  ASSERT_TRUE(throws_inside.EvaluateHessian(parameters, &weight, &H));
  EXPECT_EQ(H, 3.0);
}

TEST(Tape, ThreadsHaveTheirOwn) {
  const AutoDiffCostFunction<EigenGeometry, 1, 8> cost_function(new EigenGeometry);
  const auto evaluate = [&cost_function](int k) {
    double p[8];
    for (int i = 0; i < 8; ++i) p[i] = 0.5 + 0.1 * ((3 * i + k) % 7);
    const double* parameters[] = {p};
    const double weight = 1.0;
    Eigen::Matrix<double, 8, 8> H;
    EXPECT_TRUE(cost_function.EvaluateHessian(parameters, &weight, H.data()));
    return H;
  };
  Eigen::Matrix<double, 8, 8> expected[4];
  for (int k = 0; k < 4; ++k) expected[k] = evaluate(k);
  std::atomic<int> num_different{0};
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k) {
    threads.emplace_back([&, k] {
      for (int repeat = 0; repeat < 200; ++repeat) {
        if (evaluate(k) != expected[k]) ++num_different;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_different, 0);
}

struct Dynamic {
  template <typename T>
  bool operator()(T const* const* p, T* r) const {
    return EigenGeometry()(p[0], r);
  }
};

TEST(Tape, DoesNotAllocateAfterTheFirstCall) {
  const AutoDiffCostFunction<EigenGeometry, 1, 8> fixed(new EigenGeometry);
  DynamicAutoDiffCostFunction<Dynamic> dynamic(new Dynamic);
  dynamic.AddParameterBlock(8);
  dynamic.SetNumResiduals(1);
  const double p[8] = {0.6, 0.8, 1.3, 0.4, 1.7, 0.9, 0.5, 1.1};
  const double* parameters[] = {p};
  const double weight = 1.0;
  double H[64], product[8];
  long before = 0;
  for (int call = 0; call < 3; ++call) {
    if (call == 1) before = allocations;
    for (const SecondOrderCostFunction* cost_function :
         {static_cast<const SecondOrderCostFunction*>(&fixed),
          static_cast<const SecondOrderCostFunction*>(&dynamic)}) {
      cost_function->EvaluateHessian(parameters, &weight, H);
      cost_function->EvaluateHessianProduct(parameters, &weight, p, product);
    }
  }
  EXPECT_EQ(before > 0, kCountsAllocations);
  EXPECT_EQ(allocations, before);
}

// Code that takes a double out of a jet, and so would lose second derivatives, does not compile.
static_assert(!std::is_convertible<TapeScalar, double>::value, "");
static_assert(!std::is_constructible<double, TapeScalar>::value, "");
static_assert(!std::is_constructible<ceres::Jet<double, 2>, TapeJet>::value, "");
static_assert(std::is_convertible<int, TapeScalar>::value, "");

}  // namespace
}  // namespace bilevel
