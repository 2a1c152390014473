#include "bilevel/derivatives/auto_diff_objective.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

struct Mixed {
  template <typename T>
  bool operator()(const T* a, const T* b, T* value) const {
    using std::exp;
    using std::sin;
    if (a[0] < 0.0) return false;
    value[0] = scale * exp(a[0] * b[1]) + sin(b[0]) * a[1] * a[1] - b[0] * b[2];
    return true;
  }
  double scale;
};
using MixedObjective = AutoDiffObjective<Mixed, 2, 3>;

constexpr double kA[2] = {0.4, -1.3}, kB[3] = {0.7, -0.2, 1.1};

// By hand, at (kA, kB).
double Value(double scale) {
  return scale * std::exp(kA[0] * kB[1]) + std::sin(kB[0]) * kA[1] * kA[1] - kB[0] * kB[2];
}

Vector Gradient(double scale) {
  const double e = scale * std::exp(kA[0] * kB[1]);
  Vector g(5);
  g << e * kB[1], 2.0 * std::sin(kB[0]) * kA[1], std::cos(kB[0]) * kA[1] * kA[1] - kB[2], e * kA[0],
      -kB[0];
  return g;
}

Matrix Hessian(double scale) {
  const double e = scale * std::exp(kA[0] * kB[1]);
  Matrix h = Matrix::Zero(5, 5);
  h(0, 0) = e * kB[1] * kB[1];
  h(0, 3) = h(3, 0) = e * (1.0 + kA[0] * kB[1]);
  h(3, 3) = e * kA[0] * kA[0];
  h(1, 1) = 2.0 * std::sin(kB[0]);
  h(1, 2) = h(2, 1) = 2.0 * std::cos(kB[0]) * kA[1];
  h(2, 2) = -std::sin(kB[0]) * kA[1] * kA[1];
  h(2, 4) = h(4, 2) = -1.0;
  return h;
}

TEST(AutoDiffObjective, DerivativesAreThoseByHand) {
  const MixedObjective term(Mixed{1.7});
  const double* blocks[] = {kA, kB};
  double value;
  Vector gradient(5), product(5);
  double* gradients[] = {gradient.data(), gradient.data() + 2};
  double* products[] = {product.data(), product.data() + 2};
  ASSERT_TRUE(term.Evaluate(blocks, Batch::All(), &value, nullptr));
  EXPECT_NEAR(value, Value(1.7), 1e-14);
  Vector way(5);
  way << 0.3, -0.8, 1.2, 0.5, -0.6;
  const double* direction[] = {way.data(), way.data() + 2};
  ASSERT_TRUE(
      term.EvaluateWithProduct(blocks, Batch::All(), direction, &value, gradients, products));
  EXPECT_NEAR(value, Value(1.7), 1e-14);
  EXPECT_LT((gradient - Gradient(1.7)).norm(), 1e-14);
  EXPECT_LT((product - Hessian(1.7) * way).norm(), 1e-14);
}

TEST(AutoDiffObjective, WritesWhatIsAskedForAlone) {
  const MixedObjective term(Mixed{1.0});
  const double* blocks[] = {kA, kB};
  double value, gb[3], pa[2];
  double *gradients[] = {nullptr, gb}, *products[] = {pa, nullptr};
  const double da[2] = {1.0, 0.0};
  const double* direction[] = {da, nullptr};
  ASSERT_TRUE(term.Evaluate(blocks, Batch::All(), &value, gradients));
  ASSERT_TRUE(term.HessianProduct(blocks, Batch::All(), direction, products));
  EXPECT_NEAR(pa[0], kB[1] * kB[1] * std::exp(kA[0] * kB[1]), 1e-14);
  const double outside[2] = {-1.0, 0.0};
  const double* there[] = {outside, kB};
  EXPECT_FALSE(term.Evaluate(there, Batch::All(), &value, nullptr));
  EXPECT_FALSE(term.Evaluate(there, Batch::All(), &value, gradients));
  EXPECT_FALSE(term.HessianProduct(there, Batch::All(), direction, products));
}

TEST(AutoDiffObjective, MinibatchesAreUnbiased) {
  std::vector<Mixed> functors;
  for (int i = 0; i < 12; ++i) functors.push_back({0.3 + i});
  const MixedObjective sum(functors);
  EXPECT_EQ(sum.num_terms(), 12);
  const double* blocks[] = {kA, kB};
  double whole, all_a[2], all_b[3], mean = 0.0, mean_a[2] = {0.0, 0.0};
  double* all[] = {all_a, all_b};
  ASSERT_TRUE(sum.Evaluate(blocks, Batch::All(), &whole, all));
  double expected = 0.0;
  for (const Mixed& functor : functors) expected += Value(functor.scale);
  EXPECT_NEAR(whole, expected, 1e-12);
  for (int block = 0; block < 3; ++block) {  // Each sample in one of them.
    double value, ga[2], gb[3];
    double* gradients[] = {ga, gb};
    ASSERT_TRUE(sum.Evaluate(blocks, Batch::Block(4, block), &value, gradients));
    mean += value / 3.0;
    for (int i = 0; i < 2; ++i) mean_a[i] += ga[i] / 3.0;
  }
  EXPECT_NEAR(mean, whole, 1e-12);
  for (int i = 0; i < 2; ++i) EXPECT_NEAR(mean_a[i], all_a[i], 1e-12);
}

// f = (x - 1)^4 + e^y - 2 y over y* = x^3 + c, by g = (y - x^3 - c)^2 + (y - x^3 - c)^4.
struct Upper {
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    using std::exp;
    const T d = x[0] - 1.0;
    value[0] = d * d * d * d + exp(y[0]) - 2.0 * y[0];
    return true;
  }
};

struct Lower {
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    const T d = y[0] - x[0] * x[0] * x[0] - c;
    value[0] = d * d + d * d * d * d;
    return true;
  }
  double c;
};

TEST(AutoDiffObjective, BothLevelsWithExactHypergradients) {
  double x = 0.6, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddTerm(
      Level::kUpper, std::make_unique<AutoDiffObjective<Upper, 1, 1>>(), {{&x, 1}, {&y, 1}});
  problem.AddTerm(Level::kLower,
                  std::make_unique<AutoDiffObjective<Lower, 1, 1>>(Lower{0.1}),
                  {{&x, 1}, {&y, 1}});
  const auto check = HypergradientChecker::Check(&problem);
  ASSERT_TRUE(check.ok) << check.message;
  const double at = x * x * x + 0.1;
  EXPECT_NEAR(
      check.gradient[0], 4.0 * std::pow(x - 1.0, 3) + (std::exp(at) - 2.0) * 3.0 * x * x, 1e-10);
  Solver::Summary summary;
  Solve(Solver::Options(), &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
  const double slope = 4.0 * std::pow(x - 1.0, 3) + (std::exp(x * x * x + 0.1) - 2.0) * 3.0 * x * x;
  EXPECT_NEAR(slope, 0.0, 1e-4);
  EXPECT_NEAR(y, x * x * x + 0.1, 1e-8);
}

TEST(AutoDiffObjective, OtherSizesAreRefusedWithASentence) {
  double x = 0.6, y[2] = {0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddTerm(Level::kLower,
                  std::make_unique<AutoDiffObjective<Lower, 1, 1>>(Lower{0.1}),
                  {{&x, 1}, {y, 2}});
  problem.AddTerm(
      Level::kUpper, std::make_unique<AutoDiffObjective<Upper, 1, 1>>(), {{&x, 1}, {y, 2}});
  std::string error;
  EXPECT_FALSE(problem.IsValid(&error));
  EXPECT_THAT(error, HasSubstr("its functor takes blocks of sizes 1, 1"));
  const MixedObjective empty((std::vector<Mixed>()));
  EXPECT_THAT(empty.CheckBlocks({2, 3}), HasSubstr("no functor"));
}

}  // namespace
}  // namespace bilevel
