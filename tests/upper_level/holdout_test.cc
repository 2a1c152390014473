#include "bilevel/upper_level/holdout.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "bilevel/learnable/losses.h"
#include "bilevel/solver.h"
#include "ceres/sized_cost_function.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using Kind = HoldoutOptions::Kind;

// r = a - b - measured, counting its own life.
class Difference final : public ceres::SizedCostFunction<1, 1, 1> {
 public:
  explicit Difference(double measured, int* alive = nullptr) : measured_(measured), alive_(alive) {
    if (alive_) ++*alive_;
  }
  ~Difference() override {
    if (alive_) --*alive_;
  }
  bool Evaluate(double const* const* p, double* r, double** jacobians) const override {
    r[0] = p[0][0] - p[1][0] - measured_;
    if (jacobians && jacobians[0]) jacobians[0][0] = 1.0;
    if (jacobians && jacobians[1]) jacobians[1][0] = -1.0;
    return true;
  }

 private:
  double measured_;
  int* alive_;
};

class Point3 final : public ceres::SizedCostFunction<2, 3> {
 public:
  bool Evaluate(double const* const*, double* r, double** jacobians) const override {
    r[0] = r[1] = 1.0;
    if (jacobians && jacobians[0]) std::fill_n(jacobians[0], 6, 1.0);
    return true;
  }
};

// 20 cameras that see all of 50 points each, in the order of the cameras.
std::vector<std::vector<const double*>> Graph(const std::vector<double>& memory) {
  std::vector<std::vector<const double*>> blocks;
  for (int c = 0; c < 20; ++c) {
    for (int p = 0; p < 50; ++p) blocks.push_back({&memory[c], &memory[20 + p]});
  }
  return blocks;
}

std::map<const double*, int> CountLeft(const std::vector<std::vector<const double*>>& blocks,
                                       const std::vector<int>& set) {
  std::map<const double*, int> left;
  for (size_t i = 0; i < blocks.size(); ++i) {
    for (const double* block : blocks[i]) left[block] += set[i] == 0;
  }
  return left;
}

TEST(ChooseHoldout, RandomSetsHaveTheirSizeAndTheSeedDecides) {
  const std::vector<double> memory(70);
  const auto blocks = Graph(memory);
  HoldoutOptions options;
  options.fractions = {0.1, 0.25};
  std::vector<int> set, again, other;
  std::string error;
  ASSERT_TRUE(ChooseHoldout(options, blocks, &set, &error)) << error;
  EXPECT_EQ(std::count(set.begin(), set.end(), 1), 100);
  EXPECT_EQ(std::count(set.begin(), set.end(), 2), 250);
  ASSERT_TRUE(ChooseHoldout(options, blocks, &again, &error));
  EXPECT_EQ(set, again);
  options.seed = 1;
  ASSERT_TRUE(ChooseHoldout(options, blocks, &other, &error));
  EXPECT_NE(set, other);
}

TEST(ChooseHoldout, KeepsMinLeftOnEveryBlockAndSharesTheShortage) {
  const std::vector<double> memory(70);
  const auto blocks = Graph(memory);
  HoldoutOptions options;
  options.fractions = {0.3, 0.3};
  options.min_left = 18;  // Of the 20 on each point: at most 2 x 50 leave in all.
  std::vector<int> set;
  std::string error;
  ASSERT_TRUE(ChooseHoldout(options, blocks, &set, &error)) << error;
  for (const auto& [block, left] : CountLeft(blocks, set)) EXPECT_GE(left, 18);
  EXPECT_EQ(std::count(set.begin(), set.end(), 1), 50);
  EXPECT_EQ(std::count(set.begin(), set.end(), 2), 50);
  options.min_left = 20;
  EXPECT_FALSE(ChooseHoldout(options, blocks, &set, &error));
  EXPECT_THAT(error, testing::HasSubstr("set 1 is empty"));
}

TEST(ChooseHoldout, BlocksLeaveWholeOrNotAtAll) {
  const std::vector<double> memory(70);
  const auto all = Graph(memory);
  HoldoutOptions options;
  options.kind = Kind::kByBlock;
  options.fractions = {0.2, 0.2};
  for (int c = 0; c < 20; ++c) options.blocks.push_back(&memory[c]);
  options.min_left = 0;
  std::vector<int> set;
  std::string error;
  ASSERT_TRUE(ChooseHoldout(options, all, &set, &error)) << error;
  std::multiset<int> cameras;
  for (int c = 0; c < 20; ++c) {
    EXPECT_EQ(std::set<int>(set.begin() + 50 * c, set.begin() + 50 * (c + 1)).size(), 1u);
    cameras.insert(set[50 * c]);
  }
  EXPECT_EQ(cameras.count(1), 4u);
  EXPECT_EQ(cameras.count(2), 4u);
}

TEST(ChooseHoldout, TimeHoldsOutTheLatestStretchesInOrder) {
  const std::vector<double> memory(70);
  const auto blocks = Graph(memory);
  HoldoutOptions options;
  options.kind = Kind::kByTime;
  options.fractions = {0.1, 0.05};
  options.min_left = 0;
  std::vector<int> set;
  std::string error;
  ASSERT_TRUE(ChooseHoldout(options, blocks, &set, &error)) << error;
  EXPECT_TRUE(std::is_sorted(set.begin(), set.end()));
  EXPECT_EQ(set[849], 0);
  EXPECT_EQ(set[850], 1);
  EXPECT_EQ(set[950], 2);
  for (int i = 0; i < 1000; ++i) options.times.push_back(-i);  // Backwards.
  ASSERT_TRUE(ChooseHoldout(options, blocks, &set, &error)) << error;
  EXPECT_TRUE(std::is_sorted(set.rbegin(), set.rend()));
  EXPECT_EQ(set[49], 2);
  EXPECT_EQ(set[149], 1);
  options.times.pop_back();
  EXPECT_FALSE(ChooseHoldout(options, blocks, &set, &error));
  EXPECT_THAT(error, testing::HasSubstr("999 times"));
}

TEST(ChooseHoldout, OptionsAreChecked) {
  std::string error;
  std::vector<int> set;
  const double block = 0.0;
  for (const std::vector<double>& fractions :
       {std::vector<double>{}, {0.5, 0.5}, {-0.1}, {std::nan("")}}) {
    HoldoutOptions options;
    options.fractions = fractions;
    EXPECT_FALSE(ChooseHoldout(options, {{&block}}, &set, &error));
    EXPECT_THAT(error, testing::HasSubstr("fraction"));
  }
}

// A chain of differences with a loop closure on top of every edge.
struct Chain {
  explicit Chain(int n, int* alive = nullptr) : y(n, 0.5) {
    problem.AddUpperParameterBlock(&log_scale, 1);
    auto* loss = problem.Own(std::make_unique<CauchyLoss>(&log_scale));
    for (int copy = 0; copy < 4; ++copy) {
      for (int i = 0; i + 1 < n; ++i) {
        const double noise = 0.1 * ((i * 7 + copy * 13) % 11 - 5);
        problem.lower()->AddResidualBlock(
            new Difference(1.0 + noise, alive), loss, &y[i + 1], &y[i]);
      }
    }
    problem.lower()->SetParameterBlockConstant(y.data());
  }
  std::vector<double> y;
  double log_scale = 0.0;
  Problem problem;
};

TEST(SplitHoldout, MovesResidualsAndSolves) {
  Chain chain(30);
  HoldoutOptions options;
  options.fractions = {0.1, 0.1};
  options.min_left = 3;
  std::vector<std::vector<HeldOutResidual>> sets;
  std::string error;
  std::vector<ceres::ResidualBlockId> before;
  chain.problem.lower()->GetResidualBlocks(&before);
  std::vector<const ceres::CostFunction*> costs;
  for (auto* id : before) {
    costs.push_back(chain.problem.lower()->GetCostFunctionForResidualBlock(id));
  }
  ASSERT_TRUE(SplitHoldout(options, {}, new ceres::HuberLoss(1.0), &chain.problem, &sets, &error))
      << error;
  ASSERT_EQ(sets.size(), 2u);
  EXPECT_EQ(sets[0].size(), 12u);
  EXPECT_EQ(sets[1].size(), 12u);
  EXPECT_EQ(chain.problem.lower()->NumResidualBlocks(), 116 - 24);
  EXPECT_EQ(chain.problem.upper()->NumResidualBlocks(), 12);
  for (const auto& set : sets) {
    for (const HeldOutResidual& r : set) EXPECT_EQ(r.cost, costs[r.index]);
  }
  // The upper cost is the score of the first set, and stays so after a solve.
  const ceres::HuberLoss huber(1.0);
  double cost = 0.0;
  chain.problem.upper()->Evaluate({}, &cost, nullptr, nullptr, nullptr);
  EXPECT_NEAR(EvaluateHoldout(sets[0], &huber), cost, 1e-14 * cost);
  Solver::Summary summary;
  Solve({}, &chain.problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.message;
  EXPECT_NEAR(EvaluateHoldout(sets[0], &huber), summary.final_objective, 1e-12);
  EXPECT_LT(summary.final_objective, 0.5 * cost);
}

TEST(SplitHoldout, FunctionsLiveAsLongAsTheProblemAndNoLonger) {
  int alive = 0;
  {
    Chain chain(10, &alive);
    HoldoutOptions options;
    options.fractions = {0.2, 0.2};
    std::vector<std::vector<HeldOutResidual>> sets;
    std::string error;
    ASSERT_TRUE(SplitHoldout(options, {}, nullptr, &chain.problem, &sets, &error)) << error;
    EXPECT_EQ(alive, 36);
  }
  EXPECT_EQ(alive, 0);
}

TEST(SplitHoldout, WrappedProblemsNeedAWord) {
  double y[2] = {0.0, 0.0}, log_scale = 0.0;
  CauchyLoss loss(&log_scale);
  ceres::Problem::Options mine;
  mine.cost_function_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
  mine.loss_function_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
  ceres::Problem upper(mine), lower(mine);
  const Difference a(1.0), b(2.0), c(4.0);
  for (const Difference* cost : {&a, &b, &c}) {
    lower.AddResidualBlock(const_cast<Difference*>(cost), &loss, &y[1], &y[0]);
  }
  Problem problem(&upper, &lower);
  problem.AddUpperParameterBlock(&log_scale, 1);
  HoldoutOptions options;
  options.fractions = {0.3};
  std::vector<std::vector<HeldOutResidual>> sets;
  std::string error;
  EXPECT_FALSE(SplitHoldout(options, {}, nullptr, &problem, &sets, &error));
  EXPECT_THAT(error, testing::HasSubstr("DO_NOT_TAKE_OWNERSHIP"));
  EXPECT_EQ(lower.NumResidualBlocks(), 3);
  EXPECT_TRUE(SplitHoldout(options, {}, nullptr, &problem, &sets, &error, 0, true)) << error;
  EXPECT_EQ(lower.NumResidualBlocks(), 2);
  EXPECT_EQ(upper.NumResidualBlocks(), 1);
}

TEST(SplitHoldout, KeepsEveryBlockDetermined) {
  double y[3] = {0.0, 0.0, 0.0}, log_scale = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&log_scale, 1);
  auto* loss = problem.Own(std::make_unique<CauchyLoss>(&log_scale));
  problem.SetParameterName(y, "the point");
  problem.lower()->AddResidualBlock(new Point3, loss, y);
  HoldoutOptions options;
  options.fractions = {0.5};
  std::vector<std::vector<HeldOutResidual>> sets;
  std::string error;
  EXPECT_FALSE(SplitHoldout(options, {}, nullptr, &problem, &sets, &error));
  EXPECT_THAT(error, testing::HasSubstr("'the point' has 2 residual rows"));
  for (int i = 0; i < 3; ++i) problem.lower()->AddResidualBlock(new Point3, loss, y);
  // 3 of 4 are asked for and min_left would allow it, but two rows do not determine a point.
  options.fractions = {0.75};
  ASSERT_TRUE(SplitHoldout(options, {}, nullptr, &problem, &sets, &error)) << error;
  EXPECT_EQ(sets[0].size(), 2u);
  ceres::ResidualBlockId foreign = nullptr;
  EXPECT_FALSE(SplitHoldout(options, {foreign}, nullptr, &problem, &sets, &error));
  EXPECT_THAT(error, testing::HasSubstr("not in the lower problem"));
}

}  // namespace
}  // namespace bilevel
