#ifndef BILEVEL_MODELS_SIMD_KERNELS_H_
#define BILEVEL_MODELS_SIMD_KERNELS_H_

namespace bilevel {
namespace internal {

// Rows begin, and are padded with zeros to, multiples of this: a vector register.
constexpr int kSimdBytes = 64;

// Products of a block of samples with a few rows of weights, for the widest vectors the processor
// has. Matrices of 3 to 30 rows are where a general matrix product spends its time on packing; here
// a block of samples stays in the cache between the two.
template <typename T>
struct DenseKernels {
  // out[i m + k] = a_i' w_k for i < rows and k < m. w_k = w + k stride; stride is whole registers.
  void (*outputs)(const T* const* a, int rows, const T* w, int m, int stride, T* out);
  // g_k += sum_i r[i m + k] a_i.
  void (*add_gradient)(const T* const* a, int rows, const T* r, int m, int stride, T* g);
};

// Chosen once, by what the processor can do.
template <typename T>
const DenseKernels<T>& GetDenseKernels();

}  // namespace internal
}  // namespace bilevel

#endif  // BILEVEL_MODELS_SIMD_KERNELS_H_
