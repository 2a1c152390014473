#include "bilevel/methods/hyper_objective/internal/trust_region.h"

#include <cmath>
#include <limits>

#include "bilevel/base/internal/decompositions.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

Matrix WithEigenvalues(const Vector& values) {
  const Matrix q = HouseholderQ(Matrix::Random(values.size(), values.size()), values.size());
  return q * values.asDiagonal() * q.transpose();
}

TEST(TrustRegionStep, IsNewtonsWithinTheRadius) {
  const Vector values = (Vector(4) << 0.1, 1.0, 3.0, 50.0).finished();
  const Matrix b = WithEigenvalues(values);
  const Vector step = Vector::Random(4);
  EXPECT_LT((TrustRegionStep(b, -b * step, 1.01 * step.norm()) - step).norm(), 1e-12);
}

// Any s is the minimiser over its own norm for g = -(B + mu I) s, mu >= 0.
TEST(TrustRegionStep, MeetsTheConditionsOfMoreAndSorensenBeyond) {
  const Vector values = (Vector(4) << 0.0, 1e-3, 3.0, 50.0).finished();
  const Matrix b = WithEigenvalues(values), identity = Matrix::Identity(4, 4);
  for (const double mu : {1e-4, 0.1, 1.0, 1e4}) {
    const Vector step = Vector::Random(4);
    const Vector found = TrustRegionStep(b, -(b + mu * identity) * step, step.norm());
    EXPECT_LT((found - step).norm(), 1e-7 * step.norm()) << mu;
  }
}

TEST(TrustRegionStep, GoesAsFarAsItMayWhereTheModelIsLinear) {
  const Vector g = Vector::Random(3);
  const Vector step = TrustRegionStep(Matrix::Zero(3, 3), g, 0.25);
  EXPECT_LT((step + 0.25 * g.normalized()).norm(), 1e-8);
}

TEST(TrustRegionStep, IsZeroWithoutAGradientAndWithoutCoordinates) {
  EXPECT_EQ(TrustRegionStep(Matrix::Identity(3, 3), Vector::Zero(3), 1.0), Vector::Zero(3));
  EXPECT_EQ(TrustRegionStep(Matrix(0, 0), Vector(0), 1.0).size(), 0);
}

TEST(TrustRegion, GrowsAfterAGoodStepUpToItsMaximum) {
  TrustRegion region(1.0, 3.0);
  region.Accept(0.4, 0.9, 0.9);  // Twice the step is within the radius.
  EXPECT_EQ(region.radius(), 1.0);
  region.Accept(1.0, 0.9, 0.9);
  EXPECT_EQ(region.radius(), 2.0);
  region.Accept(2.0, 0.9, 0.9);
  EXPECT_EQ(region.radius(), 3.0);
  region.Accept(3.0, 0.5, 0.5);  // Neither good nor bad.
  EXPECT_EQ(region.radius(), 3.0);
  region.Accept(2.0, 0.1, 0.2);  // Bad, though taken.
  EXPECT_EQ(region.radius(), 1.0);
}

TEST(TrustRegion, DoesNotGrowBackAtOnceToWhatWasRejected) {
  TrustRegion region(1.0, 10.0);
  region.Reject(1.0, -1.0, 1.0);
  const double radius = region.radius();
  EXPECT_EQ(region.num_rejected(), 1);
  region.Accept(radius, 1.0, 1.0);
  EXPECT_EQ(region.num_rejected(), 0);
  EXPECT_EQ(region.radius(), radius);
  region.Accept(radius, 1.0, 1.0);
  EXPECT_EQ(region.radius(), 2.0 * radius);
}

// phi(t) = phi0 + slope t + (change - slope) t^2 along the step is least at t = -slope / 2 over
// change - slope.
TEST(TrustRegion, ShrinksToWhereTheParabolaIsLeast) {
  const auto share = [](double slope, double change) {
    TrustRegion region(2.0, 10.0);
    region.Reject(2.0, slope, change);
    return region.radius() / 2.0;
  };
  EXPECT_DOUBLE_EQ(share(-1.0, 1.0), 0.25);  // -t + 2 t^2
  EXPECT_DOUBLE_EQ(share(-3.0, 2.0), 0.3);   // -3 t + 5 t^2
  EXPECT_DOUBLE_EQ(share(-1.0, 99.0), 0.1);  // No less than that at once,
  EXPECT_DOUBLE_EQ(share(-1.0, -0.5), 0.5);  // and no more.
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  EXPECT_DOUBLE_EQ(share(-1.0, unknown), 0.25);
  EXPECT_DOUBLE_EQ(share(1.0, 3.0), 0.25);  // phi was to rise: there is no such parabola.
}

TEST(TrustRegion, ShrinksFromTheStepWhereThatIsShorter) {
  TrustRegion region(2.0, 10.0);
  region.Reject(0.4, -1.0, 1.0);
  EXPECT_DOUBLE_EQ(region.radius(), 0.1);
}

}  // namespace
}  // namespace bilevel
