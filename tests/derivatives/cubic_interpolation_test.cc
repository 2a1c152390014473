#include "bilevel/derivatives/cubic_interpolation.h"

#include <cmath>

#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "ceres/cubic_interpolation.h"
#include "derivatives/tape_derivatives.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using Grid1 = ceres::Grid1D<double, 2>;
using Grid2 = ceres::Grid2D<double, 2>;

constexpr double kLine[] = {1, 5, 2, -3, 4, 8, 9, 1, -2, 6, 3, 3};

// A 6 x 5 grid with two values a node.
struct Image {
  Image() {
    for (int i = 0; i < 60; ++i) data[i] = (i * i * 7 + 3 * i) % 23 - 11.0;
  }
  double data[60];
};

TEST(CubicInterpolator, ValuesAndFirstDerivativesAreThoseOfCeres) {
  const Grid1 grid(kLine, 0, 6);
  const bilevel::CubicInterpolator<Grid1> ours(grid);
  const ceres::CubicInterpolator<Grid1> theirs(grid);
  for (const double x : {-2.5, -0.3, 0.0, 0.4, 1.0, 2.7, 4.999, 5.0, 6.1, 20.0}) {
    double f[2], df[2], g[2], dg[2];
    ours.Evaluate(x, f, df);
    theirs.Evaluate(x, g, dg);
    ceres::Jet<double, 1> jet[2];
    ours.Evaluate(ceres::Jet<double, 1>(x, 0), jet);
    for (int i = 0; i < 2; ++i) {
      EXPECT_NEAR(f[i], g[i], 1e-13) << x;
      EXPECT_NEAR(df[i], dg[i], 1e-13) << x;
      EXPECT_NEAR(jet[i].a, g[i], 1e-13) << x;
      EXPECT_NEAR(jet[i].v[0], dg[i], 1e-13) << x;
    }
  }
}

// The spline is a cubic in each cell, so the central second difference of its first derivative is
// exact for steps that stay inside: no truncation error to allow for.
TEST(CubicInterpolator, SecondDerivativeIsThatOfTheCubic) {
  const Grid1 grid(kLine, 0, 6);
  const bilevel::CubicInterpolator<Grid1> interpolator(grid);
  const ceres::CubicInterpolator<Grid1> ceres_interpolator(grid);
  for (const double x : {0.4, 1.5, 3.75}) {
    // Through a nonlinear inner function: f(x(s)) with x = s^2.
    const double s = std::sqrt(x);
    const auto f = TapeDerivatives<1, 2>(
        [&](const auto* p, auto* y) { interpolator.Evaluate(*p * *p, y); }, &s);
    const double h = 0.125;
    double mid[2], df[2], plus[2], minus[2], unused[2];
    ceres_interpolator.Evaluate(x, mid, df);
    ceres_interpolator.Evaluate(x + h, unused, plus);
    ceres_interpolator.Evaluate(x - h, unused, minus);
    for (int i = 0; i < 2; ++i) {
      const double d2f = (plus[i] - minus[i]) / (2.0 * h);  // f' is a parabola: exact.
      EXPECT_NEAR(f[i].v[0].a, df[i] * 2.0 * s, 1e-12);
      EXPECT_NEAR(f[i].v[0].d[0], d2f * 4.0 * s * s + df[i] * 2.0, 1e-11);
    }
  }
}

TEST(CubicInterpolator, AtANodeTheSecondDerivativeIsThatFromTheRight) {
  const Grid1 grid(kLine, 0, 6);
  const bilevel::CubicInterpolator<Grid1> interpolator(grid);
  const auto evaluate = [&](double x) {
    return TapeDerivatives<1, 2>([&](const auto* p, auto* y) { interpolator.Evaluate(*p, y); }, &x);
  };
  const auto at = evaluate(2.0);
  const auto right = evaluate(2.0 + 1e-9);
  const auto left = evaluate(2.0 - 1e-9);
  EXPECT_NEAR(at[0].v[0].d[0], right[0].v[0].d[0], 1e-6);
  EXPECT_GT(std::abs(at[0].v[0].d[0] - left[0].v[0].d[0]), 1.0);
}

TEST(BiCubicInterpolator, ValuesAndFirstDerivativesAreThoseOfCeres) {
  const Image image;
  const Grid2 grid(image.data, 0, 6, 0, 5);
  const bilevel::BiCubicInterpolator<Grid2> ours(grid);
  const ceres::BiCubicInterpolator<Grid2> theirs(grid);
  for (const double r : {-1.5, 0.0, 0.3, 2.0, 3.6, 5.2}) {
    for (const double c : {-0.2, 1.0, 1.7, 3.9, 7.0}) {
      double f[2], fr[2], fc[2], g[2], gr[2], gc[2];
      ours.Evaluate(r, c, f, fr, fc);
      theirs.Evaluate(r, c, g, gr, gc);
      ceres::Jet<double, 2> jet[2];
      ours.Evaluate(ceres::Jet<double, 2>(r, 0), ceres::Jet<double, 2>(c, 1), jet);
      for (int i = 0; i < 2; ++i) {
        EXPECT_NEAR(f[i], g[i], 1e-12);
        EXPECT_NEAR(fr[i], gr[i], 1e-12);
        EXPECT_NEAR(fc[i], gc[i], 1e-12);
        EXPECT_NEAR(jet[i].v[0], gr[i], 1e-12);
        EXPECT_NEAR(jet[i].v[1], gc[i], 1e-12);
      }
    }
  }
}

// As above, along r and along c: each first derivative is at most a parabola in the variable it is
// the derivative of, and at most a cubic in the other, for which one extrapolation is exact.
TEST(BiCubicInterpolator, SecondDerivativesAreThoseOfTheBicubic) {
  const Image image;
  const Grid2 grid(image.data, 0, 6, 0, 5);
  const bilevel::BiCubicInterpolator<Grid2> interpolator(grid);
  const ceres::BiCubicInterpolator<Grid2> ceres_interpolator(grid);
  const double point[2] = {2.4, 1.6};
  const auto f = TapeDerivatives<2, 2>(
      [&](const auto* p, auto* y) { interpolator.Evaluate(p[0], p[1], y); }, point);
  const auto difference = [&](int k, double h, double(*d)[2]) {
    double g[2], plus[2][2], minus[2][2];
    double x[2] = {point[0], point[1]};
    x[k] = point[k] + h;
    ceres_interpolator.Evaluate(x[0], x[1], g, plus[0], plus[1]);
    x[k] = point[k] - h;
    ceres_interpolator.Evaluate(x[0], x[1], g, minus[0], minus[1]);
    for (int m = 0; m < 2; ++m) {
      for (int i = 0; i < 2; ++i) d[m][i] = (plus[m][i] - minus[m][i]) / (2.0 * h);
    }
  };
  for (int k = 0; k < 2; ++k) {
    double coarse[2][2], fine[2][2];
    difference(k, 0.25, coarse);
    difference(k, 0.125, fine);
    for (int m = 0; m < 2; ++m) {
      for (int i = 0; i < 2; ++i) {
        const double expected = (4.0 * fine[m][i] - coarse[m][i]) / 3.0;
        EXPECT_NEAR(f[i].v[m].d[k], expected, 1e-11);
      }
    }
  }
}

struct Pixel {
  template <typename T>
  bool operator()(const T* p, T* residual) const {
    T value[2];
    interpolator.Evaluate(p[0] * p[1], p[0] + sin(p[1]), value);
    residual[0] = value[0] * value[1];
    return true;
  }
  const bilevel::BiCubicInterpolator<Grid2>& interpolator;
};

TEST(BiCubicInterpolator, WorksInsideACostFunction) {
  const Image image;
  const Grid2 grid(image.data, 0, 6, 0, 5);
  const bilevel::BiCubicInterpolator<Grid2> interpolator(grid);
  const AutoDiffCostFunction<Pixel, 1, 2> cost_function(new Pixel{interpolator});
  double p[2] = {1.7, 1.4};
  const double* parameters[] = {p};
  const double weight = 1.0;
  double H[4];
  ASSERT_TRUE(cost_function.EvaluateHessian(parameters, &weight, H));
  for (int k = 0; k < 2; ++k) {
    double D[2][2];
    for (const int level : {0, 1}) {
      const double h = 1e-3 / (1 + level);
      double residual, plus[2], minus[2];
      double* plus_blocks[] = {plus};
      double* minus_blocks[] = {minus};
      const double center = p[k];
      p[k] = center + h;
      cost_function.Evaluate(parameters, &residual, plus_blocks);
      p[k] = center - h;
      cost_function.Evaluate(parameters, &residual, minus_blocks);
      p[k] = center;
      for (int m = 0; m < 2; ++m) D[level][m] = (plus[m] - minus[m]) / (2.0 * h);
    }
    for (int m = 0; m < 2; ++m) {
      const double expected = (4.0 * D[1][m] - D[0][m]) / 3.0;
      EXPECT_NEAR(H[2 * m + k], expected, 1e-8 * std::abs(expected) + 1e-7);
    }
  }
}

}  // namespace
}  // namespace bilevel
