#ifndef BILEVEL_BASE_INTERNAL_SIMD_H_
#define BILEVEL_BASE_INTERNAL_SIMD_H_

#include <cstring>

// Kernels are templates over the bytes of a register, BILEVEL_INLINE, instantiated in a function
// for each width, BILEVEL_AVX512, BILEVEL_AVX2 or as it is. Which one to call is known when the
// program runs.

#define BILEVEL_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__)
#define BILEVEL_AVX512 __attribute__((target("avx512f,avx2,fma")))
#define BILEVEL_AVX2 __attribute__((target("avx2,fma")))
#else
#define BILEVEL_AVX512
#define BILEVEL_AVX2
#endif

namespace bilevel {
namespace internal {

// 64, 32 or 16.
inline int SimdBytes() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return 64;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 32;
#endif
  return 16;
}

template <typename T, int kBytes>
struct Simd {
  typedef T Type __attribute__((vector_size(kBytes)));
  // Anywhere in an array. Clang forgets a typedef's own alignment where it is returned.
  struct __attribute__((packed, may_alias)) Unaligned {
    Type value;
  };
  static constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));
};

template <typename T, int kBytes>
BILEVEL_INLINE const typename Simd<T, kBytes>::Unaligned& At(const T* p) {
  return *reinterpret_cast<const typename Simd<T, kBytes>::Unaligned*>(p);
}

template <typename T, int kBytes>
BILEVEL_INLINE typename Simd<T, kBytes>::Unaligned& At(T* p) {
  return *reinterpret_cast<typename Simd<T, kBytes>::Unaligned*>(p);
}

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

}  // namespace internal
}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_SIMD_H_
