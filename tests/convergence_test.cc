// CONVERGENCE is a promise: the right answer, or another word.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// A general term of x and y.
class Term : public Objective {
 public:
  using F = std::function<double(const double* x, const double* y, double* gx, double* gy)>;
  explicit Term(F f) : f_(std::move(f)) {}
  bool Evaluate(double const* const* b, const Batch&, double* value, double** g) const override {
    double gx[2], gy[2];
    *value = f_(b[0], b[1], gx, gy);
    if (g && g[0]) std::copy_n(gx, x_size_, g[0]);
    if (g && g[1]) std::copy_n(gy, y_size_, g[1]);
    return true;
  }
  int x_size_ = 1, y_size_ = 1;

 private:
  F f_;
};

std::unique_ptr<Term> MakeTerm(Term::F f, int y_size = 1) {
  auto term = std::make_unique<Term>(std::move(f));
  term->y_size_ = y_size;
  return term;
}

struct Difference {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    for (int i = 0; i < size; ++i) r[i] = y[i] - x[i];
    return true;
  }
  int size = 1;
};

struct Weighted {
  template <typename T>
  bool operator()(const T* log_weight, const T* y, T* r) const {
    r[0] = exp(log_weight[0]) * (y[0] - target);
    return true;
  }
  double target;
};

struct HalfLogWeighted {
  template <typename T>
  bool operator()(const T* log_weight, const T* y, T* r) const {
    r[0] = exp(0.5 * log_weight[0]) * (y[0] - target);
    return true;
  }
  double target;
};

struct To {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - target;
    return true;
  }
  double target;
};

struct FlatAndSteep {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = 1e-3 * exp(-y[0]);
    r[1] = y[1] - 1.0;
    return true;
  }
};

struct OnlyAtZero {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - 1.0;
    return x[0] == 0.0;
  }
};

Solver::Summary SolveBy(const std::string& method, Problem* problem) {
  Solver::Options options;
  options.method = CreateMethod(method);
  options.max_num_iterations = 500;
  Solver::Summary summary;
  Solve(options, problem, &summary);
  return summary;
}

// f = e^y - 2 y, y* = x: least at log 2, or at the bound before it.
TEST(Convergence, AutoHonoursBoundsOnXUnderAGeneralUpperLevel) {
  for (const double bound : {0.0, 0.9}) {
    double x = 1.0, y = 1.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.SetParameterLowerBound(&x, 0, bound);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &x);
    problem.AddTerm(Level::kUpper,
                    MakeTerm([](const double*, const double* at, double* gx, double* gy) {
                      *gx = 0.0;
                      *gy = std::exp(*at) - 2.0;
                      return std::exp(*at) - 2.0 * *at;
                    }),
                    {{&x, 1}, {&y, 1}});
    const Solver::Summary summary = SolveBy("auto", &problem);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
    EXPECT_NEAR(x, std::max(bound, std::log(2.0)), 1e-4);
  }
}

// Liu et al. (ICML 2020): f = (x - y2)^2 + (y1 - 1)^2, g = y1^2 - 2 x y1 says nothing of y2.
TEST(Convergence, IsNotSaidWhereNoTrialHasSucceeded) {
  for (const char* method : {"auto",
                             "lbfgs",
                             "bfgs",
                             "ncg",
                             "steepest_descent",
                             "levenberg_marquardt",
                             "pattern_search"}) {
    double x = 0.0, y[2] = {0.0, 0.0};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(Level::kUpper,
                    MakeTerm(
                        [](const double* a, const double* b, double* gx, double* gy) {
                          *gx = 2.0 * (*a - b[1]);
                          gy[0] = 2.0 * (b[0] - 1.0);
                          gy[1] = -*gx;
                          return (*a - b[1]) * (*a - b[1]) + (b[0] - 1.0) * (b[0] - 1.0);
                        },
                        2),
                    {{&x, 1}, {y, 2}});
    problem.AddTerm(Level::kLower,
                    MakeTerm(
                        [](const double* a, const double* b, double* gx, double* gy) {
                          *gx = -2.0 * b[0];
                          gy[0] = 2.0 * (b[0] - *a);
                          gy[1] = 0.0;
                          return b[0] * b[0] - 2.0 * *a * b[0];
                        },
                        2),
                    {{&x, 1}, {y, 2}});
    const Solver::Summary summary = SolveBy(method, &problem);
    const bool is_right = std::abs(x - 1.0) < 1e-4;
    if (std::string(method) == "auto") {
      EXPECT_TRUE(is_right) << x;  // It goes on by "optimistic", as the refusal advises.
      EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
      EXPECT_NEAR(y[1], 1.0, 1e-4);
    } else {
      EXPECT_THAT(summary.message, HasSubstr("optimistic")) << method;
    }
    EXPECT_TRUE(is_right || summary.termination_type != ceres::CONVERGENCE)
        << method << " x " << x << ": " << summary.message;
  }
}

// f = x^2 + y with y* = 3, from a stationary x and an unsolved y.
TEST(Convergence, LeavesYSolvedWhereXIsStationaryAtOnce) {
  for (const char* method : {"auto",
                             "lbfgs",
                             "bfgs",
                             "ncg",
                             "steepest_descent",
                             "optimistic",
                             "levenberg_marquardt",
                             "gradient_descent"}) {
    double x = 0.0, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{3}), nullptr, &y);
    problem.AddTerm(Level::kUpper,
                    MakeTerm([](const double* a, const double* b, double* gx, double* gy) {
                      *gx = 2.0 * *a;
                      *gy = 1.0;
                      return *a * *a + *b;
                    }),
                    {{&x, 1}, {&y, 1}});
    const Solver::Summary summary = SolveBy(method, &problem);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << method << ": " << summary.message;
    EXPECT_NEAR(y, 3.0, 1e-9) << method;
    EXPECT_NEAR(summary.initial_objective, 3.0, 1e-9) << method;
    EXPECT_NEAR(summary.final_objective, 3.0, 1e-9) << method;
    EXPECT_EQ(summary.final_gradient_max_norm, 0.0) << method;
  }
}

// y* = max(x, 0) has two slopes at x = 0, and f = (y - target)^2 / 2.
TEST(Convergence, SeesBothSidesOfAWeaklyActiveBound) {
  for (const char* method :
       {"auto", "levenberg_marquardt", "lbfgs", "gradient_descent", "pattern_search"}) {
    double x = 0.0, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &x);
    problem.lower()->SetParameterLowerBound(&y, 0, 0.0);
    problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{1}), nullptr, &y);
    const Solver::Summary summary = SolveBy(method, &problem);
    if (summary.termination_type == ceres::CONVERGENCE) {
      EXPECT_NEAR(x, 1.0, 1e-3) << method << ": " << summary.message;
    } else {
      EXPECT_THAT(summary.message, HasSubstr("weakly active")) << method;
      EXPECT_TRUE(summary.IsSolutionUsable());
    }
    if (std::string(method) == "auto") {
      EXPECT_NEAR(x, 1.0, 1e-3) << summary.message;
    }
  }
}

// g = x y^2 - y^4 / 2 over |y| <= 1 has a maximum at the bound y = 1 where x = 1; y = 0 is the
// least.
TEST(Convergence, AMaximumOfGAtABoundIsLeft) {
  double x = 1.0, y = 1.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddParameterBlock(&y, 1);
  problem.lower()->SetParameterLowerBound(&y, 0, -1.0);
  problem.lower()->SetParameterUpperBound(&y, 0, 1.0);
  problem.AddTerm(Level::kUpper,
                  MakeTerm([](const double* a, const double* b, double* gx, double* gy) {
                    *gx = 2.0 * (*a - 1.0);
                    *gy = 2.0 * *b;
                    return (*a - 1.0) * (*a - 1.0) + *b * *b;
                  }),
                  {{&x, 1}, {&y, 1}});
  problem.AddTerm(Level::kLower,
                  MakeTerm([](const double* a, const double* b, double* gx, double* gy) {
                    const double b2 = *b * *b;
                    *gx = b2;
                    *gy = 2.0 * *a * *b - 2.0 * *b * b2;
                    return *a * b2 - 0.5 * b2 * b2;
                  }),
                  {{&x, 1}, {&y, 1}});
  const Solver::Summary summary = SolveBy("auto", &problem);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
  EXPECT_NEAR(x, 1.0, 1e-6);
  EXPECT_NEAR(y, 0.0, 1e-6);
}

// The least value of g is 0 by cancellation; x = 1 is best.
TEST(Convergence, RoundingIsJudgedByWhatCancels) {
  for (int k = 0; k < 100; ++k) {
    double x = 0.3, y = 0.3 - 1.4 + 2.8 * k / 99.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(Level::kLower,
                    MakeTerm([](const double* a, const double* b, double* gx, double* gy) {
                      *gy = std::sin(*b - *a);
                      *gx = -*gy;
                      return 1.0 - std::cos(*b - *a);
                    }),
                    {{&x, 1}, {&y, 1}});
    problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{1}), nullptr, &y);
    const Solver::Summary summary = SolveBy("auto", &problem);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
    EXPECT_NEAR(x, 1.0, 1e-6);
    EXPECT_NEAR(y, 1.0, 1e-6);
  }
}

// a is the upper level's alone: its best is found without a lower solve, and kept.
TEST(Convergence, WhatTheUpperLevelAloneHasIsPartOfTheAnswer) {
  for (const char* method : {"auto", "levenberg_marquardt", "lbfgs"}) {
    for (const double start : {1.0, 0.4}) {  // Of w, the other x, which is best at 1.
      double a = 0.0, w = start, y = 0.5;
      Problem problem;
      problem.AddUpperParameterBlock(&a, 1);
      problem.AddUpperParameterBlock(&w, 1);
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Difference, 1, 1, 1>(new Difference), nullptr, &y, &w);
      problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{1}), nullptr, &y);
      problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{3}), nullptr, &a);
      const Solver::Summary summary = SolveBy(method, &problem);
      EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << method << summary.message;
      EXPECT_NEAR(a, 3.0, 1e-6) << method;
      EXPECT_NEAR(w, 1.0, 1e-6) << method;
    }
  }
}

// Two targets of y, one weighted by e^x: y* = (b + e^2x c) / (1 + e^2x). A factorisation kept from
// x = 20 is e^40 times too stiff at x = 0.
TEST(Convergence, YIsNeverJudgedByTheHessianOfAnotherX) {
  const double b = 3.0, c = 5.0;
  double x = 20.0, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{b}), nullptr, &y);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Weighted, 1, 1, 1>(new Weighted{c}), nullptr, &x, &y);
  const ArgminCostFunction argmin(Solver::Options(), &problem, {&y});
  ASSERT_TRUE(argmin.ok()) << argmin.error();
  for (const double at : {20.0, 0.0, -20.0, 15.0, 3.0, -3.0, 18.0, 0.0}) {
    const double* parameters[] = {&at};
    double solved = 0.0;
    ASSERT_TRUE(argmin.Evaluate(parameters, &solved, nullptr)) << argmin.error();
    const double weight = std::exp(2.0 * at);
    EXPECT_NEAR(solved, (b + weight * c) / (1.0 + weight), 1e-8) << at;
  }
}

// Coordinates whose weights go e^20 times apart: each is the weighted mean of its seven targets,
// also where it is soft beside a stiff one, whose size is that of g.
TEST(Convergence, YIsSolvedInEveryCoordinateAfterFarTrials) {
  for (const char* method : {"auto", "lbfgs", "bfgs", "hoag", "pattern_search"}) {
    for (unsigned seed = 0; seed < 100; ++seed) {
      std::mt19937 generator(seed);
      std::normal_distribution<double> normal(0.0, 10.0);
      std::uniform_real_distribution<double> uniform(-1.0, 1.0);
      const int k = 1 + static_cast<int>(seed) % 3;
      std::vector<double> x(k), y(k), plain(k), weighted(k);
      Problem problem;
      for (int j = 0; j < k; ++j) {
        x[j] = 10.0 * uniform(generator);
        y[j] = uniform(generator);
        problem.AddUpperParameterBlock(&x[j], 1);
        for (int i = 0; i < 4; ++i) {
          const double target = normal(generator);
          plain[j] += target;
          problem.lower()->AddResidualBlock(
              new AutoDiffCostFunction<To, 1, 1>(new To{target}), nullptr, &y[j]);
        }
        for (int i = 0; i < 3; ++i) {
          const double target = normal(generator);
          weighted[j] += target;
          problem.lower()->AddResidualBlock(
              new AutoDiffCostFunction<Weighted, 1, 1, 1>(new Weighted{target}),
              nullptr,
              &x[j],
              &y[j]);
        }
        problem.upper()->AddResidualBlock(
            new AutoDiffCostFunction<To, 1, 1>(new To{normal(generator)}), nullptr, &y[j]);
      }
      Solver::Options options;
      options.method = CreateMethod(method);
      options.max_num_iterations = 60;
      Solver::Summary summary;
      Solve(options, &problem, &summary);
      if (!summary.IsSolutionUsable()) continue;
      for (int j = 0; j < k; ++j) {
        const double w = std::exp(2.0 * x[j]);
        const double mean = (plain[j] + w * weighted[j]) / (4.0 + 3.0 * w);
        EXPECT_NEAR(y[j], mean, 1e-7 * (1.0 + std::abs(mean)))
            << method << " " << seed << ", " << j;
      }
    }
  }
}

// x = (0, 0) yields 1e-7 for ever along its first axis and all there is along its second.
TEST(Convergence, PatternSearchPollsAllCoordinates) {
  double x[2] = {0.0, 0.0}, y[2] = {0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Difference, 2, 2, 2>(new Difference{2}), nullptr, y, x);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<FlatAndSteep, 2, 2>(new FlatAndSteep), nullptr, y);
  Solver::Options options;
  options.method = CreateMethod("pattern_search");
  options.max_num_iterations = 20;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_NEAR(x[1], 1.0, 1e-2) << summary.message;
}

// The lower level can be evaluated at x = 0 alone.
TEST(Convergence, PatternSearchSaysWhyNoTrialCouldBeEvaluated) {
  double x = 0.0, y = 1.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<OnlyAtZero, 1, 1, 1>(new OnlyAtZero), nullptr, &x, &y);
  problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{1}), nullptr, &x);
  const Solver::Summary summary = SolveBy("pattern_search", &problem);
  EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE) << summary.message;
  EXPECT_THAT(summary.message, HasSubstr("its cost function returned false"));
  EXPECT_FALSE(summary.rejections.empty());
}

// Two terms of weights 1 and e^x pull y to 3 and -2; f wants y = 2, which e^x = 1/4 gives.
TEST(Convergence, EstimatedGradientsAreHeldAgainstPhisOwn) {
  int num_converged = 0;
  for (const std::string& method : ListMethods()) {
    double x = 0.5, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{3.0}), nullptr, &y);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<HalfLogWeighted, 1, 1, 1>(new HalfLogWeighted{-2.0}),
        nullptr,
        &x,
        &y);
    problem.upper()->AddResidualBlock(new AutoDiffCostFunction<To, 1, 1>(new To{2.0}), nullptr, &y);
    const Solver::Summary summary = SolveBy(method, &problem);
    if (summary.termination_type != ceres::CONVERGENCE) continue;
    ++num_converged;
    EXPECT_NEAR(x, std::log(0.25), 1e-3) << method << ": " << summary.message;
    EXPECT_NEAR(y, 2.0, 1e-3) << method << ": " << summary.message;
  }
  EXPECT_GE(num_converged, 10);
}

}  // namespace
}  // namespace bilevel
