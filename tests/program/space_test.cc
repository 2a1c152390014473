#include "bilevel/program/space.h"

#include <limits>
#include <vector>

#include "ceres/ceres.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

TEST(Space, CoordinatesOfASubset) {
  double first[2] = {0.0, 0.0}, second[4] = {1.0, 2.0, 3.0, 4.0};
  const ceres::SubsetManifold holds_second(4, {1});
  Space space;
  space.Add(first, 2, nullptr, "first");
  space.Add(second, 4, &holds_second, "second");
  ASSERT_EQ(space.tangent_size(), 5);
  EXPECT_EQ(space.TangentIndex(0, 1), 1);
  const int expected[] = {2, -1, 3, 4};
  for (int i = 0; i < 4; ++i) {
    const int j = space.TangentIndex(1, i);
    EXPECT_EQ(j, expected[i]);
    if (j >= 0) {
      EXPECT_EQ(space.AmbientIndex(j), 2 + i);
    }
  }

  EXPECT_FALSE(space.has_bounds());
  space.SetBounds(space.TangentIndex(1, 2), -std::numeric_limits<double>::infinity(), 3.5);
  EXPECT_TRUE(space.has_bounds());
  const std::vector<double> p = {0.0, 0.0, 1.0, 2.0, 3.0, 4.0}, step(5, 1.0);
  std::vector<double> q(6);
  ASSERT_TRUE(space.Plus(p.data(), step.data(), q.data()));
  EXPECT_EQ(q, (std::vector<double>{1.0, 1.0, 2.0, 2.0, 3.5, 5.0}));
}

}  // namespace
}  // namespace bilevel
