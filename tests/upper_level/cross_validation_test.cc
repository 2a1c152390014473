#include "bilevel/upper_level/cross_validation.h"

#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "bilevel/derivatives/auto_diff_objective.h"
#include "bilevel/learnable/losses.h"
#include "bilevel/learnable/noise.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// Scalar measurements z_i of one number y with a ridge exp(-2 log_sigma) y^2: all in closed form.
struct Ridge {
  explicit Ridge(int n) {
    problem.AddUpperParameterBlock(&log_sigma, 1);
    for (int i = 0; i < n; ++i) {
      z.push_back(1.0 + 0.8 * std::sin(2.3 * i));
      ids.push_back(problem.lower()->AddResidualBlock(new NormalPrior({z[i]}, 1.0), nullptr, &y));
    }
    problem.lower()->AddResidualBlock(
        new NormalPrior({0.0}, 1.0),
        new NoiseScaleLoss(nullptr, &log_sigma, ceres::TAKE_OWNERSHIP),
        &y);
  }
  double Estimate(const std::vector<char>& in) const {
    double sum = 0.0, weight = std::exp(-2.0 * log_sigma);
    for (size_t i = 0; i < z.size(); ++i) {
      sum += in[i] * z[i];
      weight += in[i];
    }
    return sum / weight;
  }
  Problem problem;
  double y = 0.0, log_sigma = 0.3;
  std::vector<double> z;
  std::vector<ceres::ResidualBlockId> ids;
};

TEST(CrossValidation, LeaveOneOutIsThePressStatistic) {
  constexpr int kSize = 12;
  Ridge ridge(kSize);
  CrossValidationOptions options;
  options.num_folds = kSize;
  std::vector<std::vector<HeldOutResidual>> folds;
  std::string error;
  ASSERT_TRUE(AddCrossValidation(options, ridge.ids, nullptr, &ridge.problem, &folds, &error))
      << error;
  Solver::Options solve;
  solve.max_num_iterations = 0;
  Solver::Summary summary;
  Solve(solve, &ridge.problem, &summary);
  // Allen's PRESS: residuals of the whole over 1 - leverage.
  const double y = ridge.Estimate(std::vector<char>(kSize, 1));
  const double leverage = 1.0 / (kSize + std::exp(-2.0 * ridge.log_sigma));
  double press = 0.0;
  for (const double z : ridge.z) press += 0.5 * std::pow((z - y) / (1.0 - leverage), 2);
  EXPECT_NEAR(summary.initial_objective, press, 1e-10) << summary.FullReport();
  EXPECT_NEAR(ridge.y, y, 1e-12);  // The first scenario: the estimate from all data.
  const HypergradientChecker::Result check = HypergradientChecker::Check(&ridge.problem);
  ASSERT_TRUE(check.ok) << check.message;
  EXPECT_LT(check.max_relative_error, 1e-8);
  // And the learned ridge is a minimum of it.
  Solve(Solver::Options(), &ridge.problem, &summary);
  const auto press_at = [&](double log_sigma) {
    ridge.log_sigma = log_sigma;
    double sum = 0.0;
    for (int i = 0; i < kSize; ++i) {
      std::vector<char> in(kSize, 1);
      in[i] = 0;
      sum += 0.5 * std::pow(ridge.z[i] - ridge.Estimate(in), 2);
    }
    return sum;
  };
  const double best = ridge.log_sigma, value = press_at(best);
  EXPECT_LE(value, press_at(best + 0.05));
  EXPECT_LE(value, press_at(best - 0.05));
  EXPECT_NEAR(summary.final_objective, value, 1e-10);
}

TEST(CrossValidation, FoldsPartitionTheCandidates) {
  for (const auto kind : {HoldoutOptions::Kind::kRandom, HoldoutOptions::Kind::kByTime}) {
    Ridge ridge(23);
    CrossValidationOptions options;
    options.kind = kind;
    options.num_folds = 4;
    std::vector<std::vector<HeldOutResidual>> folds;
    std::string error;
    ASSERT_TRUE(AddCrossValidation(options, ridge.ids, nullptr, &ridge.problem, &folds, &error));
    ASSERT_EQ(folds.size(), 4u);
    std::set<int> seen;
    for (size_t f = 0; f < folds.size(); ++f) {
      EXPECT_GE(folds[f].size(), 5u);
      EXPECT_LE(folds[f].size(), 6u);
      int last = -1;
      for (const HeldOutResidual& r : folds[f]) {
        EXPECT_TRUE(seen.insert(r.index).second);
        if (kind == HoldoutOptions::Kind::kByTime && last >= 0) {
          EXPECT_EQ(r.index, last + 1);
        }
        last = r.index;
        EXPECT_NE(r.blocks[0], &ridge.y);
      }
      Scenario* s = ridge.problem.scenario(static_cast<int>(f) + 1);
      EXPECT_EQ(s->lower()->NumResidualBlocks(), 24 - static_cast<int>(folds[f].size()));
      EXPECT_EQ(s->upper()->NumResidualBlocks(), static_cast<int>(folds[f].size()));
    }
    EXPECT_EQ(seen.size(), 23u);
  }
}

// Beacons are constants below; each fold leaves one out, bounds and manifolds go along.
TEST(CrossValidation, LeavesOneBlockOutAtATime) {
  double beacons[3] = {1.0, 2.0, 4.0}, pose[4] = {1.0, 0.0, 0.0, 0.0}, offset = 0.1, x = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  std::vector<ceres::ResidualBlockId> ids;
  for (double& beacon : beacons) {
    for (int i = 0; i < 2; ++i) {
      ids.push_back(problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &offset, &beacon));
    }
  }
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &offset, &x);
  problem.lower()->AddResidualBlock(new NormalPrior({1.0, 0.1, 0.0, 0.0}, 1.0), nullptr, pose);
  problem.lower()->SetManifold(pose, new ceres::QuaternionManifold);
  problem.lower()->SetParameterUpperBound(&offset, 0, 7.0);
  for (double& beacon : beacons) problem.lower()->SetParameterBlockConstant(&beacon);
  CrossValidationOptions options;
  options.kind = HoldoutOptions::Kind::kByBlock;
  options.num_folds = 0;
  for (double& beacon : beacons) options.blocks.push_back(&beacon);
  std::vector<std::vector<HeldOutResidual>> folds;
  std::string error;
  ASSERT_TRUE(AddCrossValidation(options, ids, nullptr, &problem, &folds, &error)) << error;
  ASSERT_EQ(folds.size(), 3u);
  Solver::Options solve;
  solve.max_num_iterations = 0;
  Solver::Summary summary;
  Solve(solve, &problem, &summary);
  double expected = 0.0;
  for (int f = 0; f < 3; ++f) {
    ASSERT_EQ(folds[f].size(), 2u);
    EXPECT_EQ(folds[f][0].blocks[1], &beacons[f]);
    double* copy = folds[f][0].blocks[0];
    EXPECT_EQ(problem.scenario(f + 1)->lower()->GetParameterUpperBound(copy, 0), 7.0);
    const double left = 2.0 * (beacons[0] + beacons[1] + beacons[2] - beacons[f]) / 5.0;
    EXPECT_NEAR(*copy, left, 1e-12);
    expected += std::pow(left - beacons[f], 2);
  }
  EXPECT_NEAR(summary.initial_objective, expected, 1e-12) << summary.FullReport();
}

TEST(CrossValidation, BadInputIsNamed) {
  Ridge ridge(4);
  std::string error;
  const auto refused = [&](const CrossValidationOptions& options, const char* why) {
    EXPECT_FALSE(AddCrossValidation(options, ridge.ids, nullptr, &ridge.problem, nullptr, &error));
    EXPECT_NE(error.find(why), std::string::npos) << error;
    EXPECT_EQ(ridge.problem.num_scenarios(), 1);
  };
  CrossValidationOptions options;
  options.num_folds = 1;
  refused(options, "num_folds must be 2 or more");
  options.num_folds = 5;
  refused(options, "fold 4 is empty");
  options.num_folds = 2;
  options.kind = HoldoutOptions::Kind::kByTime;
  options.times = {1.0};
  refused(options, "there are 1 times for 4 candidates");
  options.times = {1.0, 2.0, std::nan(""), 3.0};
  refused(options, "a time is not a number");
  options = CrossValidationOptions();
  options.kind = HoldoutOptions::Kind::kByBlock;
  refused(options, "two blocks or more");
  options.kind = HoldoutOptions::Kind::kRandom;
  options.num_folds = 2;
  ridge.ids.push_back(ridge.ids[0]);
  refused(options, "given twice");
  // One measurement that must not leave, since nothing else determines its block.
  double y = 0.0, x = 0.0;
  Problem alone;
  alone.AddUpperParameterBlock(&x, 1);
  alone.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  EXPECT_FALSE(AddCrossValidation(options, {}, nullptr, &alone, nullptr, &error));
  EXPECT_NE(error.find("no candidate of it may leave"), std::string::npos) << error;
  ceres::Problem lower, upper;
  Problem wrapped(&upper, &lower);
  EXPECT_FALSE(AddCrossValidation(options, {}, nullptr, &wrapped, nullptr, &error));
  EXPECT_NE(error.find("user's own"), std::string::npos) << error;
}

struct Quartic {
  template <typename T>
  bool operator()(const T* y, T* value) const {
    value[0] = pow(y[0], 4);
    return true;
  }
};

// Folds share what was there when they were made.
TEST(CrossValidation, RefusesWhatWasChangedAfterIt) {
  double z = 0.0;
  const auto refused = [&z](const char* what, auto change) {
    Ridge ridge(4);
    ridge.problem.lower()->AddResidualBlock(new NormalPrior({0.5}, 1.0), nullptr, &z);
    CrossValidationOptions options;
    options.num_folds = 2;
    std::string error;
    ASSERT_TRUE(AddCrossValidation(options, ridge.ids, nullptr, &ridge.problem, nullptr, &error))
        << error;
    ASSERT_TRUE(ridge.problem.IsValid(&error)) << error;
    change(&ridge);
    EXPECT_FALSE(ridge.problem.IsValid(&error));
    EXPECT_NE(error.find(what), std::string::npos) << error;
    EXPECT_NE(error.find("AddCrossValidation"), std::string::npos) << error;
  };
  refused("has 7 residual blocks and had 6", [](Ridge* ridge) {
    ridge->problem.lower()->AddResidualBlock(new NormalPrior({0.3}, 1.0), nullptr, &ridge->y);
  });
  refused("has 1 blocks of y and had 2",
          [&](Ridge* ridge) { ridge->problem.AddUpperParameterBlock(&z, 1); });
  refused("general terms", [](Ridge* ridge) {
    ridge->problem.AddTerm(
        Level::kLower, std::make_unique<AutoDiffObjective<Quartic, 1>>(), {{&ridge->y, 1}});
  });
}

}  // namespace
}  // namespace bilevel
