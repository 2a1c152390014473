#ifndef BILEVEL_DERIVATIVES_CUBIC_INTERPOLATION_H_
#define BILEVEL_DERIVATIVES_CUBIC_INTERPOLATION_H_

#include <cmath>

#include "bilevel/derivatives/tape.h"
#include "ceres/cubic_interpolation.h"
#include "ceres/jet.h"

namespace bilevel {
namespace internal {

// The weights of p(-1), p(0), p(1), p(2) in the Catmull-Rom spline (Keys' kernel with a = -1/2, as
// in Ceres) at t in [0, 1), and their first and second derivatives in t.
struct CatmullRomWeights {
  explicit CatmullRomWeights(double t)
      : w{{t * (-0.5 + t * (1.0 - 0.5 * t)),
           1.0 + t * t * (1.5 * t - 2.5),
           t * (0.5 + t * (2.0 - 1.5 * t)),
           0.5 * t * t * (t - 1.0)},
          {-0.5 + t * (2.0 - 1.5 * t),
           t * (4.5 * t - 5.0),
           0.5 + t * (4.0 - 4.5 * t),
           t * (1.5 * t - 1.0)},
          {2.0 - 3.0 * t, 9.0 * t - 5.0, 4.0 - 9.0 * t, 3.0 * t - 1.0}} {}

  double w[3][4];  // [order of differentiation][sample]
};

// f(r, c) with all derivatives up to the second, and its application to the scalar types.
struct SecondOrderTaylor2 {
  double f = 0.0, fr = 0.0, fc = 0.0, frr = 0.0, frc = 0.0, fcc = 0.0;
};

template <int N>
ceres::Jet<double, N> Apply(const SecondOrderTaylor2& t,
                            const ceres::Jet<double, N>& r,
                            const ceres::Jet<double, N>& c) {
  return {t.f, t.fr * r.v + t.fc * c.v};
}
inline TapeJet Apply(const SecondOrderTaylor2& t, const TapeJet& r, const TapeJet& c) {
  return TapeJet(TapeScalar::Chain(r.a, c.a, t.f, t.fr, t.fc, t.frr, t.frc, t.fcc));
}

inline double InterpolationPoint(double x) { return x; }
template <int N>
double InterpolationPoint(const ceres::Jet<double, N>& x) {
  return x.a;
}
inline double InterpolationPoint(const TapeJet& x) { return x.a.value; }

}  // namespace internal

/// ceres::CubicInterpolator with second derivatives: the same interpolant over the same grids
/// (ceres::Grid1D, or any class with `enum { DATA_DIMENSION }` and `GetValue(int, double*) const`)
/// for double, ceres::Jet<double, N> and bilevel::TapeJet.
///
/// The interpolant is piecewise cubic and once continuously differentiable: at a grid node the
/// second derivative is the one from the right. The grid is not owned and must outlive this.
template <typename Grid>
class CubicInterpolator {
 public:
  explicit CubicInterpolator(const Grid& grid) : grid_(grid) {
    static_assert(kDimension >= 1, "A grid needs at least one value per node.");
  }

  /// f and df/dx at x, DATA_DIMENSION values each; `dfdx` may be null.
  void Evaluate(double x, double* f, double* dfdx) const {
    internal::SecondOrderTaylor2 t[kDimension];
    Interpolate(x, t);
    for (int i = 0; i < kDimension; ++i) {
      if (f != nullptr) f[i] = t[i].f;
      if (dfdx != nullptr) dfdx[i] = t[i].fr;
    }
  }

  void Evaluate(const double& x, double* f) const { Evaluate(x, f, nullptr); }

  /// f(x) with its derivatives, DATA_DIMENSION values.
  template <typename JetT>
  void Evaluate(const JetT& x, JetT* f) const {
    internal::SecondOrderTaylor2 t[kDimension];
    Interpolate(internal::InterpolationPoint(x), t);
    for (int i = 0; i < kDimension; ++i) f[i] = Apply(t[i], x, x);
  }

 private:
  static constexpr int kDimension = Grid::DATA_DIMENSION;

  void Interpolate(double x, internal::SecondOrderTaylor2* t) const {
    const double cell = std::floor(x);
    const internal::CatmullRomWeights weights(x - cell);
    for (int k = 0; k < 4; ++k) {
      double value[kDimension];
      grid_.GetValue(static_cast<int>(cell) + k - 1, value);
      for (int i = 0; i < kDimension; ++i) {
        t[i].f += weights.w[0][k] * value[i];
        t[i].fr += weights.w[1][k] * value[i];
        t[i].frr += weights.w[2][k] * value[i];
      }
    }
  }

  const Grid& grid_;
};

/// ceres::BiCubicInterpolator with second derivatives: the same interpolant over the same grids
/// (ceres::Grid2D, or any class with `enum { DATA_DIMENSION }` and
/// `GetValue(int row, int col, double*) const`) for double, ceres::Jet<double, N> and
/// bilevel::TapeJet.
///
/// At a grid line the second derivatives are those of the cell of larger row or column. The grid is
/// not owned and must outlive this.
template <typename Grid>
class BiCubicInterpolator {
 public:
  explicit BiCubicInterpolator(const Grid& grid) : grid_(grid) {
    static_assert(kDimension >= 1, "A grid needs at least one value per node.");
  }

  /// f, df/dr and df/dc at (r, c), DATA_DIMENSION values each; each may be null.
  void Evaluate(double r, double c, double* f, double* dfdr, double* dfdc) const {
    internal::SecondOrderTaylor2 t[kDimension];
    Interpolate(r, c, t);
    for (int i = 0; i < kDimension; ++i) {
      if (f != nullptr) f[i] = t[i].f;
      if (dfdr != nullptr) dfdr[i] = t[i].fr;
      if (dfdc != nullptr) dfdc[i] = t[i].fc;
    }
  }

  void Evaluate(const double& r, const double& c, double* f) const {
    Evaluate(r, c, f, nullptr, nullptr);
  }

  /// f(r, c) with its derivatives, DATA_DIMENSION values.
  template <typename JetT>
  void Evaluate(const JetT& r, const JetT& c, JetT* f) const {
    internal::SecondOrderTaylor2 t[kDimension];
    Interpolate(internal::InterpolationPoint(r), internal::InterpolationPoint(c), t);
    for (int i = 0; i < kDimension; ++i) f[i] = Apply(t[i], r, c);
  }

 private:
  static constexpr int kDimension = Grid::DATA_DIMENSION;

  void Interpolate(double r, double c, internal::SecondOrderTaylor2* t) const {
    const double row = std::floor(r);
    const double col = std::floor(c);
    const internal::CatmullRomWeights wr(r - row);
    const internal::CatmullRomWeights wc(c - col);
    for (int j = 0; j < 4; ++j) {
      for (int k = 0; k < 4; ++k) {
        double value[kDimension];
        grid_.GetValue(static_cast<int>(row) + j - 1, static_cast<int>(col) + k - 1, value);
        for (int i = 0; i < kDimension; ++i) {
          t[i].f += wr.w[0][j] * wc.w[0][k] * value[i];
          t[i].fr += wr.w[1][j] * wc.w[0][k] * value[i];
          t[i].fc += wr.w[0][j] * wc.w[1][k] * value[i];
          t[i].frr += wr.w[2][j] * wc.w[0][k] * value[i];
          t[i].frc += wr.w[1][j] * wc.w[1][k] * value[i];
          t[i].fcc += wr.w[0][j] * wc.w[2][k] * value[i];
        }
      }
    }
  }

  const Grid& grid_;
};

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_CUBIC_INTERPOLATION_H_
