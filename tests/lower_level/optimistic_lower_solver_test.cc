// The optimistic path against closed forms and against differences of its own re-solves.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/lower_level/internal/component_eigen.h"
#include "bilevel/lower_level/optimistic_lower_solver.h"
#include "bilevel/methods/hyper_objective/optimistic.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

// phi(x), its gradient and y*'s derivative from the user's values.
struct Path {
  explicit Path(Problem* problem, const OptimisticLowerSolver::Options& options = {}) {
    std::string error;
    program = problem->Compile({}, &error);
    EXPECT_TRUE(program) << error;
    NewtonLowerSolver::Options silent;
    silent.ceres.logging_type = ceres::SILENT;
    start = std::make_unique<NewtonLowerSolver>(program.get(), silent);
    solver = std::make_unique<OptimisticLowerSolver>(program.get(), start.get(), options);
    oracle = std::make_unique<Oracle>(program.get(), solver.get(), 0);
    x = Point(&program->x);
    y = Point(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(y.value().data());
  }

  double Phi(const Point& at, Vector* gradient = nullptr) {
    EXPECT_TRUE(solver->Solve(at, &y)) << solver->message();
    Vector gx, fy, product;
    const double phi = oracle->f.Gradient(at, y, &gx, &fy);
    if (gradient) {
      EXPECT_TRUE(solver->Differentiate(at, y)) << solver->message();
      EXPECT_TRUE(solver->Adjoint(fy, &product)) << solver->message();
      *gradient = gx + product;
    }
    return phi;
  }

  // The gradient of phi, dy*/dx and its transpose against differences of re-solves.
  void ExpectCorrectDerivatives(double tolerance) {
    Vector gradient;
    Phi(x, &gradient);
    const Matrix d = solver->dy_dx();
    const Point y0 = y;
    for (int j = 0; j < x.dim(); ++j) {
      const auto at = [&](double h) {
        Point moved = x;
        EXPECT_TRUE(moved.Move(h * Vector::Unit(x.dim(), j)));
        y = y0;
        return Phi(moved);
      };
      EXPECT_NEAR(gradient[j], Derivative<double>(at), tolerance);
      const Vector ambient = Derivative<Vector>([&](double h) -> Vector {
        at(h);
        return y.value();
      });
      const Vector expected = Derivative<Vector>([&](double h) -> Vector {
        Point moved = y0;
        EXPECT_TRUE(moved.Move(h * d.col(j)));
        return moved.value();
      });
      EXPECT_LT((ambient - expected).norm(), tolerance * (1.0 + ambient.norm())) << j;
    }
    const Vector fy = TestVector(y0.dim(), 0.7);
    Vector product;
    ASSERT_TRUE(solver->Differentiate(x, y0)) << solver->message();
    ASSERT_TRUE(solver->Adjoint(fy, &product)) << solver->message();
    EXPECT_LT((product - d.transpose() * fy).norm(), 1e-10 * (1.0 + product.norm()));
  }

  std::unique_ptr<Program> program;
  std::unique_ptr<NewtonLowerSolver> start;
  std::unique_ptr<OptimisticLowerSolver> solver;
  std::unique_ptr<Oracle> oracle;
  Point x, y;
};

// sqrt(2) (a - b) in the given coordinates.
struct Example53Upper {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = std::sqrt(2.0) * (x[0] - y[1]);
    r[1] = std::sqrt(2.0) * (y[0] - 1.0);
    return true;
  }
};

// y_1^2 - 2 x y_1, not a sum of squares.
class Example53Lower : public Objective {
 public:
  bool Evaluate(double const* const* b, const Batch&, double* v, double** g) const override {
    const double x = b[0][0], y = b[1][0];
    *v = y * y - 2.0 * x * y;
    if (g && g[0]) g[0][0] = -2.0 * y;
    if (g && g[1]) {
      g[1][0] = 2.0 * (y - x);
      g[1][1] = 0.0;
    }
    return true;
  }
};

// Chen, Xu and Zhang, Example 5.3 (after Liu et al., 2020): phi(x) = (x - 1)^2, y* = (x, x).
TEST(Optimistic, Example53) {
  double x = 3.0, y[2] = {-1.0, 7.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddTerm(Level::kLower, std::make_unique<Example53Lower>(), {{&x, 1}, {y, 2}});
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Example53Upper, 2, 1, 2>(new Example53Upper), nullptr, &x, y);
  Path path(&problem);
  for (double at : {-4.0, 0.0, 0.5, 1.0, 6.0}) {
    Vector gradient;
    path.x.value()[0] = at;
    EXPECT_NEAR(path.Phi(path.x, &gradient), (at - 1.0) * (at - 1.0), 1e-12);
    EXPECT_NEAR(gradient[0], 2.0 * (at - 1.0), 1e-11);
    EXPECT_NEAR(path.solver->dy_dx()(0, 0), 1.0, 1e-11);
    EXPECT_NEAR(path.solver->dy_dx()(1, 0), 1.0, 1e-11);
  }
  // What lies off the range of the Hessian is refused where y is not chosen by f.
  Solver::Options options;
  Solver::Summary summary;
  options.method = CreateMethod("levenberg_marquardt");
  Solve(options, &problem, &summary);
  EXPECT_FALSE(summary.IsSolutionUsable());
  EXPECT_THAT(summary.message, HasSubstr("\"optimistic\""));
  for (const char* method : {"optimistic", "auto"}) {  // Which goes on by itself.
    x = 3.0;
    y[0] = -1.0;
    y[1] = 7.0;
    options.method = CreateMethod(method);
    Solve(options, &problem, &summary);
    ASSERT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(x, 1.0, 1e-10);
    EXPECT_NEAR(y[0], 1.0, 1e-10);
    EXPECT_NEAR(y[1], 1.0, 1e-10);
    EXPECT_EQ(summary.num_free_directions, 0);
    EXPECT_THAT(summary.FullReport(), HasSubstr("solutions of dimension 1"));
  }
}

struct Sphere {  // |y|^2 - x^2
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = -x[0] * x[0];
    for (int i = 0; i < 3; ++i) r[0] += y[i] * y[i];
    return true;
  }
};
struct Reach {  // y - p
  template <typename T>
  bool operator()(const T* y, T* r) const {
    for (int i = 0; i < 3; ++i) r[i] = y[i] - p[i];
    return true;
  }
  double p[3];
};

struct SphereProblem {
  explicit SphereProblem(Vector p) : norm(p.norm()), direction(p / norm) {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Sphere, 1, 1, 3>(new Sphere), nullptr, &x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Reach, 3, 3>(new Reach{{p[0], p[1], p[2]}}), nullptr, y);
  }
  double x = 0.7, y[3] = {0.3, -2.0, 1.0};
  Problem problem;
  double norm;
  Vector direction;
};

// g = 1/2 (|y|^2 - x^2)^2, f = 1/2 |y - p|^2: phi = 1/2 (|p| - |x|)^2, y* = |x| p / |p|.
TEST(Optimistic, CurvedSet) {
  // Along an axis the Hessian's zero entries are connected with large ones: rounding must not
  // count.
  for (const Vector& p :
       {Vector(Eigen::Vector3d(1.0, -2.0, 0.5)), Vector(Eigen::Vector3d(0, 2, 0))}) {
    for (double x : {0.7, -0.7, 5.0, 1e-3, 1e3}) {
      SphereProblem s(p);
      s.x = x;
      Path path(&s.problem);
      Vector gradient;
      const double gap = s.norm - std::abs(x), sign = x > 0.0 ? 1.0 : -1.0;
      EXPECT_NEAR(path.Phi(path.x, &gradient), 0.5 * gap * gap, 1e-10 * gap * gap);
      EXPECT_NEAR(gradient[0], -sign * gap, 1e-9 * std::abs(gap));
      EXPECT_LT((path.y.value() - std::abs(x) * s.direction).norm(), 1e-10 * std::abs(x)) << x;
      EXPECT_LT((path.solver->dy_dx() - sign * s.direction).norm(), 1e-8) << x;
    }
  }
}

// From the point of the set that is farthest from p, where f is stationary too.
TEST(Optimistic, LeavesAMaximumOfTheUpperLevel) {
  SphereProblem s(Eigen::Vector3d(1.0, -2.0, 0.5));
  for (int i = 0; i < 3; ++i) s.y[i] = -s.x * s.direction[i];
  Path path(&s.problem);
  EXPECT_NEAR(path.Phi(path.x), 0.5 * std::pow(s.norm - s.x, 2), 1e-10);
}

TEST(Optimistic, EveryMethodOnTheCurvedSet) {  // Within itself too.
  for (const char* inner : {"auto", "optimistic", "lbfgs", "bfgs", "gradient_descent"}) {
    SphereProblem s(Eigen::Vector3d(1.0, -2.0, 0.5));
    Solver::Options options;
    options.method = std::make_shared<Optimistic>(CreateMethod(inner));
    options.max_num_iterations = 1000;
    options.function_tolerance = 0.0;
    options.gradient_tolerance = 1e-10;
    Solver::Summary summary;
    Solve(options, &s.problem, &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << inner << summary.FullReport();
    EXPECT_NEAR(s.x, s.norm, 1e-8) << inner;
    EXPECT_LT((Eigen::Map<Vector>(s.y, 3) - s.norm * s.direction).norm(), 1e-8) << inner;
  }
}

// Everything couples: a surface that bends with x, with non-zero cost on it.
struct Surface {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::sin;
    r[0] = y[0] * y[0] + 2.0 * y[1] * y[1] + 0.5 * y[0] * y[2] * x[0] + sin(y[2]) - 2.0 - x[1];
    r[1] = r[0] * r[0];
    r[2] = 0.8 + r[0];
    return true;
  }
};
struct Above {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::sin;
    r[0] = y[0] - 0.8 + 0.1 * x[0] * y[1];
    r[1] = y[1] - 0.5 * x[1] + 0.3 * sin(y[2]);
    r[2] = y[2] * (1.0 + 0.2 * y[0]) - 0.4;
    return true;
  }
};

TEST(Optimistic, DerivativesOnABendingSurface) {
  for (const bool opaque : {false, true}) {
    double x[2] = {0.6, 0.9}, y[3] = {0.9, 0.4, 0.1};
    Problem problem;
    problem.AddUpperParameterBlock(x, 2);
    ceres::CostFunction* below = new AutoDiffCostFunction<Surface, 3, 2, 3>(new Surface);
    if (opaque) below = new Opaque(below);
    problem.lower()->AddResidualBlock(below, nullptr, x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Above, 3, 2, 3>(new Above), nullptr, x, y);
    Path path(&problem);
    path.ExpectCorrectDerivatives(opaque ? 1e-4 : 1e-7);
    EXPECT_EQ(path.solver->Report().num_free_directions, 0);
  }
}

// A rotation of which the lower level sees one axis only: the set is a circle of quaternions.
struct Axis {
  template <typename T>
  bool operator()(const T* x, const T* q, const T* t, T* r) const {
    const T e[3] = {T(0.0), T(0.0), T(1.0)};
    T v[3];
    ceres::QuaternionRotatePoint(q, e, v);
    r[0] = v[0] - 0.6 * x[0];
    r[1] = v[1] + 0.2 * x[1];
    r[2] = v[2] - 0.7;
    r[3] = t[0] - x[0] + 0.3 * v[1];
    return true;
  }
};
struct Attitude {
  template <typename T>
  bool operator()(const T* x, const T* q, const T* t, T* r) const {
    for (int i = 0; i < 4; ++i) r[i] = q[i] - target[i];
    r[4] = 0.1 * x[0] - q[1] * q[2];
    r[5] = t[0] - x[1] * q[0];
    return true;
  }
  double target[4];
};

TEST(Optimistic, DerivativesOnAManifold) {
  double x[2] = {0.5, 0.4}, q[4] = {1.0, 0.0, 0.0, 0.0}, t = 0.3;
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Axis, 4, 2, 4, 1>(new Axis), nullptr, x, q, &t);
  problem.lower()->SetManifold(q, new ceres::QuaternionManifold);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Attitude, 6, 2, 4, 1>(new Attitude{{0.8, 0.3, -0.1, 0.5}}),
      nullptr,
      x,
      q,
      &t);
  Path path(&problem);
  path.ExpectCorrectDerivatives(1e-7);
}

// |sqrt(M) (A x - y)|^2 + lambda |sqrt(M) (y - b)|^2 over 2n.
struct Adversary {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    const int n = static_cast<int>(root.rows());
    for (int i = 0; i < n; ++i) {
      r[i] = T(0.0);
      r[n + i] = T(0.0);
      for (int j = 0; j < n; ++j) {
        r[i] += root(i, j) * (a(j, 0) * x[0] + a(j, 1) * x[1] - y[j]);
        r[n + i] += root(i, j) * std::sqrt(lambda) * (y[j] - b[j]);
      }
    }
    return true;
  }
  Matrix a;
  Vector b;
  Matrix root;
  double lambda;
};
struct Learner {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    for (int i = 0; i < a.rows(); ++i) r[i] = a(i, 0) * x[0] + a(i, 1) * x[1] - y[i];
    return true;
  }
  Matrix a;
};

// Example 5.4 with a dense M whose eigenvalues are 0 (half of them) and 1e-9, ..., 1: on M's range
// y* = (A x + lambda b) / (1 + lambda), off it y* = A x, so that with the projection P on that
// range phi = (lambda / (1 + lambda))^2 |P (A x - b)|^2 / 2. A tolerance above 1e-9 loses a
// direction.
TEST(Optimistic, SmallEigenvaluesCount) {
  constexpr int kSize = 8;
  Matrix a(kSize, 2), q(kSize, kSize);
  for (int j = 0; j < 2; ++j) a.col(j) = TestVector(kSize, 1.0 + j);
  for (int j = 0; j < kSize; ++j) q.col(j) = TestVector(kSize, 3.0 + 0.41 * j * j);
  q = HouseholderQ(q, q.cols());
  const Vector b = TestVector(kSize, 9.0);
  const double lambda = 0.7;
  for (const bool diagonal : {false, true}) {
    if (diagonal) q.setIdentity();
    Vector m = Vector::Zero(kSize);
    m.head(4) << 1e-9, 1.0 / 3.0, 2.0 / 3.0, 1.0;
    const Matrix root = m.cwiseSqrt().asDiagonal() * q.transpose();
    const Matrix p = q.leftCols(4) * q.leftCols(4).transpose();
    const Vector best = LeastSquares(p * a, p * b);
    const double phi =
        0.5 * std::pow(lambda / (1.0 + lambda), 2) * (p * (a * best - b)).squaredNorm();
    for (const double tolerance : {0.0, 1e-6}) {
      double x[2] = {0.0, 0.0};
      Vector y = b;
      Problem problem;
      problem.AddUpperParameterBlock(x, 2);
      problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Adversary, 2 * kSize, 2, kSize>(
                                            new Adversary{a, b, root, lambda}),
                                        nullptr,
                                        x,
                                        y.data());
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<Learner, kSize, 2, kSize>(new Learner{a}), nullptr, x, y.data());
      Solver::Options options;
      OptimisticLowerSolver::Options lower;
      lower.rank_tolerance = tolerance;
      options.method = std::make_shared<Optimistic>(CreateMethod("auto"), lower);
      Solver::Summary summary;
      Solve(options, &problem, &summary);
      if (tolerance > 0.0 && !diagonal) {
        // It is noticed: g still has a slope there, or f none that ends; rounding decides which.
        EXPECT_FALSE(summary.IsSolutionUsable());
        EXPECT_THAT(summary.message,
                    AnyOf(HasSubstr("vanishes along a direction"), HasSubstr("f has no minimum")));
        continue;
      }
      // Scaled to a unit diagonal, 1e-9 on it is as good as 1; off it rounding is worth 1e-7.
      ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
      const double relative = diagonal ? 1e-9 : 1e-6;
      EXPECT_NEAR(summary.final_objective, phi, relative * phi) << summary.FullReport();
      EXPECT_LT((Eigen::Map<Vector>(x, 2) - best).norm(), 100.0 * relative * best.norm());
    }
  }
}

struct First {
  template <typename T>
  bool operator()(const T* at_x, const T* at_y, T* r) const {
    r[0] = at_y[0] - at_x[0];
    return true;
  }
};
struct Second {
  template <typename T>
  bool operator()(const T* at_x, const T* at_y, T* r) const {
    r[0] = at_y[0] + at_y[1] - 3.0 * at_x[0];
    r[1] = at_x[0] - 1.0;
    return true;
  }
};

// What f does not determine either is no obstacle, but is told, and not differentiated.
TEST(Optimistic, DirectionsOfNeitherLevel) {
  double x = 2.0, y[3] = {5.0, 6.0, 7.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<First, 1, 1, 3>(new First), nullptr, &x, y);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Second, 2, 1, 3>(new Second), nullptr, &x, y);
  Path path(&problem);
  Vector gradient, product;
  EXPECT_NEAR(path.Phi(path.x, &gradient), 0.5, 1e-12);
  EXPECT_NEAR(gradient[0], 1.0, 1e-10);
  EXPECT_EQ(path.y.value()[2], 7.0);
  EXPECT_EQ(path.solver->Report().num_free_directions, 1);
  EXPECT_FALSE(path.solver->Adjoint(Vector::Unit(3, 2), &product));
  EXPECT_THAT(path.solver->message(), HasSubstr("neither level determines"));
  ASSERT_TRUE(path.solver->Adjoint(Vector::Unit(3, 1), &product)) << path.solver->message();
  EXPECT_NEAR(product[0], 2.0, 1e-10);  // y_2 = 2 x.
}

struct Body {
  template <typename T>
  bool operator()(const T* at_x, const T* at_q, const T* at_t, T* r) const {
    const T e[3] = {at_t[0], at_t[1] + 1.0, T(2.0)};
    ceres::QuaternionRotatePoint(at_q, e, r);
    r[0] -= at_x[0];
    r[3] = at_q[0] - 0.9 + 0.1 * at_t[2];
    r[4] = at_q[1] - 0.2 * at_x[1];
    r[5] = at_q[3] + at_t[2] * at_t[2];
    r[6] = at_t[2] - 0.4;
    return true;
  }
};

// With a single solution it is the implicit function theorem.
TEST(Optimistic, UniqueSolutions) {
  double x[2] = {0.8, 0.3}, q[4] = {1.0, 0.0, 0.0, 0.0}, t[3] = {0.3, 0.1, 0.2};
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Body, 7, 2, 4, 3>(new Body), nullptr, x, q, t);
  problem.lower()->SetManifold(q, new ceres::QuaternionManifold);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Reach, 3, 3>(new Reach{{1.0, 0.0, 0.5}}), nullptr, t);
  Path path(&problem);
  Vector gradient, fx, fy, expected;
  path.Phi(path.x, &gradient);
  ASSERT_TRUE(path.start->Differentiate(path.x, path.y));
  path.oracle->f.Gradient(path.x, path.y, &fx, &fy);
  ASSERT_TRUE(path.start->Adjoint(fy, &expected));
  EXPECT_LT((gradient - fx - expected).norm(), 1e-9 * gradient.norm());
  EXPECT_LT((path.solver->dy_dx() - path.start->dy_dx()).norm(), 1e-9);
}

TEST(Optimistic, Scenarios) {
  double x = 0.7, y[2][3] = {{0.3, -2.0, 1.0}, {1.0, 1.0, 1.0}};
  const Reach reach[2] = {{{1.0, 0.0, 2.0}}, {{0.0, 3.0, 0.0}}};
  const double weight[2] = {0.25, 3.0}, norm[2] = {std::sqrt(5.0), 3.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  for (int i = 0; i < 2; ++i) {
    Scenario* s = problem.AddScenario(std::to_string(i), weight[i]);
    s->lower()->AddResidualBlock(
        new AutoDiffCostFunction<Sphere, 1, 1, 3>(new Sphere), nullptr, &x, y[i]);
    s->upper()->AddResidualBlock(
        new AutoDiffCostFunction<Reach, 3, 3>(new Reach(reach[i])), nullptr, y[i]);
  }
  Path path(&problem);
  path.ExpectCorrectDerivatives(1e-7);
  Solver::Options options;
  options.method = CreateMethod("optimistic");
  options.num_threads = 2;
  options.function_tolerance = 0.0;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  const double best = (weight[0] * norm[0] + weight[1] * norm[1]) / (weight[0] + weight[1]);
  EXPECT_NEAR(x, best, 1e-8);
}

// --- what is refused -----------------------------------------------------------------------------

// 1/2 sum_i e_i y_i^2 with the given second derivatives, coupled in the pattern, + x y[linear].
struct Quadratic : public Objective {
  Quadratic(std::vector<double> values, int index) : e(std::move(values)), linear(index) {}
  bool Evaluate(double const* const* b, const Batch&, double* v, double** g) const override {
    const double x = b[0][0];
    *v = linear >= 0 ? x * b[1][linear] : 0.0;
    if (g && g[0]) g[0][0] = linear >= 0 ? b[1][linear] : 0.0;
    for (size_t i = 0; i < e.size(); ++i) {
      *v += 0.5 * e[i] * b[1][i] * b[1][i];
      if (g && g[1]) g[1][i] = e[i] * b[1][i] + (static_cast<int>(i) == linear ? x : 0.0);
    }
    return true;
  }
  bool HessianProduct(double const* const*,
                      const Batch&,
                      double const* const* d,
                      double** p) const override {
    if (p[0]) p[0][0] = d[1] && linear >= 0 ? d[1][linear] : 0.0;
    for (size_t i = 0; p[1] && i < e.size(); ++i) {
      p[1][i] =
          (d[1] ? e[i] * d[1][i] : 0.0) + (d[0] && static_cast<int>(i) == linear ? d[0][0] : 0.0);
    }
    return true;
  }
  bool has_hessian_product() const override { return true; }
  std::vector<double> e;
  int linear;
};

struct Near {
  template <typename T>
  bool operator()(const T* at_x, const T* at_y, T* r) const {
    for (int i = 0; i < 3; ++i) r[i] = at_y[i] - at_x[0] - 1.0;
    return true;
  }
};

std::string MessageOf(std::vector<double> e, int linear, double rank_tolerance = 0.0) {
  double x = 0.0;
  std::vector<double> y(e.size(), 0.0);
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  const int size = static_cast<int>(e.size());
  problem.AddTerm(
      Level::kLower, std::make_unique<Quadratic>(e, linear), {{&x, 1}, {y.data(), size}});
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Near, 3, 1, 3>(new Near), nullptr, &x, y.data());
  OptimisticLowerSolver::Options options;
  options.rank_tolerance = rank_tolerance;
  Path path(&problem, options);
  const bool solved = path.solver->Solve(path.x, &path.y);
  EXPECT_EQ(solved, path.solver->message().empty()) << path.solver->message();
  return path.solver->message();
}

TEST(Optimistic, Refusals) {
  EXPECT_EQ(MessageOf({1.0, 0.0, 2.0}, 0), "");
  EXPECT_THAT(MessageOf({1.0, 0.0, -2.0}, 0), HasSubstr("saddle"));
  // At x = 0 all y_2 are solutions, at any other x there is none.
  EXPECT_THAT(MessageOf({1.0, 0.0, 2.0}, 1), HasSubstr("do not move smoothly with x"));

  double x = 1.0, y[2] = {1.0, 1.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddTerm(Level::kLower, std::make_unique<Example53Lower>(), {{&x, 1}, {y, 2}});
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Example53Upper, 2, 1, 2>(new Example53Upper), nullptr, &x, y);
  const auto complaint = [&](const OptimisticLowerSolver::Options& lower) {
    Solver::Options options;
    options.method = std::make_shared<Optimistic>(CreateMethod("auto"), lower);
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    return summary.message;
  };
  OptimisticLowerSolver::Options lower;
  lower.rank_tolerance = -1.0;
  EXPECT_THAT(complaint(lower), HasSubstr("rank_tolerance must be"));
  lower = {};
  lower.max_num_iterations = 0;
  EXPECT_THAT(complaint(lower), HasSubstr("max_num_iterations must be"));
}

// Bounds that touch nothing change nothing.
TEST(Optimistic, InactiveBounds) {
  SphereProblem s(Eigen::Vector3d(1.0, -2.0, 0.5));
  s.problem.lower()->SetParameterLowerBound(s.y, 0, -9.0);
  s.problem.lower()->SetParameterUpperBound(s.y, 1, 9.0);
  Path path(&s.problem);
  path.Phi(path.x);
  EXPECT_LT((path.y.value() - 0.7 * s.direction).norm(), 1e-9);
  path.ExpectCorrectDerivatives(1e-7);
  EXPECT_EQ(path.solver->Report().num_active_bounds, 0);
}

// (x + 2 - y_2) / 2 beside the sphere's (y_0^2 + y_1^2 - x^2): y_2 would be x + 2.
struct Cylinder {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] * y[0] + y[1] * y[1] - x[0] * x[0];
    r[1] = 0.5 * (x[0] + 2.0 - y[2]);
    return true;
  }
};

// With y_2 at most 1 the set is a circle, y_2 stays where it is held, and phi is the circle's.
TEST(Optimistic, AnActiveBoundStays) {
  double x = 0.7, y[3] = {0.3, -2.0, 0.4};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Cylinder, 2, 1, 3>(new Cylinder), nullptr, &x, y);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Reach, 3, 3>(new Reach{{1.0, -2.0, 0.5}}), nullptr, y);
  problem.lower()->SetParameterUpperBound(y, 2, 1.0);
  Path path(&problem);
  Vector gradient;
  const double gap = std::sqrt(5.0) - x;
  EXPECT_NEAR(path.Phi(path.x, &gradient), 0.5 * gap * gap + 0.125, 1e-10);
  EXPECT_NEAR(gradient[0], -gap, 1e-9);
  EXPECT_EQ(path.y.value()[2], 1.0);
  EXPECT_EQ(path.solver->Report().num_active_bounds, 1);
  EXPECT_EQ(path.solver->Report().weakly_active, "");
  path.ExpectCorrectDerivatives(1e-7);
  // Where x + 2 < 1 nothing holds y_2 any more.
  path.x.value()[0] = -1.5;
  EXPECT_NEAR(path.Phi(path.x), 0.5 * std::pow(std::sqrt(5.0) - 1.5, 2), 1e-10);
  EXPECT_NEAR(path.y.value()[2], 0.5, 1e-10);
  EXPECT_EQ(path.solver->Report().num_active_bounds, 0);
  // And all of it as a problem: x = sqrt(5).
  Solver::Options options;
  options.method = CreateMethod("optimistic");
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(x, std::sqrt(5.0), 1e-7);
  EXPECT_EQ(summary.num_active_lower_bounds, 1);
}

// --- the decomposition ---------------------------------------------------------------------------

SparseMatrix LowerOf(const Matrix& m) {
  return SparseMatrix(Matrix(m.triangularView<Eigen::Lower>()).sparseView());
}

TEST(ComponentEigen, PseudoInverseByComponents) {
  // Two components that interleave: {0, 2, 4} of rank 2 and {1, 3} of rank 2, units apart.
  Matrix m = Matrix::Zero(5, 5);
  Matrix c(3, 2);
  c << 1.0, 2.0, -1.0, 0.5, 0.3, 0.7;
  m({0, 2, 4}, {0, 2, 4}) = 1e6 * c * c.transpose();
  m(1, 1) = 2e-6;
  m(3, 3) = 3e-6;
  m(3, 1) = m(1, 3) = 1e-6;
  const SparseMatrix lower = LowerOf(m);
  ComponentEigen eigen(lower);
  EXPECT_EQ(eigen.largest_component(), 3);
  ASSERT_TRUE(eigen.Compute(lower, eigen.UnitDiagonal(lower), 0.0));
  EXPECT_EQ(eigen.null_dimension(), 1);
  EXPECT_FALSE(eigen.is_ambiguous());
  EXPECT_LT(eigen.largest_null(), 1e-14);
  EXPECT_GT(eigen.smallest_kept(), 1e-2);
  const Matrix basis = eigen.NullBasis();
  EXPECT_LT((m * basis).norm(), 1e-9 * basis.norm());
  const Vector b = m * TestVector(5, 1.0);
  Vector x;
  eigen.Solve(b, &x);
  EXPECT_LT((m * x - b).norm(), 1e-12 * b.norm());
  EXPECT_LT(((m * x - b)({1, 3})).norm(), 1e-12 * b({1, 3}).norm());
}

TEST(ComponentEigen, TheCutIsAtTheLargestGap) {
  Matrix q(6, 6);
  for (int j = 0; j < 6; ++j) q.col(j) = TestVector(6, 1.0 + 0.3 * j * j);
  q = HouseholderQ(q, q.cols());
  const auto rank = [&](std::vector<double> values, double tolerance, bool* ambiguous) {
    const Matrix m = q * Eigen::Map<const Vector>(values.data(), 6).asDiagonal() * q.transpose();
    const SparseMatrix lower = LowerOf(m);
    ComponentEigen eigen(lower);
    EXPECT_TRUE(eigen.Compute(lower, Vector::Ones(6), tolerance));
    *ambiguous = eigen.is_ambiguous();
    return 6 - eigen.null_dimension();
  };
  bool ambiguous;
  EXPECT_EQ(rank({1, 0.5, 0.1, 1e-9, 0, 0}, 0.0, &ambiguous), 4);
  EXPECT_FALSE(ambiguous);
  EXPECT_EQ(rank({1, 0.5, 0.1, 1e-5, 1e-12, 0}, 0.0, &ambiguous), 4);
  EXPECT_FALSE(ambiguous);
  EXPECT_EQ(rank({1, 0.5, 0.1, 1e-9, 0, 0}, 1e-8, &ambiguous), 3);
  EXPECT_EQ(rank({1, 0.5, 0.1, 1e-3, 1e-2, 1e-6}, 0.0, &ambiguous), 6);
  EXPECT_FALSE(ambiguous);
  // A ladder of eigenvalues has no rank.
  rank({1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12}, 0.0, &ambiguous);
  EXPECT_TRUE(ambiguous);
}

}  // namespace
}  // namespace bilevel
