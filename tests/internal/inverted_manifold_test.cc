// Minus from Plus alone, against Ceres' own, and blocks with a LocalParameterization (Ceres 2.1).
#include "bilevel/internal/inverted_manifold.h"

#include <cmath>
#include <functional>
#include <memory>
#include <string>

#include "Eigen/Core"
#include "Eigen/Geometry"
#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/registry.h"
#include "ceres/ceres.h"
#include "ceres/version.h"
#include "gtest/gtest.h"
#include "sphere.h"

namespace bilevel {
namespace {

void ExpectSame(const ceres::Manifold& manifold, const Eigen::VectorXd& x, double longest) {
  const InvertedManifold inverted(&manifold);
  const int size = manifold.AmbientSize(), tangent_size = manifold.TangentSize();
  Eigen::VectorXd y(size), expected(tangent_size), d(tangent_size);
  for (int k = 0; k < 50; ++k) {
    const Eigen::VectorXd step =
        longest * k / 50.0 * Eigen::VectorXd::Random(tangent_size).normalized();
    ASSERT_TRUE(manifold.Plus(x.data(), step.data(), y.data()));
    ASSERT_TRUE(manifold.Minus(y.data(), x.data(), expected.data()));
    ASSERT_TRUE(inverted.Minus(y.data(), x.data(), d.data())) << step.norm();
    EXPECT_LT((d - expected).norm(), 1e-12 * (1.0 + expected.norm()));
  }
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  RowMajor plus(size, tangent_size), minus(tangent_size, size);
  ASSERT_TRUE(inverted.PlusJacobian(x.data(), plus.data()));
  ASSERT_TRUE(inverted.MinusJacobian(x.data(), minus.data()));
  EXPECT_LT((minus * plus - RowMajor::Identity(tangent_size, tangent_size)).norm(), 1e-13);
}

TEST(InvertedManifold, MinusIsCeres) {
  srand(5);
  ExpectSame(ceres::QuaternionManifold(), Eigen::VectorXd::Random(4).normalized(), 1.2);
  ExpectSame(ceres::EigenQuaternionManifold(), Eigen::VectorXd::Random(4).normalized(), 1.2);
  ExpectSame(*std::unique_ptr<ceres::Manifold>(NewSphere()), Eigen::VectorXd::Random(3), 1.2);
  ExpectSame(ceres::SubsetManifold(5, {1, 3}), Eigen::VectorXd::Random(5), 100.0);
}

TEST(InvertedManifold, WhatCannotBeReachedIsSaid) {
  const ceres::SubsetManifold subset(3, {1});
  const InvertedManifold inverted(&subset);
  const double x[3] = {0.0, 0.0, 0.0}, y[3] = {1.0, 2.0, 3.0};
  double d[2];
  EXPECT_FALSE(inverted.Minus(y, x, d));
}

#if CERES_VERSION_MAJOR == 2 && CERES_VERSION_MINOR < 2

struct Turned {
  template <typename T>
  bool operator()(const T* q, T* r) const {
    const T p[3] = {T(a[0]), T(a[1]), T(a[2])};
    T turned[3];
    ceres::QuaternionRotatePoint(q, p, turned);
    for (int i = 0; i < 3; ++i) r[i] = turned[i] - b[i];
    return true;
  }
  Eigen::Vector3d a, b;
};
struct Apart {
  template <typename T>
  bool operator()(const T* q, const T* x, T* r) const {
    const T conjugate[4] = {x[0], -x[1], -x[2], -x[3]};
    T d[4];
    ceres::QuaternionProduct(conjugate, q, d);
    for (int i = 0; i < 3; ++i) r[i] = d[i + 1];
    return true;
  }
};
struct Target {
  template <typename T>
  bool operator()(const T* q, T* r) const {
    for (int i = 0; i < 3; ++i) r[i] = q[i + 1] - 0.1 * (i + 1);
    return true;
  }
};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
void SetQuaternion(double* q, bool as_manifold, ceres::Problem* problem) {
  if (as_manifold) {
    problem->SetManifold(q, new ceres::QuaternionManifold);
  } else {
    problem->SetParameterization(q, new ceres::QuaternionParameterization);
  }
}
#pragma GCC diagnostic pop

// x and y are quaternions. By either kind of block, x after five iterations.
void ExpectSameAnswer(const std::function<std::shared_ptr<Method>()>& make, bool compare) {
  double x[2][4];
  ceres::TerminationType ends[2];
  for (const bool as_manifold : {false, true}) {
    double q[4] = {1, 0, 0, 0};
    double* const own = x[as_manifold];
    own[0] = 1.0;
    own[1] = own[2] = own[3] = 0.0;
    Problem problem;
    const Eigen::Quaterniond truth(Eigen::AngleAxisd(0.4, Eigen::Vector3d(1, 2, 3).normalized()));
    for (int i = 0; i < 10; ++i) {
      const Eigen::Vector3d a(std::sin(i), std::cos(2.0 * i), 0.3 * i - 1.0);
      const Eigen::Vector3d noise(std::sin(5.0 * i), std::cos(7.0 * i), std::sin(9.0 * i));
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Turned, 3, 4>(new Turned{a, truth * a + 0.2 * noise}),
          nullptr,
          q);
    }
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Apart, 3, 4, 4>(new Apart), nullptr, q, own);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Target, 3, 4>(new Target), nullptr, q);
    SetQuaternion(q, as_manifold, problem.lower());
    SetQuaternion(own, as_manifold, problem.lower());
    problem.AddUpperParameterBlock(own, 4);
    Solver::Options options;
    options.method = make();
    options.max_num_iterations = 5;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    ends[as_manifold] = summary.termination_type;
    EXPECT_NE(summary.num_lower_parameters, -1) << summary.message;
  }
  for (int i = 0; compare && i < 4; ++i) EXPECT_NEAR(x[0][i], x[1][i], 1e-6);
  if (compare) {
    EXPECT_EQ(ends[0], ends[1]);
  }
}

// Every method lives through it; those whose default steps are stable here do the same by both.
TEST(InvertedManifold, LocalParameterizations) {
  for (const std::string& method : ListMethods()) {
    SCOPED_TRACE(method);
    const bool is_stable = method == "auto" || method == "levenberg_marquardt" ||
                           method == "lbfgs" || method == "hoag" || method == "gradient_descent";
    ExpectSameAnswer([&] { return std::shared_ptr<Method>(CreateMethod(method)); }, is_stable);
  }
  UnrolledHypergradient::Options unrolled;
  unrolled.lower_step = 0.02;
  ExpectSameAnswer(
      [&] {
        return std::make_shared<GradientMethod>(
            "itd", std::make_unique<UnrolledHypergradient>(unrolled), StepRule());
      },
      true);
}

#endif

}  // namespace
}  // namespace bilevel
