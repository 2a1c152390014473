// Lower levels at the edge of what double precision holds: ill-conditioned, noisy, flat.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

constexpr int kSize = 6, kRows = 20;
using LongMatrix = Eigen::Matrix<long double, Eigen::Dynamic, Eigen::Dynamic>;
using LongVector = Eigen::Matrix<long double, Eigen::Dynamic, 1>;

// The y of the least |a y - b|, by Gram and Schmidt's process, twice.
LongVector LongLeastSquares(const LongMatrix& a, const LongVector& b) {
  const Eigen::Index n = a.cols();
  LongMatrix q = a, r = LongMatrix::Identity(n, n);
  for (int pass = 0; pass < 2; ++pass) {
    LongMatrix own = LongMatrix::Zero(n, n);
    for (int j = 0; j < n; ++j) {
      for (int i = 0; i < j; ++i) {
        own(i, j) = q.col(i).dot(q.col(j));
        q.col(j) -= own(i, j) * q.col(i);
      }
      own(j, j) = q.col(j).norm();
      q.col(j) /= own(j, j);
    }
    r = own.lazyProduct(r).eval();
  }
  LongVector y(n);
  for (Eigen::Index j = n; j-- > 0;) {
    y[j] = q.col(j).dot(b);
    for (Eigen::Index k = j + 1; k < n; ++k) y[j] -= r(j, k) * y[k];
    y[j] /= r(j, j);
  }
  return y;
}

// e^(rate x) (a'y - b).
struct Row {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::exp;
    r[0] = T(-b);
    for (int i = 0; i < kSize; ++i) r[0] += a[i] * y[i];
    r[0] *= exp(rate * x[0]);
    return true;
  }
  Vector a;
  double b, rate;
};

// dy*/dx against QR in long double.
TEST(HardLowerLevel, IllConditioned) {
  for (const double condition : {1e8, 1e12, 1e13, 1e14}) {
    for (const unsigned seed : {0u, 2u, 5u}) {
      std::srand(seed);
      const Matrix u = HouseholderQ(Matrix::Random(kRows, kSize), kSize);
      const Matrix v = HouseholderQ(Matrix::Random(kSize, kSize), kSize);
      Vector s(kSize);
      for (int i = 0; i < kSize; ++i) s[i] = std::pow(condition, -0.5 * i / (kSize - 1));
      const Matrix a = u * s.asDiagonal() * v.transpose();
      const Vector b = a * Vector::Ones(kSize) + 1e-3 * Vector::Random(kRows);
      double x = 0.1;
      Vector y = Vector::Zero(kSize);
      Problem problem;
      problem.AddUpperParameterBlock(&x, 1);
      LongMatrix weighted(kRows, kSize);
      LongVector target(kRows), rates(kRows);
      for (int i = 0; i < kRows; ++i) {
        rates[i] = 0.1 * (i % 3);
        const long double weight = std::exp(rates[i] * static_cast<long double>(x));
        weighted.row(i) = weight * a.row(i).cast<long double>();
        target[i] = weight * b[i];
        problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Row, 1, kSize, 1>(new Row{
                                              a.row(i), b[i], static_cast<double>(rates[i])}),
                                          nullptr,
                                          y.data(),
                                          &x);
      }
      const LongVector expected = LongLeastSquares(weighted, target);
      const LongVector residual = target - weighted.lazyProduct(expected);
      // J'J dy = J'(2 rate r).
      const LongVector slope = LongLeastSquares(weighted, 2.0L * rates.cwiseProduct(residual));
      Sensitivity::Options options;
      options.polish = true;
      Sensitivity sensitivity(options);
      ASSERT_TRUE(sensitivity.Compute(&problem, {&x})) << condition << sensitivity.message();
      EXPECT_EQ(sensitivity.num_free_directions(), 0) << condition;
      Vector found(kSize);
      ASSERT_TRUE(sensitivity.GetSensitivityBlock(y.data(), &x, found.data()));
      EXPECT_LT((y - expected.cast<double>()).norm(), 1e-6 * expected.norm()) << condition;
      const double error =
          static_cast<double>((found - slope.cast<double>()).norm() / slope.norm());
      EXPECT_LT(error, 1e-3) << condition;
      // What rounding costs is said.
      EXPECT_LT(error, std::max(1e-5, sensitivity.relative_rounding())) << condition;
    }
  }
}

// A Jacobian and residuals in single precision.
class FloatCost : public ceres::SizedCostFunction<1, 2, 1> {
 public:
  FloatCost(double t, double z) : t_(static_cast<float>(t)), z_(static_cast<float>(z)) {}
  bool Evaluate(double const* const* p, double* r, double** j) const override {
    const float a = static_cast<float>(p[0][0]), b = static_cast<float>(p[0][1]);
    const float e = std::exp(b * t_), w = std::exp(static_cast<float>(p[1][0]));
    r[0] = w * (a * e - z_);
    if (j && j[0]) {
      j[0][0] = w * e;
      j[0][1] = w * a * t_ * e;
    }
    if (j && j[1]) j[1][0] = w * (a * e - z_);
    return true;
  }

 private:
  float t_, z_;
};

struct ExactCost {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::exp;
    r[0] = exp(x[0]) * (y[0] * exp(y[1] * t) - z);
    return true;
  }
  double t, z;
};

struct Prior {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - first;
    r[1] = y[1] - second;
    return true;
  }
  double first, second;
};

struct Fit {
  explicit Fit(bool in_float) {
    problem.AddUpperParameterBlock(&x, 1);
    for (int i = 0; i < 20; ++i) {
      const double t = 0.1 * i, z = 1.6 * std::exp(-0.09 * i) + 0.1 * std::sin(5.0 * i);
      ceres::CostFunction* cost = new FloatCost(t, z);
      if (!in_float) {
        delete cost;
        cost = new AutoDiffCostFunction<ExactCost, 1, 2, 1>(new ExactCost{t, z});
      }
      problem.lower()->AddResidualBlock(cost, nullptr, y, &x);
    }
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Prior, 2, 2>(new Prior{1.0, -0.5}), nullptr, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Prior, 2, 2>(new Prior{1.52, -0.8}), nullptr, y);
  }
  double x = 0.0, y[2] = {1.0, -0.5};
  Problem problem;
};

// The value that a message names for an option; 0: none.
double Named(const std::string& option, const std::string& message) {
  const size_t at = message.find(option + " = ");
  return at == std::string::npos ? 0.0 : std::atof(message.c_str() + at + option.size() + 3);
}

TEST(HardLowerLevel, SinglePrecisionIsNoise) {
  Fit exact(false), noisy(true);
  Solver::Summary summary;
  Solve({}, &exact.problem, &summary);
  ASSERT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.message;
  Solve({}, &noisy.problem, &summary);
  EXPECT_FALSE(summary.IsSolutionUsable());
  EXPECT_THAT(summary.message, HasSubstr("noisy, which lower_tolerance = "));
  Solver::Options tolerant;  // The remedy.
  tolerant.lower_tolerance = Named("lower_tolerance", summary.message);
  Solve(tolerant, &noisy.problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.message;
  EXPECT_NEAR(noisy.x, exact.x, 1e-2);

  Fit again(true);
  Sensitivity::Options options;
  options.polish = true;
  Sensitivity strict(options);
  EXPECT_FALSE(strict.Compute(&again.problem, {&again.x}));
  options.stationarity_tolerance = Named("stationarity_tolerance", strict.message());
  ASSERT_GT(options.stationarity_tolerance, 1e-8) << strict.message();
  ASSERT_LT(options.stationarity_tolerance, 1e-5) << strict.message();
  Sensitivity within(options);
  ASSERT_TRUE(within.Compute(&again.problem, {&again.x})) << within.message();
  EXPECT_LT(within.relative_decrement(), options.stationarity_tolerance);
}

// The parameter is rounded to 1e-6, as by a large offset of coordinates.
struct Rounded {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    using std::exp;
    const T u = (y[0] + 5e9) - 5e9;
    r[0] = exp(a * u) - b;
    return true;
  }
  double a, b;
};

TEST(HardLowerLevel, RoundedParameters) {
  double y = 0.3, log_sigma = 0.0;
  ceres::Problem lower;
  std::vector<ceres::ResidualBlockId> ids;
  for (int i = 0; i < 100; ++i) {
    const double a = 0.02 * i;
    const auto id = lower.AddResidualBlock(new AutoDiffCostFunction<Rounded, 1, 1>(new Rounded{
                                               a, std::exp(0.5 * a) + 0.3 * std::sin(7.0 * i)}),
                                           nullptr,
                                           &y);
    if (i % 2) ids.push_back(id);
  }
  Sensitivity::Options options;
  options.polish = true;
  for (const bool is_enough : {false, true}) {
    Problem problem(nullptr, &lower);
    Sensitivity sensitivity(options);
    sensitivity.ScaleNoise(ids, &log_sigma);
    EXPECT_EQ(sensitivity.Compute(&problem, {&log_sigma}), is_enough) << sensitivity.message();
    if (is_enough) break;
    options.stationarity_tolerance = Named("stationarity_tolerance", sensitivity.message());
    ASSERT_GT(options.stationarity_tolerance, 1e-8) << sensitivity.message();
    ASSERT_LT(options.stationarity_tolerance, 1e-4) << sensitivity.message();
  }
}

struct Near {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    r[0] = y[0] - x[0];
    return true;
  }
};

// Its minimum lies at infinity, where Newton's steps have a constant length.
struct Vanishing {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    using std::exp;
    r[0] = exp(-y[0]);
    return true;
  }
};

TEST(HardLowerLevel, TheBlockThatRunsOffIsNamed) {
  double x = 0.0, y = 0.3, far = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Near, 1, 1, 1>(new Near), nullptr, &y, &x);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Vanishing, 1, 1>(new Vanishing), nullptr, &far);
  problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
  problem.SetParameterName(&far, "landmark");
  Solver::Summary summary;
  Solve({}, &problem, &summary);
  EXPECT_FALSE(summary.IsSolutionUsable());
  EXPECT_THAT(summary.message, HasSubstr("no minimum near"));
  EXPECT_THAT(summary.message, HasSubstr("along 'landmark'"));
}

template <int... Ns, typename F>
std::unique_ptr<Objective> Term(F f) {
  return std::make_unique<AutoDiffObjective<F, Ns...>>(f);
}

// Terms that cancel to nothing at y* = x = 0, where neither value nor y tells their rounding.
template <typename G>
void ExpectSolvedFromAnywhere(const G& g, double reach, const char* method) {
  const auto f = [](const auto* y, auto* value) {
    *value = (y[0] - 1.0) * (y[0] - 1.0);
    return true;
  };
  for (const double at : {0.0, 1e-12, 1e-6, 0.3, 100.0}) {
    for (int i = 0; i < 20; ++i) {
      double x = at, y = at + reach * (i / 9.5 - 1.0);
      Problem problem;
      problem.AddUpperParameterBlock(&x, 1);
      problem.AddTerm(Level::kLower, Term<1, 1>(g), {{&x, 1}, {&y, 1}});
      problem.AddTerm(Level::kUpper, Term<1>(f), {{&y, 1}});
      Solver::Options options;
      options.method = CreateMethod(method);
      Solver::Summary summary;
      Solve(options, &problem, &summary);
      ASSERT_EQ(summary.termination_type, ceres::CONVERGENCE)
          << method << " " << at << " " << i << ": " << summary.message;
      ASSERT_NEAR(y, 1.0, 1e-4) << summary.message;  // cos has more than one minimum.
    }
  }
}

TEST(HardLowerLevel, TermsThatCancel) {
  for (const char* method : {"auto", "levenberg_marquardt", "optimistic"}) {
    ExpectSolvedFromAnywhere(
        [](const auto* x, const auto* y, auto* value) {
          using std::log;
          *value = log(1.0 + (y[0] - x[0]) * (y[0] - x[0]));
          return true;
        },
        0.9,
        method);
    ExpectSolvedFromAnywhere(
        [](const auto* x, const auto* y, auto* value) {
          using std::sqrt;
          *value = sqrt(1.0 + (y[0] - x[0]) * (y[0] - x[0])) - 1.0;
          return true;
        },
        0.9,
        method);
    ExpectSolvedFromAnywhere(
        [](const auto* x, const auto* y, auto* value) {
          using std::exp;
          *value = exp(y[0] - x[0]) + exp(x[0] - y[0]) - 2.0;
          return true;
        },
        1.4,
        method);
    ExpectSolvedFromAnywhere(
        [](const auto* x, const auto* y, auto* value) {
          using std::cos;
          *value = 1.0 - cos(y[0] - x[0]);
          return true;
        },
        1.4,
        method);
  }
}

// d^3 + d^4 has an inflection at d = 0 on the way to its minimum at d = -3/4.
TEST(HardLowerLevel, AnInflectionIsNoMinimum) {
  int num_converged = 0;
  for (const char* method : {"auto", "levenberg_marquardt", "optimistic"}) {
    for (const double constant : {0.0, 1e-9, 1.0}) {
      for (const double start : {0.1, 1.0, 2.0}) {
        double x = 0.0, y = start;
        Problem problem;
        problem.AddUpperParameterBlock(&x, 1);
        problem.AddTerm(Level::kLower,
                        Term<1, 1>([constant](const auto* at, const auto* own, auto* value) {
                          const auto d = own[0] - at[0];
                          *value = constant + d * d * d * (1.0 + d);
                          return true;
                        }),
                        {{&x, 1}, {&y, 1}});
        problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
        Solver::Options options;
        options.method = CreateMethod(method);
        Solver::Summary summary;
        Solve(options, &problem, &summary);
        if (summary.termination_type != ceres::CONVERGENCE) continue;
        ++num_converged;
        EXPECT_NEAR(y - x, -0.75, 1e-6) << method << " " << constant << summary.FullReport();
      }
    }
  }
  EXPECT_GE(num_converged, 20);  // Of 27.
}

// (x - y^3)^2 has one at y = 0, where its Hessian vanishes too, and its minimum at the root.
TEST(HardLowerLevel, AStartAtAnInflection) {
  for (const char* method : {"auto", "levenberg_marquardt", "optimistic"}) {
    for (const double start : {0.0, 0.3, -0.3}) {
      double x = -4.0, y = start;
      Problem problem;
      problem.AddUpperParameterBlock(&x, 1);
      problem.AddTerm(Level::kLower,
                      Term<1, 1>([](const auto* at, const auto* own, auto* value) {
                        const auto r = at[0] - own[0] * own[0] * own[0];
                        *value = r * r;
                        return true;
                      }),
                      {{&x, 1}, {&y, 1}});
      problem.upper()->AddResidualBlock(TargetCost(-1.2), nullptr, &y);
      Solver::Options options;
      options.method = CreateMethod(method);
      Solver::Summary summary;
      Solve(options, &problem, &summary);
      EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << method << summary.FullReport();
      EXPECT_NEAR(y, -1.2, 1e-5) << method;
      EXPECT_NEAR(x, -1.728, 1e-4) << method;
    }
  }
}

// The step to y[1]'s bound, added to where it begins, ends an ulp beside it.
TEST(HardLowerLevel, ABoundIsMetExactly) {
  for (const double start : {0.1, 0.2, 0.25}) {
    double x = 0.0, y[2] = {start, start};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(Level::kLower,
                    Term<2>([](const auto* own, auto* value) {
                      *value = 1.45 * own[0] * own[0] + 0.5 * own[0] * own[1] +
                               0.9 * own[1] * own[1] - 3.6 * own[0] + 2.2 * own[1];
                      return true;
                    }),
                    {{y, 2}});
    problem.lower()->AddParameterBlock(y, 2);
    for (int i = 0; i < 2; ++i) {
      problem.lower()->SetParameterLowerBound(y, i, -0.5);
      problem.lower()->SetParameterUpperBound(y, i, 1.0);
    }
    problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &x);
    Solver::Summary summary;
    Solve({}, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
    EXPECT_EQ(y[0], 1.0);
    EXPECT_EQ(y[1], -0.5);
  }
}

// Waves of a height of 1 beside a residual whose Hessian is 1e6 where it vanishes, in one block.
TEST(HardLowerLevel, CoordinatesOfDifferentUnits) {
  constexpr double kPi = 3.14159265358979323846;
  double x = 5.5, y[2] = {5.5, 0.6};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddTerm(Level::kLower,
                  Term<1, 2>([](const auto* at, const auto* own, auto* value) {
                    using std::cos;
                    using std::tan;
                    const auto r = at[0] * at[0] - tan(own[1]);
                    *value = own[0] * own[0] - cos(2.0 * kPi * own[0]) + r * r;
                    return true;
                  }),
                  {{&x, 1}, {y, 2}});
  problem.lower()->AddParameterBlock(y, 2);
  problem.lower()->SetParameterLowerBound(y, 1, -0.5 * kPi + 1e-6);
  problem.lower()->SetParameterUpperBound(y, 1, 0.5 * kPi - 1e-6);
  problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &x);
  Solver::Summary summary;
  Solve({}, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_NEAR(y[0] + kPi * std::sin(2.0 * kPi * y[0]), 0.0, 1e-8);
  EXPECT_GT(1.0 + 2.0 * kPi * kPi * std::cos(2.0 * kPi * y[0]), 0.0);
  EXPECT_NEAR(y[1], std::atan(4.0), 1e-8);
}

// The Hessian vanishes at y*, where y, value and decrement shrink together.
TEST(HardLowerLevel, ADegenerateMinimum) {
  for (const double start : {1.0, -0.3, 1e-3, 0.0}) {
    double x = 0.0, y = start;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    const auto g = [](const auto* at, const auto* own, auto* value) {
      const auto d = own[0] - at[0];
      *value = d * d * d * d;
      return true;
    };
    problem.AddTerm(Level::kLower, Term<1, 1>(g), {{&x, 1}, {&y, 1}});
    problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
    Solver::Summary summary;
    Solve({}, &problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << start << summary.FullReport();
    EXPECT_NEAR(x, 2.0, 1e-4);
  }
}

TEST(HardLowerLevel, EveryResidualBeyondItsLoss) {
  double y = 0.0, log_scale = std::log(0.3);
  Problem problem;
  problem.AddUpperParameterBlock(&log_scale, 1);
  auto* loss = new TukeyLoss(&log_scale);
  for (int i = 0; i < 20; ++i) {
    problem.lower()->AddResidualBlock(TargetCost(2.0 + 0.3 * std::sin(11.0 * i)), loss, &y);
  }
  problem.upper()->AddResidualBlock(TargetCost(2.0), nullptr, &y);
  problem.SetParameterName(&y, "height");
  Solver::Options options;
  options.method = CreateMethod("lbfgs");
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_FALSE(summary.IsSolutionUsable());
  EXPECT_THAT(summary.message, HasSubstr("every residual of 'height' is beyond its loss's scale"));
  log_scale = std::log(3.0);  // The remedy.
  Solve(options, &problem, &summary);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.message;
  EXPECT_NEAR(y, 2.0, 1e-2);
}

// The second coordinate runs away, over a bump or for ever downhill, beside one that is determined.
struct BesideBump {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::exp;
    r[0] = exp(y[0]) - T(8.0) - x[0];
    r[1] = T(1.0) + exp(-y[1] * y[1]);
    return true;
  }
};
struct BesideDecay {
  template <typename T>
  bool operator()(const T* y, const T* x, T* r) const {
    using std::exp;
    r[0] = exp(y[0]) - T(8.0) - x[0];
    r[1] = T(1.0) + T(1.0) / (T(1.0) + y[1] * y[1]);
    return true;
  }
};

// Whether y was solved: then the first coordinate is right.
template <typename Functor>
bool IsSolvedBesideRunaway(double a, double b) {
  double x = 0.5, y[2] = {a, b};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Functor, 2, 2, 1>(new Functor), nullptr, y, &x);
  Sensitivity::Options options;
  options.polish = true;
  Sensitivity sensitivity(options);
  if (!sensitivity.Compute(&problem, {&x})) {
    EXPECT_FALSE(sensitivity.message().empty());
    return false;
  }
  double dy_dx[2];
  EXPECT_TRUE(sensitivity.GetSensitivityBlock(y, &x, dy_dx));
  EXPECT_NEAR(y[0], std::log(8.5), 1e-9) << a << " " << b << " " << y[1];
  EXPECT_NEAR(dy_dx[0], 1.0 / 8.5, 1e-9) << a << " " << b << " " << y[1];
  return true;
}

TEST(HardLowerLevel, WhatRunsAwayIsNoMeasureOfTheRest) {
  int num_solved = 0;
  for (const double a : {3.0, 6.0, 8.0}) {
    for (const double b : {0.01, 0.1, 0.3, 1.0}) {
      num_solved += IsSolvedBesideRunaway<BesideBump>(a, b);
      num_solved += IsSolvedBesideRunaway<BesideDecay>(a, b);
    }
  }
  EXPECT_GE(num_solved, 12);  // Of 24.
}

}  // namespace
}  // namespace bilevel
