#include "bilevel/base/internal/vector_passes.h"

#include "bilevel/base/internal/simd.h"

namespace bilevel {
namespace {

using internal::At;

template <int kBytes>
using Vec = typename internal::Simd<double, kBytes>::Type;

// Zero times a number is NaN where it is not finite. Sums that do not wait for each other.
template <int kBytes>
BILEVEL_INLINE bool AllFinite(const double* v, int n) {
  constexpr int kLanes = internal::Simd<double, kBytes>::kLanes, kSums = 4;
  Vec<kBytes> probe[kSums] = {};
  double rest = 0.0;
  int i = 0;
  for (; i + kSums * kLanes <= n; i += kSums * kLanes) {
    for (int k = 0; k < kSums; ++k) probe[k] += 0.0 * At<double, kBytes>(v + i + k * kLanes).value;
  }
  for (; i < n; ++i) rest += 0.0 * v[i];
  for (int k = 1; k < kSums; ++k) probe[0] += probe[k];
  return rest + internal::Sum<double, kBytes>(probe[0]) == 0.0;
}

template <int kBytes>
BILEVEL_INLINE bool Moved(const double* from, double scale, const double* d, int n, double* to) {
  constexpr int kLanes = internal::Simd<double, kBytes>::kLanes;
  Vec<kBytes> probe = {};
  double rest = 0.0;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec<kBytes> moved =
        At<double, kBytes>(from + i).value + scale * At<double, kBytes>(d + i).value;
    At<double, kBytes>(to + i).value = moved;
    probe += 0.0 * moved;
  }
  for (; i < n; ++i) {
    to[i] = from[i] + scale * d[i];
    rest += 0.0 * to[i];
  }
  return rest + internal::Sum<double, kBytes>(probe) == 0.0;
}

template <int kBytes>
BILEVEL_INLINE double Scaled(double scale, const double* v, int n, double* to) {
  constexpr int kLanes = internal::Simd<double, kBytes>::kLanes;
  Vec<kBytes> sum = {};
  double rest = 0.0;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec<kBytes> at = At<double, kBytes>(v + i).value;
    sum += at * at;
    if (to) At<double, kBytes>(to + i).value = scale * at;
  }
  for (; i < n; ++i) {
    rest += v[i] * v[i];
    if (to) to[i] = scale * v[i];
  }
  return rest + internal::Sum<double, kBytes>(sum);
}

template <int kBytes>
BILEVEL_INLINE void AddScaled(double scale, const double* d, int n, double* v) {
  constexpr int kLanes = internal::Simd<double, kBytes>::kLanes;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    At<double, kBytes>(v + i).value += scale * At<double, kBytes>(d + i).value;
  }
  for (; i < n; ++i) v[i] += scale * d[i];
}

template <int kBytes>
BILEVEL_INLINE void AddDifference(
    double scale, const double* d, const double* e, int n, double* v) {
  constexpr int kLanes = internal::Simd<double, kBytes>::kLanes;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    At<double, kBytes>(v + i).value +=
        scale * (At<double, kBytes>(d + i).value - At<double, kBytes>(e + i).value);
  }
  for (; i < n; ++i) v[i] += scale * (d[i] - e[i]);
}

struct Passes {
  bool (*all_finite)(const double*, int);
  bool (*moved)(const double*, double, const double*, int, double*);
  double (*scaled)(double, const double*, int, double*);
  void (*add_scaled)(double, const double*, int, double*);
  void (*add_difference)(double, const double*, const double*, int, double*);
};

#define BILEVEL_PASSES(name, attribute, bytes)                                              \
  struct name {                                                                             \
    attribute static bool Finite(const double* v, int n) { return AllFinite<bytes>(v, n); } \
    attribute static bool Move(                                                             \
        const double* from, double scale, const double* d, int n, double* to) {             \
      return Moved<bytes>(from, scale, d, n, to);                                           \
    }                                                                                       \
    attribute static double Scale(double scale, const double* v, int n, double* to) {       \
      return Scaled<bytes>(scale, v, n, to);                                                \
    }                                                                                       \
    attribute static void Add(double scale, const double* d, int n, double* v) {            \
      AddScaled<bytes>(scale, d, n, v);                                                     \
    }                                                                                       \
    attribute static void Subtract(                                                         \
        double scale, const double* d, const double* e, int n, double* v) {                 \
      AddDifference<bytes>(scale, d, e, n, v);                                              \
    }                                                                                       \
    static constexpr Passes kPasses = {Finite, Move, Scale, Add, Subtract};                 \
  };

BILEVEL_PASSES(Avx512, BILEVEL_AVX512, 64)
BILEVEL_PASSES(Avx2, BILEVEL_AVX2, 32)
BILEVEL_PASSES(Plain, , 16)

// Below, to choose takes longer than to do: the blocks of points and poses.
constexpr int kShort = 16;

const Passes& Widest() {
  static const int bytes = internal::SimdBytes();
  return bytes == 64 ? Avx512::kPasses : bytes == 32 ? Avx2::kPasses : Plain::kPasses;
}

}  // namespace

bool AllFinite(const double* v, int n) {
  return n < kShort ? AllFinite<16>(v, n) : Widest().all_finite(v, n);
}

bool Moved(const double* from, double scale, const double* d, int n, double* to) {
  return n < kShort ? Moved<16>(from, scale, d, n, to) : Widest().moved(from, scale, d, n, to);
}

double Scaled(double scale, const double* v, int n, double* to) {
  return n < kShort ? Scaled<16>(scale, v, n, to) : Widest().scaled(scale, v, n, to);
}

void AddScaled(double scale, const double* d, int n, double* v) {
  return n < kShort ? AddScaled<16>(scale, d, n, v) : Widest().add_scaled(scale, d, n, v);
}

void AddDifference(double scale, const double* d, const double* e, int n, double* v) {
  return n < kShort ? AddDifference<16>(scale, d, e, n, v)
                    : Widest().add_difference(scale, d, e, n, v);
}

}  // namespace bilevel
