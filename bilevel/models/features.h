#ifndef BILEVEL_MODELS_FEATURES_H_
#define BILEVEL_MODELS_FEATURES_H_

#include <memory>
#include <type_traits>

#include "Eigen/Core"
#include "Eigen/SparseCore"

namespace bilevel {

namespace internal {
struct FeatureStorage;
}  // namespace internal

/// The features of n samples, d each: an n x d matrix, dense or sparse, of float or double, in
/// which the models made on it calculate. Immutable and cheap to copy: copies share the memory.
///
///     bilevel::Features images(matrix);  // Eigen, any storage order; copied.
class Features {
 public:
  template <typename Derived>
  explicit Features(const Eigen::MatrixBase<Derived>& a) {
    CheckScalar<typename Derived::Scalar>();
    using Dense =
        Eigen::Matrix<typename Derived::Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Set(Eigen::Ref<const Dense>(a.derived()));
  }
  template <typename Derived>
  explicit Features(const Eigen::SparseMatrixBase<Derived>& a) {
    CheckScalar<typename Derived::Scalar>();
    Set(Eigen::SparseMatrix<typename Derived::Scalar, Eigen::RowMajor>(a.derived()));
  }

  int num_samples() const { return num_samples_; }
  int num_features() const { return num_features_; }
  const internal::FeatureStorage& storage() const { return *storage_; }

 private:
  template <typename Scalar>
  static void CheckScalar() {
    static_assert(std::is_same_v<Scalar, float> || std::is_same_v<Scalar, double>,
                  "features are of float or double");
  }
  template <typename Scalar>
  using DenseRef =
      Eigen::Ref<const Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  template <typename Scalar>
  using Sparse = Eigen::SparseMatrix<Scalar, Eigen::RowMajor>;
  void Set(const DenseRef<float>& a);
  void Set(const DenseRef<double>& a);
  void Set(Sparse<float> a);
  void Set(Sparse<double> a);

  std::shared_ptr<const internal::FeatureStorage> storage_;
  int num_samples_ = 0, num_features_ = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_MODELS_FEATURES_H_
