// Extreme eigenvalues against dense ones, where Hessians are singular or indefinite too.
#include "bilevel/methods/estimators/curvature.h"

#include <memory>
#include <string>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "examples/support/learning/quadratic_sum.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

// d^2g/dy^2 = diag(6 y^2 - 2 x) + slope slope'.
struct Wells {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[3] = T(0.0);
    for (int i = 0; i < 3; ++i) {
      r[i] = wells * (y[i] * y[i] - x[0]);
      r[3] += (i + 1.0) * y[i];
    }
    return true;
  }
  double wells;
};

struct Compiled {
  explicit Compiled(Problem* problem) : program(problem->Compile({}, &error)) {
    if (!program) return;
    oracle = std::make_unique<Oracle>(program.get(), nullptr, 3);
    x = Point(&program->x);
    y = Point(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(y.value().data());
  }
  std::string error;
  std::unique_ptr<Program> program;
  std::unique_ptr<Oracle> oracle;
  Point x, y;
};

TEST(EstimateCurvature, IsThatOfTheDenseHessian) {
  const Vector slope{{1.0, 2.0, 3.0}};
  for (const double wells : {0.0, 1.0}) {  // Of rank one, and indefinite.
    double x = 2.0, y[] = {0.1, 0.5, 1.5};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Wells, 4, 1, 3>(new Wells{wells}), nullptr, &x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Wells, 4, 1, 3>(new Wells{1.0}), nullptr, &x, y);
    Compiled compiled(&problem);
    ASSERT_TRUE(compiled.program) << compiled.error;
    Matrix h = slope * slope.transpose();
    for (int i = 0; i < 3; ++i) h(i, i) += wells * wells * (6.0 * y[i] * y[i] - 2.0 * x);
    const Vector eigenvalues = SymmetricEigen(h).eigenvalues();
    const Curvature c =
        EstimateCurvature(*compiled.oracle, Batch::All(), compiled.x, compiled.y, nullptr);
    EXPECT_NEAR(c.largest, eigenvalues[2], 1e-9);
    EXPECT_NEAR(c.smallest, eigenvalues[0], 1e-9);
  }
}

TEST(EstimateUpperCurvature, IsThatOfTheClosedForm) {
  QuadraticSum sum(8, 3, 5, 0.3);
  sum.x << 0.5, -1.0, 2.0;
  sum.y = sum.LowerSolution(sum.x);
  Problem problem;
  sum.AddTo(&problem);
  Compiled compiled(&problem);
  ASSERT_TRUE(compiled.program) << compiled.error;
  const UpperCurvature u =
      EstimateUpperCurvature(*compiled.oracle, Batch::All(), Batch::All(), compiled.x, compiled.y);
  const Vector eigenvalues = SymmetricEigen(sum.UpperHessian()).eigenvalues();
  EXPECT_NEAR(u.curvature.largest, eigenvalues[2], 0.03 * eigenvalues[2]);
  EXPECT_NEAR(u.curvature.smallest, eigenvalues[0], 0.03 * eigenvalues[2]);
  const double norm = sum.Hypergradient(sum.x).norm();
  EXPECT_NEAR(u.gradient_norm, norm, 0.03 * norm);
}

}  // namespace
}  // namespace bilevel
