// min f over argmin g, without x: against projections and the pseudo-inverse.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "bilevel/lower_level/sgm.h"
#include "bilevel/methods/value_function/bome.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

Solver::Summary SolveBy(Problem* problem, const std::string& method, int max_num_iterations = 50) {
  Solver::Options options;
  options.method = CreateMethod(method);
  options.max_num_iterations = max_num_iterations;
  Solver::Summary summary;
  SolveSimpleBilevel(options, problem, &summary);
  return summary;
}

// y - c.
struct Distance {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    for (int i = 0; i < 3; ++i) r[i] = y[i] - c[i];
    return true;
  }
  Eigen::Vector3d c;
};

// a'y - b.
struct Plane {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = a[0] * y[0] + a[1] * y[1] + a[2] * y[2] - b;
    return true;
  }
  Eigen::Vector3d a;
  double b;
};

// |y|^2 - 1.
struct Sphere {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] * y[0] + y[1] * y[1] + y[2] * y[2] - 1.0;
    return true;
  }
};

const Eigen::Vector3d kC(1.5, -0.4, 0.9), kA(1.0, 2.0, -1.0);
constexpr double kB = 0.7;

struct OnPlane {
  OnPlane() {
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Plane, 1, 3>(new Plane{kA, kB}), nullptr, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Distance, 3, 3>(new Distance{kC}), nullptr, y);
  }
  Eigen::Vector3d values() const { return Eigen::Map<const Eigen::Vector3d>(y); }
  Eigen::Vector3d projection = kC - kA * (kA.dot(kC) - kB) / kA.squaredNorm();
  double y[3] = {0.3, 0.1, -0.2};
  Problem problem;
};

TEST(SimpleBilevel, ProjectionOnAPlane) {
  for (const char* method : {"auto", "optimistic"}) {
    OnPlane p;
    const Solver::Summary summary = SolveBy(&p.problem, method);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_EQ(summary.answer, AnswerKind::kStationary);
    EXPECT_LT((p.values() - p.projection).norm(), 1e-12) << method;
    EXPECT_NEAR(summary.final_objective, 0.5 * (p.projection - kC).squaredNorm(), 1e-12);
    EXPECT_EQ(summary.reproducible_from_start, 1);
    EXPECT_EQ(summary.num_upper_parameters, 0);
  }
  OnPlane p;
  const Solver::Summary summary = SolveBy(&p.problem, "bome", 2000);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_LT((p.values() - p.projection).norm(), 1e-3);
}

TEST(SimpleBilevel, CurvedSet) {
  OnPlane p;
  Problem problem;
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Sphere, 1, 3>(new Sphere), nullptr, p.y);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Distance, 3, 3>(new Distance{kC}), nullptr, p.y);
  const Solver::Summary summary = SolveBy(&problem, "auto");
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_LT((p.values() - kC.normalized()).norm(), 1e-10);
}

TEST(SimpleBilevel, BoundsBesideTheSet) {
  OnPlane p;
  p.problem.lower()->SetParameterLowerBound(p.y, 0, -5.0);
  p.problem.lower()->SetParameterUpperBound(p.y, 2, 5.0);
  const Solver::Summary summary = SolveBy(&p.problem, "optimistic");
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_LT((p.values() - p.projection).norm(), 1e-12);
}

// The set ends where f would go on: its smooth part knows nothing of that end.
TEST(SimpleBilevel, BoundInTheWay) {
  OnPlane p;
  p.problem.lower()->SetParameterUpperBound(p.y, 0, 0.5);
  ASSERT_GT(p.projection[0], 0.5);
  const Solver::Summary refused = SolveBy(&p.problem, "optimistic");
  EXPECT_EQ(refused.termination_type, ceres::FAILURE);
  EXPECT_THAT(refused.message, HasSubstr("is in the way"));
  const Solver::Summary summary = SolveBy(&p.problem, "auto", 2000);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  // On the line y_0 = 0.5, a_1 y_1 + a_2 y_2 = b - a_0 / 2.
  const Eigen::Vector2d a = kA.tail<2>(), c = kC.tail<2>();
  const Eigen::Vector2d on_line = c - a * (a.dot(c) - kB + 0.5 * kA[0]) / a.squaredNorm();
  EXPECT_NEAR(p.y[0], 0.5, 1e-3);
  EXPECT_LT((p.values().tail<2>() - on_line).norm(), 2e-3);
}

TEST(SimpleBilevel, OnePointIsItsOwnAnswer) {
  OnPlane p;
  p.problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Distance, 3, 3>(new Distance{Eigen::Vector3d::Zero()}),
      nullptr,
      p.y);
  const Solver::Summary summary = SolveBy(&p.problem, "auto");
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  const Eigen::Vector3d expected =
      SolveSymmetric(kA * kA.transpose() + Eigen::Matrix3d::Identity(), kA * kB);
  EXPECT_LT((p.values() - expected).norm(), 1e-12);
}

// The shortest least-squares solution is the pseudo-inverse's.
struct Row {
  template <typename T>
  bool operator()(T const* const* y, T* r) const {
    r[0] = T(-b);
    for (int i = 0; i < a.size(); ++i) r[0] += a[i] * y[0][i];
    return true;
  }
  Vector a;
  double b;
};
TEST(SimpleBilevel, ShortestLeastSquaresSolution) {
  constexpr int kRows = 30, kColumns = 12, kRank = 7;
  srand(3);
  const Matrix a = Matrix::Random(kRows, kRank) * Matrix::Random(kRank, kColumns);
  const Vector b = Vector::Random(kRows);
  Vector y = Vector::Constant(kColumns, 0.5);
  Problem problem;
  for (int i = 0; i < kRows; ++i) {
    auto* cost = new DynamicAutoDiffCostFunction<Row>(new Row{a.row(i), b[i]});
    cost->AddParameterBlock(kColumns);
    cost->SetNumResiduals(1);
    problem.lower()->AddResidualBlock(cost, nullptr, y.data());
  }
  for (int j = 0; j < kColumns; ++j) {
    auto* cost = new DynamicAutoDiffCostFunction<Row>(new Row{Vector::Unit(kColumns, j), 0.0});
    cost->AddParameterBlock(kColumns);
    cost->SetNumResiduals(1);
    problem.upper()->AddResidualBlock(cost, nullptr, y.data());
  }
  const Solver::Summary summary = SolveBy(&problem, "auto");
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  const Vector expected = LeastSquares(a, b);
  EXPECT_LT((y - expected).norm(), 1e-10 * expected.norm());
}

// f = |y_0 - 2| over the unit disk, which is where g = max(|y| - 1, 0) is least.
class Reach : public Objective {
 public:
  bool Evaluate(double const* const* y, const Batch&, double* value, double** g) const override {
    *value = std::abs(y[0][0] - 2.0);
    if (g && g[0]) {
      g[0][0] = y[0][0] < 2.0 ? -1.0 : 1.0;
      g[0][1] = 0.0;
    }
    return true;
  }
};
class Disk : public Objective {
 public:
  bool Evaluate(double const* const* y, const Batch&, double* value, double** g) const override {
    const double norm = std::hypot(y[0][0], y[0][1]);
    *value = std::max(norm - 1.0, 0.0);
    for (int i = 0; g && g[0] && i < 2; ++i) g[0][i] = norm > 1.0 ? y[0][i] / norm : 0.0;
    return true;
  }
};
TEST(SimpleBilevel, SwitchingGradientsWhereNothingIsSmooth) {
  double y[2] = {-1.5, 2.0};
  Problem problem;
  problem.AddTerm(Level::kLower, std::make_unique<Disk>(), {{y, 2}});
  problem.AddTerm(Level::kUpper, std::make_unique<Reach>(), {{y, 2}});
  Solver::Options options;
  Sgm::Options sgm;
  sgm.num_steps = 20000;
  options.lower_solver = [&](Program* program) { return std::make_unique<Sgm>(program, sgm); };
  Solver::Summary summary;
  SolveSimpleBilevel(options, &problem, &summary);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  // Its theorem's bounds, with phi = 1.
  EXPECT_LE(summary.final_objective, 1.0 + sgm.theta);
  EXPECT_LE(std::hypot(y[0], y[1]) - 1.0, 3.0 * sgm.theta);
}

TEST(SimpleBilevel, Refusals) {
  OnPlane p;
  EXPECT_THAT(SolveBy(&p.problem, "levenberg_marquardt").message, HasSubstr("there is none"));
  Solver::Summary summary;
  Solve({}, &p.problem, &summary);
  EXPECT_THAT(summary.message, HasSubstr("SolveSimpleBilevel"));
  double x = 1.0;
  p.problem.AddUpperParameterBlock(&x, 1);
  p.problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Plane, 1, 3>(new Plane{kA, kB}), nullptr, p.y);
  EXPECT_THAT(SolveBy(&p.problem, "auto").message, HasSubstr("upper block 0"));
  OnPlane without_f;
  Problem problem;
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Plane, 1, 3>(new Plane{kA, kB}), nullptr, without_f.y);
  EXPECT_THAT(SolveBy(&problem, "auto").message, HasSubstr("the upper level is empty"));
  SolveSimpleBilevel({}, nullptr, &summary);
  EXPECT_THAT(summary.message, HasSubstr("the problem is null"));
}

}  // namespace
}  // namespace bilevel
