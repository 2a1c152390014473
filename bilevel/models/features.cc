#include "bilevel/models/features.h"

#include <algorithm>
#include <utility>

#include "bilevel/models/internal/feature_storage.h"

namespace bilevel {
namespace {

template <typename Ref>
std::shared_ptr<const internal::FeatureStorage> StoreDense(const Ref& a) {
  using T = typename Ref::Scalar;
  constexpr int kLanes = internal::kSimdBytes / static_cast<int>(sizeof(T));
  auto storage = std::make_shared<internal::FeatureStorage>();
  auto& dense = storage->matrix.template emplace<internal::DenseFeatures<T>>();
  dense.rows = static_cast<int>(a.rows());
  dense.columns = static_cast<int>(a.cols());
  dense.stride = (dense.columns + kLanes - 1) / kLanes * kLanes;
  dense.values.Resize(static_cast<size_t>(dense.rows) * dense.stride);
  for (int i = 0; i < dense.rows; ++i) {
    T* const to = dense.values.data() + static_cast<size_t>(i) * dense.stride;
    for (int j = 0; j < dense.columns; ++j) to[j] = a(i, j);
  }
  return storage;
}

template <typename T>
std::shared_ptr<const internal::FeatureStorage> StoreSparse(
    Eigen::SparseMatrix<T, Eigen::RowMajor> a) {
  auto storage = std::make_shared<internal::FeatureStorage>();
  auto& sparse = storage->matrix.template emplace<internal::SparseFeatures<T>>();
  a.makeCompressed();
  sparse.by_column = a;
  sparse.by_row = std::move(a);
  return storage;
}

}  // namespace

void Features::Set(const DenseRef<float>& a) {
  num_samples_ = static_cast<int>(a.rows());
  num_features_ = static_cast<int>(a.cols());
  storage_ = StoreDense(a);
}

void Features::Set(const DenseRef<double>& a) {
  num_samples_ = static_cast<int>(a.rows());
  num_features_ = static_cast<int>(a.cols());
  storage_ = StoreDense(a);
}

void Features::Set(Sparse<float> a) {
  num_samples_ = static_cast<int>(a.rows());
  num_features_ = static_cast<int>(a.cols());
  storage_ = StoreSparse(std::move(a));
}

void Features::Set(Sparse<double> a) {
  num_samples_ = static_cast<int>(a.rows());
  num_features_ = static_cast<int>(a.cols());
  storage_ = StoreSparse(std::move(a));
}

}  // namespace bilevel
