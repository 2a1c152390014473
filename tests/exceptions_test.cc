// Whatever a user's code throws or says ends in a sentence that names it, also within ceres::Solve.
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// y is the mean of targets and, weighted by e^x, 4; f wants 2.8.
struct Weighted {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = exp(x[0]) * (y[0] - 4.0);
    return true;
  }
};
struct Mean {
  Mean() {
    problem.AddUpperParameterBlock(&x, 1);
    for (int i = 0; i < 5; ++i) Add(1.0 + 0.3 * i, nullptr);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Weighted, 1, 1, 1>(new Weighted), nullptr, &y, &x);
    problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{2.8}), nullptr, &y);
  }
  void Add(double target, ceres::LossFunction* loss) {
    problem.lower()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{target}), loss, &y);
  }
  Solver::Summary SolveIt() {
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    return summary;
  }
  double x = 0.3, y = 0.0;
  Problem problem;
  Solver::Options options;
};

enum Where { kName, kCheck, kStart, kStep, kFinish, kFinishWithANumber };
class ThrowingMethod : public Method {
 public:
  explicit ThrowingMethod(Where where) : where_(where) {}
  std::string name() const override {
    ThrowAt(kName);
    return "throwing";
  }
  std::string Check(const Oracle& /*oracle*/) override {
    ThrowAt(kCheck);
    return "";
  }
  void Finish(Oracle& /*oracle*/, const State& /*state*/, Assessment* /*assessment*/) override {
    ThrowAt(kFinish);
    if (where_ == kFinishWithANumber) throw 7;
  }

 protected:
  void Start(Oracle& oracle, State& state) override {
    ThrowAt(kStart);
    oracle.Solve(state.x, &state.y);
  }
  void Step(Oracle& oracle, State& state, Progress* progress) override {
    ThrowAt(kStep);
    progress->objective = oracle.f.Value(state.x, state.y);
  }

 private:
  void ThrowAt(Where where) const {
    if (where_ == where) throw std::runtime_error("here " + std::to_string(where));
  }
  Where where_;
};

TEST(Exceptions, OfAMethodOfOnesOwn) {
  for (const Where where : {kName, kCheck, kStart, kStep, kFinish, kFinishWithANumber}) {
    Mean mean;
    mean.options.method = std::make_shared<ThrowingMethod>(where);
    mean.options.max_num_iterations = 3;
    const Solver::Summary summary = mean.SolveIt();
    EXPECT_EQ(mean.x, 0.3);
    if (where < kFinish) {
      EXPECT_EQ(summary.termination_type, ceres::FAILURE);
      EXPECT_THAT(summary.message, HasSubstr("threw: here " + std::to_string(where)));
    } else {  // What assesses an answer does not spoil it.
      EXPECT_TRUE(summary.IsSolutionUsable());
      EXPECT_THAT(summary.FullReport(), HasSubstr("assessing it threw"));
    }
  }
}

TEST(Exceptions, OfAFactoryOfLowerSolvers) {
  Mean mean;
  mean.options.lower_solver = [](Program*) -> std::unique_ptr<LowerSolver> {
    throw std::runtime_error("no such solver");
  };
  EXPECT_EQ(mean.SolveIt().message, "making the lower solver threw: no such solver");
  EXPECT_THAT(HypergradientChecker::Check(&mean.problem,
                                          [&] {
                                            HypergradientChecker::Options options;
                                            options.solver = mean.options;
                                            return options;
                                          }())
                  .message,
              HasSubstr("no such solver"));
}

// On Ceres' threads too.
TEST(Exceptions, OfACostFunctionWithinCeres) {
  for (const bool is_std : {true, false}) {
    for (const int num_threads : {1, 2, 4}) {
      Mean mean;
      for (int i = 0; i < 200; ++i) mean.Add(1.0 + 0.01 * i, nullptr);
      auto num_calls = std::make_shared<std::atomic<int>>(0);
      mean.problem.lower()->AddResidualBlock(
          new FunctionCost(1,
                           {1},
                           [=](double const* const* y, double* r, double** jacobians) {
                             if (++*num_calls > 4) {
                               if (is_std) throw std::runtime_error("late");
                               throw 3;
                             }
                             r[0] = y[0][0] * y[0][0] - 3.0;
                             if (jacobians && jacobians[0]) jacobians[0][0] = 2.0 * y[0][0];
                             return true;
                           }),
          nullptr,
          &mean.y);
      mean.options.lower_solver_options.num_threads = num_threads;
      const Solver::Summary summary = mean.SolveIt();
      EXPECT_EQ(summary.termination_type, ceres::FAILURE);
      EXPECT_THAT(summary.message,
                  AllOf(HasSubstr("residual block 206 of the lower problem"),
                        HasSubstr(is_std ? "threw: late" : "not a std::exception")));
      EXPECT_EQ(mean.x, 0.3);
      EXPECT_EQ(mean.y, 0.0);
    }
  }
}

class LossOf : public ceres::LossFunction {
 public:
  using F = std::function<void(double s, double* rho)>;
  explicit LossOf(F f) : f_(std::move(f)) {}
  void Evaluate(double s, double rho[3]) const override { f_(s, rho); }

 private:
  F f_;
};

// Ceres aborts on these.
TEST(Exceptions, LossesThatCeresWouldAbortOn) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  const auto set = [](double* rho, double value, double slope, double curvature) {
    rho[0] = value;
    rho[1] = slope;
    rho[2] = curvature;
  };
  const struct {
    LossOf::F loss;
    const char* message;
  } cases[] = {
      {[=](double s, double* rho) { set(rho, -s, -1.0, 0.1); }, "a loss with a negative slope"},
      {[=](double s, double* rho) { set(rho, s > 9.0 ? kNaN : s, 1.0, 0.0); },
       "a loss that is not finite"},
      {[=](double s, double* rho) { set(rho, s, s > 9.0 ? 0.0 : 1.0, s > 9.0 ? kNaN : 0.0); },
       "a loss that is not finite"},
      {[=](double s, double* rho) {
         if (s > 9.0) throw std::runtime_error("no loss");
         set(rho, s, 1.0, 0.0);
       },
       "threw: no loss"},
  };
  for (const auto& c : cases) {
    Mean mean;
    mean.y = 20.0;
    mean.Add(1.0, new LossOf(c.loss));
    const Solver::Summary summary = mean.SolveIt();
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    EXPECT_THAT(summary.message,
                AllOf(HasSubstr("residual block 6 of the lower problem"), HasSubstr(c.message)));
  }
}

// Our own losses at scales where their derivatives are lost.
TEST(Exceptions, LearnedScaleFarOut) {
  for (const char* method : {"auto", "lbfgs", "adam", "bome", "pattern_search", "soba"}) {
    for (const double target : {1000.0, -1000.0}) {
      double x = 0.0, y = 0.5;
      Problem problem;
      problem.AddUpperParameterBlock(&x, 1);
      for (int i = 0; i < 10; ++i) {
        problem.lower()->AddResidualBlock(
            new AutoDiffCostFunction<To, 1, 1>(new To{i < 8 ? 1.0 + 0.1 * i : 30.0}),
            new CauchyLoss(&x),
            &y);
      }
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<To, 1, 1>(new To{1.2}), nullptr, &y);
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<To, 1, 1>(new To{target}), nullptr, &x);
      Solver::Options options;
      options.method = CreateMethod(method);
      Solver::Summary summary;
      Solve(options, &problem, &summary);
      EXPECT_TRUE(std::isfinite(x) && std::isfinite(y)) << summary.FullReport();
    }
  }
}

class ThrowingManifold : public ceres::Manifold {
 public:
  explicit ThrowingManifold(int last) : last_(last) {}
  int AmbientSize() const override { return 1; }
  int TangentSize() const override { return 1; }
  bool Plus(const double* x, const double* delta, double* x_plus_delta) const override {
    if (delta[0] != 0.0 && ++num_calls_ > last_) throw std::runtime_error("no way");
    x_plus_delta[0] = x[0] + delta[0];
    return true;
  }
  bool PlusJacobian(const double* /*x*/, double* jacobian) const override {
    jacobian[0] = 1.0;
    return true;
  }
  bool Minus(const double* y, const double* x, double* y_minus_x) const override {
    y_minus_x[0] = y[0] - x[0];
    return true;
  }
  bool MinusJacobian(const double* /*x*/, double* jacobian) const override {
    jacobian[0] = 1.0;
    return true;
  }

 private:
  const int last_;
  mutable std::atomic<int> num_calls_{0};
};

TEST(Exceptions, OfAManifold) {
  for (int last = 0; last < 30; ++last) {
    Mean mean;
    mean.problem.lower()->SetManifold(&mean.y, new ThrowingManifold(last));
    const Solver::Summary summary = mean.SolveIt();
    EXPECT_TRUE(std::isfinite(mean.x) && std::isfinite(mean.y)) << last;
    if (last == 0) {
      EXPECT_EQ(summary.termination_type, ceres::FAILURE) << summary.message;
    }
  }
}

class ThrowingCallback : public ceres::EvaluationCallback {
 public:
  explicit ThrowingCallback(int last) : last_(last) {}
  void PrepareForEvaluation(bool /*jacobians*/, bool /*new_point*/) override {
    if (++num_calls_ > last_) throw std::runtime_error("not prepared");
  }

 private:
  const int last_;
  int num_calls_ = 0;
};

TEST(Exceptions, OfAnEvaluationCallback) {
  for (int last = 1; last < 40; last += 3) {
    Mean mean;
    ThrowingCallback callback(last);
    mean.problem.scenario(0)->SetEvaluationCallback(Level::kLower, &callback);
    const Solver::Summary summary = mean.SolveIt();
    EXPECT_TRUE(std::isfinite(mean.x) && std::isfinite(mean.y)) << last;
    if (last < 4) {
      EXPECT_EQ(summary.termination_type, ceres::FAILURE);
      EXPECT_THAT(summary.message, HasSubstr("not prepared"));
    }
  }
}

// Ceres solves a problem of our own: the user's is as it was, and an ordering by the user's names,
// blocks in no residual included, is followed.
TEST(Exceptions, TheUsersProblemIsLeftAlone) {
  Mean mean;
  double unused[2] = {1.0, 2.0};
  mean.problem.lower()->AddParameterBlock(unused, 2);
  auto* ordering = new ceres::ParameterBlockOrdering;
  ordering->AddElementToGroup(&mean.y, 0);
  ordering->AddElementToGroup(&mean.x, 1);
  ordering->AddElementToGroup(unused, 1);
  mean.options.lower_solver_options.linear_solver_ordering.reset(ordering);
  mean.options.lower_solver_options.linear_solver_type = ceres::DENSE_SCHUR;
  const Solver::Summary summary = mean.SolveIt();
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(mean.y, 2.8, 1e-8);
  EXPECT_FALSE(mean.problem.lower()->IsParameterBlockConstant(&mean.x));
  EXPECT_FALSE(mean.problem.lower()->IsParameterBlockConstant(unused));
  EXPECT_EQ(unused[1], 2.0);
}

// JSON is UTF-8 whatever a name is, and holds the answer's x, which is not the last iterate's.
TEST(Exceptions, JsonHoldsTheAnswer) {
  for (const char* method : {"adam", "normalized", "momentum", "igfm", "auto"}) {
    Mean mean;
    mean.options.method = CreateMethod(method);
    mean.options.max_num_iterations = 40;
    const Solver::Summary summary = mean.SolveIt();
    ASSERT_EQ(summary.x.size(), 1u);
    EXPECT_EQ(summary.x[0], mean.x) << method;
    const std::string json = summary.Json();
    const size_t at = json.find("\"x\": [");
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(std::stod(json.substr(at + 6)), mean.x) << method;
  }
  Mean mean;
  mean.y = std::numeric_limits<double>::quiet_NaN();
  mean.problem.SetParameterName(&mean.y, "y\"\n\xff\xc3\xa9\xe0\x80\xf5");
  const std::string json = mean.SolveIt().Json();
  EXPECT_THAT(json, HasSubstr("y\\\"\\u000a\\ufffd\xc3\xa9\\ufffd\\ufffd\\ufffd"));
}

}  // namespace
}  // namespace bilevel
