// Random quadratic lower levels with random rows, some of them twice, as x walks: y*, its
// derivative and what is feasible against enumeration of the active sets.
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/analysis/hypergradient_checker.h"
#include "bilevel/program/level_evaluator.h"
#include "constrained_quadratic.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

class Random {
 public:
  explicit Random(unsigned seed) : generator_(seed) {}
  double Normal() { return normal_(generator_); }
  int Int(int first, int last) {
    return std::uniform_int_distribution<int>(first, last)(generator_);
  }
  Matrix Normal(int rows, int columns) {
    Matrix m(rows, columns);
    for (double& entry : m.reshaped()) entry = Normal();
    return m;
  }

 private:
  std::mt19937 generator_;
  std::normal_distribution<double> normal_;
};

// Feasible at x = 0.
Quadratic RandomQuadratic(Random* random) {
  Quadratic p;
  const int n = random->Int(1, 5), m = 2, num_inequalities = random->Int(1, 6);
  p.num_equalities = random->Int(0, std::min(2, n - 1));
  const int rows = p.num_equalities + num_inequalities;
  const Matrix root = random->Normal(n, n);
  p.q_matrix = root * root.transpose() + 0.05 * Matrix::Identity(n, n);
  p.r = random->Normal(n, m);
  p.q = random->Normal(n, 1);
  p.c = random->Normal(rows, n);
  p.e_matrix = 0.5 * random->Normal(rows, m);
  const Vector inside = random->Normal(n, 1);
  p.e = p.c * inside;
  for (int i = p.num_equalities; i < rows; ++i) p.e[i] += std::abs(random->Normal());
  if (num_inequalities > 1 && random->Int(0, 3) == 0) {  // One of them twice, in other units.
    const double scale = std::exp(random->Normal());
    p.c.row(rows - 1) = scale * p.c.row(rows - 2);
    p.e_matrix.row(rows - 1) = scale * p.e_matrix.row(rows - 2);
    p.e[rows - 1] = scale * p.e[rows - 2];
  }
  p.a = random->Normal(n, n);
  p.b = random->Normal(n, m);
  p.t = random->Normal(n, 1);
  p.lower.assign(m, -100.0);
  p.upper.assign(m, 100.0);
  p.start_x.assign(m, 0.0);
  p.start_y.assign(n, 0.0);
  return p;
}

// In other units: y = d y', row i times rows[i].
Quadratic InOtherUnits(Quadratic p, const Vector& d, const Vector& rows) {
  p.q_matrix = d.asDiagonal() * p.q_matrix * d.asDiagonal();
  p.r = d.asDiagonal() * p.r;
  p.q = d.asDiagonal() * p.q;
  p.c = rows.asDiagonal() * p.c * d.asDiagonal();
  p.e_matrix = rows.asDiagonal() * p.e_matrix;
  p.e = rows.asDiagonal() * p.e;
  p.a = p.a * d.asDiagonal();
  return p;
}

class ConstrainedRandom : public ::testing::TestWithParam<bool> {};

TEST_P(ConstrainedRandom, QuadraticsAreWhatEnumerationFinds) {
  constexpr int kProblems = 300, kSteps = 8;
  int num_solved = 0, num_differentiated = 0, num_infeasible = 0;
  long num_systems = 0, num_fallbacks = 0;
  for (int number = 0; number < kProblems + 2; ++number) {
    // Two where multipliers of 1e17 once made violations look small.
    const int found[] = {2845, 3288};
    const int seed = number < kProblems ? number : found[number - kProblems];
    Random random(seed);
    const Quadratic p = RandomQuadratic(&random);
    Vector d = Vector::Ones(p.q.size()), rows = Vector::Ones(p.e.size());
    for (Vector* units : {&d, &rows}) {
      for (double& unit : *units) unit = GetParam() ? std::pow(10.0, random.Int(-2, 2)) : 1.0;
    }
    const Instance reference(p);
    Instance instance(InOtherUnits(p, d, rows));
    Constrained c(&instance.problem, 1e-12);
    const double length = std::pow(10.0, -random.Int(0, 2));
    for (int k = 0; k < kSteps; ++k) {
      const std::string where = "problem " + std::to_string(seed) + ", step " + std::to_string(k);
      Vector y, fy, product;
      Matrix dy_dx;
      double margin;
      const bool is_feasible = reference.Enumerate(c.x.value(), &y, &dy_dx, &margin);
      const bool is_solved = c.solver->Solve(c.x, &c.y);
      EXPECT_EQ(is_solved, is_feasible) << where << ": " << c.solver->message();
      if (is_solved && is_feasible) {
        ++num_solved;
        EXPECT_LT((c.y.value().cwiseProduct(d) - y).norm(), 1e-7 * (1.0 + y.norm())) << where;
        ASSERT_TRUE(c.solver->Differentiate(c.x, c.y)) << where << ": " << c.solver->message();
        if (margin > 1e-5 || (margin > -1e-9 && c.solver->weakly_active().empty())) {
          ++num_differentiated;
          EXPECT_EQ(c.solver->weakly_active(), "") << where << " " << margin;
          EXPECT_LT((d.asDiagonal() * c.solver->dy_dx() - dy_dx).norm(),
                    1e-8 * (1.0 + dy_dx.norm()))
              << where;
          fy = random.Normal(c.y.dim(), 1);
          ASSERT_TRUE(c.solver->Adjoint(fy, &product));
          fy = d.cwiseInverse().asDiagonal() * fy;
          EXPECT_LT((product - dy_dx.transpose() * fy).norm(), 1e-8 * (1.0 + product.norm()))
              << where;
        }
      } else if (!is_feasible) {
        ++num_infeasible;
        EXPECT_THAT(c.solver->message(), HasSubstr("ality ")) << where;
      }
      ASSERT_TRUE(c.x.Move(length * random.Normal(2, 1)));
    }
    num_systems += c.solver->num_kkt_systems();
    num_fallbacks += c.solver->num_fallbacks();
  }
  EXPECT_GT(num_solved, 2000);
  EXPECT_EQ(num_differentiated, num_solved);
  EXPECT_GT(num_infeasible, 50);
  // A KKT system a solve is Differentiate's. Those without a feasible point fall back, and few
  // others.
  EXPECT_LT(num_systems, 2.5 * (num_solved + num_infeasible));
  EXPECT_LT(num_fallbacks, num_infeasible + 0.02 * num_solved);
}

struct Slope {
  template <typename T>
  bool operator()(const T* y, T* g) const {
    g[0] = s[0] * y[0] + s[1] * y[1] + s[2] * y[2];
    return true;
  }
  Eigen::Vector3d s;
};

// min s'y subject to |y_k| <= 1.5 and four rows A y <= t, all moved by x / 10: the best vertex and
// how it moves with x.
struct LinearProgram {
  explicit LinearProgram(Random* random) : slope(random->Normal(3, 1)) {
    rows << Matrix::Identity(3, 3), -Matrix::Identity(3, 3), random->Normal(4, 3);
    right.head<6>().setConstant(1.5);
    right.tail<4>() = random->Normal(4, 1).cwiseAbs();
  }
  bool FindBest(Eigen::Vector3d* best, Eigen::Vector3d* motion) const {
    double least = HUGE_VAL;
    for (int i = 0; i < 10; ++i) {
      for (int j = 0; j < i; ++j) {
        for (int k = 0; k < j; ++k) {
          const std::vector<int> in = {i, j, k};
          const Eigen::Matrix3d a = rows(in, Eigen::all);
          if (std::abs(a.determinant()) < 1e-9) continue;
          const Eigen::Vector3d vertex = a.inverse() * right(in);
          if (((rows * vertex - right).array() > 1e-9).any() || slope.dot(vertex) >= least)
            continue;
          least = slope.dot(vertex);
          *best = vertex;
          *motion = a.inverse() * Eigen::Vector3d::Constant(0.1);
        }
      }
    }
    return least < HUGE_VAL;
  }
  Eigen::Vector3d slope;
  Eigen::Matrix<double, 10, 3> rows;
  Eigen::Matrix<double, 10, 1> right;
};

// Whatever the units of g, and where it curves so little that its own minimum is far away.
TEST(ConstrainedRandomTest, LinearProgramsAreSolvedAtTheirBestVertex) {
  for (int seed = 0; seed < 240; ++seed) {
    Random random(seed);
    const LinearProgram p(&random);
    Eigen::Vector3d best, motion;
    ASSERT_TRUE(p.FindBest(&best, &motion));
    const double scale = std::pow(10.0, 4 * (seed % 3) - 4), curvature = seed % 2 == 0 ? 0.0 : 1e-9;
    double x = 0.0, y[3] = {0.0, 0.0, 0.0};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(Level::kLower,
                    std::make_unique<AutoDiffObjective<Slope, 3>>(Slope{scale * p.slope}),
                    {{y, 3}});
    if (curvature > 0.0) {
      problem.lower()->AddResidualBlock(
          new NormalPrior({0.0, 0.0, 0.0}, 1.0 / std::sqrt(scale * curvature)), nullptr, y);
    }
    problem.upper()->AddResidualBlock(new NormalPrior({0.0, 0.0, 0.0}, 1.0), nullptr, y);
    for (int i = 0; i < 10; ++i) {
      problem.AddLowerInequality(
          new Affine(p.rows.row(i), Rows(1, {-0.1}), p.right.segment(i, 1)), y, &x);
    }
    Constrained c(&problem, 1e-10);
    ASSERT_TRUE(c.solver->Solve(c.x, &c.y)) << seed << ": " << c.solver->message();
    ASSERT_TRUE(c.solver->Differentiate(c.x, c.y)) << seed << ": " << c.solver->message();
    EXPECT_LT((c.y.value() - best).norm(), 1e-7) << seed;
    EXPECT_LT((c.solver->dy_dx() - motion).norm(), 1e-6) << seed;
  }
}

// At a kink the tangent is the one-sided derivative: rows through y*(0), some with multipliers and
// some without, moved by x, against y*(t d) by enumeration.
TEST(ConstrainedRandomTest, TangentsAtKinksAreOneSided) {
  int num_kinks = 0;
  for (int seed = 0; seed < 200; ++seed) {
    Random random(seed);
    Quadratic p = RandomQuadratic(&random);
    const int n = static_cast<int>(p.q.size()), m = 2, k = p.num_equalities;
    const int rows = random.Int(k, n);  // So many are met with equality, most likely independent.
    const Vector at = random.Normal(n, 1);
    p.e = p.c * at;
    Vector pull = Vector::Zero(p.e.size());
    for (int i = 0; i < p.e.size(); ++i) {
      if (i >= rows) p.e[i] += 0.5 + std::abs(random.Normal());
      if (i < rows && (i < k || random.Int(0, 1) == 1)) pull[i] = 0.5 + std::abs(random.Normal());
    }
    p.q = p.q_matrix * at + p.c.transpose() * pull;
    Instance instance(p);
    std::fill(instance.x.begin(), instance.x.end(), 0.0);
    Constrained c(&instance.problem, 1e-13);
    ASSERT_TRUE(c.solver->Solve(c.x, &c.y)) << seed << ": " << c.solver->message();
    ASSERT_LT((c.y.value() - at).norm(), 1e-8) << seed;
    ASSERT_TRUE(c.solver->Differentiate(c.x, c.y)) << seed << ": " << c.solver->message();
    num_kinks += !c.solver->weakly_active().empty();
    for (int trial = 0; trial < 4; ++trial) {
      const Vector d = random.Normal(m, 1);
      Vector motion, beside;
      Matrix unused;
      double margin;
      ASSERT_TRUE(c.solver->Tangent(d, &motion));
      ASSERT_TRUE(instance.Enumerate(1e-4 * d, &beside, &unused, &margin));
      EXPECT_LT(((beside - at) / 1e-4 - motion).norm(), 1e-4 * (1.0 + motion.norm())) << seed;
    }
  }
  EXPECT_GT(num_kinks, 60);
}

// Whatever it says to others, CONVERGENCE is at minima of phi, by enumeration around them.
TEST(ConstrainedRandomTest, AutoConvergesToMinimaAlone) {
  int num_converged = 0, num_kinks = 0;
  for (int seed = 0; seed < 60; ++seed) {
    Random random(seed);
    Quadratic p = RandomQuadratic(&random);
    p.lower.assign(2, -3.0);
    p.upper.assign(2, 3.0);
    Instance instance(p);
    Solver::Options options;
    options.max_num_iterations = 200;
    Solver::Summary summary;
    Solve(options, &instance.problem, &summary);
    if (summary.termination_type != ceres::CONVERGENCE) continue;
    ++num_converged;
    num_kinks += summary.answer == AnswerKind::kKink;
    const Vector x = Entries(instance.x);
    const double phi = instance.Phi(x);
    Vector at;
    EXPECT_LE(phi, instance.Least(x, 1e-3, 41, &at) + 1e-6 * (1.0 + phi)) << seed;
    EXPECT_NEAR(phi, summary.final_objective, 1e-6 * (1.0 + phi)) << seed;
  }
  EXPECT_GT(num_converged, 50);
  EXPECT_GT(num_kinks, 3);
}

INSTANTIATE_TEST_SUITE_P(Units, ConstrainedRandom, ::testing::Bool());

// Smooth, bent by sines; rows and circles that move with x.
struct Bent {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::sin;
    for (int i = 0; i < 3; ++i) {
      r[i] = c[i] * x[1] - t[i];
      for (int j = 0; j < 3; ++j) r[i] = r[i] + a[i][j] * y[j] + 0.3 * sin(b[i][j] * y[j] + x[0]);
    }
    return true;
  }
  double a[3][3], b[3][3], c[3], t[3];
};
struct Curved {
  template <typename T>
  bool operator()(const T* x, const T* y, T* c) const {
    using std::sin;
    c[0] = e[0] * x[0] + e[1] * x[1] - size;
    for (int j = 0; j < 3; ++j) {
      const T d = y[j] - m[j] - e[j] * x[1];
      c[0] = c[0] + sign * d * d + n[j] * y[j] + 0.1 * sin(d);
    }
    return true;
  }
  double m[3], e[3], n[3], size, sign;
};

// A random problem of these, feasible at its x.
struct CurvedProblem {
  explicit CurvedProblem(int seed) {
    Random random(seed);
    x[0] = 0.3 * random.Normal();
    x[1] = 0.3 * random.Normal();
    Bent g, f;
    const auto fill = [&](Bent* bent) {
      for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) {
          bent->a[i][j] = random.Normal() + (i == j ? 1.5 : 0.0);
          bent->b[i][j] = random.Normal();
        }
        bent->c[i] = random.Normal();
        bent->t[i] = 2.0 * random.Normal();
      }
    };
    fill(&g);
    fill(&f);
    problem.AddUpperParameterBlock(x, 2);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Bent, 3, 2, 3>(new Bent(g)), nullptr, x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Bent, 3, 2, 3>(new Bent(f)), nullptr, x, y);
    const int num_rows = random.Int(1, 4);
    const Vector inside = random.Normal(3, 1);
    for (int k = 0; k < num_rows; ++k) {
      Curved c;
      for (int j = 0; j < 3; ++j) {
        c.m[j] = random.Normal();
        c.e[j] = 0.3 * random.Normal();
        c.n[j] = random.Normal();
      }
      c.sign = random.Int(0, 2) == 0 ? -0.2 : 1.0;
      c.size = 0.0;
      const bool is_equality = k == 0 && random.Int(0, 1) == 0;
      double value;
      c(x, inside.data(), &value);
      c.size = is_equality ? value : value + std::abs(random.Normal());
      if (is_equality) {
        problem.AddLowerEquality(new AutoDiffCostFunction<Curved, 1, 2, 3>(new Curved(c)), x, y);
      } else {
        problem.AddLowerInequality(new AutoDiffCostFunction<Curved, 1, 2, 3>(new Curved(c)), x, y);
      }
    }
  }
  double x[2], y[3] = {0.0, 0.0, 0.0};
  Problem problem;
};

// By differences of re-solves, where no constraint changes within them.
TEST(ConstrainedRandomTest, CurvedOnesHaveExactHypergradients) {
  for (int seed = 0; seed < 150; ++seed) {
    CurvedProblem p(1000 + seed);
    HypergradientChecker::Options options;
    options.largest_step = 1e-4;
    options.num_steps = 4;
    const HypergradientChecker::Result result = HypergradientChecker::Check(&p.problem, options);
    EXPECT_TRUE(result.ok) << seed << ": " << result.message;
    EXPECT_LT(result.max_relative_error, 1e-6) << seed;
  }
}

// As x walks: stationary, met, complementary, and multipliers that are not negative.
TEST(ConstrainedRandomTest, CurvedOnesMeetTheKktConditions) {
  int num_solved = 0, num_failed = 0;
  for (int seed = 0; seed < 150; ++seed) {
    CurvedProblem p(1000 + seed);
    Constrained c(&p.problem, 1e-10);
    Random random(seed);
    const Program::Scenario& scenario = *c.program->scenarios[0];
    LevelEvaluator g(scenario.g.get(), nullptr), rows(scenario.constraints.get(), nullptr);
    for (int k = 0; k < 6; ++k) {
      if (!c.solver->Solve(c.x, &c.y)) {
        ++num_failed;  // It may have become infeasible, or stand where it seems so.
        EXPECT_THAT(c.solver->message(), HasSubstr("ality ")) << seed;
      } else {
        ++num_solved;
        double value;
        Vector gy(3), h;
        RowSparseMatrix b_x, b_y;
        const double *x = c.x.value().data(), *y = c.y.value().data();
        ASSERT_TRUE(g.Gradient(x, y, Batch::All(), &value, nullptr, gy.data()));
        ASSERT_TRUE(rows.Linearize(x, y, &value, &h, &b_x, &b_y));
        const Vector& mu = c.solver->multipliers(0);
        const double size = 1.0 + gy.norm() + b_y.norm() * mu.norm();
        EXPECT_LT((gy + b_y.transpose() * mu).norm(), 1e-6 * size) << seed << " " << k;
        for (int i = 0; i < h.size(); ++i) {
          const bool is_inequality = scenario.is_inequality[i];
          EXPECT_LT(is_inequality ? h[i] : std::abs(h[i]), 1e-7) << seed << " " << k;
          if (!is_inequality) continue;
          EXPECT_GE(mu[i], -1e-7 * size) << seed << " " << k;
          EXPECT_LT(std::abs(mu[i] * h[i]), 1e-7 * size) << seed << " " << k;
        }
        if (k % 2 == 0) EXPECT_TRUE(c.solver->Differentiate(c.x, c.y)) << c.solver->message();
      }
      ASSERT_TRUE(c.x.Move(0.3 * random.Normal(2, 1)));
    }
  }
  EXPECT_LT(num_failed, 0.05 * num_solved);
}

}  // namespace
}  // namespace bilevel
