// The figure behind everything else: hypergradients agree with Richardson-extrapolated central
// differences of polished re-solves to 1e-7, and Taylor remainders shrink with slope 2.0 +- 0.1.
#include "bilevel/analysis/hypergradient_checker.h"

#include <array>
#include <cmath>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/analysis/hypergradient_matchers.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "bilevel/learnable/auto_diff_loss.h"
#include "ceres/ceres.h"
#include "gtest/gtest.h"
#include "pose_graph.h"
#include "sphere.h"
#include "test_data.h"

namespace bilevel {
namespace {

using CheckerOptions = HypergradientChecker::Options;

void ExpectExact(Problem* problem, const CheckerOptions& options = {}) {
  testing::StringMatchResultListener listener;
  const bool exact =
      testing::ExplainMatchResult(HasExactHypergradient(1e-7, options), problem, &listener);
  EXPECT_TRUE(exact) << listener.str();
  std::cout << listener.str();
}

// The same problem with Gauss-Newton's Hessian: a wrong gradient, which the matcher must refuse
// for what it is, not for a failure on the way.
void ExpectGaussNewtonCaught(Problem* problem,
                             CheckerOptions options = {},
                             double largest_step = 1e-4) {
  options.solver.lower_hessian = HessianKind::kGaussNewton;
  options.solver.max_num_lower_newton_iterations = 500;
  options.largest_step = largest_step;  // The error must stand above the curvature of phi.
  EXPECT_THAT(problem, testing::Not(HasExactHypergradient(1e-7, options)));
  const auto result = HypergradientChecker::Check(problem, options);
  EXPECT_TRUE(result.ok) << result.message;
  for (double slope : result.slopes) EXPECT_NEAR(slope, 1.0, 0.1);
  EXPECT_GT(result.max_relative_error, 1e-4);
  std::cout << "Gauss-Newton, caught:\n" << result.Report();
}

// weight (y - target), weight = exp(log_weight[0]) where there is one.
struct Difference {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0] - target;
    return true;
  }
  template <typename T>
  bool operator()(const T* y, const T* weight, T* residual) const {
    residual[0] = weight[0] * (y[0] - target);
    return true;
  }
  double target;
};

// g = (w^2 (y - a)^2 + (y - b)^2) / 2 and f = (y - c)^2 / 2, so y* = (w^2 a + b) / (w^2 + 1).
// d^2g/dydw = 2 w (y - a) has two equal halves, of which J'J holds one: it must be exact with
// either Hessian, and with residuals linear in y so is the rest.
TEST(Hypergradient, WeightLearning) {
  constexpr double kA = 1.3, kB = -0.4, kC = 0.1;
  double y = 0.0, w = 0.8;
  Problem problem;
  problem.AddUpperParameterBlock(&w, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference{kA}), nullptr, &y, &w);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Difference, 1, 1>(new Difference{kB}), nullptr, &y);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Difference, 1, 1>(new Difference{kC}), nullptr, &y);
  ExpectExact(&problem);
  const double d = w * w + 1.0;
  const double expected = ((w * w * kA + kB) / d - kC) * 2.0 * w * (kA - kB) / (d * d);
  EXPECT_NEAR(HypergradientChecker::Check(&problem).gradient[0], expected, 1e-14);
  CheckerOptions gauss_newton;
  gauss_newton.solver.lower_hessian = HessianKind::kGaussNewton;
  ExpectExact(&problem, gauss_newton);
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

struct LogWeighted {
  template <typename T>
  bool operator()(const T* y, const T* log_weight, T* residual) const {
    using std::exp;
    for (int i = 0; i < 4; ++i) residual[i] = exp(log_weight[0]) * y[i];
    return true;
  }
};

// y* = (A'A + e^{2w} I)^-1 A'b in closed form.
TEST(Hypergradient, Ridge) {
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  std::array<double, 4> y = {0, 0, 0, 0};
  double log_weight = 0.4;
  Problem problem;
  problem.AddUpperParameterBlock(&log_weight, 1);
  Eigen::Matrix4d AtA = Eigen::Matrix4d::Zero(), CtC = AtA;
  Eigen::Vector4d Atb = Eigen::Vector4d::Zero(), Ctd = Atb;
  for (int i = 0; i < 30; ++i) {
    Row row;
    for (double& feature : row.features) feature = normal(generator);
    row.target = row.features.dot(Eigen::Vector4d(1.0, -0.5, 0.2, 0.0)) + normal(generator);
    const bool training = i < 10;
    (training ? AtA : CtC) += row.features * row.features.transpose();
    (training ? Atb : Ctd) += row.features * row.target;
    (training ? problem.lower() : problem.upper())
        ->AddResidualBlock(new AutoDiffCostFunction<Row, 1, 4>(new Row(row)), nullptr, y.data());
  }
  problem.lower()->AddResidualBlock(new AutoDiffCostFunction<LogWeighted, 4, 4, 1>(new LogWeighted),
                                    nullptr,
                                    y.data(),
                                    &log_weight);
  ExpectExact(&problem);
  const double ridge = std::exp(2.0 * log_weight);
  const Eigen::Matrix4d h = AtA + ridge * Eigen::Matrix4d::Identity();
  const Eigen::Vector4d solution = SolveSymmetric(h, Atb), next = SolveSymmetric(h, solution);
  const double expected = -2.0 * ridge * (CtC * solution - Ctd).dot(next);
  EXPECT_NEAR(HypergradientChecker::Check(&problem).gradient[0], expected, 1e-12);
}

struct Exponential {  // target - a e^{bt}
  template <typename T>
  bool operator()(const T* ab, T* residual) const {
    using std::exp;
    residual[0] = target - ab[0] * exp(ab[1] * t);
    return true;
  }
  double t, target;
};

struct LogWeightedPrior {
  template <typename T>
  bool operator()(const T* ab, const T* log_weights, T* residual) const {
    using std::exp;
    residual[0] = exp(log_weights[0]) * (ab[0] - 1.0);
    residual[1] = exp(log_weights[1]) * (ab[1] - 1.0);
    return true;
  }
};

TEST(Hypergradient, ExponentialFitWithResidual) {
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  double ab[2] = {1.0, 1.0}, log_weights[2] = {0.3, 0.9};
  Problem problem;
  problem.AddUpperParameterBlock(log_weights, 2);
  for (int i = 0; i < 30; ++i) {
    const double t = i / 29.0;
    problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Exponential, 1, 2>(new Exponential{
                                          t, 2.0 * std::exp(0.7 * t) + 0.5 * normal(generator)}),
                                      nullptr,
                                      ab);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Exponential, 1, 2>(new Exponential{t, 2.0 * std::exp(0.7 * t)}),
        nullptr,
        ab);
  }
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<LogWeightedPrior, 2, 2, 2>(new LogWeightedPrior),
      nullptr,
      ab,
      log_weights);
  ExpectExact(&problem);
  ExpectGaussNewtonCaught(&problem);
}

// A curve with outliers, fitted under each learnable loss; two thirds of the residuals have it.
using LossFactory = std::function<std::unique_ptr<LearnableLoss>(double*, double*)>;

struct LearnedSoftLOne {  // ceres::SoftLOneLoss(exp(log_scale))
  template <typename T>
  T operator()(const T& s, const T* log_scale) const {
    const T a2 = exp(2.0 * log_scale[0]);
    return 2.0 * a2 * (sqrt(1.0 + s / a2) - 1.0);
  }
};

struct NamedLoss {
  std::string name;
  int num_parameters;
  LossFactory make;
};

class LearnableLossTest : public testing::TestWithParam<NamedLoss> {};

TEST_P(LearnableLossTest, HasExactHypergradient) {
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  double ab[2] = {1.9, 0.75}, theta[2] = {-0.3, -0.45};
  Problem problem;
  std::unique_ptr<LearnableLoss> made = GetParam().make(&theta[0], &theta[1]);
  LearnableLoss* loss = problem.Own(std::move(made));
  for (int k = 0; k < GetParam().num_parameters; ++k) problem.AddUpperParameterBlock(&theta[k], 1);
  for (int i = 0; i < 40; ++i) {
    const double t = i / 20.0, truth = 2.0 * std::exp(0.7 * t);
    double noise = 0.3 * normal(generator);
    if (i % 7 == 3) noise += 2.0;
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Exponential, 1, 2>(new Exponential{t, truth + noise}),
        i % 3 == 0 ? nullptr : loss,
        ab);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Exponential, 1, 2>(new Exponential{t, truth}), nullptr, ab);
  }
  CheckerOptions options;
  options.largest_step = 4e-3;  // No residual crosses a kink of Huber's or Tukey's rho'.
  ExpectExact(&problem, options);
}

template <typename Loss>
NamedLoss Scaled(const std::string& name) {
  return {name, 1, [](double* a, double*) { return std::make_unique<Loss>(a); }};
}

template <typename Loss>
NamedLoss Wrapped(const std::string& name) {
  return {name, 1, [](double* a, double*) {
            return std::make_unique<Loss>(new ceres::CauchyLoss(0.7), a, ceres::TAKE_OWNERSHIP);
          }};
}

INSTANTIATE_TEST_SUITE_P(
    All,
    LearnableLossTest,
    testing::Values(
        Scaled<CauchyLoss>("Cauchy"),
        Scaled<HuberLoss>("Huber"),
        Scaled<GemanMcClureLoss>("GemanMcClure"),
        Scaled<WelschLoss>("Welsch"),
        NamedLoss{"Tukey",
                  1,
                  [](double* a, double*) {
                    *a = 0.4;
                    return std::make_unique<TukeyLoss>(a);
                  }},
        NamedLoss{
            "Barron", 2, [](double* a, double* b) { return std::make_unique<BarronLoss>(a, b); }},
        Wrapped<NoiseScaleLoss>("NoiseScale"),
        Wrapped<WeightedLoss>("Weighted"),
        Wrapped<SwitchLoss>("Switch"),
        NamedLoss{"NoiseScaleOfNothing",
                  1,
                  [](double* a, double*) {
                    return std::make_unique<NoiseScaleLoss>(nullptr, a, ceres::TAKE_OWNERSHIP);
                  }},
        NamedLoss{"WeightOfLearnedCauchy",
                  2,
                  [](double* a, double* b) {
                    return std::make_unique<WeightedLoss>(
                        new CauchyLoss(b), a, ceres::TAKE_OWNERSHIP);
                  }},
        NamedLoss{"AutoDiff",
                  1,
                  [](double* a, double*) {
                    return std::make_unique<AutoDiffLearnableLoss<LearnedSoftLOne, 1>>(
                        LearnedSoftLOne(), a);
                  }},
        NamedLoss{"Composed",
                  2,
                  [](double* a, double* b) {
                    return std::make_unique<ComposedLoss>(new CauchyLoss(a),
                                                          ceres::TAKE_OWNERSHIP,
                                                          new GemanMcClureLoss(b),
                                                          ceres::TAKE_OWNERSHIP);
                  }}),
    [](const auto& test) { return test.param.name; });

// Absolute attitudes from relative ones, each group of measurements with its own learned weight.
// Gauge freedom is taken by holding the first, so the solution keeps residuals.
struct RelativeRotation {
  template <typename T>
  bool operator()(const T* qi, const T* qj, const T* log_weight, T* residual) const {
    using std::exp;
    const T inverse[4] = {qi[0], -qi[1], -qi[2], -qi[3]};
    const T z_inverse[4] = {T(z[0]), T(-z[1]), T(-z[2]), T(-z[3])};
    T between[4], error[4];
    ceres::QuaternionProduct(inverse, qj, between);
    ceres::QuaternionProduct(z_inverse, between, error);
    bilevel::QuaternionToAngleAxis(error, residual);
    for (int k = 0; k < 3; ++k) residual[k] *= exp(log_weight[0]);
    return true;
  }
  std::array<double, 4> z;
};

struct RotationError {
  template <typename T>
  bool operator()(const T* q, T* residual) const {
    double expected[9];
    T rotation[9];
    ceres::QuaternionToRotation(truth.data(), expected);
    ceres::QuaternionToRotation(q, rotation);
    for (int k = 0; k < 9; ++k) residual[k] = rotation[k] - expected[k];
    return true;
  }
  std::array<double, 4> truth;
};

TEST(Hypergradient, UnitQuaternionRotationAveraging) {
  const auto graph = MakeHelix(10, 3, 0.2, 11);
  double log_weights[3] = {0.0, 0.5, -0.3};
  Problem problem;
  for (double& w : log_weights) problem.AddUpperParameterBlock(&w, 1);
  for (const PoseGraph::Edge& edge : graph->edges) {
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<RelativeRotation, 3, 4, 4, 1>(new RelativeRotation{edge.z.q}),
        nullptr,
        graph->poses[edge.i].q.data(),
        graph->poses[edge.j].q.data(),
        &log_weights[edge.j - edge.i - 1]);
  }
  for (int i = 0; i < graph->size(); ++i) {
    double* q = graph->poses[i].q.data();
    problem.lower()->SetManifold(q, new ceres::QuaternionManifold);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<RotationError, 9, 4>(new RotationError{graph->truth[i].q}),
        nullptr,
        q);
  }
  problem.lower()->SetParameterBlockConstant(graph->poses[0].q.data());
  ExpectExact(&problem);
  ExpectGaussNewtonCaught(&problem);
}

TEST(Hypergradient, PoseGraphWithLearnedNoise) {
  const auto graph = MakeHelix(12, 3, 0.1, 7);
  double log_weights[2] = {0.5, 1.0};
  Problem problem;
  problem.AddUpperParameterBlock(log_weights, 2);
  graph->AddEdges(problem.lower(), log_weights);
  graph->AddPrior(problem.lower(), 0, 10.0);
  graph->AddErrors(problem.upper());
  ExpectExact(&problem);
  ExpectGaussNewtonCaught(&problem);
}

// The same with each pose one block on a product manifold.
TEST(Hypergradient, PoseGraphOnProductManifold) {
  const auto graph = MakeHelix(12, 3, 0.1, 7);
  double log_weights[2] = {0.5, 1.0};
  Problem blocks;
  blocks.AddUpperParameterBlock(log_weights, 2);
  graph->AddEdges(blocks.lower(), log_weights);
  graph->AddPrior(blocks.lower(), 0, 10.0);
  graph->AddErrors(blocks.upper());

  std::vector<std::array<double, 7>> poses(graph->size());
  Problem product;
  product.AddUpperParameterBlock(log_weights, 2);
  for (int i = 0; i < graph->size(); ++i) {
    std::copy_n(graph->poses[i].q.data(), 4, poses[i].data());
    std::copy_n(graph->poses[i].t.data(), 3, poses[i].data() + 4);
    product.lower()->AddParameterBlock(
        poses[i].data(),
        7,
        new ceres::ProductManifold<ceres::QuaternionManifold, ceres::EuclideanManifold<3>>);
    product.upper()->AddResidualBlock(new AutoDiffCostFunction<PoseError, 12, 7>(new PoseError{
                                          graph->truth[i], 1.0 / std::sqrt(1.0 * graph->size())}),
                                      nullptr,
                                      poses[i].data());
  }
  for (const PoseGraph::Edge& edge : graph->edges) {
    product.lower()->AddResidualBlock(
        new AutoDiffCostFunction<RelativePoseError, 6, 7, 7, 2>(new RelativePoseError{edge.z}),
        nullptr,
        poses[edge.i].data(),
        poses[edge.j].data(),
        log_weights);
  }
  product.lower()->AddResidualBlock(
      new AutoDiffCostFunction<PosePrior, 6, 7>(new PosePrior{graph->poses[0], 10.0}),
      nullptr,
      poses[0].data());
  ExpectExact(&product);
  const auto expected = HypergradientChecker::Check(&blocks);
  const auto actual = HypergradientChecker::Check(&product);
  ASSERT_TRUE(expected.ok && actual.ok);
  EXPECT_NEAR(actual.objective, expected.objective, 1e-12);
  for (int k = 0; k < 2; ++k) {
    EXPECT_NEAR(actual.gradient[k], expected.gradient[k], 1e-9 * std::abs(expected.gradient[k]));
  }
}

// x on a manifold too: a direction on the sphere along which the prior pulls.
struct Pull {
  template <typename T>
  bool operator()(const T* y, const T* direction, T* residual) const {
    for (int k = 0; k < 3; ++k) residual[k] = y[k] * y[k] + y[k] - 2.0 * direction[k];
    return true;
  }
};
struct Corner {
  template <typename T>
  bool operator()(const T* y, const T* direction, T* residual) const {
    residual[0] = y[0] * y[1] - 0.3;
    residual[1] = y[1] + y[2] * direction[0];
    residual[2] = y[2] - y[0] - direction[1];
    return true;
  }
};

TEST(Hypergradient, UpperBlockOnASphere) {
  double y[3] = {0.5, 0.5, 0.5}, direction[3] = {2.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0};
  Problem problem;
  problem.AddUpperParameterBlock(direction, 3, NewSphere());
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Pull, 3, 3, 3>(new Pull), nullptr, y, direction);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Corner, 3, 3, 3>(new Corner), nullptr, y, direction);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Corner, 3, 3, 3>(new Corner), nullptr, y, direction);
  ExpectExact(&problem);
}

// y0 e^{y1 t} + y2 - target, times e^{x0} where x is an argument.
struct Offset {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    using std::exp;
    residual[0] = y[0] * exp(y[1] * t) + y[2] - target;
    return true;
  }
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    using std::exp;
    (*this)(y, residual);
    residual[0] *= exp(x[0]) + x[1];
    return true;
  }
  double t, target;
};

// What meets in practice: weighted scenarios that share x, an active bound, a coordinate held by a
// manifold, one learned loss on both levels, residuals of both with x among their arguments, and
// threads.
TEST(Hypergradient, EverythingAtOnce) {
  std::mt19937 generator(8);
  std::normal_distribution<double> normal;
  double log_scale = -0.5, x[2] = {0.2, 0.5}, y[2][3] = {{1.5, 0.5, 0.1}, {1.0, 0.7, 0.3}};
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.AddUpperParameterBlock(&log_scale, 1);
  auto* cauchy = problem.Own(std::make_unique<CauchyLoss>(&log_scale));
  for (int k = 0; k < 2; ++k) {
    Scenario* s = problem.AddScenario(k ? "second" : "first", k ? 0.4 : 1.7);
    for (int i = 0; i < 80; ++i) {
      const double t = i / 40.0;
      const double target = (1.4 + 0.3 * k) * std::exp(0.6 * t) + 0.2;
      const double noisy = target + 0.4 * normal(generator);
      if (i % 4 == 0) {
        s->lower()->AddResidualBlock(
            new AutoDiffCostFunction<Offset, 1, 3, 2>(new Offset{t, noisy}), cauchy, y[k], x);
      } else {
        s->lower()->AddResidualBlock(new AutoDiffCostFunction<Offset, 1, 3>(new Offset{t, noisy}),
                                     k ? cauchy : nullptr,
                                     y[k]);
      }
      s->upper()->AddResidualBlock(
          new AutoDiffCostFunction<Offset, 1, 3, 2>(new Offset{t, target}), cauchy, y[k], x);
    }
  }
  problem.scenario(1)->lower()->SetParameterUpperBound(y[0], 1, 0.5);  // The truth is 0.6.
  problem.scenario(2)->lower()->SetManifold(y[1], new ceres::SubsetManifold(3, {2}));
  CheckerOptions options;
  ExpectExact(&problem, options);
  const auto serial = HypergradientChecker::Check(&problem, options);
  options.solver.num_threads = 2;
  const auto threaded = HypergradientChecker::Check(&problem, options);
  EXPECT_EQ(serial.gradient, threaded.gradient);

  Sensitivity::Options polished;
  polished.polish = true;
  Sensitivity sensitivity(polished);
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  EXPECT_EQ(sensitivity.num_active_bounds(), 1);
  EXPECT_EQ(y[0][1], 0.5);
  EXPECT_EQ(y[1][2], 0.3);
}

// The camera model of BAL: rotation vector, translation, focal length, two distortions.
struct SnavelyError {
  template <typename T>
  bool operator()(const T* camera, const T* point, T* residual) const {
    T p[3];
    ceres::AngleAxisRotatePoint(camera, point, p);
    for (int k = 0; k < 3; ++k) p[k] += camera[3 + k];
    const T u = -p[0] / p[2], v = -p[1] / p[2];
    const T r2 = u * u + v * v;
    const T scale = camera[6] * (1.0 + r2 * (camera[7] + camera[8] * r2));
    residual[0] = scale * u - observed[0];
    residual[1] = scale * v - observed[1];
    return true;
  }
  std::array<double, 2> observed;
};

// A camera that sees known points, with noise made so that the rotation is exactly zero at the
// solution: there ceres/rotation.h takes its first-order branch.
TEST(Hypergradient, CameraAtZeroRotation) {
  constexpr int kPoints = 12;
  std::mt19937 generator(2);
  std::normal_distribution<double> normal;
  double camera[9] = {0, 0, 0, 0.1, -0.2, 0.3, 100.0, 0.05, 0.02};
  std::vector<std::array<double, 3>> points(kPoints);
  Eigen::Matrix<double, 2 * kPoints, 9, Eigen::RowMajor> jacobian;
  Eigen::Matrix<double, 2 * kPoints, 1> noise;
  std::vector<std::array<double, 2>> images(kPoints);
  for (int i = 0; i < kPoints; ++i) {
    points[i] = {2.0 * normal(generator), 2.0 * normal(generator), -6.0 + normal(generator)};
    const double* blocks[2] = {camera, points[i].data()};
    double* jacobians[2] = {jacobian.data() + 2 * i * 9, nullptr};
    ceres::AutoDiffCostFunction<SnavelyError, 2, 9, 3>(new SnavelyError{{0.0, 0.0}})
        .Evaluate(blocks, images[i].data(), jacobians);
    noise[2 * i] = 0.3 * normal(generator);
    noise[2 * i + 1] = 0.3 * normal(generator);
  }
  noise -= jacobian * LeastSquares(jacobian, noise);

  double theta[2] = {0.0, 0.0}, camera_truth[9];
  std::copy_n(camera, 9, camera_truth);
  camera_truth[0] += 0.01;
  camera_truth[4] += 0.02;
  camera_truth[6] += 1.0;
  Problem problem;
  for (double& t : theta) problem.AddUpperParameterBlock(&t, 1);
  for (int i = 0; i < kPoints; ++i) {
    // The third group has no learned weight: ratios of weights are all that counts.
    NoiseScaleLoss* loss = nullptr;
    if (i % 3 < 2) loss = new NoiseScaleLoss(nullptr, &theta[i % 3], ceres::TAKE_OWNERSHIP);
    const std::array<double, 2> observed = {images[i][0] + noise[2 * i],
                                            images[i][1] + noise[2 * i + 1]};
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<SnavelyError, 2, 9, 3>(new SnavelyError{observed}),
        loss,
        camera,
        points[i].data());
    problem.lower()->SetParameterBlockConstant(points[i].data());
    std::array<double, 2> expected;
    SnavelyError{{0.0, 0.0}}(camera_truth, points[i].data(), expected.data());
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<SnavelyError, 2, 9, 3>(new SnavelyError{expected}),
        nullptr,
        camera,
        points[i].data());
    problem.upper()->SetParameterBlockConstant(points[i].data());
  }
  ArgminCostFunction solution({}, &problem, {camera});
  const double* x[2] = {&theta[0], &theta[1]};
  double solved[9];
  ASSERT_TRUE(solution.Evaluate(x, solved, nullptr)) << solution.error();
  EXPECT_LT(Eigen::Map<Eigen::Vector3d>(solved).norm(), 1e-9);  // Ceres' branch: below 1.5e-8.
  ExpectExact(&problem);
  ExpectGaussNewtonCaught(&problem);
}

std::vector<std::string> ReadBal() {
  const std::string packed = DataPath("ba/problem-16-22106-pre.txt.bz2");
  if (!packed.empty()) return ReadLines("bzcat '" + packed + "'");
  return ReadLines("cat '" + DataPath("problem-16-22106-pre.txt") + "'");
}

// The first three cameras of a real scene and points all of them see, every fifth observation
// held out. Nothing fixes the gauge: seven directions stay free.
TEST(Hypergradient, BundleAdjustmentWithFreeGauge) {
  if (DataPath("problem-16-22106-pre.txt").empty()) {
    BILEVEL_REQUIRE_DATA("ba/problem-16-22106-pre.txt.bz2");
  }
  const std::vector<std::string> lines = ReadBal();
  constexpr int kCameras = 3, kMostPoints = 60, kObservations = 83718, kAllCameras = 16;
  ASSERT_EQ(lines.size(), size_t{1 + kObservations + 9 * kAllCameras + 3 * 22106});
  std::map<int, std::map<int, std::array<double, 2>>> tracks;
  for (int k = 1; k <= kObservations; ++k) {
    std::istringstream in(lines[k]);
    int camera, point;
    double u, v;
    in >> camera >> point >> u >> v;
    if (camera < kCameras) tracks[point][camera] = {u, v};
  }
  const auto value = [&](int k) { return std::stod(lines[1 + kObservations + k]); };
  std::array<std::array<double, 9>, kCameras> cameras;
  for (int c = 0; c < kCameras; ++c) {
    for (int k = 0; k < 9; ++k) cameras[c][k] = value(9 * c + k);
  }
  std::map<int, std::array<double, 3>> points;
  double log_scale = 0.0;
  Problem problem;
  auto* loss = problem.Own(std::make_unique<CauchyLoss>(&log_scale));
  problem.AddUpperParameterBlock(&log_scale, 1);
  int index = 0;
  for (const auto& [id, track] : tracks) {
    if (track.size() < kCameras || points.size() == kMostPoints) continue;
    for (int k = 0; k < 3; ++k) points[id][k] = value(9 * kAllCameras + 3 * id + k);
    for (const auto& [camera, observed] : track) {
      const bool held_out = ++index % 5 == 0;
      (held_out ? problem.upper() : problem.lower())
          ->AddResidualBlock(
              new AutoDiffCostFunction<SnavelyError, 2, 9, 3>(new SnavelyError{observed}),
              held_out ? nullptr : loss,
              cameras[camera].data(),
              points[id].data());
    }
  }
  ASSERT_EQ(points.size(), size_t{kMostPoints});
  CheckerOptions options;
  options.solver.lower_solver_options.max_num_iterations = 200;
  ExpectExact(&problem, options);
  ExpectGaussNewtonCaught(&problem, options, 4e-3);  // Converges slowly: not to the last digit.

  ceres::Solver::Summary summary;
  ceres::Solver::Options lower_options = options.solver.lower_solver_options;
  lower_options.logging_type = ceres::SILENT;
  ceres::Solve(lower_options, problem.lower(), &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.message;
  Sensitivity::Options polished;
  polished.polish = true;
  Sensitivity sensitivity(polished);
  ASSERT_TRUE(sensitivity.Compute(&problem, {&log_scale})) << sensitivity.message();
  EXPECT_EQ(sensitivity.num_free_directions(), 7);
}

}  // namespace
}  // namespace bilevel
