// The second derivatives of ResidualBlockEvaluator: of 1/2 rho(|r|^2), with respect to the ambient
// arguments,
//
//     H = sum_k rho' r_k d^2 r_k + rho' J'J + 2 rho'' (J'r)(J'r)'.
#include <algorithm>

#include "bilevel/program/internal/residual_block_evaluator.h"

namespace bilevel {
namespace {

// matrix += scale * v v', row-major.
void AddOuterProduct(double scale, const double* v, int n, double* matrix) {
  if (scale == 0.0) return;
  for (int i = 0; i < n; ++i) {
    const double factor = scale * v[i];
    for (int j = 0; j < n; ++j) matrix[i * n + j] += factor * v[j];
  }
}

}  // namespace

// The ambient gradient, for the manifolds' curvature, and rho' r, for the cost function's.
void ResidualBlockEvaluator::PrepareCurvature(const Residual& r, BlockDerivatives* block) {
  double* const gradient = block->ambient_gradient();
  for (int j = 0; j < r.ambient_size; ++j) gradient[j] = rho_[1] * gradient_[j];
  for (int i = 0; i < r.num_residuals; ++i) weights_[i] = rho_[1] * residuals_[i];
}

bool ResidualBlockEvaluator::EvaluateProduct(const Residual& r,
                                             internal::Recording* recording,
                                             BlockDerivatives* block) {
  const Argument* const arguments = Arguments(r);
  LiftDirection(r);
  if (recording) {
    recording->LossHessianProducts(
        rho_, direction_.data(), 1, product_.data(), jv_.data(), gradient_.data());
  } else {
    MultiplyJacobian(r);
  }
  PrepareCurvature(r, block);
  if (e_.order == Evaluation::kGradientAndProduct) {
    for (int p = 0; p < r.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (a.kind != Argument::kY) continue;
      frames_.Project(a, 1.0, block->ambient_gradient() + a.ambient, block->gradient() + a.local);
    }
  }
  if (!recording && !MultiplyHessian(r)) return false;
  double r_jv = 0.0;
  for (int i = 0; i < r.num_residuals; ++i) r_jv += residuals_[i] * jv_[i];
  for (int p = 0; p < r.num_arguments; ++p) {
    const Argument& a = arguments[p];
    if (!jacobian_pointers_[p]) continue;  // Nobody asks for it.
    frames_.Project(a, 1.0, product_.data() + a.ambient, block->product() + a.local);
  }
  ProjectThetas(r, r_jv, theta_slope_.data(), block->product());
  return true;
}

// The direction in the ambient coordinates of a residual block's arguments.
void ResidualBlockEvaluator::LiftDirection(const Residual& r) {
  const Argument* const arguments = Arguments(r);
  for (const Argument* a = arguments; a != arguments + r.num_arguments; ++a) {
    double* const to = direction_.data() + a->ambient;
    if (a->kind == Argument::kY) {
      frames_.Lift(*a, e_.direction + a->tangent_offset, to);
    } else {
      std::fill_n(to, a->size, 0.0);
    }
  }
}

// H and J times the direction, from the Jacobians.
bool ResidualBlockEvaluator::MultiplyHessian(const Residual& r) {
  const Argument* const arguments = Arguments(r);
  const double* const residuals = residuals_.data();
  const double* const direction = direction_.data();
  double* const product = product_.data();
  double* const jv = jv_.data();
  std::fill_n(jv, r.num_residuals, 0.0);
  for (int p = 0; p < r.num_arguments; ++p) {
    const Argument& a = arguments[p];
    if (a.kind != Argument::kY) continue;
    for (int i = 0; i < r.num_residuals; ++i) {
      for (int j = 0; j < a.size; ++j) {
        jv[i] += jacobian_pointers_[p][i * a.size + j] * direction[a.ambient + j];
      }
    }
  }
  // Curvature first, then the Jacobian terms on top.
  const double* const* parameters = parameters_.data();
  const double* const weights = weights_.data();
  const bool ok = r.exact ? r.exact->EvaluateHessianProduct(parameters, weights, direction, product)
                          : NumericHessianProduct(
                                *r.cost, parameters, weights, direction, product, &workspace_);
  if (!ok) return Fail(r, kNoSecondDerivatives);
  double r_jv = 0.0;
  for (int i = 0; i < r.num_residuals; ++i) r_jv += residuals[i] * jv[i];
  for (int p = 0; p < r.num_arguments; ++p) {
    const Argument& a = arguments[p];
    if (!jacobian_pointers_[p]) continue;
    for (int i = 0; i < r.num_residuals; ++i) {
      const double factor = rho_[1] * jv[i] + 2.0 * rho_[2] * r_jv * residuals[i];
      for (int j = 0; j < a.size; ++j) {
        product[a.ambient + j] += jacobian_pointers_[p][i * a.size + j] * factor;
      }
    }
  }
  return true;
}

bool ResidualBlockEvaluator::EvaluateHessian(const Residual& r,
                                             internal::Recording* recording,
                                             BlockDerivatives* block) {
  if (e_.kind == HessianKind::kGaussNewton && !e_.yx) {
    EvaluateGaussNewton(r, block);
    return true;
  }
  const int count = LiftDirections(r);
  if (recording) {
    recording->LossHessianProducts(
        rho_, directions_.data(), count, products_.data(), along_.data(), gradient_.data());
  } else {
    MultiplyJacobian(r);
  }
  ProjectGradient(r, block->gradient());
  PrepareCurvature(r, block);
  if (!recording && !MultiplyDirections(r, count)) return false;
  ProjectHessian(r, count, block);
  ProjectThetaHessian(r, block);
  return true;
}

// rho' J'J by y alone, from the Jacobians.
void ResidualBlockEvaluator::EvaluateGaussNewton(const Residual& r, BlockDerivatives* block) {
  const Argument* const begin = Arguments(r);
  const Argument* const end = begin + r.num_arguments;
  const int num_rows = r.num_residuals, local = r.local_size;
  MultiplyJacobian(r);
  ProjectGradient(r, block->gradient());
  PrepareCurvature(r, block);
  // J in tangent coordinates.
  double* const rows = along_.data();
  for (const Argument* a = begin; a != end; ++a) {
    if (a->kind != Argument::kY) continue;
    for (int i = 0; i < num_rows; ++i) {
      const double* const row = jacobian_pointers_[a - begin] + i * a->size;
      frames_.Project(*a, 1.0, row, rows + i * local + a->local);
    }
  }
  double* const to = block->hessian();
  for (const Argument* a = begin; a != end; ++a) {
    if (a->kind != Argument::kY) continue;
    for (const Argument* b = begin; b != end; ++b) {
      if (b->kind != Argument::kY || a->block < b->block) continue;
      for (int j = b->local; j < b->local + b->tangent_size; ++j) {
        double* const column = to + j * local;
        for (int i = a->local; i < a->local + a->tangent_size; ++i) column[i] = 0.0;
        for (int k = 0; k < num_rows; ++k) {
          const double* const row = rows + k * local;
          const double factor = rho_[1] * row[j];
          for (int i = a->local; i < a->local + a->tangent_size; ++i) column[i] += factor * row[i];
        }
      }
    }
  }
}

// The tangent directions of y in ambient coordinates, one a column; returns their number.
int ResidualBlockEvaluator::LiftDirections(const Residual& r) {
  const Argument* const arguments = Arguments(r);
  const Argument* const end = arguments + r.num_arguments;
  int count = 0;
  for (const Argument* a = arguments; a != end; ++a) {
    if (a->kind == Argument::kY) count += a->tangent_size;
  }
  MatrixMap directions(directions_.data(), r.ambient_size, count);
  directions.setZero();
  int column = 0;
  for (const Argument* a = arguments; a != end; ++a) {
    if (a->kind != Argument::kY) continue;
    auto block = directions.block(a->ambient, column, a->size, a->tangent_size);
    if (const double* plus = frames_.PlusJacobian(*a)) {
      block = ConstMatrixMap(plus, a->size, a->tangent_size);
    } else {
      block.setIdentity();
    }
    column += a->tangent_size;
  }
  return count;
}

// H and J times the directions, from the Jacobians and J'r.
bool ResidualBlockEvaluator::MultiplyDirections(const Residual& r, int count) {
  const Argument* const arguments = Arguments(r);
  const int num_rows = r.num_residuals, ambient = r.ambient_size;
  const ConstMatrixMap directions(directions_.data(), ambient, count);
  double* const stacked = stacked_.data();
  for (int p = 0; p < r.num_arguments; ++p) {
    const Argument& a = arguments[p];
    const double* const jacobian = jacobian_pointers_[p];
    for (int i = 0; i < num_rows; ++i) {
      double* row = stacked + i * ambient + a.ambient;
      if (jacobian) {
        std::copy_n(jacobian + i * a.size, a.size, row);
      } else {
        std::fill_n(row, a.size, 0.0);
      }
    }
  }
  MatrixMap(along_.data(), num_rows, count).noalias() =
      ConstMatrixMap(stacked, num_rows, ambient).lazyProduct(directions);
  double* const h = hessian_.data();
  const double* const weights = weights_.data();
  const bool ok = r.exact ? r.exact->EvaluateHessian(parameters_.data(), weights, h)
                          : NumericHessian(*r.cost, parameters_.data(), weights, h, &workspace_);
  if (!ok) return Fail(r, kNoSecondDerivatives);
  for (int i = 0; i < num_rows; ++i) AddOuterProduct(rho_[1], stacked + i * ambient, ambient, h);
  AddOuterProduct(2.0 * rho_[2], gradient_.data(), ambient, h);
  MatrixMap(products_.data(), ambient, count).noalias() =
      ConstMatrixMap(h, ambient, ambient).lazyProduct(directions);
  return true;
}

// The block's Hessian by its arguments from what MultiplyDirections, or the recording, left.
void ResidualBlockEvaluator::ProjectHessian(const Residual& r, int count, BlockDerivatives* block) {
  const Argument* const arguments = Arguments(r);
  const Argument* const end = arguments + r.num_arguments;
  const ConstMatrixMap products(products_.data(), r.ambient_size, count);
  const ConstMatrixMap along(along_.data(), r.num_residuals, count);
  MatrixMap to(block->hessian(), r.local_size, r.local_size);
  MatrixMap half(half_.data(), function_.largest().ambient,
                 count);  // Rows in tangent coordinates.
  int column = 0;         // Of the row's own block, where it is of y.
  for (const Argument* a = arguments; a != end; ++a) {
    if (a->kind == Argument::kConstant || (a->kind == Argument::kX && !e_.yx)) continue;
    const bool in_y = a->kind == Argument::kY;
    auto rows = half.topRows(a->tangent_size);
    if (in_y && e_.kind == HessianKind::kGaussNewton) {
      rows = rho_[1] * along.middleCols(column, a->tangent_size).transpose().lazyProduct(along);
    } else if (const double* plus = frames_.PlusJacobian(*a)) {
      rows = ConstMatrixMap(plus, a->size, a->tangent_size)
                 .transpose()
                 .lazyProduct(products.middleRows(a->ambient, a->size));
    } else {
      rows = products.middleRows(a->ambient, a->size);
    }
    int first = 0;
    for (const Argument* b = arguments; b != end; ++b) {
      if (b->kind != Argument::kY) continue;
      const auto part = rows.middleCols(first, b->tangent_size);
      first += b->tangent_size;
      if (in_y) {
        to.block(a->local, b->local, a->tangent_size, b->tangent_size) = part;
      } else {
        to.block(b->local, a->local, b->tangent_size, a->tangent_size) = part.transpose();
      }
    }
    if (in_y) column += a->tangent_size;
  }
}

// d/dtheta of rho' J'r.
void ResidualBlockEvaluator::ProjectThetaHessian(const Residual& r, BlockDerivatives* block) {
  const Argument* const arguments = Arguments(r);
  const Argument* const end = arguments + r.num_arguments;
  MatrixMap to(block->hessian(), r.local_size, r.local_size);
  double* const slope = direction_.data();
  double* const jtr = jv_.data();
  for (const Argument* theta = end; theta != end + r.num_thetas; ++theta) {
    if (theta->kind != Argument::kX) continue;
    frames_.Project(*theta, 1.0, &theta_slope_[theta->ambient - r.ambient_size], slope);
    for (const Argument* a = arguments; a != end; ++a) {
      if (a->kind != Argument::kY) continue;
      frames_.Project(*a, 1.0, gradient_.data() + a->ambient, jtr);
      for (int i = 0; i < a->tangent_size; ++i) {
        for (int j = 0; j < theta->tangent_size; ++j) {
          to(a->local + i, theta->local + j) = jtr[i] * slope[j];
        }
      }
    }
  }
}

}  // namespace bilevel
