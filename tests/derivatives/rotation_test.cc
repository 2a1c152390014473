// Before any header of ours: a user's functor need not know about them.
#include "ceres/rotation.h"

namespace {

struct RotationResidual {
  template <typename T>
  bool operator()(const T* w, T* cost) const {
    const T a[3] = {T(1.0), T(-0.5), T(2.0)};
    T rotated[3];
    ceres::AngleAxisRotatePoint(w, a, rotated);
    cost[0] = -(rotated[0] * 0.3 + rotated[1] * 0.7 - rotated[2] * 0.2);
    return true;
  }
};

}  // namespace

#include <array>
#include <cmath>
#include <vector>

#include "Eigen/Core"
#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "bilevel/derivatives/rotation.h"
#include "derivatives/tape_derivatives.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

constexpr double kPi = 3.14159265358979323846;

using Jet3 = ceres::Jet<Dual<3>, 3>;

// exp([w]_x) and its derivatives by the matrix power series, 40 terms in long double: no branch, no
// trigonometry. Direction derivatives go through a truncated polynomial in two nilpotent
// variables, [1, s, t, s t].
struct Bidual {
  long double c[4];
};
Bidual operator+(const Bidual& x, const Bidual& y) {
  return {{x.c[0] + y.c[0], x.c[1] + y.c[1], x.c[2] + y.c[2], x.c[3] + y.c[3]}};
}
Bidual operator*(const Bidual& x, const Bidual& y) {
  return {{x.c[0] * y.c[0],
           x.c[0] * y.c[1] + x.c[1] * y.c[0],
           x.c[0] * y.c[2] + x.c[2] * y.c[0],
           x.c[0] * y.c[3] + x.c[1] * y.c[2] + x.c[2] * y.c[1] + x.c[3] * y.c[0]}};
}

// R(w)(row, col) with derivative indices i and j in c[1], c[2] and the mixed one in c[3].
Bidual ExponentialSeries(const double* w, int row, int col, int i, int j) {
  Bidual v[3];
  for (int k = 0; k < 3; ++k) {
    v[k] = {{w[k], k == i ? 1.0L : 0.0L, k == j ? 1.0L : 0.0L, 0.0L}};
  }
  const Bidual minus = {{-1.0L, 0.0L, 0.0L, 0.0L}};
  const Bidual zero = {{0.0L, 0.0L, 0.0L, 0.0L}};
  const Bidual hat[3][3] = {
      {zero, minus * v[2], v[1]}, {v[2], zero, minus * v[0]}, {minus * v[1], v[0], zero}};
  Bidual power[3][3];
  Bidual sum[3][3];
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) {
      sum[r][c] = power[r][c] = {{r == c ? 1.0L : 0.0L, 0.0L, 0.0L, 0.0L}};
    }
  }
  for (int n = 1; n < 40; ++n) {
    Bidual next[3][3];
    const Bidual factor = {{1.0L / n, 0.0L, 0.0L, 0.0L}};
    for (int r = 0; r < 3; ++r) {
      for (int c = 0; c < 3; ++c) {
        next[r][c] = zero;
        for (int k = 0; k < 3; ++k) next[r][c] = next[r][c] + power[r][k] * hat[k][c] * factor;
      }
    }
    for (int r = 0; r < 3; ++r) {
      for (int c = 0; c < 3; ++c) {
        power[r][c] = next[r][c];
        sum[r][c] = sum[r][c] + next[r][c];
      }
    }
  }
  return sum[row][col];
}

// Both sides of every branch: zero, Ceres' threshold, the series' end at |w| = 2, nearly pi, above.
std::vector<Eigen::Vector3d> Rotations() {
  const Eigen::Vector3d axis = Eigen::Vector3d(2.0, -1.0, 0.5).normalized();
  std::vector<Eigen::Vector3d> rotations;
  for (const double angle : {0.0,
                             1e-160,
                             1e-8,
                             1.5e-8,
                             1e-4,
                             0.03,
                             1.0,
                             2.0 - 1e-9,
                             2.0 + 1e-9,
                             3.0,
                             kPi - 1e-9,
                             kPi,
                             5.0}) {
    rotations.push_back(angle * axis);
  }
  rotations.push_back(Eigen::Vector3d(0.0, 0.0, 1e-9));
  return rotations;
}

TEST(AngleAxisToRotationMatrix, MatchesTheMatrixExponentialToSecondOrder) {
  for (const Eigen::Vector3d& w : Rotations()) {
    const auto R = TapeDerivatives<3, 9>(
        [](const auto* x, auto* y) { bilevel::AngleAxisToRotationMatrix(x, y); }, w.data());
    const auto through_ceres = TapeDerivatives<3, 9>(
        [](const auto* x, auto* y) {
          ceres::AngleAxisToRotationMatrix(x, ceres::RowMajorAdapter3x3(y));
        },
        w.data());
    for (int row = 0; row < 3; ++row) {
      for (int col = 0; col < 3; ++col) {
        const Jet3& entry = R[row + 3 * col];
        for (int i = 0; i < 3; ++i) {
          for (int j = 0; j < 3; ++j) {
            const Bidual expected = ExponentialSeries(w.data(), row, col, i, j);
            EXPECT_NEAR(entry.a.a, expected.c[0], 2e-15) << w.norm();
            EXPECT_NEAR(entry.v[i].a, expected.c[1], 2e-15) << w.norm();
            EXPECT_NEAR(entry.v[i].d[j], expected.c[3], 4e-15) << w.norm();
          }
        }
        EXPECT_EQ(through_ceres[3 * row + col].v[0].d[0], entry.v[0].d[0]);
      }
    }
  }
}

TEST(AngleAxisRotatePoint, MatchesTheMatrixExponentialToSecondOrder) {
  const double point[3] = {0.3, -1.2, 2.0};
  for (const Eigen::Vector3d& w : Rotations()) {
    const TapeJet jet_point[3] = {TapeJet(point[0]), TapeJet(point[1]), TapeJet(point[2])};
    const auto result = TapeDerivatives<3, 3>(
        [&](const auto* x, auto* y) { ceres::AngleAxisRotatePoint(x, jet_point, y); }, w.data());
    const auto explicit_result = TapeDerivatives<3, 3>(
        [&](const auto* x, auto* y) { ceres::AngleAxisRotatePoint<TapeJet>(x, jet_point, y); },
        w.data());
    double plain[3];
    bilevel::AngleAxisRotatePoint(w.data(), point, plain);
    for (int row = 0; row < 3; ++row) {
      for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) {
          long double value = 0.0;
          long double first = 0.0;
          long double second = 0.0;
          for (int col = 0; col < 3; ++col) {
            const Bidual entry = ExponentialSeries(w.data(), row, col, i, j);
            value += entry.c[0] * point[col];
            first += entry.c[1] * point[col];
            second += entry.c[3] * point[col];
          }
          EXPECT_NEAR(result[row].a.a, value, 6e-15) << w.norm();
          EXPECT_NEAR(plain[row], value, 6e-15) << w.norm();
          EXPECT_NEAR(result[row].v[i].a, first, 6e-15) << w.norm();
          EXPECT_NEAR(result[row].v[i].d[j], second, 1e-14) << w.norm();
          EXPECT_EQ(explicit_result[row].v[i].d[j], result[row].v[i].d[j]);
        }
      }
    }
  }
}

TEST(AngleAxisRotatePoint, FirstOrderJetsAgree) {
  using Jet = ceres::Jet<double, 3>;
  const Jet point[3] = {Jet(0.3), Jet(-1.2), Jet(2.0)};
  for (const Eigen::Vector3d& w : Rotations()) {
    const Jet jets[3] = {Jet(w[0], 0), Jet(w[1], 1), Jet(w[2], 2)};
    Jet ours[3];
    Jet theirs[3];
    bilevel::AngleAxisRotatePoint(jets, point, ours);
    ceres::AngleAxisRotatePoint(jets, point, theirs);
    for (int i = 0; i < 3; ++i) {
      EXPECT_NEAR(ours[i].a, theirs[i].a, 1e-14);
      EXPECT_TRUE(ours[i].v.allFinite()) << w.norm();
      // Ceres' first-order branch ends at |w| = 1.5e-8 (2.1); 2.2 divides by |w|^2 down to where
      // that underflows.
      if (!theirs[i].v.allFinite()) continue;
      EXPECT_LT((ours[i].v - theirs[i].v).norm(), 1e-7) << w.norm();
    }
  }
}

// The quaternion is a function of w whose rotation is R(w): q v q* = R(w) v to second order.
TEST(AngleAxisToQuaternion, RotatesAsTheAngleAxisToSecondOrder) {
  for (const Eigen::Vector3d& w : Rotations()) {
    const auto q = TapeDerivatives<3, 4>(
        [](const auto* x, auto* y) { ceres::AngleAxisToQuaternion(x, y); }, w.data());
    EXPECT_GE(q[0].a.a, -1.0);
    EXPECT_NEAR(q[0].a.a, std::cos(0.5 * w.norm()), 1e-15);
    Jet3 R[9];  // Row-major; quadratic in q, so free of branches.
    ceres::QuaternionToScaledRotation(q.data(), R);
    const Jet3 norm = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) {
        EXPECT_NEAR(norm.v[i].d[j], 0.0, 4e-15);
        for (int row = 0; row < 3; ++row) {
          for (int col = 0; col < 3; ++col) {
            const Bidual expected = ExponentialSeries(w.data(), row, col, i, j);
            EXPECT_NEAR(R[3 * row + col].v[i].a, expected.c[1], 4e-15) << w.norm();
            EXPECT_NEAR(R[3 * row + col].v[i].d[j], expected.c[3], 8e-15) << w.norm();
          }
        }
      }
    }
  }
}

// Round trips are the identity: first derivatives I, second ones zero.
void ExpectIdentity(const std::array<Jet3, 3>& round_trip,
                    const Eigen::Vector3d& w,
                    double tolerance) {
  for (int k = 0; k < 3; ++k) {
    EXPECT_NEAR(round_trip[k].a.a, w[k], tolerance);
    for (int i = 0; i < 3; ++i) {
      EXPECT_NEAR(round_trip[k].v[i].a, k == i ? 1.0 : 0.0, tolerance) << w.norm();
      for (int j = 0; j < 3; ++j) {
        EXPECT_NEAR(round_trip[k].v[i].d[j], 0.0, tolerance) << w.norm();
      }
    }
  }
}

TEST(QuaternionToAngleAxis, InvertsToSecondOrderUpToPi) {
  for (const Eigen::Vector3d& w : Rotations()) {
    if (w.norm() >= kPi) continue;
    for (const double sign : {1.0, -1.0}) {  // The same rotation.
      const auto back = TapeDerivatives<3, 3>(
          [sign](const auto* x, auto* y) {
            TapeJet q[4];
            bilevel::AngleAxisToQuaternion(x, q);
            for (TapeJet& entry : q) entry *= sign;
            ceres::QuaternionToAngleAxis(q, y);
          },
          w.data());
      ExpectIdentity(back, w, 2e-14);
    }
  }
}

// Off the unit sphere too, where the function is 2 atan2(|v|, q0) v / |v|: against that formula in
// forward second-order arithmetic, on both sides of the changes of branch.
TEST(QuaternionToAngleAxis, MatchesTheFormulaOffTheUnitSphere) {
  for (const double ratio : {0.05, 0.3161, 0.3163, 0.999, 1.001, 4.0}) {
    for (const double sign : {1.0, -1.0}) {
      using Jet = ceres::Jet<Dual<4>, 4>;
      const double value[4] = {sign * 0.8, 0.8 * ratio * 0.6, 0.0, -0.8 * ratio * 0.8};
      Jet q[4];
      for (int i = 0; i < 4; ++i) {
        q[i] = Jet(Dual<4>(value[i]), i);
        q[i].a.d[i] = 1.0;
      }
      const Jet sine = sqrt(q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
      const Jet angle = sign > 0 ? atan2(sine, q[0]) : atan2(-sine, -q[0]);
      const auto w = TapeDerivatives<4, 3>(
          [](const auto* x, auto* y) { ceres::QuaternionToAngleAxis(x, y); }, value);
      for (int k = 0; k < 3; ++k) {
        const Jet expected = 2.0 * angle / sine * q[k + 1];
        EXPECT_NEAR(w[k].a.a, expected.a.a, 1e-14);
        for (int i = 0; i < 4; ++i) {
          EXPECT_NEAR(w[k].v[i].a, expected.v[i].a, 1e-13) << ratio;
          for (int j = 0; j < 4; ++j) {
            EXPECT_NEAR(w[k].v[i].d[j], expected.v[i].d[j], 1e-11) << ratio;
          }
        }
      }
    }
  }
}

TEST(RotationMatrixToAngleAxis, InvertsToSecondOrderBelowPi) {
  for (const Eigen::Vector3d& w : Rotations()) {
    if (w.norm() > 3.1) continue;
    const auto back = TapeDerivatives<3, 3>(
        [](const auto* x, auto* y) {
          TapeJet R[9];
          bilevel::AngleAxisToRotationMatrix(x, R);
          ceres::RotationMatrixToAngleAxis(R, y);
        },
        w.data());
    ExpectIdentity(back, w, 1e-13);
  }
}

// The Hessian at w = 0 of -b.R(w) a, with R = I + W + W^2 / 2 + ...: (a.b) I - sym(a b^T), from
// b.W^2 a = (w.a) (w.b) - |w|^2 (a.b).
TEST(AngleAxisRotatePoint, CostFunctionAtZeroHasTheClosedFormHessian) {
  AutoDiffCostFunction<RotationResidual, 1, 3> cost_function(new RotationResidual);
  const double w[3] = {0.0, 0.0, 0.0};
  const double* parameters[] = {w};
  const double weight = 1.0;
  Eigen::Matrix<double, 3, 3, Eigen::RowMajor> H;
  ASSERT_TRUE(cost_function.EvaluateHessian(parameters, &weight, H.data()));
  const Eigen::Vector3d a(1.0, -0.5, 2.0);
  const Eigen::Vector3d b(0.3, 0.7, -0.2);
  const Eigen::Matrix3d expected =
      a.dot(b) * Eigen::Matrix3d::Identity() - 0.5 * (a * b.transpose() + b * a.transpose());
  EXPECT_LT((H - expected).norm(), 1e-15);
}

}  // namespace
}  // namespace bilevel
