// Weights that drift over 35 decades, up, down and at random, with y, solvers and factorisations
// kept from where they were: what is called an answer is the closed form's.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "small_problems.h"
#include "test_problems.h"

namespace bilevel {
namespace {

constexpr int kSize = 3, kRows = 8;
using Weights = std::array<double, 2>;
using LongMatrix = Eigen::Matrix<long double, kSize, kSize>;
using LongVector = Eigen::Matrix<long double, kSize, 1>;

// e^w (a'y - b), with w = 0 for what has no weight.
struct Row {
  template <typename T>
  bool operator()(const T* y, const T* w, T* r) const {
    using std::exp;
    r[0] = T(-b);
    for (int i = 0; i < kSize; ++i) r[0] += a[i] * y[i];
    if (weight >= 0) r[0] *= exp(w[weight]);
    return true;
  }
  Vector a;
  double b;
  int weight;
};
struct Check {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    for (int i = 0; i < kSize; ++i) r[i] = y[i] - target[i];
    return true;
  }
  Vector target;
};

// g = |A y - a|^2 / 2 + e^(2 w0) |B y - b|^2 / 2 + e^(2 w1) |y - p|^2 / 2.
struct Drifting {
  Drifting() {
    problem.AddUpperParameterBlock(w.data(), 2);
    for (int i = 0; i < 2 * kRows + kSize; ++i) {
      const int weight = i / kRows - 1;
      const Vector a = weight < 1 ? TestVector(kSize, 1.0 + i) : Vector::Unit(kSize, i % kSize);
      rows.push_back({a, std::sin(3.0 * i), weight});
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<Row, 1, kSize, 2>(new Row(rows.back())),
          nullptr,
          y.data(),
          w.data());
    }
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Check, kSize, kSize>(new Check{target}), nullptr, y.data());
  }

  // Gauss' elimination in long double, where squares of e^40 have room.
  LongVector Solution(const Weights& at) const {
    LongMatrix h = LongMatrix::Zero();
    LongVector right = LongVector::Zero();
    for (const Row& row : rows) {
      const LongVector a = row.a.cast<long double>();
      const long double weight = row.weight < 0 ? 1.0L : std::exp(2.0L * at[row.weight]);
      h += weight * a * a.transpose();
      right += weight * row.b * a;
    }
    for (int k = 0; k < kSize; ++k) {
      for (int i = k + 1; i < kSize; ++i) {
        const long double factor = h(i, k) / h(k, k);
        h.row(i) -= factor * h.row(k);
        right[i] -= factor * right[k];
      }
    }
    LongVector solution;
    for (int i = kSize - 1; i >= 0; --i) {
      solution[i] = right[i];
      for (int j = i + 1; j < kSize; ++j) solution[i] -= h(i, j) * solution[j];
      solution[i] /= h(i, i);
    }
    return solution;
  }
  double Phi(const Weights& at) const {
    const LongVector error = Solution(at) - target.cast<long double>();
    return static_cast<double>(0.5L * error.squaredNorm());
  }
  // By how much y is off.
  double Error(const Weights& at, const Vector& found) const {
    return (found - Solution(at).cast<double>()).norm();
  }

  Weights w{};
  Vector y = Vector::Zero(kSize);
  const Vector target = TestVector(kSize, 7.0);
  std::vector<Row> rows;
  Problem problem;
};

std::vector<Weights> Way(const std::string& kind) {
  std::vector<Weights> way;
  for (double w = -40.0; w <= 40.0; w += 10.0) way.push_back({w, 1.0});
  if (kind == "down") std::reverse(way.begin(), way.end());
  if (kind == "random") {
    std::mt19937 generator(3);
    std::uniform_real_distribution<double> far(-40.0, 40.0);
    for (Weights& w : way) w = {far(generator), far(generator)};
  }
  return way;
}

class Drift : public ::testing::TestWithParam<std::string> {};

TEST_P(Drift, EveryMethod) {
  int num_solves = 0, num_usable = 0, num_converged = 0;
  for (const std::string& method : ListMethods()) {
    Drifting p;  // y is kept from solve to solve.
    Solver::Options options = SmallProblem::Options(method);
    options.max_num_iterations = 5;
    for (const Weights& start : Way(GetParam())) {
      SCOPED_TRACE(method + " from " + std::to_string(start[0]) + ", " + std::to_string(start[1]));
      p.w = start;
      Solver::Summary summary;
      Solve(options, &p.problem, &summary);
      ++num_solves;
      ASSERT_TRUE(std::isfinite(p.w[0]) && std::isfinite(p.w[1]) && p.y.allFinite());
      if (!summary.IsSolutionUsable()) {
        EXPECT_FALSE(summary.message.empty());
        continue;
      }
      ++num_usable;
      const double phi = p.Phi(p.w);
      EXPECT_LT(p.Error(p.w, p.y), 1e-6) << summary.FullReport();
      EXPECT_NEAR(summary.final_objective, phi, 1e-6 * (1.0 + phi)) << summary.message;
      if (summary.termination_type != ceres::CONVERGENCE) continue;
      ++num_converged;
      for (int i = 0; i < 4; ++i) {
        Weights beside = p.w;
        beside[i / 2] += i % 2 ? 1e-3 : -1e-3;
        EXPECT_GT(p.Phi(beside), phi - 1e-6 * (1.0 + phi)) << summary.FullReport();
      }
    }
  }
  EXPECT_GT(num_usable, 3 * num_solves / 4);
  EXPECT_GT(num_converged, num_solves / 20);
}

TEST_P(Drift, ArgminAndChecker) {
  Drifting p;
  Solver::Options options;
  ArgminCostFunction argmin(options, &p.problem, {p.y.data()});
  ASSERT_TRUE(argmin.ok()) << argmin.error();
  for (const Weights& at : Way(GetParam())) {
    SCOPED_TRACE(std::to_string(at[0]) + ", " + std::to_string(at[1]));
    const double* blocks[] = {at.data()};
    Vector y(kSize);
    Eigen::Matrix<double, kSize, 2, Eigen::RowMajor> jacobian;
    double* jacobians[] = {jacobian.data()};
    ASSERT_TRUE(argmin.Evaluate(blocks, y.data(), jacobians)) << argmin.error();
    EXPECT_LT(p.Error(at, y), 1e-9);
    for (int i = 0; i < 2; ++i) {
      const Vector expected = Derivative<Vector>([&](double step) -> Vector {
        Weights moved = at;
        moved[i] += step;
        return p.Solution(moved).cast<double>();
      });
      EXPECT_LT((jacobian.col(i) - expected).norm(), 1e-8) << i;
    }
    p.w = at;
    const HypergradientChecker::Result result = HypergradientChecker::Check(&p.problem);
    ASSERT_TRUE(result.ok) << result.message;
    for (int i = 0; i < 2; ++i) {
      const double expected = Derivative<double>([&](double step) {
        Weights moved = at;
        moved[i] += step;
        return p.Phi(moved);
      });
      EXPECT_NEAR(result.gradient[i], expected, 1e-8) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, Drift, ::testing::Values("up", "down", "random"));

// Many starts over the whole range.
TEST(Drift, ManyStarts) {
  Drifting p;
  p.problem.SetParameterLowerBound(p.w.data(), 0, -40.0);
  p.problem.SetParameterUpperBound(p.w.data(), 0, 40.0);
  p.problem.SetParameterLowerBound(p.w.data(), 1, -40.0);
  p.problem.SetParameterUpperBound(p.w.data(), 1, 40.0);
  MultiStartOptions starts;
  starts.num_starts = 20;
  starts.radius = 40.0;
  Solver::Summary summary;
  SolveFromManyStarts(starts, {}, &p.problem, &summary, nullptr);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  double least = HUGE_VAL;
  for (double a = -40.0; a <= 40.0; a += 0.5) {
    for (double b = -40.0; b <= 40.0; b += 0.5) least = std::min(least, p.Phi({a, b}));
  }
  EXPECT_LT(p.Error(p.w, p.y), 1e-6);
  EXPECT_LE(p.Phi(p.w), least + 1e-6) << summary.FullReport();
}

}  // namespace
}  // namespace bilevel
