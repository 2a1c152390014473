#ifndef BILEVEL_EXAMPLES_SUPPORT_DENSE_H_
#define BILEVEL_EXAMPLES_SUPPORT_DENSE_H_

// Dense decompositions, the library's own: compiled once.

#include "Eigen/Core"
#include "bilevel/base/internal/decompositions.h"

namespace examples {

using bilevel::HouseholderQ;
using bilevel::HouseholderR;
using bilevel::LeastSquares;
using bilevel::SolveSquare;
using bilevel::SolveSymmetric;
using bilevel::SymmetricEigen;

/// The unit vector with the least |Av|.
Eigen::VectorXd LeastSingularVector(const Eigen::MatrixXd& a);

/// The rotation R with the largest trace of R'm.
Eigen::Matrix3d NearestRotation(const Eigen::Matrix3d& m);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_DENSE_H_
