// What is recorded, and what a level costs, is what Ceres sees; or the culprit is named.
#include "bilevel/internal/check_against_ceres.h"

#include <cmath>
#include <memory>
#include <string>
#include <type_traits>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Another function for doubles than for what it is recorded with.
struct TwoFaced {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    const double factor = std::is_same<T, TapeJet>::value && is_two_faced ? 1.0 + 1e-3 : 1.0;
    r[0] = (y[0] - x[0]) * factor;
    return true;
  }
  bool is_two_faced;
};

struct Honest {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = 1e-12 * (y[0] - x[0]) + (1e9 + y[0]) - (1e9 + x[0]);  // Little but rounding.
    return true;
  }
};

struct Two {
  template <typename Functor>
  void Add(Functor* functor) {
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Functor, 1, 1, 1>(functor), nullptr, &x, &y);
  }
  Two() {
    problem.AddUpperParameterBlock(&x, 1);
    problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{2.0}), nullptr, &y);
  }
  double x = 0.5, y = 0.0;
  Problem problem;
};

TEST(CheckAgainstCeres, ARecordingThatDiffersIsRefusedByBlock) {
  Two two;
  two.Add(new Honest);
  std::string error;
  EXPECT_TRUE(two.problem.IsValid(&error)) << error;
  two.Add(new TwoFaced{true});
  EXPECT_FALSE(two.problem.IsValid(&error));
  EXPECT_THAT(error,
              AllOf(HasSubstr("residual block 1 of the lower problem has other residuals"),
                    HasSubstr("ceres::AutoDiffCostFunction")));
  Solver::Summary summary;
  Solve({}, &two.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_EQ(summary.message, error);
}

// Solve looks at the first of each type, the checker at all.
TEST(CheckAgainstCeres, TheCheckerLooksAtEveryBlock) {
  Two two;
  for (int i = 0; i < 5; ++i) two.Add(new TwoFaced{i == 3});
  std::string error;
  EXPECT_TRUE(two.problem.IsValid(&error)) << error;
  const HypergradientChecker::Result result = HypergradientChecker::Check(&two.problem, {});
  EXPECT_FALSE(result.ok);
  EXPECT_THAT(result.message, HasSubstr("residual block 3 of the lower problem"));
}

// The advice: with Ceres' own class nothing is recorded, and the answer is right.
TEST(CheckAgainstCeres, CeresOwnClassIsTaken) {
  Two two;
  two.problem.lower()->AddResidualBlock(
      new ceres::AutoDiffCostFunction<TwoFaced, 1, 1, 1>(new TwoFaced{true}),
      nullptr,
      &two.x,
      &two.y);
  Solver::Summary summary;
  Solve({}, &two.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(two.x, 2.0, 1e-8);
}

// A table that a callback makes of x, and cost functions read.
class Table : public ceres::EvaluationCallback {
 public:
  explicit Table(const double* x) : x_(x) {}
  void PrepareForEvaluation(bool /*jacobians*/, bool /*new_point*/) override {
    value = 3.0 / (1.0 + std::exp(-*x_));
  }
  double value = 0.0;

 private:
  const double* x_;
};
class Root : public ceres::SizedCostFunction<1, 1, 1> {
 public:
  explicit Root(const Table* table) : table_(*table) {}
  bool Evaluate(double const* const* p, double* r, double** j) const override {
    r[0] = p[0][0] * p[0][0] - table_.value;
    if (j && j[0]) j[0][0] = 2.0 * p[0][0];
    if (j && j[1]) j[1][0] = -table_.value * (1.0 - table_.value / 3.0);
    return true;
  }

 private:
  const Table& table_;
};

TEST(CheckAgainstCeres, ACallbackThatCeresAloneKnowsIsNoticed) {
  double x = -1.0, y = 1.2;
  Table table(&x);
  table.PrepareForEvaluation(false, true);  // Up to date, as after a solve.
  const double before = table.value;
  ceres::Problem::Options options;
  options.evaluation_callback = &table;
  ceres::Problem lower(options), upper;
  lower.AddResidualBlock(new Root(&table), nullptr, &y, &x);
  upper.AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{1.6}), nullptr, &y);
  Problem problem(&upper, &lower);
  problem.AddUpperParameterBlock(&x, 1);
  std::string error;
  EXPECT_FALSE(problem.IsValid(&error));
  EXPECT_THAT(error, HasSubstr("Scenario::SetEvaluationCallback"));
  EXPECT_EQ(x, -1.0);
  EXPECT_EQ(y, 1.2);
  EXPECT_EQ(table.value, before);
  // And with it: y^2 = 3 / (1 + e^-x) = 2.56.
  problem.scenario(0)->SetEvaluationCallback(Level::kLower, &table);
  Solver::Summary summary;
  Solve({}, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(x, -std::log(3.0 / 2.56 - 1.0), 1e-7);
}

}  // namespace
}  // namespace bilevel
