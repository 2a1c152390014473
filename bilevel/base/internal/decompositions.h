#ifndef BILEVEL_BASE_INTERNAL_DECOMPOSITIONS_H_
#define BILEVEL_BASE_INTERNAL_DECOMPOSITIONS_H_

// Dense decompositions behind functions: Eigen's templates are slow to compile, which is done once
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

/// The eigenvalues, ascending, of a symmetric tridiagonal matrix.
Eigen::VectorXd TridiagonalEigenvalues(const Eigen::VectorXd& diagonal, const Eigen::VectorXd& off);

/// The singular values, falling, and all right singular vectors.
struct RightSvd {
  explicit RightSvd(const Eigen::MatrixXd& m);
  Eigen::VectorXd values;
  Eigen::MatrixXd v;
};

/// The first columns of Q in m = QR: of all its m.rows(), so many.
Eigen::MatrixXd HouseholderQ(const Eigen::MatrixXd& m, Eigen::Index num_columns);
/// R of it, as high as m.
Eigen::MatrixXd HouseholderR(const Eigen::MatrixXd& m);

/// The shortest x with the least |Ax - b|.
Eigen::VectorXd LeastSquares(const Eigen::MatrixXd& a, const Eigen::VectorXd& b);
Eigen::MatrixXd PseudoInverse(const Eigen::MatrixXd& a);

/// a^-1 b, by LU with partial pivoting.
Eigen::MatrixXd SolveSquare(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b);
/// a^-1 b for a symmetric a >= 0, by LDL'.
Eigen::MatrixXd SolveSymmetric(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b);

/// a = LL'. False where a symmetric a is not positive definite.
bool Cholesky(const Eigen::MatrixXd& a, Eigen::MatrixXd* l);
bool IsPositiveDefinite(const Eigen::MatrixXd& symmetric);
/// a^-1, by Cholesky's decomposition; false where there is none.
bool InvertPositiveDefinite(const Eigen::MatrixXd& a, Eigen::MatrixXd* inverse);

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_DECOMPOSITIONS_H_
