// What the campaign of random problems has found, in its smallest form, and what is right.
#include <cmath>
#include <memory>

#include "bilevel/bilevel.h"
#include "campaign/random_check.h"
#include "campaign/random_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

struct BelowOne {  // y* = x, for x below 1.
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] - x[0];
    return x[0] < 1.0;
  }
};

// The estimate of a bias looks beside the answer, where there may be no hypergradient.
TEST(Found, BiasBesideTheDomain) {
  for (const char* method : {"itd", "bda", "bvfsm", "penalty", "bome"}) {
    double x = 1.0 - 5e-6, y = x;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<BelowOne, 1, 1, 1>(new BelowOne), nullptr, &y, &x);
    problem.upper()->AddResidualBlock(TargetCost(0.0), nullptr, &y);
    Solver::Options options;
    options.method = CreateMethod(method);
    options.max_num_iterations = 0;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_TRUE(std::isnan(summary.assessment.x_bias) || summary.assessment.x_bias >= 0.0)
        << method;
    EXPECT_NE(summary.termination_type, ceres::CONVERGENCE) << method;
  }
}

// Solves that fail but within [first, last).
class Sometimes : public NewtonLowerSolver {
 public:
  Sometimes(Program* program, const Options& options, int first, int last)
      : NewtonLowerSolver(program, options), first_(first), last_(last) {}
  bool Solve(const Point& x, Point* y) override {
    const int index = num_solves_++;
    return NewtonLowerSolver::Solve(x, y) && index >= first_ && index < last_;
  }

 private:
  const int first_, last_;
  int num_solves_ = 0;
};

Solver::Summary SolveSometimes(const char* method, int first, int last, double* x) {
  double y = 0.0;
  *x = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(x, 1);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, x);
  problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
  Solver::Options options;
  options.method = CreateMethod(method);
  options.lower_solver = [&](Program* program) {
    return std::make_unique<Sometimes>(program, options.LowerSolverOptions(), first, last);
  };
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  return summary;
}

// A first solve fails, and the one that looks at the answer that there is none of does not.
TEST(Found, NothingIsNoAnswer) {
  for (const char* method : {"auto", "optimistic", "lbfgs", "levenberg_marquardt"}) {
    double x;
    const Solver::Summary summary = SolveSometimes(method, 1, 1000000, &x);
    EXPECT_FALSE(summary.termination_type == ceres::CONVERGENCE && std::abs(x - 1.0) > 1e-6)
        << method << summary.BriefReport();
    EXPECT_NE(summary.message, "") << method;
  }
}

// A tolerance may be met where a tenth of it is not.
TEST(Found, HoagsSecondSolveFails) {
  for (const int last : {1, 2, 3, 4}) {
    double x;
    const Solver::Summary summary = SolveSometimes("hoag", 0, last, &x);
    EXPECT_NE(summary.termination_type, ceres::CONVERGENCE) << last;
    EXPECT_NE(summary.message, "") << last;
  }
}

struct Well {  // Two in y, tilted by x: the one near y = -1 ends at x = 1.54.
  template <typename T>
  bool operator()(const T* y, const T* x, T* g) const {
    const T q = y[0] * y[0] - 1.0;
    g[0] = q * q - x[0] * y[0];
    return true;
  }
};
struct AboveWell {
  template <typename T>
  bool operator()(const T* y, const T* x, T* f) const {
    const T a = y[0] + 0.4, b = x[0] - 2.9;
    f[0] = a * a + 0.05 * b * b;
    return true;
  }
};

// Where phi jumps a line search may choose a trial that was not its last: x, y and phi belong
// together.
TEST(Found, LineSearchesKeepTheirTrials) {
  for (const char* method : {"bfgs", "lbfgs", "ncg", "steepest_descent", "auto"}) {
    double x = -0.6, y = -1.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(
        Level::kLower, std::make_unique<AutoDiffObjective<Well, 1, 1>>(), {{&y, 1}, {&x, 1}});
    problem.AddTerm(
        Level::kUpper, std::make_unique<AutoDiffObjective<AboveWell, 1, 1>>(), {{&y, 1}, {&x, 1}});
    double f;
    Solver::Options options;
    options.method = CreateMethod(method);
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    AboveWell()(&y, &x, &f);
    EXPECT_NEAR(f, summary.final_objective, 1e-9) << method << summary.BriefReport();
    EXPECT_LE(f, summary.initial_objective + 1e-9) << method;
  }
}

struct Offset {  // 5000, whatever y is: an outlier's cost, say.
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = 5000.0 + 0.0 * y[0];
    return true;
  }
};

// A large g makes any decrement small relative to it.
TEST(Found, AFarYIsNotStalled) {
  double x = 0.0, y = 0.98;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Offset, 1, 1>(new Offset), nullptr, &y);
  problem.lower()->AddResidualBlock(
      DifferenceCost(),
      new ceres::ScaledLoss(new ceres::SoftLOneLoss(1.0), 1e-3, ceres::TAKE_OWNERSHIP),
      &y,
      &x);
  problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
  problem.SetParameterUpperBound(&x, 0, 0.0);  // Where it stays.
  Solver::Summary summary;
  Solve({}, &problem, &summary);
  EXPECT_NEAR(x, 0.0, 1e-12);
  EXPECT_NEAR(y, x, 1e-4) << summary.FullReport();
}

struct Same {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    for (int i = 0; i < 2; ++i) r[i] = y[i] - x[i];
    return true;
  }
};
struct Valley {  // Rosenbrock's, least at (1, 1), on top of 1.
  template <typename T>
  bool operator()(const T* y, T* f) const {
    const T u = y[1] - y[0] * y[0], v = 1.0 - y[0];
    f[0] = 100.0 * u * u + 1e-3 * v * v + 1.0;
    return true;
  }
};

// A short last step says nothing of the next: what a Newton step along the gradient promises, in
// closed form, is small wherever CONVERGENCE is said.
TEST(Found, AShortLastStepPromisesNothing) {
  for (const char* method : {"auto", "lbfgs", "bfgs", "levenberg_marquardt", "gradient_descent"}) {
    double x[] = {-1.2, 1.3}, y[] = {0.0, 0.0};
    Problem problem;
    problem.AddUpperParameterBlock(x, 2);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Same, 2, 2, 2>(new Same), nullptr, y, x);
    problem.AddTerm(Level::kUpper, std::make_unique<AutoDiffObjective<Valley, 2>>(), {{y, 2}});
    Solver::Options options;
    options.method = CreateMethod(method);
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    if (summary.termination_type != ceres::CONVERGENCE) continue;
    const double u = x[1] - x[0] * x[0], v = 1.0 - x[0];
    const double g0 = -400.0 * u * x[0] - 2e-3 * v, g1 = 200.0 * u, gg = g0 * g0 + g1 * g1;
    const double h00 = 1200.0 * x[0] * x[0] - 400.0 * x[1] + 2e-3, h01 = -400.0 * x[0];
    const double curvature = (g0 * g0 * h00 + 2.0 * g0 * g1 * h01 + g1 * g1 * 200.0) / gg;
    const double phi = 100.0 * u * u + 1e-3 * v * v + 1.0;
    EXPECT_TRUE(std::sqrt(gg) <= options.gradient_tolerance ||
                (curvature > 0.0 && 0.5 * gg / curvature < 10.0 * options.function_tolerance * phi))
        << method << summary.BriefReport();
  }
}

void ExpectNoViolation(unsigned seed, const char* method) {
  RandomProblem problem(seed);
  Solver::Options options;
  options.method = CreateMethod(method);
  options.max_num_iterations = 100;
  Solver::Summary summary;
  Solve(options, problem.problem(), &summary);
  const RandomVerdict verdict = RandomCheck(problem, options, summary).Run();
  EXPECT_NE(verdict.kind, RandomVerdict::kViolation)
      << method << ", " << seed << ": " << verdict.why;
}

// A kink halfway down the way that is looked at: a parabola fits there by chance.
TEST(Found, AKinkHalfwayIsNoParabola) { ExpectNoViolation(4089, "levenberg_marquardt"); }

// Newton's steps do not shrink beside a fold, where y*(x) ends, nor where a bound was met.
TEST(Found, NotEveryStallIsNoise) {
  ExpectNoViolation(2244, "levenberg_marquardt");
  ExpectNoViolation(2244, "optimistic");
  ExpectNoViolation(4089, "auto");
}

// y is a minimum, if a weak one, with a lesser one beyond a low rise: no inflection to leave.
TEST(Found, AWeakMinimumIsNotLeft) { ExpectNoViolation(10621, "projected_lbfgs"); }

// Gradients around a kink cancel, and phi falls ten times as far from it.
TEST(Found, AKinkIsLookedAtFromAfarToo) { ExpectNoViolation(10539, "optimistic"); }

// A smooth minimum nearer than the sides that are looked at, where gradients cancel too.
TEST(Found, ASmoothMinimumIsNoKink) { ExpectNoViolation(30724, "pattern_search"); }

// On the side where phi falls the lower level has no solution of this solver's: no kink is claimed.
TEST(Found, AKinkHasNoUnseenSide) { ExpectNoViolation(20098, "optimistic"); }

// A run that ends before it has linearised anything has no uncertainty, and did not look for one.
TEST(Found, NothingLinearised) { ExpectNoViolation(32927, "levenberg_marquardt"); }

// x has run to where the residuals' squares are 1e304, and Ceres' ArctanLoss has a floor of 2e-308
// for its slope.
TEST(Found, BeyondWhatALossHolds) { ExpectNoViolation(60523, "levenberg_marquardt"); }

// An answer beside a fold, where one step leads to another y and ten short ones keep to this one.
TEST(Found, BesideAFoldYKeepsToItsBranch) { ExpectNoViolation(80071, "optimistic"); }

}  // namespace
}  // namespace bilevel
