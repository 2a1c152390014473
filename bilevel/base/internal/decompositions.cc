#include "bilevel/base/internal/decompositions.h"

#include "Eigen/Cholesky"
#include "Eigen/Eigenvalues"
#include "Eigen/LU"
#include "Eigen/QR"
#include "Eigen/SVD"

namespace bilevel {
using Eigen::MatrixXd;
using Eigen::VectorXd;

SymmetricEigen::SymmetricEigen(const MatrixXd& symmetric) {
  const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(symmetric);
  values_ = eigen.eigenvalues();
  vectors_ = eigen.eigenvectors();
}

VectorXd TridiagonalEigenvalues(const VectorXd& diagonal, const VectorXd& off) {
  Eigen::SelfAdjointEigenSolver<MatrixXd> eigen;
  return eigen.computeFromTridiagonal(diagonal, off, Eigen::EigenvaluesOnly).eigenvalues();
}

RightSvd::RightSvd(const MatrixXd& m) {
  const Eigen::JacobiSVD<MatrixXd> svd(m, Eigen::ComputeFullV);
  values = svd.singularValues();
  v = svd.matrixV();
}

MatrixXd HouseholderQ(const MatrixXd& m, Eigen::Index num_columns) {
  const Eigen::HouseholderQR<MatrixXd> qr(m);
  return qr.householderQ() * MatrixXd::Identity(m.rows(), num_columns);
}

MatrixXd HouseholderR(const MatrixXd& m) {
  return m.householderQr().matrixQR().triangularView<Eigen::Upper>();
}

VectorXd LeastSquares(const MatrixXd& a, const VectorXd& b) {
  return a.completeOrthogonalDecomposition().solve(b);
}

MatrixXd PseudoInverse(const MatrixXd& a) {
  return a.completeOrthogonalDecomposition().pseudoInverse();
}

MatrixXd SolveSquare(const MatrixXd& a, const MatrixXd& b) { return a.partialPivLu().solve(b); }

MatrixXd SolveSymmetric(const MatrixXd& a, const MatrixXd& b) { return a.ldlt().solve(b); }

bool Cholesky(const MatrixXd& a, MatrixXd* l) {
  const Eigen::LLT<MatrixXd> llt(a);
  if (llt.info() != Eigen::Success) return false;
  *l = llt.matrixL();
  return true;
}

bool IsPositiveDefinite(const MatrixXd& symmetric) {
  return symmetric.llt().info() == Eigen::Success;
}

bool InvertPositiveDefinite(const MatrixXd& a, MatrixXd* inverse) {
  const Eigen::LLT<MatrixXd> llt(a);
  if (llt.info() != Eigen::Success) return false;
  *inverse = llt.solve(MatrixXd::Identity(a.rows(), a.rows()));
  return true;
}

}  // namespace bilevel
