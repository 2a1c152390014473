// What a refusal advises solves the very problem that was refused.
#include <cmath>
#include <functional>
#include <memory>
#include <string>

#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/hyper_objective/optimistic.h"
#include "bilevel/methods/value_function/bvfsm.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "remedies.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Remedies, BoundsOnX) {
  for (const char* refused : {"lbfgs", "bfgs", "steepest_descent"}) {
    Follow f(2.0);
    f.problem.SetParameterUpperBound(&f.x, 0, 1.0);
    EXPECT_THAT(SolveBy(CreateMethod(refused), &f.problem).message,
                AllOf(HasSubstr("\"levenberg_marquardt\""), HasSubstr("\"projected_lbfgs\"")));
  }
  for (const char* remedy : {"levenberg_marquardt", "projected_lbfgs"}) {
    Follow f(2.0);
    f.problem.SetParameterUpperBound(&f.x, 0, 1.0);
    const Solver::Summary summary = SolveBy(CreateMethod(remedy), &f.problem);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_EQ(f.x, 1.0) << remedy;
  }
}

// g = 1/2 (y_0 + y_1 - x)^2, f = 1/2 |y - (2, 1)|^2: x = 3.
struct Sum {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] + y[1] - x[0];
    return true;
  }
};
struct ToPoint {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 2.0;
    r[1] = y[1] - 1.0;
    return true;
  }
};
struct OnLine {
  OnLine() {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Sum, 1, 1, 2>(new Sum), nullptr, &x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<ToPoint, 2, 2>(new ToPoint), nullptr, y);
  }
  double x = 0.5, y[2] = {0.0, 0.0};
  Problem problem;
};

TEST(Remedies, SetsOfSolutions) {
  for (const char* refused : {"lbfgs", "levenberg_marquardt", "gradient_descent"}) {
    OnLine line;
    EXPECT_THAT(SolveBy(CreateMethod(refused), &line.problem).message,
                AllOf(HasSubstr("\"optimistic\""), HasSubstr("\"bome\"")));
  }
  for (const char* remedy : {"optimistic", "bome"}) {
    OnLine line;
    const Solver::Summary summary = SolveBy(CreateMethod(remedy), &line.problem);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_NEAR(line.x, 3.0, 1e-3) << remedy;
  }
}

// y0 + y1 = x, and f sees y0: "fix a block".
struct SumIsX {
  template <typename T>
  bool operator()(const T* a, const T* b, const T* x, T* residual) const {
    residual[0] = a[0] + b[0] - x[0];
    return true;
  }
};

TEST(Remedies, ABlockHeld) {
  for (const bool is_held : {false, true}) {
    double x = 0.0, a = 0.0, b = 0.5;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<SumIsX, 1, 1, 1, 1>(new SumIsX), nullptr, &a, &b, &x);
    problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{2.0}), nullptr, &a);
    if (is_held) problem.lower()->SetParameterBlockConstant(&b);
    const Solver::Summary summary = SolveBy(CreateMethod("levenberg_marquardt"), &problem);
    if (!is_held) {
      EXPECT_THAT(summary.message, HasSubstr("fix a block"));
      continue;
    }
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(a, 2.0, 1e-8);
    EXPECT_NEAR(x, 2.5, 1e-8);
  }
}

// What auto goes on from solves what a single method was stuck at.
TEST(Remedies, AutoGoesOn) {
  for (const char* method : {"lbfgs", "auto"}) {
    double x = 0.0, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &x);
    problem.lower()->SetParameterLowerBound(&y, 0, 0.0);  // y = max(x, 0).
    problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{1.0}), nullptr, &y);
    const Solver::Summary summary = SolveBy(CreateMethod(method), &problem);
    if (method == std::string("lbfgs")) {
      EXPECT_THAT(summary.message, HasSubstr("\"auto\" goes on from there"));
    } else {
      EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
      EXPECT_NEAR(x, 1.0, 1e-4);
    }
  }
}

TEST(Remedies, ScenarioBatches) {
  const auto run = [](const char* method, double* x) {
    double y[4] = {};
    Problem problem;
    problem.AddUpperParameterBlock(x, 1);
    for (int i = 0; i < 4; ++i) {
      Scenario* s = problem.AddScenario(std::to_string(i));
      s->lower()->AddResidualBlock(
          new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y[i], x);
      s->upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{2.0}), nullptr, &y[i]);
    }
    return SolveBy(CreateMethod(method), &problem, [](Solver::Options* options) {
      options->num_scenarios_per_iteration = 2;
    });
  };
  double x = 0.5;
  EXPECT_THAT(run("levenberg_marquardt", &x).message, HasSubstr("\"adam\""));
  const Solver::Summary summary = run("adam", &x);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(x, 2.0, 1e-2);
}

// f = |y - 1| + y / 2: least at the kink, where line searches end.
class Kink : public Objective {
 public:
  bool Evaluate(double const* const* y, const Batch&, double* value, double** g) const override {
    *value = std::abs(y[0][0] - 1.0) + 0.5 * y[0][0];
    if (g && g[0]) g[0][0] = (y[0][0] < 1.0 ? -1.0 : 1.0) + 0.5;
    return true;
  }
};
TEST(Remedies, StuckBesideAKink) {
  for (const char* method : {"steepest_descent", "auto"}) {
    double x = 7.3, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &x);
    problem.AddTerm(Level::kUpper, std::make_unique<Kink>(), {{&y, 1}});
    const Solver::Summary summary = SolveBy(CreateMethod(method), &problem);
    // Whatever ends it: no CONVERGENCE away from the kink, and auto gets there.
    if (summary.termination_type == ceres::CONVERGENCE) {
      EXPECT_NEAR(x, 1.0, 1e-6) << method;
    }
    if (std::string(method) == "auto") {
      EXPECT_NEAR(x, 1.0, 1e-6) << summary.FullReport();
    }
  }
}

TEST(Remedies, LossesThatHideTheirParameters) {
  for (const bool ours : {false, true}) {
    Follow f(2.0);
    double log_scale = 0.0;
    f.problem.AddUpperParameterBlock(&log_scale, 1);
    auto* huber = new ceres::HuberLoss(2.0);
    auto* cauchy = new CauchyLoss(&log_scale);
    constexpr auto kOwned = ceres::TAKE_OWNERSHIP;
    ceres::LossFunction* loss = nullptr;
    if (ours) {
      loss = new ComposedLoss(huber, kOwned, cauchy, kOwned);
    } else {
      loss = new ceres::ComposedLoss(huber, kOwned, cauchy, kOwned);
    }
    f.problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<To, 1, 1>(new To{5.0}), loss, &f.y);
    std::string error;
    EXPECT_EQ(f.problem.IsValid(&error), ours) << error;
    if (!ours) {
      EXPECT_THAT(error, HasSubstr("use the bilevel ones"));
    }
  }
}

TEST(Remedies, SensitivityOfAnUnsolvedLowerLevel) {
  Follow f(2.0);
  f.y = 0.4;  // Not yet x = 0.5.
  Sensitivity strict((Sensitivity::Options()));
  EXPECT_FALSE(strict.Compute(&f.problem, {&f.x}));
  EXPECT_THAT(strict.message(), HasSubstr("Options::polish"));
  Sensitivity::Options options;
  options.polish = true;
  Sensitivity polished(options);
  ASSERT_TRUE(polished.Compute(&f.problem, {&f.x})) << polished.message();
  double dy_dx = 0.0;
  ASSERT_TRUE(polished.GetSensitivityBlock(&f.y, &f.x, &dy_dx));
  EXPECT_NEAR(dy_dx, 1.0, 1e-12);
}

// Differences weighed 1e-13, 1e-12, ..., 1e-8: no gap tells those that are rounding from those that
// are not. All are, as the user knows.
struct Weak {
  template <typename T>
  bool operator()(const T* x, const T* z, T* r) const {
    r[0] = z[0] + z[1] - 2.0 * x[0];
    r[1] = weight * (z[0] - z[1]);
    return true;
  }
  double weight;
};
TEST(Remedies, RankThatCannotBeTold) {
  for (const double rank_tolerance : {0.0, 1e-14}) {
    double x = 0.5, z[6][2] = {};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    for (int k = 0; k < 6; ++k) {
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Weak, 2, 1, 2>(new Weak{std::pow(10.0, -6.5 + 0.5 * k)}),
          nullptr,
          &x,
          z[k]);
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<ToPoint, 2, 2>(new ToPoint), nullptr, z[k]);
    }
    OptimisticLowerSolver::Options lower;
    lower.rank_tolerance = rank_tolerance;
    const Solver::Summary summary =
        SolveBy(std::make_shared<Optimistic>(CreateMethod("auto"), lower), &problem);
    if (rank_tolerance == 0.0) {
      EXPECT_THAT(summary.message, HasSubstr("set rank_tolerance between"));
      continue;
    }
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(x, 1.5, 1e-6);  // z = (x, x), nearest to (2, 1).
    for (const auto& pair : z) EXPECT_NEAR(pair[0], 1.5, 1e-2);
  }
}

// g = 1/2 (y - x)^2 - 1: the released barrier's weight is not positive unless the offset lifts it.
struct Sunk {
  template <typename T>
  bool operator()(const T* x, const T* y, T* g) const {
    g[0] = 0.5 * (y[0] - x[0]) * (y[0] - x[0]) - 1.0;
    return true;
  }
};
TEST(Remedies, OffsetOfADetachedBarrier) {
  for (const bool lifted : {false, true}) {
    double x = 0.5, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(
        Level::kLower, std::make_unique<AutoDiffObjective<Sunk, 1, 1>>(), {{&x, 1}, {&y, 1}});
    problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{2.0}), nullptr, &y);
    BvfsmHypergradient::Options options;
    options.barrier = BvfsmHypergradient::kDetached;
    if (lifted) options.offset = 1.1;
    StepRule rule;
    rule.kind = StepRule::kAdam;
    rule.step = 0.01;
    const Solver::Summary summary =
        SolveBy(std::make_shared<GradientMethod>(
                    "bvfsm_detached", std::make_unique<BvfsmHypergradient>(options), rule),
                &problem);
    if (lifted) {
      EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
      EXPECT_NEAR(x, 2.0, 1e-2);
    } else {
      EXPECT_THAT(summary.message, HasSubstr("bvfsm.offset must exceed"));
    }
  }
}

TEST(Remedies, NothingToLearn) {
  double y[2] = {0.3, 0.1};
  Problem problem;
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y[0], &y[1]);
  problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{4.0}), nullptr, y);
  EXPECT_THAT(SolveBy(CreateMethod("auto"), &problem).message, HasSubstr("SolveSimpleBilevel"));
  Solver::Summary summary;
  SolveSimpleBilevel({}, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(y[0], 4.0, 1e-10);
  EXPECT_NEAR(y[1], 4.0, 1e-10);
}

}  // namespace
}  // namespace bilevel
