// Solves from far starts, whose trials go farther: y is y*(x) wherever they end, by the closed
// form. BILEVEL_FAR_TRIALS sets how many; by default 1,600.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

struct Weighted {
  template <typename T>
  bool operator()(const T* y, const T* log_weight, T* r) const {
    using std::exp;
    r[0] = exp(log_weight[0]) * (y[0] - b);
    return true;
  }
  double b;
};

// Means of numbers, some of which have a learned weight: y_j = (sum a + w sum b) / (4 + 3 w) with
// w = e^(2 x_j), from log weights in -20 to 20.
struct FarMeans {
  explicit FarMeans(unsigned seed) : x(1 + seed % 3), y(x.size()), sums(x.size()) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0.0, 10.0);
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    for (size_t j = 0; j < x.size(); ++j) {
      x[j] = 20.0 * uniform(generator);
      y[j] = uniform(generator);
      problem.AddUpperParameterBlock(&x[j], 1);
      for (int i = 0; i < 7; ++i) {
        const double number = normal(generator);
        sums[j][i < 4 ? 0 : 1] += number;
        if (i < 4) {
          problem.lower()->AddResidualBlock(TargetCost(number), nullptr, &y[j]);
        } else {
          problem.lower()->AddResidualBlock(
              new AutoDiffCostFunction<Weighted, 1, 1, 1>(new Weighted{number}),
              nullptr,
              &y[j],
              &x[j]);
        }
      }
      problem.upper()->AddResidualBlock(TargetCost(normal(generator)), nullptr, &y[j]);
    }
  }

  // By how much y is off, relative to its size.
  double Error() const {
    double worst = 0.0;
    for (size_t j = 0; j < x.size(); ++j) {
      const double w = std::exp(2.0 * x[j]);
      const double exact = std::isinf(w) ? sums[j][1] / 3.0  //
                                         : (sums[j][0] + w * sums[j][1]) / (4.0 + 3.0 * w);
      worst = std::max(worst, std::abs(y[j] - exact) / (1.0 + std::abs(exact)));
    }
    return worst;
  }

  std::vector<double> x, y;
  std::vector<std::array<double, 2>> sums;
  Problem problem;
};

TEST(FarTrials, YIsSolvedWhereTheyEnd) {
  const char* wanted = std::getenv("BILEVEL_FAR_TRIALS");
  const int num_trials = wanted ? std::atoi(wanted) : 1600;
  const std::vector<std::string> methods = {"auto",
                                            "lbfgs",
                                            "bfgs",
                                            "gradient_descent",
                                            "levenberg_marquardt",
                                            "igfm",
                                            "pattern_search",
                                            "hoag"};
  std::map<std::string, int> num_usable;
  for (int k = 0; k < num_trials; ++k) {
    const std::string& method = methods[k % methods.size()];
    FarMeans means(k / methods.size());
    Solver::Options options;
    options.method = CreateMethod(method);
    options.max_num_iterations = 60;
    Solver::Summary summary;
    Solve(options, &means.problem, &summary);
    if (!summary.IsSolutionUsable()) continue;
    ++num_usable[method];
    ASSERT_LT(means.Error(), 1e-6) << method << ", " << k << ": " << summary.BriefReport();
  }
  for (const std::string& method : methods) {
    std::printf(
        "%s: %d of %zu usable\n", method.c_str(), num_usable[method], num_trials / methods.size());
    EXPECT_GT(num_usable[method], 0.9 * num_trials / methods.size()) << method;
  }
}

}  // namespace
}  // namespace bilevel
