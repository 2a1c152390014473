// The second derivative of phi against closed forms and against differences of its re-solves.
#include "bilevel/oracle/hyper_hessian.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/lower_level/optimistic_lower_solver.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/program/program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pose_graph.h"
#include "sphere.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// phi of a problem around where the user's values are.
struct Phi {
  using MakeLower = std::function<std::unique_ptr<LowerSolver>(Program*)>;
  static std::unique_ptr<LowerSolver> Newton(Program* program) {
    NewtonLowerSolver::Options options;
    options.tolerance = 1e-14;
    return std::make_unique<NewtonLowerSolver>(program, options);
  }

  explicit Phi(Problem* problem, int num_threads = 1, const MakeLower& make = Newton) {
    Problem::CompileOptions options;
    options.num_threads = num_threads;
    std::string error;
    program = problem->Compile(options, &error);
    EXPECT_TRUE(program) << error;
    lower = make(program.get());
    oracle = std::make_unique<Oracle>(program.get(), lower.get(), 0);
    hessian = std::make_unique<HyperHessian>(oracle.get());
    x = Point(&program->x);
    y = Point(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(y.value().data());
    EXPECT_TRUE(oracle->Solve(x, &y)) << oracle->message();
  }

  // Of the second derivative; false where it is refused.
  bool Evaluate(Matrix* result, const std::vector<char>& held = {}) {
    EXPECT_TRUE(oracle->Differentiate(x, &y)) << oracle->message();
    return hessian->Evaluate(x, y, held, result);
  }
  Matrix Hessian(const std::vector<char>& held = {}) {
    Matrix result;
    EXPECT_TRUE(Evaluate(&result, held)) << hessian->message();
    return result;
  }

  double Value(const Vector& step, Vector* gradient = nullptr) {
    Point moved = x;
    EXPECT_TRUE(moved.Move(step));
    HyperObjective phi(oracle.get(), y);
    double value = 0.0;
    Vector unused;
    EXPECT_TRUE(phi.Evaluate(moved, &value, gradient, &y.value())) << phi.message();
    return value;
  }
  // x must be flat: gradients elsewhere are in other coordinates.
  Matrix DifferencedGradients() {
    const int m = x.dim();
    Matrix result(m, m);
    for (int a = 0; a < m; ++a) {
      result.col(a) = Derivative<Vector>([&](double h) -> Vector {
        Vector gradient;
        Value(h * Vector::Unit(m, a), &gradient);
        return gradient;
      });
    }
    return result;
  }
  Matrix DifferencedValues() {
    const int m = x.dim();
    Matrix result(m, m);
    for (int a = 0; a < m; ++a) {
      for (int b = 0; b < m; ++b) {
        result(a, b) = Derivative<double>([&](double s) {
          return Derivative<double>(
              [&](double t) { return Value(s * Vector::Unit(m, a) + t * Vector::Unit(m, b)); });
        });
      }
    }
    return result;
  }

  std::unique_ptr<Program> program;
  std::unique_ptr<LowerSolver> lower;
  std::unique_ptr<Oracle> oracle;
  std::unique_ptr<HyperHessian> hessian;
  Point x, y;
};

double Off(const Matrix& a, const Matrix& b) { return (a - b).norm() / b.norm(); }

struct Row {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = a[0] * y[0] + a[1] * y[1] + a[2] * y[2] - b;
    return true;
  }
  double a[3], b;
};
struct Penalty {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::exp;
    for (int i = 0; i < 3; ++i) r[i] = exp(0.5 * x[0]) * y[i];
    return true;
  }
};

// Ridge regression: y* = (A'A + e^x I)^-1 A'b, f = |C y - d|^2 / 2.
struct Ridge {
  Ridge() : a(5, 3), c(4, 3), b(5), d(4) {
    for (int i = 0; i < 5; ++i) Fill(i, 0.3, &a, &b, problem.lower());
    for (int i = 0; i < 4; ++i) Fill(i, 2.9, &c, &d, problem.upper());
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Penalty, 3, 3, 1>(new Penalty), nullptr, y, &x);
  }
  void Fill(int i, double seed, Matrix* rows, Vector* right, ceres::Problem* level) {
    const Vector v = TestVector(4, seed + i);
    rows->row(i) = v.head(3);
    (*right)[i] = v[3];
    level->AddResidualBlock(
        new AutoDiffCostFunction<Row, 1, 3>(new Row{{v[0], v[1], v[2]}, v[3]}), nullptr, y);
  }
  // From M y = A'b, M = A'A + e^x I, differentiated twice.
  double SecondDerivative() const {
    const double e = std::exp(x);
    const Eigen::LDLT<Matrix> m(a.transpose() * a + e * Matrix::Identity(3, 3));
    const Vector y0 = m.solve(a.transpose() * b);
    const Vector y1 = -e * m.solve(y0), y2 = -e * m.solve(y0 + 2.0 * y1);
    return y2.dot(c.transpose() * (c * y0 - d)) + (c * y1).squaredNorm();
  }
  Matrix a, c;
  Vector b, d;
  double x = -0.4, y[3] = {0.0, 0.0, 0.0};
  Problem problem;
};

TEST(HyperHessian, RidgeInClosedForm) {
  Ridge ridge;
  const double expected = ridge.SecondDerivative();
  Phi phi(&ridge.problem);
  EXPECT_NEAR(phi.Hessian()(0, 0), expected, 1e-11 * std::abs(expected));
  EXPECT_LT(phi.hessian->relative_error(), 1e-10);
}

struct Sample {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::exp;
    using std::sin;
    r[0] = exp(x[0]) *
           (y[0] * exp(-y[1] * time) + y[2] * sin(3.0 * time) + y[3] - seen - T(shift) * x[1]);
    return true;
  }
  double time, seen, shift;
};
struct Prior {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::exp;
    for (int i = 0; i < 4; ++i) r[i] = exp(x[2]) * (y[i] - 0.7);
    return true;
  }
};
struct Wanted {  // No sum of squares.
  template <typename T>
  bool operator()(const T* y, const T* x, T* value) const {
    using std::cos;
    using std::exp;
    *value = exp(0.3 * y[0] * y[1]) + cos(y[2] + 0.5 * x[1]) * y[3] + 0.2 * x[0] * x[2] * y[1];
    return true;
  }
};

// An exponential seen through a Cauchy loss whose scale is learned, with a weight, a prior's weight
// and a shift of a datum.
struct Fit {
  explicit Fit(bool is_opaque = false) {
    problem.AddUpperParameterBlock(x, 3);
    problem.AddUpperParameterBlock(&log_scale, 1);
    for (int i = 0; i < 12; ++i) {
      const double time = 0.25 * i;
      const double seen = 2.0 * std::exp(-0.8 * time) + 0.5 * std::sin(3.0 * time) + 0.3 +
                          0.2 * std::sin(7.1 * i) + (i == 4 ? 3.0 : 0.0);
      ceres::CostFunction* cost =
          new AutoDiffCostFunction<Sample, 1, 4, 3>(new Sample{time, seen, i % 3 == 0 ? 1.0 : 0.0});
      problem.lower()->AddResidualBlock(
          is_opaque ? new Opaque(cost) : cost, new CauchyLoss(&log_scale), y, x);
    }
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Prior, 4, 4, 3>(new Prior), nullptr, y, x);
    problem.AddTerm(Level::kUpper,
                    std::make_unique<AutoDiffObjective<Wanted, 4, 3>>(Wanted()),
                    {{y, 4}, {x, 3}});
  }
  double x[3] = {0.4, 0.1, -1.2}, log_scale = -0.5, y[4] = {1.5, 0.6, 0.4, 0.2};
  Problem problem;
};

TEST(HyperHessian, RobustFitAgainstDifferencedGradients) {
  Fit fit;
  Phi phi(&fit.problem);
  const Matrix expected = phi.DifferencedGradients();
  const long solves = phi.lower->counts().warm_solves;
  const Matrix hessian = phi.Hessian();
  EXPECT_EQ(phi.lower->counts().warm_solves, solves);
  EXPECT_LT(Off(hessian, expected), 1e-9);
  EXPECT_LT(phi.hessian->relative_error(), 1e-9);
  EXPECT_EQ(hessian, Matrix(hessian.transpose()));
  // Held coordinates are left out, and the others do not change.
  const Matrix part = phi.Hessian({0, 1, 0, 0});
  for (int a = 0; a < 4; ++a) {
    for (int b = 0; b < 4; ++b) {
      EXPECT_NEAR(part(a, b), a == 1 || b == 1 ? 0.0 : hessian(a, b), 1e-12 * hessian.norm());
    }
  }
}

// The estimate of the error is one where second derivatives of g are differences, too.
TEST(HyperHessian, CostFunctionsWithoutSecondDerivatives) {
  Fit exact, opaque(true);
  Phi of_exact(&exact.problem), of_opaque(&opaque.problem);
  const Matrix hessian = of_exact.Hessian();
  const double off = Off(of_opaque.Hessian(), hessian);
  EXPECT_LT(off, 1e-5);
  EXPECT_LT(off, 10.0 * of_opaque.hessian->relative_error());
}

struct Twice {
  template <typename T>
  bool operator()(const T* y, T* value) const {
    *value = 2.0 * y[0];
    return true;
  }
};

TEST(HyperHessian, NoneOfALinearPhi) {
  double x = 0.7, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  problem.AddTerm(Level::kUpper, std::make_unique<AutoDiffObjective<Twice, 1>>(), {{&y, 1}});
  Phi phi(&problem);
  EXPECT_NEAR(phi.Hessian()(0, 0), 0.0, 1e-12);
}

TEST(HyperHessian, ByConjugateGradients) {
  Fit fit;
  const Matrix expected = Phi(&fit.problem).Hessian();
  Phi phi(&fit.problem, 1, [](Program* program) -> std::unique_ptr<LowerSolver> {
    NewtonCgLowerSolver::Options options;
    options.linear_tolerance = 1e-12;
    return std::make_unique<NewtonCgLowerSolver>(program, options);
  });
  EXPECT_LT(Off(phi.Hessian(), expected), 1e-8);
}

// Rotation averaging: y turns directions into what is seen of them, with weights e^x0, e^x1, about
// an axis x2.. that the lower level has too.
struct Turn {
  template <typename T>
  bool operator()(const T* q, const T* x, T* r) const {
    using std::exp;
    const T p[3] = {T(from[0]) + 0.3 * x[2], T(from[1]), T(from[2]) - 0.2 * x[2] * x[2]};
    T turned[3];
    ceres::QuaternionRotatePoint(q, p, turned);
    for (int i = 0; i < 3; ++i) r[i] = exp(x[weight]) * (turned[i] - to[i]);
    return true;
  }
  double from[3], to[3];
  int weight;
};
struct Rotated {
  template <typename T>
  bool operator()(const T* q, T* r) const {
    const T p[3] = {T(0.3), T(-1.0), T(0.5)};
    ceres::QuaternionRotatePoint(q, p, r);
    for (int i = 0; i < 3; ++i) r[i] -= T(0.4 * i);
    return true;
  }
};

TEST(HyperHessian, RotationBelow) {
  double x[3] = {0.2, -0.3, 0.4}, q[4] = {1.0, 0.0, 0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(x, 3);
  problem.lower()->AddParameterBlock(q, 4, new ceres::QuaternionManifold);
  for (int i = 0; i < 4; ++i) {
    const Vector v = TestVector(6, 0.8 * i);
    problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Turn, 3, 4, 3>(
                                          new Turn{{v[0], v[1], v[2]}, {v[3], v[4], v[5]}, i % 2}),
                                      nullptr,
                                      q,
                                      x);
  }
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Rotated, 3, 4>(new Rotated), nullptr, q);
  Phi phi(&problem);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedGradients()), 1e-9);
}

TEST(HyperHessian, PosesBelow) {
  double log_weights[2] = {0.3, -0.2};
  const auto graph = MakeHelix(12, 3, 0.3, 5);
  Problem problem;
  problem.AddUpperParameterBlock(log_weights, 2);
  graph->AddEdges(problem.lower(), log_weights);
  graph->AddPrior(problem.lower(), 0, 10.0);
  graph->AddErrors(problem.upper());
  Phi phi(&problem);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedGradients()), 1e-9);
}

// y near a direction x on the sphere, bent by a weight.
struct Near {
  template <typename T>
  bool operator()(const T* y, const T* x, const T* log_weight, T* r) const {
    using std::exp;
    for (int i = 0; i < 3; ++i) r[i] = exp(log_weight[0]) * (y[i] - x[i]) * (1.0 + 0.2 * i);
    r[3] = y[0] * y[1] - 0.3 + 0.5 * y[2] * x[0] + 0.2 * y[1];
    return true;
  }
};
struct Seen {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] - 0.3;
    r[1] = y[1] * y[2] + 0.4 - 0.6 * x[1];
    r[2] = y[0] * x[2];
    return true;
  }
};

// Frames flip at the pole, and the retraction counts where the gradient is not 0.
TEST(HyperHessian, SpheresBelowAndAboveEvenAtThePole) {
  for (const double tilt : {0.0, 1e-4, 0.7}) {
    SCOPED_TRACE(tilt);
    double x[3] = {std::sin(tilt), 0.0, std::cos(tilt)}, y[3] = {0.1, -0.2, 1.0}, log_weight = 0.5;
    Eigen::Map<Eigen::Vector3d>(y).normalize();
    Problem problem;
    problem.AddUpperParameterBlock(x, 3, NewSphere());
    problem.AddUpperParameterBlock(&log_weight, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Near, 4, 3, 3, 1>(new Near), nullptr, y, x, &log_weight);
    problem.lower()->SetManifold(y, NewSphere());
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Seen, 3, 3, 3>(new Seen), nullptr, y, x);
    Phi phi(&problem);
    EXPECT_LT(Off(phi.Hessian(), phi.DifferencedValues()), 1e-8);
  }
}

struct Pulled {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] - x[0] + y[0] * y[1];
    r[1] = 2.0 * (y[1] - x[1]) + y[0] * x[0];
    r[2] = y[0] * y[1] + x[1] * y[0];
    return true;
  }
};
struct SeenFrom {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 0.3 + y[1] * y[1];
    r[1] = y[1] * y[2] + 0.4 * y[0];
    return true;
  }
};

TEST(HyperHessian, SphereBelowAtThePole) {
  double x[2] = {0.0, 0.0}, y[3] = {0.0, 0.0, 1.0};
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Pulled, 3, 3, 2>(new Pulled), nullptr, y, x);
  problem.lower()->SetManifold(y, NewSphere());
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<SeenFrom, 2, 3>(new SeenFrom), nullptr, y);
  Phi phi(&problem);
  ASSERT_EQ(phi.y.value()[2], 1.0);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedGradients()), 1e-9);
}

// x a rotation that the gradient does not vanish at, y a pose.
struct Aligned {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    for (int i = 0; i < 4; ++i) r[i] = (1.0 + 0.3 * i) * (y[i] - x[i]);
    r[4] = y[0] * y[2] - 0.2 + x[1] * y[3];
    return true;
  }
};

TEST(HyperHessian, RotationAbove) {
  double x[4] = {0.8, 0.4, -0.3, 0.2}, q[4] = {1.0, 0.0, 0.0, 0.0};
  Eigen::Map<Eigen::Vector4d>(x).normalize();
  Problem problem;
  problem.AddUpperParameterBlock(x, 4, new ceres::QuaternionManifold);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Aligned, 5, 4, 4>(new Aligned), nullptr, q, x);
  problem.lower()->SetManifold(q, new ceres::QuaternionManifold);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Rotated, 3, 4>(new Rotated), nullptr, q);
  Phi phi(&problem);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedValues()), 1e-8);
}

// A circle that delta runs along by delta + delta^2: phi's second derivative is that in delta.
class BentCircle : public ceres::Manifold {
 public:
  int AmbientSize() const override { return 2; }
  int TangentSize() const override { return 1; }
  bool Plus(const double* x, const double* delta, double* plus) const override {
    const double angle = std::atan2(x[1], x[0]) + delta[0] + delta[0] * delta[0];
    plus[0] = std::cos(angle);
    plus[1] = std::sin(angle);
    return true;
  }
  bool PlusJacobian(const double* x, double* jacobian) const override {
    jacobian[0] = -x[1];
    jacobian[1] = x[0];
    return true;
  }
  bool Minus(const double* y, const double* x, double* delta) const override {
    const double angle = std::atan2(x[0] * y[1] - x[1] * y[0], x[0] * y[0] + x[1] * y[1]);
    delta[0] = 0.5 * (std::sqrt(std::max(0.0, 1.0 + 4.0 * angle)) - 1.0);
    return true;
  }
  bool MinusJacobian(const double* x, double* jacobian) const override {
    return PlusJacobian(x, jacobian);
  }
};
struct OnCircle {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] - x[0] * x[1];
    r[1] = 0.5 * y[0] * y[0] - x[1];
    return true;
  }
};

TEST(HyperHessian, TheRetractionOfXCounts) {
  double x[2] = {0.8, 0.6}, y = 0.4;
  Problem problem;
  problem.AddUpperParameterBlock(x, 2, new BentCircle);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<OnCircle, 2, 1, 2>(new OnCircle), nullptr, &y, x);
  problem.upper()->AddResidualBlock(TargetCost(-0.3), nullptr, &y);
  Phi phi(&problem);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedValues()), 1e-8);
}

// Weights of three recordings differ in f; their parts add up, whatever the threads.
struct Recordings {
  explicit Recordings(int first = 0, int last = 3) : y(4 * 3) {
    problem.AddUpperParameterBlock(x, 3);
    for (int k = first; k < last; ++k) {
      Scenario* const scenario = problem.AddScenario("s" + std::to_string(k), 0.5 + k);
      double* const own = &y[4 * k];
      for (int i = 0; i < 12; ++i) {
        scenario->lower()->AddResidualBlock(
            new AutoDiffCostFunction<Sample, 1, 4, 3>(
                new Sample{0.25 * i, std::exp(-0.2 * i) + 0.1 * std::sin(3.0 * i + k), 0.3 * k}),
            nullptr,
            own,
            x);
      }
      scenario->lower()->AddResidualBlock(
          new AutoDiffCostFunction<Prior, 4, 4, 3>(new Prior), nullptr, own, x);
      scenario->AddTerm(Level::kUpper,
                        std::make_unique<AutoDiffObjective<Wanted, 4, 3>>(Wanted()),
                        {{own, 4}, {x, 3}});
    }
  }
  double x[3] = {0.3, -0.1, -0.7};
  std::vector<double> y;
  Problem problem;
};

TEST(HyperHessian, ScenariosAddUp) {
  Recordings all;
  Phi phi(&all.problem);
  const Matrix hessian = phi.Hessian();
  Matrix sum = Matrix::Zero(3, 3);
  for (int k = 0; k < 3; ++k) {
    Recordings one(k, k + 1);
    sum += Phi(&one.problem).Hessian();
  }
  EXPECT_LT(Off(hessian, sum), 1e-11);
  EXPECT_LT(Off(hessian, phi.DifferencedGradients()), 1e-9);
}

bool SameBits(const Matrix& a, const Matrix& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 8 * a.size()) == 0;
}

TEST(HyperHessian, SameBitsByAnyThreadsAndNothingMoves) {
  double log_weights[2] = {0.3, -0.2};
  const auto graph = MakeHelix(40, 10, 0.3, 5);
  Problem problem;
  problem.AddUpperParameterBlock(log_weights, 2);
  graph->AddEdges(problem.lower(), log_weights);
  graph->AddPrior(problem.lower(), 0, 10.0);
  graph->AddErrors(problem.upper());
  Matrix of_poses, of_scenarios;
  for (const int num_threads : {1, 2, 4}) {
    Recordings recordings;
    Phi scenarios(&recordings.problem, num_threads), poses(&problem, num_threads);
    const auto before = graph->poses;
    poses.oracle->Differentiate(poses.x, poses.y);
    const Vector x = poses.x.value(), y = poses.y.value();
    Matrix result;
    ASSERT_TRUE(poses.hessian->Evaluate(poses.x, poses.y, {}, &result));
    EXPECT_TRUE(SameBits(poses.x.value(), x) && SameBits(poses.y.value(), y));
    for (int i = 0; i < graph->size(); ++i) {
      EXPECT_EQ(graph->poses[i].q, before[i].q);
      EXPECT_EQ(graph->poses[i].t, before[i].t);
    }
    EXPECT_EQ(log_weights[0], 0.3);
    if (num_threads == 1) {
      of_poses = result;
      of_scenarios = scenarios.Hessian();
    }
    EXPECT_TRUE(SameBits(result, of_poses)) << num_threads;
    EXPECT_TRUE(SameBits(scenarios.Hessian(), of_scenarios)) << num_threads;
    // Nor does what was evaluated before it.
    EXPECT_TRUE(SameBits(scenarios.Hessian(), of_scenarios)) << num_threads;
  }
}

TEST(HyperHessian, BoundsOfYThatHoldIt) {
  Fit fit;
  fit.y[1] = 0.4;
  fit.problem.lower()->SetParameterUpperBound(fit.y, 1, 0.5);
  fit.problem.lower()->SetParameterLowerBound(fit.y, 2, -10.0);
  Phi phi(&fit.problem);
  ASSERT_EQ(phi.y.value()[1], 0.5);
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedGradients()), 1e-9);
}

// Evaluations stay within the bounds of x and of y: beyond them there is nothing to evaluate.
struct RootOf {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::sqrt;
    if (x[0] < 0.0) return false;
    r[0] = y[0] - sqrt(x[0] + 0.3) * (1.0 + 0.3 * y[0]);
    r[1] = 0.7 * y[0] + x[0] * x[0] - 0.2;
    return true;
  }
};
struct AtBound {
  explicit AtBound(double at) : x(at) {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<RootOf, 2, 1, 1>(new RootOf), nullptr, &x, &y);
    problem.upper()->AddResidualBlock(TargetCost(0.5), nullptr, &y);
  }
  double x, y = 1.0;
  Problem problem;
};

double SecondDerivative(double x, bool has_bound) {
  AtBound at(x);
  if (has_bound) at.problem.SetParameterLowerBound(&at.x, 0, 0.0);
  Phi phi(&at.problem);
  const double result = phi.Hessian()(0, 0);
  EXPECT_LT(phi.hessian->relative_error(), 1e-7);
  return result;
}

TEST(HyperHessian, OneSidedAtABoundOfX) {
  // Without a bound it comes nearer until it can be evaluated to both sides,
  const double near = SecondDerivative(1e-4, false), twice = SecondDerivative(2e-4, false);
  EXPECT_NEAR(SecondDerivative(1e-4, true), near, 1e-7 * near);
  // and at the end of that there is nothing to both sides.
  EXPECT_NEAR(SecondDerivative(0.0, true), 2.0 * near - twice, 1e-6 * near);
  AtBound beyond(0.0);
  Phi phi(&beyond.problem);
  Matrix unused;
  EXPECT_FALSE(phi.Evaluate(&unused));
  EXPECT_FALSE(phi.oracle->ok());
  EXPECT_THAT(phi.hessian->message(), HasSubstr("residual block"));
}

// y0 y1 = x of the lower level is a curve, of which f takes the point nearest to (1, 0.5): phi is
// the squared distance.
struct Hyperbola {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] * y[1] - x[0];
    return true;
  }
};
struct NearTo {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 1.0;
    r[1] = y[1] - 0.5;
    return true;
  }
};

TEST(HyperHessian, AlongOptimisticSolutions) {
  double x = 1.3, y[2] = {1.5, 1.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Hyperbola, 1, 2, 1>(new Hyperbola), nullptr, y, &x);
  problem.upper()->AddResidualBlock(new AutoDiffCostFunction<NearTo, 2, 2>(new NearTo), nullptr, y);
  std::unique_ptr<LowerSolver> start;
  Phi phi(&problem, 1, [&](Program* program) -> std::unique_ptr<LowerSolver> {
    start = Phi::Newton(program);
    return std::make_unique<OptimisticLowerSolver>(
        program, start.get(), OptimisticLowerSolver::Options());
  });
  EXPECT_LT(Off(phi.Hessian(), phi.DifferencedGradients()), 1e-8);
}

struct FirstOfTwo {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[which] - x[0];
    return true;
  }
  int which;
};

TEST(HyperHessian, RefusalsSayWhy) {
  Matrix unused;
  {  // Weakly active: y* = max(x, 0) at x = 0.
    double x = 0.0, y = 0.5;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.lower()->SetParameterLowerBound(&y, 0, 0.0);
    problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
    Phi phi(&problem);
    EXPECT_FALSE(phi.Evaluate(&unused));
    EXPECT_THAT(phi.hessian->message(), HasSubstr("weakly active"));
    EXPECT_TRUE(phi.oracle->ok());
  }
  for (const double beside : {0.0, 1e-5}) {  // At Huber's kink y* bends: phi'' is 1/4 and 1.
    double x = 2.0 + beside, y = 0.5;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.lower()->AddResidualBlock(TargetCost(0.0), new ceres::HuberLoss(1.0), &y);
    problem.upper()->AddResidualBlock(TargetCost(0.0), nullptr, &y);
    Phi phi(&problem);
    if (beside > 0.0) {
      EXPECT_NEAR(phi.Hessian()(0, 0), 1.0, 1e-8);
      continue;
    }
    EXPECT_FALSE(phi.Evaluate(&unused));
    EXPECT_THAT(phi.hessian->message(), HasSubstr("kink"));
  }
  {  // y1 is free; f has no slope along it, but a curvature that x shifts.
    double x = 0.3, y[2] = {0.0, 0.3};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<FirstOfTwo, 1, 2, 1>(new FirstOfTwo{0}), nullptr, y, &x);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<FirstOfTwo, 1, 2, 1>(new FirstOfTwo{1}), nullptr, y, &x);
    Phi phi(&problem);
    EXPECT_FALSE(phi.Evaluate(&unused));
    EXPECT_THAT(phi.hessian->message(), HasSubstr("leaves free"));
  }
  {  // Gauss-Newton's Hessian is not g's.
    Ridge ridge;
    Phi phi(&ridge.problem, 1, [](Program* program) -> std::unique_ptr<LowerSolver> {
      NewtonLowerSolver::Options options;
      options.hessian = HessianKind::kGaussNewton;
      return std::make_unique<NewtonLowerSolver>(program, options);
    });
    EXPECT_FALSE(phi.Evaluate(&unused));
    EXPECT_THAT(phi.hessian->message(), HasSubstr("HessianKind::kExact"));
  }
}

}  // namespace
}  // namespace bilevel
