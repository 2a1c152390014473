// The covariance of x against closed forms, simulation and other derivatives.
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sphere.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Solver::Options Tight(const std::string& method = "levenberg_marquardt") {
  Solver::Options options;
  options.method = CreateMethod(method);
  options.function_tolerance = 0.0;
  options.parameter_tolerance = 1e-13;
  options.max_num_iterations = 200;
  return options;
}

// The lower level smooths: y*(x) = (I + diag(e^x))^-1 b, coordinate by coordinate. Above, ten
// noisy views of each y_i.
constexpr int kSize = 3, kViews = 10;
constexpr double kData[kSize] = {2.0, -3.0, 4.0};

struct Shrink {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    using std::exp;
    residual[0] = exp(0.5 * x[0]) * y[0];
    return true;
  }
};

struct Smoothing {
  explicit Smoothing(unsigned seed, double sigma = 0.1) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0.0, sigma);
    for (int i = 0; i < kSize; ++i) {
      problem.AddUpperParameterBlock(&x[i], 1);
      problem.SetParameterName(&x[i], "x" + std::to_string(i));
      problem.lower()->AddResidualBlock(TargetCost(kData[i]), nullptr, &y[i]);
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Shrink, 1, 1, 1>(new Shrink), nullptr, &y[i], &x[i]);
      for (int k = 0; k < kViews; ++k) {
        targets.push_back(Y(i, Truth(i)) + normal(generator));
        problem.upper()->AddResidualBlock(TargetCost(targets.back()), nullptr, &y[i]);
      }
    }
  }
  static double Truth(int i) { return -0.5 + 0.4 * i; }
  static double Y(int i, double x) { return kData[i] / (1.0 + std::exp(x)); }
  // dy*/dx.
  static double Slope(int i, double x) {
    const double e = std::exp(x);
    return -kData[i] * e / ((1.0 + e) * (1.0 + e));
  }
  Solver::Summary Solve(const Solver::Options& options = Tight()) {
    Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    return summary;
  }
  double x[kSize] = {0, 0, 0}, y[kSize] = {0, 0, 0};
  std::vector<double> targets;
  Problem problem;
};

TEST(Uncertainty, ClosedForm) {
  Smoothing smoothing(1);
  const Solver::Summary summary = smoothing.Solve();
  const Uncertainty& u = summary.assessment.uncertainty;
  ASSERT_TRUE(u.available()) << u.message();
  EXPECT_EQ(u.kind(), HessianKind::kGaussNewton);
  EXPECT_EQ(u.degrees_of_freedom(), kSize * kViews - kSize);
  double squares = 0.0;
  for (size_t k = 0; k < smoothing.targets.size(); ++k) {
    const int i = static_cast<int>(k) / kViews;
    squares += std::pow(Smoothing::Y(i, smoothing.x[i]) - smoothing.targets[k], 2);
  }
  const double variance = squares / (kSize * kViews - kSize);
  EXPECT_NEAR(u.noise_variance(), variance, 1e-9 * variance);
  Uncertainty unit = u;
  unit.SetNoiseVariance(1.0);
  for (int i = 0; i < kSize; ++i) {
    const double slope = Smoothing::Slope(i, smoothing.x[i]);
    const double expected = variance / (kViews * slope * slope);
    double covariance, error, other;
    ASSERT_TRUE(u.GetCovarianceBlock(&smoothing.x[i], &smoothing.x[i], &covariance));
    EXPECT_NEAR(covariance, expected, 1e-8 * expected);
    ASSERT_TRUE(u.GetStandardErrors(&smoothing.x[i], &error));
    EXPECT_NEAR(error, std::sqrt(expected), 1e-8 * error);
    ASSERT_TRUE(u.GetCovarianceBlock(&smoothing.x[i], &smoothing.x[(i + 1) % kSize], &other));
    EXPECT_NEAR(other, 0.0, 1e-10 * expected);
    ASSERT_TRUE(unit.GetCovarianceBlock(&smoothing.x[i], &smoothing.x[i], &covariance));
    EXPECT_NEAR(covariance, expected / variance, 1e-8 * covariance);
  }
  const double minus = -1.0, one = 1.0;
  double error, a, b;
  ASSERT_TRUE(u.GetStandardError({{&smoothing.x[0], &one}, {&smoothing.x[1], &minus}}, &error));
  u.GetStandardErrors(&smoothing.x[0], &a);
  u.GetStandardErrors(&smoothing.x[1], &b);
  EXPECT_NEAR(error, std::hypot(a, b), 1e-9 * error);
  double stranger = 0.0;
  EXPECT_FALSE(u.GetStandardErrors(&stranger, &error));
  EXPECT_FALSE(u.GetCovarianceBlock(&stranger, &smoothing.x[0], &error));

  EXPECT_THAT(summary.FullReport(), HasSubstr("(J'J)^-1, Gauss-Newton"));
  EXPECT_THAT(summary.FullReport(), HasSubstr("27 degrees of freedom"));
  EXPECT_THAT(summary.Json(), HasSubstr("\"standard_errors\": ["));
  const std::string csv = summary.Csv();
  EXPECT_THAT(csv, HasSubstr(",standard_error0,standard_error1,standard_error2\n"));
  char last[40];
  std::snprintf(last, sizeof(last), "%.17g\n", b = u.standard_errors()[2]);
  EXPECT_THAT(csv, HasSubstr(last));
}

// What C promises: the scatter of x over repeated upper data.
TEST(Uncertainty, MonteCarlo) {
  constexpr int kRuns = 400;
  Eigen::Array3d sum = Eigen::Array3d::Zero(), squares = sum, predicted = sum;
  for (int run = 0; run < kRuns; ++run) {
    Smoothing smoothing(100 + run, 0.05);
    const Solver::Summary summary = smoothing.Solve();
    const Eigen::Array3d x(smoothing.x[0], smoothing.x[1], smoothing.x[2]);
    sum += x;
    squares += x * x;
    predicted += summary.assessment.uncertainty.covariance().diagonal().array();
  }
  for (int i = 0; i < kSize; ++i) {
    const double mean = sum[i] / kRuns;
    const double scatter = squares[i] / kRuns - mean * mean;
    // A variance from 400 runs has a standard error of 7 %.
    EXPECT_NEAR(predicted[i] / kRuns, scatter, 0.25 * scatter) << i;
    EXPECT_NEAR(mean, Smoothing::Truth(i), 4.0 * std::sqrt(scatter / kRuns) + 0.01) << i;
  }
}

TEST(Uncertainty, FullHessianIsTheSecondDerivativeOfPhi) {
  Smoothing smoothing(2, 0.3);
  smoothing.Solve();
  const double x0 = smoothing.x[0], y0 = smoothing.y[0];
  Uncertainty exact, gauss_newton;
  std::string message;
  ASSERT_TRUE(
      ComputeUncertainty(Tight(), HessianKind::kExact, &smoothing.problem, &exact, &message))
      << message;
  ASSERT_TRUE(ComputeUncertainty(
      Tight("lbfgs"), HessianKind::kGaussNewton, &smoothing.problem, &gauss_newton, &message))
      << message;
  EXPECT_EQ(smoothing.x[0], x0);
  EXPECT_EQ(smoothing.y[0], y0);
  for (int i = 0; i < kSize; ++i) {
    const double curvature = Derivative<double>([&](double h) {
      const double x = smoothing.x[i] + h;
      double slope = 0.0;
      for (int k = 0; k < kViews; ++k) {
        slope += (Smoothing::Y(i, x) - smoothing.targets[i * kViews + k]) * Smoothing::Slope(i, x);
      }
      return slope;
    });
    EXPECT_NEAR(exact.covariance()(i, i),
                exact.noise_variance() / curvature,
                1e-8 * exact.covariance()(i, i));
    const double slope = Smoothing::Slope(i, smoothing.x[i]);
    EXPECT_NEAR(gauss_newton.covariance()(i, i),
                gauss_newton.noise_variance() / (kViews * slope * slope),
                1e-7 * gauss_newton.covariance()(i, i));
  }
  EXPECT_NE(exact.covariance()(0, 0), gauss_newton.covariance()(0, 0));
  EXPECT_EQ(exact.Rows(20)[0].second.substr(0, 20), "s^2 (d^2 phi/dx^2)^-");
  // At a bound that does not hold x, phi is looked at on the side that there is: of two bounds the
  // gradient, some rounding, pushes against one.
  int num_held = 0;
  for (const bool is_lower : {true, false}) {
    Smoothing other(2, 0.3);
    std::copy_n(smoothing.x, kSize, other.x);
    std::copy_n(smoothing.y, kSize, other.y);
    is_lower ? other.problem.SetParameterLowerBound(&other.x[0], 0, x0)
             : other.problem.SetParameterUpperBound(&other.x[0], 0, x0);
    Uncertainty bounded;
    ASSERT_TRUE(
        ComputeUncertainty(Tight(), HessianKind::kExact, &other.problem, &bounded, &message))
        << message;
    const int held = static_cast<int>(bounded.held_coordinates().size());
    num_held += held;
    bounded.SetNoiseVariance(exact.noise_variance());
    for (int i = held; i < kSize; ++i) {
      EXPECT_NEAR(
          bounded.covariance()(i, i), exact.covariance()(i, i), 1e-8 * exact.covariance()(i, i));
    }
  }
  EXPECT_LT(num_held, 2);
}

// y* = sum of e^{2 x_i} t_i / sum of e^{2 x_i}: the common scale of the weights is flat.
TEST(Uncertainty, FlatDirectionIsInfiniteAndRatiosAreNot) {
  double x[2] = {0.1, -0.2}, lone = 0.3, y = 0.0, z = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x[0], 1);
  problem.AddUpperParameterBlock(&x[1], 1);
  problem.AddUpperParameterBlock(&lone, 1);
  problem.SetParameterName(&x[0], "a");
  problem.SetParameterName(&x[1], "b");
  problem.SetParameterName(&lone, "c");
  problem.lower()->AddResidualBlock(WeightedCost(1.0), nullptr, &y, &x[0]);
  problem.lower()->AddResidualBlock(WeightedCost(3.0), nullptr, &y, &x[1]);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &z, &lone);
  for (double t : {1.4, 1.5, 1.7}) {
    problem.upper()->AddResidualBlock(TargetCost(t), nullptr, &y);
    problem.upper()->AddResidualBlock(TargetCost(t + 0.1), nullptr, &z);
  }
  Solver::Summary summary;
  Solve(Tight(), &problem, &summary);
  const Uncertainty& u = summary.assessment.uncertainty;
  ASSERT_TRUE(u.available()) << summary.FullReport();
  EXPECT_THAT(u.flat_directions(), ElementsAre("0.71 'a'[0] + 0.71 'b'[0]"));
  EXPECT_EQ(u.degrees_of_freedom(), 6 - 2);
  double error, off;
  u.GetStandardErrors(&x[0], &error);
  EXPECT_TRUE(std::isinf(error));
  u.GetCovarianceBlock(&x[0], &x[1], &off);
  EXPECT_EQ(off, std::numeric_limits<double>::infinity());
  u.GetCovarianceBlock(&x[0], &lone, &off);
  EXPECT_NEAR(off, 0.0, 1e-12);
  u.GetStandardErrors(&lone, &error);
  EXPECT_NEAR(error, std::sqrt(u.noise_variance() / 3.0), 1e-8);
  // With p = e^{2a} / (e^{2a} + e^{2b}), y* = 3 - 2 p and dp/d(a - b) = 2 p (1 - p).
  const double one = 1.0, minus = -1.0, p = (3.0 - y) / 2.0;
  ASSERT_TRUE(u.GetStandardError({{&x[0], &one}, {&x[1], &minus}}, &error));
  EXPECT_NEAR(error, std::sqrt(u.noise_variance() / 3.0) / (4.0 * p * (1.0 - p)), 1e-7);
  ASSERT_TRUE(u.GetStandardError({{&x[0], &one}}, &error));
  EXPECT_TRUE(std::isinf(error));
  EXPECT_THAT(summary.FullReport(), HasSubstr("+- infinity"));
  EXPECT_THAT(summary.Json(), HasSubstr("\"standard_errors\": [null, null, "));
}

// A sum that is known a hundred thousand times better than the difference hides none of it.
struct SumAndDifference {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = weight * (y[0] + y[1] - 1.0);
    r[1] = y[0] - y[1] - 2.0;
    return true;
  }
  double weight;
};
struct SameTwo {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    for (int i = 0; i < 2; ++i) r[i] = y[i] - x[i];
    return true;
  }
};
TEST(Uncertainty, OfCorrelatedX) {
  for (const double weight : {1.0, 1e3, 1e5}) {
    for (const HessianKind kind : {HessianKind::kGaussNewton, HessianKind::kExact}) {
      double x[2] = {1.5, -0.5}, y[2] = {1.5, -0.5};
      Problem problem;
      problem.AddUpperParameterBlock(x, 2);
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<SameTwo, 2, 2, 2>(new SameTwo), nullptr, x, y);
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<SumAndDifference, 2, 2>(new SumAndDifference{weight}),
          nullptr,
          y);
      Uncertainty uncertainty;
      std::string message;
      ASSERT_TRUE(ComputeUncertainty({}, kind, &problem, &uncertainty, &message)) << message;
      uncertainty.SetNoiseVariance(1.0);
      EXPECT_TRUE(uncertainty.flat_directions().empty());
      EXPECT_NEAR(uncertainty.covariance()(0, 0), 0.25 * (1.0 + 1.0 / (weight * weight)), 1e-5);
    }
  }
}

// A mean of recordings, by weights: its variance is that of how they scatter.
TEST(Uncertainty, AcrossScenarios) {
  const std::vector<double> seen = {1.0, -0.5, 7.0, 2.0, 0.3}, weights = {1.0, 2.0, 0.5, 1.0, 3.0};
  const int count = static_cast<int>(seen.size());
  double sum = 0.0, x = 0.0;
  for (int s = 0; s < count; ++s) {
    sum += weights[s];
    x += weights[s] * seen[s];
  }
  x /= sum;
  double expected = 0.0;
  for (int s = 0; s < count; ++s) expected += std::pow(weights[s] * (x - seen[s]) / sum, 2);
  expected *= count / (count - 1.0);
  std::vector<double> y(count, x);
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  for (int s = 0; s < count; ++s) {
    Scenario* scenario = problem.AddScenario("recording " + std::to_string(s));
    scenario->lower()->AddResidualBlock(DifferenceCost(), nullptr, &y[s], &x);
    scenario->upper()->AddResidualBlock(TargetCost(seen[s]), nullptr, &y[s]);
    scenario->set_weight(weights[s]);
  }
  for (const HessianKind kind : {HessianKind::kGaussNewton, HessianKind::kExact}) {
    Uncertainty u;
    std::string message;
    ASSERT_TRUE(ComputeUncertaintyAcrossScenarios({}, kind, &problem, &u, &message)) << message;
    EXPECT_NEAR(u.covariance()(0, 0), expected, 1e-9 * expected);
    EXPECT_EQ(u.degrees_of_freedom(), count - 1);
    EXPECT_THAT(u.Rows(3)[0].second, HasSubstr("the sandwich of 5 recordings"));
  }
  double alone = 0.0, its_y = 0.0;
  Problem one;
  one.AddUpperParameterBlock(&alone, 1);
  one.lower()->AddResidualBlock(DifferenceCost(), nullptr, &its_y, &alone);
  one.upper()->AddResidualBlock(TargetCost(0.0), nullptr, &its_y);
  Uncertainty u;
  std::string message;
  EXPECT_FALSE(ComputeUncertaintyAcrossScenarios({}, HessianKind::kExact, &one, &u, &message));
  EXPECT_THAT(message, HasSubstr("two scenarios"));
  EXPECT_FALSE(u.available());
}

TEST(Uncertainty, ActiveBoundIsHeld) {
  Smoothing smoothing(3);
  smoothing.problem.SetParameterUpperBound(&smoothing.x[1], 0, -0.6);  // The truth is -0.1.
  smoothing.x[1] = -1.0;
  const Solver::Summary summary = smoothing.Solve();
  const Uncertainty& u = summary.assessment.uncertainty;
  ASSERT_TRUE(u.available()) << u.message();
  EXPECT_THAT(u.held_coordinates(), ElementsAre("'x1'[0]"));
  EXPECT_EQ(u.degrees_of_freedom(), kSize * kViews - 2);
  double error;
  u.GetStandardErrors(&smoothing.x[1], &error);
  EXPECT_EQ(error, 0.0);
  u.GetStandardErrors(&smoothing.x[0], &error);
  const double slope = Smoothing::Slope(0, smoothing.x[0]);
  EXPECT_NEAR(error, std::sqrt(u.noise_variance() / kViews) / std::abs(slope), 1e-7 * error);
  EXPECT_THAT(summary.FullReport(), HasSubstr("at its bound"));
}

TEST(Uncertainty, SaddlesAndTooFewResidualsAreNamed) {
  {  // phi = (x^2 - 1)^2 / 2 at its maximum.
    double x = 0.0, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.SetParameterName(&x, "here");
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.upper()->AddResidualBlock(
        new FunctionCost(1,
                         {1},
                         [](double const* const* p, double* r, double** j) {
                           r[0] = p[0][0] * p[0][0] - 1.0;
                           if (j && j[0]) j[0][0] = 2.0 * p[0][0];
                           return true;
                         }),
        nullptr,
        &y);
    Uncertainty u;
    std::string message;
    EXPECT_FALSE(ComputeUncertainty(Tight(), HessianKind::kExact, &problem, &u, &message));
    EXPECT_THAT(message, HasSubstr("curves downwards along 1.00 'here'[0]"));
    EXPECT_FALSE(u.available());
    EXPECT_FALSE(ComputeUncertainty(Tight(), HessianKind::kExact, nullptr, &u, &message));
    EXPECT_THAT(message, HasSubstr("problem is null"));
  }
  {
    double x = 0.0, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
    Solver::Summary summary;
    Solve(Tight(), &problem, &summary);
    const Uncertainty& u = summary.assessment.uncertainty;
    ASSERT_TRUE(u.available());
    EXPECT_TRUE(std::isnan(u.noise_variance()));
    EXPECT_THAT(summary.FullReport(), HasSubstr("no more residuals than parameters"));
  }
}

struct Follow {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    for (int i = 0; i < 3; ++i) r[i] = y[i] - x[i];
    return true;
  }
};

struct See {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    for (int i = 0; i < 3; ++i) r[i] = y[i] - T(direction[i]);
    return true;
  }
  Eigen::Vector3d direction;
};

// A unit vector: the ambient covariance lies in the tangent plane, whatever its coordinates.
TEST(Uncertainty, Manifold) {
  double x[3] = {1.0, 0.0, 0.0}, y[3] = {0.5, 0.5, 0.1};
  Problem problem;
  problem.AddUpperParameterBlock(x, 3, NewSphere());
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Follow, 3, 3, 3>(new Follow), nullptr, y, x);
  for (double angle : {0.9, 1.0, 1.2}) {
    const Eigen::Vector3d seen(std::cos(angle), std::sin(angle), 0.1 * angle);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<See, 3, 3>(new See{seen.normalized()}), nullptr, y);
  }
  Solver::Summary summary;
  Solve(Tight(), &problem, &summary);
  const Uncertainty& u = summary.assessment.uncertainty;
  ASSERT_TRUE(u.available()) << summary.FullReport();
  EXPECT_EQ(u.degrees_of_freedom(), 9 - 2);
  Eigen::Matrix3d ambient;
  ASSERT_TRUE(u.GetCovarianceBlock(x, x, ambient.data()));
  const Eigen::Map<Eigen::Vector3d> at(x);
  // J'J = 3 in the plane.
  const Eigen::Matrix3d expected =
      u.noise_variance() / 3.0 * (Eigen::Matrix3d::Identity() - at * at.transpose());
  EXPECT_LT((ambient - expected).norm(), 1e-8 * expected.norm());
}

}  // namespace
}  // namespace bilevel
