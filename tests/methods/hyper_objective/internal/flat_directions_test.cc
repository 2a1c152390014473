#include "bilevel/methods/hyper_objective/internal/flat_directions.h"

#include <cmath>

#include "gtest/gtest.h"

namespace bilevel {
namespace {

// r depends on x[0] + x[1] and, by `share` of that, on x[2].
Matrix Jacobian(double share) {
  Matrix j = Matrix::Zero(4, 3);
  j.col(0) = j.col(1) = Vector::Ones(4);
  j(0, 2) = share;
  j(1, 2) = -share;
  return j;
}

TEST(SplitDirections, FindsWhatTheResidualsDoNotSee) {
  const Directions d = SplitDirections(Jacobian(1.0), Vector::Ones(4), Vector::Zero(3));
  ASSERT_EQ(d.flat.cols(), 1);
  ASSERT_EQ(d.learnable.cols(), 2);
  EXPECT_NEAR(
      std::abs(d.flat.col(0).dot(Vector(Eigen::Vector3d(1.0, -1.0, 0.0)))), std::sqrt(2.0), 1e-12);
  EXPECT_LT((d.learnable.transpose() * d.flat).norm(), 1e-12);
}

TEST(SplitDirections, KnowsRoundingFromALittle) {
  const Vector r = Vector::Ones(4), g = Vector::Zero(3);
  EXPECT_EQ(SplitDirections(Jacobian(1e-4), r, g).flat.cols(), 1);
  EXPECT_EQ(SplitDirections(Jacobian(1e-8), r, g).flat.cols(), 2);
}

// Terms beside the residuals may see what these do not.
TEST(SplitDirections, LearnsWhereTheGradientHasAPart) {
  const Vector g = Eigen::Vector3d(1.0, -1.0, 0.0);
  EXPECT_EQ(SplitDirections(Jacobian(1.0), Vector::Ones(4), g).flat.cols(), 0);
}

}  // namespace
}  // namespace bilevel
