// The second derivative of phi against closed forms and against differences of its re-solves.
#include "bilevel/oracle/hyper_hessian.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "gtest/gtest.h"
#include "oracle/phi_around.h"
#include "pose_graph.h"
#include "test_problems.h"

namespace bilevel {
namespace {

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

}  // namespace
}  // namespace bilevel
