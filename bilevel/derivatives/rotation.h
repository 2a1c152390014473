#ifndef BILEVEL_DERIVATIVES_ROTATION_H_
#define BILEVEL_DERIVATIVES_ROTATION_H_

#include <cmath>

#include "bilevel/derivatives/tape.h"
#include "ceres/jet.h"
#include "ceres/rotation.h"

/// The conversions of ceres/rotation.h that lose their second derivatives at, or their digits near,
/// the zero rotation, where Ceres changes over to a first-order expansion. Here they are smooth
/// functions of the squared angle, accurate in value, first and second derivatives for
/// T = double, ceres::Jet<double, N> and bilevel::TapeJet. Conventions, layouts and
/// preconditions are those of the functions of the same name in namespace ceres. A result may be
/// the memory of an argument.
///
/// For TapeJet they also specialise Ceres' own templates, so functors that call
/// ceres::AngleAxisRotatePoint need no change, in whatever order headers are included.
namespace bilevel {
namespace internal {

// A scalar function's value and first two derivatives, and its application to the scalar types.
struct SecondOrderTaylor {
  double f, df, d2f;
};

inline double Apply(const SecondOrderTaylor& t, double /*x*/) { return t.f; }
template <int N>
ceres::Jet<double, N> Apply(const SecondOrderTaylor& t, const ceres::Jet<double, N>& x) {
  return {t.f, t.df * x.v};
}
inline TapeJet Apply(const SecondOrderTaylor& t, const TapeJet& x) {
  return TapeJet(TapeScalar::Chain(x.a, t.f, t.df, t.d2f));
}

inline double Value(double x) { return x; }
inline double Value(const TapeJet& x) { return x.a.value; }
template <int N>
double Value(const ceres::Jet<double, N>& x) {
  return x.a;
}

// The Stumpff functions c_n(u) = sum_k (-u)^k / (2k + n)! for u >= 0: c_0 = cos(sqrt(u)),
// c_1 = sin(sqrt(u)) / sqrt(u), c_2 = (1 - cos(sqrt(u))) / u. They obey c_n = 1/n! - u c_{n+2} and
// 2 c_n' = n c_{n+2} - c_{n+1}.
class Stumpff {
 public:
  explicit Stumpff(double u) {
    constexpr double kInverseFactorial[] = {1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24};
    if (u < 4.0) {
      c_[5] = Series(u, 5);
      c_[6] = Series(u, 6);
      for (int n = 4; n >= 0; --n) c_[n] = kInverseFactorial[n] - u * c_[n + 2];
    } else {
      const double theta = std::sqrt(u);
      c_[0] = std::cos(theta);
      c_[1] = std::sin(theta) / theta;
      for (int n = 0; n < 5; ++n) c_[n + 2] = (kInverseFactorial[n] - c_[n]) / u;
    }
  }

  // c_n for n <= 2.
  SecondOrderTaylor operator()(int n) const {
    return {c_[n],
            0.5 * (n * c_[n + 2] - c_[n + 1]),
            0.25 * (n * (n + 2) * c_[n + 4] - (2 * n + 1) * c_[n + 3] + c_[n + 2])};
  }

 private:
  static double Series(double u, int n) {
    // The first term left out is below 4^12 / 29! = 2e-24.
    double sum = 1.0;
    for (int k = 11; k > 0; --k) sum = 1.0 - sum * u / ((2 * k + n) * (2 * k + n - 1));
    return sum / (n == 5 ? 120.0 : 720.0);
  }

  double c_[7];
};

// A(z) = atan(sqrt(z)) / sqrt(z) for 0 <= z <= 1, from 2 z A' + A = 1 / (1 + z).
inline SecondOrderTaylor ArcTangentRatio(double z) {
  if (z < 0.1) {
    // sum_k (-z)^k / (2k + 1); the first term left out is below 1e-20 in the second derivative.
    SecondOrderTaylor t = {0.0, 0.0, 0.0};
    for (int k = 22; k >= 0; --k) {
      t.d2f = t.d2f * z + 2.0 * t.df;
      t.df = t.df * z + t.f;
      t.f = t.f * z + (k % 2 == 0 ? 1.0 : -1.0) / (2 * k + 1);
    }
    return t;
  }
  const double root = std::sqrt(z);
  const double inverse = 1.0 / (1.0 + z);
  const double f = std::atan(root) / root;
  const double df = (inverse - f) / (2.0 * z);
  return {f, df, -(inverse * inverse + 3.0 * df) / (2.0 * z)};
}

}  // namespace internal

template <typename T>
void AngleAxisRotatePoint(const T angle_axis[3], const T point[3], T result[3]) {
  const T w0 = angle_axis[0], w1 = angle_axis[1], w2 = angle_axis[2];
  const T u = w0 * w0 + w1 * w1 + w2 * w2;
  const internal::Stumpff c(internal::Value(u));
  const T c0 = internal::Apply(c(0), u);
  const T c1 = internal::Apply(c(1), u);
  // Rodrigues: cos p + sinc (w x p) + (1 - cos) / theta^2 w (w . p).
  const T p0 = point[0], p1 = point[1], p2 = point[2];
  const T along = (w0 * p0 + w1 * p1 + w2 * p2) * internal::Apply(c(2), u);
  result[0] = c0 * p0 + c1 * (w1 * p2 - w2 * p1) + w0 * along;
  result[1] = c0 * p1 + c1 * (w2 * p0 - w0 * p2) + w1 * along;
  result[2] = c0 * p2 + c1 * (w0 * p1 - w1 * p0) + w2 * along;
}

template <typename T>
void AngleAxisToQuaternion(const T* angle_axis, T* quaternion) {
  const T w0 = angle_axis[0], w1 = angle_axis[1], w2 = angle_axis[2];
  const T u = (w0 * w0 + w1 * w1 + w2 * w2) * T(0.25);  // The squared half angle.
  const internal::Stumpff c(internal::Value(u));
  const T k = internal::Apply(c(1), u) * T(0.5);
  quaternion[0] = internal::Apply(c(0), u);
  quaternion[1] = w0 * k;
  quaternion[2] = w1 * k;
  quaternion[3] = w2 * k;
}

template <typename T>
void QuaternionToAngleAxis(const T* quaternion, T* angle_axis) {
  using std::atan2;
  using std::sqrt;
  const T q1 = quaternion[1], q2 = quaternion[2], q3 = quaternion[3];
  const T u = q1 * q1 + q2 * q2 + q3 * q3;
  // -q is the same rotation: the one with cos >= 0 gives the angle below pi.
  const bool flip = internal::Value(quaternion[0]) < 0.0;
  const T cosine = flip ? -quaternion[0] : quaternion[0];
  // k = 2 atan2(sqrt(u), cosine) / sqrt(u).
  T k;
  if (internal::Value(u) <= internal::Value(cosine) * internal::Value(cosine)) {
    const T z = u / (cosine * cosine);
    k = T(2.0) * internal::Apply(internal::ArcTangentRatio(internal::Value(z)), z) / cosine;
  } else {
    const T sine = sqrt(u);
    k = T(2.0) * atan2(sine, cosine) / sine;
  }
  if (flip) k = -k;
  angle_axis[0] = q1 * k;
  angle_axis[1] = q2 * k;
  angle_axis[2] = q3 * k;
}

template <typename T, int row_stride, int col_stride>
void AngleAxisToRotationMatrix(const T* angle_axis,
                               const ceres::MatrixAdapter<T, row_stride, col_stride>& R) {
  const T w0 = angle_axis[0], w1 = angle_axis[1], w2 = angle_axis[2];
  const T u = w0 * w0 + w1 * w1 + w2 * w2;
  const internal::Stumpff c(internal::Value(u));
  const T c0 = internal::Apply(c(0), u);
  const T c1 = internal::Apply(c(1), u);
  const T c2 = internal::Apply(c(2), u);
  R(0, 0) = c0 + c2 * w0 * w0;
  R(1, 1) = c0 + c2 * w1 * w1;
  R(2, 2) = c0 + c2 * w2 * w2;
  R(1, 0) = c2 * w0 * w1 + c1 * w2;
  R(0, 1) = c2 * w0 * w1 - c1 * w2;
  R(0, 2) = c2 * w0 * w2 + c1 * w1;
  R(2, 0) = c2 * w0 * w2 - c1 * w1;
  R(2, 1) = c2 * w1 * w2 + c1 * w0;
  R(1, 2) = c2 * w1 * w2 - c1 * w0;
}

/// Column-major, as in Ceres.
template <typename T>
void AngleAxisToRotationMatrix(const T* angle_axis, T* R) {
  bilevel::AngleAxisToRotationMatrix(angle_axis, ceres::ColumnMajorAdapter3x3(R));
}

template <typename T, int row_stride, int col_stride>
void RotationMatrixToAngleAxis(const ceres::MatrixAdapter<const T, row_stride, col_stride>& R,
                               T* angle_axis) {
  T quaternion[4];
  ceres::RotationMatrixToQuaternion(R, quaternion);
  bilevel::QuaternionToAngleAxis(quaternion, angle_axis);
}

/// Column-major, as in Ceres.
template <typename T>
void RotationMatrixToAngleAxis(const T* R, T* angle_axis) {
  bilevel::RotationMatrixToAngleAxis(ceres::ColumnMajorAdapter3x3(R), angle_axis);
}

}  // namespace bilevel

// Specialisations, which calls find wherever they stand: overloads have to be declared before a
// functor that names the namespace.
namespace ceres {

template <>
inline void AngleAxisRotatePoint<bilevel::TapeJet>(const bilevel::TapeJet angle_axis[3],
                                                   const bilevel::TapeJet point[3],
                                                   bilevel::TapeJet result[3]) {
  bilevel::AngleAxisRotatePoint(angle_axis, point, result);
}
template <>
inline void AngleAxisToQuaternion<bilevel::TapeJet>(const bilevel::TapeJet* angle_axis,
                                                    bilevel::TapeJet* quaternion) {
  bilevel::AngleAxisToQuaternion(angle_axis, quaternion);
}
template <>
inline void QuaternionToAngleAxis<bilevel::TapeJet>(const bilevel::TapeJet* quaternion,
                                                    bilevel::TapeJet* angle_axis) {
  bilevel::QuaternionToAngleAxis(quaternion, angle_axis);
}

// Column- and row-major matrices of three and of four rows and columns; through the first, those
// given by a pointer. (A function has no partial specialisation for all strides.)
#define BILEVEL_TAPE_JET_ROTATIONS(row_stride, col_stride)                         \
  template <>                                                                      \
  inline void AngleAxisToRotationMatrix<bilevel::TapeJet, row_stride, col_stride>( \
      const bilevel::TapeJet* angle_axis,                                          \
      const MatrixAdapter<bilevel::TapeJet, row_stride, col_stride>& R) {          \
    bilevel::AngleAxisToRotationMatrix(angle_axis, R);                             \
  }                                                                                \
  template <>                                                                      \
  inline void RotationMatrixToAngleAxis<bilevel::TapeJet, row_stride, col_stride>( \
      const MatrixAdapter<const bilevel::TapeJet, row_stride, col_stride>& R,      \
      bilevel::TapeJet* angle_axis) {                                              \
    bilevel::RotationMatrixToAngleAxis(R, angle_axis);                             \
  }
BILEVEL_TAPE_JET_ROTATIONS(1, 3)
BILEVEL_TAPE_JET_ROTATIONS(3, 1)
BILEVEL_TAPE_JET_ROTATIONS(1, 4)
BILEVEL_TAPE_JET_ROTATIONS(4, 1)
#undef BILEVEL_TAPE_JET_ROTATIONS

// Overloads, more specialised than Ceres' templates and those above, for calls without a namespace,
// which see both. The unused first parameter makes calls with an explicit argument,
// ceres::AngleAxisRotatePoint<T>(...), come here too.

template <typename = void>
void AngleAxisRotatePoint(const bilevel::TapeJet* angle_axis,
                          const bilevel::TapeJet* point,
                          bilevel::TapeJet* result) {
  bilevel::AngleAxisRotatePoint(angle_axis, point, result);
}

template <typename = void>
void AngleAxisToQuaternion(const bilevel::TapeJet* angle_axis, bilevel::TapeJet* quaternion) {
  bilevel::AngleAxisToQuaternion(angle_axis, quaternion);
}

template <typename = void>
void QuaternionToAngleAxis(const bilevel::TapeJet* quaternion, bilevel::TapeJet* angle_axis) {
  bilevel::QuaternionToAngleAxis(quaternion, angle_axis);
}

template <typename = void>
void AngleAxisToRotationMatrix(const bilevel::TapeJet* angle_axis, bilevel::TapeJet* R) {
  bilevel::AngleAxisToRotationMatrix(angle_axis, R);
}

template <typename = void, int row_stride, int col_stride>
void AngleAxisToRotationMatrix(const bilevel::TapeJet* angle_axis,
                               const MatrixAdapter<bilevel::TapeJet, row_stride, col_stride>& R) {
  bilevel::AngleAxisToRotationMatrix(angle_axis, R);
}

template <typename = void>
void RotationMatrixToAngleAxis(const bilevel::TapeJet* R, bilevel::TapeJet* angle_axis) {
  bilevel::RotationMatrixToAngleAxis(R, angle_axis);
}

template <typename = void, int row_stride, int col_stride>
void RotationMatrixToAngleAxis(
    const MatrixAdapter<const bilevel::TapeJet, row_stride, col_stride>& R,
    bilevel::TapeJet* angle_axis) {
  bilevel::RotationMatrixToAngleAxis(R, angle_axis);
}

}  // namespace ceres

#endif  // BILEVEL_DERIVATIVES_ROTATION_H_
