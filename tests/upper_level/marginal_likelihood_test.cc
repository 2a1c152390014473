#include "bilevel/upper_level/marginal_likelihood.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <random>
#include <vector>

#include "bilevel/analysis/hypergradient_checker.h"
#include "bilevel/learnable/noise.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/oracle/hyper_objective.h"
#include "glog/logging.h"
#include "gtest/gtest.h"
#include "pose_graph.h"
#include "sphere.h"
#include "test_problems.h"

namespace bilevel {
namespace {

struct Step1 {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    r[0] = b[0] - a[0] - step;
    return true;
  }
  double step;
};
struct Fix1 {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    r[0] = p[0] - fix;
    return true;
  }
  double fix;
};

// A walk on a line: odometry between positions, each of which is measured as well.
struct Walk {
  Walk(int size, double log_step, double log_fix)
      : log_sigma_step(log_step),
        log_sigma_fix(log_fix),
        positions(size),
        step(&log_sigma_step),
        fix(&log_sigma_fix) {
    std::mt19937 random(3);
    std::normal_distribution<double> gauss;
    double truth = 0.0;
    for (int k = 0; k < size; ++k) {
      fixes.push_back(truth + 0.4 * gauss(random));
      const double move = std::sin(0.2 * k);
      steps.push_back(move + 0.1 * gauss(random));
      truth += move;
      positions[k] = fixes[k];
    }
    problem.AddUpperParameterBlock(&log_sigma_step, 1);
    problem.AddUpperParameterBlock(&log_sigma_fix, 1);
    for (int k = 0; k < size; ++k) {
      fix.AddResidualBlock(new AutoDiffCostFunction<Fix1, 1, 1>(new Fix1{fixes[k]}),
                           nullptr,
                           {&positions[k]},
                           problem.lower());
      if (k == 0) continue;
      step.AddResidualBlock(new AutoDiffCostFunction<Step1, 1, 1, 1>(new Step1{steps[k - 1]}),
                            nullptr,
                            {&positions[k - 1], &positions[k]},
                            problem.lower());
    }
  }

  // -log p of all measurements but the first fix, up to their share of log(2 pi) / 2 each, by the
  // innovations of a Kalman filter. The first fix has nothing to be predicted by.
  double ByKalmanFilter() const {
    const double q = std::exp(2.0 * log_sigma_step), r = std::exp(2.0 * log_sigma_fix);
    double mean = fixes[0], variance = r, sum = 0.0;
    for (size_t k = 1; k < fixes.size(); ++k) {
      mean += steps[k - 1];
      variance += q;
      const double s = variance + r, innovation = fixes[k] - mean;
      sum += 0.5 * (innovation * innovation / s + std::log(s));
      mean += variance / s * innovation;
      variance *= r / s;
    }
    return sum;
  }

  Problem problem;
  double log_sigma_step, log_sigma_fix;
  std::vector<double> positions, fixes, steps;
  ScalarNoise step, fix;
};

TEST(MarginalLikelihood, IsThatOfAKalmanFiltersInnovations) {
  for (const auto& [log_step, log_fix] : {std::pair{-2.0, -1.0}, {0.5, -3.0}, {-4.0, 1.0}}) {
    Walk walk(40, log_step, log_fix);
    std::string error;
    ASSERT_TRUE(AddMarginalLikelihood(&walk.problem, &error)) << error;
    walk.step.AddHalfLogDeterminant(39, &walk.problem);
    walk.fix.AddHalfLogDeterminant(40, &walk.problem);
    Solver::Options options;
    options.max_num_iterations = 0;
    Solver::Summary summary;
    Solve(options, &walk.problem, &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_NEAR(
        summary.final_objective, walk.ByKalmanFilter(), 1e-9 * std::abs(walk.ByKalmanFilter()));
    const auto check = HypergradientChecker::Check(&walk.problem);
    ASSERT_TRUE(check.ok) << check.Report();
    EXPECT_LT(check.max_relative_error, 1e-7) << check.Report();
  }
}

// y_k+1 = a y_k + q-noise, z_k = y_k + r-noise, with a, log q and log r (variances) to be learned:
// everything is known, by the filter, to rounding.
struct Transition {
  template <typename T>
  bool operator()(const T* x, const T* now, const T* next, T* r) const {
    using std::exp;
    r[0] = (next[0] - x[0] * now[0]) * exp(-0.5 * x[1]);
    return true;
  }
};
struct Measurement {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::exp;
    r[0] = (z - y[0]) * exp(-0.5 * x[2]);
    return true;
  }
  double z;
};
struct Prior {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0];
    return true;
  }
};

// -log p(z) without its log(2 pi), x complex for derivatives by the imaginary part of its step.
template <typename T>
T FilteredStateSpace(const std::vector<double>& z, const T* x) {
  const T q = std::exp(x[1]), r = std::exp(x[2]);
  T mean = 0.0, variance = 1.0, sum = 0.0;
  for (size_t k = 0; k < z.size(); ++k) {
    if (k > 0) {
      mean *= x[0];
      variance = x[0] * x[0] * variance + q;
    }
    const T s = variance + r, innovation = z[k] - mean;
    sum += 0.5 * (innovation * innovation / s + std::log(s));
    mean += variance / s * innovation;
    variance *= r / s;
  }
  return sum;
}

TEST(MarginalLikelihood, GradientOfAStateSpaceIsTheFiltersToRounding) {
  constexpr int kSteps = 400;
  double x[3] = {0.9, -1.0, 0.4};
  std::vector<double> y(kSteps), z(kSteps);
  std::mt19937 random(2);
  std::normal_distribution<double> gauss;
  double truth = gauss(random);
  Problem problem;
  problem.AddUpperParameterBlock(x, 3);
  for (int k = 0; k < kSteps; ++k) {
    z[k] = truth + 1.5 * gauss(random);
    truth = 0.8 * truth + 0.7 * gauss(random);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Measurement, 1, 3, 1>(new Measurement{z[k]}), nullptr, x, &y[k]);
    if (k == 0) {
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Prior, 1, 1>(new Prior), nullptr, &y[0]);
    } else {
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Transition, 1, 3, 1, 1>(new Transition),
          nullptr,
          x,
          &y[k - 1],
          &y[k]);
    }
  }
  std::string error;
  ASSERT_TRUE(AddMarginalLikelihood(&problem, &error)) << error;
  const auto check = HypergradientChecker::Check(&problem);
  ASSERT_TRUE(check.ok) << check.Report();
  // The normalisation of the noise: log-variances.
  const double objective = check.objective + 0.5 * (kSteps - 1) * x[1] + 0.5 * kSteps * x[2];
  const double expected = FilteredStateSpace(z, x);
  EXPECT_NEAR(objective, expected, 1e-12 * expected);
  for (int i = 0; i < 3; ++i) {
    std::complex<double> moved[3] = {x[0], x[1], x[2]};
    moved[i] += std::complex<double>(0.0, 1e-30);
    const double slope = FilteredStateSpace(z, moved).imag() / 1e-30;
    const double ours = check.gradient[i] + (i == 0 ? 0.0 : 0.5 * (kSteps - (i == 1)));
    EXPECT_NEAR(ours, slope, 1e-12 * kSteps) << i;
  }
}

// Positions in the plane: odometry between them and ranges to beacons, nonlinear and with a loss.
constexpr double kBeacons[3][2] = {{-15.0, -10.0}, {18.0, -12.0}, {2.0, 20.0}};

struct Step2 {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    for (int i = 0; i < 2; ++i) r[i] = b[i] - a[i] - step[i];
    return true;
  }
  double step[2];
};
struct Range {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    using std::sqrt;
    const T dx = p[0] - kBeacons[beacon][0], dy = p[1] - kBeacons[beacon][1];
    r[0] = sqrt(dx * dx + dy * dy) - range;
    return true;
  }
  int beacon;
  double range;
};

// A direction is seen, by a curved function of itself, and of where it is seen from.
struct Sight {
  template <typename T>
  bool operator()(const T* direction, const T* log_sharpness, const T* from, T* r) const {
    using std::exp;
    const T sharpness = exp(log_sharpness[0]);
    for (int k = 0; k < 3; ++k) {
      r[k] = sharpness * (direction[k] * (1.0 + 0.3 * direction[(k + 1) % 3]) - seen[k] +
                          0.01 * from[k] * direction[0]);
    }
    return true;
  }
  std::array<double, 3> seen;
};

constexpr double kSigmaStep = 0.05, kSigmaRange = 0.3;
constexpr int kSize = 270;

struct Ride {
  Ride(unsigned seed, double log_step, double log_range, ceres::LossFunction* loss)
      : log_sigma_step(log_step),
        log_sigma_range(log_range),
        p(kSize),
        step(&log_sigma_step, 2),
        range(&log_sigma_range) {
    std::mt19937 random(seed);
    std::normal_distribution<double> gauss;
    problem.AddUpperParameterBlock(&log_sigma_step, 1);
    problem.AddUpperParameterBlock(&log_sigma_range, 1);
    for (int k = 0; k < kSize; ++k) {
      p[k] = {8.0 * std::sin(0.11 * k), 6.0 * std::cos(0.17 * k)};
      for (int i = 0; i < 2; ++i) {  // 540 of them.
        const int beacon = (k + i) % 3;
        const double* b = kBeacons[beacon];
        range.AddResidualBlock(
            new AutoDiffCostFunction<Range, 1, 2>(new Range{
                beacon, std::hypot(p[k][0] - b[0], p[k][1] - b[1]) + kSigmaRange * gauss(random)}),
            loss,
            {p[k].data()},
            problem.lower());
      }
      if (k == 0) continue;
      step.AddResidualBlock(new AutoDiffCostFunction<Step2, 2, 2, 2>(
                                new Step2{{p[k][0] - p[k - 1][0] + kSigmaStep * gauss(random),
                                           p[k][1] - p[k - 1][1] + kSigmaStep * gauss(random)}}),
                            nullptr,
                            {p[k - 1].data(), p[k].data()},
                            problem.lower());
    }
    std::string error;
    EXPECT_TRUE(AddMarginalLikelihood(&problem, &error)) << error;
    step.AddHalfLogDeterminant(kSize - 1, &problem);
    range.AddHalfLogDeterminant(2 * kSize, &problem);
  }
  Problem problem;
  double log_sigma_step, log_sigma_range;
  std::vector<std::array<double, 2>> p;
  ScalarNoise step, range;
};

TEST(MarginalLikelihood, ItsGradientIsExactWithANonlinearLowerLevelAndALoss) {
  Ride ride(1, std::log(0.1), std::log(0.2), new ceres::CauchyLoss(2.0));
  const auto check = HypergradientChecker::Check(&ride.problem);
  ASSERT_TRUE(check.ok) << check.Report();
  EXPECT_LT(check.max_relative_error, 1e-6) << check.Report();
  for (const double slope : check.slopes) EXPECT_NEAR(slope, 2.0, 0.1) << check.Report();
}

// Links that are measured once each, which no held-out measurement identifies: from starts up to a
// factor of 100 off, both ways.
TEST(MarginalLikelihood, FindsTheNoiseOfAChainFromAfar) {
  FLAGS_minloglevel = 3;  // Ceres tells of every step that goes too far.
  unsigned seed = 1;
  for (const auto& factor : {std::pair{100.0, 100.0}, {0.01, 0.01}, {100.0, 0.01}, {0.01, 100.0}}) {
    SCOPED_TRACE(testing::Message() << factor.first << " " << factor.second);
    Ride ride(seed++,
              std::log(kSigmaStep * factor.first),
              std::log(kSigmaRange * factor.second),
              nullptr);
    Solver::Options options;
    Solver::Summary summary;
    Solve(options, &ride.problem, &summary);
    ASSERT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_EQ(summary.method, "auto (levenberg_marquardt)");
    Uncertainty uncertainty;
    std::string message;
    ASSERT_TRUE(
        ComputeUncertainty(options, HessianKind::kExact, &ride.problem, &uncertainty, &message))
        << message;
    double errors[2];
    ASSERT_TRUE(uncertainty.GetStandardErrors(&ride.log_sigma_step, errors));
    ASSERT_TRUE(uncertainty.GetStandardErrors(&ride.log_sigma_range, errors + 1));
    EXPECT_LE(std::abs(ride.log_sigma_step - std::log(kSigmaStep)), std::max(0.1, 3.0 * errors[0]));
    EXPECT_LE(std::abs(ride.log_sigma_range - std::log(kSigmaRange)),
              std::max(0.1, 3.0 * errors[1]));
    // At least that of N errors that are known, 1 / sqrt(2 N); links, a sixth of the noise of what
    // they are seen by, are less well known.
    for (const double error : errors) {
      EXPECT_GT(error, 1.0 / std::sqrt(2.0 * 2 * kSize));
      EXPECT_LT(error, 6.0 / std::sqrt(2.0 * 2 * kSize));
    }
    const long solves = summary.lower_solver.cold_solves + summary.lower_solver.warm_solves;
    RecordProperty("lower_solves", static_cast<int>(solves));
    EXPECT_LE(solves, 40) << summary.FullReport();
  }
}

// Rotations, whose Hessian is that of their own tangent frames, and a direction on a sphere, whose
// frames do not turn with the point.
TEST(MarginalLikelihood, ItsGradientIsExactOnManifolds) {
  double log_weights[2] = {1.0, 1.5}, direction[3] = {0.6, 0.0, 0.8}, log_sharpness = 0.5;
  auto graph = MakeHelix(6, 2, 0.2, 9);
  Problem problem;
  problem.AddUpperParameterBlock(log_weights, 2);
  problem.AddUpperParameterBlock(&log_sharpness, 1);
  graph->AddEdges(problem.lower(), log_weights, new ceres::CauchyLoss(1.0));
  graph->AddPrior(problem.lower(), 0, 2.0);
  problem.lower()->AddParameterBlock(direction, 3, NewSphere());
  for (const auto& seen : {std::array{0.5, 0.2, 0.9}, {0.1, -0.7, 0.8}, {0.9, 0.1, -0.2}}) {
    problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Sight, 3, 3, 1, 3>(new Sight{seen}),
                                      nullptr,
                                      direction,
                                      &log_sharpness,
                                      graph->poses[2].t.data());
  }
  std::string error;
  ASSERT_TRUE(AddMarginalLikelihood(&problem, &error)) << error;
  const auto check = HypergradientChecker::Check(&problem);
  ASSERT_TRUE(check.ok) << check.Report();
  EXPECT_LT(check.max_relative_error, 1e-7) << check.Report();
}

// Readings of one constant, under a sigma that is x itself, no logarithm: -log p in closed form.
struct Reading {
  template <typename T>
  bool operator()(const T* y, const T* sigma, T* residual) const {
    residual[0] = (y[0] - value) / sigma[0];
    return true;
  }
  double value;
};

TEST(MarginalLikelihood, OfAnXWithoutAScaleOfItsOwn) {
  constexpr int kReadings = 8;
  for (double sigma : {0.1, 1e-2, 3e-3, 5e-4, 1e-5}) {
    double y = 0.0, mean = 0.0, squares = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&sigma, 1);
    for (int k = 0; k < kReadings; ++k) {
      const double value = 1e-2 * std::sin(5.0 * k);
      mean += value / kReadings;
      squares += value * value;
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Reading, 1, 1, 1>(new Reading{value}), nullptr, &y, &sigma);
    }
    y = mean;
    std::string error;
    ASSERT_TRUE(AddMarginalLikelihood(&problem, &error)) << error;
    const std::unique_ptr<Program> program = problem.Compile({}, &error);
    ASSERT_TRUE(program) << error;
    NewtonLowerSolver lower(program.get(), NewtonLowerSolver::Options());
    Oracle oracle(program.get(), &lower, 0);
    Point at_x(&program->x), at_y(&program->y);
    program->x.ReadUser(at_x.value().data());
    program->y.ReadUser(at_y.value().data());
    HyperObjective phi(&oracle, at_y);
    double value;
    Vector gradient;
    ASSERT_TRUE(phi.Evaluate(at_x, &value, &gradient)) << phi.message();
    // phi = squares about the mean / (2 sigma^2) + log(n / sigma^2) / 2.
    const double about = squares - kReadings * mean * mean;
    const double expected = -about / std::pow(sigma, 3) - 1.0 / sigma;
    EXPECT_NEAR(gradient[0], expected, 1e-6 * std::abs(expected)) << sigma;
  }
}

TEST(MarginalLikelihood, RefusesWhatItCannotDo) {
  std::string error;
  ceres::Problem upper, lower;
  Problem wrapped(&upper, &lower);
  EXPECT_FALSE(AddMarginalLikelihood(&wrapped, &error));
  EXPECT_NE(error.find("user's own"), std::string::npos) << error;
  Problem empty;
  EXPECT_FALSE(AddMarginalLikelihood(&empty, &error));
  EXPECT_FALSE(error.empty());
  Walk walk(5, 0.0, 0.0);
  walk.step.AddHalfLogDeterminant(1, &walk.problem, Level::kLower);
  EXPECT_FALSE(AddMarginalLikelihood(&walk.problem, &error));
  EXPECT_NE(error.find("general terms"), std::string::npos) << error;
  struct Callback : ceres::EvaluationCallback {
    void PrepareForEvaluation(bool, bool) override {}
  } callback;
  Walk watched(5, 0.0, 0.0);
  watched.problem.scenario(0)->SetEvaluationCallback(Level::kLower, &callback);
  EXPECT_FALSE(AddMarginalLikelihood(&watched.problem, &error));
  EXPECT_NE(error.find("evaluation callback"), std::string::npos) << error;
}

// What comes after it would be missing in the log-determinant, and in nothing else.
TEST(MarginalLikelihood, RefusesWhatWasChangedAfterIt) {
  const auto refused = [](const char* what, auto change) {
    Walk walk(5, 0.0, 0.0);
    std::string error;
    ASSERT_TRUE(AddMarginalLikelihood(&walk.problem, &error)) << error;
    ASSERT_TRUE(walk.problem.IsValid(&error)) << error;
    change(&walk);
    EXPECT_FALSE(walk.problem.IsValid(&error));
    EXPECT_NE(error.find(what), std::string::npos) << error;
    EXPECT_NE(error.find("after AddMarginalLikelihood"), std::string::npos) << error;
  };
  refused("the residual blocks or terms of the lower problem", [](Walk* walk) {
    walk->fix.AddResidualBlock(new AutoDiffCostFunction<Fix1, 1, 1>(new Fix1{0.5}),
                               nullptr,
                               {&walk->positions[2]},
                               walk->problem.lower());
  });
  refused("the blocks of y in the lower problem", [](Walk* walk) {
    walk->problem.lower()->SetParameterBlockConstant(&walk->positions[1]);
  });
  refused("the constraints (inequality 0", [](Walk* walk) {
    walk->problem.AddLowerInequality(new AutoDiffCostFunction<Fix1, 1, 1>(new Fix1{9.0}),
                                     &walk->positions[1]);
  });
  double more = 0.0, at = 0.0;
  refused("the blocks of x", [&](Walk* walk) {
    walk->problem.AddUpperParameterBlock(&more, 1);
    walk->problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Fix1, 1, 1>(new Fix1{0.0}), nullptr, &more);
  });
  refused("the lower problem of scenario 'late'", [&](Walk* walk) {
    walk->problem.AddScenario("late")->lower()->AddResidualBlock(
        new AutoDiffCostFunction<Fix1, 1, 1>(new Fix1{0.0}), nullptr, &at);
  });
}

}  // namespace
}  // namespace bilevel
