#ifndef BILEVEL_MODELS_INTERNAL_FEATURE_STORAGE_H_
#define BILEVEL_MODELS_INTERNAL_FEATURE_STORAGE_H_

#include <cstdlib>
#include <memory>
#include <new>
#include <variant>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "Eigen/SparseCore"
#include "bilevel/models/internal/simd_kernels.h"

namespace bilevel {
namespace internal {

// Zeros in whole registers, aligned to them. Where it is long, on huge pages if the system has
// them: samples drawn at random then do not wait for the page table.
template <typename T>
class AlignedArray {
 public:
  // Makes room; keeps nothing. Allocates only when it grows.
  void Resize(size_t size) {
    if (size <= capacity_) return;
    constexpr size_t kHugePage = size_t{1} << 21;
    const size_t page = size * sizeof(T) < 2 * kHugePage ? kSimdBytes : kHugePage;
    const size_t bytes = (size * sizeof(T) + page - 1) / page * page;
    data_.reset(static_cast<T*>(std::aligned_alloc(page, bytes)));
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (page == kHugePage) madvise(data_.get(), bytes, MADV_HUGEPAGE);  // A hint.
#endif
    capacity_ = bytes / sizeof(T);
    for (size_t i = 0; i < capacity_; ++i) data_.get()[i] = T(0);
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  size_t capacity_ = 0;
};

template <typename T>
struct DenseFeatures {
  using Scalar = T;
  int rows, columns, stride;  // Whole registers a row.
  AlignedArray<T> values;
  const T* row(int i) const { return values.data() + static_cast<size_t>(i) * stride; }
};

// By samples and by features.
template <typename T>
struct SparseFeatures {
  using Scalar = T;
  Eigen::SparseMatrix<T, Eigen::RowMajor> by_row;
  Eigen::SparseMatrix<T, Eigen::ColMajor> by_column;
};

struct FeatureStorage {
  std::variant<DenseFeatures<float>,
               DenseFeatures<double>,
               SparseFeatures<float>,
               SparseFeatures<double>>
      matrix;
};

}  // namespace internal
}  // namespace bilevel

#endif  // BILEVEL_MODELS_INTERNAL_FEATURE_STORAGE_H_
