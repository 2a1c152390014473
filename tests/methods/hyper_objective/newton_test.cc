#include "bilevel/methods/hyper_objective/newton.h"

#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/sgm.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sphere.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

Solver::Summary SolveBy(std::shared_ptr<Method> method,
                        Problem* problem,
                        double function_tolerance = 0.0) {
  Solver::Options options;
  options.method = std::move(method);
  options.max_num_iterations = 200;
  options.function_tolerance = function_tolerance;
  options.parameter_tolerance = 0.0;
  options.gradient_tolerance = 1e-9;
  Solver::Summary summary;
  Solve(options, problem, &summary);
  return summary;
}

// Points on a line, each seen by some of ten sensors of different noise: half of what they see
// finds the points, the likelihood of the other half their log sigmas.
struct Sensors {
  static constexpr int kSensors = 10, kPoints = 30;

  explicit Sensors(double shift) : points(kPoints) {
    std::mt19937 random(5);
    std::normal_distribution<double> gauss;
    for (int i = 0; i < kSensors; ++i) {
      log_sigmas[i] = shift * std::sin(2.0 + 3.0 * i);
      problem.AddUpperParameterBlock(&log_sigmas[i], 1);
      noises.push_back(std::make_unique<ScalarNoise>(&log_sigmas[i]));
      int count = 0;
      for (int k = 0; k < kPoints; k += 1 + i / 2, ++count) {
        for (ceres::Problem* level : {problem.lower(), problem.upper()}) {
          const double seen = (0.2 + 0.1 * i) * gauss(random);
          noises[i]->AddResidualBlock(TargetCost(seen), nullptr, {&points[k]}, level);
        }
      }
      noises[i]->AddHalfLogDeterminant(count, &problem);
    }
  }
  double log_sigmas[kSensors];
  std::vector<double> points;
  std::vector<std::unique_ptr<ScalarNoise>> noises;
  Problem problem;
};

TEST(Newton, LikelihoodInHalfTheIterationsOfLbfgs) {
  for (const double shift : {0.3, 1.0, 2.0}) {
    Sensors by_newton(shift), by_lbfgs(shift);
    const Solver::Summary newton = SolveBy(CreateMethod("newton"), &by_newton.problem);
    const Solver::Summary lbfgs = SolveBy(CreateMethod("lbfgs"), &by_lbfgs.problem);
    EXPECT_EQ(newton.termination_type, ceres::CONVERGENCE) << newton.FullReport();
    for (int i = 0; i < Sensors::kSensors; ++i) {
      EXPECT_NEAR(by_newton.log_sigmas[i], by_lbfgs.log_sigmas[i], 1e-6) << i;
    }
    EXPECT_LE(2 * newton.iterations.size(), lbfgs.iterations.size());
  }
}

// f over y* = x.
template <typename F, int kSize>
Solver::Summary Minimize(const std::string& method,
                         F f,
                         double* x,
                         const double* bounds = nullptr) {
  std::vector<double> y(x, x + kSize);
  Problem problem;
  for (int i = 0; i < kSize; ++i) {
    problem.AddUpperParameterBlock(&x[i], 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y[i], &x[i]);
    if (bounds) problem.SetParameterLowerBound(&x[i], 0, bounds[i]);
  }
  if constexpr (kSize == 1) {
    problem.AddTerm(Level::kUpper, std::make_unique<AutoDiffObjective<F, 1>>(f), {{&y[0], 1}});
  } else {
    problem.AddTerm(
        Level::kUpper, std::make_unique<AutoDiffObjective<F, 1, 1>>(f), {{&y[0], 1}, {&y[1], 1}});
  }
  return SolveBy(CreateMethod(method), &problem);
}

// (y1^2 - 1)^2 / 4 + steep y0^2 / 2: minima at (0, +-1), a saddle between them.
struct TwoWells {
  template <typename T>
  bool operator()(const T* a, const T* b, T* value) const {
    const T well = b[0] * b[0] - 1.0;
    *value = 0.25 * well * well + 0.5 * steep * a[0] * a[0];
    return true;
  }
  double steep = 1.0;
};

TEST(Newton, LeavesSaddles) {
  for (const double steep :
       {1.0, 1e9}) {  // And those of a curvature that is nothing beside others.
    for (const double start : {0.0, 0.7}) {  // At the saddle, and on the way down to it.
      double x[2] = {start, 0.0};
      const Solver::Summary summary = Minimize<TwoWells, 2>("newton", TwoWells{steep}, x);
      EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
      EXPECT_NEAR(x[0], 0.0, 1e-8);
      // What is left is 1e-12 of the first phi, 2e8.
      EXPECT_NEAR(std::abs(x[1]), 1.0, steep > 1.0 ? 1e-3 : 1e-8);
      EXPECT_LT(summary.iterations.size(), steep > 1.0 ? 100u : 20u);
    }
  }
}

struct Product {
  template <typename T>
  bool operator()(const T* a, const T* b, T* value) const {
    *value = a[0] * b[0];
    return true;
  }
};

// Least in the corner, where the gradient vanishes and only steps that bounds forbid go down.
TEST(Newton, EndsInACorner) {
  const double bounds[2] = {0.0, 0.0};
  double x[2] = {0.0, 0.0};
  const Solver::Summary summary = Minimize<Product, 2>("newton", Product(), x, bounds);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_EQ(x[0], 0.0);
  EXPECT_EQ(x[1], 0.0);
}

struct Rosenbrock {
  template <typename T>
  bool operator()(const T* a, const T* b, T* value) const {
    const T bend = b[0] - a[0] * a[0];
    *value = 100.0 * bend * bend + (1.0 - a[0]) * (1.0 - a[0]) + 1.0;
    return true;
  }
};

TEST(Newton, CurvedValleyWithAndWithoutABound) {
  double x[2] = {-1.2, 1.0};
  const Solver::Summary summary = Minimize<Rosenbrock, 2>("newton", Rosenbrock(), x);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(x[0], 1.0, 1e-7);
  EXPECT_LT(summary.iterations.size(), 50u);

  // Beyond y1 >= 1.5 the least is at y0 = sqrt(1.5) or so: 400 y0 (y0^2 - 1.5) + 2 (y0 - 1) = 0.
  const double bounds[2] = {-10.0, 1.5};
  double bounded[2] = {-1.2, 2.0};
  const Solver::Summary at_bound = Minimize<Rosenbrock, 2>("newton", Rosenbrock(), bounded, bounds);
  EXPECT_EQ(at_bound.termination_type, ceres::CONVERGENCE) << at_bound.FullReport();
  EXPECT_EQ(bounded[1], 1.5);
  EXPECT_NEAR(
      400.0 * bounded[0] * (bounded[0] * bounded[0] - 1.5) + 2.0 * (bounded[0] - 1.0), 0.0, 1e-6);
}

struct Exponential {  // Least at log 2.
  template <typename T>
  bool operator()(const T* a, T* value) const {
    using std::exp;
    *value = exp(a[0]) - 2.0 * a[0];
    return true;
  }
};

TEST(Newton, HonoursABoundInTheWay) {
  for (const double bound : {0.0, 0.9}) {
    double x = 3.0;
    const Solver::Summary summary = Minimize<Exponential, 1>("newton", Exponential(), &x, &bound);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(x, std::max(bound, std::log(2.0)), 1e-9);
  }
}

struct Follow {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    for (int i = 0; i < 3; ++i) r[i] = y[i] - x[i];
    return true;
  }
};
struct Rayleigh {  // Of diag(1, 2, 5); saddles at the second axis, maxima at the third.
  template <typename T>
  bool operator()(const T* y, T* value) const {
    *value = 1.0 * y[0] * y[0] + 2.0 * y[1] * y[1] + 5.0 * y[2] * y[2];
    return true;
  }
};

TEST(Newton, LeastEigenvectorOnTheSphere) {
  for (const int axis : {1, 2}) {  // The third one is the pole.
    double x[3] = {0.0, 0.0, 0.0}, y[3] = {0.1, 0.2, 0.3};
    x[axis] = 1.0;
    Problem problem;
    problem.AddUpperParameterBlock(x, 3, NewSphere());
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Follow, 3, 3, 3>(new Follow), nullptr, y, x);
    problem.AddTerm(
        Level::kUpper, std::make_unique<AutoDiffObjective<Rayleigh, 3>>(Rayleigh()), {{y, 3}});
    const Solver::Summary summary = SolveBy(CreateMethod("newton"), &problem);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(std::abs(x[0]), 1.0, 1e-12);
    EXPECT_LT(summary.iterations.size(), 20u);
  }
}

// y* = sum of e^{2 x_i} t_i / sum of e^{2 x_i}: the common scale of the weights is flat.
TEST(Newton, LeavesFlatDirectionsAlone) {
  double x[2] = {0.8, -0.9}, y = 0.0;
  Problem problem;
  for (int i = 0; i < 2; ++i) {
    problem.AddUpperParameterBlock(&x[i], 1);
    problem.lower()->AddResidualBlock(WeightedCost(1.0 + 2.0 * i), nullptr, &y, &x[i]);
  }
  for (const double t : {1.4, 1.5, 1.7}) {
    problem.upper()->AddResidualBlock(TargetCost(t), nullptr, &y);
  }
  const Solver::Summary summary = SolveBy(CreateMethod("newton"), &problem);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(y, (1.4 + 1.5 + 1.7) / 3.0, 1e-9);
  EXPECT_NEAR(x[0] + x[1], -0.1, 1e-9);
  EXPECT_EQ(summary.flat_upper_directions.size(), 1u);
}

// phi' is that of y* = x up to x = 1, and bends there, where the least is.
TEST(Newton, EndsAtAKinkOfTheGradient) {
  double x = 6.0, y = 0.5;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  problem.lower()->AddResidualBlock(TargetCost(0.0), new ceres::HuberLoss(1.0), &y);
  problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
  const Solver::Summary summary = SolveBy(CreateMethod("newton"), &problem);
  EXPECT_NEAR(x, 2.0, 1e-8);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
}

TEST(Newton, SaysWhatItCannotDo) {
  {  // y* = max(x, 0) at x = 0.
    double x = 0.0, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.lower()->SetParameterLowerBound(&y, 0, 0.0);
    problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
    const Solver::Summary summary = SolveBy(CreateMethod("newton"), &problem);
    EXPECT_NE(summary.termination_type, ceres::CONVERGENCE);
    EXPECT_THAT(summary.message, HasSubstr("no second derivative of phi"));
  }
  double x = 0.5, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
  {
    Solver::Options options;
    options.method = CreateMethod("newton");
    options.lower_hessian = HessianKind::kGaussNewton;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    EXPECT_THAT(summary.message, HasSubstr("kExact"));
    options.lower_solver = [](Program* program) -> std::unique_ptr<LowerSolver> {
      return std::make_unique<Sgm>(program, Sgm::Options());
    };
    Solve(options, &problem, &summary);
    EXPECT_THAT(summary.message, HasSubstr("derivative"));
  }
  const std::pair<std::string, std::function<void(Newton::Options*)>> wrongs[] = {
      {"newton.longest_first_step", [](Newton::Options* o) { o->longest_first_step = 0.0; }},
      {"newton.eta_1", [](Newton::Options* o) { o->eta_1 = 0.95; }},
      {"newton.gamma", [](Newton::Options* o) { o->gamma = 1.0; }},
      {"newton.max_num_trials", [](Newton::Options* o) { o->max_num_trials = 0; }}};
  for (const auto& [name, set] : wrongs) {
    Newton::Options options;
    set(&options);
    const Solver::Summary summary = SolveBy(std::make_shared<Newton>(options), &problem);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    EXPECT_THAT(summary.message, HasSubstr(name));
  }
}

// phi is 0 at its minimum, where nothing is small beside it.
struct LogOf {
  template <typename T>
  bool operator()(const T* y, T* value) const {
    using std::log;
    *value = log(1.0 + y[0] * y[0]);
    return true;
  }
};
struct MinusSquare {
  template <typename T>
  bool operator()(const T* y, T* value) const {
    *value = -y[0] * y[0];
    return true;
  }
};
template <typename F>
Solver::Summary SolveCopy(F f, double* x, double lower, double upper) {
  double y = *x;
  Problem problem;
  problem.AddUpperParameterBlock(x, 1);
  problem.SetParameterLowerBound(x, 0, lower);
  problem.SetParameterUpperBound(x, 0, upper);
  problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, x);
  problem.AddTerm(Level::kUpper, std::make_unique<AutoDiffObjective<F, 1>>(f), {{&y, 1}});
  Solver::Options options;
  options.method = CreateMethod("newton");
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  return summary;
}

TEST(Newton, AMinimumOfZero) {
  for (const double start : {0.1, 0.5, 1.0, 2.0, 3.0, 5.0}) {
    double x = start;
    const Solver::Summary summary = SolveCopy(LogOf(), &x, -10.0, 10.0);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(x, 0.0, 1e-6) << start;
  }
}

TEST(Newton, EqualBoundsHold) {
  double x = 1.0;
  const Solver::Summary summary = SolveCopy(MinusSquare(), &x, 1.0, 1.0);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  x = 0.0;  // Where the gradient pushes to neither.
  EXPECT_EQ(SolveCopy(MinusSquare(), &x, 0.0, 0.0).termination_type, ceres::CONVERGENCE);
}

// From the maximum, to the one side that bounds leave.
TEST(Newton, LeavesAMaximumToEitherSide) {
  for (const double side : {1.0, -1.0}) {
    double x = 0.0;
    const Solver::Summary summary =
        SolveCopy(MinusSquare(), &x, side > 0.0 ? 0.0 : -1.0, side > 0.0 ? 1.0 : 0.0);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_EQ(x, side);
  }
}

}  // namespace
}  // namespace bilevel
