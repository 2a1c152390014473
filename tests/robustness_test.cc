// Trials that go wrong: rejected, the state restored, and the summary says why and how often.
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <thread>

#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/slip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

// One x, one y. phi is recomputed from what the solve leaves behind.
struct Scalars {
  Scalars(double x_start, double y_start) : x(x_start), y(y_start) {
    problem.AddUpperParameterBlock(&x, 1);
    problem.SetParameterName(&x, "x");
    problem.SetParameterName(&y, "y");
  }
  template <typename Functor, int kResiduals>
  void AddLower() {
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Functor, kResiduals, 1, 1>(new Functor), nullptr, &y, &x);
  }
  void AddUpper(double target) {
    problem.upper()->AddResidualBlock(TargetCost(target), nullptr, &y);
  }
  Solver::Summary Solve(const std::string& method) {
    options.method = CreateMethod(method);
    options.max_num_iterations = 100;
    Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
    const double f = Value(problem.upper());
    if (summary.num_successful_steps > 0) {
      EXPECT_NEAR(f, summary.final_objective, 1e-9 * (1.0 + f)) << summary.FullReport();
      EXPECT_LE(summary.final_objective, summary.initial_objective);
    }
    return summary;
  }
  static double Value(ceres::Problem* problem) {
    double cost = 0.0;
    problem->Evaluate(ceres::Problem::EvaluateOptions(), &cost, nullptr, nullptr, nullptr);
    return cost;
  }
  // How often trials were rejected for a reason with that text in it.
  static int Count(const Solver::Summary& summary, const std::string& text) {
    int count = 0;
    for (const auto& rejection : summary.rejections) {
      if (rejection.reason.find(text) != std::string::npos) count += rejection.count;
    }
    return count;
  }
  double x, y;
  Problem problem;
  Solver::Options options;
};

// Below x = 0 the cost decreases with y for ever; above, e^{-2 y} = x^2 y.
struct Escape {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    using std::exp;
    residual[0] = exp(-y[0]);
    residual[1] = (x[0] > 0.0 ? x[0] : 0.0 * x[0]) * y[0];
    return true;
  }
};

TEST(Robustness, ABasinWithoutAMinimum) {
  for (const std::string method : {"levenberg_marquardt", "lbfgs"}) {
    Scalars scalars(1.0, 0.5);
    scalars.AddLower<Escape, 2>();
    scalars.AddUpper(3.0);
    const Solver::Summary summary = scalars.Solve(method);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << method << summary.FullReport();
    EXPECT_NEAR(scalars.x, std::exp(-3.0) / std::sqrt(3.0), 1e-5) << method;
    EXPECT_GT(Scalars::Count(summary, "the lower level was not solved"), 0)
        << method << summary.FullReport();
  }
}

// y = log x, not a number below 0.
struct Logarithm {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    using std::log;
    residual[0] = y[0] - log(x[0]);
    return true;
  }
};

TEST(Robustness, NotANumberAtATrial) {
  for (const std::string method : {"levenberg_marquardt", "lbfgs", "bfgs", "ncg"}) {
    Scalars scalars(1.0, 0.0);
    scalars.AddLower<Logarithm, 1>();
    scalars.AddUpper(-4.0);
    const Solver::Summary summary = scalars.Solve(method);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << method << summary.FullReport();
    EXPECT_NEAR(scalars.y, -4.0, 1e-3) << method;
    EXPECT_GT(Scalars::Count(summary, "not finite"), 0) << method << summary.FullReport();
    EXPECT_THAT(summary.FullReport(), HasSubstr("Trials rejected: "));
    EXPECT_THAT(summary.Json(), HasSubstr("not finite"));
  }
}

// r = y^2 - x: one solution, y = 0, below x = 0 (roughly); a saddle there and two beyond.
struct Pitchfork {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] * y[0] - x[0];
    return true;
  }
};

TEST(Robustness, ASaddleIsLeftAtTheStartAndAtATrial) {
  for (const std::string method : {"levenberg_marquardt", "lbfgs"}) {
    {
      Scalars scalars(1.0, 0.0);
      scalars.AddLower<Pitchfork, 1>();
      scalars.AddUpper(1.0);
      const Solver::Summary summary = scalars.Solve(method);
      EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
      EXPECT_NEAR(scalars.x, 1.0, 1e-6);
      EXPECT_NEAR(scalars.y, 1.0, 1e-6);
    }
    {  // y stays at 0 by symmetry up to x = 0, and goes on along y = sqrt(x): least where
       // x - 2 + (1 - 1 / sqrt(x)) / 2 = 0.
      Scalars scalars(-1.0, 0.0);
      scalars.AddLower<Pitchfork, 1>();
      scalars.AddUpper(1.0);
      scalars.problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &scalars.x);
      const Solver::Summary summary = scalars.Solve(method);
      EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
      EXPECT_NEAR(scalars.x, 1.0 + std::sqrt(0.75), 1e-6);
      EXPECT_NEAR(scalars.y, 0.5 + std::sqrt(0.75), 1e-6);
    }
  }
}

// y = e^{3 x}, from afar too many iterations away.
struct Exponential {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    using std::exp;
    using std::log;
    residual[0] = log(y[0]) - 3.0 * x[0];
    residual[1] = 0.01 * (y[0] - 1.0);
    return true;
  }
};

TEST(Robustness, LowerSolverOutOfIterations) {
  for (const std::string method : {"levenberg_marquardt", "lbfgs"}) {
    Scalars scalars(0.0, 1.0);
    scalars.AddLower<Exponential, 2>();
    scalars.AddUpper(12.0);
    scalars.options.max_num_lower_newton_iterations = 1;
    scalars.options.lower_solver_options.max_num_iterations = 1;
    const Solver::Summary summary = scalars.Solve(method);
    EXPECT_TRUE(summary.IsSolutionUsable()) << method << summary.FullReport();
    EXPECT_NEAR(scalars.y, 12.0, 1e-2) << method;
    // Newton's iteration does not do from a trial's start: Ceres has to.
    EXPECT_GT(summary.lower_solver.cold_solves, 1) << method << summary.FullReport();
  }
}

// Evaluations beyond x = 0.4 take their time.
struct Slow {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    if (x[0] > 0.4) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    residual[0] = y[0] * y[0] * y[0] + y[0] - x[0];
    return true;
  }
};

TEST(Robustness, TimeOutInTheMiddleOfATrial) {
  for (const std::string method : {"levenberg_marquardt", "lbfgs"}) {
    Scalars scalars(0.0, 0.0);
    scalars.AddLower<Slow, 1>();
    scalars.AddUpper(2.0);
    scalars.options.max_solver_time_in_seconds = 0.1;
    const Solver::Summary summary = scalars.Solve(method);
    EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE) << method;
    EXPECT_THAT(summary.message, HasSubstr("time limit"));
    EXPECT_LT(summary.total_time_in_seconds, 3.0) << method << summary.FullReport();
    // Solved where x is, whatever the trial was at.
    EXPECT_NEAR(scalars.y * scalars.y * scalars.y + scalars.y, scalars.x, 1e-8) << method;
  }
}

// Many lower solves an iteration, each a while; what is good so far is the answer.
struct Slower {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    for (int i = 0; i < 20; ++i) residual[i] = y[0] * y[0] * y[0] + y[0] - x[i];
    return true;
  }
};

TEST(Robustness, TimeOutInTheMiddleOfAnIteration) {
  for (const char* method : {"gradient_sampling", "igfm", "pattern_search"}) {
    double x[20] = {3.0}, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(x, 20);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Slower, 20, 1, 20>(new Slower), nullptr, &y, x);
    problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
    Solver::Options options;
    options.method = CreateMethod(method);
    options.max_num_iterations = 1000000;
    options.max_solver_time_in_seconds = 0.2;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE) << method;
    EXPECT_EQ(summary.answer, AnswerKind::kLimit) << summary.FullReport();
    EXPECT_LT(summary.total_time_in_seconds, 3.0) << method << summary.FullReport();
    double mean = 0.0;
    for (const double value : x) mean += value / 20.0;
    EXPECT_NEAR(y * y * y + y, mean, 1e-6) << method;
  }
}

// A minibatch method reports every 10,000th of its iterations.
struct SlowDifference {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    residual[0] = y[0] - x[0];
    return true;
  }
};

TEST(Robustness, TimeOutBetweenReports) {
  for (const char* method : {"slip", "f2sa", "amigo"}) {
    Scalars scalars(0.0, 0.0);
    scalars.AddLower<SlowDifference, 1>();
    scalars.AddUpper(2.0);
    Solver::Options options;
    options.method = CreateMethod(method);
    if (options.method->name() == "slip") {  // Its longer steps swing about x* for as long.
      Slip::Options slip;
      slip.x.step = 0.01;
      options.method = std::make_shared<Slip>(slip);
    }
    options.max_num_iterations = 1000000;
    options.max_solver_time_in_seconds = 1.0;
    Solver::Summary summary;
    Solve(options, &scalars.problem, &summary);
    EXPECT_EQ(summary.answer, AnswerKind::kLimit) << method << summary.FullReport();
    EXPECT_LT(summary.total_time_in_seconds, 5.0) << method << summary.FullReport();
    EXPECT_GT(scalars.x, 0.0) << method << summary.FullReport();
    EXPECT_NEAR(scalars.y, scalars.x, 1e-8) << method;
  }
}

struct Cubic {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] * y[0] * y[0] + y[0] - x[0];
    return true;
  }
};

// Nothing but rounding left: no failure. f does not vanish, so phi's rounding hides the last steps.
TEST(Robustness, ConvergedToRoundingIsConverged) {
  for (const std::string method : {"levenberg_marquardt", "lbfgs", "bfgs"}) {
    Scalars scalars(0.3, 0.0);
    scalars.AddLower<Cubic, 1>();
    for (const double target : {0.25, 0.3, 40.0, -39.0}) scalars.AddUpper(target);
    scalars.x = 0.1;
    scalars.options.function_tolerance = 0.0;
    scalars.options.gradient_tolerance = 0.0;
    scalars.options.parameter_tolerance = 1e-300;
    const Solver::Summary summary = scalars.Solve(method);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << method << summary.FullReport();
    const double y = (0.25 + 0.3 + 1.0) / 4.0;
    EXPECT_NEAR(scalars.y, y, 1e-6) << method;
  }
}

// The same reason with other numbers in it is the same reason.
TEST(Robustness, ReasonsAreCounted) {
  struct Rejecting : Method {
    std::string name() const override { return "rejecting"; }
    Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string*) override {
      oracle.Solve(state.x, &state.y);
      Progress progress;
      progress.objective = oracle.f.Value(state.x, state.y);
      monitor->Report(state, progress);
      for (const char* reason : {"a", "block 17 is bad", "block 3 is bad", "x2 at -1.5e-07"}) {
        monitor->Reject(reason);
      }
      progress.step_is_successful = false;
      progress.note = "block 4 is bad";
      monitor->Report(state, progress);
      return Outcome::kNoConvergence;
    }
  };
  Scalars scalars(1.0, 0.0);
  scalars.AddLower<Logarithm, 1>();
  scalars.AddUpper(0.0);
  scalars.options.method = std::make_shared<Rejecting>();
  Solver::Summary summary;
  bilevel::Solve(scalars.options, &scalars.problem, &summary);
  ASSERT_EQ(summary.rejections.size(), 3u);
  EXPECT_EQ(summary.rejections[0].reason, "block # is bad");
  EXPECT_EQ(summary.rejections[0].count, 3);
  EXPECT_EQ(Scalars::Count(summary, "x2 at #"), 1);
}

}  // namespace
}  // namespace bilevel
