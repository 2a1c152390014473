// The same seed gives the same bits: again, and on any number of threads.
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// e^(x of its kind) (y_i - its datum), bent a little.
struct Datum {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::exp;
    using std::sin;
    r[0] = exp(x[kind]) * (y[0] - value + 0.1 * sin(y[1] * value));
    r[1] = exp(x[1 - kind]) * (y[1] + 0.2 * y[0] - 0.5 * value);
    return true;
  }
  double value;
  int kind;
};

struct Wanted {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - value;
    r[1] = y[1] - 0.1 * value;
    return true;
  }
  double value;
};

struct WantedTerm {  // The same as a general term.
  template <typename T>
  bool operator()(const T* y, T* value) const {
    *value = 0.5 * (y[0] - target) * (y[0] - target) + 0.5 * (y[1] - 0.1) * (y[1] - 0.1);
    return true;
  }
  double target;
};

enum class Kind { kManyBlocks, kScenarios, kTerms };

// Each run has memory of its own, so that addresses differ.
struct Solved {
  Solved(const std::string& method, Kind kind, int num_threads) {
    const int num_scenarios = kind == Kind::kScenarios ? 5 : 1;
    const int num_blocks = kind == Kind::kManyBlocks ? 700 : 8;
    y.assign(2 * num_scenarios, 0.5);
    problem.AddUpperParameterBlock(x.data(), 2);
    for (int k = 0; k < num_scenarios; ++k) {
      Scenario* scenario = kind == Kind::kScenarios ? problem.AddScenario("s" + std::to_string(k))
                                                    : problem.scenario(0);
      double* own = &y[2 * k];
      for (int i = 0; i < num_blocks; ++i) {
        const double value = std::sin(0.7 * i + k) + 0.4;
        scenario->lower()->AddResidualBlock(
            new AutoDiffCostFunction<Datum, 2, 2, 2>(new Datum{value, i % 2}),
            i % 3 ? nullptr : new ceres::HuberLoss(0.8),
            x.data(),
            own);
        const double wanted = 0.3 + 0.1 * value;
        if (kind == Kind::kTerms) {
          scenario->AddTerm(Level::kUpper,
                            std::make_unique<AutoDiffObjective<WantedTerm, 2>>(WantedTerm{wanted}),
                            {{own, 2}});
        } else {
          scenario->upper()->AddResidualBlock(
              new AutoDiffCostFunction<Wanted, 2, 2>(new Wanted{wanted}), nullptr, own);
        }
      }
    }
    Solver::Options options;
    options.method = CreateMethod(method);
    options.num_threads = num_threads;
    options.max_num_iterations = 8;
    options.seed = 3;
    Solve(options, &problem, &summary);
  }

  // x, y and what the iterations report, clocks apart.
  std::vector<double> Values() const {
    std::vector<double> values = x;
    values.insert(values.end(), y.begin(), y.end());
    for (const IterationSummary& s : summary.iterations) {
      values.insert(values.end(), s.x.begin(), s.x.end());
      values.insert(values.end(),
                    {s.objective, s.gradient_max_norm, s.step_norm, s.lower_level_decrement});
    }
    values.push_back(summary.final_objective);
    return values;
  }

  std::vector<double> x = {0.2, -0.3}, y;
  Problem problem;
  Solver::Summary summary;
};

class Determinism : public ::testing::TestWithParam<Kind> {};

TEST_P(Determinism, EveryMethodOnOneTwoAndFourThreads) {
  for (const std::string& method : ListMethods()) {
    const Solved first(method, GetParam(), 1);
    const std::vector<double> expected = first.Values();
    for (const int num_threads : {1, 2, 4}) {
      const Solved run(method, GetParam(), num_threads);
      const std::vector<double> values = run.Values();
      EXPECT_EQ(run.summary.message, first.summary.message) << method << " on " << num_threads;
      ASSERT_EQ(values.size(), expected.size()) << method << " on " << num_threads;
      EXPECT_EQ(std::memcmp(values.data(), expected.data(), 8 * values.size()), 0)
          << method << " on " << num_threads << " threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Problems,
                         Determinism,
                         ::testing::Values(Kind::kManyBlocks, Kind::kScenarios, Kind::kTerms));

}  // namespace
}  // namespace bilevel
