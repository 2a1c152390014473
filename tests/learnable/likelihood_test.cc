// Noise levels learned from simulated data whose noise is known.
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "bilevel/learnable/noise.h"
#include "bilevel/search/multi_start.h"
#include "bilevel/upper_level/cross_validation.h"
#include "glog/logging.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// Points in the plane that two sensors measure over and over: one directly, with other noise in x
// than in y, one by its distance to three beacons. 540 errors of each kind.
constexpr int kPoints = 18, kRepeats = 30;
const double kSigmaX = 0.2, kSigmaY = 0.6, kSigmaRange = 0.35;
const double kBeacons[3][2] = {{-20.0, -15.0}, {22.0, -12.0}, {1.0, 25.0}};

struct PositionCost {
  template <typename T>
  bool operator()(const T* p, T* r) const {
    r[0] = p[0] - x;
    r[1] = p[1] - y;
    return true;
  }
  double x, y;
};

struct RangeCost {
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

struct Survey {
  Survey(unsigned seed, const double start[3])
      : log_sigma{std::log(start[0]), std::log(start[1])},
        log_sigma_range(std::log(start[2])),
        position(log_sigma, 2),
        range(&log_sigma_range) {
    std::mt19937 random(seed);
    std::normal_distribution<double> gauss;
    problem.AddUpperParameterBlock(log_sigma, 2);
    problem.AddUpperParameterBlock(&log_sigma_range, 1);
    for (int k = 0; k < kPoints; ++k) {
      truth[k][0] = p[k][0] = 10.0 * std::sin(1.3 * k);
      truth[k][1] = p[k][1] = 8.0 * std::cos(2.1 * k);
      for (int i = 0; i < kRepeats; ++i) {
        position.AddResidualBlock(
            new AutoDiffCostFunction<PositionCost, 2, 2>(new PositionCost{
                p[k][0] + kSigmaX * gauss(random), p[k][1] + kSigmaY * gauss(random)}),
            nullptr,
            {p[k]},
            problem.lower());
        const double* b = kBeacons[i % 3];
        range.AddResidualBlock(
            new AutoDiffCostFunction<RangeCost, 1, 2>(new RangeCost{
                i % 3, std::hypot(p[k][0] - b[0], p[k][1] - b[1]) + kSigmaRange * gauss(random)}),
            nullptr,
            {p[k]},
            problem.lower());
      }
    }
  }

  Problem problem;
  double p[kPoints][2], truth[kPoints][2];
  double log_sigma[2], log_sigma_range;
  DiagonalNoise position;
  ScalarNoise range;
};

// Cross-validated likelihood, log-determinants included, from starts a factor of up to 100 off in
// all ways: each sigma within 10 % or three of its standard errors, whichever is more.
TEST(Likelihood, FindsTheNoiseOfEachSensorFromAfar) {
  const double factors[][3] = {{100, 100, 100}, {0.01, 0.01, 0.01}, {100, 0.01, 1}, {1, 100, 0.01}};
  FLAGS_minloglevel = 3;  // Ceres tells of every step that goes too far.
  unsigned seed = 1;
  for (const auto& factor : factors) {
    SCOPED_TRACE(testing::Message() << factor[0] << " " << factor[1] << " " << factor[2]);
    const double start[] = {kSigmaX * factor[0], kSigmaY * factor[1], kSigmaRange * factor[2]};
    Survey survey(seed++, start);
    CrossValidationOptions folds;
    folds.num_folds = 3;
    std::string error;
    ASSERT_TRUE(AddCrossValidation(folds, {}, nullptr, &survey.problem, nullptr, &error)) << error;
    survey.position.AddHalfLogDeterminant(kPoints * kRepeats, &survey.problem);
    survey.range.AddHalfLogDeterminant(kPoints * kRepeats, &survey.problem);
    Solver::Options options;
    options.max_num_iterations = 100;
    options.lower_solver_options.logging_type = ceres::SILENT;
    Solver::Summary summary;
    Solve(options, &survey.problem, &summary);
    ASSERT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    Uncertainty uncertainty;
    std::string message;
    ASSERT_TRUE(
        ComputeUncertainty(options, HessianKind::kExact, &survey.problem, &uncertainty, &message))
        << message;
    double errors[3];
    ASSERT_TRUE(uncertainty.GetStandardErrors(survey.log_sigma, errors));
    ASSERT_TRUE(uncertainty.GetStandardErrors(&survey.log_sigma_range, errors + 2));
    const double learned[] = {survey.log_sigma[0], survey.log_sigma[1], survey.log_sigma_range};
    const double truth[] = {kSigmaX, kSigmaY, kSigmaRange};
    for (int i = 0; i < 3; ++i) {
      EXPECT_LE(std::abs(learned[i] - std::log(truth[i])), std::max(0.1, 3.0 * errors[i])) << i;
      // Of a log sigma of N errors: 1 / sqrt(2 N).
      EXPECT_NEAR(errors[i], 1.0 / std::sqrt(2.0 * kPoints * kRepeats), 0.003) << i;
    }
    RecordProperty(
        "lower_solves",
        static_cast<int>(summary.lower_solver.cold_solves + summary.lower_solver.warm_solves));
  }
}

// Ground truth: phi is then as good as at the true noise levels, whose common factor it does not
// see, and the summary says so.
TEST(Likelihood, GroundTruthFindsRatios) {
  const double factors[][3] = {{100, 0.01, 1}, {0.01, 100, 100}};
  for (const auto& factor : factors) {
    SCOPED_TRACE(testing::Message() << factor[0] << " " << factor[1] << " " << factor[2]);
    const auto score_by_truth = [](Survey* survey) {
      for (int k = 0; k < kPoints; ++k) {
        survey->problem.upper()->AddResidualBlock(
            new NormalPrior({survey->truth[k][0], survey->truth[k][1]}, 1.0),
            nullptr,
            survey->p[k]);
      }
    };
    const double truth[] = {kSigmaX, kSigmaY, kSigmaRange};
    Survey at_truth(7, truth);
    score_by_truth(&at_truth);
    Solver::Options options;
    options.max_num_iterations = 0;
    options.lower_solver_options.logging_type = ceres::SILENT;
    Solver::Summary reference, summary;
    Solve(options, &at_truth.problem, &reference);

    const double start[] = {kSigmaX * factor[0], kSigmaY * factor[1], kSigmaRange * factor[2]};
    Survey survey(7, start);
    score_by_truth(&survey);
    options.max_num_iterations = 100;
    // Where a sensor's weight is next to nothing phi is a plateau: hence many starts.
    SolveFromManyStarts(MultiStartOptions(), options, &survey.problem, &summary, nullptr);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_LE(summary.final_objective, 1.01 * reference.final_objective) << summary.FullReport();
    EXPECT_GE(summary.flat_upper_directions.size(), 1u) << summary.FullReport();
  }
}

}  // namespace
}  // namespace bilevel
