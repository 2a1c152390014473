// Levels of noise by residuals at the truth: the sums of their formula made here, and how often the
// intervals hold what residuals were drawn with.
#include "bilevel/upper_level/residual_statistics.h"

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// y, the truth at 0, measured n times with some sigma.
struct Job {
  Job(int n, double sigma, double guess, unsigned seed) : log_sigma(std::log(guess)) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0.0, sigma);
    for (int i = 0; i < n; ++i) measured.push_back(normal(generator));
    problem.AddUpperParameterBlock(&log_sigma, 1);
    problem.SetParameterName(&log_sigma, "log sigma");
  }
  void AddAll(ceres::LossFunction* loss) {
    const ScalarNoise noise(&log_sigma);
    for (const double z : measured) {
      noise.AddResidualBlock(TargetCost(z), loss, {&y}, problem.lower());
    }
  }
  std::vector<double> measured;
  double log_sigma, log_scale = std::log(3.0), y = 0.0;
  Problem problem;
};

double SumOfSquares(const std::vector<double>& v) {
  double sum = 0.0;
  for (const double e : v) sum += e * e;
  return sum;
}

TEST(ResidualStatistics, IsTheClosedForm) {
  Job job(50, 0.2, 0.5, 1);
  job.AddAll(nullptr);
  const ResidualStatistics result = MeasureResiduals({}, &job.problem);
  ASSERT_TRUE(result.ok) << result.message;
  const double sigma = std::sqrt((20.0 * 0.25 + SumOfSquares(job.measured)) / 70.0);
  EXPECT_NEAR(result.x[0], std::log(sigma), 1e-12);
  EXPECT_NEAR(result.standard_errors[0], 1.0 / std::sqrt(140.0), 1e-15);
  EXPECT_EQ(result.num_residuals[0], 50);
  EXPECT_EQ(job.log_sigma, std::log(0.5));
  ResidualStatisticsOptions alone;
  alone.pseudo_count = 0.0;
  EXPECT_NEAR(MeasureResiduals(alone, &job.problem).x[0],
              0.5 * std::log(SumOfSquares(job.measured) / 50.0),
              1e-12);
}

// With the weights of a Cauchy loss, whose scale times sigma stays.
TEST(ResidualStatistics, TheLossHasItsSay) {
  Job job(50, 0.2, 0.5, 2);
  job.problem.AddUpperParameterBlock(&job.log_scale, 1);
  job.AddAll(job.problem.Own(std::make_unique<CauchyLoss>(&job.log_scale)));
  const auto sigma = [&] {
    double sum = 0.0;
    for (const double z : job.measured) sum += z * z / (1.0 + z * z / 0.25 / 9.0);
    return std::sqrt((20.0 * 0.25 + sum) / (20.0 + static_cast<double>(job.measured.size())));
  };
  ResidualStatistics result = MeasureResiduals({}, &job.problem);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_NEAR(result.x[0], std::log(sigma()), 1e-12);
  EXPECT_NEAR(result.x[0] + result.x[1], std::log(0.5 * 3.0), 1e-12);
  EXPECT_EQ(result.num_outliers, 0);
  EXPECT_EQ(result.num_residuals[1], 0);
  EXPECT_TRUE(std::isinf(result.standard_errors[1]));

  // Far beyond six sigmas: left out.
  ScalarNoise(&job.log_sigma)
      .AddResidualBlock(TargetCost(6.0),
                        job.problem.Own(std::make_unique<CauchyLoss>(&job.log_scale)),
                        {&job.y},
                        job.problem.lower());
  result = MeasureResiduals({}, &job.problem);
  EXPECT_NEAR(result.x[0], std::log(sigma()), 1e-12);
  EXPECT_EQ(result.x[1], std::log(3.0));
  EXPECT_EQ(result.num_outliers, 1);
  EXPECT_THAT(result.message, HasSubstr("Outliers: 1, left out"));
}

// A sigma inside a loss is the same as one that whitens, and so is one in a user's cost function.
struct Whitened {
  template <typename T>
  bool operator()(const T* y, const T* log_sigma, T* r) const {
    using std::exp;
    r[0] = exp(-log_sigma[0]) * (y[0] - z);
    return true;
  }
  double z;
};
TEST(ResidualStatistics, AnyWayToWriteASigma) {
  Job whitened(30, 1.0, 0.4, 3), in_loss(30, 1.0, 0.4, 3), own(30, 1.0, 0.4, 3);
  for (Job* job : {&whitened, &in_loss, &own}) {
    job->problem.AddUpperParameterBlock(&job->log_scale, 1);
  }
  whitened.AddAll(whitened.problem.Own(std::make_unique<HuberLoss>(&whitened.log_scale)));
  auto* loss = in_loss.problem.Own(std::make_unique<NoiseScaleLoss>(
      new HuberLoss(&in_loss.log_scale), &in_loss.log_sigma, ceres::TAKE_OWNERSHIP));
  auto* huber = own.problem.Own(std::make_unique<HuberLoss>(&own.log_scale));
  for (const double z : in_loss.measured) {
    in_loss.problem.lower()->AddResidualBlock(TargetCost(z), loss, &in_loss.y);
    own.problem.lower()->AddResidualBlock(
        new ceres::AutoDiffCostFunction<Whitened, 1, 1, 1>(new Whitened{z}),
        huber,
        &own.y,
        &own.log_sigma);
  }
  const ResidualStatistics expected = MeasureResiduals({}, &whitened.problem);
  ASSERT_TRUE(expected.ok) << expected.message;
  EXPECT_GT(expected.x[0], std::log(0.4) + 0.1);
  for (Job* job : {&in_loss, &own}) {
    const ResidualStatistics result = MeasureResiduals({}, &job->problem);
    ASSERT_TRUE(result.ok) << result.message;
    for (int i : {0, 1}) EXPECT_NEAR(result.x[i], expected.x[i], 1e-12);
    EXPECT_EQ(result.num_residuals, expected.num_residuals);
  }
}

// Entries of a residual have their own sigmas; a bias and a full covariance are left alone.
struct Biased {
  template <typename T>
  bool operator()(const T* y, const T* bias, T* r) const {
    for (int i = 0; i < 2; ++i) r[i] = y[0] + bias[0] - z[i];
    return true;
  }
  double z[2];
};
TEST(ResidualStatistics, KnowsWhatIsNoSigma) {
  double log_sigmas[] = {0.0, 1.0}, bias = 0.3, full[] = {0.1, 0.2, 0.3}, y = 1.0;
  Problem problem;
  problem.AddUpperParameterBlock(log_sigmas, 2);
  problem.AddUpperParameterBlock(&bias, 1);
  problem.AddUpperParameterBlock(full, 3);
  problem.SetParameterName(&bias, "bias");
  problem.SetParameterUpperBound(log_sigmas, 1, 1.01);
  const auto add = [&](const NoiseModel& noise, double a, double b) {
    auto* cost = new AutoDiffCostFunction<Biased, 2, 1, 1>(new Biased{{a, b}});
    noise.AddResidualBlock(cost, nullptr, {&y, &bias}, problem.lower());
  };
  add(DiagonalNoise(log_sigmas, 2), 0.3, 100.0);
  add(DiagonalNoise(log_sigmas, 2), 1.3, 200.0);  // The first is exactly zero, and counts.
  add(FullNoise(full, 2), 0.5, 0.1);
  const ResidualStatistics result = MeasureResiduals({}, &problem);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_NEAR(result.x[0], 0.5 * std::log(21.0 / 22.0), 1e-12);
  EXPECT_EQ(result.num_residuals[0], 2);
  EXPECT_EQ(result.x[1], 1.01);  // Its bound.
  EXPECT_EQ(result.num_residuals[1], 2);
  EXPECT_EQ(result.x[2], 0.3);
  for (int i : {0, 1, 2}) EXPECT_EQ(result.x[3 + i], full[i]);
  EXPECT_THAT(result.message, HasSubstr("Left alone: 'bias'"));
}

// Of 1000 recordings the 95 % intervals of sigma hold it in 920 to 980: by the residuals alone
// wherever the guess is, and with 20 pseudo-counts where the guess is as good as 20 residuals. (By
// chi^2 with 12 degrees of freedom it is 935 for the shortest.)
TEST(ResidualStatistics, IntervalsHoldTheTruth) {
  const double sigma = 0.2;
  for (const int n : {12, 60, 400}) {
    for (const double pseudo_count : {0.0, 20.0}) {
      int num_held = 0;
      for (unsigned seed = 0; seed < 1000; ++seed) {
        const Job guessed(20, sigma, 1.0, 10000 + seed);
        const double guess = pseudo_count > 0.0 ? std::sqrt(SumOfSquares(guessed.measured) / 20.0)
                                                : sigma * std::exp(0.005 * seed - 2.5);
        Job job(n, sigma, guess, seed);
        job.AddAll(nullptr);
        ResidualStatisticsOptions options;
        options.pseudo_count = pseudo_count;
        const ResidualStatistics result = MeasureResiduals(options, &job.problem);
        ASSERT_TRUE(result.ok) << result.message;
        num_held += std::abs(result.x[0] - std::log(sigma)) < 1.96 * result.standard_errors[0];
      }
      EXPECT_GE(num_held, 920) << n << " " << pseudo_count;
      EXPECT_LE(num_held, 980) << n << " " << pseudo_count;
    }
  }
}

TEST(ResidualStatistics, BadInput) {
  EXPECT_FALSE(MeasureResiduals({}, nullptr).ok);
  Job job(5, 1.0, 1.0, 0);
  job.AddAll(nullptr);
  ResidualStatisticsOptions options;
  options.pseudo_count = -1.0;
  EXPECT_THAT(MeasureResiduals(options, &job.problem).message,
              HasSubstr("pseudo_count must not be negative"));
  job.y = std::nan("");
  const ResidualStatistics result = MeasureResiduals({}, &job.problem);
  EXPECT_FALSE(result.ok);
  EXPECT_THAT(result.message, HasSubstr("not finite"));
}

}  // namespace
}  // namespace bilevel
