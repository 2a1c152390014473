#include "bilevel/methods/estimators/internal/min_norm.h"

#include <random>

#include "gtest/gtest.h"

namespace bilevel {
namespace {

TEST(MinNorm, ClosedForms) {
  EXPECT_NEAR((MinNormInHull(Matrix{{3.0}, {4.0}}) - Vector{{3.0, 4.0}}).norm(), 0.0, 1e-15);
  // The foot on the line between two, one of two where the foot is outside, and zero between.
  EXPECT_NEAR(
      (MinNormInHull(Matrix{{1.0, 0.0}, {0.0, 1.0}}) - Vector{{0.5, 0.5}}).norm(), 0, 1e-14);
  EXPECT_NEAR(
      (MinNormInHull(Matrix{{1.0, 2.0}, {0.0, 1.0}}) - Vector{{1.0, 0.0}}).norm(), 0, 1e-14);
  EXPECT_NEAR(MinNormInHull(Matrix{{-1.0, 3.0}, {0.0, 0.0}}).norm(), 0.0, 1e-14);
  // Equal columns, and zero within a triangle.
  EXPECT_NEAR(
      (MinNormInHull(Matrix{{1.0, 1.0}, {1.0, 1.0}}) - Vector{{1.0, 1.0}}).norm(), 0, 1e-14);
  EXPECT_NEAR(MinNormInHull(Matrix{{-1.0, 2.0, 0.5}, {-1.0, 0.0, 3.0}}).norm(), 0.0, 1e-13);
}

// The conditions that characterise it: p'g >= p'p for every column, and p is in their hull, which
// weights found by projected gradients reach as well.
TEST(MinNorm, OptimalityOnRandomPolytopes) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (int trial = 0; trial < 200; ++trial) {
    const int n = 1 + trial % 7, k = 1 + trial % 11;
    Matrix columns(n, k);
    for (double& entry : columns.reshaped()) entry = normal(random) + (trial % 3 ? 1.0 : 0.0);
    const Vector point = MinNormInHull(columns);
    EXPECT_GE((columns.transpose() * point).minCoeff(), point.squaredNorm() - 1e-9);
    // Frank and Wolfe's steps come down to the same norm, slowly.
    Vector slow = columns.col(0);
    for (int step = 0; step < 20000; ++step) {
      int corner;
      (columns.transpose() * slow).minCoeff(&corner);
      const Vector way = columns.col(corner) - slow;
      if (!(way.squaredNorm() > 0.0)) break;
      slow += std::min(1.0, std::max(0.0, -slow.dot(way) / way.squaredNorm())) * way;
    }
    EXPECT_NEAR(slow.norm(), point.norm(), 2e-2 * (1.0 + point.norm())) << trial;
    EXPECT_LE(point.norm(), slow.norm() + 1e-9) << trial;
  }
}

}  // namespace
}  // namespace bilevel
