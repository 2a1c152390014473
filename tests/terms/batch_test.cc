// Sampling: what is drawn, how often, and with which weight.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/block_jacobi.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/program.h"
#include "bilevel/terms/batch.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// Pearson's statistic over its expectation's standard deviation: about N(0, 1) for fair draws.
double ChiSquare(const std::vector<double>& counts, const std::vector<double>& expected) {
  double sum = 0.0;
  for (size_t i = 0; i < counts.size(); ++i) {
    sum += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i];
  }
  const double degrees = static_cast<double>(counts.size()) - 1.0;
  return (sum - degrees) / std::sqrt(2.0 * degrees);
}

Batch Draw(int size, Batch::Sampling sampling, uint64_t index) {
  Batch batch;
  batch.size = size;
  batch.sampling = sampling;
  batch.position = index;
  const bool shuffled = sampling == Batch::kShuffled || sampling == Batch::kShuffledBlocks;
  batch.seed = shuffled ? 5 : Mix(index);
  return batch;
}

TEST(Batch, WeightedTermsAddUpToTheSumOnAverage) {
  for (const Batch::Sampling sampling : {Batch::kIndependent,
                                         Batch::kDistinct,
                                         Batch::kShuffled,
                                         Batch::kBlocks,
                                         Batch::kShuffledBlocks}) {
    for (const int n : {1, 2, 3, 7, 10, 64, 101}) {
      for (const int size : {1, 3, 7}) {
        if (size > n) continue;
        std::vector<double> weight(n, 0.0);
        const int draws = 40000;
        for (int t = 0; t < draws; ++t) {
          const Batch batch = Draw(size, sampling, t);
          for (int k = 0; k < batch.Count(n); ++k) {
            const int term = batch.Term(k, n);
            ASSERT_TRUE(0 <= term && term < n);
            weight[term] += batch.Weight(k, n) / draws;
          }
        }
        // A term is drawn in a share `size` / n of the batches.
        const double deviation = std::sqrt((n / static_cast<double>(size) + 1.0) / draws);
        for (int i = 0; i < n; ++i) {
          EXPECT_NEAR(weight[i], 1.0, 5.0 * deviation) << sampling << " " << n << " " << size;
        }
      }
    }
  }
}

TEST(Batch, DistinctAndShuffledNeverRepeatTooEarly) {
  for (const int n : {1, 2, 5, 16, 33, 1000}) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
      Batch batch{n, seed, Batch::kDistinct};
      std::set<int> seen;
      for (int k = 0; k < n; ++k) seen.insert(batch.Term(k, n));
      EXPECT_EQ(static_cast<int>(seen.size()), n);
    }
    // Epoch after epoch, whether or not batches divide n.
    for (const int size : {1, 3, 4}) {
      if (size > n) continue;
      std::vector<int> sequence;
      for (uint64_t t = 0; static_cast<int>(sequence.size()) < 4 * n; ++t) {
        const Batch batch = Draw(size, Batch::kShuffled, t);
        for (int k = 0; k < size; ++k) sequence.push_back(batch.Term(k, n));
      }
      std::set<std::vector<int>> orders;
      for (int epoch = 0; epoch < 4; ++epoch) {
        std::vector<int> order(sequence.begin() + epoch * n, sequence.begin() + (epoch + 1) * n);
        orders.insert(order);
        std::sort(order.begin(), order.end());
        for (int i = 0; i < n; ++i) ASSERT_EQ(order[i], i);
      }
      if (n >= 16) {
        EXPECT_EQ(orders.size(), 4u);
      }
    }
  }
}

TEST(Batch, PermutationsOfFewAreAllEquallyLikely) {
  for (const int n : {3, 4, 5}) {
    std::map<std::vector<int>, double> counts;
    const int draws = 60000;
    for (int t = 0; t < draws; ++t) {
      const Batch batch{n, Mix(t), Batch::kDistinct};
      std::vector<int> order;
      for (int k = 0; k < n; ++k) order.push_back(batch.Term(k, n));
      ++counts[order];
    }
    const int factorial = n == 3 ? 6 : n == 4 ? 24 : 120;
    ASSERT_EQ(static_cast<int>(counts.size()), factorial);
    for (const auto& [order, count] : counts) {
      EXPECT_NEAR(count * factorial / draws, 1.0, 0.25) << testing::PrintToString(order);
    }
  }
}

TEST(Batch, PairsOfAShuffleAreUniform) {
  constexpr int kN = 37;
  std::vector<double> counts(kN * kN, 0.0), expected;
  const int draws = 100000;
  for (int t = 0; t < draws; ++t) {
    const Batch batch{2, Mix(t), Batch::kDistinct};
    ++counts[batch.Term(0, kN) * kN + batch.Term(1, kN)];
  }
  std::vector<double> off_diagonal;
  for (int i = 0; i < kN * kN; ++i) {
    if (i % (kN + 1) == 0) {
      EXPECT_EQ(counts[i], 0.0);
    } else {
      off_diagonal.push_back(counts[i]);
    }
  }
  expected.assign(off_diagonal.size(), draws / static_cast<double>(off_diagonal.size()));
  EXPECT_LT(std::abs(ChiSquare(off_diagonal, expected)), 5.0);
}

TEST(Batch, BlocksAreNeighboursAndTheLastMayBeShort) {
  const int n = 10;
  std::set<int> first;
  for (uint64_t t = 0; t < 3; ++t) {
    const Batch batch = Draw(4, Batch::kShuffledBlocks, t);
    first.insert(batch.First(n));
    EXPECT_EQ(batch.Count(n), batch.First(n) == 8 ? 2 : 4);
    EXPECT_EQ(batch.Weight(0, n), 3.0);
    for (int k = 0; k < batch.Count(n); ++k) EXPECT_EQ(batch.Term(k, n), batch.First(n) + k);
  }
  EXPECT_THAT(first, testing::ElementsAre(0, 4, 8));
  EXPECT_EQ(Batch::One(7).Term(0, n), 7);
  EXPECT_EQ(Batch::One(7).Count(n), 1);
  EXPECT_EQ(Batch::One(7).Weight(0, n), 10.0);
  EXPECT_EQ(Batch::Block(4, 2).Count(n), 2);
}

TEST(Batch, ImportanceDrawsInProportionAndStaysUnbiased) {
  const std::vector<double> weights = {1.0, 0.1, 5.0, 2.0, 0.7, 0.7, 3.0};
  const Importance importance(weights);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const int n = 7, draws = 200000;
  std::vector<double> counts(n, 0.0), sum(n, 0.0), expected;
  for (int t = 0; t < draws; ++t) {
    Batch batch{1, Mix(t)};
    batch.importance = &importance;
    const int term = batch.Term(0, n);
    ++counts[term];
    sum[term] += batch.Weight(0, n) / draws;
  }
  for (int i = 0; i < n; ++i) {
    EXPECT_NEAR(importance.probability(i), weights[i] / total, 1e-15);
    expected.push_back(draws * weights[i] / total);
    EXPECT_NEAR(sum[i], 1.0, 5.0 / std::sqrt(expected[i]));
  }
  EXPECT_LT(std::abs(ChiSquare(counts, expected)), 5.0);
}

TEST(Batch, StreamsOfOneSeedAreIndependent) {
  double x = 0.0, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
  std::string error;
  const std::unique_ptr<Program> program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  Oracle oracle(program.get(), nullptr, 3), other(program.get(), nullptr, 4);
  constexpr int kN = 16;
  for (const Batch::Sampling sampling : {Batch::kIndependent, Batch::kShuffled, Batch::kBlocks}) {
    std::vector<double> joint(kN * kN, 0.0), expected(kN * kN, 20000.0 / (kN * kN));
    int same = 0;
    for (uint64_t t = 0; t < 20000; ++t) {
      const int a = oracle.Draw(1, 0, t, sampling).Term(0, kN);
      const int b = oracle.Draw(1, 1, t, sampling).Term(0, kN);
      ++joint[a * kN + b];
      EXPECT_EQ(oracle.Draw(1, 0, t, sampling).Term(0, kN), a);
      same += other.Draw(1, 0, t, sampling).Term(0, kN) == a;
    }
    EXPECT_LT(ChiSquare(joint, expected), 5.0) << sampling;
    EXPECT_NEAR(same, 20000 / kN, 200) << sampling;
  }
}

// y - target, pulled to x by a prior that no minibatch may miss.
TEST(Batch, PriorsStandInEveryBatchAndWeightsKeepTheMean) {
  double x = 0.3, y = 0.7;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  const auto prior = problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  problem.SetSamplingWeight(prior, Scenario::kInEveryBatch);
  const int n = 8;
  for (int i = 0; i < n; ++i) {
    const auto id = problem.lower()->AddResidualBlock(TargetCost(i), nullptr, &y);
    problem.SetSamplingWeight(id, 1.0 + i);
  }
  problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
  std::string error;
  const std::unique_ptr<Program> program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  const LevelFunction& g = *program->scenarios[0]->g;
  EXPECT_EQ(g.num_drawn(), n);
  EXPECT_TRUE(g.has_importance());
  LevelEvaluator evaluator(&g, nullptr);
  double value = 0.0, gx = 0.0, gy = 0.0, full_gy = 0.0;
  ASSERT_TRUE(evaluator.Gradient(&x, &y, Batch::All(), &value, &gx, &full_gy));
  double mean = 0.0, square = 0.0;
  const int draws = 40000;
  for (int t = 0; t < draws; ++t) {
    ASSERT_TRUE(evaluator.Gradient(&x, &y, Batch{2, Mix(t)}, &value, &gx, &gy));
    // x is in the prior alone: no noise, no scaling.
    EXPECT_EQ(gx, -(y - x));
    mean += gy / draws;
    square += gy * gy / draws;
  }
  EXPECT_NEAR(mean, full_gy, 5.0 * std::sqrt((square - mean * mean) / draws));
  EXPECT_GT(square - mean * mean, 1e-3);
  EXPECT_FALSE(evaluator.Gradient(&x, &y, Batch{2, 1, Batch::kDistinct}, &value, &gx, &gy));
  EXPECT_THAT(evaluator.error(), testing::HasSubstr("sampling weights"));
}

// What a batch does not touch is not looked at, and both ways give the same numbers.
TEST(Batch, SparseOraclesAgreeWithDenseOnes) {
  constexpr int kBlocks = 40;
  std::vector<double> y(4 * kBlocks), t(3 * kBlocks);
  double x = 0.2, bias[4] = {0.1, 0.2, 0.3, 0.4};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddUpperParameterBlock(bias, 4);
  for (int i = 0; i < kBlocks; ++i) {
    const double q[4] = {1.0, 0.1 * std::sin(i), 0.2, 0.1 * std::cos(i)};
    const double norm = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    for (int j = 0; j < 4; ++j) y[4 * i + j] = q[j] / norm;
    for (int j = 0; j < 3; ++j) t[3 * i + j] = std::sin(i + j);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Mixed, 4, 4, 3, 1>(new Mixed{{0.1 * i, 1.0, -0.5}}),
        new ceres::CauchyLoss(1.0),
        &y[4 * i],
        &t[3 * i],
        &x);
    problem.lower()->SetManifold(&y[4 * i], new ceres::QuaternionManifold);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Mixed, 4, 4, 3, 1>(new Mixed{{0.3, 0.1 * i, -0.5}}),
        nullptr,
        &y[4 * i],
        &t[3 * i],
        &x);
  }
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Alignment, 2, 4, 1>(new Alignment{0.2}), nullptr, bias, &x);
  std::string error;
  const std::unique_ptr<Program> program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  Oracle oracle(program.get(), nullptr, 3);
  Point px(&program->x), py(&program->y);
  program->x.ReadUser(px.value().data());
  program->y.ReadUser(py.value().data());
  const Vector v = TestVector(py.dim(), 0.4);
  SparseVector gx, gy, hv, jv;
  Vector dense_gx, dense_gy, dense_hv, dense_jv;
  for (int trial = 0; trial < 20; ++trial) {
    const Batch batch = trial == 7 ? Batch::All() : oracle.Draw(5, 0, trial, Batch::kDistinct);
    for (LevelView* level : {&oracle.f, &oracle.g}) {
      LevelView on_batch = (*level)(batch);
      const double dense = on_batch.Gradient(px, py, &dense_gx, &dense_gy);
      on_batch.HessianProduct(px, py, v, &dense_hv, &dense_jv);
      EXPECT_EQ(on_batch.Gradient(px, py, &gx, &gy), dense);
      EXPECT_EQ(gx.dense(), dense_gx);
      EXPECT_EQ(gy.dense(), dense_gy);
      on_batch.HessianProduct(px, py, v, &hv, &jv);
      EXPECT_EQ(hv.dense(), dense_hv);
      EXPECT_EQ(jv.dense(), dense_jv);
      EXPECT_NEAR(on_batch.GradientAndProduct(px, py, v, &gy, &hv, &jv), dense, 1e-12 * dense);
      EXPECT_LT((gy.dense() - dense_gy).norm(), 1e-13 * dense_gy.norm());
      EXPECT_EQ(hv.dense(), dense_hv);
      EXPECT_EQ(jv.dense(), dense_jv);
      if (!batch.all()) {
        EXPECT_LE(gy.blocks().size(), 12u);
      }
      ASSERT_TRUE(oracle.ok()) << oracle.error();
    }
    // Moving by the one or the other is the same.
    Point a = py, b = py;
    ASSERT_TRUE(a.Move(-0.1, gy));
    ASSERT_TRUE(b.Move(-0.1 * gy.dense()));
    EXPECT_LT((a.value() - b.value()).norm(), 1e-14);
    BlockJacobi metric;
    metric.Compute(oracle, px, py);
    Vector applied = gy.dense();
    metric.Apply(&applied);
    metric.Apply(&gy);
    EXPECT_EQ(gy.dense(), applied);
  }
}

}  // namespace
}  // namespace bilevel
