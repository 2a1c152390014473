// BOME against closed forms and against the values that its authors' toy settings give.
#include "bilevel/methods/value_function/bome.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "examples/support/toy_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sphere.h"

namespace bilevel {
namespace {

using examples::Toy;
using testing::HasSubstr;

// Keeps the method's own y, which Solve does not return.
class KeepY : public IterationCallback {
 public:
  explicit KeepY(const std::vector<double>* y) : y_(y) {}
  ceres::CallbackReturnType operator()(const IterationSummary&) override {
    path.push_back(*y_);
    return ceres::SOLVER_CONTINUE;
  }
  std::vector<std::vector<double>> path;

 private:
  const std::vector<double>* y_;
};

struct Outcome {
  Solver::Summary summary;
  std::vector<std::vector<double>> y_path;
};

Outcome SolveToy(Toy* toy, const Bome::Options& bome, int num_iterations) {
  const auto problem = toy->Build();
  KeepY keep(&toy->y);
  Solver::Options options;
  options.method = std::make_shared<Bome>(bome);
  options.max_num_iterations = num_iterations;
  options.update_state_every_iteration = true;
  options.callbacks = {&keep};
  Outcome run;
  Solve(options, problem.get(), &run.summary);
  run.y_path = keep.path;
  return run;
}

double SquaredDistance(const std::vector<double>& y) {
  return (y[0] - 3.0) * (y[0] - 3.0) + (y[1] + 2.0) * (y[1] + 2.0);
}

constexpr double kCoresetStarts[3][2] = {{0, 3}, {-3, 1}, {3.5, -1}};  // The paper's.

// With Adam on x: plain steps of 0.05 approach the vertex of the simplex like 1 / k.
TEST(Bome, CoresetFromThePapersStarts) {
  for (const auto& start : kCoresetStarts) {
    Toy toy = examples::Coreset(start[0], start[1]);
    Bome::Options bome;
    bome.x.kind = StepRule::kAdam;
    bome.x.step = 0.1;
    const Outcome run = SolveToy(&toy, bome, 5000);
    ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
    EXPECT_LE(SquaredDistance(toy.y), 7.2 + 1e-3);
    EXPECT_NEAR(run.summary.final_objective, 0.1 * SquaredDistance(toy.y), 1e-12);
    EXPECT_NEAR(toy.y[0], 1.8, 5e-3);
    EXPECT_NEAR(toy.y[1], 0.4, 5e-3);
  }
}

// The method's own y after the authors' 5000 iterations, from an independent implementation; the
// last digits depend on the phase of a limit cycle.
TEST(Bome, CoresetEndsWhereTheAuthorsSettingsEnd) {
  for (const auto barrier : {Bome::kGradientBarrier, Bome::kValueBarrier}) {
    for (const auto& start : kCoresetStarts) {
      Toy toy = examples::Coreset(start[0], start[1]);
      Bome::Options bome;
      bome.barrier = barrier;
      bome.lower_level = Bome::kGradientSteps;
      bome.epsilon = 1e-4;
      const Outcome run = SolveToy(&toy, bome, 5000);
      ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
      const std::vector<double>& y = run.y_path.back();
      EXPECT_NEAR(y[0], 1.818, 0.03);
      EXPECT_NEAR(y[1], 0.386, 0.03);
      EXPECT_NEAR(SquaredDistance(y), 7.088, 0.05);
      EXPECT_NEAR(run.summary.iterations.back().lower_gap, 9.7e-4, 5e-4);
      // What is returned is feasible, hence worse.
      EXPECT_GT(SquaredDistance(toy.y), 7.2);
      EXPECT_GT(run.summary.final_lower_gap, 5e-4);
    }
  }
}

TEST(Bome, MinMaxFromThePapersStart) {
  Toy toy = examples::MinMax();
  Bome::Options bome;
  bome.lower_level = Bome::kGradientSteps;
  const Outcome run = SolveToy(&toy, bome, 500);
  ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
  const auto& iterations = run.summary.iterations;
  // Values from an independent implementation.
  EXPECT_NEAR(iterations[51].x[0], -1.711, 1e-3);  // It counts from the end of the first.
  EXPECT_NEAR(run.y_path[51][0], 1.279, 1e-3);
  EXPECT_LE(std::abs(iterations[500].x[0]), 1e-3);
  EXPECT_LE(std::abs(run.y_path[500][0]), 1e-3);
  // y*(x) is at the other end of the box, whatever small x is; the answer says so.
  EXPECT_EQ(std::abs(toy.y[0]), 10.0);
  EXPECT_NEAR(run.summary.final_objective, 10.0 * std::abs(toy.x[0]), 1e-12);
}

// The saddle itself, where that is asked for; phi is still that of y*(x).
TEST(Bome, MinMaxLeavesItsOwnY) {
  Toy toy = examples::MinMax();
  Bome::Options bome;
  bome.lower_level = Bome::kGradientSteps;
  Solver::Options options;
  options.method = std::make_shared<Bome>(bome);
  options.max_num_iterations = 500;
  options.keep_own_y = true;
  Solver::Summary summary;
  Solve(options, toy.Build().get(), &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(toy.x[0], 0.0, 1e-3);
  EXPECT_NEAR(toy.y[0], 0.0, 1e-3);
  EXPECT_NEAR(summary.final_objective, 10.0 * std::abs(toy.x[0]), 1e-12);
  EXPECT_NEAR(summary.final_objective_at_own_y, toy.x[0] * toy.y[0], 1e-15);
  EXPECT_NEAR(summary.final_lower_gap, summary.final_objective - toy.x[0] * toy.y[0], 1e-12);
}

TEST(Bome, DegenerateLowerLevel) {
  for (const int num_lower_steps : {0, 1, 10, 100}) {
    Toy toy = examples::Degenerate();
    Bome::Options bome;
    bome.x.step = bome.y.step = bome.lower_step = 0.5;  // The authors'.
    if (num_lower_steps > 0) {
      bome.lower_level = Bome::kGradientSteps;
      bome.num_lower_steps = num_lower_steps;
    }
    const Outcome run = SolveToy(&toy, bome, 2000);
    ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
    EXPECT_NEAR(toy.x[0], 1.0, 1e-6) << num_lower_steps;
    EXPECT_NEAR(toy.y[0], 1.0, 1e-6) << num_lower_steps;
    EXPECT_NEAR(toy.y[1], 1.0, 1e-6) << num_lower_steps;
    EXPECT_LT(run.summary.final_objective, 1e-12);
  }
}

// Theorem 1 on the coreset problem: the least K(x_k, y_k) over K iterations falls like K^(-1/4), or
// faster, with steps of K^(-1/2), and like K^(-1/3) with steps of K^(-2/3) where y_0 is solved.
TEST(Bome, TheoremOneHoldsOnItsScale) {
  for (const bool from_solved : {false, true}) {
    const double exponent = from_solved ? -2.0 / 3.0 : -0.5,
                 bound = from_solved ? -1.0 / 3.0 : -0.25;
    std::vector<double> least;
    const std::vector<int> numbers{100, 400, 1600, 6400};
    for (const int num_iterations : numbers) {
      Toy toy = examples::Coreset(from_solved ? -0.25 : 0.0, from_solved ? 1.0 : 3.0);
      Bome::Options bome;
      bome.lower_level = Bome::kGradientSteps;
      bome.num_lower_steps = 60;  // exp(-b T) is rounding.
      bome.lower_step = 0.25;
      bome.x.step = bome.y.step = 0.5 * std::pow(num_iterations / 100.0, exponent);
      const Outcome run = SolveToy(&toy, bome, num_iterations);
      double smallest = 1e300;
      for (const IterationSummary& it : run.summary.iterations) {
        smallest = std::min(smallest, it.kkt_loss);
      }
      least.push_back(smallest);
    }
    const double slope =
        std::log(least.back() / least.front()) / std::log(1.0 * numbers.back() / numbers.front());
    EXPECT_LE(slope, bound) << least.front() << " " << least.back();
    RecordProperty(from_solved ? "slope_from_solved" : "slope", std::to_string(slope));
  }
}

TEST(Bome, NonUniqueLowerLevel) {
  Toy toy = examples::NonUnique();
  Bome::Options bome;
  bome.x.step = bome.y.step = 0.1;
  const Outcome run = SolveToy(&toy, bome, 2000);
  ASSERT_TRUE(run.summary.IsSolutionUsable()) << run.summary.FullReport();
  EXPECT_NEAR(toy.x[0], 5.0 / 3.0, 1e-4);
  EXPECT_NEAR(toy.y[0], 1.0 / 3.0, 1e-4);
  EXPECT_NEAR(run.summary.final_objective, 2.0 / 3.0, 1e-6);
}

TEST(Bome, ReportsAJumpAndDoesNotCallItConvergence) {
  Toy toy = examples::Discontinuous();
  const Outcome run = SolveToy(&toy, {}, 1000);
  EXPECT_EQ(run.summary.termination_type, ceres::NO_CONVERGENCE);
  EXPECT_THAT(run.summary.FullReport(), HasSubstr("phi jumps from -1 to 1 at x = ("));
}

// g = 1/2 h (y - x)^2, f = 1/2 (y - 1)^2 + 1/2 r x^2.
struct Follow {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = std::sqrt(kCurvature) * (y[0] - x[0]);
    return true;
  }
  static constexpr double kCurvature = 2.0;
};
struct NearOne {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - 1.0;
    r[1] = std::sqrt(kRidge) * x[0];
    return true;
  }
  static constexpr double kRidge = 0.5;
};

struct Scalar {
  double x = 0.2, y = 0.7;
  Problem problem;
  Scalar() {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Follow, 1, 1, 1>(new Follow), nullptr, &x, &y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<NearOne, 2, 1, 1>(new NearOne), nullptr, &x, &y);
  }
  Solver::Summary Solve(const Bome::Options& bome, int num_iterations) {
    Solver::Options options;
    options.method = std::make_shared<Bome>(bome);
    options.max_num_iterations = num_iterations;
    Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
    return summary;
  }
};

// T steps keep the share 1 - (1 - alpha h)^T of the implicit part of the hypergradient, whose zero
// is then x = share / (share + r) rather than 1 / (1 + r).
TEST(Bome, BiasOfXIsNeumannsTruncationAndIsEstimated) {
  for (const int num_lower_steps : {1, 3, 10}) {
    Bome::Options bome;
    bome.lower_level = Bome::kGradientSteps;
    bome.num_lower_steps = num_lower_steps;
    bome.lower_step = 0.1;
    bome.x.step = bome.y.step = 2e-3;
    Scalar scalar;
    const Solver::Summary summary = scalar.Solve(bome, 40000);
    const double share = 1.0 - std::pow(1.0 - 0.1 * Follow::kCurvature, num_lower_steps);
    const double biased = share / (share + NearOne::kRidge), exact = 1.0 / (1.0 + NearOne::kRidge);
    EXPECT_NEAR(scalar.x, biased, 0.01) << num_lower_steps;
    EXPECT_NEAR(scalar.y, scalar.x, 1e-9);  // Solved, though BOME's own was not.
    EXPECT_GT(summary.final_lower_gap, 0.0);
    // To first order, exact for a quadratic phi: A^-1 (h - h_T) = (1 - share)(1 - x) / (1 + r).
    const double expected = (1.0 - share) * (1.0 - scalar.x) / (1.0 + NearOne::kRidge);
    EXPECT_NEAR(summary.assessment.x_bias, expected, 1e-4);
    EXPECT_NEAR(summary.assessment.x_bias, exact - biased, 0.02);
    EXPECT_THAT(summary.FullReport(), HasSubstr("Bias of x, estimated"));
  }
  Scalar scalar;
  Bome::Options bome;
  bome.x.step = bome.y.step = 2e-3;
  const Solver::Summary summary = scalar.Solve(bome, 40000);
  EXPECT_NEAR(scalar.x, 1.0 / (1.0 + NearOne::kRidge), 2e-3);
  EXPECT_TRUE(std::isnan(summary.assessment.x_bias));
}

// Two of the above whose lower levels differ in curvature: T steps below 2 / L hardly move the
// second y_hat and bias its x; in the metric of block-Jacobi they arrive.
struct FollowTwo {
  template <typename T>
  bool operator()(const T* x, const T* y, const T* z, T* r) const {
    r[0] = y[0] - x[0];
    r[1] = std::sqrt(0.03) * (z[0] - x[1]);
    return true;
  }
};
struct NearOneTwo {
  template <typename T>
  bool operator()(const T* x, const T* y, const T* z, T* r) const {
    r[0] = y[0] - 1.0;
    r[1] = z[0] - 1.0;
    for (int i = 0; i < 2; ++i) r[2 + i] = std::sqrt(NearOne::kRidge) * x[i];
    return true;
  }
};

TEST(Bome, JacobiStepsAreNotBiased) {
  for (const bool jacobi : {false, true}) {
    double x[2] = {0.2, 0.2}, y = 0.3, z = 0.3;
    Problem problem;
    problem.AddUpperParameterBlock(x, 2);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<FollowTwo, 2, 2, 1, 1>(new FollowTwo), nullptr, x, &y, &z);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<NearOneTwo, 4, 2, 1, 1>(new NearOneTwo), nullptr, x, &y, &z);
    Bome::Options bome;
    bome.lower_level = Bome::kGradientSteps;
    bome.lower_step = 0.9;
    bome.num_lower_steps = 5;
    bome.jacobi = jacobi;
    bome.x.step = bome.y.step = 2e-3;
    Solver::Options options;
    options.method = std::make_shared<Bome>(bome);
    options.max_num_iterations = 20000;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    const double exact = 1.0 / (1.0 + NearOne::kRidge);
    EXPECT_NEAR(x[0], exact, 5e-3);
    if (jacobi) {
      EXPECT_NEAR(x[1], exact, 4e-2);  // Its own steps are long for so flat a g.
      EXPECT_LT(summary.assessment.x_bias, 1e-4);
    } else {
      const double share = 1.0 - std::pow(1.0 - 0.9 * 0.03, 5);
      EXPECT_NEAR(x[1], share / (share + NearOne::kRidge), 4e-2);
      EXPECT_GT(summary.assessment.x_bias, 0.1);
    }
  }
}

TEST(Bome, JacobiStepsNeedTheBlocksOfTheHessian) {
  class Long : public Objective {
   public:
    bool Evaluate(double const* const*, const Batch&, double* value, double** j) const override {
      *value = 0.0;
      if (j && j[0]) j[0][0] = 0.0;
      if (j && j[1]) std::fill_n(j[1], 2100, 0.0);
      return true;
    }
  };
  double x = 0.2;
  std::vector<double> y(2100, 0.1);
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  for (const Level level : {Level::kLower, Level::kUpper}) {
    problem.AddTerm(level, std::make_unique<Long>(), {{&x, 1}, {y.data(), 2100}});
  }
  Bome::Options bome;
  bome.jacobi = true;
  Solver::Options options;
  options.method = std::make_shared<Bome>(bome);
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(summary.message, HasSubstr("bome.jacobi needs the diagonal blocks"));
  EXPECT_EQ(summary.lower.gradients, 0);
}

// By hand at the start, where y* = x = 0.2: q = 1/2 h (y - x)^2, grad q = h (y - x) (-1, 1), since
// g_x vanishes at y*.
TEST(Bome, KktLossIsThatOfItsDefinition) {
  Scalar scalar;
  const double x = scalar.x, y = scalar.y, e = Follow::kCurvature * (y - x);
  const Solver::Summary summary = scalar.Solve({}, 0);
  const double f[2] = {NearOne::kRidge * x, y - 1.0};
  const double lambda = std::max(0.0, -(-f[0] * e + f[1] * e) / (2.0 * e * e));
  const double q = 0.5 * Follow::kCurvature * (y - x) * (y - x);
  const double expected = std::pow(f[0] - lambda * e, 2.0) + std::pow(f[1] + lambda * e, 2.0) + q;
  ASSERT_EQ(summary.iterations.size(), 1u);
  EXPECT_GT(lambda, 0.0);
  EXPECT_NEAR(summary.iterations[0].kkt_loss, expected, 1e-14);
  EXPECT_NEAR(summary.iterations[0].lower_gap, q, 1e-14);
  EXPECT_NEAR(summary.iterations[0].upper_value, 0.5 * f[1] * f[1] + 0.25 * x * x, 1e-14);
  // phi, not f at BOME's y.
  EXPECT_NEAR(summary.iterations[0].objective, 0.5 * 0.64 + 0.25 * x * x, 1e-14);
  EXPECT_NEAR(scalar.y, x, 1e-12);
  EXPECT_THAT(summary.Csv(), HasSubstr("lower_gap,kkt_loss"));
}

// y on the unit sphere nearest to (x, 1) in space: y* = (x0, x1, 1) / norm.
struct OnSphere {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - x[0];
    r[1] = y[1] - x[1];
    r[2] = y[2] - 1.0;
    return true;
  }
};
struct NearDirection {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 2.0 / 7.0;  // A unit vector.
    r[1] = y[1] - 3.0 / 7.0;
    r[2] = y[2] - 6.0 / 7.0;
    return true;
  }
};

TEST(Bome, ManifoldsWithEveryStepRule) {
  for (const auto kind : {StepRule::kGradient, StepRule::kMomentum, StepRule::kAdam}) {
    for (const auto lower_level : {Bome::kSolved, Bome::kGradientSteps}) {
      double x[2] = {0.0, 0.0}, y[3] = {0.0, 0.6, 0.8};
      Problem problem;
      problem.AddUpperParameterBlock(x, 2);
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<OnSphere, 3, 2, 3>(new OnSphere), nullptr, x, y);
      problem.lower()->SetManifold(y, NewSphere());
      problem.upper()->AddResidualBlock(
          new AutoDiffCostFunction<NearDirection, 3, 3>(new NearDirection), nullptr, y);
      Bome::Options bome;
      bome.lower_level = lower_level;
      bome.num_lower_steps = 40;
      bome.lower_step = 0.2;
      bome.x.kind = bome.y.kind = kind;
      bome.x.step = bome.y.step = kind == StepRule::kGradient ? 0.1 : 0.02;
      bome.x.decay_exponent = bome.y.decay_exponent = kind == StepRule::kAdam ? 0.6 : 0.0;
      bome.x.decay_time = bome.y.decay_time = 50.0;
      Solver::Options options;
      options.method = std::make_shared<Bome>(bome);
      options.max_num_iterations = 4000;
      Solver::Summary summary;
      Solve(options, &problem, &summary);
      ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
      EXPECT_NEAR(x[0], 1.0 / 3.0, 2e-3) << kind << " " << lower_level;
      EXPECT_NEAR(x[1], 0.5, 2e-3) << kind << " " << lower_level;
      EXPECT_NEAR(y[0] * y[0] + y[1] * y[1] + y[2] * y[2], 1.0, 1e-12);
    }
  }
}

// Of y (the corner of phi) and of x: without its bound the corner would be at 1.
TEST(Bome, Bounds) {
  Toy corner = examples::Corner();
  SolveToy(&corner, {}, 500);
  for (int i = 0; i < 2; ++i) {
    EXPECT_NEAR(corner.x[i], 1.0, 0.03);  // Within a step.
    EXPECT_NEAR(corner.y[i], std::min(corner.x[i], 1.0), 1e-9);
  }
  Toy bounded = examples::Corner();
  bounded.x_bound = 0.75;
  SolveToy(&bounded, {}, 500);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(bounded.x[i], 0.75);
    EXPECT_NEAR(bounded.y[i], 0.75, 1e-9);
  }
}

TEST(Bome, NonsenseIsNamedBeforeAnyWork) {
  const auto message = [](const std::function<void(Bome::Options*)>& spoil) {
    Bome::Options bome;
    spoil(&bome);
    Scalar scalar;
    const Solver::Summary summary = scalar.Solve(bome, 10);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    EXPECT_EQ(summary.lower.gradients + summary.lower.values, 0);
    EXPECT_EQ(scalar.x, 0.2);
    return summary.message;
  };
  EXPECT_THAT(message([](auto* o) { o->eta = 0.0; }), HasSubstr("bome.eta"));
  EXPECT_THAT(message([](auto* o) { o->num_lower_steps = 0; }), HasSubstr("bome.num_lower_steps"));
  EXPECT_THAT(message([](auto* o) { o->num_lower_steps = -1; }), HasSubstr("bome.num_lower_steps"));
  EXPECT_THAT(message([](auto* o) { o->lower_step = -1.0; }), HasSubstr("bome.lower_step"));
  EXPECT_THAT(message([](auto* o) { o->epsilon = 0.0; }), HasSubstr("bome.epsilon"));
  EXPECT_THAT(message([](auto* o) { o->x.step = 0.0; }), HasSubstr("bome.x.step"));
  EXPECT_THAT(message([](auto* o) { o->y.step = NAN; }), HasSubstr("bome.y.step"));
  EXPECT_THAT(message([](auto* o) { o->y.kind = StepRule::kNormalized; }),
              HasSubstr("bome.y.kind"));
}

TEST(Bome, DivergenceFailsAndLeavesNothingWorse) {
  for (const auto lower_level : {Bome::kSolved, Bome::kGradientSteps}) {
    Bome::Options bome;
    bome.lower_level = lower_level;
    bome.x.step = bome.y.step = 100.0;
    Scalar scalar;
    const double start = 0.5 * 0.64 + 0.25 * 0.04;  // phi at x = 0.2.
    const Solver::Summary summary = scalar.Solve(bome, 5000);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE) << summary.message;
    EXPECT_LE(0.5 * std::pow(scalar.x - 1.0, 2) + 0.25 * scalar.x * scalar.x, start + 1e-15);
    EXPECT_NEAR(scalar.y, scalar.x, 1e-9);
  }
}

// What callbacks see in the user's memory is taken back where nothing came of it.
TEST(Bome, AFailureLeavesTheUsersMemoryAsItWas) {
  Scalar scalar;
  class Abort : public IterationCallback {
   public:
    explicit Abort(const double* x) : x_(x) {}
    ceres::CallbackReturnType operator()(const IterationSummary& it) override {
      EXPECT_EQ(*x_, it.x[0]);
      return it.iteration < 3 ? ceres::SOLVER_CONTINUE : ceres::SOLVER_ABORT;
    }

   private:
    const double* x_;
  } abort(&scalar.x);
  Solver::Options options;
  options.method = CreateMethod("bome");
  options.update_state_every_iteration = true;
  options.callbacks = {&abort};
  Solver::Summary summary;
  Solve(options, &scalar.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::USER_FAILURE);
  EXPECT_EQ(summary.iterations.size(), 4u);
  EXPECT_EQ(scalar.x, 0.2);
  EXPECT_EQ(scalar.y, 0.7);
}

// Unsolved y's f may lie below phi: what a first-order method of another kind returns is solved
// too.
TEST(Bome, TheOtherMethodsWithAnUnsolvedYReturnItSolved) {
  for (const char* name : {"aid_cg", "itd"}) {
    Scalar scalar;
    Solver::Options options;
    options.method = CreateMethod(name);
    options.max_num_iterations = 5;
    Solver::Summary summary;
    Solve(options, &scalar.problem, &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_NEAR(scalar.y, scalar.x, 1e-12);
    EXPECT_NEAR(summary.final_objective,
                0.5 * std::pow(scalar.x - 1.0, 2.0) + 0.25 * scalar.x * scalar.x,
                1e-14);
    EXPECT_NEAR(summary.initial_objective, 0.5 * 0.64 + 0.25 * 0.04, 1e-14);
  }
}

}  // namespace
}  // namespace bilevel
