// Manifolds whose PlusJacobian is not the derivative of their Plus, against the same problem with
// true ones and costs by automatic differentiation.
#include "bilevel/internal/true_jacobian.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "Eigen/Geometry"
#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using Eigen::Vector3d;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Position and Eigen's quaternion, turned by q (1, d / 2) of unit length; as VINS-Mono's, whose
// PlusJacobian is [I; 0], or with the true one.
class PoseManifold : public ceres::Manifold {
 public:
  explicit PoseManifold(bool is_true) : is_true_(is_true) {}
  int AmbientSize() const override { return 7; }
  int TangentSize() const override { return 6; }
  bool Plus(const double* x, const double* d, double* y) const override {
    for (int i = 0; i < 3; ++i) y[i] = x[i] + d[i];
    const Eigen::Quaterniond turn(1.0, d[3] / 2, d[4] / 2, d[5] / 2);
    Eigen::Map<Eigen::Quaterniond>(y + 3) =
        (Eigen::Map<const Eigen::Quaterniond>(x + 3) * turn).normalized();
    return true;
  }
  bool PlusJacobian(const double* x, double* jacobian) const override {
    Eigen::Map<Eigen::Matrix<double, 7, 6, Eigen::RowMajor>> j(jacobian);
    j.setIdentity();
    if (!is_true_) return true;
    j.bottomRightCorner<4, 3>() << x[6], -x[5], x[4], x[5], x[6], -x[3], -x[4], x[3], x[6], -x[3],
        -x[4], -x[5];
    j.bottomRightCorner<4, 3>() *= 0.5;
    return true;
  }
  bool Minus(const double*, const double*, double*) const override { return false; }
  bool MinusJacobian(const double*, double*) const override { return false; }

 private:
  const bool is_true_;
};

struct Sighting {
  template <typename T>
  bool operator()(const T* pose, T* r) const {
    const Eigen::Map<const Eigen::Quaternion<T>> q(pose + 3);
    const Eigen::Map<const Eigen::Matrix<T, 3, 1>> p(pose);
    Eigen::Map<Eigen::Matrix<T, 3, 1>> residual(r);
    residual = q.conjugate() * (point.cast<T>() - p) - seen.cast<T>();
    return true;
  }
  Vector3d point, seen;
};

// The same with its six tangent columns in seven.
class TangentSighting : public ceres::SizedCostFunction<3, 7> {
 public:
  TangentSighting(const Sighting& sighting, double error) : s_(sighting), error_(error) {}
  bool Evaluate(double const* const* pose, double* r, double** jacobians) const override {
    s_(pose[0], r);
    if (!jacobians || !jacobians[0]) return true;
    const Eigen::Map<const Eigen::Quaterniond> q(pose[0] + 3);
    const Vector3d b = Eigen::Map<const Vector3d>(r) + s_.seen;
    Eigen::Map<Eigen::Matrix<double, 3, 7, Eigen::RowMajor>> j(jacobians[0]);
    j.setZero();
    j.leftCols<3>() = -(1.0 + error_) * q.conjugate().toRotationMatrix();
    j.block<3, 3>(0, 3) << 0.0, -b.z(), b.y(), b.z(), 0.0, -b.x(), -b.y(), b.x(), 0.0;
    return true;
  }

 private:
  const Sighting s_;
  const double error_;
};

enum Kind { kTrue, kTangent, kAmbientCosts, kWrong };

// 20 sightings from a pose, every other one with noise of scale exp(x).
struct Localization {
  explicit Localization(Kind kind) {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddParameterBlock(pose.data(), 7, new PoseManifold(kind == kTrue));
    const Eigen::Quaterniond truth(Eigen::AngleAxisd(0.5, Vector3d(1, 2, 3).normalized()));
    const Vector3d position(1, 2, 3);
    for (int i = 0; i < 20; ++i) {
      const Vector3d point = 3.0 * TestVector(3, 1.0 + i);
      const Sighting s{point,
                       truth.conjugate() * (point - position) + 0.5 * TestVector(3, 40.0 + i)};
      ceres::CostFunction* cost;
      if (kind == kTangent || kind == kWrong) {
        cost = new TangentSighting(s, kind == kWrong && i == 7 ? 0.01 : 0.0);
      } else {
        cost = new AutoDiffCostFunction<Sighting, 3, 7>(new Sighting(s));
      }
      ids.push_back(problem.lower()->AddResidualBlock(
          cost,
          i % 2 ? new NoiseScaleLoss(nullptr, &x, ceres::TAKE_OWNERSHIP) : nullptr,
          pose.data()));
    }
    // f, with ambient Jacobians always.
    const Sighting above{{1.0, -2.0, 4.0}, {0.5, 0.3, -2.0}};
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Sighting, 3, 7>(new Sighting(above)), nullptr, pose.data());
    problem.SetParameterName(pose.data(), "pose");
  }
  double x = 0.3;
  Vector pose = (Vector(7) << 0, 0, 0, 0, 0, 0, 1).finished();
  std::vector<ceres::ResidualBlockId> ids;
  Problem problem;
};

struct Found {
  explicit Found(Kind kind) {
    Localization l(kind);
    Sensitivity::Options options;
    options.polish = true;
    Sensitivity sensitivity(options);
    EXPECT_TRUE(sensitivity.Compute(&l.problem, {&l.x})) << sensitivity.message();
    EXPECT_TRUE(sensitivity.GetSensitivityBlock(l.pose.data(), &l.x, by_x.data()));
    EXPECT_TRUE(sensitivity.GetSensitivityToResiduals(l.pose.data(), l.ids[3], by_data.data()));
    EXPECT_TRUE(sensitivity.LeaveOut(l.ids[4], l.pose.data(), left_out.data()));
    report = sensitivity.FullReport();
    Solver::Options solver;
    solver.max_num_iterations = 3;
    Solve(solver, &l.problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    x = l.x;
    pose = l.pose;
  }
  double x;
  Vector pose, by_x = Vector(7), by_data = Vector(18), left_out = Vector(6);
  std::string report;
  Solver::Summary summary;
};

TEST(TrueJacobian, TangentColumnsAndAmbientOnesAreBothRight) {
  const Found expected(kTrue);
  EXPECT_EQ(expected.report.find("PlusJacobian"), std::string::npos);
  for (const Kind kind : {kTangent, kAmbientCosts}) {
    const Found found(kind);
    EXPECT_LT((found.by_x - expected.by_x).norm(), 1e-8 * expected.by_x.norm()) << kind;
    EXPECT_LT((found.by_data - expected.by_data).norm(), 1e-8 * expected.by_data.norm()) << kind;
    EXPECT_LT((found.left_out - expected.left_out).norm(), 1e-8 * expected.left_out.norm());
    EXPECT_NEAR(found.x, expected.x, 1e-7 * std::abs(expected.x)) << kind;
    EXPECT_LT((found.pose - expected.pose).norm(), 1e-7) << kind;
    EXPECT_NEAR(found.summary.final_objective, expected.summary.final_objective, 1e-9) << kind;
    EXPECT_THAT(found.report, HasSubstr("PlusJacobian of the manifold of 'pose'"));
    EXPECT_THAT(found.summary.FullReport(), HasSubstr("PlusJacobian of the manifold of 'pose'"));
  }
}

// Against solves by Ceres itself, which the trick was made for; their y is good to 1e-9.
TEST(TrueJacobian, TheSensitivityIsThatOfCeresResolved) {
  Localization l(kTangent);
  ceres::Solver::Options options;
  options.function_tolerance = options.parameter_tolerance = 1e-20;
  options.gradient_tolerance = 1e-16;
  options.max_num_iterations = 200;
  const Vector by_x = Derivative<Vector>(
      [&](double step) {
        l.x = 0.3 + step;
        ceres::Solver::Summary summary;
        ceres::Solve(options, l.problem.lower(), &summary);
        return l.pose;
      },
      1e-2);
  EXPECT_LT((Found(kTangent).by_x - by_x).norm(), 1e-5 * by_x.norm());
}

TEST(TrueJacobian, NeitherTangentNorAmbientIsRefusedByBlock) {
  Localization l(kWrong);
  Solver::Summary summary;
  Solve({}, &l.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(summary.message,
              AllOf(HasSubstr("residual block 7 of the lower problem has a Jacobian"),
                    HasSubstr("parameter block 0")));
}

#if CERES_VERSION_MAJOR == 2 && CERES_VERSION_MINOR < 2

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

// An angle, with a PlusJacobian that is off by a factor.
class AngleParameterization : public ceres::LocalParameterization {
 public:
  explicit AngleParameterization(double factor) : factor_(factor) {}
  bool Plus(const double* x, const double* d, double* y) const override {
    y[0] = x[0] + d[0];
    return true;
  }
  bool ComputeJacobian(const double*, double* jacobian) const override {
    jacobian[0] = factor_;
    return true;
  }
  int GlobalSize() const override { return 1; }
  int LocalSize() const override { return 1; }

 private:
  const double factor_;
};

struct Pull {
  template <typename T>
  bool operator()(const T* a, const T* b, const T* x, T* r) const {
    r[0] = sin(a[0]) - x[0];
    r[1] = sin(b[0]) - T(0.5) * x[0];
    return true;
  }
};
struct Sum {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    r[0] = a[0] + b[0];
    return true;
  }
};

// Ceres gives all of them as manifolds of one type.
TEST(TrueJacobian, LocalParameterizationsAreLookedAtOneByOne) {
  for (const bool wrong_first : {false, true}) {
    double x = 0.4, a = 0.1, b = 0.1;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddParameterBlock(&a, 1, new AngleParameterization(wrong_first ? 2.0 : 1.0));
    problem.lower()->AddParameterBlock(&b, 1, new AngleParameterization(wrong_first ? 1.0 : 2.0));
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Pull, 2, 1, 1, 1>(new Pull), nullptr, &a, &b, &x);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Sum, 1, 1, 1>(new Sum), nullptr, &a, &b);
    problem.SetParameterName(&a, "a");
    problem.SetParameterName(&b, "b");
    Sensitivity::Options options;
    options.polish = true;
    Sensitivity sensitivity(options);
    ASSERT_TRUE(sensitivity.Compute(&problem, {&x})) << sensitivity.message();
    double da, db;
    ASSERT_TRUE(sensitivity.GetSensitivityBlock(&a, &x, &da));
    ASSERT_TRUE(sensitivity.GetSensitivityBlock(&b, &x, &db));
    EXPECT_NEAR(da, 1.0 / std::sqrt(1.0 - 0.16), 1e-8);
    EXPECT_NEAR(db, 0.5 / std::sqrt(1.0 - 0.04), 1e-8);
    EXPECT_THAT(sensitivity.FullReport(),
                HasSubstr(wrong_first ? "the manifold of 'a'" : "the manifold of 'b'"));
  }
}

#pragma GCC diagnostic pop
#endif

TEST(TrueJacobian, OfCeresOwnManifoldsIsTheirs) {
  const double x[] = {0.1, -0.2, 0.3, std::sqrt(0.86)};
  EXPECT_LT(PlusJacobianError(ceres::QuaternionManifold(), x), 1e-12);
  EXPECT_LT(PlusJacobianError(ceres::EigenQuaternionManifold(), x), 1e-12);
  const double pose[] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0};
  EXPECT_GT(PlusJacobianError(PoseManifold(false), pose), 0.1);
  EXPECT_LT(PlusJacobianError(PoseManifold(true), pose), 1e-12);
}

}  // namespace
}  // namespace bilevel
