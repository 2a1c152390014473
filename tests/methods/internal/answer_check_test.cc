// What CONVERGENCE may be said of, by functions whose minima are known: y*(x) = x, or max(x, 0).
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

template <int kN>
struct HalfSquare {
  template <typename T>
  bool operator()(const T* x, const T* y, T* value) const {
    *value = T(0.0);
    for (int i = 0; i < kN; ++i) *value += 0.5 * (y[i] - x[i]) * (y[i] - x[i]);
    return true;
  }
};

// min f(y), y = x; with y >= 0, y = max(x, 0).
template <int kN, typename F>
struct Learned {
  Learned(const F& f, std::vector<double> start) : x(std::move(start)), y(x) {
    problem.AddUpperParameterBlock(x.data(), kN);
    problem.AddTerm(Level::kLower,
                    std::make_unique<AutoDiffObjective<HalfSquare<kN>, kN, kN>>(),
                    {{x.data(), kN}, {y.data(), kN}});
    problem.AddTerm(Level::kUpper, std::make_unique<AutoDiffObjective<F, kN>>(f), {{y.data(), kN}});
  }
  void BoundY() {
    problem.lower()->AddParameterBlock(y.data(), kN);
    for (int i = 0; i < kN; ++i) {
      y[i] = std::max(y[i], 0.0);
      problem.lower()->SetParameterLowerBound(y.data(), i, 0.0);
    }
  }
  void BoundX(double lower, double upper) {
    for (int i = 0; i < kN; ++i) {
      problem.SetParameterLowerBound(x.data(), i, lower);
      problem.SetParameterUpperBound(x.data(), i, upper);
    }
  }
  const Solver::Summary& Solve(const std::string& method = "auto") {
    Solver::Options options;
    options.method = CreateMethod(method);
    bilevel::Solve(options, &problem, &summary);
    return summary;
  }
  // auto converges at this phi, and no method by itself anywhere else.
  void ExpectLeft(double phi, double tolerance) {
    const std::vector<double> start = x;
    Solve();
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(summary.final_objective, phi, tolerance) << summary.FullReport();
    for (const char* method : {"lbfgs", "levenberg_marquardt", "projected_lbfgs"}) {
      x = y = start;
      Solve(method);
      EXPECT_TRUE(summary.termination_type != ceres::CONVERGENCE ||
                  std::abs(summary.final_objective - phi) <= tolerance)
          << method << summary.FullReport();
    }
  }

  std::vector<double> x, y;
  Problem problem;
  Solver::Summary summary;
};
template <int kN, typename F>
Learned<kN, F> Learn(const F& f, std::vector<double> start) {
  return Learned<kN, F>(f, std::move(start));
}

TEST(AnswerCheck, WhatHasNoLowerBoundHasNoKink) {
  const auto f = [](const auto* y, auto* value) {
    *value = y[0];
    return true;
  };
  for (const char* method : {"auto", "lbfgs", "bfgs", "gradient_sampling"}) {
    auto learned = Learn<1>(f, {0.0});
    learned.Solve(method);
    EXPECT_NE(learned.summary.termination_type, ceres::CONVERGENCE) << method;
  }
  auto learned = Learn<1>(f, {0.0});
  EXPECT_THAT(learned.Solve().message, HasSubstr("no lower bound"));
}

// phi is 5e17 at the start, and a step of x there is nothing to it.
TEST(AnswerCheck, FarFromAMinimumIsNoKink) {
  for (const double far : {1e9, 1e12}) {
    double x = 0.0, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(Level::kLower,
                    std::make_unique<AutoDiffObjective<HalfSquare<1>, 1, 1>>(),
                    {{&x, 1}, {&y, 1}});
    problem.upper()->AddResidualBlock(TargetCost(far), nullptr, &y);
    Solver::Summary summary;
    Solve({}, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(x, far, 1e-6 * far);
  }
}

TEST(AnswerCheck, AConstantHidesNoSaddle) {
  for (const double constant : {1.0, 100.0, 1e4}) {
    const auto f = [constant](const auto* y, auto* value) {
      *value = constant + y[0] * y[0] - y[1] * y[1] + 0.25 * y[1] * y[1] * y[1] * y[1];
      return true;
    };
    Learn<2>(f, {1.0, 0.0}).ExpectLeft(constant - 1.0, 1e-4);
    Learn<2>(f, {0.0, 0.0}).ExpectLeft(constant - 1.0, 1e-4);
  }
}

TEST(AnswerCheck, AConstantHidesNoSideOfAKink) {
  for (const double constant : {0.0, 1000.0}) {
    auto learned = Learn<1>(
        [constant](const auto* y, auto* value) {
          *value = constant + 0.5 * (y[0] - 1.0) * (y[0] - 1.0);
          return true;
        },
        {0.0});
    learned.BoundY();
    learned.ExpectLeft(constant, 1e-4);
  }
}

// phi falls along the diagonals alone.
TEST(AnswerCheck, BetweenTheCoordinates) {
  const auto f = [](const auto* y, auto* value) {
    *value = -y[0] * y[1] + 0.25 * (y[0] * y[0] * y[0] * y[0] + y[1] * y[1] * y[1] * y[1]);
    return true;
  };
  Learn<2>(f, {0.0, 0.0}).ExpectLeft(-0.5, 1e-6);
  auto bounded = Learn<2>(f, {0.0, 0.0});
  bounded.BoundX(0.0, 1.0);
  bounded.ExpectLeft(-0.5, 1e-6);
}

TEST(AnswerCheck, AlongABoundThatHoldsNothing) {
  auto learned = Learn<2>(
      [](const auto* y, auto* value) {
        *value = y[0] - y[1] * y[1];
        return true;
      },
      {1.0, 0.0});
  learned.BoundX(0.0, 2.0);
  learned.ExpectLeft(-4.0, 1e-6);
}

// A maximum, where x stands still, and a saddle that symmetry leads to in one step.
TEST(AnswerCheck, ManyCoordinates) {
  constexpr int kMany = 30;
  const auto wells = [](const auto* y, auto* value) {
    *value = 0.0 * y[0];
    for (int i = 0; i < kMany; ++i) *value += y[i] * y[i] * (0.5 * y[i] * y[i] - 1.0);
    return true;
  };
  Learn<kMany>(wells, std::vector<double>(kMany, 0.0)).ExpectLeft(-0.5 * kMany, 1e-4);
  const auto saddle = [](const auto* y, auto* value) {
    auto sum = 0.0 * y[0];
    *value = 0.0 * y[0];
    for (int i = 0; i < kMany; ++i) {
      sum += y[i] / std::sqrt(1.0 * kMany);
      *value += y[i] * y[i];
    }
    *value += sum * sum * (0.1 * sum * sum - 1.1);
    return true;
  };
  std::vector<double> start(kMany);
  for (int i = 0; i < kMany; ++i) start[i] = i % 2 ? -1.0 : 1.0;
  auto learned = Learn<kMany>(saddle, start);  // lbfgs; a method of more steps is believed.
  EXPECT_EQ(learned.Solve().termination_type, ceres::CONVERGENCE) << learned.summary.FullReport();
  EXPECT_NEAR(learned.summary.final_objective, -0.025, 1e-5);
}

TEST(AnswerCheck, WhereNothingCurves) {
  Learn<2>(
      [](const auto* y, auto* value) {
        *value = y[0] * y[0] - y[1] * y[1] * y[1] * y[1] * (1.0 - y[1] * y[1]);
        return true;
      },
      {1.0, 0.0})
      .ExpectLeft(-4.0 / 27.0, 1e-6);
}

// Both bounds of y are weakly active, and phi falls between their axes.
TEST(AnswerCheck, TwoWeaklyActiveBounds) {
  auto learned = Learn<2>(
      [](const auto* y, auto* value) {
        *value = (y[0] * y[1] - 1.0) * (y[0] * y[1] - 1.0);
        return true;
      },
      {0.0, 0.0});
  learned.BoundY();
  learned.ExpectLeft(0.0, 1e-6);
}

// Ceres' basis of the tangent plane turns around beside this pole.
TEST(AnswerCheck, TheMaximumAtAPoleOfASphere) {
  const auto height = [](const auto* y, auto* value) {
    *value = y[2];
    return true;
  };
  for (const std::vector<double>& start :
       {std::vector<double>{0.0, 0.0, 1.0}, {0.0, 0.0, -1.0}, {1e-9, 0.0, 1.0}}) {
    std::vector<double> x = start, y(3, 0.5);
    Problem problem;
    problem.AddUpperParameterBlock(x.data(), 3, new ceres::SphereManifold<3>);
    problem.AddTerm(Level::kLower,
                    std::make_unique<AutoDiffObjective<HalfSquare<3>, 3, 3>>(),
                    {{x.data(), 3}, {y.data(), 3}});
    problem.AddTerm(Level::kUpper,
                    std::make_unique<AutoDiffObjective<std::decay_t<decltype(height)>, 3>>(height),
                    {{y.data(), 3}});
    Solver::Summary summary;
    Solve({}, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(x[2], -1.0, 1e-8) << summary.FullReport();
  }
}

// A well so narrow that both sides that are looked at are beyond it.
TEST(AnswerCheck, ANarrowWellIsNoKink) {
  const auto f = [](const auto* y, auto* value) {
    using std::exp;
    *value = exp(1e6 * y[0]) - 2e6 * y[0] + 0.5;
    return true;
  };
  auto learned = Learn<1>(f, {3e-7});
  const double least = 2.5 - 2.0 * std::log(2.0);
  EXPECT_TRUE(learned.Solve().termination_type != ceres::CONVERGENCE ||
              learned.summary.final_objective < least + 1e-4)
      << learned.summary.FullReport();
}

// What lies on the other side cannot be known.
TEST(AnswerCheck, TheEdgeOfTheDomainIsNoKink) {
  for (const char* method : {"auto", "levenberg_marquardt", "projected_lbfgs"}) {
    auto learned = Learn<1>(
        [](const auto* y, auto* value) {
          *value = (y[0] - 1.0) * (y[0] - 1.0);
          return y[0] < 0.37;
        },
        {0.0});
    EXPECT_EQ(learned.Solve(method).termination_type, ceres::NO_CONVERGENCE)
        << method << learned.summary.FullReport();
  }
}

// The lower level leaves y free on a circle, where it arrives at f's worst.
struct Circle {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0] * y[0] + y[1] * y[1] - 1.0;
    return true;
  }
};
struct Left {
  template <typename T>
  bool operator()(const T* y, T* value) const {
    *value = -y[0];
    return true;
  }
};

TEST(AnswerCheck, TheWorstOfASetIsNoAnswer) {
  for (const double start : {-1.0, -2.0}) {
    double y[2] = {start, 0.0};
    Problem problem;
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Circle, 1, 2>(new Circle), nullptr, y);
    problem.AddTerm(Level::kUpper, std::make_unique<AutoDiffObjective<Left, 2>>(), {{y, 2}});
    Solver::Summary summary;
    SolveSimpleBilevel({}, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_NEAR(y[0], 1.0, 1e-8);
    EXPECT_NEAR(y[1], 0.0, 1e-4);
  }
}

}  // namespace
}  // namespace bilevel
