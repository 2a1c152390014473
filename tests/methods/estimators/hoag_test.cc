// The schedule of tolerances keeps what it promises, beside exact hypergradients along the same
// path, and is cheaper.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/program/program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

constexpr int kFeatures = 60, kTrain = 300, kValidation = 150;

// Weights for samples of which a third have the wrong label; features of unequal size.
struct Cleaning {
  std::vector<double> x, theta;
  Problem problem;
  std::unique_ptr<Program> program;

  Cleaning() : x(kTrain, 0.0), theta(kFeatures, 0.0) {
    std::mt19937 generator(5);
    std::normal_distribution<double> normal;
    Vector truth(kFeatures);
    for (double& t : truth) t = normal(generator);
    const auto make = [&](int n, double wrong, Matrix* a, std::vector<int>* labels) {
      a->resize(n, kFeatures);
      labels->resize(n);
      for (int i = 0; i < n; ++i) {
        for (int j = 0; j < kFeatures; ++j) (*a)(i, j) = normal(generator) / std::sqrt(1.0 + j);
        (*labels)[i] = a->row(i).dot(truth) + 0.3 * normal(generator) > 0.0;
        if (std::uniform_real_distribution<>(0.0, 1.0)(generator) < wrong) {
          (*labels)[i] = 1 - (*labels)[i];
        }
      }
    };
    Matrix a, clean;
    std::vector<int> labels, clean_labels;
    make(kTrain, 0.3, &a, &labels);
    make(kValidation, 0.0, &clean, &clean_labels);
    LinearModel::Options weighted;
    weighted.weights = LinearModel::kSigmoid;
    problem.AddUpperParameterBlock(x.data(), kTrain);
    problem.AddTerm(Level::kLower,
                    LogisticRegression(Features(a), labels, weighted),
                    {{theta.data(), kFeatures}, {x.data(), kTrain}});
    problem.AddTerm(Level::kLower,
                    std::make_unique<L2Regularizer>(1, kFeatures, 1e-3),
                    {{theta.data(), kFeatures}});
    problem.AddTerm(Level::kUpper,
                    LogisticRegression(Features(clean), clean_labels),
                    {{theta.data(), kFeatures}});
    std::string error;
    program = problem.Compile({}, &error);
    EXPECT_TRUE(program) << error;
  }
  State Start() const {
    State state{Point(&program->x), Point(&program->y), {}, {}};
    program->x.ReadUser(state.x.value().data());
    program->y.ReadUser(state.y.value().data());
    return state;
  }
};

template <typename LowerSolverType>
void FollowAPath(double accuracy, double largest_share) {
  constexpr int kIterations = 100;
  Cleaning cleaning;
  typename LowerSolverType::Options lower_options;
  LowerSolverType lower(cleaning.program.get(), lower_options);
  LowerSolverType reference(cleaning.program.get(), lower_options);
  Oracle oracle(cleaning.program.get(), &lower, 1);
  Oracle exact_oracle(cleaning.program.get(), &reference, 1);
  HoagHypergradient::Options options;
  options.accuracy = accuracy;
  HoagHypergradient hoag(options);
  ExactHypergradient exact;
  State state = cleaning.Start(), exact_state = cleaning.Start();
  ASSERT_EQ(hoag.Check(oracle), "");
  Vector gradient(kTrain), exact_gradient(kTrain);
  double worst = 0.0, first_norm = 0.0;
  for (int k = 0; k < kIterations; ++k) {
    hoag.Estimate(oracle, state, &gradient);
    exact_state.x = state.x;
    exact.Estimate(exact_oracle, exact_state, &exact_gradient);
    ASSERT_TRUE(oracle.ok() && exact_oracle.ok()) << oracle.error() << exact_oracle.error();
    worst = std::max(worst, (gradient - exact_gradient).norm() / exact_gradient.norm());
    if (k == 0) first_norm = exact_gradient.norm();
    ASSERT_TRUE(state.x.Move(-200.0 * gradient));
  }
  EXPECT_LT(exact_gradient.norm(), 0.2 * first_norm);  // A way has been gone.
  EXPECT_LT(worst, accuracy);
  const auto steps = [](const LowerSolver& solver) {
    return solver.counts().gradient_steps + solver.counts().chord_steps +
           solver.counts().factorizations;
  };
  EXPECT_LT(steps(lower), largest_share * steps(reference));
}

TEST(Hoag, IsAsExactAsPromisedWithoutAMatrix) {
  FollowAPath<NewtonCgLowerSolver>(0.1, 0.25);
  FollowAPath<NewtonCgLowerSolver>(0.01, 0.3);
}

TEST(Hoag, IsAsExactAsPromisedWithAFactorisation) { FollowAPath<NewtonLowerSolver>(0.1, 0.7); }

TEST(Hoag, ReachesTheStationaryPointAndSaysHow) {
  Cleaning cleaning;
  StepRule rule;
  rule.step = 200.0;
  Solver::Options options;
  options.method = std::make_shared<GradientMethod>(
      "hoag", std::make_unique<HoagHypergradient>(HoagHypergradient::Options()), rule);
  options.lower_solver = [](Program* program) {
    return std::make_unique<NewtonCgLowerSolver>(program, NewtonCgLowerSolver::Options());
  };
  options.max_num_iterations = 3000;
  options.gradient_tolerance = 1e-5;
  Solver::Summary summary;
  Solve(options, &cleaning.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_LT(summary.final_lower_level_decrement, 1e-10);
  EXPECT_THAT(summary.FullReport(), HasSubstr("the last hypergradient came from a lower level"));
}

TEST(Hoag, NonsenseIsNamed) {
  Cleaning cleaning;
  const auto message = [&](double accuracy, Solver::Options options) {
    HoagHypergradient::Options hoag;
    hoag.accuracy = accuracy;
    options.method = std::make_shared<GradientMethod>(
        "hoag", std::make_unique<HoagHypergradient>(hoag), StepRule());
    Solver::Summary summary;
    Solve(options, &cleaning.problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    return summary.message;
  };
  EXPECT_THAT(message(0.0, {}), HasSubstr("hoag.accuracy must be between 0 and 1"));
  EXPECT_THAT(message(std::nan(""), {}), HasSubstr("hoag.accuracy"));
  struct Stubborn : NewtonCgLowerSolver {
    using NewtonCgLowerSolver::NewtonCgLowerSolver;
    bool has_tolerance() const override { return false; }
  };
  Solver::Options without_tolerance;
  without_tolerance.lower_solver = [](Program* program) {
    return std::make_unique<Stubborn>(program, NewtonCgLowerSolver::Options());
  };
  EXPECT_THAT(message(0.1, without_tolerance), HasSubstr("lower_solver has no tolerance"));
}

}  // namespace
}  // namespace bilevel
