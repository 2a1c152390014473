// Whatever a user passes, Solve returns with a sentence that names the culprit, and leaves the
// parameters and the ceres::Problems as they were.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <new>
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
using ::testing::Not;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A residual from lambdas that fail on demand.
ceres::CostFunction* Cost(std::vector<int> sizes, FunctionCost::Function function) {
  return new FunctionCost(1, std::move(sizes), std::move(function));
}

// r = y - x that calls `trouble` with the number of the evaluation first.
ceres::CostFunction* Troubled(std::function<bool(int)> trouble) {
  auto count = std::make_shared<int>(0);
  return Cost({1, 1}, [=](double const* const* p, double* r, double** j) {
    if (!trouble((*count)++)) return false;
    r[0] = p[0][0] - p[1][0];
    if (j && j[0]) j[0][0] = 1.0;
    if (j && j[1]) j[1][0] = -1.0;
    return true;
  });
}

// A good problem to spoil: y* = (x + 2) / 2, f = (y - 3)^2 / 2, hence x = 4.
struct Good {
  Good() {
    problem.SetParameterName(&x, "the_x");
    problem.SetParameterName(&y, "the_y");
    problem.SetParameterName(&z, "the_z");
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.lower()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
    problem.upper()->AddResidualBlock(TargetCost(3.0), nullptr, &y);
  }

  // NaN is not itself: compare bytes' meaning by text.
  static std::string Snapshot(ceres::Problem* problem) {
    std::vector<double*> blocks;
    problem->GetParameterBlocks(&blocks);
    std::string text;
    for (double* block : blocks) {
      text += std::to_string(problem->IsParameterBlockConstant(block)) + " " +
              std::to_string(reinterpret_cast<size_t>(problem->GetManifold(block)));
      for (int i = 0; i < problem->ParameterBlockSize(block); ++i) {
        char number[200];
        std::snprintf(number,
                      sizeof(number),
                      " %a [%a %a]",
                      block[i],
                      problem->GetParameterLowerBound(block, i),
                      problem->GetParameterUpperBound(block, i));
        text += number;
      }
      text += "\n";
    }
    return text;
  }

  // Solves, expects a failure, and that nothing has changed; returns the message.
  std::string Failure() {
    const double before[] = {x, y, z};
    const std::string lower = Snapshot(problem.lower()), upper = Snapshot(problem.upper());
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE) << summary.FullReport();
    EXPECT_FALSE(summary.IsSolutionUsable());
    if (summary.num_successful_steps > 0) {
      // Failed on the way: the best point found is kept; all else must be as it was.
      EXPECT_LT(summary.final_objective, summary.initial_objective);
      x = before[0];
      y = before[1];
    }
    EXPECT_EQ(Snapshot(problem.lower()), lower);
    EXPECT_EQ(Snapshot(problem.upper()), upper);
    const double after[] = {x, y, z};
    EXPECT_EQ(std::memcmp(before, after, sizeof(before)), 0);
    EXPECT_THAT(summary.FullReport(), HasSubstr(summary.message));
    return summary.message;
  }
  // Refused before anything is solved.
  std::string Refusal() {
    std::string error;
    EXPECT_FALSE(problem.IsValid(&error));
    EXPECT_EQ(Failure(), error);
    return error;
  }

  double x = 1.0, y = 0.5, z = 0.25;
  Problem problem;
  Solver::Options options;
};

TEST(BadInput, TheGoodProblemIsGood) {
  Good good;
  Solver::Summary summary;
  std::string error;
  EXPECT_TRUE(good.problem.IsValid(&error)) << error;
  Solve(good.options, &good.problem, &summary);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(good.x, 4.0, 1e-7);
  EXPECT_NEAR(good.y, 3.0, 1e-7);
}

TEST(BadInput, NullPointers) {
  {
    Good good;
    Solver::Summary summary;
    Solve(good.options, nullptr, &summary);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    EXPECT_THAT(summary.message, HasSubstr("problem is null"));
    Solve(good.options, &good.problem, nullptr);  // Not wanted.
    EXPECT_NEAR(good.x, 4.0, 1e-7);
    EXPECT_TRUE(Good().problem.IsValid(nullptr));
  }
  {
    Good good;
    good.problem.AddUpperParameterBlock(nullptr, 1);
    EXPECT_THAT(good.Refusal(), HasSubstr("null pointer"));
  }
  {
    Good good;
    good.problem.AddTerm(Level::kLower, std::unique_ptr<Objective>(), {{&good.y, 1}});
    EXPECT_THAT(good.Refusal(), HasSubstr("general term of the lower problem is null"));
  }
  {
    Good good;
    good.problem.AddTerm(Level::kUpper, std::unique_ptr<ceres::FirstOrderFunction>(), &good.y);
    EXPECT_THAT(good.Refusal(), HasSubstr("general term of the upper problem is null"));
  }
  {
    Good good;
    good.options.callbacks.push_back(nullptr);
    EXPECT_THAT(good.Failure(), HasSubstr("callback is null"));
  }
  {
    Good good;
    good.options.method = nullptr;
    EXPECT_THAT(good.Failure(), HasSubstr("method"));
  }
  {
    Good good;
    good.problem.AddScenario("rainy", nullptr, nullptr);  // New and empty: ignored.
    EXPECT_TRUE(good.problem.IsValid(nullptr));
  }
}

class SquareTerm : public Objective {
 public:
  bool Evaluate(double const* const* blocks,
                const Batch&,
                double* value,
                double** gradients) const override {
    *value = scale * blocks[0][0] * blocks[0][0];
    if (gradients && gradients[0]) gradients[0][0] = 2.0 * scale * blocks[0][0];
    return !fails;
  }
  double scale = 1.0;
  bool fails = false;
};

TEST(BadInput, NullAndWrongTermBlocks) {
  {
    Good good;
    good.problem.AddTerm(Level::kLower, std::make_unique<SquareTerm>(), {{nullptr, 1}});
    EXPECT_THAT(good.Refusal(), HasSubstr("null or empty parameter block"));
  }
  {
    Good good;
    good.problem.AddTerm(Level::kUpper, std::make_unique<SquareTerm>(), {{&good.y, 0}});
    EXPECT_THAT(good.Refusal(), HasSubstr("null or empty parameter block"));
  }
  {
    Good good;
    good.problem.AddTerm(Level::kLower, std::make_unique<SquareTerm>(), {{&good.y, 3}});
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_y'"), HasSubstr("size 3")));
  }
  {
    double w[2] = {0.0, 0.0};
    Good good;
    good.problem.AddUpperParameterBlock(w, 2);
    good.problem.SetParameterName(w, "the_w");
    good.problem.AddTerm(Level::kUpper, std::make_unique<SquareTerm>(), {{w, 3}});
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_w'"), HasSubstr("3")));
  }
}

TEST(BadInput, DuplicateAndOverlappingBlocks) {
  {
    Good good;
    good.problem.AddUpperParameterBlock(&good.x, 1);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_x'"), HasSubstr("twice")));
  }
  {
    double w[3] = {0.0, 0.0, 0.0};
    Good good;
    good.problem.AddUpperParameterBlock(w, 2);
    good.problem.AddUpperParameterBlock(w + 1, 2);
    good.problem.SetParameterName(w, "the_w");
    good.problem.SetParameterName(w + 1, "the_v");
    EXPECT_THAT(good.Refusal(),
                AllOf(HasSubstr("'the_w'"), HasSubstr("'the_v'"), HasSubstr("overlap")));
  }
  {
    Good good;
    good.problem.AddScenario("rainy")->lower()->AddResidualBlock(TargetCost(1.0), nullptr, &good.y);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_y'"), HasSubstr("two scenarios")));
  }
  {
    Good good;
    good.problem.AddUpperParameterBlock(&good.z, 0);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_z'"), HasSubstr("size 0")));
  }
  {
    Good good;
    good.problem.AddUpperParameterBlock(&good.y, 2);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_y'"), HasSubstr("size 2")));
  }
}

TEST(BadInput, Manifolds) {
  double q[4] = {1.0, 0.0, 0.0, 0.0};
  const auto add = [&](Good* good, ceres::Manifold* lower, ceres::Manifold* upper) {
    good->problem.SetParameterName(q, "the_q");
    for (ceres::Problem* problem : {good->problem.lower(), good->problem.upper()}) {
      problem->AddResidualBlock(
          new ceres::AutoDiffCostFunction<Alignment, 2, 4, 1>(new Alignment{0.4}),
          nullptr,
          q,
          &good->x);
      problem->SetManifold(q, problem == good->problem.lower() ? lower : upper);
    }
  };
  {
    Good good;
    add(&good, new ceres::QuaternionManifold, new ceres::EigenQuaternionManifold);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_q'"), HasSubstr("two different manifolds")));
  }
  {  // The same type, but not the same.
    Good good;
    add(&good, new ceres::SubsetManifold(4, {0}), new ceres::SubsetManifold(4, {1}));
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_q'"), HasSubstr("two different manifolds")));
  }
  {  // The same twice is fine.
    Good good;
    add(&good, new ceres::SubsetManifold(4, {0}), new ceres::SubsetManifold(4, {0}));
    std::string error;
    EXPECT_TRUE(good.problem.IsValid(&error)) << error;
  }
  {
    Good good;
    add(&good, new ceres::QuaternionManifold, nullptr);
    good.problem.lower()->SetParameterLowerBound(q, 1, -0.1);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_q'"), HasSubstr("curved manifold")));
  }
  {
    Good good;
    good.problem.AddUpperParameterBlock(&good.z, 1, new ceres::QuaternionManifold);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_z'"), HasSubstr("ambient size 4")));
  }
  {  // All of x is held: nothing to learn.
    double w = 1.0, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&w, 1, new ceres::SubsetManifold(1, {0}));
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &w);
    problem.upper()->AddResidualBlock(TargetCost(3.0), nullptr, &y);
    std::string error;
    EXPECT_FALSE(problem.IsValid(&error));
    EXPECT_THAT(error, HasSubstr("nothing to learn"));
  }
}

TEST(BadInput, Bounds) {
  {
    Good good;
    good.problem.SetParameterLowerBound(&good.x, 0, 2.0);
    good.problem.SetParameterUpperBound(&good.x, 0, -2.0);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_x'[0]"), HasSubstr("infeasible")));
  }
  {
    Good good;
    good.problem.lower()->SetParameterLowerBound(&good.y, 0, 2.0);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_y'[0]"), HasSubstr("outside its bounds")));
  }
  {  // Each level's are fine, both together are not.
    Good good;
    good.problem.lower()->SetParameterLowerBound(&good.x, 0, 2.0);
    good.problem.SetParameterUpperBound(&good.x, 0, 1.5);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_x'[0]"), HasSubstr("infeasible")));
  }
  {
    Good good;
    good.problem.SetParameterLowerBound(&good.x, 0, kNaN);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_x'"), HasSubstr("not a number")));
  }
  {
    Good good;
    good.problem.SetParameterLowerBound(&good.x, 7, 0.0);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_x'"), HasSubstr("7")));
  }
  {
    Good good;
    good.problem.SetParameterLowerBound(&good.y, 0, 0.0);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_y'"), HasSubstr("not a declared upper")));
  }
  {
    Good good;
    good.problem.SetParameterUpperBound(&good.x, 0, 10.0);
    good.options.method = CreateMethod("lbfgs");
    EXPECT_THAT(good.Failure(), AllOf(HasSubstr("lbfgs"), HasSubstr("bounds")));
  }
}

TEST(BadInput, EmptyProblems) {
  double x = 1.0, y = 1.0;
  std::string error;
  {
    Problem problem;
    EXPECT_FALSE(problem.IsValid(&error));
    EXPECT_THAT(error, HasSubstr("nothing to learn"));
  }
  {
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    EXPECT_FALSE(problem.IsValid(&error));
    EXPECT_THAT(error, HasSubstr("lower level is empty"));
  }
  {
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    EXPECT_FALSE(problem.IsValid(&error));
    EXPECT_THAT(error, HasSubstr("upper level is empty"));
  }
  {
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
    EXPECT_FALSE(problem.IsValid(&error));
    EXPECT_THAT(error, HasSubstr("nothing to solve for"));
  }
  {
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.lower()->SetParameterBlockConstant(&y);
    problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
    EXPECT_FALSE(problem.IsValid(&error));
    EXPECT_THAT(error, HasSubstr("nothing to solve for"));
  }
}

TEST(BadInput, BlocksOfOneLevelOnly) {
  {
    Good good;
    good.problem.upper()->AddResidualBlock(TargetCost(3.0), nullptr, &good.z);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_z'"), HasSubstr("upper problem only")));
    good.problem.upper()->SetParameterBlockConstant(&good.z);
    EXPECT_TRUE(good.problem.IsValid(nullptr));
  }
  {  // Without a name it is counted.
    double w = 0.0;
    Good good;
    good.problem.upper()->AddResidualBlock(TargetCost(3.0), nullptr, &w);
    EXPECT_THAT(good.Refusal(), HasSubstr("residual block 1 of the upper problem"));
  }
  {
    Good good;
    good.problem.AddUpperParameterBlock(&good.z, 1);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_z'"), HasSubstr("appears in no")));
  }
  {  // Hidden: Ceres' wrappers cannot be looked into.
    Good good;
    good.problem.AddUpperParameterBlock(&good.z, 1);
    good.problem.lower()->AddResidualBlock(
        TargetCost(1.0),
        new ceres::ScaledLoss(new CauchyLoss(&good.z), 2.0, ceres::TAKE_OWNERSHIP),
        &good.y);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_z'"), HasSubstr("ScaledLoss")));
  }
  {
    double w[2] = {0.1, 0.2};
    Good good;
    good.problem.SetParameterName(w, "the_w");
    good.problem.AddUpperParameterBlock(w, 2);
    good.problem.lower()->AddResidualBlock(TargetCost(1.0), new CauchyLoss(w + 1), &good.y);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_w'"), HasSubstr("whole block")));
  }
  {
    Good good;
    good.problem.lower()->AddResidualBlock(TargetCost(1.0), nullptr, &good.z);
    good.problem.lower()->AddResidualBlock(TargetCost(1.0), new CauchyLoss(&good.z), &good.y);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_z'"), HasSubstr("learnable loss")));
  }
  {
    Good good;
    good.problem.AddScenario("rainy", -1.0)
        ->lower()
        ->AddResidualBlock(TargetCost(1.0), nullptr, &good.z);
    EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'rainy'"), HasSubstr("positive")));
  }
}

TEST(BadInput, NotFinite) {
  for (const double bad : {kNaN, kInfinity}) {
    {
      Good good;
      good.x = bad;
      EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("start of 'the_x'"), HasSubstr("not finite")));
    }
    {
      Good good;
      good.y = bad;
      EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("start of 'the_y'"), HasSubstr("not finite")));
    }
    {
      Good good;
      good.problem.lower()->AddResidualBlock(TargetCost(bad), nullptr, &good.y);
      EXPECT_THAT(
          good.Refusal(),
          AllOf(HasSubstr("residual block 2 of the lower problem"), HasSubstr("not finite")));
    }
    {
      Good good;
      good.problem.upper()->AddResidualBlock(TargetCost(bad), nullptr, &good.y);
      EXPECT_THAT(
          good.Refusal(),
          AllOf(HasSubstr("residual block 1 of the upper problem"), HasSubstr("not finite")));
    }
    {
      Good good;
      good.z = bad;
      good.problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &good.y, &good.z);
      good.problem.lower()->SetParameterBlockConstant(&good.z);
      EXPECT_THAT(good.Refusal(), HasSubstr("residual block 2 of the lower problem"));
    }
    {  // The residual is fine, its derivative is not.
      Good good;
      good.problem.lower()->AddResidualBlock(
          Cost({1},
               [bad](double const* const* p, double* r, double** j) {
                 r[0] = p[0][0];
                 if (j && j[0]) j[0][0] = bad;
                 return true;
               }),
          nullptr,
          &good.y);
      EXPECT_THAT(good.Refusal(), AllOf(HasSubstr("'the_y'"), HasSubstr("derivative")));
    }
    {
      Good good;
      auto term = std::make_unique<SquareTerm>();
      term->scale = bad;
      good.problem.AddTerm(Level::kUpper, std::move(term), {{&good.y, 1}});
      EXPECT_THAT(good.Refusal(), HasSubstr("general term 0 of the upper problem"));
    }
    {  // A learned loss at a parameter outside its domain.
      double log_scale = 800.0;
      Good good;
      good.problem.AddUpperParameterBlock(&log_scale, 1);
      good.problem.lower()->AddResidualBlock(TargetCost(1.0), new CauchyLoss(&log_scale), &good.y);
      EXPECT_THAT(good.Refusal(),
                  AllOf(HasSubstr("residual block 2 of the lower problem"), HasSubstr("loss")));
    }
  }
}

TEST(BadInput, FailingEvaluations) {
  const std::string culprit = "residual block 2 of the lower problem";
  // At once, or later: during Ceres' solve, Newton's or the method's steps.
  for (int good_evaluations : {0, 1, 2, 3, 5, 8, 12, 16, 25, 40}) {
    SCOPED_TRACE(good_evaluations);
    const auto fail_with = [&](const std::function<bool()>& how) {
      Good good;
      good.problem.lower()->AddResidualBlock(
          Troubled([=](int i) { return i < good_evaluations || how(); }),
          nullptr,
          &good.y,
          &good.x);
      return good.Failure();
    };
    const std::string returned_false = fail_with([] { return false; });
    const std::string threw = fail_with([]() -> bool { throw std::runtime_error("no_luck"); });
    const std::string threw_int = fail_with([]() -> bool { throw 42; });
    const std::string threw_alloc = fail_with([]() -> bool { throw std::bad_alloc(); });
    if (good_evaluations == 0) {
      EXPECT_THAT(returned_false, AllOf(HasSubstr(culprit), HasSubstr("returned false")));
      EXPECT_THAT(threw, AllOf(HasSubstr(culprit), HasSubstr("no_luck")));
      EXPECT_THAT(threw_int, AllOf(HasSubstr(culprit), HasSubstr("not a std::exception")));
      EXPECT_THAT(threw_alloc, AllOf(HasSubstr(culprit), HasSubstr("bad_alloc")));
    }
    EXPECT_THAT(threw, HasSubstr("no_luck"));
    EXPECT_FALSE(returned_false.empty());
    EXPECT_FALSE(threw_int.empty());
  }
}

TEST(BadInput, FailingUpperEvaluations) {
  for (const char* method : {"levenberg_marquardt", "lbfgs"}) {
    for (int good_evaluations : {0, 1, 2, 3}) {
      SCOPED_TRACE(std::string(method) + std::to_string(good_evaluations));
      Good good;
      good.options.method = CreateMethod(method);
      good.problem.upper()->AddResidualBlock(Troubled([=](int i) -> bool {
                                               if (i >= good_evaluations) throw 3.14;
                                               return true;
                                             }),
                                             nullptr,
                                             &good.y,
                                             &good.x);
      EXPECT_THAT(good.Failure(), HasSubstr("residual block 1 of the upper problem"));
    }
  }
}

TEST(BadInput, FailingTermsManifoldsAndCallbacks) {
  {
    Good good;
    auto term = std::make_unique<SquareTerm>();
    term->fails = true;
    good.problem.AddTerm(Level::kLower, std::move(term), {{&good.y, 1}});
    EXPECT_THAT(good.Refusal(), HasSubstr("general term 0 of the lower problem"));
  }
  {
    class Throwing : public SquareTerm {
     public:
      bool Evaluate(double const* const*, const Batch&, double*, double**) const override {
        throw "a string";
      }
    };
    Good good;
    good.problem.AddTerm(Level::kLower, std::make_unique<Throwing>(), {{&good.y, 1}});
    EXPECT_THAT(good.Refusal(), HasSubstr("general term 0 of the lower problem"));
  }
  {
    class Broken : public ceres::Manifold {
     public:
      int AmbientSize() const override { return 1; }
      int TangentSize() const override { return 1; }
      bool Plus(const double* x, const double* d, double* sum) const override {
        sum[0] = x[0] + d[0];
        return true;
      }
      bool PlusJacobian(const double*, double* jacobian) const override {
        jacobian[0] = 1.0;
        return !broken;
      }
      bool broken = false;
      bool Minus(const double* y, const double* x, double* difference) const override {
        difference[0] = y[0] - x[0];
        return true;
      }
      bool MinusJacobian(const double*, double*) const override { return false; }
    };
    class Wild : public Broken {
     public:
      bool PlusJacobian(const double* x, double* jacobian) const override {
        if (broken) throw 1;
        return Broken::PlusJacobian(x, jacobian);
      }
    };
    for (Broken* manifold : {new Broken, static_cast<Broken*>(new Wild)}) {
      Good good;
      good.problem.lower()->SetManifold(&good.y, manifold);  // Ceres itself needs it to work.
      manifold->broken = true;
      std::string error;
      EXPECT_FALSE(good.problem.IsValid(&error));
      EXPECT_FALSE(error.empty());
    }
  }
  class Aborting : public IterationCallback {
   public:
    ceres::CallbackReturnType operator()(const IterationSummary& summary) override {
      if (summary.iteration < 1) return ceres::SOLVER_CONTINUE;
      if (throws) throw throws;
      return ceres::SOLVER_ABORT;
    }
    int throws = 0;
  };
  for (const char* method : {"levenberg_marquardt", "lbfgs"}) {
    Good good;
    Aborting callback;
    good.options.method = CreateMethod(method);
    good.options.callbacks.push_back(&callback);
    Solver::Summary summary;
    Solve(good.options, &good.problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::USER_FAILURE);
    EXPECT_THAT(summary.message, HasSubstr("callback"));
    EXPECT_EQ(good.x, 1.0);
    EXPECT_EQ(good.y, 0.5);
    callback.throws = 5;
    EXPECT_THAT(good.Failure(), HasSubstr("threw"));
  }
}

TEST(BadInput, LowerLevelsWithoutASolution) {
  class Linear : public ceres::FirstOrderFunction {
   public:
    int NumParameters() const override { return 1; }
    bool Evaluate(const double* y, double* value, double* gradient) const override {
      *value = slope * y[0] + curvature * y[0] * y[0];
      if (gradient) gradient[0] = slope + 2.0 * curvature * y[0];
      return true;
    }
    double slope = 1.0, curvature = 0.0;
  };
  for (const double curvature : {0.0, -0.25}) {  // Unbounded below.
    double x = 1.0, y = 0.5;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    auto term = std::make_unique<Linear>();
    term->curvature = curvature;
    problem.AddTerm(Level::kLower, std::move(term), &y);
    problem.upper()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    Solver::Summary summary;
    Solve(Solver::Options(), &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    EXPECT_THAT(summary.message, AllOf(HasSubstr("lower level"), HasSubstr("unbounded below")));
    EXPECT_EQ(x, 1.0);
    EXPECT_EQ(y, 0.5);
  }
  {  // (y^2 - 1)^2 from its maximum, which is left.
    Good good;
    double w = 0.0;
    good.problem.SetParameterName(&w, "the_w");
    good.problem.lower()->AddResidualBlock(Cost({1},
                                                [](double const* const* p, double* r, double** j) {
                                                  r[0] = p[0][0] * p[0][0] - 1.0;
                                                  if (j && j[0]) j[0][0] = 2.0 * p[0][0];
                                                  return true;
                                                }),
                                           nullptr,
                                           &w);
    Solver::Summary summary;
    Solve(Solver::Options(), &good.problem, &summary);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.message;
    EXPECT_NEAR(std::abs(w), 1.0, 1e-9);
  }
  {  // A free direction that the upper level sees.
    Good good;
    good.problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &good.y, &good.z);
    double w = 0.0;
    good.problem.SetParameterName(&w, "the_w");
    good.problem.lower()->AddResidualBlock(Cost({1, 1},
                                                [](double const* const* p, double* r, double** j) {
                                                  r[0] = p[0][0] - p[0][0] * 0.0 * p[1][0];
                                                  if (j && j[0]) j[0][0] = 1.0;
                                                  if (j && j[1]) j[1][0] = 0.0;
                                                  return true;
                                                }),
                                           nullptr,
                                           &good.y,
                                           &w);
    good.problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &w);
    good.options.method = CreateMethod("levenberg_marquardt");
    EXPECT_THAT(good.Failure(),
                AllOf(HasSubstr("'the_w'"), HasSubstr("free"), HasSubstr("\"optimistic\"")));
    const double x = good.x, y = good.y, z = good.z;
    good.options.method = CreateMethod("auto");  // Takes that advice itself.
    Solver::Summary summary;
    Solve(good.options, &good.problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
    EXPECT_NEAR(w, 1.0, 1e-8);
    good.x = x;
    good.y = y;
    good.z = z;
    w = 0.0;
    good.options.singular_handling = SingularHandling::kRefuse;
    EXPECT_THAT(good.Failure(), AllOf(HasSubstr("'the_w'"), HasSubstr("singular")));
  }
}

TEST(BadInput, AbsurdOptions) {
  const auto message = [](const std::function<void(Solver::Options*)>& spoil) {
    Good good;
    spoil(&good.options);
    std::string error;
    EXPECT_FALSE(good.options.IsValid(&error));
    EXPECT_EQ(good.Failure(), error);
    return error;
  };
  using Options = Solver::Options;
  for (const double bad : {-1.0, kNaN}) {
    EXPECT_THAT(message([=](Options* o) { o->lower_tolerance = bad; }),
                HasSubstr("lower_tolerance"));
    EXPECT_THAT(message([=](Options* o) { o->gradient_tolerance = bad; }),
                HasSubstr("gradient_tolerance"));
    EXPECT_THAT(message([=](Options* o) { o->function_tolerance = bad; }),
                HasSubstr("function_tolerance"));
    EXPECT_THAT(message([=](Options* o) { o->parameter_tolerance = bad; }),
                HasSubstr("parameter_tolerance"));
    EXPECT_THAT(message([=](Options* o) { o->max_solver_time_in_seconds = bad; }),
                HasSubstr("max_solver_time_in_seconds"));
  }
  EXPECT_THAT(message([](Options* o) { o->max_num_iterations = -1; }),
              HasSubstr("max_num_iterations"));
  EXPECT_THAT(message([](Options* o) { o->max_num_lower_newton_iterations = -1; }),
              HasSubstr("max_num_lower_newton_iterations"));
  for (const int threads : {0, -3, 1000000000}) {
    EXPECT_THAT(message([=](Options* o) { o->num_threads = threads; }), HasSubstr("num_threads"));
  }
  EXPECT_THAT(message([](Options* o) { o->lower_solver_options.max_num_iterations = -1; }),
              AllOf(HasSubstr("lower_solver_options"), HasSubstr("max_num_iterations")));
  EXPECT_THAT(message([](Options* o) { o->method = CreateMethod("gradient_ascent"); }),
              AllOf(HasSubstr("method"), Not(HasSubstr("auto (\""))));
  for (const std::string& name : ListMethods()) EXPECT_NE(CreateMethod(name), nullptr) << name;
}

}  // namespace
}  // namespace bilevel
