// What cannot be done with constraints ends in a sentence that names the constraint.
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/bilevel.h"
#include "bilevel/upper_level/cross_validation.h"
#include "bilevel/upper_level/marginal_likelihood.h"
#include "ceres/numeric_diff_cost_function.h"
#include "constrained_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// min 1/2 |y - (x, 1)|^2; y should be (2, 2).
struct Plain {
  Plain() {
    problem.AddUpperParameterBlock(&x, 1);
    problem.SetParameterName(y, "y");
    problem.SetParameterName(&x, "x");
    problem.lower()->AddResidualBlock(
        new Affine(Matrix::Identity(2, 2), Rows(1, {-1, 0}), Entries({0, 1})), nullptr, y, &x);
    problem.upper()->AddResidualBlock(new NormalPrior({2.0, 2.0}, 1.0), nullptr, y);
  }
  void AddRows(bool is_inequality,
               const std::vector<double>& a,
               const std::vector<double>& b,
               const std::vector<double>& c) {
    auto* rows = new Affine(Rows(2, a), Rows(1, b), Entries(c));
    if (is_inequality) {
      problem.AddLowerInequality(rows, y, &x);
    } else {
      problem.AddLowerEquality(rows, y, &x);
    }
  }
  std::string Message(const std::string& method = "auto") {
    Solver::Options options;
    options.method = CreateMethod(method);
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    is_usable = summary.IsSolutionUsable();
    is_converged = summary.termination_type == ceres::CONVERGENCE;
    return summary.message;
  }
  double x = 0.5, y[2] = {0.0, 0.0};
  bool is_usable = false, is_converged = false;
  Problem problem;
};

TEST(ConstrainedBadInput, InconsistentConstraintsAreNamed) {
  Plain inequalities;
  inequalities.AddRows(true, {1, 0}, {0}, {0.0});    // y0 <= 0
  inequalities.AddRows(true, {-1, 0}, {0}, {-1.0});  // y0 >= 1
  EXPECT_THAT(inequalities.Message(),
              AllOf(HasSubstr("its constraints cannot all be met: inequality"), HasSubstr("'y'")));
  EXPECT_FALSE(inequalities.is_usable);
  Plain equalities;
  equalities.AddRows(false, {1, 1, 1, 1}, {0, 0}, {0.0, 1.0});
  EXPECT_THAT(equalities.Message(),
              AllOf(HasSubstr("its constraints cannot all be met: row"),
                    HasSubstr("of equality 0 of the lower problem")));
}

struct Circle {  // y0^2 + y1^2 = -1, or <= 0.
  template <typename T>
  bool operator()(const T* y, T* c) const {
    c[0] = y[0] * y[0] + y[1] * y[1] - square;
    return true;
  }
  double square;
};

TEST(ConstrainedBadInput, AConstraintThatNothingMeetsIsNamed) {
  Plain p;
  p.problem.AddLowerEquality(new AutoDiffCostFunction<Circle, 1, 2>(new Circle{-1.0}), p.y);
  EXPECT_THAT(p.Message(), HasSubstr("cannot all be met: equality 0 of the lower problem"));
}

TEST(ConstrainedBadInput, MultipliersThatDivergeAreNamed) {
  Plain p;
  p.y[0] = 1.0;
  p.problem.AddLowerInequality(new AutoDiffCostFunction<Circle, 1, 2>(new Circle{0.0}), p.y);
  EXPECT_THAT(p.Message(),
              AllOf(HasSubstr("the multiplier of inequality 0"), HasSubstr("grows without bound")));
  EXPECT_FALSE(p.is_usable);
}

// Equalities at an angle of 1e-8, and such that contradict each other: Cholesky's factors cannot
// tell.
TEST(ConstrainedBadInput, NearlyDependentEqualitiesAreNamed) {
  for (const double angle : {0.0, 1e-8}) {
    Plain p;
    p.AddRows(false, {1, 1, 1, 1 + angle}, {-1, -1}, {0.0, 0.3});
    EXPECT_THAT(p.Message(),
                AllOf(HasSubstr("of equality 0 of the lower problem"),
                      HasSubstr("by y is made up of those of others, to 6 digits")));
    EXPECT_FALSE(p.is_usable);
  }
}

struct Down {
  template <typename T>
  bool operator()(const T* y, T* g) const {
    g[0] = -slope * y[0];
    return true;
  }
  double slope;
};

TEST(ConstrainedBadInput, ALinearProgramWithoutEndSaysSo) {
  for (const double slope : {1e-4, 1.0, 1e4}) {
    double x = 0.3, y = 0.5;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(
        Level::kLower, std::make_unique<AutoDiffObjective<Down, 1>>(Down{slope}), {{&y, 1}});
    problem.upper()->AddResidualBlock(new NormalPrior({1.0}, 1.0), nullptr, &y);
    problem.AddLowerInequality(
        new Affine(Rows(1, {-1.0}), Rows(1, {1.0}), Entries({0.0})), &y, &x);  // y >= x
    Solver::Summary summary;
    Solve({}, &problem, &summary);
    EXPECT_THAT(summary.message, HasSubstr("seems unbounded below")) << slope;
  }
}

// y0^2 - x with the derivative by y or by x multiplied by a factor.
ceres::CostFunction* Parabola(double by_y, double by_x) {
  return new FunctionCost(1, {2, 1}, [=](double const* const* p, double* c, double** j) {
    c[0] = p[0][0] * p[0][0] - p[1][0];
    if (j && j[0]) j[0][0] = by_y * 2.0 * p[0][0];
    if (j && j[0]) j[0][1] = 0.0;
    if (j && j[1]) j[1][0] = -by_x;
    return true;
  });
}

TEST(ConstrainedBadInput, WrongDerivativesAreNamed) {
  for (const double factor : {-1.0, 0.0, 1.01, 2.0}) {
    for (const bool is_y : {true, false}) {
      Plain p;
      p.problem.AddLowerInequality(is_y ? Parabola(factor, 1.0) : Parabola(1.0, factor), p.y, &p.x);
      const HypergradientChecker::Result result = HypergradientChecker::Check(&p.problem);
      EXPECT_THAT(
          result.message,
          HasSubstr(std::string("the derivatives of inequality 0 of the lower problem (over "
                                "'y') by ") +
                    (is_y ? "y" : "x") + " are not those of its values"))
          << factor << " " << is_y;
    }
  }
  // A solve that fails for them says so, in the place of advice.
  Plain p;
  p.problem.AddLowerInequality(Parabola(-1.0, 1.0), p.y, &p.x);
  EXPECT_THAT(p.Message(), HasSubstr("are not those of its values"));
  // And right ones are none, at a bound of y and with large values too.
  Plain right;
  right.problem.lower()->SetParameterLowerBound(right.y, 0, right.y[0]);
  right.problem.AddLowerInequality(Parabola(1.0, 1.0), right.y, &right.x);
  right.AddRows(true, {1, 1}, {-1}, {1e9});
  EXPECT_EQ(HypergradientChecker::Check(&right.problem).message, "checked");
}

// y0 + y1 = x, y >= 0, y near (3, 1 + x): it lies on y1 = 0 up to x = 2, and with f the least phi
// is at x = 0, beyond which there is no y at all. What improves on the start is usable.
TEST(ConstrainedBadInput, AnswersAtTheEdgeOfFeasibilityAreUsable) {
  for (const char* method : {"auto", "levenberg_marquardt", "lbfgs", "projected_lbfgs"}) {
    double x = 1.0, y[2] = {0.5, 0.5};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new Affine(Matrix::Identity(2, 2), Rows(1, {0, -1}), Entries({3, 1})), nullptr, y, &x);
    problem.upper()->AddResidualBlock(
        new Affine(Rows(2, {1, 0, 0, 1, 0, 0}), Rows(1, {0, 0, 0.3}), Entries({-1, 0.5, 0})),
        nullptr,
        y,
        &x);
    problem.AddLowerEquality(new Affine(Rows(2, {1, 1}), Rows(1, {-1}), Entries({0})), y, &x);
    for (const int i : {0, 1}) problem.lower()->SetParameterLowerBound(y, i, 0.0);
    Solver::Options options;
    options.method = CreateMethod(method);
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE) << method << summary.message;
    EXPECT_TRUE(summary.IsSolutionUsable()) << method << summary.message;
    EXPECT_NEAR(summary.final_objective, 0.5 * (1.0 + 0.25), 1e-6) << method;
    EXPECT_NEAR(x, 0.0, 1e-6) << method;
  }
}

TEST(ConstrainedBadInput, AnInfeasibleStartIsNone) {
  Plain p;
  p.y[0] = -30.0;
  p.y[1] = 50.0;
  p.AddRows(false, {1, 1}, {-1}, {1.0});  // y0 + y1 = x + 1
  p.AddRows(true, {0, 1}, {0}, {0.8});
  p.Message();
  EXPECT_TRUE(p.is_converged);
  EXPECT_NEAR(p.y[0] + p.y[1], p.x + 1.0, 1e-10);
  EXPECT_NEAR(p.y[0], 2.0, 1e-5);
  EXPECT_NEAR(p.y[1], 0.8, 1e-10);
}

TEST(ConstrainedBadInput, ConstraintsWithoutYAreRefused) {
  Plain p;
  double constant[2] = {1.0, 1.0};
  p.problem.lower()->AddParameterBlock(constant, 2);
  p.problem.lower()->SetParameterBlockConstant(constant);
  p.problem.AddLowerInequality(
      new Affine(Rows(2, {1, 0}), Rows(1, {1}), Entries({0.0})), constant, &p.x);
  EXPECT_THAT(p.Message(),
              HasSubstr("inequality 0 of the lower problem depends on no variable "
                        "block of the lower level"));
}

TEST(ConstrainedBadInput, WrongArgumentsAreRefused) {
  Plain null;
  null.problem.AddLowerEquality(nullptr, null.y);
  EXPECT_THAT(null.Message(), HasSubstr("equality 0 of the lower problem is null"));
  Plain few;
  few.problem.AddLowerEquality(new Affine(Rows(2, {1, 0}), Rows(1, {1}), Entries({0.0})), few.y);
  EXPECT_THAT(few.Message(), HasSubstr("equality 0 of the lower problem was given 1 blocks"));
  Plain size;
  size.problem.AddLowerEquality(
      new Affine(Rows(3, {1, 0, 0}), Rows(1, {1}), Entries({0.0})), size.y, &size.x);
  EXPECT_THAT(size.Message(), HasSubstr("equality 0 of the lower problem"));
}

struct Throws {
  bool operator()(const double* y, double* c) const {
    if (y[1] > 0.1) throw std::runtime_error("no such y");
    c[0] = y[0] - 1.0;
    return true;
  }
  template <typename T>
  bool operator()(const T* y, T* c) const {
    c[0] = y[0] - 1.0;
    if (y[1] > 0.1) throw std::runtime_error("no such y");
    return true;
  }
};

TEST(ConstrainedBadInput, WhatAConstraintThrowsIsTold) {
  Plain p;
  p.problem.AddLowerInequality(new AutoDiffCostFunction<Throws, 1, 2>(new Throws), p.y);
  EXPECT_THAT(p.Message(), HasSubstr("no such y"));
}

enum class Fault { kNaN, kInfinity, kFalse };

struct Faulty {  // y0 <= 0.3, which fails beyond y0 = 0.9 and at some y1.
  bool operator()(const double* y, double* c) const {
    c[0] = y[0] - 0.3;
    const bool fails = y[0] > 0.9 || std::abs(y[1] - 0.5) < 0.1;
    if (fails && fault == Fault::kNaN) c[0] = std::nan("");
    if (fails && fault == Fault::kInfinity) c[0] = kInfinity;
    return !fails || fault != Fault::kFalse;
  }
  Fault fault;
};

// By Ceres' differences, whose noise the last digits are; and with faults on the way.
TEST(ConstrainedBadInput, FaultyConstraintsEndInASentence) {
  for (const Fault fault : {Fault::kNaN, Fault::kInfinity, Fault::kFalse}) {
    for (const double start : {0.0, 0.45, 0.8}) {
      Plain p;
      p.x = 0.7;
      p.y[1] = start;
      p.problem.AddLowerInequality(
          new ceres::NumericDiffCostFunction<Faulty, ceres::CENTRAL, 1, 2>(new Faulty{fault}), p.y);
      const std::string message = p.Message();
      if (p.is_usable) {
        EXPECT_NEAR(p.y[0], 0.3, 1e-6) << message;
        EXPECT_NEAR(p.y[1], 1.0, 1e-6) << message;
      } else {
        EXPECT_THAT(message, HasSubstr("constraints")) << message;
      }
    }
  }
}

// The same row twice, and one that others imply: y and its derivative are as without them.
TEST(ConstrainedBadInput, RedundantRowsAreLeftOutAndNamed) {
  Plain once, more;
  once.AddRows(true, {1, 0}, {-2}, {-1.0});  // y0 <= 2 x - 1
  more.AddRows(true, {1, 0, 1, 0, 3, 0}, {-2, -2, -6}, {-1.0, -1.0, -3.0});
  Constrained a(&once.problem), b(&more.problem);
  Vector of_a, of_b;
  EXPECT_NEAR(a.Phi(&of_a), b.Phi(&of_b), 1e-12);
  EXPECT_NEAR(of_a[0], of_b[0], 1e-10);
  EXPECT_EQ(b.solver->weakly_active(), "");
  EXPECT_THAT(b.solver->Report().remark,
              AllOf(HasSubstr("redundant: row 1 of inequality 0"),
                    HasSubstr("of inequality 0 of the lower problem")));
}

TEST(ConstrainedBadInput, RedundantEqualitiesToo) {
  Plain same, apart;
  same.AddRows(false, {1, 1, 2, 2}, {-1, -2}, {0.0, 0.0});  // y0 + y1 = x
  Constrained c(&same.problem);
  Vector gradient;
  c.Phi(&gradient);
  EXPECT_EQ(c.solver->weakly_active(), "");
  EXPECT_THAT(c.solver->Report().remark, HasSubstr("redundant: row 1 of equality 0"));
  EXPECT_NEAR(c.solver->dy_dx().sum(), 1.0, 1e-12);
  apart.x = 0.0;
  apart.AddRows(false, {1, 1, 2, 2}, {-1, 1}, {0.0, 0.0});  // Together at x = 0 alone.
  Constrained d(&apart.problem);
  d.Phi(&gradient);
  EXPECT_THAT(d.solver->weakly_active(), HasSubstr("row 1 of equality 0"));
}

// y0 <= 0, y1 <= 0, y0 + y1 <= x around x = 0: three rows through one point that move differently.
TEST(ConstrainedBadInput, MoreConstraintsThanDimensionsMakeAKinkThatIsNamed) {
  Plain p;
  p.x = 0.0;
  p.AddRows(true, {1, 0, 0, 1, 1, 1}, {0, 0, -1}, {0.0, 0.0, 0.0});
  p.problem.lower()->AddResidualBlock(new NormalPrior({2.0, 2.0}, 1.0), nullptr, p.y);
  Constrained c(&p.problem);
  Vector gradient;
  c.Phi(&gradient);
  EXPECT_LT(c.y.value().norm(), 1e-10);
  EXPECT_THAT(c.solver->weakly_active(), HasSubstr("of inequality 0 of the lower problem"));
}

TEST(ConstrainedBadInput, AWeaklyActiveConstraintIsNamed) {
  Plain p;  // y0 = x without it.
  p.AddRows(true, {1, 0}, {0}, {0.5});
  Constrained c(&p.problem);
  Vector gradient;
  c.Phi(&gradient);
  EXPECT_THAT(c.solver->weakly_active(), HasSubstr("inequality 0 of the lower problem (over 'y')"));
  p.x = 0.6;
  c.program->x.ReadUser(c.x.value().data());
  c.Phi(&gradient);
  EXPECT_EQ(c.solver->weakly_active(), "");
}

TEST(ConstrainedBadInput, MethodsThatKnowNoConstraintsRefuseThem) {
  for (const std::string& method : ListMethods()) {
    Plain p;
    p.AddRows(true, {1, 0}, {0}, {0.3});
    const std::string message = p.Message(method);
    const auto made = CreateMethod(method);
    if (made->TakesLowerConstraints() && method != "newton") {
      EXPECT_LE(p.y[0], 0.3 + 1e-9) << method << ": " << message;
      EXPECT_TRUE(p.is_usable) << method << ": " << message;
    } else {
      EXPECT_FALSE(p.is_usable) << method;
      EXPECT_THAT(message, AllOf(HasSubstr("inequality 0 of the lower problem (over 'y')")))
          << method;
    }
  }
}

TEST(ConstrainedBadInput, LowerSolversAndEditorsThatKnowNoneRefuse) {
  Plain p;
  p.AddRows(true, {1, 0}, {0}, {0.3});
  Solver::Options options;
  options.lower_solver = [](Program* program) {
    return std::make_unique<NewtonLowerSolver>(program, NewtonLowerSolver::Options());
  };
  Solver::Summary summary;
  Solve(options, &p.problem, &summary);
  EXPECT_THAT(summary.message,
              AllOf(HasSubstr("inequality 0"), HasSubstr("ConstrainedLowerSolver")));
  Solver::Options gauss_newton;
  gauss_newton.lower_hessian = HessianKind::kGaussNewton;
  Solve(gauss_newton, &p.problem, &summary);
  EXPECT_THAT(summary.message, AllOf(HasSubstr("inequality 0"), HasSubstr("kExact")));
  std::string error;
  EXPECT_FALSE(AddMarginalLikelihood(&p.problem, &error));
  EXPECT_THAT(error, HasSubstr("constraints"));
}

// Folds that were made before a constraint do not have it.
TEST(ConstrainedBadInput, AConstraintAfterACrossValidation) {
  double x = 0.0, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  std::vector<ceres::ResidualBlockId> ids;
  for (int k = 0; k < 6; ++k) {
    ids.push_back(problem.lower()->AddResidualBlock(new NormalPrior({0.3 * k}, 1.0), nullptr, &y));
  }
  problem.lower()->AddResidualBlock(
      new Affine(Rows(1, {1.0}), Rows(1, {-1.0}), Entries({0.0})), nullptr, &y, &x);
  std::vector<std::vector<HeldOutResidual>> folds;
  std::string error;
  ASSERT_TRUE(AddCrossValidation({}, ids, nullptr, &problem, &folds, &error)) << error;
  problem.AddLowerInequality(new NormalPrior({0.5}, 1.0), &y);
  Solver::Summary summary;
  Solve({}, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(summary.message, HasSubstr("inequality 0 of the lower problem"));
  EXPECT_THAT(summary.message, HasSubstr("AddCrossValidation"));
}

}  // namespace
}  // namespace bilevel
