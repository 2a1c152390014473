#include "bilevel/derivatives/manifold_hessian.h"

#include <cmath>
#include <memory>
#include <vector>

#include "Eigen/Core"
#include "ceres/ceres.h"
#include "ceres/line_manifold.h"
#include "ceres/product_manifold.h"
#include "ceres/sphere_manifold.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

VectorXd TestVector(int size, double seed) {
  VectorXd v(size);
  for (int i = 0; i < size; ++i) v[i] = std::sin(seed + 1.7 * i) + 0.3 * std::cos(3.0 * seed * i);
  return v;
}

RowMajor Curvature(const ceres::Manifold& manifold, const VectorXd& x, const VectorXd& g) {
  RowMajor c = RowMajor::Zero(manifold.TangentSize(), manifold.TangentSize());
  EXPECT_TRUE(ManifoldCurvature(&manifold).Add(x.data(), g.data(), c.data()));
  return c;
}

// The definition, by second-order differences and three Richardson extrapolations.
RowMajor Differences(const ceres::Manifold& manifold, const VectorXd& x, const VectorXd& g) {
  const int n = manifold.TangentSize();
  const auto value = [&](const VectorXd& delta) {
    VectorXd y(x.size());
    EXPECT_TRUE(manifold.Plus(x.data(), delta.data(), y.data()));
    return g.dot(y - x);
  };
  RowMajor result(n, n);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      double table[4];
      for (int k = 0; k < 4; ++k) {
        const double h = 0.16 * std::pow(0.5, k);
        const VectorXd ei = h * VectorXd::Unit(n, i), ej = h * VectorXd::Unit(n, j);
        table[k] =
            (value(ei + ej) - value(ei - ej) - value(ej - ei) + value(-ei - ej)) / (4 * h * h);
      }
      for (int order = 1; order < 4; ++order) {
        const double factor = std::pow(4.0, order);
        for (int k = 0; k + order < 4; ++k) {
          table[k] = (factor * table[k + 1] - table[k]) / (factor - 1);
        }
      }
      result(i, j) = table[0];
    }
  }
  return result;
}

void ExpectCorrect(const ceres::Manifold& manifold, bool exact, double tolerance = 1e-9) {
  for (const double seed : {0.4, 1.1, 2.5}) {
    const VectorXd x = TestVector(manifold.AmbientSize(), seed);
    const VectorXd g = TestVector(manifold.AmbientSize(), seed + 5.0);
    const RowMajor c = Curvature(manifold, x, g);
    EXPECT_LT((c - Differences(manifold, x, g)).norm(), tolerance * x.norm() * g.norm());
    EXPECT_LT((c - c.transpose()).norm(), 1e-14 * (1 + c.norm()));

    const VectorXd direction = TestVector(manifold.TangentSize(), seed + 9.0);
    VectorXd product = direction;
    const ManifoldCurvature curvature(&manifold);
    EXPECT_EQ(curvature.is_exact(), exact);
    EXPECT_TRUE(curvature.AddProduct(x.data(), g.data(), direction.data(), product.data()));
    EXPECT_LT((product - direction - c * direction).norm(), 1e-14 * (1 + c.norm()));
  }
}

// Flattens any manifold's type, so that it is differenced.
class Opaque : public ceres::Manifold {
 public:
  explicit Opaque(const ceres::Manifold& manifold) : manifold_(manifold) {}
  int AmbientSize() const override { return manifold_.AmbientSize(); }
  int TangentSize() const override { return manifold_.TangentSize(); }
  bool Plus(const double* x, const double* delta, double* x_plus_delta) const override {
    return manifold_.Plus(x, delta, x_plus_delta);
  }
  bool PlusJacobian(const double* x, double* jacobian) const override {
    return manifold_.PlusJacobian(x, jacobian);
  }
  bool Minus(const double* y, const double* x, double* y_minus_x) const override {
    return manifold_.Minus(y, x, y_minus_x);
  }
  bool MinusJacobian(const double* x, double* jacobian) const override {
    return manifold_.MinusJacobian(x, jacobian);
  }

 private:
  const ceres::Manifold& manifold_;
};

TEST(ManifoldHessian, FlatManifoldsAddNothing) {
  const ceres::EuclideanManifold<3> fixed;
  const ceres::EuclideanManifold<ceres::DYNAMIC> dynamic(40);
  const ceres::SubsetManifold subset(5, {1, 3});
  for (const ceres::Manifold* manifold :
       std::initializer_list<const ceres::Manifold*>{nullptr, &fixed, &dynamic, &subset}) {
    const ManifoldCurvature curvature(manifold);
    EXPECT_TRUE(curvature.is_zero());
    EXPECT_TRUE(curvature.is_exact());
  }
  ExpectCorrect(subset, true);
  EXPECT_EQ(Curvature(fixed, TestVector(3, 1), TestVector(3, 2)).norm(), 0.0);
}

TEST(ManifoldHessian, ClosedForms) {
  ExpectCorrect(ceres::QuaternionManifold(), true);
  ExpectCorrect(ceres::EigenQuaternionManifold(), true);
  ExpectCorrect(ceres::SphereManifold<3>(), true);
  ExpectCorrect(ceres::SphereManifold<4>(), true);
  ExpectCorrect(ceres::SphereManifold<ceres::DYNAMIC>(6), true);
  EXPECT_FALSE(ManifoldCurvature(std::make_unique<ceres::SphereManifold<3>>().get()).is_zero());
}

TEST(ManifoldHessian, Products) {
  using ceres::EuclideanManifold;
  using ceres::ProductManifold;
  using ceres::QuaternionManifold;
  using EigenQuaternion = ceres::EigenQuaternionManifold;
  ExpectCorrect(ProductManifold<QuaternionManifold, EuclideanManifold<3>>(), true);
  ExpectCorrect(ProductManifold<EuclideanManifold<3>, QuaternionManifold>(), true);
  ExpectCorrect(ProductManifold<EigenQuaternion, EuclideanManifold<3>>(), true);
  ExpectCorrect(ProductManifold<EuclideanManifold<3>, EigenQuaternion>(), true);
  ExpectCorrect(ProductManifold<EuclideanManifold<6>, EigenQuaternion>(), true);
  // A three-fold product is not in the list and is differenced.
  ExpectCorrect(ProductManifold<QuaternionManifold, EuclideanManifold<3>, EuclideanManifold<2>>(),
                false);
}

struct ExponentialPlus {
  template <typename T>
  bool Plus(const T* x, const T* delta, T* x_plus_delta) const {
    using std::exp;
    x_plus_delta[0] = x[0] * exp(delta[0] + delta[1]);
    x_plus_delta[1] = x[1] * exp(delta[0]) + delta[1];
    return true;
  }
  template <typename T>
  bool Minus(const T*, const T*, T*) const {
    return false;
  }
};

TEST(ManifoldHessian, DifferencedManifolds) {
  ExpectCorrect(ceres::LineManifold<3>(), false);
  const ceres::AutoDiffManifold<ExponentialPlus, 2, 2> exponential;
  ExpectCorrect(exponential, false, 1e-7);  // The reference is what is inaccurate here.
  const VectorXd x = TestVector(2, 0.3), g = TestVector(2, 0.8);
  RowMajor expected(2, 2);
  expected << g[0] * x[0] + g[1] * x[1], g[0] * x[0], g[0] * x[0], g[0] * x[0];
  EXPECT_LT((Curvature(exponential, x, g) - expected).norm(), 5e-12);
}

// The same manifold with and without its closed form.
TEST(ManifoldHessian, DifferencesReachTwelveDigits) {
  const ceres::QuaternionManifold quaternion;
  const ceres::SphereManifold<ceres::DYNAMIC> sphere(40);  // Beyond the buffers on the stack.
  for (const ceres::Manifold* manifold :
       std::initializer_list<const ceres::Manifold*>{&quaternion, &sphere}) {
    const VectorXd x = TestVector(manifold->AmbientSize(), 0.2).normalized();
    const VectorXd g = TestVector(manifold->AmbientSize(), 0.9);
    const RowMajor exact = Curvature(*manifold, x, g);
    const RowMajor numeric = Curvature(Opaque(*manifold), x, g);
    EXPECT_GT((exact - numeric).norm(), 0.0);
    EXPECT_LT((exact - numeric).cwiseAbs().maxCoeff(), 2e-12 * g.norm());
  }
}

// x -> (cos, sin)(angle + 50 delta): sampled too coarsely at the first step.
class FastCircle : public ceres::Manifold {
 public:
  int AmbientSize() const override { return 2; }
  int TangentSize() const override { return 1; }
  bool Plus(const double* x, const double* delta, double* y) const override {
    const double c = std::cos(50 * delta[0]), s = std::sin(50 * delta[0]);
    y[0] = c * x[0] - s * x[1];
    y[1] = s * x[0] + c * x[1];
    return std::abs(delta[0]) < limit_;
  }
  bool PlusJacobian(const double* x, double* jacobian) const override {
    jacobian[0] = -50 * x[1];
    jacobian[1] = 50 * x[0];
    return true;
  }
  bool Minus(const double*, const double*, double*) const override { return false; }
  bool MinusJacobian(const double*, double*) const override { return false; }

  double limit_ = 10.0;
};

TEST(ManifoldHessian, StepShrinksForStrongCurvature) {
  FastCircle circle;
  const double x[] = {0.6, 0.8}, g[] = {0.5, 0.2};
  double c = 0.0;
  EXPECT_TRUE(ManifoldCurvature(&circle).Add(x, g, &c));
  EXPECT_NEAR(c / (-2500 * 0.46), 1.0, 1e-8);
}

TEST(ManifoldHessian, FailureOfPlusIsReported) {
  FastCircle circle;
  circle.limit_ = 0.01;
  const double x[] = {0.6, 0.8}, g[] = {0.5, 0.2};
  double c = 0.0;
  EXPECT_FALSE(ManifoldCurvature(&circle).Add(x, g, &c));
  EXPECT_FALSE(ManifoldCurvature(&circle).AddProduct(x, g, x, &c));
}

// 1/2 |y - a|^2 on the unit sphere at its minimum y = a/|a|: the ambient Hessian is I and the
// tangent one |a| I, because g = y - a has the normal component 1 - |a|.
TEST(ManifoldHessian, DistanceOnTheUnitSphere) {
  const Eigen::Vector4d a(0.3, -1.2, 2.0, 0.7);
  const Eigen::Vector4d y = a.normalized();
  const Eigen::Vector4d g = y - a;
  for (const bool differenced : {false, true}) {
    const ceres::QuaternionManifold quaternion;
    const Opaque opaque(quaternion);
    const ceres::Manifold& manifold =
        differenced ? static_cast<const ceres::Manifold&>(opaque) : quaternion;
    Eigen::Matrix<double, 4, 3, Eigen::RowMajor> p;
    ASSERT_TRUE(manifold.PlusJacobian(y.data(), p.data()));
    RowMajor hessian = p.transpose() * p;
    const double k2 = hessian(0, 0);
    ASSERT_TRUE(ManifoldCurvature(&manifold).Add(y.data(), g.data(), hessian.data()));
    EXPECT_LT((hessian - k2 * a.norm() * MatrixXd::Identity(3, 3)).norm(), 1e-11);
  }
}

// g.q = 0 leaves no term, and every rotation of g and q together leaves the same one.
TEST(ManifoldHessian, QuaternionTermDependsOnTheNormalComponentOnly) {
  const ceres::QuaternionManifold manifold;
  const Eigen::Vector4d q = Eigen::Vector4d(0.5, 0.1, -0.4, 0.9).normalized();
  const Eigen::Vector4d tangent =
      Eigen::Vector4d(1, 2, 3, 4) - q * q.dot(Eigen::Vector4d(1, 2, 3, 4));
  EXPECT_LT(Curvature(manifold, q, tangent).norm(), 1e-14);
  const RowMajor c = Curvature(manifold, q, 3.0 * q + tangent);
  EXPECT_LT((c - c(0, 0) * MatrixXd::Identity(3, 3)).norm(), 1e-14);
  EXPECT_LT(c(0, 0), 0.0);
}

#if CERES_VERSION_MAJOR == 2 && CERES_VERSION_MINOR < 2
// Ceres 2.1 wraps an old LocalParameterization in a manifold of its own.
TEST(ManifoldHessian, LocalParameterization) {
  double q[] = {0.5, -0.5, 0.5, 0.5};
  ceres::Problem problem;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  problem.AddParameterBlock(q, 4, new ceres::QuaternionParameterization);
#pragma GCC diagnostic pop
  const ceres::Manifold* manifold = problem.GetManifold(q);
  ASSERT_NE(manifold, nullptr);
  ExpectCorrect(*manifold, false);
}
#endif

}  // namespace
}  // namespace bilevel
