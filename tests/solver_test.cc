// Whole solves against closed forms.
#include "bilevel/solver.h"

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "Eigen/Core"
#include "bilevel/base/internal/decompositions.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sphere.h"
#include "test_problems.h"

namespace bilevel {
namespace {

Solver::Options Tight(const std::string& method) {
  Solver::Options options;
  options.method = CreateMethod(method);
  options.function_tolerance = 0.0;
  options.parameter_tolerance = 1e-14;
  options.gradient_tolerance = 1e-11;
  options.max_num_iterations = 200;
  return options;
}

struct Row {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = T(-target);
    for (int i = 0; i < 4; ++i) residual[0] += features[i] * y[i];
    return true;
  }
  Eigen::Vector4d features;
  double target;
};

struct RidgeResidual {
  template <typename T>
  bool operator()(const T* y, const T* log_weight, T* residual) const {
    using std::exp;
    for (int i = 0; i < 4; ++i) residual[i] = exp(log_weight[0]) * y[i];
    return true;
  }
};

// Ridge regression with learned ridge; phi and its derivative from the normal equations.
struct Ridge {
  Ridge() {
    std::mt19937 generator(1);
    std::normal_distribution<double> normal;
    const Eigen::Vector4d truth(1.0, -0.5, 0.2, 0.0);
    problem.AddUpperParameterBlock(&log_weight, 1);
    for (int i = 0; i < 40; ++i) {
      Row row;
      for (double& feature : row.features) feature = normal(generator);
      row.target = row.features.dot(truth) + 2.0 * normal(generator);
      const bool training = i < 12;
      (training ? problem.lower() : problem.upper())
          ->AddResidualBlock(new AutoDiffCostFunction<Row, 1, 4>(new Row(row)), nullptr, y);
      (training ? ata : ctc) += row.features * row.features.transpose();
      (training ? atb : ctd) += row.features * row.target;
    }
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<RidgeResidual, 4, 4, 1>(new RidgeResidual),
        nullptr,
        y,
        &log_weight);
  }
  // dphi/dw = -2 e^{2w} (C'C y - C'd)' H^{-1} y.
  double Slope(double w) const {
    const Eigen::Matrix4d h = ata + std::exp(2 * w) * Eigen::Matrix4d::Identity();
    const Eigen::Vector4d solution = SolveSymmetric(h, atb), next = SolveSymmetric(h, solution);
    return -2.0 * std::exp(2 * w) * (ctc * solution - ctd).dot(next);
  }
  double y[4] = {0, 0, 0, 0}, log_weight = 0.0;
  Eigen::Matrix4d ata = Eigen::Matrix4d::Zero(), ctc = ata;
  Eigen::Vector4d atb = Eigen::Vector4d::Zero(), ctd = atb;
  Problem problem;
};

TEST(Solver, RidgeByEveryMethod) {
  Ridge reference;
  double low = -5.0, high = 5.0;  // phi has one minimum there: bisect its slope.
  ASSERT_LT(reference.Slope(low), 0.0);
  ASSERT_GT(reference.Slope(high), 0.0);
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (low + high);
    (reference.Slope(middle) < 0.0 ? low : high) = middle;
  }
  for (const char* method : {"levenberg_marquardt", "lbfgs", "bfgs"}) {
    Ridge ridge;
    Solver::Summary summary;
    Solve(Tight(method), &ridge.problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_NEAR(ridge.log_weight, low, 1e-8) << method;
    const Eigen::Matrix4d h =
        ridge.ata + std::exp(2 * ridge.log_weight) * Eigen::Matrix4d::Identity();
    EXPECT_LT((Eigen::Map<Eigen::Vector4d>(ridge.y) - SolveSymmetric(h, ridge.atb)).norm(), 1e-9);
    EXPECT_LT(summary.final_gradient_max_norm, 1e-7) << method;
  }
}

TEST(Solver, WeightLearning) {
  // Q2: y* = (w^2 a + b) / (w^2 + 1) = c.
  for (const char* method : {"levenberg_marquardt", "lbfgs", "bfgs"}) {
    double log_w = 0.5, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&log_w, 1);
    problem.lower()->AddResidualBlock(WeightedCost(3.0), nullptr, &y, &log_w);
    problem.lower()->AddResidualBlock(TargetCost(-1.0), nullptr, &y);
    problem.upper()->AddResidualBlock(TargetCost(0.25), nullptr, &y);
    Solver::Summary summary;
    Solve(Tight(method), &problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_NEAR(log_w, 0.5 * std::log((0.25 + 1.0) / (3.0 - 0.25)), 1e-8) << method;
    EXPECT_NEAR(y, 0.25, 1e-8);
  }
}

TEST(Solver, BoundOnXActiveAtTheSolution) {
  for (const bool below : {false, true}) {
    double x = 0.0, y = 0.0;  // y* = (x + 2) / 2, f = (y - 3)^2 / 2: x = 4 without bounds.
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.lower()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
    problem.upper()->AddResidualBlock(TargetCost(3.0), nullptr, &y);
    if (below) {
      problem.lower()->SetParameterUpperBound(&x, 0, 2.5);
      problem.SetParameterLowerBound(&x, 0, -10.0);
    } else {
      problem.SetParameterUpperBound(&x, 0, 2.5);
    }
    Solver::Summary summary;
    Solve(Tight("levenberg_marquardt"), &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_EQ(x, 2.5);
    EXPECT_NEAR(y, 2.25, 1e-12);
  }
}

// y is drawn to x, a point of the unit sphere.
struct Draw {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    for (int i = 0; i < 3; ++i) residual[i] = y[i] - x[i];
    return true;
  }
};
struct Target3 {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    for (int i = 0; i < 3; ++i) residual[i] = y[i] - target[i];
    return true;
  }
  Eigen::Vector3d target;
};

TEST(Solver, SphereAsX) {
  // y* = (x + a) / 2, f = |y - b|^2 / 2: x is the direction of 2 b - a.
  const Eigen::Vector3d a(0.3, -0.2, 0.5), b(1.0, 0.7, -0.4);
  for (const char* method : {"levenberg_marquardt", "lbfgs", "bfgs"}) {
    Eigen::Vector3d x(0.0, 0.6, 0.8), y = Eigen::Vector3d::Zero();
    Problem problem;
    problem.AddUpperParameterBlock(x.data(), 3, NewSphere());
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Draw, 3, 3, 3>(new Draw), nullptr, y.data(), x.data());
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Target3, 3, 3>(new Target3{a}), nullptr, y.data());
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Target3, 3, 3>(new Target3{b}), nullptr, y.data());
    Solver::Summary summary;
    Solve(Tight(method), &problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_LT((x - (2.0 * b - a).normalized()).norm(), 1e-8) << method << summary.FullReport();
    EXPECT_NEAR(x.norm(), 1.0, 1e-12);
  }
}

// A measured rotation: the vector part of 2 q conj(m).
struct RotationError {
  template <typename T>
  bool operator()(const T* q, T* residual) const {
    const T inverse[4] = {T(m[0]), T(-m[1]), T(-m[2]), T(-m[3])};
    T product[4];
    ceres::QuaternionProduct(q, inverse, product);
    for (int i = 0; i < 3; ++i) residual[i] = 2.0 * product[i + 1];
    return true;
  }
  Eigen::Vector4d m;
};

// Rotations measured by two sensors of different noise; only the ratio of the two learned noise
// scales matters: the other direction must not move.
TEST(Solver, RotationAveragingWithTwoNoiseScales) {
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  constexpr int kRotations = 8;
  std::vector<Eigen::Vector4d> truth, start;
  std::vector<std::vector<Eigen::Vector4d>> measured(kRotations);
  const auto perturbed = [&](const Eigen::Vector4d& q, double sigma) {
    Eigen::Vector4d result;
    const Eigen::Vector3d delta =
        sigma * Eigen::Vector3d(normal(generator), normal(generator), normal(generator));
    ceres::QuaternionManifold().Plus(q.data(), delta.data(), result.data());
    return result;
  };
  for (int i = 0; i < kRotations; ++i) {
    truth.push_back(TestVector(4, 0.5 + i).head<4>().normalized());
    for (int k = 0; k < 6; ++k) measured[i].push_back(perturbed(truth[i], k < 3 ? 0.02 : 0.15));
    start.push_back(perturbed(truth[i], 0.1));
  }
  double reference_ratio = 0.0;
  for (const char* method : {"levenberg_marquardt", "lbfgs", "bfgs"}) {
    double log_sigma[2] = {0.3, 0.1};
    std::vector<Eigen::Vector4d> q = start;
    Problem problem;
    for (double& s : log_sigma) problem.AddUpperParameterBlock(&s, 1);
    for (int i = 0; i < kRotations; ++i) {
      for (int k = 0; k < 6; ++k) {
        problem.lower()->AddResidualBlock(
            new ceres::AutoDiffCostFunction<RotationError, 3, 4>(new RotationError{measured[i][k]}),
            new NoiseScaleLoss(nullptr, &log_sigma[k < 3 ? 0 : 1], ceres::TAKE_OWNERSHIP),
            q[i].data());
      }
      problem.lower()->SetManifold(q[i].data(), new ceres::QuaternionManifold);
      problem.upper()->AddResidualBlock(
          new ceres::AutoDiffCostFunction<RotationError, 3, 4>(new RotationError{truth[i]}),
          nullptr,
          q[i].data());
    }
    Solver::Options options = Tight(method);
    options.gradient_tolerance = 1e-13;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    const double ratio = log_sigma[0] - log_sigma[1];
    EXPECT_NEAR(log_sigma[0] + log_sigma[1], 0.4, 1e-6) << method;
    EXPECT_LT(ratio, 0.0);
    if (reference_ratio == 0.0) reference_ratio = ratio;
    EXPECT_NEAR(ratio, reference_ratio, 1e-5) << method << summary.FullReport();
    EXPECT_EQ(summary.num_numeric_residual_blocks, 6 * kRotations);

    // phi by re-solving with Ceres alone is no smaller anywhere near.
    const auto phi = [&](double d) {
      const double saved = log_sigma[0];
      log_sigma[0] += d;
      ceres::Solver::Options ceres_options;
      ceres_options.logging_type = ceres::SILENT;
      ceres_options.function_tolerance = ceres_options.gradient_tolerance = 1e-16;
      ceres_options.parameter_tolerance = 1e-14;
      ceres::Solver::Summary ceres_summary;
      ceres::Solve(ceres_options, problem.lower(), &ceres_summary);
      double value = 0.0;
      problem.upper()->Evaluate({}, &value, nullptr, nullptr, nullptr);
      log_sigma[0] = saved;
      return value;
    };
    const double at_solution = summary.final_objective;
    EXPECT_NEAR(phi(0.0), at_solution, 1e-9 * at_solution);
    EXPECT_GT(phi(0.02), at_solution);
    EXPECT_GT(phi(-0.02), at_solution);
  }
}

}  // namespace
}  // namespace bilevel
