// Estimators of the hypergradient against closed forms and against differences of what they claim
// to differentiate.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/program/program.h"
#include "examples/support/toy_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

// g = 1/2 y'Hy - y'(x + d) as residuals, H = diag(1, 4): y* = H^-1 (x + d).
struct Lower {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - (x[0] + 0.3);
    r[1] = 2.0 * y[1] - (x[1] - 0.7) / 2.0;
    return true;
  }
};
// f = 1/2 |y - b|^2 + 1/2 * 0.1 |x|^2.
struct Upper {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - 2.0;
    r[1] = y[1] + 1.0;
    r[2] = std::sqrt(0.1) * x[0];
    r[3] = std::sqrt(0.1) * x[1];
    return true;
  }
};

struct Quadratic {
  double x[2] = {0.5, -0.2}, y[2] = {0.0, 0.0};
  Problem problem;
  Quadratic() {
    problem.AddUpperParameterBlock(x, 2);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Lower, 2, 2, 2>(new Lower), nullptr, x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Upper, 4, 2, 2>(new Upper), nullptr, x, y);
  }
  // d phi / dx by hand.
  static double Gradient(int i, double x) {
    return i == 0 ? (x + 0.3 - 2.0) + 0.1 * x : 0.25 * ((x - 0.7) / 4.0 + 1.0) + 0.1 * x;
  }
};

class Estimation {
 public:
  explicit Estimation(Problem* problem) {
    std::string error;
    program_ = problem->Compile({}, &error);
    EXPECT_TRUE(program_) << error;
    NewtonLowerSolver::Options options;
    lower_ = std::make_unique<NewtonLowerSolver>(program_.get(), options);
    oracle_ = std::make_unique<Oracle>(program_.get(), lower_.get(), 1);
    state_.x = Point(&program_->x);
    state_.y = Point(&program_->y);
    program_->x.ReadUser(state_.x.value().data());
    program_->y.ReadUser(state_.y.value().data());
  }
  Vector Run(HypergradientEstimator* estimator, double* value = nullptr) {
    Vector gradient;
    const double f = estimator->Estimate(*oracle_, state_, &gradient);
    if (value) *value = f;
    EXPECT_TRUE(oracle_->ok()) << oracle_->error();
    return gradient;
  }
  State& state() { return state_; }

 private:
  std::unique_ptr<Program> program_;
  std::unique_ptr<NewtonLowerSolver> lower_;
  std::unique_ptr<Oracle> oracle_;
  State state_;
};

TEST(HypergradientEstimators, ConvergeToTheClosedForm) {
  Quadratic q;
  AidHypergradient::Options aid;
  aid.num_lower_steps = 300;
  aid.lower_step = aid.linear_step = 0.3;
  aid.num_linear_iterations = 300;
  AidHypergradient::Options fixed_point = aid, solved = aid;
  fixed_point.kind = AdjointSteps::kFixedPoint;
  solved.num_lower_steps = 0;
  UnrolledHypergradient::Options itd;
  itd.num_lower_steps = 300;
  itd.lower_step = 0.3;
  UnrolledHypergradient::Options heavy_ball = itd;
  heavy_ball.momentum = 0.5;
  std::vector<std::unique_ptr<HypergradientEstimator>> estimators;
  estimators.push_back(std::make_unique<ExactHypergradient>());
  estimators.push_back(std::make_unique<AidHypergradient>(aid));
  estimators.push_back(std::make_unique<AidHypergradient>(fixed_point));
  estimators.push_back(std::make_unique<AidHypergradient>(solved));
  estimators.push_back(std::make_unique<UnrolledHypergradient>(itd));
  estimators.push_back(std::make_unique<UnrolledHypergradient>(heavy_ball));
  for (const auto& estimator : estimators) {
    const Vector gradient = Estimation(&q.problem).Run(estimator.get());
    EXPECT_NEAR(gradient[0], Quadratic::Gradient(0, q.x[0]), 1e-11);
    EXPECT_NEAR(gradient[1], Quadratic::Gradient(1, q.x[1]), 1e-11);
  }
}

// K reverse steps of a converged unroll are K terms of Neumann's series: the relative error of
// component i is (1 - alpha h_i)^K of its implicit part.
TEST(HypergradientEstimators, TruncationIsNeumanns) {
  Quadratic q;
  UnrolledHypergradient::Options options;
  options.num_lower_steps = 300;
  options.lower_step = 0.2;
  options.num_reverse_steps = 4;
  UnrolledHypergradient estimator(options);
  AidHypergradient::Options series;
  series.num_lower_steps = 0;
  series.kind = AdjointSteps::kNeumann;
  series.num_linear_iterations = 4;
  series.linear_step = 0.2;
  AidHypergradient neumann(series);
  for (HypergradientEstimator* each : {static_cast<HypergradientEstimator*>(&estimator),
                                       static_cast<HypergradientEstimator*>(&neumann)}) {
    const Vector gradient = Estimation(&q.problem).Run(each);
    const double h[2] = {1.0, 4.0};
    for (int i = 0; i < 2; ++i) {
      const double direct = 0.1 * q.x[i], implicit = Quadratic::Gradient(i, q.x[i]) - direct;
      const double kept = 1.0 - std::pow(1.0 - 0.2 * h[i], 4);
      EXPECT_NEAR(gradient[i], direct + kept * implicit, 1e-9);
    }
  }
}

// On a manifold the unroll is the derivative of f(x, y_T(x)) as a function: few steps, far from y*.
struct Rotate {
  template <typename T>
  bool operator()(const T* x, const T* q, T* r) const {
    for (int i = 0; i < 4; ++i) r[i] = q[i] - (0.5 + 0.1 * i) * x[0] - (i == 2 ? x[1] : T(0.0));
    return true;
  }
};
struct Look {
  template <typename T>
  bool operator()(const T* x, const T* q, T* r) const {
    r[0] = q[0] * q[1] - 0.1;
    r[1] = q[2] + 0.3 * q[3] * x[0];
    return true;
  }
};

TEST(HypergradientEstimators, UnrollOnAManifoldDifferentiatesTheUnroll) {
  double x[2] = {0.8, 0.3}, q[4] = {0.9, 0.1, -0.3, 0.2};
  const double norm = std::sqrt(0.81 + 0.01 + 0.09 + 0.04);
  for (double& entry : q) entry /= norm;
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Rotate, 4, 2, 4>(new Rotate), nullptr, x, q);
  problem.lower()->SetManifold(q, new ceres::QuaternionManifold);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<Look, 2, 2, 4>(new Look), nullptr, x, q);
  for (const double momentum : {0.0, 0.6}) {
    UnrolledHypergradient::Options options;
    options.num_lower_steps = 5;
    options.lower_step = 0.4;
    options.momentum = momentum;
    UnrolledHypergradient estimator(options);
    const Vector gradient = Estimation(&problem).Run(&estimator);
    for (int i = 0; i < 2; ++i) {
      const auto value = [&](double h) {
        const double saved = x[i];
        x[i] += h;
        double f;
        Estimation(&problem).Run(&estimator, &f);
        x[i] = saved;
        return f;
      };
      const auto central = [&](double h) { return (value(h) - value(-h)) / (2.0 * h); };
      const double expected = (4.0 * central(5e-4) - central(1e-3)) / 3.0;
      EXPECT_NEAR(gradient[i], expected, 1e-9) << "momentum " << momentum;
    }
  }
}

TEST(GradientMethods, AllReachTheMinimiser) {
  for (const char* name : {"gradient_descent",
                           "momentum",
                           "adam",
                           "aid_cg",
                           "aid_minres",
                           "aid_fp",
                           "aid_neumann",
                           "itd",
                           "truncated_itd"}) {
    Quadratic q;
    Solver::Options options;
    options.method = CreateMethod(name);
    options.max_num_iterations = 3000;
    Solver::Summary summary;
    Solve(options, &q.problem, &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << name << summary.FullReport();
    // K reverse steps keep 1 - (1 - 0.1 h)^K of the implicit part, which biases the fixed point.
    const std::string n = name;
    const int steps = n == "itd" || n == "aid_neumann" ? 10 : n == "truncated_itd" ? 5 : 1000000;
    const double kept[2] = {1.0 - std::pow(0.9, steps), 1.0 - std::pow(0.6, steps)};
    EXPECT_NEAR(q.x[0], 1.7 * kept[0] / (kept[0] + 0.1), 1e-6) << name;
    EXPECT_NEAR(q.x[1], -0.25 * kept[1] * (1.0 - 0.7 / 4.0) / (kept[1] / 16.0 + 0.1), 1e-6) << name;
  }
}

TEST(GradientMethods, NormalisedStepsHaveTheirLength) {
  Quadratic q;
  StepRule rule;
  rule.kind = StepRule::kNormalized;
  rule.step = 0.01;
  Solver::Options options;
  options.method =
      std::make_shared<GradientMethod>("normalized", std::make_unique<ExactHypergradient>(), rule);
  options.max_num_iterations = 30;
  Solver::Summary summary;
  Solve(options, &q.problem, &summary);
  ASSERT_EQ(summary.iterations.size(), 31u);
  for (size_t k = 1; k < summary.iterations.size(); ++k) {
    const auto &now = summary.iterations[k].x, &before = summary.iterations[k - 1].x;
    EXPECT_NEAR(std::hypot(now[0] - before[0], now[1] - before[1]), 0.01, 1e-14);
  }
}

// phi = x^2 + sign(x) jumps at 0. Descent from 0.8 converges to 0 from above, where phi is 1 rather
// than its infimum -1, and never steps over the edge.
TEST(GradientMethods, ReportTheJumpTheyStopAt) {
  examples::Toy toy = examples::Discontinuous();
  const auto problem = toy.Build();
  Solver::Options options;
  options.method = CreateMethod("gradient_descent");
  options.max_num_iterations = 200;
  Solver::Summary summary;
  Solve(options, problem.get(), &summary);
  EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(summary.final_objective, 1.0, 1e-9);
  EXPECT_THAT(summary.FullReport(), testing::HasSubstr("phi jumps from -1 to 1 at x = ("));
  // None where there is none.
  Quadratic q;
  Solve(options, &q.problem, &summary);
  EXPECT_TRUE(summary.assessment.notes.empty()) << summary.FullReport();
}

// The projected gradient counts: x ends at its bound.
TEST(GradientMethods, ConvergeAtABound) {
  examples::Toy toy = examples::Corner(1);
  toy.x_bound = 0.75;
  const auto problem = toy.Build();
  Solver::Options options;
  options.method = CreateMethod("gradient_descent");
  options.max_num_iterations = 200;
  Solver::Summary summary;
  Solve(options, problem.get(), &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_EQ(toy.x[0], 0.75);
}

// y held at a bound does not follow x: phi' = 1/2 beyond it, 1/2 - 1 before.
TEST(HypergradientEstimators, LowerBounds) {
  AidHypergradient::Options aid;
  aid.num_lower_steps = 50;
  aid.lower_step = 0.5;
  UnrolledHypergradient::Options itd;
  itd.num_lower_steps = 50;
  itd.lower_step = 0.5;
  std::vector<std::unique_ptr<HypergradientEstimator>> estimators;
  estimators.push_back(std::make_unique<ExactHypergradient>());
  estimators.push_back(std::make_unique<AidHypergradient>(aid));
  estimators.push_back(std::make_unique<UnrolledHypergradient>(itd));
  for (const auto& estimator : estimators) {
    for (const double x : {1.5, 0.4}) {
      examples::Toy toy = examples::Corner(1);
      toy.x = {x};
      const auto problem = toy.Build();
      const Vector gradient = Estimation(problem.get()).Run(estimator.get());
      EXPECT_NEAR(gradient[0], x > 1.0 ? 0.5 : -0.5, 1e-12);
    }
  }
}

TEST(GradientMethods, NonsenseIsNamed) {
  StepRule rule;
  rule.step = -1.0;
  Quadratic q;
  Solver::Options options;
  options.method =
      std::make_shared<GradientMethod>("mine", std::make_unique<ExactHypergradient>(), rule);
  Solver::Summary summary;
  Solve(options, &q.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(summary.message, testing::HasSubstr("mine.step must be positive"));
}

}  // namespace
}  // namespace bilevel
