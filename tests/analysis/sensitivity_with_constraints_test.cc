// Constraints of the lower level behind the other doors: Sensitivity, ArgminCostFunction,
// scenarios, bounds, manifolds, checkpoints.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/analysis/argmin_cost_function.h"
#include "bilevel/analysis/hypergradient_checker.h"
#include "bilevel/analysis/hypergradient_matchers.h"
#include "bilevel/analysis/sensitivity.h"
#include "ceres/sphere_manifold.h"
#include "constrained_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// min 1/2 |y - (x, 2 x, 1)|^2 subject to y0 + y1 + y2 = 1 and y2 <= x / 2.
struct ThreeOnAPlane {
  ThreeOnAPlane() {
    problem.AddUpperParameterBlock(&x, 1);
    data = problem.lower()->AddResidualBlock(
        new Affine(Matrix::Identity(3, 3), Rows(1, {-1, -2, 0}), Entries({0, 0, 1})),
        nullptr,
        y,
        &x);
    problem.upper()->AddResidualBlock(new NormalPrior({0.5, 0.5, 0.5}, 1.0), nullptr, y);
    problem.AddLowerEquality(new Affine(Rows(3, {1, 1, 1}), Rows(1, {0}), Entries({1.0})), y, &x);
    problem.AddLowerInequality(
        new Affine(Rows(3, {0, 0, 1}), Rows(1, {-0.5}), Entries({0.0})), y, &x);
  }
  // y2 = x / 2; of the rest the sum is 1 - x / 2 and the difference -x.
  static Eigen::Vector3d Solution(double x) {
    const double sum = 1.0 - 0.5 * x;
    return {0.5 * (sum - x), 0.5 * (sum + x), 0.5 * x};
  }
  double x = 0.4, y[3] = {0.0, 0.0, 0.0};
  ceres::ResidualBlockId data;
  Problem problem;
};

// Four readings a'y of y = (x + t, t), which the equality y0 - y1 = x leaves: t is their mean by
// slopes a0 + a1.
TEST(SensitivityWithConstraints, LeavesOutAReadingInClosedForm) {
  const double a[4][2] = {{1.0, 0.0}, {0.0, 1.0}, {1.0, 2.0}, {2.0, 1.0}};
  const double z[4] = {0.7, -0.4, 1.0, 0.2};
  double x = 0.5, y[2] = {0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  std::vector<ceres::ResidualBlockId> readings;
  for (int k = 0; k < 4; ++k) {
    readings.push_back(problem.lower()->AddResidualBlock(
        new Affine(Rows(2, {a[k][0], a[k][1]}), Rows(1, {0.0}), Entries({z[k]})), nullptr, y, &x));
  }
  problem.AddLowerEquality(
      new Affine(Rows(2, {1.0, -1.0}), Rows(1, {-1.0}), Entries({0.0})), y, &x);
  const auto t_without = [&](int left_out) {
    double sum = 0.0, squares = 0.0;
    for (int k = 0; k < 4; ++k) {
      if (k == left_out) continue;
      const double slope = a[k][0] + a[k][1];
      sum += slope * (z[k] - a[k][0] * x);
      squares += slope * slope;
    }
    return sum / squares;
  };
  Sensitivity::Options options;
  options.polish = true;
  Sensitivity sensitivity(options);
  ASSERT_TRUE(sensitivity.Compute(&problem, {&x})) << sensitivity.message();
  for (int k = 0; k < 4; ++k) {
    double motion[2];
    ASSERT_TRUE(sensitivity.LeaveOut(readings[k], y, motion)) << sensitivity.message();
    for (int i : {0, 1}) EXPECT_NEAR(motion[i], t_without(k) - t_without(-1), 1e-12) << k;
  }
}

// y = min(x, 0.3) at x = 0.3: what looks like a wrong gradient is a kink, and is said to be.
TEST(SensitivityWithConstraints, TheCheckerNamesAKink) {
  double x = 0.3, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new Affine(Rows(1, {1.0}), Rows(1, {-1.0}), Entries({0.0})), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(new NormalPrior({3.0}, 1.0), nullptr, &y);
  problem.AddLowerInequality(new NormalPrior({0.3}, 1.0), &y);
  const auto check = HypergradientChecker::Check(&problem);
  ASSERT_TRUE(check.ok) << check.message;
  EXPECT_THAT(check.Report(), HasSubstr("inequality 0 of the lower problem"));
  EXPECT_THAT(check.Report(), HasSubstr("one side"));
}

// y = min(x, 0.3) at x = 0.3.
TEST(SensitivityWithConstraints, DirectionsAtAKinkAreOneSided) {
  double x = 0.3, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new Affine(Rows(1, {1.0}), Rows(1, {-1.0}), Entries({0.0})), nullptr, &y, &x);
  problem.AddLowerInequality(new NormalPrior({0.3}, 1.0), &y);
  Sensitivity::Options options;
  options.polish = true;
  Sensitivity sensitivity(options);
  ASSERT_TRUE(sensitivity.Compute(&problem, {&x})) << sensitivity.message();
  EXPECT_THAT(sensitivity.weakly_active(), HasSubstr("inequality 0 of the lower problem"));
  for (const double way : {-2.0, 1.0}) {
    double motion;
    ASSERT_TRUE(sensitivity.Directional({{&x, &way}}, &y, &motion));
    EXPECT_NEAR(motion, std::min(way, 0.0), 1e-9);
  }
}

TEST(SensitivityWithConstraints, HasItsDerivativesInClosedForm) {
  ThreeOnAPlane p;
  Sensitivity::Options options;
  options.polish = true;
  Sensitivity sensitivity(options);
  ASSERT_TRUE(sensitivity.Compute(&p.problem, {&p.x})) << sensitivity.message();
  double dy[3];
  ASSERT_TRUE(sensitivity.GetSensitivityBlock(p.y, &p.x, dy)) << sensitivity.message();
  EXPECT_NEAR(dy[0], -0.75, 1e-12);
  EXPECT_NEAR(dy[1], 0.25, 1e-12);
  EXPECT_NEAR(dy[2], 0.5, 1e-12);
  EXPECT_LT((Eigen::Vector3d(p.y) - ThreeOnAPlane::Solution(0.4)).norm(), 1e-12);
  // The covariance is that of the difference of y0 and y1 alone.
  double covariance[9];
  ASSERT_TRUE(sensitivity.GetCovarianceBlock(p.y, p.y, covariance)) << sensitivity.message();
  const double expected[9] = {0.5, -0.5, 0, -0.5, 0.5, 0, 0, 0, 0};
  for (int i = 0; i < 9; ++i) EXPECT_NEAR(covariance[i], expected[i], 1e-12) << i;
}

TEST(SensitivityWithConstraints, RefusesAnUnsolvedY) {
  ThreeOnAPlane p;
  p.y[0] = 3.0;
  Sensitivity sensitivity;
  EXPECT_FALSE(sensitivity.Compute(&p.problem, {&p.x}));
  EXPECT_THAT(sensitivity.message(), HasSubstr("not solved"));
  const Eigen::Vector3d y = ThreeOnAPlane::Solution(0.4);
  std::copy_n(y.data(), 3, p.y);
  EXPECT_TRUE(sensitivity.Compute(&p.problem, {&p.x})) << sensitivity.message();
}

TEST(SensitivityWithConstraints, ArgminInCeresIsTheLineThatItIs) {
  ThreeOnAPlane p;
  ArgminCostFunction argmin({}, &p.problem, {p.y});
  ASSERT_TRUE(argmin.ok()) << argmin.error();
  for (const double at : {0.4, 0.5, 0.1}) {
    double y[3], dy[3];
    const double* parameters[] = {&at};
    double* jacobians[] = {dy};
    ASSERT_TRUE(argmin.Evaluate(parameters, y, jacobians)) << argmin.error();
    EXPECT_LT((Eigen::Vector3d(y) - ThreeOnAPlane::Solution(at)).norm(), 1e-10);
    EXPECT_LT((Eigen::Vector3d(dy) - Eigen::Vector3d(-0.75, 0.25, 0.5)).norm(), 1e-10);
  }
}

// Bounds beside constraints: y0 <= 0.2 by ceres::Problem, y0 + y1 = x.
TEST(SensitivityWithConstraints, BoundsHoldBesideConstraints) {
  double x = 1.0, y[2] = {0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(new NormalPrior({1.0, 0.5}, 1.0), nullptr, y);
  problem.lower()->SetParameterUpperBound(y, 0, 0.2);
  problem.upper()->AddResidualBlock(new NormalPrior({0.0, 2.0}, 1.0), nullptr, y);
  problem.AddLowerEquality(new Affine(Rows(2, {1, 1}), Rows(1, {-1}), Entries({0.0})), y, &x);
  Constrained c(&problem);
  Vector gradient;
  c.Phi(&gradient);
  EXPECT_NEAR(c.y.value()[0], 0.2, 1e-12);
  EXPECT_NEAR(c.y.value()[1], 0.8, 1e-12);
  EXPECT_NEAR(gradient[0], 0.8 - 2.0, 1e-12);
  EXPECT_EQ(c.solver->num_active_bounds(), 1);
  Solver::Summary summary;
  Solve({}, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
  EXPECT_NEAR(x, 2.2, 1e-6);
  EXPECT_NEAR(y[1], 2.0, 1e-6);
}

// Every scenario has its own constraint; one has none.
TEST(SensitivityWithConstraints, ScenariosHaveTheirOwn) {
  double x_by_threads[2];
  for (const int num_threads : {1, 2}) {
    double x = 0.3, y[3][2] = {};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    for (int s = 0; s < 3; ++s) {
      Scenario* scenario = problem.AddScenario("s" + std::to_string(s));
      scenario->lower()->AddResidualBlock(
          new Affine(Matrix::Identity(2, 2), Rows(1, {-1, 0}), Entries({0, 1.0 * s})),
          nullptr,
          y[s],
          &x);
      scenario->upper()->AddResidualBlock(new NormalPrior({1.0, 0.5}, 1.0), nullptr, y[s]);
      if (s == 0) continue;
      scenario->AddLowerInequality(
          new Affine(Rows(2, {1, 1}), Rows(1, {0}), Entries({0.9 * s})), y[s], &x);
    }
    Solver::Options options;
    options.num_threads = num_threads;
    HypergradientChecker::Options check;
    check.solver = options;
    EXPECT_THAT(&problem, HasExactHypergradient(1e-8, check));
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
    for (int s = 1; s < 3; ++s) EXPECT_LE(y[s][0] + y[s][1], 0.9 * s + 1e-9);
    x_by_threads[num_threads - 1] = x;
    // And drawn by turns.
    const double best = x;
    x = 0.3;
    options.method = CreateMethod("adam");
    options.num_scenarios_per_iteration = 2;
    options.max_num_iterations = 500;
    Solve(options, &problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.message;
    EXPECT_NEAR(x, best, 0.1);
    for (int s = 1; s < 3; ++s) EXPECT_LE(y[s][0] + y[s][1], 0.9 * s + 1e-9);
  }
  EXPECT_EQ(x_by_threads[0], x_by_threads[1]);
}

struct OnMeridian {  // q in the plane spanned by (1, 0, 0) and (0, cos x, sin x).
  template <typename T>
  bool operator()(const T* q, const T* x, T* h) const {
    using std::cos;
    using std::sin;
    h[0] = cos(x[0]) * q[2] - sin(x[0]) * q[1];
    return true;
  }
};
struct Pull {
  template <typename T>
  bool operator()(const T* q, T* r) const {
    for (int k = 0; k < 3; ++k) r[k] = q[k] - to[k];
    return true;
  }
  double to[3];
};

TEST(SensitivityWithConstraints, ManifoldsBendConstraints) {
  double x = 0.6, q[3] = {0.0, 0.6, 0.8};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Pull, 3, 3>(new Pull{{0.4, 1.0, 0.3}}), nullptr, q);
  problem.lower()->SetManifold(q, new ceres::SphereManifold<3>());
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Pull, 3, 3>(new Pull{{0.2, 0.3, 1.0}}), nullptr, q);
  problem.AddLowerEquality(new AutoDiffCostFunction<OnMeridian, 1, 3, 1>(new OnMeridian), q, &x);
  EXPECT_THAT(&problem, HasExactHypergradient(1e-7));
}

// A run in pieces has the bits of one that is not interrupted.
TEST(SensitivityWithConstraints, CheckpointsHoldMultipliers) {
  const std::string path = ::testing::TempDir() + "constrained_checkpoint.npz";
  for (const char* method : {"levenberg_marquardt", "gradient_descent"}) {
    std::remove(path.c_str());
    const auto solve = [&](int num_iterations, const std::string& file, PathPastDiscs* p) {
      Solver::Options options;
      options.method = CreateMethod(method);
      options.max_num_iterations = num_iterations;
      options.checkpoint.file = file;
      options.checkpoint.resume = true;
      Solver::Summary summary;
      Solve(options, &p->problem, &summary);
      EXPECT_TRUE(summary.IsSolutionUsable()) << summary.message;
      EXPECT_EQ(summary.checkpoint_error, "");
      return summary.resumed_from_iteration;
    };
    PathPastDiscs whole(0.004), pieces(0.004);
    solve(6, "", &whole);
    solve(2, path, &pieces);
    EXPECT_GT(solve(4, path, &pieces), 0);
    EXPECT_GT(solve(6, path, &pieces), 0);
    EXPECT_NE(whole.x[2], 0.004);
    for (int j = 0; j < 3; ++j) EXPECT_EQ(whole.x[j], pieces.x[j]) << method;
    for (int i = 0; i < kPoints; ++i) {
      EXPECT_EQ(whole.y[i][0], pieces.y[i][0]) << method;
      EXPECT_EQ(whole.y[i][1], pieces.y[i][1]) << method;
    }
  }
}

// What knows no constraints is not chosen behind the user's back.
TEST(SensitivityWithConstraints, OtherDoorsTakeOrRefuseThem) {
  ThreeOnAPlane p;
  Solver::Options options;
  Uncertainty uncertainty;
  std::string error;
  const bool is_computed =
      ComputeUncertainty(options, HessianKind::kExact, &p.problem, &uncertainty, &error);
  EXPECT_FALSE(is_computed);
  EXPECT_THAT(error, HasSubstr("equality 0 of the lower problem"));
  options.lower_starts = 4;
  Solver::Summary summary;
  Solve(options, &p.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
  EXPECT_NEAR(p.y[0] + p.y[1] + p.y[2], 1.0, 1e-10);
  EXPECT_NEAR(p.y[2], 0.5 * p.x, 1e-10);

  double y[2] = {0.0, 0.0};  // g leaves y1 free within y0 + y1 = 1, and f likes y1 = 3.
  Problem free;
  double x = 0.5;
  free.AddUpperParameterBlock(&x, 1);
  free.lower()->AddResidualBlock(
      new Affine(Rows(2, {1, 0}), Rows(1, {-1}), Entries({0.0})), nullptr, y, &x);
  free.upper()->AddResidualBlock(new NormalPrior({0.0, 3.0}, 1.0), nullptr, y);
  free.AddLowerInequality(new Affine(Rows(2, {1, 1}), Rows(1, {0}), Entries({1.0})), y, &x);
  Solve({}, &free, &summary);
  EXPECT_NE(summary.termination_type, ceres::CONVERGENCE) << summary.message;
}

}  // namespace
}  // namespace bilevel
