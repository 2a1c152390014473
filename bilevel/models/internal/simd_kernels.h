#ifndef BILEVEL_MODELS_INTERNAL_SIMD_KERNELS_H_
#define BILEVEL_MODELS_INTERNAL_SIMD_KERNELS_H_

namespace bilevel {
namespace internal {

// Rows begin, and are padded with zeros to, multiples of this: a vector register.
constexpr int kSimdBytes = 64;
// Rows that sparse products add are whole multiples of this.
constexpr int kSparseRowBytes = 32;

// What evaluating samples takes, for the widest vectors the processor has. Dense products with 3 to
// 30 rows of weights are where a general matrix product spends its time on packing; here a block
// stays in the cache between the two.
template <typename T>
struct ModelKernels {
  // out[i m + k] = a_i' w_k for i < rows and k < m; rows are `stride` long, whole registers.
  void (*outputs)(const T* const* a, int rows, const T* const* w, int m, int stride, T* out);
  // g_k = sum_i r[i m + k] a_i, added to what is there if `add`.
  void (*gradient)(
      const T* const* a, int rows, const T* r, int m, int stride, bool add, T* const* g);
  // out = sum_k values[k] rows[indices[k]], `width` numbers, kSparseRowBytes or multiples; rows are
  // `ld` apart.
  void (*sum_of_rows)(
      const T* values, const int* indices, int count, const T* rows, int ld, int width, T* out);
  // to <- from, n numbers.
  void (*load)(const double* from, int n, T* to);
  void (*store)(const T* from, int n, double* to);
  // v <- e^v for v <= 0, and v <- log(1 + v) for 0 <= v <= 1, n of them.
  void (*exp)(T* v, int n);
  void (*log1p)(T* v, int n);
};

// Chosen once, by what the processor can do.
template <typename T>
const ModelKernels<T>& GetModelKernels();

}  // namespace internal
}  // namespace bilevel

#endif  // BILEVEL_MODELS_INTERNAL_SIMD_KERNELS_H_
