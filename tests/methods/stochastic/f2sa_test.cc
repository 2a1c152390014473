#include "bilevel/methods/stochastic/f2sa.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

// g = |(y - sin x, y^2 / 2)|^2 / 2, f = |(y - 1, 0.3 x)|^2 / 2, one sample of each or many that
// differ.
struct Lower {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::sin;
    r[0] = y[0] - sin(x[0]) - shift;
    r[1] = 0.5 * y[0] * y[0];
    return true;
  }
  double shift;
};
struct Upper {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] - 1.0;
    r[1] = 0.3 * x[0];
    return true;
  }
};

struct Sum {
  explicit Sum(int count) {
    problem.AddUpperParameterBlock(&x, 1);
    for (int i = 0; i < count; ++i) {
      const double shift = count > 1 ? 0.3 * std::sin(1.0 + 5.0 * i) : 0.0;
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Lower, 2, 1, 1>(new Lower{shift}), nullptr, &y, &x);
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<Upper, 2, 1, 1>(new Upper), nullptr, &y, &x);
    }
  }
  void Minimize(std::shared_ptr<Method> method, int num_iterations, int seed = 0) {
    Solver::Options options;
    options.method = std::move(method);
    options.max_num_iterations = num_iterations;
    options.seed = seed;
    options.gradient_tolerance = options.function_tolerance = options.parameter_tolerance = 1e-14;
    Solve(options, &problem, &summary);
  }

  double x = 0.4, y = 0.3;
  Problem problem;
  Solver::Summary summary;
};

// Steps for a sum of so many terms, `batch` of them at a time.
std::shared_ptr<F2sa> WithLambda(
    int order, double lambda, bool same_sample = false, int count = 1, int batch = 0) {
  F2sa::Options options;
  options.order = order;
  options.same_sample = same_sample;
  options.num_lower_steps = 5;
  options.lower_batch = options.upper_batch = batch;
  options.gamma = Schedule{0.3 / count, 0.0, 1.0};
  options.alpha = Schedule{options.gamma.step / (2.0 * lambda), 0.0, 1.0};
  options.xi = 0.1 / count / options.alpha.step;
  return std::make_shared<F2sa>(options);
}

// The bias of a difference of that order, against the exact minimiser.
TEST(F2sa, TheBiasIsOfTheOrdersPower) {
  Sum exact(1);
  exact.Minimize(CreateMethod("newton"), 100);
  ASSERT_EQ(exact.summary.termination_type, ceres::CONVERGENCE) << exact.summary.FullReport();
  for (const int order : {1, 2, 4}) {
    std::vector<double> errors;
    for (const double lambda : {8.0, 16.0, 32.0}) {
      Sum sum(1);
      sum.Minimize(WithLambda(order, lambda), 3000);
      ASSERT_TRUE(sum.summary.IsSolutionUsable()) << sum.summary.FullReport();
      errors.push_back(std::abs(sum.x - exact.x));
    }
    for (int k : {0, 1}) {
      const double slope = std::log2(errors[k] / errors[k + 1]);
      EXPECT_NEAR(slope, order, 0.25) << order << ": " << errors[k] << ", " << errors[k + 1];
    }
  }
}

// What a few iterations make of x scatters by lambda times the samples' difference, or not.
TEST(F2sa, NoiseThatLambdaDoesNotMultiply) {
  const auto spread = [](int order, bool same_sample) {
    double sum = 0.0, squares = 0.0;
    constexpr int kRuns = 200;
    for (int seed = 0; seed < kRuns; ++seed) {
      Sum terms(40);
      terms.Minimize(WithLambda(order, 30.0, same_sample, 40, 4), 20, seed + 1);
      EXPECT_TRUE(terms.summary.IsSolutionUsable()) << terms.summary.message;
      sum += terms.x;
      squares += terms.x * terms.x;
    }
    return std::sqrt(squares / kRuns - sum * sum / kRuns / kRuns);
  };
  const double own = spread(1, false);
  EXPECT_LT(spread(1, true), 0.2 * own);
  EXPECT_LT(spread(2, false), 0.2 * own);
}

TEST(F2sa, SaysWhatIsWrong) {
  for (const auto& [order, momentum] : {std::pair{3, false}, {2, true}}) {
    F2sa::Options options;
    options.order = order;
    options.momentum = momentum;
    Sum sum(1);
    sum.Minimize(std::make_shared<F2sa>(options), 10);
    EXPECT_EQ(sum.summary.termination_type, ceres::FAILURE);
    EXPECT_THAT(sum.summary.message, testing::HasSubstr("order"));
  }
}

}  // namespace
}  // namespace bilevel
