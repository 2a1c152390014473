// Learning that does not lose: on simulated tracks whose smoother has a dense solution in the test,
// with defaults that are good and with some that are not.
#include "bilevel/upper_level/safe_learning.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "bilevel/upper_level/internal/gain_by_chance.h"
#include "ceres/ceres.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kLength = 60, kStepsAFix = 5;

struct Step {
  template <typename T>
  bool operator()(const T* a, const T* b, T* residual) const {
    residual[0] = b[0] - a[0] - odometry;
    return true;
  }
  double odometry;
};

// A walk on a line, measured by odometry and by fixes with sigmas of 0.1 and 1.
struct Track {
  explicit Track(unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    truth[0] = 0.0;
    for (int t = 0; t < kLength; ++t) {
      if (t > 0) truth[t] = truth[t - 1] + normal(generator);
      if (t > 0) odometry[t] = truth[t] - truth[t - 1] + 0.1 * normal(generator);
      if (t % kStepsAFix == 0) fixes[t / kStepsAFix] = truth[t] + normal(generator);
    }
  }
  // 1/2 |error|^2 of the least-squares track with these sigmas.
  double Score(double odometry_sigma, double fix_sigma) const {
    Eigen::MatrixXd h = Eigen::MatrixXd::Zero(kLength, kLength);
    Eigen::VectorXd b = Eigen::VectorXd::Zero(kLength);
    const double wo = 1.0 / (odometry_sigma * odometry_sigma), wf = 1.0 / (fix_sigma * fix_sigma);
    for (int t = 0; t < kLength; ++t) {
      if (t > 0) {
        h(t, t) += wo, h(t - 1, t - 1) += wo, h(t, t - 1) -= wo, h(t - 1, t) -= wo;
        b[t] += wo * odometry[t], b[t - 1] -= wo * odometry[t];
      }
      if (t % kStepsAFix == 0) h(t, t) += wf, b[t] += wf * fixes[t / kStepsAFix];
    }
    const Eigen::VectorXd y = h.ldlt().solve(b);
    return 0.5 * (y - Eigen::Map<const Eigen::VectorXd>(truth.data(), kLength)).squaredNorm();
  }
  std::array<double, kLength> truth, odometry{}, estimate{};
  std::array<double, kLength / kStepsAFix> fixes;
};

struct Job {
  Job(int num_tracks, unsigned seed, double odometry_sigma, double fix_sigma)
      : log_sigmas{std::log(odometry_sigma), std::log(fix_sigma)} {
    for (int i = 0; i < num_tracks; ++i) tracks.emplace_back(1000 * seed + i);
    problem.AddUpperParameterBlock(&log_sigmas[0], 1);
    problem.AddUpperParameterBlock(&log_sigmas[1], 1);
    problem.SetParameterName(&log_sigmas[0], "odometry");
    problem.SetParameterName(&log_sigmas[1], "fixes");
    for (Track& track : tracks) Add(&track);
  }
  void Add(Track* track) {
    Scenario* s = problem.AddScenario("track " + std::to_string(problem.num_scenarios()));
    std::array<double, kLength>& y = track->estimate;
    ScalarNoise odometry(&log_sigmas[0], 1), fix(&log_sigmas[1], 1);
    for (int t = 0; t < kLength; ++t) {
      if (t > 0) {
        odometry.AddResidualBlock(
            new AutoDiffCostFunction<Step, 1, 1, 1>(new Step{track->odometry[t]}),
            nullptr,
            {&y[t - 1], &y[t]},
            s->lower());
      }
      if (t % kStepsAFix == 0) {
        fix.AddResidualBlock(
            TargetCost(track->fixes[t / kStepsAFix]), nullptr, {&y[t]}, s->lower());
      }
      s->upper()->AddResidualBlock(TargetCost(track->truth[t]), nullptr, &y[t]);
    }
  }
  std::vector<Track> tracks;
  double log_sigmas[2];
  Problem problem;
};

// Of tracks that nothing has seen, rms error by what is in x over that by what was.
double RatioOnOthers(const Job& job, const std::vector<double>& before) {
  double sums[2] = {0.0, 0.0};
  for (unsigned seed = 500000; seed < 500200; ++seed) {
    const Track track(seed);
    sums[0] += track.Score(std::exp(before[0]), std::exp(before[1]));
    sums[1] += track.Score(std::exp(job.log_sigmas[0]), std::exp(job.log_sigmas[1]));
  }
  return std::sqrt(sums[1] / sums[0]);
}

// F of one track has its minimum, by a grid over dense solutions, where LearnSafely says.
TEST(SafeLearning, IsTheMaximumAPosteriori) {
  Job job(1, 3, 0.3, 0.5);
  SafeLearningOptions options;
  options.num_errors_a_recording = 20.0;
  const SafeLearning result = LearnSafely(options, &job.problem);
  ASSERT_TRUE(result.ok) << result.message;
  const double start[] = {std::log(0.3), std::log(0.5)};
  const auto objective = [&](double a, double b) {
    return 10.0 * std::log(job.tracks[0].Score(std::exp(a), std::exp(b))) +
           0.5 * (std::pow((a - start[0]) / 0.7, 2) + std::pow((b - start[1]) / 0.7, 2));
  };
  const double here = objective(result.learned[0], result.learned[1]);
  EXPECT_LT(here, objective(start[0], start[1]) - 0.1);
  for (double a = -3.0; a <= 1.0; a += 0.05) {
    for (double b = -2.0; b <= 2.0; b += 0.05) EXPECT_GT(objective(a, b), here - 1e-3);
  }
}

TEST(SafeLearning, GoodDefaultsDoNotLose) {
  for (const int num_tracks : {1, 6}) {
    double sum = 0.0;
    for (unsigned seed = 0; seed < 8; ++seed) {
      Job job(num_tracks, seed, 0.1, 1.0);
      const SafeLearning result = LearnSafely({}, &job.problem);
      ASSERT_TRUE(result.ok) << result.message;
      const double ratio = RatioOnOthers(job, result.before);
      EXPECT_LT(ratio, 1.05) << num_tracks << " " << seed << ": " << result.message;
      sum += ratio / 8.0;
    }
    EXPECT_LT(sum, 1.01);
  }
}

// Fixes are trusted ten times too much. What one track cannot tell, six do.
TEST(SafeLearning, PoorDefaultsAreLeft) {
  int num_used = 0;
  double sum = 0.0;
  for (unsigned seed = 0; seed < 8; ++seed) {
    Job job(6, seed, 0.1, 0.1);
    const SafeLearning result = LearnSafely({}, &job.problem);
    ASSERT_TRUE(result.ok) << result.message;
    EXPECT_EQ(result.log_ratios.size(), 6u);
    const double ratio = RatioOnOthers(job, result.before);
    EXPECT_LT(ratio, 1.05) << result.message;
    sum += ratio / 8.0;
    if (result.kind != Verdict::kUseLearned) {
      EXPECT_EQ(job.log_sigmas[1], result.before[1]);
      continue;
    }
    ++num_used;
    EXPECT_THAT(result.message, HasSubstr("Use the learned values"));
    EXPECT_EQ(job.log_sigmas[1], result.learned[1]);
  }
  EXPECT_GE(num_used, 7);
  EXPECT_LT(sum, 0.7);
}

// A centre that is the truth is handed back where nothing more is shown.
TEST(SafeLearning, FallsBackOnTheCentre) {
  Job job(1, 0, 0.1, 0.1);
  SafeLearningOptions options;
  options.centre = {std::log(0.1), std::log(1.0)};
  options.prior_sigma = 0.35;
  options.num_errors_a_recording = 3.5;
  const SafeLearning result = LearnSafely(options, &job.problem);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_NE(result.kind, Verdict::kUseLearned);
  EXPECT_EQ(job.log_sigmas[1], std::log(1.0));
  EXPECT_THAT(result.message, HasSubstr("x is the centre"));
  EXPECT_THAT(result.message, HasSubstr("three recordings or more would tell"));
}

// A block of x that f does not feel keeps its value and is named.
TEST(SafeLearning, WhatTheDataDoNotShowStays) {
  Job job(4, 1, 0.1, 0.1);
  double unused = 0.3, y = 0.0;
  job.problem.AddUpperParameterBlock(&unused, 1);
  job.problem.SetParameterName(&unused, "unused");
  job.problem.scenario(1)->lower()->AddResidualBlock(
      new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &unused);
  const SafeLearning result = LearnSafely({}, &job.problem);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_THAT(result.not_shown, ElementsAre("'unused'"));
  EXPECT_NEAR(unused, 0.3, 1e-3);
  EXPECT_THAT(result.message, HasSubstr("do not show stays: 'unused'"));
}

// What is learned from a centre that is far off may be better than that, and worse than x was.
TEST(SafeLearning, APoorCentreDoesNotLose) {
  for (const int num_tracks : {1, 6}) {
    Job job(num_tracks, 4, 0.1, 1.0);
    SafeLearningOptions options;
    options.centre = {std::log(0.1), std::log(0.02)};
    options.prior_sigma = 0.35;
    const SafeLearning result = LearnSafely(options, &job.problem);
    ASSERT_TRUE(result.ok) << result.message;
    EXPECT_NE(result.kind, Verdict::kUseLearned) << result.message;
    EXPECT_EQ(job.log_sigmas[1], std::log(1.0));
    EXPECT_THAT(result.message, HasSubstr("The centre loses: x is what it was"));
  }
}

// y = x + an error, y's truth 0: x takes the error to itself, to the last digit.
TEST(SafeLearning, AsManyCoordinatesAsErrorsShowNothing) {
  double x = 0.0, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(TargetCost(0.4), nullptr, &y);
  SafeLearningOptions options;
  options.num_errors_a_recording = 1.0;
  const SafeLearning result = LearnSafely(options, &problem);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_EQ(result.kind, Verdict::kNotEnoughData);
  EXPECT_EQ(x, 0.0);
}

// (tr S)^2 / tr S^2 by the dense inverse of the smoother's Hessian; of ten tracks' errors, more
// than it counts exactly, within what probes leave.
TEST(SafeLearning, CountsIndependentErrors) {
  for (const bool many : {false, true}) {
    Job job(1, 0, 0.1, 1.0);
    if (many) {  // Four equal errors a pose: 240 of them.
      for (double& y : job.tracks[0].estimate) {
        for (int i = 0; i < 3; ++i) {
          job.problem.scenario(1)->upper()->AddResidualBlock(TargetCost(0.0), nullptr, &y);
        }
      }
    }
    Eigen::MatrixXd h = Eigen::MatrixXd::Zero(kLength, kLength);
    for (int t = 0; t < kLength; ++t) {
      if (t > 0) h(t, t) += 100, h(t - 1, t - 1) += 100, h(t, t - 1) -= 100, h(t - 1, t) -= 100;
      if (t % kStepsAFix == 0) h(t, t) += 1.0;
    }
    const Eigen::MatrixXd s = h.inverse();
    const double expected = std::pow(s.trace(), 2) / s.squaredNorm();
    const SafeLearning result = LearnSafely({}, &job.problem);
    ASSERT_TRUE(result.ok) << result.message;
    ASSERT_EQ(result.num_errors.size(), 1u);
    EXPECT_NEAR(result.num_errors[0], expected, (many ? 0.1 : 1e-9) * expected);
  }
}

// A shift of all estimates that is fitted to each: the errors have one dimension less, and no level
// of noise is learned from an offset of the truth.
TEST(SafeLearning, FittedBlocksFollow) {
  Job job(6, 0, 0.1, 0.1), plain(6, 0, 0.1, 0.1);
  std::vector<double> shifts(6, 0.0);
  SafeLearningOptions options;
  for (int i = 0; i < 6; ++i) {
    Track& track = job.tracks[i];
    Scenario* s = job.problem.scenario(1 + i);
    std::vector<ceres::ResidualBlockId> ids;
    s->upper()->GetResidualBlocks(&ids);
    job.problem.AddUpperParameterBlock(&shifts[i], 1);
    options.fitted_blocks.push_back(&shifts[i]);
    for (const ceres::ResidualBlockId id : ids) {
      job.problem.Adopt(s->upper()->GetCostFunctionForResidualBlock(id), nullptr);
      s->upper()->RemoveResidualBlock(id);
    }
    for (int t = 0; t < kLength; ++t) {
      s->upper()->AddResidualBlock(
          new AutoDiffCostFunction<Step, 1, 1, 1>(new Step{track.truth[t] + 1000.0}),
          nullptr,
          {&shifts[i], &track.estimate[t]});
    }
  }
  const SafeLearning result = LearnSafely(options, &job.problem);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_EQ(result.kind, Verdict::kUseLearned) << result.message;
  EXPECT_LT(RatioOnOthers(job, result.before), 1.0);
  for (int i = 0; i < 6; ++i) {
    const Track& track = job.tracks[i];
    double mean = -1000.0;
    for (int t = 0; t < kLength; ++t) mean += (track.estimate[t] - track.truth[t]) / kLength;
    EXPECT_NEAR(shifts[i], mean, 1e-6);
  }
  const SafeLearning with_offset = LearnSafely({}, &plain.problem);
  ASSERT_TRUE(with_offset.ok) << with_offset.message;
  EXPECT_LT(result.num_errors[0], with_offset.num_errors[0]);
}

// Below are two minima, about -1 and 1: which one an estimate is at is its start's to say.
struct TwoMinima {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] * y[0] - 1.0;
    r[1] = 0.1 * (y[0] - x[0]);
    return true;
  }
};
TEST(SafeLearning, StartsWhereTheUsersProgramDoes) {
  double x = 0.0, y = -1.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<TwoMinima, 2, 1, 1>(new TwoMinima), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(TargetCost(1.2), nullptr, &y);
  SafeLearningOptions options;
  int num_starts = 0;
  options.start_y = [&] {
    y = 1.0;
    ++num_starts;
  };
  const SafeLearning result = LearnSafely(options, &problem);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_NEAR(y, 1.0, 0.05);
  EXPECT_GE(num_starts, 1);
}

// Nothing is better than no error at all.
TEST(SafeLearning, WithoutErrorsXStays) {
  double x = 0.0, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(TargetCost(0.0), nullptr, &y);
  const SafeLearning result = LearnSafely({}, &problem);
  EXPECT_EQ(result.kind, Verdict::kKeepYours);
  EXPECT_TRUE(result.ok);
  EXPECT_THAT(result.message, HasSubstr("is 0 already"));
}

// Where one coordinate is fitted to ten errors of an unknown scale, f falls by chance as Fisher's F
// says: by a share 1 / (1 + F / 9), F = 3.360 in one case of ten.
TEST(SafeLearning, GainByChanceIsFishers) {
  EXPECT_NEAR(GainByChance(10.0, 1), 5.0 * std::log(1.0 + 3.36030 / 9.0), 2e-3);
  EXPECT_NEAR(GainByChance(20.0, 4), 10.0 * std::log(1.0 + 2.33274 * 4.0 / 16.0), 2e-3);
  EXPECT_TRUE(std::isinf(GainByChance(3.5, 4)));
}

TEST(SafeLearning, LeavesTheProblemAsItWas) {
  Job job(3, 2, 0.1, 1.0);
  job.problem.scenario(2)->set_weight(2.5);
  SafeLearningOptions options;
  Solver::Options fixed;
  fixed.max_num_iterations = 0;
  Solver::Summary before, after;
  Solve(fixed, &job.problem, &before);
  const SafeLearning result = LearnSafely(options, &job.problem);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_EQ(job.problem.scenario(2)->weight(), 2.5);
  for (int i : {0, 1}) job.log_sigmas[i] = result.before[i];
  Solve(fixed, &job.problem, &after);
  EXPECT_NEAR(before.final_objective, after.final_objective, 1e-12 * before.final_objective);
}

TEST(SafeLearning, BadInput) {
  const auto expect = [](const SafeLearning& result, const char* says) {
    EXPECT_FALSE(result.ok);
    EXPECT_EQ(result.kind, Verdict::kNotEnoughData);
    EXPECT_THAT(result.message, HasSubstr(says));
  };
  SafeLearningOptions options;
  {
    Job job(1, 0, 0.1, 1.0);
    options.centre = {1.0};
    expect(LearnSafely(options, &job.problem), "centre has 1 values, and x has 2");
    options = {};
    options.prior_sigma = 0.0;
    expect(LearnSafely(options, &job.problem), "prior_sigma must be positive");
    options = {};
    job.problem.scenario(1)->set_weight(0.0);
    expect(LearnSafely(options, &job.problem), "");
    EXPECT_FALSE(LearnSafely(options, nullptr).ok);
    double x = 0.0;
    Scenario* prior = job.problem.AddScenario("taste");
    prior->upper()->AddResidualBlock(TargetCost(0.0), nullptr, &job.log_sigmas[0]);
    prior->lower()->AddResidualBlock(TargetCost(0.0), nullptr, &x);
    job.problem.scenario(1)->set_weight(1.0);
    expect(LearnSafely(options, &job.problem), "'taste' has x alone above");
    prior->set_weight(0.0);
    options.fitted_blocks = {&x};
    expect(LearnSafely(options, &job.problem), "a fitted block is no block of x");
    options = {};
    job.problem.scenario(1)->set_weight(-1.0);
    expect(LearnSafely(options, &job.problem), "or 0 to leave the scenario out");
  }
  {
    Job job(1, 0, 0.1, 1.0);
    job.tracks[0].truth[3] = std::nan("");
    job.problem.scenario(1)->upper()->AddResidualBlock(
        TargetCost(std::nan("")), nullptr, &job.tracks[0].estimate[3]);
    expect(LearnSafely(options, &job.problem), "not finite");
  }
}

}  // namespace
}  // namespace bilevel
