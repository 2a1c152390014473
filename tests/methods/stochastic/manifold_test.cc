// Every stochastic method where vision needs it: y a rotation and a badly scaled translation, steps
// of y and z in the metric of block-Jacobi, bounds on x and y.
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "bilevel/lower_level/block_jacobi.h"
#include "bilevel/methods/estimators/curvature.h"
#include "bilevel/methods/stochastic/alset.h"
#include "bilevel/methods/stochastic/amigo.h"
#include "bilevel/methods/stochastic/bo_rep.h"
#include "bilevel/methods/stochastic/bsa.h"
#include "bilevel/methods/stochastic/f2sa.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/methods/stochastic/stocbio.h"
#include "bilevel/methods/stochastic/sustain.h"
#include "bilevel/methods/stochastic/ttsa.h"
#include "bilevel/methods/stochastic/vrbo.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

constexpr double kUnit = 0.01;  // Of the translation: its curvature is 1e-4 of the rotation's.

// R(q) a + kUnit t - (b + D x).
struct Registration {
  template <typename T>
  bool operator()(const T* q, const T* t, const T* x, T* r) const {
    const T p[3] = {T(a[0]), T(a[1]), T(a[2])};
    T rotated[3];
    ceres::QuaternionRotatePoint(q, p, rotated);
    for (int i = 0; i < 3; ++i) {
      r[i] = rotated[i] + kUnit * t[i] - b[i];
      for (int j = 0; j < 2; ++j) r[i] -= d[i][j] * x[j];
    }
    return true;
  }
  double a[3], b[3], d[3][2];
};

// R(q) a + kUnit t - e.
struct Check {
  template <typename T>
  bool operator()(const T* q, const T* t, T* r) const {
    const T p[3] = {T(a[0]), T(a[1]), T(a[2])};
    T rotated[3];
    ceres::QuaternionRotatePoint(q, p, rotated);
    for (int i = 0; i < 3; ++i) r[i] = rotated[i] + kUnit * t[i] - e[i];
    return true;
  }
  double a[3], e[3];
};

struct Scene {
  explicit Scene(double noise) {
    std::mt19937 generator(5);
    std::normal_distribution<double> normal;
    problem.AddUpperParameterBlock(x, 2);
    const double truth[4] = {std::cos(0.2), 0.0, std::sin(0.2), 0.0}, shift[3] = {0.3, -0.2, 0.5};
    for (int i = 0; i < kTerms; ++i) {
      Registration lower;
      Check upper;
      double rotated[3];
      for (double& v : lower.a) v = normal(generator);
      for (int k = 0; k < 3; ++k) {
        for (int j = 0; j < 2; ++j) lower.d[k][j] = (k == j) + 0.3 * normal(generator);
      }
      ceres::QuaternionRotatePoint(truth, lower.a, rotated);
      for (int k = 0; k < 3; ++k) {
        lower.b[k] = rotated[k] + shift[k] + noise * normal(generator) - 0.4 * lower.d[k][0] +
                     0.3 * lower.d[k][1];
      }
      auto* weight = new ceres::ScaledLoss(nullptr, 1.0 / kTerms, ceres::TAKE_OWNERSHIP);
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Registration, 3, 4, 3, 2>(new Registration(lower)),
          weight,
          q,
          t,
          x);
      for (double& v : upper.a) v = normal(generator);
      ceres::QuaternionRotatePoint(truth, upper.a, rotated);
      for (int k = 0; k < 3; ++k) upper.e[k] = rotated[k] + shift[k] + noise * normal(generator);
      weight = new ceres::ScaledLoss(nullptr, 1.0 / kTerms, ceres::TAKE_OWNERSHIP);
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<Check, 3, 4, 3>(new Check(upper)), weight, q, t);
    }
    problem.lower()->SetManifold(q, new ceres::QuaternionManifold);
  }
  static constexpr int kTerms = 16;
  double x[2] = {0.0, 0.0}, q[4] = {1.0, 0.0, 0.0, 0.0}, t[3] = {0.0, 0.0, 0.0};
  Problem problem;
};

// The exact solution.
Vector Solution(double noise) {
  Scene scene(noise);
  Solver::Options options;
  options.gradient_tolerance = 1e-12;
  options.function_tolerance = 0.0;
  options.parameter_tolerance = 1e-13;
  Solver::Summary summary;
  Solve(options, &scene.problem, &summary);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  return Eigen::Map<Vector>(scene.x, 2);
}

std::vector<std::shared_ptr<Method>> Methods(int batch, Preconditioner preconditioner) {
  std::vector<std::shared_ptr<Method>> methods;
  const auto add = [&](auto options, auto type) {
    options.lower_batch = options.upper_batch = batch;
    options.preconditioner = preconditioner;
    options.precondition_interval = 200;
    options.solve_lower_level = false;
    using TheMethod = typename decltype(type)::type;
    methods.push_back(std::make_shared<TheMethod>(options));
  };
  const auto lower = [](auto* options) {
    options->y.step = 0.5;
    options->x.step = 0.2;
  };
  const auto neumann = [&](auto options) {
    const Neumann::Kind published = options.neumann.kind;
    lower(&options);
    options.neumann.step = 0.5;
    // Without noise the random length of the randomised series would be all the noise there is.
    options.neumann.kind = batch == 0 ? Neumann::kTruncated : published;
    options.neumann.length = batch == 0 ? 30 : 4;
    return options;
  };
  Slip::Options slip;
  lower(&slip);
  slip.z.step = 0.5;
  slip.x.step = 0.05;
  slip.x.decay_exponent = 1.0;
  slip.x.decay_time = 100.0;
  add(slip, std::common_type<Slip>());
  BoRep::Options bo_rep;
  static_cast<Slip::Options&>(bo_rep) = slip;
  bo_rep.radius = bo_rep.epoch_radius = 100.0;
  bo_rep.epoch_step = 0.5;
  bo_rep.num_lower_steps = 5;
  add(bo_rep, std::common_type<BoRep>());
  const auto soba = [](auto options) {
    options.lower.step = 0.5;
    options.x.step = 0.1;
    return options;
  };
  add(soba(Soba::Options()), std::common_type<Soba>());
  add(soba(Saba::Options()), std::common_type<Saba>());
  add(soba(Svrb::Options()), std::common_type<Svrb>());
  add(soba(Srba::Options()), std::common_type<Srba>());
  MaSoba::Options ma_soba;
  ma_soba.x.step = 0.05;
  ma_soba.lower.step = 0.5;
  ma_soba.average->step = 0.7;
  add(ma_soba, std::common_type<MaSoba>());
  add(soba(PnpBo::Options()), std::common_type<PnpBo>());
  add(soba(Spaba::Options()), std::common_type<Spaba>());
  add(neumann(Bsa::Options()), std::common_type<Bsa>());
  add(neumann(Ttsa::Options()), std::common_type<Ttsa>());
  add(neumann(Alset::Options()), std::common_type<Alset>());
  StocBiO::Options stocbio = neumann(StocBiO::Options());
  stocbio.x.decay_exponent = stocbio.y.decay_exponent = 0.5;
  stocbio.x.decay_time = stocbio.y.decay_time = 100.0;
  add(stocbio, std::common_type<StocBiO>());
  add(neumann(Sustain::Options()), std::common_type<Sustain>());
  add(neumann(Mrbo::Options()), std::common_type<Mrbo>());
  add(neumann(Vrbo::Options()), std::common_type<Vrbo>());
  Amigo::Options amigo;
  lower(&amigo);
  amigo.z.step = 0.5;
  amigo.x.decay_exponent = amigo.y.decay_exponent = amigo.z.decay_exponent = 0.5;
  amigo.x.decay_time = amigo.y.decay_time = amigo.z.decay_time = 100.0;
  add(amigo, std::common_type<Amigo>());
  for (const bool momentum : {false, true}) {
    F2sa::Options f2sa;
    f2sa.momentum = momentum;
    f2sa.alpha.step = 0.02;
    f2sa.gamma.step = 0.5;
    f2sa.xi = 5.0;
    add(f2sa, std::common_type<F2sa>());
  }
  return methods;
}

double Error(const std::shared_ptr<Method>& method,
             int iterations,
             double noise,
             const Vector& solution) {
  Scene scene(noise);
  Solver::Options options;
  options.method = method;
  options.max_num_iterations = iterations;
  options.seed = 3;
  Solver::Summary summary;
  Solve(options, &scene.problem, &summary);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(Eigen::Map<Eigen::Vector4d>(scene.q).norm(), 1.0, 1e-12) << summary.method;
  return (Eigen::Map<Vector>(scene.x, 2) - solution).norm() / solution.norm();
}

class StochasticManifold : public testing::TestWithParam<Preconditioner> {};
INSTANTIATE_TEST_SUITE_P(Metrics,
                         StochasticManifold,
                         testing::Values(Preconditioner::kBlockJacobi,
                                         Preconditioner::kGaussNewton));

TEST_P(StochasticManifold, DeterministicLimitsArriveInTheMetric) {
  const Vector solution = Solution(0.05);
  ASSERT_GT(solution.norm(), 0.1);
  for (const auto& method : Methods(0, GetParam())) {
    const std::string name = method->name();
    // Steps of a length that is set hover, and 1 / lambda is a bias.
    const double bound = name == "slip" || name == "bo_rep" ? 0.2
                         : name == "f2sa" || name == "f3sa" ? 0.01
                                                            : 1e-7;
    EXPECT_LT(Error(method, 400, 0.05, solution), bound) << name;
  }
}

TEST_P(StochasticManifold, MinibatchesComeCloseInTheMetric) {
  const Vector solution = Solution(0.05);
  for (const auto& method : Methods(8, GetParam())) {
    EXPECT_LT(Error(method, 800, 0.05, solution), 0.25) << method->name();
  }
}

TEST_P(StochasticManifold, VarianceReductionArrivesOnMinibatchesInTheMetric) {
  const Vector solution = Solution(0.05);
  for (const auto& method : Methods(8, GetParam())) {
    const std::string name = method->name();
    if (name != "saba" && name != "srba") continue;
    EXPECT_LT(Error(method, 3000, 0.05, solution), 1e-7) << name;
  }
}

TEST(StochasticManifoldWithoutMetric, TheTranslationStandsStill) {
  const Vector solution = Solution(0.05);
  Soba::Options soba;
  soba.lower_batch = soba.upper_batch = 0;
  soba.lower.step = 0.2;
  soba.x.step = 0.1;
  soba.solve_lower_level = false;
  EXPECT_GT(Error(std::make_shared<Soba>(soba), 600, 0.05, solution), 0.3);
  // The metric's steps are above the limit of stability without it, and the message says so.
  soba.lower.step = 0.5;
  Scene scene(0.05);
  Solver::Options options;
  options.method = std::make_shared<Soba>(soba);
  options.max_num_iterations = 600;
  Solver::Summary summary;
  Solve(options, &scene.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(summary.message, testing::HasSubstr("above the limit of stability 2 / L = 0.2"));
}

TEST(StochasticManifoldWithBounds, TheyAreKept) {
  Scene scene(0.05);
  scene.problem.SetParameterUpperBound(scene.x, 0, 0.25);
  scene.problem.lower()->SetParameterUpperBound(scene.t, 2, 20.0);
  for (const auto& method : Methods(8, Preconditioner::kBlockJacobi)) {
    Solver::Options options;
    options.method = method;
    options.max_num_iterations = 200;
    options.update_state_every_iteration = true;
    Solver::Summary summary;
    Solve(options, &scene.problem, &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    for (const IterationSummary& it : summary.iterations) EXPECT_LE(it.x[0], 0.25);
    EXPECT_LE(scene.t[2], 20.0);
  }
}

TEST(Curvature, LanczosFindsTheExtremeEigenvaluesInTheMetric) {
  Scene scene(0.05);
  std::string error;
  const std::unique_ptr<Program> program = scene.problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  Oracle oracle(program.get(), nullptr, 3);
  Point x(&program->x), y(&program->y);
  program->x.ReadUser(x.value().data());
  program->y.ReadUser(y.value().data());
  const int n = y.dim();
  Matrix h(n, n), inverse(n, n);
  BlockJacobi metric;
  metric.Compute(oracle, x, y);
  Vector column, unused;
  for (int j = 0; j < n; ++j) {
    oracle.g.HessianProduct(x, y, Vector::Unit(n, j), &column, &unused);
    h.col(j) = column;
    column = Vector::Unit(n, j);
    metric.Apply(&column);
    inverse.col(j) = column;
  }
  Matrix root;
  ASSERT_TRUE(Cholesky(inverse, &root));
  const Matrix similar = root.transpose() * h * root;
  for (const bool in_metric : {false, true}) {
    const Vector eigenvalues = SymmetricEigen(in_metric ? similar : h).eigenvalues();
    const Curvature curvature =
        EstimateCurvature(oracle, Batch::All(), x, y, in_metric ? &metric : nullptr, 20);
    EXPECT_NEAR(curvature.largest, eigenvalues[n - 1], 1e-6 * eigenvalues[n - 1]);
    EXPECT_NEAR(curvature.smallest, eigenvalues[0], 1e-6 * eigenvalues[n - 1]);
    EXPECT_THAT(curvature.Ranges(), testing::HasSubstr("2 / L"));
  }
}

}  // namespace
}  // namespace bilevel
