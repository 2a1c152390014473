// What one front door can solve, the others can: all of them open a PreparedProblem.
#include "bilevel/internal/prepared_problem.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "bilevel/lower_level/sgm.h"
#include "bilevel/search/multi_start.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

constexpr int kSize = 2100;  // Too long for a matrix.

// sum_i (y_i - c_i x)^2 / 2 with c_i = (i + 1) / n: y* = c x.
class Fan : public Objective {
 public:
  bool Evaluate(double const* const* b, const Batch&, double* value, double** g) const override {
    *value = 0.0;
    double gx = 0.0;
    for (int i = 0; i < kSize; ++i) {
      const double c = (i + 1.0) / kSize, r = b[0][i] - c * b[1][0];
      *value += 0.5 * r * r;
      if (g && g[0]) g[0][i] = r;
      gx -= c * r;
    }
    if (g && g[1]) g[1][0] = gx;
    return true;
  }
  bool has_hessian_product() const override { return true; }
  bool HessianProduct(double const* const*,
                      const Batch&,
                      double const* const* d,
                      double** p) const override {
    double sum = 0.0;
    for (int i = 0; i < kSize; ++i) {
      const double c = (i + 1.0) / kSize;
      const double r = (d[0] ? d[0][i] : 0.0) - c * (d[1] ? d[1][0] : 0.0);
      if (p[0]) p[0][i] = r;
      sum -= c * r;
    }
    if (p[1]) p[1][0] = sum;
    return true;
  }
};

// y_n - 2.
class Last : public ceres::SizedCostFunction<1, kSize> {
 public:
  bool Evaluate(double const* const* b, double* r, double** j) const override {
    r[0] = b[0][kSize - 1] - 2.0;
    if (j && j[0]) {
      std::fill_n(j[0], kSize, 0.0);
      j[0][kSize - 1] = 1.0;
    }
    return true;
  }
};

struct LongProblem {
  LongProblem() : y(kSize, 0.0) {
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(Level::kLower, std::make_unique<Fan>(), {{y.data(), kSize}, {&x, 1}});
    problem.upper()->AddResidualBlock(new Last, nullptr, y.data());
  }
  double x = 0.5;
  std::vector<double> y;
  Problem problem;
};

TEST(PreparedProblem, SolvesALongLowerTerm) {
  LongProblem p;
  Solver::Summary summary;
  Solve(Solver::Options(), &p.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
  EXPECT_NEAR(p.x, 2.0, 1e-8);
}

TEST(PreparedProblem, ChecksTheHypergradientOfALongLowerTerm) {
  LongProblem p;
  const auto result = HypergradientChecker::Check(&p.problem);
  ASSERT_TRUE(result.ok) << result.message;
  EXPECT_NEAR(result.gradient[0], p.x - 2.0, 1e-9);
  EXPECT_LT(result.max_relative_error, 1e-8);
}

TEST(PreparedProblem, GivesTheUncertaintyOverALongLowerTerm) {
  for (const HessianKind kind : {HessianKind::kGaussNewton, HessianKind::kExact}) {
    LongProblem p;
    p.x = 2.0;  // The optimum.
    Uncertainty uncertainty;
    std::string message;
    EXPECT_TRUE(ComputeUncertainty(Solver::Options(), kind, &p.problem, &uncertainty, &message))
        << message;
  }
}

TEST(PreparedProblem, IsAnArgminOverALongLowerTerm) {
  LongProblem p;
  const ArgminCostFunction argmin(Solver::Options(), &p.problem, {p.y.data()});
  ASSERT_TRUE(argmin.ok()) << argmin.error();
  const double at = 3.0;
  const double* x[] = {&at};
  std::vector<double> y(kSize), derivative(kSize);
  double* jacobians[] = {derivative.data()};
  ASSERT_TRUE(argmin.Evaluate(x, y.data(), jacobians)) << argmin.error();
  EXPECT_NEAR(y[kSize - 1], 3.0, 1e-9);
  EXPECT_NEAR(y[0], 3.0 / kSize, 1e-9);
  EXPECT_NEAR(derivative[kSize - 1], 1.0, 1e-8);
}

// Sensitivity needs a matrix, and says so.
TEST(PreparedProblem, SensitivityRefusesALongLowerTerm) {
  LongProblem p;
  Sensitivity sensitivity;
  EXPECT_FALSE(sensitivity.Compute(&p.problem, {&p.x}));
  EXPECT_THAT(sensitivity.message(), HasSubstr("too long for an assembled Hessian"));
}

TEST(PreparedProblem, StartsALongLowerTermFromManyPlaces) {
  LongProblem p;
  MultiStartOptions starts;
  starts.num_starts = 2;
  starts.num_refined = 1;
  Solver::Summary summary;
  SolveFromManyStarts(starts, Solver::Options(), &p.problem, &summary, nullptr);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.message;
  EXPECT_NEAR(p.x, 2.0, 1e-6);
}

// An analysis may solve a problem many times: cold at first and again after Restart.
TEST(PreparedProblem, RestartsCold) {
  LongProblem p;
  Solver::Options options;
  options.lower_solver = [](Program* program) {
    return std::make_unique<NewtonCgLowerSolver>(program, NewtonCgLowerSolver::Options());
  };
  std::string error;
  const auto prepared = PreparedProblem::Create(options, {}, &p.problem, &error);
  ASSERT_TRUE(prepared) << error;
  const State given = prepared->Start();
  for (int run = 0; run < 2; ++run) {
    State state = given;
    ASSERT_TRUE(prepared->oracle().Solve(state.x, &state.y)) << prepared->oracle().message();
    EXPECT_NEAR(prepared->oracle().f.Value(state.x, state.y), 1.125, 1e-9);  // (0.5 - 2)^2 / 2
    EXPECT_EQ(prepared->lower().counts().warm_solves + prepared->lower().counts().cold_solves, 1);
    prepared->WriteUser(state.x, state.y);
    EXPECT_NEAR(p.y[kSize - 1], 0.5, 1e-9);
    prepared->WriteUser(given.x, given.y);
    EXPECT_EQ(p.y[kSize - 1], 0.0);
    prepared->Restart();
  }
}

struct Difference {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] - x[0];
    return true;
  }
};

struct To {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - target;
    return true;
  }
  double target;
};

// A lower solver of the user's is taken by every door; one without derivatives is refused by those
// that need them, with its reason.
TEST(PreparedProblem, EveryDoorTakesTheUsersLowerSolver) {
  double x = 0.0, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{1}), nullptr, &y);
  HypergradientChecker::Options options;
  int made = 0;
  options.solver.check_from_start = false;  // It would make one more.
  options.solver.lower_solver = [&made](Program* program) {
    ++made;
    return std::make_unique<NewtonCgLowerSolver>(program, NewtonCgLowerSolver::Options());
  };
  EXPECT_TRUE(HypergradientChecker::Check(&problem, options).ok);
  EXPECT_TRUE(ArgminCostFunction(options.solver, &problem, {&y}).ok());
  Uncertainty uncertainty;
  ComputeUncertainty(options.solver, HessianKind::kGaussNewton, &problem, &uncertainty);
  Solver::Summary summary;
  Solve(options.solver, &problem, &summary);
  EXPECT_EQ(made, 4);

  options.solver.lower_solver = [](Program* program) {
    return std::make_unique<Sgm>(program, Sgm::Options());
  };
  std::string message;
  EXPECT_FALSE(HypergradientChecker::Check(&problem, options).ok);
  EXPECT_FALSE(ArgminCostFunction(options.solver, &problem, {&y}).ok());
  EXPECT_FALSE(ComputeUncertainty(
      options.solver, HessianKind::kGaussNewton, &problem, &uncertainty, &message));
  EXPECT_NE(message, "");

  options.solver.lower_solver = [](Program*) { return std::unique_ptr<LowerSolver>(); };
  EXPECT_THAT(HypergradientChecker::Check(&problem, options).message,
              HasSubstr("returned no lower solver"));
}

// Whoever does not ask for the reason is told that something is wrong all the same.
TEST(PreparedProblem, ReasonsNeedNotBeAskedFor) {
  Problem problem;  // Empty, so invalid.
  Solver::Options options;
  EXPECT_EQ(PreparedProblem::Create(options, {}, &problem, nullptr), nullptr);
  EXPECT_EQ(PreparedProblem::Create(options, {}, nullptr, nullptr), nullptr);
  SolveFromManyStarts({}, options, &problem, nullptr, nullptr);
  SolveFromManyStarts({}, options, nullptr, nullptr, nullptr);
  Solve(options, &problem, nullptr);
}

TEST(PreparedProblem, NumbersInReasonsAreNotRoundedToZero) {
  double x = 1e-9, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.SetParameterName(&x, "x");
  problem.SetParameterLowerBound(&x, 0, 2e-9);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{1}), nullptr, &y);
  std::string error;
  EXPECT_FALSE(problem.IsValid(&error));
  EXPECT_THAT(error, HasSubstr("1e-09, is outside its bounds [2e-09, inf]"));
}

}  // namespace
}  // namespace bilevel
