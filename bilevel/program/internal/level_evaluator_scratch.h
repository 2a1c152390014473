#ifndef BILEVEL_PROGRAM_INTERNAL_LEVEL_EVALUATOR_SCRATCH_H_
#define BILEVEL_PROGRAM_INTERNAL_LEVEL_EVALUATOR_SCRATCH_H_

// What the files of LevelEvaluator share.

#include <algorithm>
#include <string>
#include <vector>

#include "bilevel/derivatives/internal/numeric_hessian.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {

using MatrixMap =
    Eigen::Map<Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using ConstMatrixMap =
    Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using ConstVectorMap = Eigen::Map<const Vector>;

// One thread's.
struct LevelEvaluator::Scratch {
  std::vector<const double*> parameters;
  std::vector<double*> jacobian_pointers;
  std::vector<double> residuals, jacobians, stacked, weights, gradient, direction, jv, hessian,
      product, directions, products, along, half, theta_value, theta_slope;
  double rho[3];
  NumericHessianWorkspace workspace;
  std::string error;
};

// out(tangent) = scale * P' in(ambient); P == nullptr is the identity.
inline void Project(
    const double* plus, int size, int tangent, double scale, const double* in, double* out) {
  if (!plus) {
    for (int i = 0; i < size; ++i) out[i] = scale * in[i];
    return;
  }
  for (int j = 0; j < tangent; ++j) {
    double sum = 0.0;
    for (int i = 0; i < size; ++i) sum += plus[i * tangent + j] * in[i];
    out[j] = scale * sum;
  }
}

// out(ambient) = P in(tangent).
inline void Lift(const double* plus, int size, int tangent, const double* in, double* out) {
  if (!plus) {
    std::copy_n(in, size, out);
    return;
  }
  for (int i = 0; i < size; ++i) {
    double sum = 0.0;
    for (int j = 0; j < tangent; ++j) sum += plus[i * tangent + j] * in[j];
    out[i] = sum;
  }
}

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_INTERNAL_LEVEL_EVALUATOR_SCRATCH_H_
