// The stochastic methods allocate nothing once they are under way.
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/registry.h"
#include "bilevel/methods/stochastic/stochastic_method.h"
#include "bilevel/methods/stochastic/sustain.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/program.h"
#include "count_allocations.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// Counts what is allocated between two reports.
class Counter : public Monitor {
 public:
  explicit Counter(int num_iterations) : num_iterations_(num_iterations) {}
  bool Report(const State& /*state*/, const Progress& progress) override {
    if (progress.iteration == kWarm) before = allocations;
    if (progress.iteration < num_iterations_) return true;
    after = allocations;
    return false;
  }
  double gradient_tolerance() const override { return 0.0; }
  double function_tolerance() const override { return 0.0; }
  double parameter_tolerance() const override { return 0.0; }
  int max_num_iterations() const override { return num_iterations_; }

  static constexpr int kWarm = 20;
  long before = 0, after = -1;

 private:
  int num_iterations_;
};

TEST(StochasticMethods, AllocateNothingOnceUnderWay) {
  constexpr int kBlocks = 100;
  std::vector<double> q(4 * kBlocks), t(3 * kBlocks);
  double x = 0.1;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  for (int i = 0; i < kBlocks; ++i) {
    q[4 * i] = std::cos(0.01 * i);
    q[4 * i + 1] = std::sin(0.01 * i);
    for (int j = 0; j < 3; ++j) t[3 * i + j] = std::sin(i + j);
    auto* weight = new ceres::ScaledLoss(nullptr, 1.0 / kBlocks, ceres::TAKE_OWNERSHIP);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Mixed, 4, 4, 3, 1>(new Mixed{{0.001 * i, 1.0, -0.5}}),
        weight,
        &q[4 * i],
        &t[3 * i],
        &x);
    problem.lower()->SetManifold(&q[4 * i], new ceres::QuaternionManifold);
    weight = new ceres::ScaledLoss(nullptr, 1.0 / kBlocks, ceres::TAKE_OWNERSHIP);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Mixed, 4, 4, 3, 1>(new Mixed{{0.3, 0.001 * i, -0.5}}),
        weight,
        &q[4 * i],
        &t[3 * i],
        &x);
  }
  std::string error;
  const std::unique_ptr<Program> program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  int num_methods = 0;
  for (const std::string& name : ListMethods()) {
    std::unique_ptr<Method> method = CreateMethod(name);
    if (!dynamic_cast<StochasticMethod*>(method.get())) continue;
    ++num_methods;
    if (name == "mrbo") {
      Mrbo::Options mrbo;  // g is singular and not convex: the default's long series diverges.
      mrbo.neumann.length = 10;
      method = std::make_unique<Mrbo>(mrbo);
    }
    Oracle oracle(program.get(), nullptr, 3);
    ASSERT_EQ(method->Check(oracle), "") << name;
    State state;
    state.x = Point(&program->x);
    state.y = Point(&program->y);
    program->x.ReadUser(state.x.value().data());
    program->y.ReadUser(state.y.value().data());
    Counter counter(80);
    std::string message;
    EXPECT_EQ(method->Minimize(oracle, state, &counter, &message), Method::Outcome::kNoConvergence)
        << name << ": " << message;
    EXPECT_EQ(counter.after - counter.before, 0) << name;
  }
  EXPECT_GE(num_methods, 17);
}

}  // namespace
}  // namespace bilevel
