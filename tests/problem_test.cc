#include "bilevel/problem.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/learnable/losses.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

int alive = 0, deleted = 0;

// Adds life counting to any cost function, loss or manifold.
template <typename Base>
class Counted : public Base {
 public:
  template <typename... Args>
  explicit Counted(Args&&... args) : Base(std::forward<Args>(args)...) {
    ++alive;
  }
  ~Counted() override {
    --alive;
    ++deleted;
  }
};
class HuberLike : public ceres::LossFunction {
 public:
  void Evaluate(double s, double rho[3]) const override {
    rho[0] = s;
    rho[1] = 1.0;
    rho[2] = 0.0;
  }
};
using CountedCost = Counted<Opaque>;
using CountedLoss = Counted<HuberLike>;
class PlainManifold : public ceres::Manifold {
 public:
  int AmbientSize() const override { return 1; }
  int TangentSize() const override { return 1; }
  bool Plus(const double* x, const double* d, double* sum) const override {
    sum[0] = x[0] + d[0];
    return true;
  }
  bool PlusJacobian(const double*, double* j) const override {
    j[0] = 1.0;
    return true;
  }
  bool Minus(const double* y, const double* x, double* difference) const override {
    difference[0] = y[0] - x[0];
    return true;
  }
  bool MinusJacobian(const double*, double* j) const override {
    j[0] = 1.0;
    return true;
  }
};
using CountedManifold = Counted<PlainManifold>;

TEST(Problem, DeletesOnceWhatBothLevelsUse) {
  alive = deleted = 0;
  double x = 1.0, y = 0.5, z = 0.0;
  {
    Problem problem;
    auto* cost = new CountedCost(TargetCost(2.0));
    auto* loss = new CountedLoss;
    auto* manifold = new CountedManifold;
    problem.AddUpperParameterBlock(&x, 1, manifold);
    problem.AddUpperParameterBlock(&x, 1, new CountedManifold);  // Refused, still ours.
    for (ceres::Problem* level : {problem.lower(), problem.upper()}) {
      level->AddResidualBlock(cost, loss, &y);
      level->AddResidualBlock(cost, loss, &y);
      level->AddResidualBlock(new CountedCost(DifferenceCost()), nullptr, &y, &x);
      level->SetManifold(&x, manifold);
    }
    Scenario* other = problem.AddScenario("other");
    other->lower()->AddResidualBlock(cost, loss, &z);
    // Owned explicitly and used as well.
    auto* own_cost = problem.Own(std::make_unique<CountedCost>(TargetCost(1.0)));
    auto* own_loss = problem.Own(std::make_unique<CountedLoss>());
    auto* own_manifold = problem.Own(std::make_unique<CountedManifold>());
    other->lower()->AddResidualBlock(own_cost, own_loss, &z);
    other->lower()->SetManifold(&z, own_manifold);
    EXPECT_EQ(alive, 9);
    EXPECT_EQ(deleted, 0);
  }
  EXPECT_EQ(alive, 0);
  EXPECT_EQ(deleted, 9);
}

// A problem of the user's own, with everything that must not change.
struct User {
  User() {
    lower.AddParameterBlock(&x, 1);
    lower.AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    lower.AddResidualBlock(WeightedCost(2.0), new ceres::HuberLoss(10.0), &y, &w);
    lower.AddResidualBlock(TargetCost(1.0), nullptr, &bounded);
    lower.SetParameterBlockConstant(&w);
    lower.SetParameterLowerBound(&bounded, 0, 1.5);
    lower.AddResidualBlock(
        new ceres::AutoDiffCostFunction<Alignment, 2, 4, 1>(new Alignment{0.2}), nullptr, q, &w);
    lower.SetManifold(q, manifold = new ceres::QuaternionManifold);
    upper.AddResidualBlock(TargetCost(1.7), nullptr, &y);
  }
  double x = 1.0, y = 0.5, w = 0.1, bounded = 2.0, q[4] = {0.9, 0.1, -0.3, 0.2};
  ceres::Manifold* manifold;
  ceres::Problem lower, upper;
};

TEST(Problem, WrappedProblemsAreLeftAsTheyWere) {
  for (const bool x_constant_below : {false, true}) {
    User user;
    Eigen::Map<Eigen::Vector4d>(user.q).normalize();
    if (x_constant_below) user.lower.SetParameterBlockConstant(&user.x);
    const int blocks = user.lower.NumResidualBlocks(), parameters = user.lower.NumParameterBlocks();
    {
      Problem problem(&user.upper, &user.lower);
      problem.AddUpperParameterBlock(&user.x, 1);
      std::string error;
      const double y = user.y;
      ASSERT_TRUE(problem.IsValid(&error)) << error;
      EXPECT_EQ(user.y, y);
      Solver::Summary summary;
      Solve(Solver::Options(), &problem, &summary);
      EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
      EXPECT_EQ(summary.num_active_lower_bounds, 1);
    }
    // y* = (x + 2 e^0.2) / (1 + e^0.2) = 1.7.
    const double w2 = std::exp(0.2);
    EXPECT_NEAR(user.y, 1.7, 1e-7);
    EXPECT_NEAR(user.x, 1.7 * (1 + w2) - 2 * w2, 1e-6);
    EXPECT_EQ(user.w, 0.1);
    EXPECT_EQ(user.bounded, 1.5);
    EXPECT_EQ(user.lower.IsParameterBlockConstant(&user.x), x_constant_below);
    EXPECT_TRUE(user.lower.IsParameterBlockConstant(&user.w));
    EXPECT_FALSE(user.lower.IsParameterBlockConstant(&user.y));
    EXPECT_EQ(user.lower.GetParameterLowerBound(&user.bounded, 0), 1.5);
    EXPECT_EQ(user.lower.GetManifold(user.q), user.manifold);
    EXPECT_EQ(user.lower.NumResidualBlocks(), blocks);
    EXPECT_EQ(user.lower.NumParameterBlocks(), parameters);
    ceres::Solver::Summary summary;  // Still usable.
    ceres::Solver::Options options;
    options.logging_type = ceres::SILENT;
    ceres::Solve(options, &user.lower, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable());
  }
}

TEST(Problem, ConstancyOfXBelowMakesNoDifference) {
  std::vector<double> answers;
  for (const bool constant : {false, true}) {
    double x = 1.0, y = 0.5;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(WeightedCost(3.0), nullptr, &y, &x);
    problem.lower()->AddResidualBlock(TargetCost(-1.0), nullptr, &y);
    problem.upper()->AddResidualBlock(TargetCost(1.5), nullptr, &y);
    if (constant) problem.lower()->SetParameterBlockConstant(&x);
    Solver::Summary summary;
    Solve(Solver::Options(), &problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    answers.push_back(x);
  }
  EXPECT_EQ(answers[0], answers[1]);
  EXPECT_NEAR(answers[0], 0.5 * std::log(2.5 / 1.5), 1e-6);
}

// Two recordings, and the same as one problem with both in it.
TEST(Problem, ScenariosAreOneProblem) {
  std::vector<double> weights;
  std::vector<double> objectives;
  for (const int threads : {0, 1, 2}) {  // 0: as one problem.
    double w = 0.0, y[2] = {0.5, -0.5};
    Problem problem;
    problem.SetParameterName(&w, "log weight");
    problem.AddUpperParameterBlock(&w, 1);
    for (int i = 0; i < 2; ++i) {
      Scenario* s = problem.scenario(0);
      if (threads > 0) s = problem.AddScenario("recording " + std::to_string(i), i ? 2.0 : 1.0);
      s->lower()->AddResidualBlock(WeightedCost(3.0 + i), nullptr, &y[i], &w);
      s->lower()->AddResidualBlock(TargetCost(-1.0), nullptr, &y[i]);
      s->upper()->AddResidualBlock(
          TargetCost(1.0 + i),
          threads == 0 && i ? new ceres::ScaledLoss(nullptr, 2.0, ceres::TAKE_OWNERSHIP) : nullptr,
          &y[i]);
    }
    Solver::Options options;
    options.num_threads = std::max(threads, 1);
    options.function_tolerance = 1e-16;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_EQ(summary.num_scenarios, threads > 0 ? 2 : 1);
    weights.push_back(w);
    objectives.push_back(summary.final_objective);
  }
  EXPECT_NEAR(weights[0], weights[1], 1e-8);
  EXPECT_EQ(weights[1], weights[2]);
  EXPECT_NEAR(objectives[0], objectives[1], 1e-12 * objectives[0]);
  // A culprit in a scenario is named with it.
  double w = 0.0, y[2] = {0.5, -0.5};
  Problem problem;
  problem.AddUpperParameterBlock(&w, 1);
  for (int i = 0; i < 2; ++i) {
    Scenario* s = problem.AddScenario("recording " + std::to_string(i));
    s->lower()->AddResidualBlock(WeightedCost(i ? 0.0 / 0.0 : 1.0), nullptr, &y[i], &w);
    s->upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y[i]);
  }
  std::string error;
  EXPECT_FALSE(problem.IsValid(&error));
  EXPECT_THAT(error, HasSubstr("residual block 0 of the lower problem of scenario 'recording 1'"));
}

// A loss's parameter is a block of x, or a constant apart from all of them.
TEST(Problem, ParametersOfLossesAreWholeBlocks) {
  double memory[6] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6}, y = 0.5;
  double* const before = &memory[0];  // A constant.
  double* const first = &memory[1];   // Of size 1, of x.
  double* const second = &memory[2];  // Of size 3, of x.
  double* const constant = &memory[5];
  const auto refusal = [&](double* parameter) {
    Problem problem;
    problem.AddUpperParameterBlock(second, 3);
    problem.AddUpperParameterBlock(first, 1);
    problem.lower()->AddResidualBlock(TargetCost(2.0), new CauchyLoss(parameter), &y);
    problem.lower()->AddResidualBlock(
        new FunctionCost(1,
                         {1, 1, 3},
                         [](double const* const* p, double* r, double** j) {
                           r[0] = p[0][0] - p[1][0] - p[2][0];
                           for (int b = 0; j && b < 3; ++b) {
                             if (!j[b]) continue;
                             std::fill_n(j[b], b == 2 ? 3 : 1, 0.0);
                             j[b][0] = b == 0 ? 1.0 : -1.0;
                           }
                           return true;
                         }),
        nullptr,
        &y,
        first,
        second);
    problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
    std::string error;
    return problem.Compile({}, &error) ? std::string() : error;
  };
  for (double* whole : {before, first, constant}) EXPECT_EQ(refusal(whole), "");
  for (double* part : {second, second + 1, second + 2}) {
    EXPECT_THAT(refusal(part),
                AllOf(HasSubstr("parameter of size 1 that is a part of"),
                      HasSubstr("upper block 0 of size 3, not the whole block")));
  }
}

}  // namespace
}  // namespace bilevel
