#include "bilevel/models/simd_kernels.h"

#include <cstring>

namespace bilevel {
namespace internal {
namespace {

#define BILEVEL_INLINE inline __attribute__((always_inline))

template <typename T, int kBytes>
struct Simd {
  typedef T Type __attribute__((vector_size(kBytes), aligned(sizeof(T)), may_alias));
};

// A register's sum, in halves.
template <typename T, int kBytes>
BILEVEL_INLINE T Sum(const typename Simd<T, kBytes>::Type& v) {
  if constexpr (kBytes == 16) {
    T sum = v[0] + v[1];
    if constexpr (sizeof(T) == 4) sum += v[2] + v[3];
    return sum;
  } else {
    typename Simd<T, kBytes / 2>::Type half[2];
    std::memcpy(half, &v, kBytes);
    half[0] += half[1];
    return Sum<T, kBytes / 2>(half[0]);
  }
}

// kRows samples times kOutputs weights: that many registers of partial sums.
template <typename T, int kBytes, int kRows, int kOutputs>
BILEVEL_INLINE void OutputsTile(const T* const* a, const T* w, int m, int stride, T* out) {
  using Vec = typename Simd<T, kBytes>::Type;
  Vec sum[kRows][kOutputs] = {};
  for (int j = 0; j < stride; j += kBytes / static_cast<int>(sizeof(T))) {
    Vec x[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      x[i] = *reinterpret_cast<const Vec*>(a[i] + j);
    }
#pragma GCC unroll 8
    for (int k = 0; k < kOutputs; ++k) {
      const Vec y = *reinterpret_cast<const Vec*>(w + k * stride + j);
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
    const T* const* a, int rows, const T* r, int m, int j, int stride, T* g) {
  using Vec = typename Simd<T, kBytes>::Type;
  constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));
  Vec sum[kOutputs][kVecs];
#pragma GCC unroll 8
  for (int k = 0; k < kOutputs; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      sum[k][v] = *reinterpret_cast<const Vec*>(g + k * stride + j + v * kLanes);
    }
  }
  for (int i = 0; i < rows; ++i) {
    Vec x[kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      x[v] = *reinterpret_cast<const Vec*>(a[i] + j + v * kLanes);
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
      *reinterpret_cast<Vec*>(g + k * stride + j + v * kLanes) = sum[k][v];
    }
  }
}

template <typename T, int kBytes, int kTile, int kOutputs>
BILEVEL_INLINE void OutputsOf(const T* const* a, int rows, const T* w, int m, int stride, T* out) {
  int i = 0;
  for (; i + kTile <= rows; i += kTile) {
    OutputsTile<T, kBytes, kTile, kOutputs>(a + i, w, m, stride, out + i * m);
  }
  for (; i < rows; ++i) OutputsTile<T, kBytes, 1, kOutputs>(a + i, w, m, stride, out + i * m);
}

template <typename T, int kBytes, int kTile, int kOutputs>
BILEVEL_INLINE void GradientOf(
    const T* const* a, int rows, const T* r, int m, int begin, int end, int stride, T* g) {
  constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));
  int j = begin;
  for (; j + kTile * kLanes <= end; j += kTile * kLanes) {
    GradientTile<T, kBytes, kTile, kOutputs>(a, rows, r, m, j, stride, g);
  }
  for (; j < end; j += kLanes) {
    GradientTile<T, kBytes, 1, kOutputs>(a, rows, r, m, j, stride, g);
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
BILEVEL_INLINE void Outputs(const T* const* a, int rows, const T* w, int m, int stride, T* out) {
#define BILEVEL_CALL(n) OutputsOf<T, kBytes, kTile, n>(a, rows, w + k * stride, m, stride, out + k)
  BILEVEL_FOR_EACH_TILE(m, BILEVEL_CALL)
#undef BILEVEL_CALL
}

template <typename T, int kBytes, int kTile>
BILEVEL_INLINE void AddGradient(const T* const* a, int rows, const T* r, int m, int stride, T* g) {
  // Panels of the samples that stay in the innermost cache while all tiles go over them.
  constexpr int kPanel = 4 * kSimdBytes / static_cast<int>(sizeof(T));
  for (int j = 0; j < stride; j += kPanel) {
    const int end = j + kPanel < stride ? j + kPanel : stride;
#define BILEVEL_CALL(n) \
  GradientOf<T, kBytes, kTile, n>(a, rows, r + k, m, j, end, stride, g + k * stride)
    BILEVEL_FOR_EACH_TILE(m, BILEVEL_CALL)
#undef BILEVEL_CALL
  }
}

#define BILEVEL_KERNELS(name, attribute, bytes, tile)                         \
  template <typename T>                                                       \
  struct name {                                                               \
    attribute static void Forward(                                            \
        const T* const* a, int rows, const T* w, int m, int stride, T* out) { \
      Outputs<T, bytes, tile>(a, rows, w, m, stride, out);                    \
    }                                                                         \
    attribute static void Backward(                                           \
        const T* const* a, int rows, const T* r, int m, int stride, T* g) {   \
      AddGradient<T, bytes, tile>(a, rows, r, m, stride, g);                  \
    }                                                                         \
    static DenseKernels<T> Get() { return {Forward, Backward}; }              \
  };

#if defined(__x86_64__)
BILEVEL_KERNELS(Avx512, __attribute__((target("avx512f,avx2,fma"))), 64, 4)
BILEVEL_KERNELS(Avx2, __attribute__((target("avx2,fma"))), 32, 2)
#endif
BILEVEL_KERNELS(Plain, , 16, 2)

template <typename T>
DenseKernels<T> Choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return Avx512<T>::Get();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Avx2<T>::Get();
#endif
  return Plain<T>::Get();
}

}  // namespace

template <typename T>
const DenseKernels<T>& GetDenseKernels() {
  static const DenseKernels<T> kernels = Choose<T>();
  return kernels;
}

template const DenseKernels<float>& GetDenseKernels();
template const DenseKernels<double>& GetDenseKernels();

}  // namespace internal
}  // namespace bilevel
