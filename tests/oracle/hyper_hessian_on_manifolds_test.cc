// The second derivative of phi where x or y lives on a manifold.
#include <algorithm>
#include <cmath>

#include "Eigen/Core"
#include "ceres/manifold.h"
#include "ceres/rotation.h"
#include "gtest/gtest.h"
#include "oracle/phi_around.h"
#include "pose_graph.h"
#include "sphere.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// Rotation averaging: y turns directions into what is seen of them, with weights e^x0, e^x1, about
// an axis x2.. that the lower level has too.
struct Turn {
  template <typename T>
  bool operator()(const T* q, const T* x, T* r) const {
    using std::exp;
    const T p[3] = {T(from[0]) + 0.3 * x[2], T(from[1]), T(from[2]) - 0.2 * x[2] * x[2]};
    T turned[3];
    ceres::QuaternionRotatePoint(q, p, turned);
    for (int i = 0; i < 3; ++i) r[i] = exp(x[weight]) * (turned[i] - to[i]);
    return true;
  }
  double from[3], to[3];
  int weight;
};
struct Rotated {
  template <typename T>
  bool operator()(const T* q, T* r) const {
    const T p[3] = {T(0.3), T(-1.0), T(0.5)};
    ceres::QuaternionRotatePoint(q, p, r);
    for (int i = 0; i < 3; ++i) r[i] -= T(0.4 * i);
    return true;
  }
};

TEST(HyperHessian, RotationBelow) {
  double x[3] = {0.2, -0.3, 0.4}, q[4] = {1.0, 0.0, 0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(x, 3);
  problem.lower()->AddParameterBlock(q, 4, new ceres::QuaternionManifold);
  for (int i = 0; i < 4; ++i) {
    const Vector v = TestVector(6, 0.8 * i);
    problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Turn, 3, 4, 3>(
                                          new Turn{{v[0], v[1], v[2]}, {v[3], v[4], v[5]}, i % 2}),
                                      nullptr,
                                      q,
                                      x);
  }
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Rotated, 3, 4>(new Rotated), nullptr, q);
  Phi phi(&problem);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedGradients()), 1e-9);
}

TEST(HyperHessian, PosesBelow) {
  double log_weights[2] = {0.3, -0.2};
  const auto graph = MakeHelix(12, 3, 0.3, 5);
  Problem problem;
  problem.AddUpperParameterBlock(log_weights, 2);
  graph->AddEdges(problem.lower(), log_weights);
  graph->AddPrior(problem.lower(), 0, 10.0);
  graph->AddErrors(problem.upper());
  Phi phi(&problem);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedGradients()), 1e-9);
}

// y near a direction x on the sphere, bent by a weight.
struct Near {
  template <typename T>
  bool operator()(const T* y, const T* x, const T* log_weight, T* r) const {
    using std::exp;
    for (int i = 0; i < 3; ++i) r[i] = exp(log_weight[0]) * (y[i] - x[i]) * (1.0 + 0.2 * i);
    r[3] = y[0] * y[1] - 0.3 + 0.5 * y[2] * x[0] + 0.2 * y[1];
    return true;
  }
};
struct Seen {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] - 0.3;
    r[1] = y[1] * y[2] + 0.4 - 0.6 * x[1];
    r[2] = y[0] * x[2];
    return true;
  }
};

// Frames flip at the pole, and the retraction counts where the gradient is not 0.
TEST(HyperHessian, SpheresBelowAndAboveEvenAtThePole) {
  for (const double tilt : {0.0, 1e-4, 0.7}) {
    SCOPED_TRACE(tilt);
    double x[3] = {std::sin(tilt), 0.0, std::cos(tilt)}, y[3] = {0.1, -0.2, 1.0}, log_weight = 0.5;
    Eigen::Map<Eigen::Vector3d>(y).normalize();
    Problem problem;
    problem.AddUpperParameterBlock(x, 3, NewSphere());
    problem.AddUpperParameterBlock(&log_weight, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Near, 4, 3, 3, 1>(new Near), nullptr, y, x, &log_weight);
    problem.lower()->SetManifold(y, NewSphere());
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Seen, 3, 3, 3>(new Seen), nullptr, y, x);
    Phi phi(&problem);
    EXPECT_LT(Off(phi.Hessian(), phi.DifferencedValues()), 1e-8);
  }
}

struct Pulled {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] - x[0] + y[0] * y[1];
    r[1] = 2.0 * (y[1] - x[1]) + y[0] * x[0];
    r[2] = y[0] * y[1] + x[1] * y[0];
    return true;
  }
};
struct SeenFrom {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 0.3 + y[1] * y[1];
    r[1] = y[1] * y[2] + 0.4 * y[0];
    return true;
  }
};

TEST(HyperHessian, SphereBelowAtThePole) {
  double x[2] = {0.0, 0.0}, y[3] = {0.0, 0.0, 1.0};
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Pulled, 3, 3, 2>(new Pulled), nullptr, y, x);
  problem.lower()->SetManifold(y, NewSphere());
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<SeenFrom, 2, 3>(new SeenFrom), nullptr, y);
  Phi phi(&problem);
  ASSERT_EQ(phi.y.value()[2], 1.0);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedGradients()), 1e-9);
}

// x a rotation that the gradient does not vanish at, y a pose.
struct Aligned {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    for (int i = 0; i < 4; ++i) r[i] = (1.0 + 0.3 * i) * (y[i] - x[i]);
    r[4] = y[0] * y[2] - 0.2 + x[1] * y[3];
    return true;
  }
};

TEST(HyperHessian, RotationAbove) {
  double x[4] = {0.8, 0.4, -0.3, 0.2}, q[4] = {1.0, 0.0, 0.0, 0.0};
  Eigen::Map<Eigen::Vector4d>(x).normalize();
  Problem problem;
  problem.AddUpperParameterBlock(x, 4, new ceres::QuaternionManifold);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Aligned, 5, 4, 4>(new Aligned), nullptr, q, x);
  problem.lower()->SetManifold(q, new ceres::QuaternionManifold);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Rotated, 3, 4>(new Rotated), nullptr, q);
  Phi phi(&problem);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedValues()), 1e-8);
}

// A circle that delta runs along by delta + delta^2: phi's second derivative is that in delta.
class BentCircle : public ceres::Manifold {
 public:
  int AmbientSize() const override { return 2; }
  int TangentSize() const override { return 1; }
  bool Plus(const double* x, const double* delta, double* plus) const override {
    const double angle = std::atan2(x[1], x[0]) + delta[0] + delta[0] * delta[0];
    plus[0] = std::cos(angle);
    plus[1] = std::sin(angle);
    return true;
  }
  bool PlusJacobian(const double* x, double* jacobian) const override {
    jacobian[0] = -x[1];
    jacobian[1] = x[0];
    return true;
  }
  bool Minus(const double* y, const double* x, double* delta) const override {
    const double angle = std::atan2(x[0] * y[1] - x[1] * y[0], x[0] * y[0] + x[1] * y[1]);
    delta[0] = 0.5 * (std::sqrt(std::max(0.0, 1.0 + 4.0 * angle)) - 1.0);
    return true;
  }
  bool MinusJacobian(const double* x, double* jacobian) const override {
    return PlusJacobian(x, jacobian);
  }
};
struct OnCircle {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] - x[0] * x[1];
    r[1] = 0.5 * y[0] * y[0] - x[1];
    return true;
  }
};

TEST(HyperHessian, TheRetractionOfXCounts) {
  double x[2] = {0.8, 0.6}, y = 0.4;
  Problem problem;
  problem.AddUpperParameterBlock(x, 2, new BentCircle);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<OnCircle, 2, 1, 2>(new OnCircle), nullptr, &y, x);
  problem.upper()->AddResidualBlock(TargetCost(-0.3), nullptr, &y);
  Phi phi(&problem);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedValues()), 1e-8);
}

}  // namespace
}  // namespace bilevel
