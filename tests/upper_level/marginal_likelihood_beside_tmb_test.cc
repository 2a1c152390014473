// Values, gradients and minimisers of Laplace's approximation by Template Model Builder 1.9.2; its
// models and the script that has made the figures are in tmb/.
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/oracle/hyper_objective.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

const double kHalfLogTwoPi = 0.5 * std::log(2.0 * std::acos(-1.0));

// y_t = rho y_t-1 + noise, seen through y + y^3 / 10: x = (log sigmas of steps and of what is seen,
// rho).
struct First {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0];
    return true;
  }
};
struct Step {
  template <typename T>
  bool operator()(const T* x, const T* before, const T* y, T* r) const {
    using std::exp;
    r[0] = (y[0] - x[2] * before[0]) * exp(-x[0]);
    return true;
  }
};
struct Seen {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::exp;
    r[0] = (z - y[0] - 0.1 * y[0] * y[0] * y[0]) * exp(-x[1]);
    return true;
  }
  double z;
};

// sum n_j x_j: of the normal densities' normalisation.
template <int kSize>
struct LogSigmas {
  template <typename T>
  bool operator()(const T* x, T* value) const {
    *value = T(0.0);
    for (int j = 0; j < kSize; ++j) *value += count[j] * x[j];
    return true;
  }
  std::array<double, kSize> count;
};

struct States {
  static constexpr int kSteps = 400, kSize = 3;
  explicit States(const std::array<double, 3>& start) : x(start), y(kSteps, 0.0) {
    problem.AddUpperParameterBlock(x.data(), 3);
    ceres::Problem* lower = problem.lower();
    lower->AddResidualBlock(new AutoDiffCostFunction<First, 1, 1>(new First), nullptr, &y[0]);
    for (int t = 0; t < kSteps; ++t) {
      const double z = 2.0 * std::sin(0.05 * t) + 0.3 * std::cos(1.7 * t * t);
      lower->AddResidualBlock(
          new AutoDiffCostFunction<Seen, 1, 3, 1>(new Seen{z}), nullptr, x.data(), &y[t]);
      if (t == 0) continue;
      lower->AddResidualBlock(new AutoDiffCostFunction<Step, 1, 3, 1, 1>(new Step),
                              nullptr,
                              x.data(),
                              &y[t - 1],
                              &y[t]);
    }
    is_complete = AddMarginalLikelihood(&problem, &error);
    const LogSigmas<3> densities{{kSteps - 1.0, kSteps, 0.0}};
    problem.AddTerm(Level::kUpper,
                    std::make_unique<AutoDiffObjective<LogSigmas<3>, 3>>(densities),
                    {{x.data(), 3}});
  }
  // 2 kSteps densities, of which kSteps are integrated out.
  double Constant() const { return kSteps * kHalfLogTwoPi; }

  std::array<double, 3> x;
  std::vector<double> y;
  Problem problem;
  bool is_complete;
  std::string error;
};

// Logistic growth of orange trees (Draper and Smith, "Applied Regression Analysis", 1981, exercise
// 24.N), with a random asymptote a tree: x = (asymptote, midpoint, scale, log sigmas of the
// asymptotes and of what is measured).
struct Asymptote {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::exp;
    r[0] = y[0] * exp(-x[3]);
    return true;
  }
};
struct Size {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    using std::exp;
    r[0] = (size - (x[0] + y[0]) / (1.0 + exp((x[1] - age) / x[2]))) * exp(-x[4]);
    return true;
  }
  double age, size;
};

struct Growth {
  static constexpr int kTrees = 5, kAges = 7, kSize = 5;
  explicit Growth(const std::array<double, 5>& start) : x(start) {
    const double ages[kAges] = {118, 484, 664, 1004, 1231, 1372, 1582};
    const double sizes[kTrees][kAges] = {{30, 58, 87, 115, 120, 142, 145},
                                         {33, 69, 111, 156, 172, 203, 203},
                                         {30, 51, 75, 108, 115, 139, 140},
                                         {32, 62, 112, 167, 179, 209, 214},
                                         {30, 49, 81, 125, 142, 174, 177}};
    problem.AddUpperParameterBlock(x.data(), 5);
    ceres::Problem* lower = problem.lower();
    for (int i = 0; i < kTrees; ++i) {
      lower->AddResidualBlock(
          new AutoDiffCostFunction<Asymptote, 1, 5, 1>(new Asymptote), nullptr, x.data(), &y[i]);
      for (int k = 0; k < kAges; ++k) {
        lower->AddResidualBlock(
            new AutoDiffCostFunction<Size, 1, 5, 1>(new Size{ages[k], sizes[i][k]}),
            nullptr,
            x.data(),
            &y[i]);
      }
    }
    is_complete = AddMarginalLikelihood(&problem, &error);
    const LogSigmas<5> densities{{0.0, 0.0, 0.0, kTrees, kTrees * kAges}};
    problem.AddTerm(Level::kUpper,
                    std::make_unique<AutoDiffObjective<LogSigmas<5>, 5>>(densities),
                    {{x.data(), 5}});
  }
  double Constant() const { return kTrees * kAges * kHalfLogTwoPi; }

  std::array<double, 5> x;
  std::array<double, kTrees> y{};
  Problem problem;
  bool is_complete;
  std::string error;
};

template <typename Model, size_t kSize>
void ExpectAt(const std::array<double, kSize>& x,
              double value,
              const std::array<double, kSize>& gradient) {
  Model model(x);
  ASSERT_TRUE(model.is_complete) << model.error;
  std::string error;
  const std::unique_ptr<Program> program = model.problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  NewtonLowerSolver lower(program.get(), NewtonLowerSolver::Options());
  Oracle oracle(program.get(), &lower, 0);
  Point at_x(&program->x), at_y(&program->y);
  program->x.ReadUser(at_x.value().data());
  program->y.ReadUser(at_y.value().data());
  HyperObjective phi(&oracle, at_y);
  double phi_value;
  Vector phi_gradient;
  ASSERT_TRUE(phi.Evaluate(at_x, &phi_value, &phi_gradient)) << phi.message();
  EXPECT_NEAR(phi_value + model.Constant(), value, 1e-11 * value);
  const double norm = Eigen::Map<const Eigen::VectorXd>(gradient.data(), kSize).norm();
  for (size_t j = 0; j < kSize; ++j) EXPECT_NEAR(phi_gradient[j], gradient[j], 1e-9 * norm) << j;
}

TEST(MarginalLikelihoodBesideTmb, AStateSpace) {
  ExpectAt<States, 3>(
      {-1.0, -1.0, 0.9}, 272.026654703325, {161.328051007347, 135.0642517205, -294.931237208033});
  ExpectAt<States, 3>(
      {-2.0, -0.5, 1.0}, 287.283444862452, {-12.6983640876676, 297.522628837982, 157.475492358897});
}

TEST(MarginalLikelihoodBesideTmb, RandomEffects) {
  ExpectAt<Growth, 5>({190.0, 720.0, 350.0, 3.4, 2.0},
                      131.813061760807,
                      {-0.00725077184628085,
                       -0.020970293433012,
                       0.0258130177549391,
                       -0.531437253372447,
                       -4.03836508830661});
  ExpectAt<Growth, 5>({200.0, 700.0, 300.0, 3.0, 2.5},
                      139.239911789567,
                      {0.177771575001821,
                       0.00158649500682369,
                       -0.0666256726245414,
                       -7.52179789655548,
                       14.9080980772905});
}

template <typename Model, size_t kSize>
void ExpectBest(const std::array<double, kSize>& start,
                double value,
                const std::array<double, kSize>& best,
                double relative) {
  for (const char* method : {"auto", "newton"}) {
    Model model(start);
    Solver::Options options;
    options.method = CreateMethod(method);
    options.function_tolerance = 1e-13;
    options.max_num_iterations = 500;
    Solver::Summary summary;
    Solve(options, &model.problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(summary.final_objective + model.Constant(), value, 1e-10 * value) << method;
    for (size_t j = 0; j < kSize; ++j) {
      EXPECT_NEAR(model.x[j], best[j], relative * std::abs(best[j])) << method << ", " << j;
    }
  }
}

TEST(MarginalLikelihoodBesideTmb, TheSameMinimisers) {
  ExpectBest<States, 3>({-1.0, -1.0, 0.9},
                        63.1891068037585,
                        {-2.00871183094343, -1.81041484997699, 0.995561795525461},
                        1e-5);
  ExpectBest<Growth, 5>(
      {190.0, 720.0, 350.0, 3.4, 2.0},
      131.571885100408,
      {192.053217496556, 727.906568243789, 348.073256226837, 3.45462197925892, 2.05962353291267},
      1e-5);
}

}  // namespace
}  // namespace bilevel
