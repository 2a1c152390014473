#include <algorithm>
#include <cmath>
#include <optional>

#include "bilevel/program/internal/level_evaluator_scratch.h"

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

// Where a residual block's parameters are, and where the Jacobians that are wanted go.
inline void LevelEvaluator::FindArguments(int index, bool want_x, bool want_y, Scratch* s) {
  using Argument = LevelFunction::Argument;
  static_assert(Argument::kX == 0 && Argument::kY == 1 && Argument::kConstant == 2, "");
  const LevelFunction::Residual& r = function_.residuals_[index];
  const Argument* const begin = &function_.arguments_[r.first];
  const Argument* const end = begin + r.num_arguments;
  const Argument* const thetas_end = end + r.num_thetas;
  const double* const points[] = {x_, y_, nullptr};
  const bool wanted[] = {want_x, want_y, false};
  const double** parameter = s->parameters.data();
  double** jacobian = s->jacobian_pointers.data();
  for (const Argument* a = begin; a != thetas_end; ++a, ++parameter) {
    *parameter = a->kind == Argument::kConstant ? a->constant : points[a->kind] + a->offset;
    if (a >= end) continue;
    *jacobian++ = wanted[a->kind] ? &s->jacobians[r.num_residuals * a->ambient] : nullptr;
  }
}

// Residuals, Jacobians (where wanted and not left to the recording) and the loss of one residual
// block, into the scratch.
inline bool LevelEvaluator::EvaluateCost(int index,
                                         bool derivatives,
                                         internal::Recording* recording,
                                         Scratch* s) {
  const LevelFunction::Residual& r = function_.residuals_[index];
  const int num_rows = r.num_residuals;
  const double* residuals = s->residuals.data();
  const bool evaluated =
      recording ? r.taped->Record(recording)
                : r.cost->Evaluate(s->parameters.data(),
                                   s->residuals.data(),
                                   derivatives ? s->jacobian_pointers.data() : nullptr);
  if (!evaluated) {
    return FailResidual(index, "could not be evaluated: its cost function returned false", s);
  }
  if (recording) recording->Values(s->residuals.data());
  double squared_norm = 0.0;
  for (int i = 0; i < num_rows; ++i) squared_norm += residuals[i] * residuals[i];
  if (!std::isfinite(squared_norm)) {
    return FailResidual(index, "has a residual that is not finite", s);
  }
  double* rho = s->rho;
  rho[0] = squared_norm;
  rho[1] = 1.0;
  rho[2] = 0.0;
  if (!r.loss) return true;
  if (r.learnable) {
    r.learnable->Evaluate(squared_norm,
                          s->parameters.data() + r.num_arguments,
                          rho,
                          derivatives ? s->theta_value.data() : nullptr,
                          derivatives ? s->theta_slope.data() : nullptr);
  } else {
    r.loss->Evaluate(squared_norm, rho);
  }
  return (std::isfinite(rho[0]) && std::isfinite(rho[1])) ||
         FailResidual(index, "has a loss that is not finite", s);
}

bool LevelEvaluator::FailResidual(int index, const char* what, Scratch* s) {
  s->error = "residual block " + std::to_string(index) + " of " + function_.name_ + " " + what;
  return false;
}

// Slot: value | local gradient or product | ambient gradient (product, both, Hessian) | local
// Hessian or, of both, local gradient.
bool LevelEvaluator::EvaluateResidual(Order order, int index, Scratch* s, double* slot) {
  using Argument = LevelFunction::Argument;
  const LevelFunction::Residual& r = function_.residuals_[index];
  const Argument* arguments = &function_.arguments_[r.first];
  const int num_rows = r.num_residuals, ambient = r.ambient_size, local = r.local_size;
  const bool derivatives = order != Order::kValue;
  // Variables of x are skipped where nobody asks for them.
  const bool want_x = gx_ || yx_ || order == Order::kRows;
  FindArguments(index, want_x, true, s);
  // One recording gives gradient, Hessian and products without a Jacobian.
  std::optional<internal::Recording> recording;
  if ((order == Order::kGradient && r.TapesGradient()) ||
      ((order == Order::kProduct || order == Order::kBoth) && r.taped) ||
      (order == Order::kHessian && r.taped && (kind_ == HessianKind::kExact || yx_))) {
    recording.emplace(s->parameters.data(), r.cost->parameter_block_sizes(), num_rows);
  }
  if (!EvaluateCost(index, derivatives, recording ? &*recording : nullptr, s)) return false;
  const double* residuals = s->residuals.data();
  const double* rho = s->rho;
  slot[0] = 0.5 * rho[0];
  if (!derivatives) return true;

  if (order == Order::kRows) {
    const double root = std::sqrt(std::max(rho[1], 0.0));
    const auto write = [&](Argument::Kind kind, const Space& space, RowSparseMatrix* matrix) {
      for (int p = 0; p < r.num_arguments; ++p) {
        const Argument& a = arguments[p];
        if (a.kind != kind) continue;
        int column = 0;  // Of this block among the row's nonzeros.
        for (int q = 0; q < r.num_arguments; ++q) {
          if (arguments[q].kind == kind && arguments[q].block < a.block) {
            column += space.blocks()[arguments[q].block].tangent_size;
          }
        }
        for (int i = 0; i < num_rows; ++i) {
          Project(PlusJacobian(a),
                  a.size,
                  a.tangent_size,
                  root,
                  s->jacobian_pointers[p] + i * a.size,
                  matrix->valuePtr() + matrix->outerIndexPtr()[r.row + i] + column);
        }
      }
    };
    write(Argument::kX, *function_.x_, rows_jx_);
    write(Argument::kY, *function_.y_, rows_jy_);
    for (int i = 0; i < num_rows; ++i) (*rows_r_)[r.row + i] = root * residuals[i];
    return true;
  }

  // J'r, ambient.
  double* gradient = s->gradient.data();
  if (recording && (order == Order::kProduct || order == Order::kBoth)) {
    // Comes with the product.
    LiftDirection(index, s);
    recording->LossHessianProducts(
        rho, s->direction.data(), 1, s->product.data(), s->jv.data(), gradient);
  } else if (recording && order == Order::kHessian) {
    MultiplyDirections(index, &*recording, s);
  } else if (recording) {
    recording->Gradient(residuals, gradient);
  }
  for (int p = 0; p < r.num_arguments && !recording; ++p) {
    const Argument& a = arguments[p];
    const double* jacobian = s->jacobian_pointers[p];
    for (int j = 0; j < a.size; ++j) gradient[a.ambient + j] = 0.0;
    if (!jacobian) continue;
    for (int i = 0; i < num_rows; ++i) {
      for (int j = 0; j < a.size; ++j) {
        gradient[a.ambient + j] += jacobian[i * a.size + j] * residuals[i];
      }
    }
  }
  double* out = slot + 1;
  if (order == Order::kGradient || order == Order::kHessian) {
    for (int p = 0; p < r.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (a.kind == Argument::kConstant) continue;
      Project(PlusJacobian(a), a.size, a.tangent_size, rho[1], gradient + a.ambient, out + a.local);
    }
    for (int p = r.num_arguments; p < r.num_arguments + r.num_thetas; ++p) {
      const Argument& a = arguments[p];
      if (a.kind != Argument::kX) continue;
      Project(PlusJacobian(a),
              a.size,
              a.tangent_size,
              0.5,
              &s->theta_value[a.ambient - ambient],
              out + a.local);
    }
    if (order == Order::kGradient) return true;
  }
  double* ambient_gradient = out + local;
  for (int j = 0; j < ambient; ++j) ambient_gradient[j] = rho[1] * gradient[j];
  double* weights = s->weights.data();
  for (int i = 0; i < num_rows; ++i) weights[i] = rho[1] * residuals[i];

  if (order == Order::kProduct || order == Order::kBoth) {
    if (order == Order::kBoth) {
      double* own = ambient_gradient + ambient + r.theta_size;
      for (int p = 0; p < r.num_arguments; ++p) {
        const Argument& a = arguments[p];
        if (a.kind != Argument::kY) continue;
        Project(PlusJacobian(a),
                a.size,
                a.tangent_size,
                1.0,
                ambient_gradient + a.ambient,
                own + a.local);
      }
    }
    if (!recording && !MultiplyHessian(index, s)) return false;
    const double* const product = s->product.data();
    const double* const jv = s->jv.data();
    double r_jv = 0.0;
    for (int i = 0; i < num_rows; ++i) r_jv += residuals[i] * jv[i];
    for (int p = 0; p < r.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (!s->jacobian_pointers[p]) continue;  // Nobody asks for it.
      Project(PlusJacobian(a), a.size, a.tangent_size, 1.0, product + a.ambient, out + a.local);
    }
    for (int p = r.num_arguments; p < r.num_arguments + r.num_thetas; ++p) {
      const Argument& a = arguments[p];
      if (a.kind != Argument::kX) continue;
      Project(PlusJacobian(a),
              a.size,
              a.tangent_size,
              r_jv,
              &s->theta_slope[a.ambient - ambient],
              out + a.local);
    }
    return true;
  }

  if (!recording && !MultiplyDirections(index, nullptr, s)) return false;
  FillHessian(index, ambient_gradient, s);
  return true;
}

// direction_ in the ambient coordinates of a residual block's arguments.
inline void LevelEvaluator::LiftDirection(int index, Scratch* s) const {
  const LevelFunction::Residual& r = function_.residuals_[index];
  const LevelFunction::Argument* a = &function_.arguments_[r.first];
  for (const LevelFunction::Argument* const end = a + r.num_arguments; a != end; ++a) {
    double* to = s->direction.data() + a->ambient;
    if (a->kind == LevelFunction::Argument::kY) {
      Lift(PlusJacobian(*a), a->size, a->tangent_size, direction_ + a->tangent_offset, to);
    } else {
      std::fill_n(to, a->size, 0.0);
    }
  }
}

// The Hessian of a residual block's cost along direction_, and its residuals' derivatives, from
// the Jacobians.
bool LevelEvaluator::MultiplyHessian(int index, Scratch* s) {
  using Argument = LevelFunction::Argument;
  const LevelFunction::Residual& r = function_.residuals_[index];
  const Argument* const arguments = &function_.arguments_[r.first];
  const double* const residuals = s->residuals.data();
  const double* const direction = s->direction.data();
  double* const product = s->product.data();
  double* const jv = s->jv.data();
  LiftDirection(index, s);
  std::fill_n(jv, r.num_residuals, 0.0);
  for (int p = 0; p < r.num_arguments; ++p) {
    const Argument& a = arguments[p];
    if (a.kind != Argument::kY) continue;
    for (int i = 0; i < r.num_residuals; ++i) {
      for (int j = 0; j < a.size; ++j) {
        jv[i] += s->jacobian_pointers[p][i * a.size + j] * direction[a.ambient + j];
      }
    }
  }
  // Curvature first, then the Jacobian terms on top.
  const double* const* parameters = s->parameters.data();
  const double* const weights = s->weights.data();
  const bool ok = r.exact ? r.exact->EvaluateHessianProduct(parameters, weights, direction, product)
                          : NumericHessianProduct(
                                *r.cost, parameters, weights, direction, product, &s->workspace);
  if (!ok) return FailResidual(index, "has second derivatives that could not be evaluated", s);
  double r_jv = 0.0;
  for (int i = 0; i < r.num_residuals; ++i) r_jv += residuals[i] * jv[i];
  for (int p = 0; p < r.num_arguments; ++p) {
    const Argument& a = arguments[p];
    if (!s->jacobian_pointers[p]) continue;
    for (int i = 0; i < r.num_residuals; ++i) {
      const double factor = s->rho[1] * jv[i] + 2.0 * s->rho[2] * r_jv * residuals[i];
      for (int j = 0; j < a.size; ++j) {
        product[a.ambient + j] += s->jacobian_pointers[p][i * a.size + j] * factor;
      }
    }
  }
  return true;
}

// The Hessian of a residual block's cost times the tangent directions of y, and the residuals'
// derivatives along them: s->products and s->along. With a recording comes s->gradient; without,
// it must be there.
bool LevelEvaluator::MultiplyDirections(int index, internal::Recording* recording, Scratch* s) {
  using Argument = LevelFunction::Argument;
  const LevelFunction::Residual& r = function_.residuals_[index];
  const Argument* const arguments = &function_.arguments_[r.first];
  const Argument* const end = arguments + r.num_arguments;
  const int num_rows = r.num_residuals, ambient = r.ambient_size;
  const double* const rho = s->rho;

  int count = 0;
  for (const Argument* a = arguments; a != end; ++a) {
    if (a->kind == Argument::kY) count += a->tangent_size;
  }
  MatrixMap directions(s->directions.data(), ambient, count);
  directions.setZero();
  int column = 0;
  for (const Argument* a = arguments; a != end; ++a) {
    if (a->kind != Argument::kY) continue;
    auto block = directions.block(a->ambient, column, a->size, a->tangent_size);
    if (const double* plus = PlusJacobian(*a)) {
      block = ConstMatrixMap(plus, a->size, a->tangent_size);
    } else {
      block.setIdentity();
    }
    column += a->tangent_size;
  }

  if (recording) {
    recording->LossHessianProducts(
        rho, directions.data(), count, s->products.data(), s->along.data(), s->gradient.data());
    return true;
  }
  double* const stacked = s->stacked.data();
  for (const Argument* a = arguments; a != end; ++a) {
    const double* jacobian = s->jacobian_pointers[a - arguments];
    for (int i = 0; i < num_rows; ++i) {
      double* row = stacked + i * ambient + a->ambient;
      if (jacobian) {
        std::copy_n(jacobian + i * a->size, a->size, row);
      } else {
        std::fill_n(row, a->size, 0.0);
      }
    }
  }
  MatrixMap(s->along.data(), num_rows, count).noalias() =
      ConstMatrixMap(stacked, num_rows, ambient).lazyProduct(directions);
  if (kind_ == HessianKind::kGaussNewton && !yx_) return true;
  // Curvature + rho' J'J + 2 rho'' (J'r)(J'r)'.
  double* const h = s->hessian.data();
  const double* const weights = s->weights.data();
  const bool ok = r.exact
                      ? r.exact->EvaluateHessian(s->parameters.data(), weights, h)
                      : NumericHessian(*r.cost, s->parameters.data(), weights, h, &s->workspace);
  if (!ok) return FailResidual(index, "has second derivatives that could not be evaluated", s);
  for (int i = 0; i < num_rows; ++i) AddOuterProduct(rho[1], stacked + i * ambient, ambient, h);
  AddOuterProduct(2.0 * rho[2], s->gradient.data(), ambient, h);
  MatrixMap(s->products.data(), ambient, count).noalias() =
      ConstMatrixMap(h, ambient, ambient).lazyProduct(directions);
  return true;
}

// The Hessian of a residual block, after its ambient gradient in the slot, from what
// MultiplyDirections left: the blocks that ForEachHessianBlock looks at.
void LevelEvaluator::FillHessian(int index, double* ambient_gradient, Scratch* s) {
  using Argument = LevelFunction::Argument;
  const LevelFunction::Residual& r = function_.residuals_[index];
  const Argument* const arguments = &function_.arguments_[r.first];
  const Argument* const end = arguments + r.num_arguments;
  const int ambient = r.ambient_size, local = r.local_size;
  const double* const gradient = s->gradient.data();
  int count = 0;
  for (const Argument* a = arguments; a != end; ++a) {
    if (a->kind == Argument::kY) count += a->tangent_size;
  }
  const ConstMatrixMap products(s->products.data(), ambient, count);
  const ConstMatrixMap along(s->along.data(), r.num_residuals, count);
  // Their rows in tangent coordinates.
  MatrixMap to(ambient_gradient + ambient + r.theta_size, local, local);
  MatrixMap half(s->half.data(), function_.max_ambient_, count);
  int column = 0;  // Of the row's own block, where it is of y.
  for (const Argument* a = arguments; a != end; ++a) {
    if (a->kind == Argument::kConstant || (a->kind == Argument::kX && !yx_)) continue;
    const bool in_y = a->kind == Argument::kY;
    auto rows = half.topRows(a->tangent_size);
    if (in_y && kind_ == HessianKind::kGaussNewton) {
      rows = s->rho[1] * along.middleCols(column, a->tangent_size).transpose().lazyProduct(along);
    } else if (const double* plus = PlusJacobian(*a)) {
      rows = ConstMatrixMap(plus, a->size, a->tangent_size)
                 .transpose()
                 .lazyProduct(products.middleRows(a->ambient, a->size));
    } else {
      rows = products.middleRows(a->ambient, a->size);
    }
    int first = 0;
    for (const Argument* b = arguments; b != end; ++b) {
      if (b->kind != Argument::kY) continue;
      const auto block = rows.middleCols(first, b->tangent_size);
      first += b->tangent_size;
      if (in_y) {
        to.block(a->local, b->local, a->tangent_size, b->tangent_size) = block;
      } else {
        to.block(b->local, a->local, b->tangent_size, a->tangent_size) = block.transpose();
      }
    }
    if (in_y) column += a->tangent_size;
  }
  // d/dtheta of rho' J'r.
  double* slope = s->direction.data();
  double* jtr = s->jv.data();
  for (int q = r.num_arguments; q < r.num_arguments + r.num_thetas; ++q) {
    const Argument& theta = arguments[q];
    if (theta.kind != Argument::kX) continue;
    Project(PlusJacobian(theta),
            theta.size,
            theta.tangent_size,
            1.0,
            &s->theta_slope[theta.ambient - ambient],
            slope);
    for (int p = 0; p < r.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (a.kind != Argument::kY) continue;
      Project(PlusJacobian(a), a.size, a.tangent_size, 1.0, gradient + a.ambient, jtr);
      for (int i = 0; i < a.tangent_size; ++i) {
        for (int j = 0; j < theta.tangent_size; ++j) {
          to(a.local + i, theta.local + j) = jtr[i] * slope[j];
        }
      }
    }
  }
}

// The serial way to a gradient: as EvaluateResidual and Reduce, entry by entry the same arithmetic,
// without the slot between them.
inline bool LevelEvaluator::AddGradient(int index,
                                        internal::Recording* recording,
                                        double scale,
                                        double* value) {
  using Argument = LevelFunction::Argument;
  Scratch& s = scratch_[0];
  const LevelFunction::Residual& r = function_.residuals_[index];
  if (!EvaluateCost(index, true, recording, &s)) return Fail(s.error);
  const Argument* const begin = &function_.arguments_[r.first];
  const Argument* const end = begin + r.num_arguments;
  const Argument* const thetas_end = end + r.num_thetas;
  double* const gradients[] = {gx_, gy_, nullptr};
  const int num_rows = r.num_residuals;
  const double* const residuals = s.residuals.data();
  const double* const rho = s.rho;
  *value += scale * (0.5 * rho[0]);
  double probe = 0.0;
  if (recording) recording->Gradient(residuals, s.direction.data());
  double** jacobian = s.jacobian_pointers.data();
  for (const Argument* a = begin; a != end; ++a, ++jacobian) {
    if (!*jacobian) continue;
    double* const to = gradients[a->kind] + a->tangent_offset;
    const int size = a->size;
    const auto entry = [&](int j) {
      if (recording) return s.direction[a->ambient + j];
      double sum = 0.0;
      for (int i = 0; i < num_rows; ++i) sum += (*jacobian)[i * size + j] * residuals[i];
      return sum;
    };
    if (!a->has_manifold) {
      for (int j = 0; j < size; ++j) {
        const double out = rho[1] * entry(j);
        probe += 0.0 * out;
        to[j] += scale * out;
      }
      continue;
    }
    for (int j = 0; j < size; ++j) s.gradient[j] = entry(j);
    Project(PlusJacobian(*a), size, a->tangent_size, rho[1], s.gradient.data(), s.jv.data());
    for (int j = 0; j < a->tangent_size; ++j) {
      probe += 0.0 * s.jv[j];
      to[j] += scale * s.jv[j];
    }
  }
  for (const Argument* a = end; a != thetas_end; ++a) {
    if (a->kind != Argument::kX || !gx_) continue;
    const double* slope = &s.theta_value[a->ambient - r.ambient_size];
    Project(PlusJacobian(*a), a->size, a->tangent_size, 0.5, slope, s.jv.data());
    for (int j = 0; j < a->tangent_size; ++j) {
      probe += 0.0 * s.jv[j];
      gx_[a->tangent_offset + j] += scale * s.jv[j];
    }
  }
  probe_ += probe;
  return true;
}

bool LevelEvaluator::AddGradient(int index, double scale, double* value) {
  Scratch& s = scratch_[0];
  const LevelFunction::Residual& r = function_.residuals_[index];
  FindArguments(index, gx_ != nullptr, gy_ != nullptr, &s);
  if (!r.TapesGradient()) return AddGradient(index, nullptr, scale, value);
  internal::Recording recording(
      s.parameters.data(), r.cost->parameter_block_sizes(), r.num_residuals);
  return AddGradient(index, &recording, scale, value);
}

}  // namespace bilevel
