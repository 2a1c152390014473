#include "bilevel/base/internal/decompositions.h"

#include "Eigen/Cholesky"
#include "Eigen/Eigenvalues"
#include "Eigen/QR"

namespace bilevel {

SymmetricEigen::SymmetricEigen(const Eigen::MatrixXd& symmetric) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(symmetric);
  values_ = eigen.eigenvalues();
  vectors_ = eigen.eigenvectors();
}

Eigen::MatrixXd HouseholderQ(const Eigen::MatrixXd& m, Eigen::Index num_columns) {
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(m);
  return qr.householderQ() * Eigen::MatrixXd::Identity(m.rows(), num_columns);
}

Eigen::VectorXd LeastSquares(const Eigen::MatrixXd& a, const Eigen::VectorXd& b) {
  return a.completeOrthogonalDecomposition().solve(b);
}

Eigen::MatrixXd PseudoInverse(const Eigen::MatrixXd& a) {
  return a.completeOrthogonalDecomposition().pseudoInverse();
}

bool IsPositiveDefinite(const Eigen::MatrixXd& symmetric) {
  return symmetric.llt().info() == Eigen::Success;
}

}  // namespace bilevel
