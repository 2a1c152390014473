#include "bilevel/lower_level/newton_lower_solver.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "Eigen/Core"
#include "bilevel/base/internal/decompositions.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// A lower level alone, with its solver.
struct Lower {
  NewtonLowerSolver& Make(const NewtonLowerSolver::Options& options = {}) {
    Problem::CompileOptions compile;
    compile.need_f = compile.need_x = false;
    std::string error;
    program = problem.Compile(compile, &error);
    EXPECT_TRUE(program) << error;
    NewtonLowerSolver::Options silent = options;
    silent.ceres.logging_type = ceres::SILENT;
    solver = std::make_unique<NewtonLowerSolver>(program.get(), silent);
    x = Point(&program->x);
    y = Point(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(y.value().data());
    return *solver;
  }

  // dy*/dx by re-solving, from the solution, at moved x; in the tangent space at y (flat y only).
  Matrix Resolved(double h = 2e-2) {
    Matrix d(y.dim(), x.dim());
    for (int j = 0; j < x.dim(); ++j) {
      d.col(j) = Derivative<Vector>(
          [&](double step) -> Vector {
            Point moved = x, solution = y;
            EXPECT_TRUE(moved.Move(step * Vector::Unit(x.dim(), j)));
            EXPECT_TRUE(solver->Solve(moved, &solution)) << solver->message();
            return solution.value();
          },
          h);
    }
    return d;
  }

  // Solves, differentiates, compares with re-solves, and the adjoint with the tangents.
  void ExpectCorrectDerivative(double tolerance = 1e-7) {
    ASSERT_TRUE(solver->Solve(x, &y)) << solver->message();
    ASSERT_TRUE(solver->Differentiate(x, y)) << solver->message();
    const Matrix d = solver->dy_dx();
    Vector product;
    const Vector fy = TestVector(y.dim(), 0.3);
    ASSERT_TRUE(solver->Adjoint(fy, &product)) << solver->message();
    EXPECT_LT((product - d.transpose() * fy).norm(), 1e-12 * product.norm());
    EXPECT_LT((d - Resolved()).norm(), tolerance * d.norm());
  }

  Problem problem;
  std::unique_ptr<Program> program;
  std::unique_ptr<NewtonLowerSolver> solver;
  Point x, y;
};

// r = A y - B x - c.
ceres::CostFunction* Affine(Matrix a, Matrix b, Vector c) {
  return new FunctionCost(
      static_cast<int>(a.rows()),
      {static_cast<int>(a.cols()), static_cast<int>(b.cols())},
      [=](double const* const* p, double* r, double** j) {
        using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
        Eigen::Map<Vector>(r, a.rows()) = a * Eigen::Map<const Vector>(p[0], a.cols()) -
                                          b * Eigen::Map<const Vector>(p[1], b.cols()) - c;
        if (j && j[0]) Eigen::Map<RowMajor>(j[0], a.rows(), a.cols()) = a;
        if (j && j[1]) Eigen::Map<RowMajor>(j[1], b.rows(), b.cols()) = -b;
        return true;
      });
}

Matrix TestMatrix(int rows, int columns, double seed) {
  Matrix m(rows, columns);
  for (int j = 0; j < columns; ++j) m.col(j) = TestVector(rows, seed + 0.37 * j * j);
  return m;
}

// sum (exp(y_i) - x)^2 / 2 + (y_i - y_{i+1})^2 / 2: y_i = log x.
struct Logarithms : Lower {
  Logarithms() {
    problem.AddUpperParameterBlock(&user_x, 1);
    problem.lower()->AddResidualBlock(
        new FunctionCost(39,
                         {20, 1},
                         [](double const* const* p, double* r, double** j) {
                           for (int i = 0; i < 20; ++i) r[i] = std::exp(p[0][i]) - p[1][0];
                           for (int i = 0; i < 19; ++i) r[20 + i] = p[0][i] - p[0][i + 1];
                           if (j && j[0]) {
                             std::fill_n(j[0], 39 * 20, 0.0);
                             for (int i = 0; i < 20; ++i) j[0][21 * i] = std::exp(p[0][i]);
                             for (int i = 0; i < 19; ++i) {
                               j[0][(20 + i) * 20 + i] = 1.0;
                               j[0][(20 + i) * 20 + i + 1] = -1.0;
                             }
                           }
                           if (j && j[1]) {
                             std::fill_n(j[1], 20, -1.0);
                             std::fill_n(j[1] + 20, 19, 0.0);
                           }
                           return true;
                         }),
        nullptr,
        user_y.data(),
        &user_x);
  }
  double user_x = 2.0;
  Vector user_y = Vector::Zero(20);
};

// A warm solve near a solution that was differentiated needs no factorisation of its own.
TEST(NewtonLowerSolver, WarmSolvesKeepTheFactorization) {
  Logarithms lower;
  NewtonLowerSolver& solver = lower.Make();
  ASSERT_TRUE(solver.Solve(lower.x, &lower.y));
  ASSERT_TRUE(solver.Differentiate(lower.x, lower.y));
  const LowerSolverCounts before = solver.counts();
  for (const double moved : {2.02, 2.05, 1.97}) {
    lower.x.value()[0] = moved;
    ASSERT_TRUE(solver.Solve(lower.x, &lower.y)) << solver.message();
    EXPECT_LT((lower.y.value().array() - std::log(moved)).abs().maxCoeff(), 1e-12);
  }
  const LowerSolverCounts spent = solver.counts() - before;
  EXPECT_EQ(spent.factorizations, 0);
  EXPECT_GT(spent.chord_steps, 3);
  EXPECT_LT(spent.chord_steps, 40);
  // Far away it needs new ones, and is as exact.
  lower.x.value()[0] = 40.0;
  ASSERT_TRUE(solver.Solve(lower.x, &lower.y)) << solver.message();
  EXPECT_GT((solver.counts() - before).factorizations, 0);
  EXPECT_LT((lower.y.value().array() - std::log(40.0)).abs().maxCoeff(), 1e-10);
}

TEST(NewtonLowerSolver, QuadraticClosedForm) {
  for (const bool use_ceres : {true, false}) {
    Lower lower;
    const Matrix a = TestMatrix(7, 4, 1.0), b = TestMatrix(7, 2, 2.0);
    const Vector c = TestVector(7, 3.0);
    Vector x = TestVector(2, 4.0), y = 100.0 * TestVector(4, 5.0);
    lower.problem.AddUpperParameterBlock(x.data(), 2);
    lower.problem.lower()->AddResidualBlock(Affine(a, b, c), nullptr, y.data(), x.data());
    NewtonLowerSolver::Options options;
    options.use_ceres = use_ceres;
    lower.Make(options);
    const Vector start = y;
    lower.ExpectCorrectDerivative(1e-9);
    const Matrix inverse = PseudoInverse(a);
    EXPECT_LT((lower.y.value() - inverse * (b * x + c)).norm(), 1e-10 * lower.y.value().norm());
    ASSERT_TRUE(lower.solver->Differentiate(lower.x, lower.y));
    EXPECT_LT((lower.solver->dy_dx() - inverse * b).norm(), 1e-10 * (inverse * b).norm());
    EXPECT_EQ(y, start);  // The user's memory is not the solver's.
    EXPECT_EQ(lower.solver->num_free_directions(), 0);
  }
}

// Differentiate may be asked at another x than the one solved for, even with the same y.
TEST(NewtonLowerSolver, DifferentiateAtAnotherX) {
  double w = 0.3, y = 1.0;  // e^w (y - 2) and e^0 (y - 2): y* = 2 whatever w.
  Lower lower;
  lower.problem.AddUpperParameterBlock(&w, 1);
  double c = 0.0;
  lower.problem.AddUpperParameterBlock(&c, 1);
  lower.problem.lower()->AddResidualBlock(WeightedCost(2.0), nullptr, &y, &w);
  lower.problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &c);
  c = 2.0;
  NewtonLowerSolver& solver = lower.Make();
  ASSERT_TRUE(solver.Solve(lower.x, &lower.y));
  EXPECT_NEAR(lower.y.value()[0], 2.0, 1e-12);
  lower.x.value()[0] = -0.5;
  ASSERT_TRUE(solver.Differentiate(lower.x, lower.y));
  EXPECT_NEAR(solver.dy_dx()(0, 1), 1.0 / (1.0 + std::exp(-1.0)), 1e-12);
}

TEST(NewtonLowerSolver, WeightsAreNotGaussNewton) {
  // Q2: y* = (w^2 a + b) / (w^2 + 1); Gauss-Newton's mixed derivative would give half.
  double log_w = 0.4, y = 0.0;
  Lower lower;
  lower.problem.AddUpperParameterBlock(&log_w, 1);
  lower.problem.lower()->AddResidualBlock(WeightedCost(3.0), nullptr, &y, &log_w);
  lower.problem.lower()->AddResidualBlock(TargetCost(-1.0), nullptr, &y);
  lower.Make();
  lower.ExpectCorrectDerivative(1e-9);
  const double w2 = std::exp(2 * log_w);
  EXPECT_NEAR(lower.y.value()[0], (3.0 * w2 - 1.0) / (w2 + 1.0), 1e-12);
  ASSERT_TRUE(lower.solver->Differentiate(lower.x, lower.y));
  EXPECT_NEAR(lower.solver->dy_dx()(0, 0), 4.0 * 2.0 * w2 / ((w2 + 1) * (w2 + 1)), 1e-12);
}

struct Well {  // (y^2 - e^x) / 2.
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    using std::exp;
    residual[0] = 0.5 * (y[0] * y[0] - exp(x[0]));
    return true;
  }
};

TEST(NewtonLowerSolver, DoubleWell) {
  for (const double start : {0.0, 1e-3, -0.4, 30.0}) {
    for (const bool use_ceres : {true, false}) {
      double x = 0.2, y = start;
      Lower lower;
      lower.problem.AddUpperParameterBlock(&x, 1);
      lower.problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Well, 1, 1, 1>(new Well), nullptr, &y, &x);
      NewtonLowerSolver::Options options;
      options.use_ceres = use_ceres;
      NewtonLowerSolver& solver = lower.Make(options);
      ASSERT_TRUE(solver.Solve(lower.x, &lower.y)) << solver.message();
      EXPECT_NEAR(std::abs(lower.y.value()[0]), std::exp(0.1), 1e-9);  // Not the maximum at 0.
      lower.ExpectCorrectDerivative();
      const double root = std::copysign(std::exp(0.1), start);
      EXPECT_NEAR(lower.y.value()[0], root, 1e-12) << start << use_ceres;
      ASSERT_TRUE(solver.Differentiate(lower.x, lower.y));
      EXPECT_NEAR(solver.dy_dx()(0, 0), 0.5 * root, 1e-11);
    }
  }
}

TEST(NewtonLowerSolver, RankDeficientLeastSquares) {
  // Two of five columns are combinations of the others: the pseudo-inverse is known.
  Matrix a(8, 5);
  a.leftCols(3) = TestMatrix(8, 3, 1.0);
  a.col(3) = a.col(0) - 2.0 * a.col(1);
  a.col(4) = a.col(2) + a.col(0);
  const Matrix b = TestMatrix(8, 2, 6.0), c = TestVector(8, 2.0);
  const Matrix expected = PseudoInverse(a) * b;
  for (const auto handling : {SingularHandling::kMinimumNorm,
                              SingularHandling::kAutomatic,
                              SingularHandling::kDampingWithRefinement,
                              SingularHandling::kRefuse}) {
    Vector x = TestVector(2, 4.0), y = TestVector(5, 5.0);
    Lower lower;
    lower.problem.AddUpperParameterBlock(x.data(), 2);
    lower.problem.lower()->AddResidualBlock(Affine(a, b, c), nullptr, y.data(), x.data());
    lower.problem.SetParameterName(y.data(), "the_y");
    NewtonLowerSolver::Options options;
    options.singular_handling = handling;
    NewtonLowerSolver& solver = lower.Make(options);
    ASSERT_TRUE(solver.Solve(lower.x, &lower.y)) << solver.message();
    if (handling == SingularHandling::kRefuse) {
      EXPECT_FALSE(solver.Differentiate(lower.x, lower.y));
      EXPECT_THAT(solver.message(), HasSubstr("'the_y'"));
      continue;
    }
    ASSERT_TRUE(solver.Differentiate(lower.x, lower.y)) << solver.message();
    const Matrix d = solver.dy_dx();
    // Damping may leave a component in the null space; the image is unique.
    EXPECT_LT((a * (d - expected)).norm(), 1e-8 * expected.norm());
    if (handling == SingularHandling::kDampingWithRefinement) continue;
    EXPECT_EQ(solver.num_free_directions(), 2);
    EXPECT_LT((d - expected).norm(), 1e-8 * expected.norm());
    // A gradient in the range has an adjoint, another only by the pseudo-inverse.
    Vector product;
    const Vector seen = a.transpose() * TestVector(8, 0.2), unseen = TestVector(5, 0.2);
    ASSERT_TRUE(solver.Adjoint(seen, &product));
    EXPECT_LT((product - d.transpose() * seen).norm(), 1e-9 * product.norm());
    EXPECT_EQ(solver.Adjoint(unseen, &product), handling == SingularHandling::kMinimumNorm);
  }
}

// |p_i - p_j| - x d_ij: a point set known up to a rigid motion.
template <int kDim>
struct Distance {
  template <typename T>
  bool operator()(const T* p, const T* q, const T* log_scale, T* residual) const {
    using std::exp;
    using std::sqrt;
    T sum = T(0.0);
    for (int i = 0; i < kDim; ++i) sum += (p[i] - q[i]) * (p[i] - q[i]);
    residual[0] = sqrt(sum) - exp(log_scale[0]) * distance;
    return true;
  }
  double distance;
};

template <int kDim>
void ExpectGaugeFreedom() {
  constexpr int kPoints = 6;
  constexpr int kFree = kDim * (kDim + 1) / 2;
  std::vector<Vector> p;
  double log_scale = 0.1;
  for (int i = 0; i < kPoints; ++i) p.push_back(2.0 * TestVector(kDim, 1.0 + 0.8 * i));
  Lower lower;
  lower.problem.AddUpperParameterBlock(&log_scale, 1);
  int count = 0;
  for (int i = 0; i < kPoints; ++i) {
    for (int j = 0; j < i; ++j) {
      const double noise = 0.05 * std::sin(7.0 * ++count);
      lower.problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Distance<kDim>, 1, kDim, kDim, 1>(
              new Distance<kDim>{(p[i] - p[j]).norm() + noise}),
          nullptr,
          p[i].data(),
          p[j].data(),
          &log_scale);
    }
  }
  NewtonLowerSolver& solver = lower.Make();
  ASSERT_TRUE(solver.Solve(lower.x, &lower.y)) << solver.message();
  ASSERT_TRUE(solver.Differentiate(lower.x, lower.y)) << solver.message();
  EXPECT_EQ(solver.num_free_directions(), kFree);
  // All residuals scale with e^x, so that the whole solution does: dy/dx is y up to a motion, and
  // what is gauge-free has the derivative of a scaling.
  const Matrix d = solver.dy_dx();
  const auto squared = [&](int i, int j) {
    return Vector(lower.y.value().segment(kDim * i, kDim) -
                  lower.y.value().segment(kDim * j, kDim));
  };
  for (int i = 0; i < kPoints; ++i) {
    for (int j = 0; j < i; ++j) {
      Vector fy = Vector::Zero(lower.y.dim());
      fy.segment(kDim * i, kDim) = 2.0 * squared(i, j);
      fy.segment(kDim * j, kDim) = -2.0 * squared(i, j);
      EXPECT_TRUE(solver.IsDetermined(fy));
      Vector product;
      ASSERT_TRUE(solver.Adjoint(fy, &product)) << solver.message();
      EXPECT_NEAR(
          product[0], 2.0 * squared(i, j).squaredNorm(), 1e-7 * squared(i, j).squaredNorm());
      EXPECT_NEAR(product[0], fy.dot(d.col(0)), 1e-9 * std::abs(product[0]));
    }
  }
  Vector absolute = Vector::Zero(lower.y.dim());
  absolute[0] = 1.0;
  EXPECT_FALSE(solver.IsDetermined(absolute));
  EXPECT_THAT(solver.message(), HasSubstr("free"));
}

TEST(NewtonLowerSolver, GaugeFreedom2d) { ExpectGaugeFreedom<2>(); }
TEST(NewtonLowerSolver, GaugeFreedom3d) { ExpectGaugeFreedom<3>(); }

TEST(NewtonLowerSolver, Bounds) {
  // min |A y - B x - c|^2 / 2 with y_1 >= its bound: the free part solves its own normal equations.
  const Matrix a = TestMatrix(6, 3, 1.0), b = TestMatrix(6, 2, 2.0);
  const Vector c = TestVector(6, 3.0);
  Vector x = TestVector(2, 4.0), y = Vector::Zero(3);
  const Vector unconstrained = LeastSquares(a, b * x + c);
  for (const double shift : {0.5, 0.0, -0.5}) {  // Active, weakly active, inactive.
    Lower lower;
    const double bound = unconstrained[1] + shift;
    y = unconstrained;
    y[1] = bound + 1.0;
    lower.problem.AddUpperParameterBlock(x.data(), 2);
    lower.problem.lower()->AddResidualBlock(Affine(a, b, c), nullptr, y.data(), x.data());
    lower.problem.lower()->SetParameterLowerBound(y.data(), 1, bound);
    lower.problem.SetParameterName(y.data(), "the_y");
    NewtonLowerSolver& solver = lower.Make();
    ASSERT_TRUE(solver.Solve(lower.x, &lower.y)) << solver.message();
    ASSERT_TRUE(solver.Differentiate(lower.x, lower.y)) << solver.message();
    if (shift == 0.0) {
      EXPECT_LT((lower.y.value() - unconstrained).norm(), 1e-6);
      if (lower.y.value()[1] <= bound) {
        EXPECT_THAT(solver.weakly_active(), HasSubstr("'the_y'[1]"));
      }
      continue;
    }
    Matrix free(6, 2);
    free << a.col(0), a.col(2);
    Matrix expected = PseudoInverse(a) * b;
    Vector solution = unconstrained;
    if (shift > 0) {
      const Matrix inverse = PseudoInverse(free);
      const Vector part = inverse * (b * x + c - bound * a.col(1));
      solution << part[0], bound, part[1];
      expected.row(0) = (inverse * b).row(0);
      expected.row(1).setZero();
      expected.row(2) = (inverse * b).row(1);
    }
    EXPECT_EQ(solver.num_active_bounds(), shift > 0 ? 1 : 0);
    EXPECT_LT((lower.y.value() - solution).norm(), 1e-9 * solution.norm());
    EXPECT_LT((solver.dy_dx() - expected).norm(), 1e-9 * expected.norm());
    Vector product;
    const Vector fy = TestVector(3, 0.3);
    ASSERT_TRUE(solver.Adjoint(fy, &product));
    EXPECT_LT((product - expected.transpose() * fy).norm(), 1e-9 * product.norm());
  }
}

struct Curve {  // A decaying wave at time t.
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    using std::exp;
    residual[0] = y[0] * exp(-y[1] * t) + y[2] - value;
    return true;
  }
  double t, value;
};

TEST(NewtonLowerSolver, RobustLossesFromFarStarts) {
  for (const int kind : {0, 1, 2}) {
    for (const double start : {0.3, 4.0, -3.0}) {
      double log_scale = -1.0;
      double y[3] = {start, 0.2 * std::abs(start), -start};
      Lower lower;
      lower.problem.AddUpperParameterBlock(&log_scale, 1);
      for (int i = 0; i < 40; ++i) {
        const double t = 0.1 * i, outlier = i % 7 == 3 ? 5.0 : 0.0;
        ceres::LossFunction* loss = nullptr;
        if (kind == 0) loss = new CauchyLoss(&log_scale);
        if (kind == 1) loss = new GemanMcClureLoss(&log_scale);
        if (kind == 2) {
          loss = new NoiseScaleLoss(new ceres::CauchyLoss(1.0), &log_scale, ceres::TAKE_OWNERSHIP);
        }
        lower.problem.lower()->AddResidualBlock(
            new ceres::AutoDiffCostFunction<Curve, 1, 3>(
                new Curve{t, 2.0 * std::exp(-0.9 * t) + 0.5 + 0.1 * std::sin(9.0 * i) + outlier}),
            loss,
            y);
      }
      NewtonLowerSolver& solver = lower.Make();
      // Non-convex: it may fail, but then says so, and never returns a saddle.
      if (!solver.Solve(lower.x, &lower.y)) {
        EXPECT_NE(start, 0.3) << solver.message();
        EXPECT_FALSE(solver.message().empty());
        continue;
      }
      SCOPED_TRACE(kind * 100 + start);
      ASSERT_TRUE(solver.Differentiate(lower.x, lower.y)) << solver.message();
      const Matrix d = solver.dy_dx();
      EXPECT_LT((d - lower.Resolved(2e-3)).norm(), 1e-6 * d.norm());
    }
  }
}

// A saddle at 0, along whose only way down a stiff residual lies nearly.
struct StiffWell {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    const T sum = y[0] + y[1];
    residual[0] = 100.0 * (y[0] - y[1]);
    residual[1] = sum * sum - 1.0;
    return true;
  }
};

TEST(NewtonLowerSolver, DoesNotCreepFromASaddle) {
  double y[2] = {1e-8, 1e-8};
  Lower lower;
  lower.problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<StiffWell, 2, 2>(new StiffWell), nullptr, y);
  NewtonLowerSolver::Options options;
  options.use_ceres = false;
  options.max_num_newton_iterations = 20;
  NewtonLowerSolver& solver = lower.Make(options);
  ASSERT_TRUE(solver.Solve(lower.x, &lower.y)) << solver.message();
  EXPECT_NEAR(lower.y.value()[0], 0.5, 1e-12);
  EXPECT_NEAR(lower.y.value()[1], 0.5, 1e-12);
}

struct RingReprojection {
  template <typename T>
  bool operator()(const T* camera, const T* point, T* residual) const {
    T p[3];
    bilevel::AngleAxisRotatePoint(camera, point, p);
    for (int k = 0; k < 3; ++k) p[k] += camera[3 + k];
    residual[0] = 800.0 * p[0] / p[2] - u;
    residual[1] = 800.0 * p[1] / p[2] - v;
    return true;
  }
  double u, v;
};

// From where the Hessian is indefinite: a bundle adjustment with outliers. Ceres finds nothing
// better near.
TEST(NewtonLowerSolver, BundleAdjustmentWithoutCeres) {
  constexpr int kCameras = 12, kPerCamera = 25, kPoints = kCameras * kPerCamera;
  for (const unsigned seed : {1u, 2u, 3u, 4u, 5u, 6u}) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    std::vector<std::array<double, 6>> cameras(kCameras);
    std::vector<std::array<double, 3>> points(kPoints);
    for (int i = 0; i < kCameras; ++i) {
      const double turn = 2.0 * M_PI * i / kCameras;
      cameras[i] = {0.0, std::remainder(turn, 2.0 * M_PI), 0.0};
      const double at[] = {-std::sin(turn), 0.0, std::cos(turn)};
      bilevel::AngleAxisRotatePoint(cameras[i].data(), at, &cameras[i][3]);
      for (int k = 3; k < 6; ++k) cameras[i][k] = -cameras[i][k];
    }
    double log_scale = 0.0;
    Lower lower;
    lower.problem.AddUpperParameterBlock(&log_scale, 1);
    ceres::Problem& problem = *lower.problem.lower();
    auto* loss = new CauchyLoss(&log_scale);
    for (int j = 0; j < kPoints; ++j) {
      const double distance = 5.0 + uniform(generator);
      const double turn = 2.0 * M_PI * j / kPoints;
      points[j] = {-distance * std::sin(turn), 2.0 * uniform(generator), distance * std::cos(turn)};
      for (int i = kCameras - 1; i <= kCameras + 1; ++i) {
        double* const camera = cameras[(j / kPerCamera + i) % kCameras].data();
        double at[2];
        RingReprojection{0.0, 0.0}(camera, points[j].data(), at);
        const double noise = uniform(generator) > 0.8 ? 10.0 : 0.5;
        problem.AddResidualBlock(
            new AutoDiffCostFunction<RingReprojection, 2, 6, 3>(new RingReprojection{
                at[0] + noise * normal(generator), at[1] + noise * normal(generator)}),
            loss,
            camera,
            points[j].data());
      }
    }
    for (const int fixed : {0, 1}) problem.SetParameterBlockConstant(cameras[fixed].data());
    for (auto& point : points) {
      for (double& value : point) value += 0.05 * normal(generator);
    }
    NewtonLowerSolver::Options options;
    options.use_ceres = false;
    NewtonLowerSolver& solver = lower.Make(options);
    ASSERT_TRUE(solver.Solve(lower.x, &lower.y)) << solver.message();
    lower.program->y.WriteUser(lower.y.value().data());
    double before = 0.0;
    problem.Evaluate({}, &before, nullptr, nullptr, nullptr);
    ceres::Solver::Options tight;
    tight.logging_type = ceres::SILENT;
    tight.linear_solver_type = ceres::SPARSE_SCHUR;
    tight.function_tolerance = tight.gradient_tolerance = tight.parameter_tolerance = 1e-16;
    ceres::Solver::Summary summary;
    ceres::Solve(tight, &problem, &summary);
    EXPECT_GT(summary.final_cost, (1.0 - 1e-12) * before) << seed;
  }
}

}  // namespace
}  // namespace bilevel
