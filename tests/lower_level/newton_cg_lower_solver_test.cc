// Truncated Newton against closed forms, Newton's method with a matrix, and differences.
#include "bilevel/lower_level/newton_cg_lower_solver.h"

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/methods/value_function/bome.h"
#include "bilevel/program/program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

// Logistic regression of labels (+-1) on features with weights in two blocks of y, and a ridge
// exp(x): strictly convex in y.
class Logistic : public Objective {
 public:
  Logistic(Matrix features, Vector labels, int first)
      : a_(std::move(features)), labels_(std::move(labels)), first_(first) {}
  bool Evaluate(double const* const* p,
                const Batch&,
                double* value,
                double** jacobians) const override {
    const Vector y = Join(p);
    const double ridge = std::exp(p[0][0]);
    const Vector scores = a_ * y;
    Vector slope(a_.rows());
    *value = 0.5 * ridge * y.squaredNorm();
    for (int i = 0; i < a_.rows(); ++i) {
      const double margin = labels_[i] * scores[i];
      *value += std::log1p(std::exp(-margin));
      slope[i] = -labels_[i] / (1.0 + std::exp(margin));
    }
    if (!jacobians) return true;
    if (jacobians[0]) jacobians[0][0] = 0.5 * ridge * y.squaredNorm();
    Split(a_.transpose() * slope + ridge * y, jacobians);
    return true;
  }
  bool HessianProduct(double const* const* p,
                      const Batch&,
                      double const* const* direction,
                      double** products) const override {
    const Vector y = Join(p), v = Join(direction);
    const double ridge = std::exp(p[0][0]);
    const Vector scores = a_ * y;
    Vector curved = a_ * v;
    for (int i = 0; i < a_.rows(); ++i) {
      const double s = 1.0 / (1.0 + std::exp(-scores[i]));
      curved[i] *= s * (1.0 - s);
    }
    if (products[0]) products[0][0] = ridge * y.dot(v);
    Split(a_.transpose() * curved + ridge * v, products);
    return true;
  }
  bool has_hessian_product() const override { return true; }

 private:
  Vector Join(double const* const* p) const {
    Vector y = Vector::Zero(a_.cols());
    if (p[1]) y.head(first_) = Eigen::Map<const Vector>(p[1], first_);
    if (p[2]) y.tail(y.size() - first_) = Eigen::Map<const Vector>(p[2], y.size() - first_);
    return y;
  }
  void Split(const Vector& v, double** to) const {
    if (to[1]) Eigen::Map<Vector>(to[1], first_) = v.head(first_);
    if (to[2]) Eigen::Map<Vector>(to[2], v.size() - first_) = v.tail(v.size() - first_);
  }
  Matrix a_;
  Vector labels_;
  int first_;
};

// 1/2 (|y|^2 - c)^2 over the two blocks: |y*(x)| falls with x, so that phi's least is 0.
class NormIs : public Objective {
 public:
  NormIs(double c, int first, int second) : c_(c), sizes_{first, second} {}
  bool Evaluate(double const* const* p,
                const Batch&,
                double* value,
                double** jacobians) const override {
    double r = -c_;
    for (int b = 0; b < 2; ++b) r += Eigen::Map<const Vector>(p[b], sizes_[b]).squaredNorm();
    *value = 0.5 * r * r;
    for (int b = 0; b < 2; ++b) {
      if (!jacobians || !jacobians[b]) continue;
      Eigen::Map<Vector>(jacobians[b], sizes_[b]) =
          2.0 * r * Eigen::Map<const Vector>(p[b], sizes_[b]);
    }
    return true;
  }

 private:
  double c_;
  int sizes_[2];
};

constexpr double kNorm2 = 4.0;

struct Regression {
  double x = -0.5;
  std::vector<double> y1, y2;
  Problem problem;

  Regression(int samples, int first, int second) : y1(first, 0.0), y2(second, 0.0) {
    std::mt19937 generator(3);
    std::normal_distribution<double> normal;
    Matrix a(samples, first + second);
    for (double& entry : a.reshaped()) entry = normal(generator) / std::sqrt(first + second);
    Vector labels(samples);
    for (double& label : labels) label = normal(generator) > 0.3 ? 1.0 : -1.0;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(Level::kLower,
                    std::make_unique<Logistic>(a, labels, first),
                    {{&x, 1}, {y1.data(), first}, {y2.data(), second}});
    problem.AddTerm(Level::kUpper,
                    std::make_unique<NormIs>(kNorm2, first, second),
                    {{y1.data(), first}, {y2.data(), second}});
  }
};

TEST(NewtonCg, AgreesWithNewton) {
  Regression r(60, 7, 5);
  std::string error;
  const auto program = r.problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  NewtonLowerSolver::Options newton_options;
  newton_options.use_ceres = false;
  NewtonLowerSolver newton(program.get(), newton_options);
  NewtonCgLowerSolver cg(program.get(), {});
  Point x(&program->x), y(&program->y), y_newton(&program->y);
  program->x.ReadUser(x.value().data());
  program->y.ReadUser(y.value().data());
  y_newton = y;
  ASSERT_TRUE(cg.Solve(x, &y)) << cg.message();
  ASSERT_TRUE(newton.Solve(x, &y_newton)) << newton.message();
  EXPECT_LT((y.value() - y_newton.value()).norm(), 1e-9);
  EXPECT_LE(cg.relative_decrement(), 1e-10);
  ASSERT_TRUE(cg.Differentiate(x, y)) << cg.message();
  ASSERT_TRUE(newton.Differentiate(x, y_newton)) << newton.message();
  EXPECT_LT((cg.dy_dx() - newton.dy_dx()).norm(), 1e-8 * newton.dy_dx().norm());
  const Vector fy = Vector::LinSpaced(12, -1.0, 1.0);
  Vector from_cg, from_newton;
  ASSERT_TRUE(cg.Adjoint(fy, &from_cg)) << cg.message();
  ASSERT_TRUE(newton.Adjoint(fy, &from_newton)) << newton.message();
  EXPECT_NEAR(from_cg[0], from_newton[0], 1e-9 * std::abs(from_newton[0]));
  EXPECT_LE(cg.Report().linear_residual, 1e-10);
}

// More than a matrix is assembled for: Solve takes it by itself, with an exact hypergradient.
TEST(NewtonCg, LongTermsOfSeveralBlocks) {
  Regression r(80, 1500, 600);
  Solver::Options solver;
  solver.method = CreateMethod("lbfgs");
  solver.max_num_iterations = 40;
  solver.function_tolerance = solver.parameter_tolerance = 0.0;
  solver.gradient_tolerance = 1e-7;
  Solver::Summary summary;
  Solve(solver, &r.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_LT(summary.final_objective, 1e-12);
  EXPECT_NEAR(Eigen::Map<Vector>(r.y1.data(), 1500).squaredNorm() +
                  Eigen::Map<Vector>(r.y2.data(), 600).squaredNorm(),
              kNorm2,
              1e-6);
  EXPECT_THAT(summary.FullReport(), HasSubstr("without a matrix"));
  EXPECT_LT(summary.final_lower_level_decrement, 1e-9);
}

// BOME's y is solved in the end, whatever the size.
TEST(NewtonCg, BomeWithLongTerms) {
  for (const auto lower_level : {Bome::kAutomatic, Bome::kGradientSteps}) {
    Regression r(80, 1500, 600);
    Bome::Options bome;
    bome.lower_level = lower_level;
    bome.lower_step = 0.5;
    bome.x.step = 2e-3;
    bome.y.step = 2e-3;
    Solver::Options solver;
    solver.method = std::make_shared<Bome>(bome);
    solver.max_num_iterations = 100;
    Solver::Summary summary;
    Solve(solver, &r.problem, &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_GE(summary.final_lower_gap, 0.0);
    EXPECT_LT(summary.final_lower_level_decrement, 1e-9);
    const double norm2 = Eigen::Map<Vector>(r.y1.data(), 1500).squaredNorm() +
                         Eigen::Map<Vector>(r.y2.data(), 600).squaredNorm();
    EXPECT_NEAR(summary.final_objective, 0.5 * std::pow(norm2 - kNorm2, 2.0), 1e-9);
    EXPECT_LT(summary.final_objective, 0.5 * summary.initial_objective) << summary.FullReport();
  }
}

// 1/4 (y^2 - 1)^2 + x y: a maximum near 0, minima near +-1.
struct Wells {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = (y[0] * y[0] - 1.0) / std::sqrt(2.0) + 0.0 * x[0];
    return true;
  }
};
struct Pull {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = 0.1 * (y[0] + x[0]);
    return true;
  }
};

TEST(NewtonCg, LeavesAMaximumAndRefusesToDifferentiateOne) {
  double x = 0.2, y = -0.01;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Wells, 1, 1, 1>(new Wells), nullptr, &x, &y);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Pull, 1, 1, 1>(new Pull), nullptr, &x, &y);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Pull, 1, 1, 1>(new Pull), nullptr, &x, &y);
  std::string error;
  const auto program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  NewtonCgLowerSolver cg(program.get(), {});
  Point at(&program->x), solution(&program->y);
  program->x.ReadUser(at.value().data());
  program->y.ReadUser(solution.value().data());
  ASSERT_TRUE(cg.Solve(at, &solution)) << cg.message();
  const double s = solution.value()[0];
  EXPECT_NEAR(s * (s * s - 1.0) + 0.01 * (s + x), 0.0, 1e-12);
  EXPECT_GT(3.0 * s * s - 1.0, 0.0);
  solution.value()[0] = 0.0;
  ASSERT_TRUE(cg.Differentiate(at, solution));
  Vector product;
  EXPECT_FALSE(cg.Adjoint(Vector::Ones(1), &product));
  EXPECT_THAT(cg.message(), HasSubstr("without positive curvature"));
}

// 1/2 |A y - x|^2 within bounds: the minimiser's conditions, and dy/dx by that of the free ones.
struct Plane {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    for (int i = 0; i < 3; ++i) {
      r[i] = -x[0];
      for (int j = 0; j < 3; ++j) r[i] += a(i, j) * y[j];
    }
    return true;
  }
  Eigen::Matrix3d a;
};

TEST(NewtonCg, Bounds) {
  double x = 1.0, y[3] = {0.0, 0.0, 0.0};
  Eigen::Matrix3d a;
  a << 2.0, 0.3, -0.5, 0.1, 1.0, 0.4, 0.0, -0.2, 0.7;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  for (ceres::Problem* level : {problem.lower(), problem.upper()}) {
    level->AddResidualBlock(new AutoDiffCostFunction<Plane, 3, 1, 3>(new Plane{a}), nullptr, &x, y);
  }
  for (int j = 0; j < 3; ++j) problem.lower()->SetParameterUpperBound(y, j, 0.6);
  std::string error;
  const auto program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  NewtonCgLowerSolver cg(program.get(), {});
  Point at(&program->x), solution(&program->y);
  program->x.ReadUser(at.value().data());
  program->y.ReadUser(solution.value().data());
  ASSERT_TRUE(cg.Solve(at, &solution)) << cg.message();
  const Eigen::Vector3d found = solution.value();
  const Eigen::Vector3d gradient = a.transpose() * (a * found - Eigen::Vector3d::Constant(x));
  std::vector<int> free;
  for (int j = 0; j < 3; ++j) {
    if (found[j] < 0.6) {
      free.push_back(j);
      EXPECT_NEAR(gradient[j], 0.0, 1e-10);
    } else {
      EXPECT_LT(gradient[j], 0.0);
    }
  }
  ASSERT_GT(free.size(), 0u);
  ASSERT_LT(free.size(), 3u);
  ASSERT_TRUE(cg.Differentiate(at, solution));
  Matrix af(3, free.size());
  for (size_t k = 0; k < free.size(); ++k) af.col(k) = a.col(free[k]);
  const Vector expected = LeastSquares(af, Eigen::Vector3d::Ones());
  const Matrix dy_dx = cg.dy_dx();
  for (size_t k = 0; k < free.size(); ++k) EXPECT_NEAR(dy_dx(free[k], 0), expected[k], 1e-9);
  EXPECT_EQ(cg.Report().num_active_bounds, 3 - static_cast<int>(free.size()));
}

TEST(NewtonCg, NonsenseIsNamed) {
  Regression r(10, 2, 2);
  const auto message = [&](NewtonCgLowerSolver::Options cg) {
    Solver::Options options;
    options.lower_solver = [cg](Program* program) {
      return std::make_unique<NewtonCgLowerSolver>(program, cg);
    };
    Solver::Summary summary;
    Solve(options, &r.problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    return summary.message;
  };
  NewtonCgLowerSolver::Options options;
  options.tolerance = 0.0;
  EXPECT_THAT(message(options), HasSubstr("newton_cg.tolerance must be positive"));
  options = {};
  options.max_num_linear_iterations = 0;
  EXPECT_THAT(message(options), HasSubstr("newton_cg.max_num_linear_iterations"));
  options = {};
  options.tolerance = 1e-300;
  options.max_num_iterations = 1;
  EXPECT_THAT(message(options), HasSubstr("after 1 Newton iterations"));
}

}  // namespace
}  // namespace bilevel
