// Many scenarios: in parallel, in minibatches.
#include <cmath>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/methods/estimators/hypergradient.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/oracle/scenario_groups.h"
#include "bilevel/program/program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// Lower: y + 0.1 y^3 = b, shrunk by e^x; two weights.
struct Bend {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0] + 0.1 * y[0] * y[0] * y[0] - target;
    residual[1] = 0.3 * y[1] - 0.2 * y[0];
    return true;
  }
  double target;
};
struct Shrink {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    using std::exp;
    residual[0] = exp(x[0]) * y[0];
    residual[1] = exp(x[1]) * (y[1] - 1.0);
    return true;
  }
};

struct Recordings {
  explicit Recordings(int count) : y(2 * count, 0.1) {
    std::mt19937 generator(5);
    std::normal_distribution<double> normal;
    problem.AddUpperParameterBlock(x, 2);
    for (int i = 0; i < count; ++i) {
      Scenario* s = problem.AddScenario("recording " + std::to_string(i), 0.5 + 0.1 * (i % 3));
      double* own = &y[2 * i];
      s->lower()->AddResidualBlock(
          new AutoDiffCostFunction<Bend, 2, 2>(new Bend{2.0 + normal(generator)}), nullptr, own);
      s->lower()->AddResidualBlock(
          new AutoDiffCostFunction<Shrink, 2, 2, 2>(new Shrink), nullptr, own, x);
      s->upper()->AddResidualBlock(
          new AutoDiffCostFunction<Bend, 2, 2>(new Bend{1.0 + 0.3 * normal(generator)}),
          nullptr,
          own);
    }
  }
  Solver::Summary Solve(const Solver::Options& options) {
    Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    return summary;
  }
  double x[2] = {-1.0, -1.5};
  std::vector<double> y;
  Problem problem;
};

TEST(Scenarios, TheSameBitsWhateverTheThreads) {
  for (const std::string method : {"levenberg_marquardt", "lbfgs", "adam", "hoag", "aid_cg"}) {
    for (const int batch : {0, 4}) {
      std::vector<double> first;
      for (const int num_threads : {1, 2, 3}) {
        if (batch > 0 && method != "adam") continue;
        Recordings recordings(11);
        Solver::Options options;
        options.method = CreateMethod(method);
        options.max_num_iterations = 12;
        options.num_threads = num_threads;
        options.num_scenarios_per_iteration = batch;
        recordings.Solve(options);
        std::vector<double> all = recordings.y;
        all.insert(all.end(), recordings.x, recordings.x + 2);
        if (first.empty()) first = all;
        EXPECT_EQ(all, first) << method << " " << num_threads;
      }
    }
  }
}

// Over an epoch every group comes once, and their hypergradients average to the whole one.
TEST(Scenarios, MinibatchHypergradientsAreUnbiased) {
  constexpr int kScenarios = 11, kBatch = 3, kGroups = 4;
  Recordings recordings(kScenarios);
  std::string error;
  const std::unique_ptr<Program> program = recordings.problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  NewtonLowerSolver::Options newton;
  newton.use_ceres = false;
  ScenarioGroups groups(program.get(), kBatch, [&](Program* part) {
    return std::make_unique<NewtonLowerSolver>(part, newton);
  });
  ASSERT_EQ(groups.num_groups(), kGroups);
  EXPECT_EQ(groups.num_scenarios(kGroups - 1), 2);
  Oracle oracle(program.get(), &groups, 3);
  State state;
  state.x = Point(&program->x);
  state.y = Point(&program->y);
  program->x.ReadUser(state.x.value().data());
  program->y.ReadUser(state.y.value().data());
  const State start = state;
  ExactHypergradient exact;
  Vector whole, own;
  const double f = exact.Estimate(oracle, state, &whole);
  ASSERT_TRUE(oracle.ok()) << oracle.error();
  // dy*/dx of all, from the groups.
  ASSERT_TRUE(oracle.Differentiate(state.x, state.y));
  Vector fy;
  oracle.f.Gradient(state.x, state.y, nullptr, &fy);
  Vector adjoint;
  ASSERT_TRUE(groups.Adjoint(fy, &adjoint));
  EXPECT_LT((groups.dy_dx().transpose() * fy - adjoint).norm(), 1e-12);
  const Point solved = state.y;

  oracle.SetScenarioGroups(&groups);
  for (int epoch = 0; epoch < 3; ++epoch) {
    Vector mean = Vector::Zero(2);
    double mean_f = 0.0;
    std::set<int> moved_first;
    for (int k = 0; k < kGroups; ++k) {
      state = start;
      oracle.DrawScenarios();
      ++oracle.iteration;
      EXPECT_TRUE(oracle.uses_scenario_batch());
      mean_f += exact.Estimate(oracle, state, &own) / kGroups;
      mean += own / kGroups;
      // Only this group's y has moved.
      for (int i = 0; i < kScenarios; ++i) {
        if (state.y.value()[2 * i] == start.y.value()[2 * i]) continue;
        moved_first.insert(i);
        EXPECT_NEAR(state.y.value()[2 * i], solved.value()[2 * i], 1e-8);
      }
    }
    EXPECT_EQ(moved_first.size(), static_cast<size_t>(kScenarios));
    EXPECT_LT((mean - whole).norm(), 1e-10 * whole.norm());
    EXPECT_NEAR(mean_f, f, 1e-10 * f);
  }
  oracle.UseAllScenarios();
  state = start;
  exact.Estimate(oracle, state, &own);
  EXPECT_LT((own - whole).norm(), 1e-10 * whole.norm());
}

TEST(Scenarios, MinibatchesFindTheMinimiser) {
  Recordings exact(12), batches(12), other_seed(12);
  Solver::Options options;
  const Solver::Summary best = exact.Solve(options);
  StepRule rule;
  rule.kind = StepRule::kAdam;
  rule.step = 0.1;
  rule.decay_exponent = 1.0;
  rule.decay_time = 60.0;
  options.method =
      std::make_shared<GradientMethod>("adam", std::make_unique<ExactHypergradient>(), rule);
  options.max_num_iterations = 600;
  options.num_scenarios_per_iteration = 3;
  const Solver::Summary summary = batches.Solve(options);
  EXPECT_NEAR(summary.final_objective, best.final_objective, 1e-3 * best.final_objective);
  for (int k = 0; k < 2; ++k) EXPECT_NEAR(batches.x[k], exact.x[k], 0.05);
  // y of every scenario is solved in the end, not only the last group's.
  EXPECT_LT(summary.final_lower_level_decrement, 1e-8);
  EXPECT_EQ(summary.num_scenarios, 12);
  options.seed = 7;
  options.max_num_iterations = 30;
  other_seed.Solve(options);
  EXPECT_NE(other_seed.x[0], batches.x[0]);
}

// A user's own: plain descent along the exact hypergradient.
class Descent : public Method {
 public:
  explicit Descent(bool takes_batches) : takes_batches_(takes_batches) {}
  std::string name() const override { return "mine"; }
  bool TakesScenarioBatches() const override { return takes_batches_; }

 protected:
  void Step(Oracle& o, State& s, Progress* progress) override {
    Vector& gradient = s.Get("gradient", s.x.dim());  // Zeros at first.
    s.x.Move(-0.03 * gradient);
    if (!o.Solve(s.x, &s.y) || !o.Differentiate(s.x, s.y)) return o.Fail(o.message());
    progress->upper_value = o.f.Gradient(s.x, s.y, &gradient, &fy_);
    if (!o.lower().Adjoint(fy_, &through_y_)) return o.Fail(o.lower().message());
    gradient += through_y_;
    progress->y_is_solved = false;
    progress->keep = Progress::kAlways;
  }

 private:
  const bool takes_batches_;
  Vector fy_, through_y_;
};

TEST(Scenarios, AMethodOfOnesOwnMayTakeMinibatches) {
  Recordings own(12), ours(12);
  Solver::Options options;
  options.max_num_iterations = 40;
  options.num_scenarios_per_iteration = 3;
  options.method = std::make_shared<Descent>(true);
  const Solver::Summary summary = own.Solve(options);
  // The same method of the library's parts draws the same batches.
  StepRule rule;
  rule.step = 0.03;
  options.method =
      std::make_shared<GradientMethod>("ours", std::make_unique<ExactHypergradient>(), rule);
  const Solver::Summary expected = ours.Solve(options);
  for (int k = 0; k < 2; ++k) EXPECT_NEAR(own.x[k], ours.x[k], 1e-9);
  EXPECT_GT(std::abs(own.x[0] + 1.0), 0.05);  // From its start.
  EXPECT_NEAR(summary.final_objective, expected.final_objective, 1e-9);
  // One group's lower solves an iteration, not four.
  EXPECT_LE(summary.lower_solver.cold_solves + summary.lower_solver.warm_solves,
            expected.lower_solver.cold_solves + expected.lower_solver.warm_solves);

  options.method = std::make_shared<Descent>(false);
  Recordings refused(12);
  Solver::Summary refusal;
  Solve(options, &refused.problem, &refusal);
  EXPECT_EQ(refusal.termination_type, ceres::FAILURE);
  EXPECT_THAT(refusal.message, HasSubstr("mine takes all scenarios"));
}

TEST(Scenarios, MinibatchesAreForFirstOrderMethods) {
  for (const std::string method : {"auto", "lbfgs", "levenberg_marquardt", "bome", "igfm"}) {
    Recordings recordings(4);
    Solver::Options options;
    options.method = CreateMethod(method);
    options.num_scenarios_per_iteration = 2;
    Solver::Summary summary;
    Solve(options, &recordings.problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    EXPECT_THAT(summary.message, HasSubstr("num_scenarios_per_iteration")) << method;
    options.num_scenarios_per_iteration = -1;
    Solve(options, &recordings.problem, &summary);
    EXPECT_THAT(summary.message, HasSubstr("must not be negative"));
  }
}

}  // namespace
}  // namespace bilevel
