#include "bilevel/models/internal/simd_kernels.h"

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "bilevel/base/internal/simd.h"

namespace bilevel {
namespace internal {
namespace {

// kRows samples times kOutputs weights: that many registers of partial sums. The samples that come
// next are fetched meanwhile: memory, not arithmetic, is what a small batch out of many waits for.
template <typename T, int kBytes, int kRows, int kOutputs>
BILEVEL_INLINE void OutputsTile(const T* const* a,
                                const T* const* w,
                                int m,
                                int stride,
                                T* out,
                                const T* const* next,
                                int num_next) {
  using Vec = typename Simd<T, kBytes>::Type;
  constexpr int kLine = kSimdBytes / static_cast<int>(sizeof(T));
  Vec sum[kRows][kOutputs] = {};
  for (int j = 0; j < stride; j += Simd<T, kBytes>::kLanes) {
    for (int i = 0; j % kLine == 0 && i < num_next; ++i) __builtin_prefetch(next[i] + j, 0, 2);
    Vec x[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      x[i] = At<T, kBytes>(a[i] + j).value;
    }
#pragma GCC unroll 8
    for (int k = 0; k < kOutputs; ++k) {
      const Vec y = At<T, kBytes>(w[k] + j).value;
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) sum[i][k] += x[i] * y;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int k = 0; k < kOutputs; ++k) out[i * m + k] = Sum<T, kBytes>(sum[i][k]);
  }
}

// kVecs registers of kOutputs gradients, over all samples.
template <typename T, int kBytes, int kVecs, int kOutputs>
BILEVEL_INLINE void GradientTile(
    const T* const* a, int rows, const T* r, int m, int j, bool add, T* const* g) {
  using Vec = typename Simd<T, kBytes>::Type;
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  Vec sum[kOutputs][kVecs];
#pragma GCC unroll 8
  for (int k = 0; k < kOutputs; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      sum[k][v] = add ? At<T, kBytes>(g[k] + j + v * kLanes).value : Vec{};
    }
  }
  for (int i = 0; i < rows; ++i) {
    Vec x[kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      x[v] = At<T, kBytes>(a[i] + j + v * kLanes).value;
    }
#pragma GCC unroll 8
    for (int k = 0; k < kOutputs; ++k) {
      const T s = r[i * m + k];
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sum[k][v] += x[v] * s;
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < kOutputs; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      At<T, kBytes>(g[k] + j + v * kLanes).value = sum[k][v];
    }
  }
}

template <typename T, int kBytes, int kTile, int kOutputs>
BILEVEL_INLINE void GradientOf(
    const T* const* a, int rows, const T* r, int m, int begin, int end, bool add, T* const* g) {
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  int j = begin;
  for (; j + kTile * kLanes <= end; j += kTile * kLanes) {
    GradientTile<T, kBytes, kTile, kOutputs>(a, rows, r, m, j, add, g);
  }
  for (; j < end; j += kLanes) {
    GradientTile<T, kBytes, 1, kOutputs>(a, rows, r, m, j, add, g);
  }
}

// The m weights in tiles of up to five that are about equally large: body(first, its number as a
// constant).
#define BILEVEL_FOR_EACH_TILE(m, CALL)                                    \
  for (int k = 0, tiles = (m + 4) / 5, size; k < m; k += size, --tiles) { \
    size = (m - k + tiles - 1) / tiles;                                   \
    switch (size) {                                                       \
      case 1:                                                             \
        CALL(1);                                                          \
        break;                                                            \
      case 2:                                                             \
        CALL(2);                                                          \
        break;                                                            \
      case 3:                                                             \
        CALL(3);                                                          \
        break;                                                            \
      case 4:                                                             \
        CALL(4);                                                          \
        break;                                                            \
      default:                                                            \
        CALL(5);                                                          \
    }                                                                     \
  }

template <typename T, int kBytes, int kTile>
BILEVEL_INLINE void Outputs(
    const T* const* a, int rows, const T* const* w, int m, int stride, T* out) {
  int i = 0;
  for (; i + kTile <= rows; i += kTile, a += kTile, out += kTile * m) {
    int ahead = rows - i - kTile < kTile ? rows - i - kTile : kTile, num = 0;
    const T* const* next = a + kTile;
    // Each tile of weights fetches its share of them.
#define BILEVEL_CALL(n)                                                      \
  num = (ahead + tiles - 1) / tiles;                                         \
  OutputsTile<T, kBytes, kTile, n>(a, w + k, m, stride, out + k, next, num); \
  next += num;                                                               \
  ahead -= num
    BILEVEL_FOR_EACH_TILE(m, BILEVEL_CALL)
#undef BILEVEL_CALL
  }
  for (; i < rows; ++i, ++a, out += m) {
#define BILEVEL_CALL(n) OutputsTile<T, kBytes, 1, n>(a, w + k, m, stride, out + k, nullptr, 0)
    BILEVEL_FOR_EACH_TILE(m, BILEVEL_CALL)
#undef BILEVEL_CALL
  }
}

template <typename T, int kBytes, int kTile>
BILEVEL_INLINE void Gradient(
    const T* const* a, int rows, const T* r, int m, int stride, bool add, T* const* g) {
  // Panels of the samples that stay in the innermost cache while all tiles go over them.
  constexpr int kPanel = 4 * kSimdBytes / static_cast<int>(sizeof(T));
  for (int j = 0; j < stride; j += kPanel) {
    const int end = j + kPanel < stride ? j + kPanel : stride;
#define BILEVEL_CALL(n) GradientOf<T, kBytes, kTile, n>(a, rows, r + k, m, j, end, add, g + k)
    BILEVEL_FOR_EACH_TILE(m, BILEVEL_CALL)
#undef BILEVEL_CALL
  }
}

// kVecs registers of a sum of rows.
template <typename T, int kBytes, int kVecs>
BILEVEL_INLINE void SumOfRowsTile(
    const T* values, const int* indices, int count, const T* rows, int ld, T* out) {
  using Vec = typename Simd<T, kBytes>::Type;
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  Vec sum[kVecs] = {};
  for (int k = 0; k < count; ++k) {
    const T* const row = rows + static_cast<size_t>(indices[k]) * ld;
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      sum[v] += At<T, kBytes>(row + v * kLanes).value * values[k];
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) At<T, kBytes>(out + v * kLanes).value = sum[v];
}

template <typename T, int kBytes>
BILEVEL_INLINE void SumOfRows(
    const T* values, const int* indices, int count, const T* rows, int ld, int width, T* out) {
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  const int m = width / kLanes;
#define BILEVEL_CALL(n) \
  SumOfRowsTile<T, kBytes, n>(values, indices, count, rows + k * kLanes, ld, out + k * kLanes)
  BILEVEL_FOR_EACH_TILE(m, BILEVEL_CALL)
#undef BILEVEL_CALL
}

// The series of e^x and of log(1 + x) = 2 artanh(x / (2 + x)), to the last digit of T.
template <typename T>
struct Series {
  static constexpr bool kIsDouble = sizeof(T) == 8;
  using Int = std::conditional_t<kIsDouble, uint64_t, uint32_t>;
  static constexpr int kMantissa = kIsDouble ? 52 : 23, kBias = kIsDouble ? 1023 : 127;
  static constexpr int kExpDegree = kIsDouble ? 13 : 7, kLogTerms = kIsDouble ? 17 : 8;
  static constexpr T kLowest = kIsDouble ? T(-708) : T(-87);
  // log 2 in two: whole multiples of the first are exact.
  static constexpr T kLog2 = T(0.693359375), kLog2Rest = T(-2.12194440054690583e-4);
  static constexpr T kInverseFactorial[] = {
      T(1),
      T(1),
      T(1) / T(2),
      T(1) / T(6),
      T(1) / T(24),
      T(1) / T(120),
      T(1) / T(720),
      T(1) / T(5040),
      T(1) / T(40320),
      T(1) / T(362880),
      T(1) / T(3628800),
      T(1) / T(39916800),
      T(1) / T(479001600),
      T(1) / T(6227020800),
  };
};

// v <= 0; below the smallest normal number the result stays there.
template <typename T, int kBytes>
BILEVEL_INLINE void Exp(typename Simd<T, kBytes>::Type* v) {
  using S = Series<T>;
  using Vec = typename Simd<T, kBytes>::Type;
  using Ints = typename Simd<typename S::Int, kBytes>::Type;
  const Vec lowest = Vec{} + S::kLowest;
  const Vec x = *v < lowest ? lowest : *v;  // Keeps a NaN.
  // Adding it rounds to whole numbers, which are then in the last digits.
  const Vec shift = Vec{} + T(3) * T(typename S::Int(1) << (S::kMantissa - 1));
  const Vec shifted = x * T(1.44269504088896341) + shift;
  const Vec k = shifted - shift, r = (x - k * S::kLog2) - k * S::kLog2Rest;
  Vec sum = Vec{} + S::kInverseFactorial[S::kExpDegree];
#pragma GCC unroll 16
  for (int i = S::kExpDegree - 1; i >= 0; --i) sum = S::kInverseFactorial[i] + sum * r;
  const Ints power = (reinterpret_cast<Ints>(shifted) + S::kBias) << S::kMantissa;
  *v = sum * reinterpret_cast<Vec>(power);
}

// 0 <= v <= 1.
template <typename T, int kBytes>
BILEVEL_INLINE void Log1p(typename Simd<T, kBytes>::Type* v) {
  using Vec = typename Simd<T, kBytes>::Type;
  const Vec s = *v / (T(2) + *v), square = s * s;
  constexpr int kTerms = Series<T>::kLogTerms;
  Vec sum = Vec{} + T(1) / T(2 * kTerms - 1);
#pragma GCC unroll 16
  for (int i = kTerms - 1; i > 0; --i) sum = T(1) / T(2 * i - 1) + sum * square;
  *v = T(2) * s * sum;
}

template <typename T>
BILEVEL_INLINE void Convert(const double* from, int n, T* to) {
  for (int i = 0; i < n; ++i) to[i] = static_cast<T>(from[i]);
}

template <typename T>
BILEVEL_INLINE void ConvertBack(const T* from, int n, double* to) {
  for (int i = 0; i < n; ++i) to[i] = static_cast<double>(from[i]);
}

// All n numbers, register by register; the last ones in a register of their own.
#define BILEVEL_FOR_EACH_REGISTER(FUNCTION)       \
  using Vec = typename Simd<T, kBytes>::Type;     \
  constexpr int kLanes = Simd<T, kBytes>::kLanes; \
  for (; n >= kLanes; n -= kLanes, v += kLanes) { \
    Vec at = At<T, kBytes>(v).value;              \
    FUNCTION<T, kBytes>(&at);                     \
    At<T, kBytes>(v).value = at;                  \
  }                                               \
  if (n == 0) return;                             \
  Vec rest = {};                                  \
  std::memcpy(&rest, v, n * sizeof(T));           \
  FUNCTION<T, kBytes>(&rest);                     \
  std::memcpy(v, &rest, n * sizeof(T))

template <typename T, int kBytes>
BILEVEL_INLINE void AllExp(T* v, int n) {
  BILEVEL_FOR_EACH_REGISTER(Exp);
}

template <typename T, int kBytes>
BILEVEL_INLINE void AllLog1p(T* v, int n) {
  BILEVEL_FOR_EACH_REGISTER(Log1p);
}

#define BILEVEL_KERNELS(name, attribute, bytes, tile)                                           \
  template <typename T>                                                                         \
  struct name {                                                                                 \
    attribute static void Forward(                                                              \
        const T* const* a, int rows, const T* const* w, int m, int stride, T* out) {            \
      Outputs<T, bytes, tile>(a, rows, w, m, stride, out);                                      \
    }                                                                                           \
    attribute static void Backward(                                                             \
        const T* const* a, int rows, const T* r, int m, int stride, bool add, T* const* g) {    \
      Gradient<T, bytes, tile>(a, rows, r, m, stride, add, g);                                  \
    }                                                                                           \
    attribute static void Rows(const T* values,                                                 \
                               const int* indices,                                              \
                               int count,                                                       \
                               const T* rows,                                                   \
                               int ld,                                                          \
                               int width,                                                       \
                               T* out) {                                                        \
      constexpr int kBytes = bytes < kSparseRowBytes ? bytes : kSparseRowBytes;                 \
      SumOfRows<T, kBytes>(values, indices, count, rows, ld, width, out);                       \
    }                                                                                           \
    attribute static void Load(const double* from, int n, T* to) { Convert(from, n, to); }      \
    attribute static void Store(const T* from, int n, double* to) { ConvertBack(from, n, to); } \
    attribute static void Exponentials(T* v, int n) { AllExp<T, bytes>(v, n); }                 \
    attribute static void Logarithms(T* v, int n) { AllLog1p<T, bytes>(v, n); }                 \
    static ModelKernels<T> Get() {                                                              \
      return {Forward, Backward, Rows, Load, Store, Exponentials, Logarithms};                  \
    }                                                                                           \
  };

BILEVEL_KERNELS(Avx512, BILEVEL_AVX512, 64, 4)
BILEVEL_KERNELS(Avx2, BILEVEL_AVX2, 32, 2)
BILEVEL_KERNELS(Plain, , 16, 2)

template <typename T>
ModelKernels<T> Choose() {
  const int bytes = SimdBytes();
  return bytes == 64 ? Avx512<T>::Get() : bytes == 32 ? Avx2<T>::Get() : Plain<T>::Get();
}

}  // namespace

template <typename T>
const ModelKernels<T>& GetModelKernels() {
  static const ModelKernels<T> kernels = Choose<T>();
  return kernels;
}

template const ModelKernels<float>& GetModelKernels();
template const ModelKernels<double>& GetModelKernels();

}  // namespace internal
}  // namespace bilevel
