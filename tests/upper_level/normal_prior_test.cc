// A prior on a block of x: the posterior of one number has a closed form.
#include "bilevel/upper_level/normal_prior.h"

#include <string>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// y = x and f = 1/2 (y - 3)^2: with N(1, sigma^2) on x[0] the minimum is at the weighted mean.
TEST(NormalPrior, IsWeighedAgainstTheData) {
  double x = 0.0, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(TargetCost(3.0), nullptr, &y);
  std::string error;
  ASSERT_TRUE(AddNormalPrior(&x, {1.0}, {0.5}, &problem, &error)) << error;
  Solver::Summary summary;
  Solve({}, &problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.message;
  EXPECT_NEAR(x, (3.0 + 1.0 / 0.25) / (1.0 + 1.0 / 0.25), 1e-6);
}

TEST(NormalPrior, HasASigmaForEachEntry) {
  const double sigma[] = {0.5, 2.0}, mean[] = {1.0, -1.0};
  const NormalPrior prior({mean[0], mean[1]}, {sigma[0], sigma[1]});
  const double at[] = {2.0, 3.0};
  const double* blocks[] = {at};
  double r[2], jacobian[4];
  double* jacobians[] = {jacobian};
  ASSERT_TRUE(prior.Evaluate(blocks, r, jacobians));
  EXPECT_THAT(r, ::testing::ElementsAre(2.0, 2.0));
  EXPECT_THAT(jacobian, ::testing::ElementsAre(2.0, 0.0, 0.0, 0.5));
}

TEST(NormalPrior, BadInput) {
  double x[2] = {0.0, 0.0}, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.SetParameterName(x, "alpha");
  const auto refused = [&](double* block,
                           const std::vector<double>& mean,
                           const std::vector<double>& sigma,
                           int scenario = 0) {
    std::string error;
    EXPECT_FALSE(AddNormalPrior(block, mean, sigma, &problem, &error, scenario));
    return error;
  };
  EXPECT_THAT(refused(&y, {0.0}, {1.0}), HasSubstr("not declared"));
  EXPECT_THAT(refused(x, {}, {1.0}), HasSubstr("'alpha' has a mean that is empty"));
  EXPECT_THAT(refused(x, {0.0, 0.0}, {1.0, 1.0, 1.0}), HasSubstr("2 means and 3 sigmas"));
  EXPECT_THAT(refused(x, {0.0, 0.0}, {-1.0}), HasSubstr("not positive"));
  EXPECT_THAT(refused(x, {0.0, 0.0}, {1.0}, 1), HasSubstr("no scenario 1"));
  std::string error;
  EXPECT_TRUE(AddNormalPrior(x, {0.0, 0.0}, {1.0}, &problem, &error)) << error;
  EXPECT_THAT(refused(x, {0.0}, {1.0}), HasSubstr("1 means, and the block has 2 values"));
  EXPECT_FALSE(AddNormalPrior(x, {0.0, 0.0}, {1.0}, nullptr, &error));
}

}  // namespace
}  // namespace bilevel
