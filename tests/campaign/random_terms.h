#ifndef BILEVEL_TESTS_CAMPAIGN_RANDOM_TERMS_H_
#define BILEVEL_TESTS_CAMPAIGN_RANDOM_TERMS_H_

// The terms of random problems as templates: the library gets them as cost functions, losses and
// objectives, and the check evaluates them by itself, losses included.

#include <cmath>
#include <vector>

#include "ceres/jet.h"

namespace bilevel {

enum class BlockKind { kPlain, kSubset, kQuaternion, kEigenQuaternion, kSphere, kLine, kPose };

// How many coordinates a block gives to features.
inline int NumCoordinates(BlockKind kind, int size) {
  switch (kind) {
    case BlockKind::kQuaternion:
    case BlockKind::kEigenQuaternion:
      return 6;
    case BlockKind::kPose:
      return 9;
    default:
      return size;
  }
}

// Two columns of the rotation matrix of a unit quaternion (w, x, y, z): q and -q are the same.
template <typename T>
T* RotationColumns(const T& w, const T& x, const T& y, const T& z, T* v) {
  *v++ = 1.0 - 2.0 * (y * y + z * z);
  *v++ = 2.0 * (x * y + w * z);
  *v++ = 2.0 * (x * z - w * y);
  *v++ = 2.0 * (x * y - w * z);
  *v++ = 1.0 - 2.0 * (x * x + z * z);
  *v++ = 2.0 * (y * z + w * x);
  return v;
}

// A line's point nearest to the origin and its direction, for these do not depend on which of its
// points stands for it: a function of the ambient values would have no well-defined minimum.
template <typename T>
T* LineCoordinates(const T* line, T* v) {
  const T along = line[0] * line[3] + line[1] * line[4] + line[2] * line[5];
  for (int i = 0; i < 3; ++i) *v++ = line[i] - along * line[3 + i];
  for (int i = 0; i < 3; ++i) *v++ = line[3 + i];
  return v;
}

template <typename T>
T* Coordinates(BlockKind kind, int size, const T* b, T* v) {
  switch (kind) {
    case BlockKind::kQuaternion:
      return RotationColumns(b[0], b[1], b[2], b[3], v);
    case BlockKind::kEigenQuaternion:
      return RotationColumns(b[3], b[0], b[1], b[2], v);
    case BlockKind::kPose:
      v = RotationColumns(b[0], b[1], b[2], b[3], v);
      for (int i = 4; i < 7; ++i) *v++ = b[i];
      return v;
    case BlockKind::kLine:
      return LineCoordinates(b, v);
    default:
      for (int i = 0; i < size; ++i) *v++ = b[i];
      return v;
  }
}

struct Feature {
  enum Type { kLinear, kSine, kExponential, kProduct };
  Type type;
  int residual, i, j;
  double factor, frequency, phase;
};

// Residuals r_k = constant_k + sum of features of the blocks' coordinates, all times e^w where w is
// the coordinate `log_weight`.
struct RandomResidual {
  static constexpr int kMaxCoordinates = 40;
  std::vector<BlockKind> kinds;
  std::vector<int> sizes;
  std::vector<double> constants;
  std::vector<Feature> features;
  int log_weight = -1;

  int num_residuals() const { return static_cast<int>(constants.size()); }

  template <typename T>
  bool operator()(T const* const* blocks, T* residuals) const {
    using std::exp;
    using std::sin;
    T v[kMaxCoordinates];
    T* end = v;
    for (size_t b = 0; b < kinds.size(); ++b) end = Coordinates(kinds[b], sizes[b], blocks[b], end);
    for (size_t k = 0; k < constants.size(); ++k) residuals[k] = T(constants[k]);
    for (const Feature& feature : features) {
      const T& u = v[feature.i];
      T& r = residuals[feature.residual];
      switch (feature.type) {
        case Feature::kLinear:
          r += feature.factor * u;
          break;
        case Feature::kSine:
          r += feature.factor * sin(feature.frequency * u + feature.phase);
          break;
        case Feature::kExponential:
          r += feature.factor * exp(feature.frequency * u);
          break;
        case Feature::kProduct:
          r += feature.factor * u * v[feature.j];
          break;
      }
    }
    if (log_weight >= 0) {
      const T weight = exp(v[log_weight]);
      for (size_t k = 0; k < constants.size(); ++k) residuals[k] *= weight;
    }
    return true;
  }
  template <typename T>
  T SquaredNorm(T const* const* blocks) const {
    T r[kMaxCoordinates];
    (*this)(blocks, r);
    T sum(0.0);
    for (int k = 0; k < num_residuals(); ++k) sum += r[k] * r[k];
    return sum;
  }
};

// The same as a function: the squares halved, and a sine that makes it no sum of squares.
struct RandomFunction {
  RandomResidual residual;
  double sine = 0.0;

  template <typename T>
  bool Sum(T const* const* blocks, T* value) const {
    using std::sin;
    T r[RandomResidual::kMaxCoordinates];
    residual(blocks, r);
    value[0] = sine * sin(r[0]);
    for (int k = 0; k < residual.num_residuals(); ++k) value[0] += 0.5 * r[k] * r[k];
    return true;
  }
  template <typename T>
  bool operator()(const T* a, T* value) const {
    const T* blocks[] = {a};
    return Sum(blocks, value);
  }
  template <typename T>
  bool operator()(const T* a, const T* b, T* value) const {
    const T* blocks[] = {a, b};
    return Sum(blocks, value);
  }
};

struct RandomLoss {
  enum Shape {
    kNone,
    kHuber,
    kCauchy,
    kSoftLOne,
    kArctan,
    kTolerant,
    kTukey,
    kGemanMcClure,
    kWelsch,
    kBarron
  };
  enum Wrapper { kPlain, kNoiseScale, kWeighted, kSwitch };
  Shape shape = kNone;
  Wrapper wrapper = kPlain;
  double scale = 1.0;  // Where it is fixed.
  int log_scale = -1;  // Else the block that it is learned in.
  int alpha = -1;      // Barron's.
  int wrapper_block = -1;
  bool is_ours = false;  // Of the library, not of Ceres.

  bool IsTrivial() const { return shape == kNone && wrapper == kPlain; }
};

// exp(x) - 1 and log(1 + x), which ceres::Jet lacks, without cancellation.
inline double Expm1(double x) { return std::expm1(x); }
inline double Log1p(double x) { return std::log1p(x); }
template <int N>
ceres::Jet<double, N> Expm1(const ceres::Jet<double, N>& x) {
  return {std::expm1(x.a), std::exp(x.a) * x.v};
}
template <int N>
ceres::Jet<double, N> Log1p(const ceres::Jet<double, N>& x) {
  return {std::log1p(x.a), x.v / (1.0 + x.a)};
}
// log(1 + exp(x)).
template <typename T>
T SoftPlus(const T& x) {
  using std::exp;
  return x > 0.0 ? x + Log1p(exp(-x)) : Log1p(exp(x));
}

// rho(s) = a^2 h(s / a^2); Tolerant and Arctan are as in Ceres, with a and b = a / 2.
template <typename T>
T RhoOfShape(RandomLoss::Shape shape, const T& s, const T& a, const T& alpha) {
  using std::atan2;
  using std::sqrt;
  const T a2 = a * a, u = s / a2;
  switch (shape) {
    case RandomLoss::kHuber:
      return u <= 1.0 ? s : a2 * (2.0 * sqrt(u) - 1.0);
    case RandomLoss::kCauchy:
      return a2 * Log1p(u);
    case RandomLoss::kSoftLOne:
      return 2.0 * s / (sqrt(1.0 + u) + 1.0);
    case RandomLoss::kArctan:
      return a * atan2(s, a);
    case RandomLoss::kTolerant: {
      const T b = 0.5 * a;
      return b * (SoftPlus((s - a) / b) - SoftPlus(-a / b));
    }
    case RandomLoss::kTukey:
      return u <= 1.0 ? s * (1.0 - u + u * u / 3.0) : a2 / 3.0;
    case RandomLoss::kGemanMcClure:
      return s / (1.0 + u);
    case RandomLoss::kWelsch:
      return -a2 * Expm1(-u);
    case RandomLoss::kBarron: {
      const T b = 2.0 - alpha;  // Problems keep alpha below 2 and off 0.
      return 2.0 * a2 * b / alpha * Expm1(0.5 * alpha * Log1p(u / b));
    }
    default:
      return s;
  }
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_CAMPAIGN_RANDOM_TERMS_H_
