// Small bilevel problems with polyhedral and coupled constraints, by "auto" from the given start,
// against phi by enumeration of the lower level's active sets on a grid of x that is refined.
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "constrained_quadratic.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

Matrix Identity(int n) { return Matrix::Identity(n, n); }
Matrix Zero(int rows, int columns) { return Matrix::Zero(rows, columns); }

// f = 1/2 |y - t|^2 + 1/2 r |x|^2, g = 1/2 y'[2 1; 1 3]y - (x + (1/2, -1/2))'y, y >= 0.
Quadratic Family(const std::string& name,
                 const Matrix& c,
                 const Matrix& e_matrix,
                 const Vector& e,
                 double r,
                 double start,
                 double known) {
  Quadratic p;
  p.known = known;
  p.name = name;
  p.q_matrix = Rows(2, {2, 1, 1, 3});
  p.r = Identity(2);
  p.q = Entries({0.5, -0.5});
  p.c.resize(2 + c.rows(), 2);
  p.c << -Identity(2), c;
  p.e_matrix.resize(2 + c.rows(), 2);
  p.e_matrix << Zero(2, 2), e_matrix;
  p.e.resize(2 + e.size());
  p.e << Vector::Zero(2), e;
  p.num_equalities = 0;
  p.a.resize(4, 2);
  p.a << Identity(2), Zero(2, 2);
  p.b.resize(4, 2);
  p.b << Zero(2, 2), std::sqrt(r) * Identity(2);
  p.t = Entries({1.5, 2.0, 0.0, 0.0});
  p.lower = {-10.0, -10.0};
  p.upper = {10.0, 10.0};
  p.start_x = {1.0, start};
  p.start_y = {0.1, 0.1};
  return p;
}

// One x, one y: f = (x - x0)^2 + w^2 (y - y0)^2, g = (y - a x - b)^2.
Quadratic Scalar(const std::string& name,
                 double x0,
                 double w,
                 double y0,
                 double a,
                 double b,
                 const std::vector<double>& c,
                 const std::vector<double>& e_matrix,
                 const std::vector<double>& e,
                 double upper,
                 double start,
                 double known) {
  Quadratic p;
  p.known = known;
  p.name = name;
  p.q_matrix = Rows(1, {2.0});
  p.r = Rows(1, {2.0 * a});
  p.q = Entries({2.0 * b});
  p.c = Rows(1, c);
  p.e_matrix = Rows(1, e_matrix);
  p.e = Entries(e);
  p.num_equalities = 0;
  const double root = std::sqrt(2.0);
  p.a = Rows(1, {0.0, root * w});
  p.b = Rows(1, {root, 0.0});
  p.t = Entries({root * x0, root * w * y0});
  p.lower = {0.0};
  p.upper = {upper};
  p.start_x = {start};
  p.start_y = {0.0};
  return p;
}

std::vector<Quadratic> Problems() {
  std::vector<Quadratic> all;
  all.push_back(Family("active at the optimum",
                       Rows(2, {1, 2, 0, 1}),
                       Rows(2, {1, 0, 0, 0.5}),
                       Entries({3.0, 2.0}),
                       0.1,
                       2.0,
                       1.8272727273));
  all.push_back(Family(
      "kink at the optimum", Rows(2, {1, 2}), Zero(1, 2), Entries({2.2}), 1e-3, 2.0, 1.0964415170));
  all.push_back(Family("local minimum at a bound",
                       Rows(2, {1, 2, 0, 1}),
                       Rows(2, {0.2, 0, 0, 0.1}),
                       Entries({1.5, 0.6}),
                       0.1,
                       1.0,
                       1.88306));
  // Bard 1988, example 1; F = 17 at (1, 0), where the lower level is feasible no further.
  all.push_back(Scalar("Bard 1988",
                       5.0,
                       2.0,
                       -0.5,
                       0.75,
                       1.0,
                       {1, -0.5, 1, -1},
                       {3, -1, -1, 0},
                       {-3, 4, 7, 0},
                       10.0,
                       3.0,
                       17.0));
  // Clark and Westerberg 1990, a; F = 5 at (1, 3).
  all.push_back(Scalar("Clark and Westerberg 1990",
                       3.0,
                       1.0,
                       2.0,
                       0.0,
                       5.0,
                       {1, -2, 2},
                       {2, -1, -1},
                       {1, 2, 14},
                       8.0,
                       0.0,
                       5.0));
  // Calamai and Vicente 1994: f = (x - 1)^2 + y^2, g = 1/2 y^2 - x y; at x = (1 + rho) / 2.
  for (const double rho : {1.2, 1.5, 1.9}) {
    all.push_back(Scalar("Calamai and Vicente 1994, rho = " + std::to_string(rho),
                         1.0,
                         1.0,
                         0.0,
                         1.0,
                         0.0,
                         {-1, -1, 1},
                         {-1, 1, -1},
                         {1, -1, rho},
                         2.0,
                         1.0,
                         0.5 * (rho - 1.0) * (rho - 1.0)));
  }
  {  // Savard and Gauvin 1994: F = -1.4074 (here + 3) at x = 17/9, y = (8/9, 0).
    Quadratic p;
    p.name = "Savard and Gauvin 1994";
    p.known = 1.5926;
    p.q_matrix = 8.0 * Identity(2);
    p.r = Rows(1, {-1, 0});
    p.q = Entries({16.0, 4.0});
    p.c = Rows(2, {5, 4, -5, 4, -4, 5, 4, 5, -1, 0, 0, -1});
    p.e_matrix = Rows(1, {-4, 4, -4, 4, 0, 0});
    p.e = Entries({12, -4, 4, 4, 0, 0});
    p.num_equalities = 0;
    const double root = std::sqrt(2.0);
    p.a = Rows(2, {0, 0, 2, 0});
    p.b = Rows(1, {root, 0});
    p.t = Entries({2.0 * root, 0.0});
    p.lower = {0.0};
    p.upper = {3.0};
    p.start_x = {1.0};
    p.start_y = {1.0, 0.0};
    all.push_back(p);
  }
  {  // A demand x met by three plants of limited size; the share of the first should be 1/2.
    Quadratic p;
    p.name = "plants";
    p.q_matrix = Entries({1.0, 2.0, 4.0}).asDiagonal();
    p.r = Zero(3, 1);
    p.q = Vector::Zero(3);
    p.c = Rows(3, {1, 1, 1, 1, 0, 0, 0, 1, 0, -1, 0, 0});
    p.e_matrix = Rows(1, {1, 0, 0.1, 0});
    p.e = Entries({0, 1.5, 0.8, 0});
    p.num_equalities = 1;
    p.a = Rows(3, {1, 0, 0});
    p.b = Rows(1, {-0.5});
    p.t = Entries({0.0});
    p.a.conservativeResize(2, 3);
    p.a.row(1) << 0, 0, 1;
    p.b.conservativeResize(2, 1);
    p.b(1, 0) = 0.0;
    p.t = Entries({0.0, 0.4});
    p.lower = {0.1};
    p.upper = {6.0};
    p.start_x = {1.0};
    p.start_y = {0.0, 0.0, 0.0};
    all.push_back(p);
  }
  {  // The nearest point of a simplex, to be t, which is on its face.
    Quadratic p;
    p.name = "simplex";
    p.q_matrix = Identity(3);
    p.r = Rows(2, {1, 0, 0, 1, 0, 0});
    p.q = Vector::Zero(3);
    p.c = Rows(3, {1, 1, 1, -1, 0, 0, 0, -1, 0, 0, 0, -1});
    p.e_matrix = Zero(4, 2);
    p.e = Entries({1, 0, 0, 0});
    p.num_equalities = 1;
    p.a = Identity(3);
    p.b = Zero(3, 2);
    p.t = Entries({0.3, 0.6, 0.1});
    p.lower = {-3.0, -3.0};
    p.upper = {3.0, 3.0};
    p.start_x = {0.0, 0.0};
    p.start_y = {0.3, 0.3, 0.3};
    all.push_back(p);
  }
  {  // A fit that must rise: where x puts the second reading, and how hard it counts.
    Quadratic p;
    p.name = "monotone";
    p.q_matrix = Identity(3);
    p.r = Rows(1, {0, 1, 0});
    p.q = Entries({0.5, 0.0, 1.0});
    p.c = Rows(3, {1, -1, 0, 0, 1, -1});
    p.e_matrix = Zero(2, 1);
    p.e = Entries({0, 0});
    p.num_equalities = 0;
    p.a = Identity(3);
    p.b = Zero(3, 1);
    p.t = Entries({0.4, 0.45, 1.3});
    p.lower = {-3.0};
    p.upper = {3.0};
    p.start_x = {2.0};
    p.start_y = {0.0, 0.0, 0.0};
    all.push_back(p);
  }
  {  // A follower's budget x1 and price x2, both felt above.
    Quadratic p;
    p.name = "budget";
    p.q_matrix = Rows(2, {2, 0.5, 0.5, 1});
    p.r = Rows(2, {0, -1, 0, 0});
    p.q = Entries({4.0, 3.0});
    p.c = Rows(2, {1, 1, -1, 0, 0, -1});
    p.e_matrix = Rows(2, {1, 0, 0, 0, 0, 0});
    p.e = Entries({0, 0, 0});
    p.num_equalities = 0;
    p.a = Rows(2, {1, 0, 0, 1, 0, 0, 0, 0});
    p.b = Rows(2, {0, 0, 0, 0, 0.3, 0, 0, 0.3});
    p.t = Entries({0.5, 1.5, 0.0, 0.0});
    p.lower = {0.1, 0.0};
    p.upper = {5.0, 5.0};
    p.start_x = {4.0, 0.5};
    p.start_y = {0.0, 0.0};
    all.push_back(p);
  }
  return all;
}

TEST(ConstrainedProblems, AutoSolvesThemFromTheGivenStart) {
  int num_global = 0, num_problems = 0;
  for (const Quadratic& p : Problems()) {
    Instance instance(p);
    const double best = instance.Global();
    if (!std::isnan(p.known)) {
      EXPECT_NEAR(best, p.known, 1e-4 * (1.0 + best)) << p.name;
    }
    Solver::Options options;
    options.max_num_iterations = 300;
    Solver::Summary summary;
    Solve(options, &instance.problem, &summary);
    const Vector x = Entries(instance.x);
    const double phi = instance.Phi(x);
    Vector at;
    const double nearby = instance.Least(x, 1e-3, 41, &at);
    const bool is_global = summary.final_objective <= best + 1e-6 * (1.0 + best);
    EXPECT_NEAR(summary.final_objective, phi, 1e-7 * (1.0 + phi)) << p.name;
    if (p.name == "kink at the optimum") {
      EXPECT_EQ(summary.answer, AnswerKind::kKink);
    }
    ++num_problems;
    num_global += is_global;
    EXPECT_TRUE(is_global || p.name == "local minimum at a bound" || p.name == "plants")
        << p.name << ": " << summary.message;
    if (summary.termination_type == ceres::CONVERGENCE) {
      EXPECT_LE(phi, nearby + 1e-7 * (1.0 + phi)) << p.name << " ends at no minimum";
    }
  }
  EXPECT_GE(num_global, 0.8 * num_problems);
}

// Outrata, SIAM J. Optim. 4 (1994), example 1: F = 3.2077 at x = 4.0604.
struct OutrataLower {
  template <typename T>
  bool operator()(const T* x, const T* y, T* g) const {
    g[0] = (0.5 + 0.1 * x[0]) * y[0] * y[0] - (3.0 + 1.333 * x[0]) * y[0] +
           (0.5 + 0.05 * x[0]) * y[1] * y[1] - x[0] * y[1];
    return true;
  }
};
struct OutrataRow {
  template <typename T>
  bool operator()(const T* x, const T* y, T* c) const {
    c[0] = -0.333 * y[0] + y[1] + 0.1 * x[0] - 1.0;
    c[1] = y[0] * y[0] + y[1] * y[1] - 0.1 * x[0] - 9.0;
    return true;
  }
};

TEST(ConstrainedProblems, SolvesOutratasWithACurvedConstraint) {
  double x = 0.0, y[2] = {0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.SetParameterLowerBound(&x, 0, 0.0);
  problem.SetParameterUpperBound(&x, 0, 10.0);
  problem.AddTerm(
      Level::kLower, std::make_unique<AutoDiffObjective<OutrataLower, 1, 2>>(), {{&x, 1}, {y, 2}});
  problem.upper()->AddResidualBlock(new NormalPrior({3.0, 4.0}, 1.0), nullptr, y);
  problem.AddLowerInequality(new AutoDiffCostFunction<OutrataRow, 2, 1, 2>(new OutrataRow), &x, y);
  problem.lower()->AddParameterBlock(y, 2);
  problem.lower()->SetParameterLowerBound(y, 0, 0.0);
  problem.lower()->SetParameterLowerBound(y, 1, 0.0);
  Solver::Summary summary;
  Solve({}, &problem, &summary);
  EXPECT_NEAR(summary.final_objective, 3.2077, 1e-4) << summary.message;
  EXPECT_NEAR(x, 4.0604, 1e-3);
}

}  // namespace
}  // namespace bilevel
