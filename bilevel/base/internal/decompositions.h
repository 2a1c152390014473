#ifndef BILEVEL_BASE_INTERNAL_DECOMPOSITIONS_H_
#define BILEVEL_BASE_INTERNAL_DECOMPOSITIONS_H_

// Dense decompositions behind functions: Eigen's templates take ten seconds of compiling each, once
// instead of in every file.

#include "Eigen/Core"

namespace bilevel {

/// The eigenvalues, ascending, and orthonormal eigenvectors of a symmetric matrix, of which the
/// lower triangle is read.
class SymmetricEigen {
 public:
  explicit SymmetricEigen(const Eigen::MatrixXd& symmetric);
  const Eigen::VectorXd& eigenvalues() const { return values_; }
  const Eigen::MatrixXd& eigenvectors() const { return vectors_; }

 private:
  Eigen::VectorXd values_;
  Eigen::MatrixXd vectors_;
};

/// The first columns of Q in m = QR: of all its m.rows(), so many.
Eigen::MatrixXd HouseholderQ(const Eigen::MatrixXd& m, Eigen::Index num_columns);

/// The shortest x with the least |Ax - b|.
Eigen::VectorXd LeastSquares(const Eigen::MatrixXd& a, const Eigen::VectorXd& b);
Eigen::MatrixXd PseudoInverse(const Eigen::MatrixXd& a);

/// By Cholesky's decomposition.
bool IsPositiveDefinite(const Eigen::MatrixXd& symmetric);

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_DECOMPOSITIONS_H_
