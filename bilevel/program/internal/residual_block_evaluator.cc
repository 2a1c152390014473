#include "bilevel/program/internal/residual_block_evaluator.h"
#include "bilevel/base/internal/thrown.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <optional>

namespace bilevel {

ResidualBlockEvaluator::ResidualBlockEvaluator(const LevelFunction& function,
                                               const Evaluation& evaluation,
                                               const TangentFrames& frames)
    : function_(function), e_(evaluation), frames_(frames) {
  const LevelFunction::Largest& largest = function.largest();
  const size_t ambient = largest.ambient, local = largest.local, residuals = largest.residuals;
  parameters_.resize(largest.arguments);
  jacobian_pointers_.resize(largest.arguments);
  residuals_.resize(residuals);
  jacobians_.resize(residuals * ambient);
  stacked_.resize(residuals * ambient);
  weights_.resize(residuals);
  gradient_.resize(ambient);
  direction_.resize(ambient);
  product_.resize(ambient);
  jv_.resize(std::max(residuals, ambient));
  theta_value_.resize(largest.theta);
  theta_slope_.resize(largest.theta);
  if (function.has_sparse_hessian()) {
    hessian_.resize(ambient * ambient);
    directions_.resize(ambient * local);
    products_.resize(ambient * local);
    half_.resize(ambient * local);
    along_.resize(residuals * local);
  }
  NumericHessianWorkspace& w = workspace_;  // Whichever thread differences first.
  for (auto* v : {&w.point, &w.gradient, &w.direction, &w.difference, &w.estimate}) {
    v->reserve(ambient);
  }
  w.residuals.reserve(residuals);
  w.jacobian.reserve(residuals * ambient);
  w.point_blocks.reserve(largest.arguments);
  w.jacobian_blocks.reserve(largest.arguments);
}

bool ResidualBlockEvaluator::Fail(const Residual& r, const std::string& what) {
  const auto index = &r - function_.residuals().data();
  error_ = "residual block " + std::to_string(index) + " of " + function_.name() + " " + what;
  return false;
}

template <typename Body>
inline bool ResidualBlockEvaluator::Guarded(const Residual& r, Body body) {
  bool is_evaluated = false;
  const std::string thrown = Thrown([&] { is_evaluated = body(); });
  return thrown.empty() ? is_evaluated : Fail(r, thrown.substr(1));
}

// Where a residual block's parameters are, and where the Jacobians that are wanted go.
inline void ResidualBlockEvaluator::FindArguments(const Residual& r, bool want_x, bool want_y) {
  static_assert(Argument::kX == 0 && Argument::kY == 1 && Argument::kConstant == 2, "");
  const Argument* const begin = Arguments(r);
  const Argument* const end = begin + r.num_arguments;
  const Argument* const thetas_end = end + r.num_thetas;
  const double* const points[] = {e_.x, e_.y, nullptr};
  const bool wanted[] = {want_x, want_y, false};
  const double** parameter = parameters_.data();
  double** jacobian = jacobian_pointers_.data();
  for (const Argument* a = begin; a != thetas_end; ++a, ++parameter) {
    *parameter = a->kind == Argument::kConstant ? a->constant : points[a->kind] + a->offset;
    if (a >= end) continue;
    *jacobian++ = wanted[a->kind] ? &jacobians_[r.num_residuals * a->ambient] : nullptr;
  }
}

// Whether one recording is to give gradient, Hessian and products without a Jacobian.
bool ResidualBlockEvaluator::Tapes(const Residual& r) const {
  switch (e_.order) {
    case Evaluation::kGradient:
      return r.TapesGradient();
    case Evaluation::kProduct:
    case Evaluation::kGradientAndProduct:
      return r.taped;
    case Evaluation::kHessian:
      return r.taped && (e_.kind == HessianKind::kExact || e_.yx);
    default:
      return false;
  }
}

// Residuals, Jacobians (where wanted and not left to the recording) and the loss.
inline bool ResidualBlockEvaluator::EvaluateCost(const Residual& r,
                                                 internal::Recording* recording) {
  const bool derivatives = e_.order != Evaluation::kValue;
  const double* const residuals = residuals_.data();
  const bool evaluated = recording
                             ? r.taped->Record(recording)
                             : r.cost->Evaluate(parameters_.data(),
                                                residuals_.data(),
                                                derivatives ? jacobian_pointers_.data() : nullptr);
  if (!evaluated) {
    return Fail(r, "could not be evaluated: its cost function returned false");
  }
  if (recording) recording->Values(residuals_.data());
  double squared_norm = 0.0;
  for (int i = 0; i < r.num_residuals; ++i) squared_norm += residuals[i] * residuals[i];
  if (!std::isfinite(squared_norm)) return Fail(r, "has a residual that is not finite");
  rho_[0] = squared_norm;
  rho_[1] = 1.0;
  rho_[2] = 0.0;
  if (!r.loss) return true;
  if (r.learnable) {
    r.learnable->Evaluate(squared_norm,
                          parameters_.data() + r.num_arguments,
                          rho_,
                          derivatives ? theta_value_.data() : nullptr,
                          derivatives ? theta_slope_.data() : nullptr);
  } else {
    r.loss->Evaluate(squared_norm, rho_);
  }
  if (!std::isfinite(rho_[0]) || !std::isfinite(rho_[1])) {
    return Fail(r, "has a loss that is not finite");
  }
  return rho_[1] >= 0.0 || Fail(r, "has a loss with a negative slope");
}

bool ResidualBlockEvaluator::Evaluate(int index, BlockDerivatives* block) {
  const Residual& r = function_.residuals()[index];
  return Guarded(r, [&] {
    FindArguments(r, e_.wants_x(), true);
    if (!Tapes(r)) return EvaluateOrder(r, nullptr, block);
    internal::Recording recording(
        parameters_.data(), r.cost->parameter_block_sizes(), r.num_residuals);
    return EvaluateOrder(r, &recording, block);
  });
}

bool ResidualBlockEvaluator::EvaluateOrder(const Residual& r,
                                           internal::Recording* recording,
                                           BlockDerivatives* block) {
  if (!EvaluateCost(r, recording)) return false;
  *block->value() = 0.5 * rho_[0];
  switch (e_.order) {
    case Evaluation::kValue:
      return true;
    case Evaluation::kRows:
      WriteRows(r);
      return true;
    case Evaluation::kGradient:
      if (recording) {
        recording->Gradient(residuals_.data(), gradient_.data());
      } else {
        MultiplyJacobian(r);
      }
      ProjectGradient(r, block->gradient());
      return true;
    case Evaluation::kProduct:
    case Evaluation::kGradientAndProduct:
      return EvaluateProduct(r, recording, block);
    case Evaluation::kHessian:
      break;
  }
  return EvaluateHessian(r, recording, block);
}

// sqrt(rho') r and the rows of its Jacobians.
void ResidualBlockEvaluator::WriteRows(const Residual& r) {
  const Argument* const arguments = Arguments(r);
  const double root = std::sqrt(std::max(rho_[1], 0.0));
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
      for (int i = 0; i < r.num_residuals; ++i) {
        double* const row = matrix->valuePtr() + matrix->outerIndexPtr()[r.row + i];
        frames_.Project(a, root, jacobian_pointers_[p] + i * a.size, row + column);
      }
    }
  };
  if (e_.jx) write(Argument::kX, function_.x(), e_.jx);
  write(Argument::kY, function_.y(), e_.jy);
  for (int i = 0; i < r.num_residuals; ++i) (*e_.r)[r.row + i] = root * residuals_[i];
}

// J'r from the Jacobians.
void ResidualBlockEvaluator::MultiplyJacobian(const Residual& r) {
  const Argument* const arguments = Arguments(r);
  const double* const residuals = residuals_.data();
  double* const gradient = gradient_.data();
  for (int p = 0; p < r.num_arguments; ++p) {
    const Argument& a = arguments[p];
    const double* const jacobian = jacobian_pointers_[p];
    for (int j = 0; j < a.size; ++j) gradient[a.ambient + j] = 0.0;
    if (!jacobian) continue;
    for (int i = 0; i < r.num_residuals; ++i) {
      for (int j = 0; j < a.size; ++j) {
        gradient[a.ambient + j] += jacobian[i * a.size + j] * residuals[i];
      }
    }
  }
}

// out, by the block's variables, = scale times derivatives by the loss's parameters.
void ResidualBlockEvaluator::ProjectThetas(const Residual& r,
                                           double scale,
                                           const double* by_theta,
                                           double* out) const {
  const Argument* const end = Arguments(r) + r.num_arguments;
  for (const Argument* a = end; a != end + r.num_thetas; ++a) {
    if (a->kind != Argument::kX) continue;
    frames_.Project(*a, scale, by_theta + (a->ambient - r.ambient_size), out + a->local);
  }
}

// The gradient from J'r.
void ResidualBlockEvaluator::ProjectGradient(const Residual& r, double* out) const {
  const Argument* const arguments = Arguments(r);
  for (const Argument* a = arguments; a != arguments + r.num_arguments; ++a) {
    if (a->kind == Argument::kConstant) continue;
    frames_.Project(*a, rho_[1], gradient_.data() + a->ambient, out + a->local);
  }
  ProjectThetas(r, 0.5, theta_value_.data(), out);
}

inline bool ResidualBlockEvaluator::AddGradient(
    const Residual& r, internal::Recording* recording, double scale, double* value, double* probe) {
  if (!EvaluateCost(r, recording)) return false;
  const Argument* const begin = Arguments(r);
  const Argument* const end = begin + r.num_arguments;
  const Argument* const thetas_end = end + r.num_thetas;
  double* const gradients[] = {e_.gx, e_.gy, nullptr};
  const int num_rows = r.num_residuals;
  const double* const residuals = residuals_.data();
  const double* const rho = rho_;
  *value += scale * (0.5 * rho[0]);
  double own_probe = 0.0;
  if (recording) recording->Gradient(residuals, direction_.data());
  double** jacobian = jacobian_pointers_.data();
  for (const Argument* a = begin; a != end; ++a, ++jacobian) {
    if (!*jacobian) continue;
    double* const to = gradients[a->kind] + a->tangent_offset;
    const int size = a->size;
    const auto entry = [&](int j) {
      if (recording) return direction_[a->ambient + j];
      double sum = 0.0;
      for (int i = 0; i < num_rows; ++i) sum += (*jacobian)[i * size + j] * residuals[i];
      return sum;
    };
    if (!a->has_manifold) {
      for (int j = 0; j < size; ++j) {
        const double out = rho[1] * entry(j);
        own_probe += 0.0 * out;
        to[j] += scale * out;
      }
      continue;
    }
    for (int j = 0; j < size; ++j) gradient_[j] = entry(j);
    frames_.Project(*a, rho[1], gradient_.data(), jv_.data());
    for (int j = 0; j < a->tangent_size; ++j) {
      own_probe += 0.0 * jv_[j];
      to[j] += scale * jv_[j];
    }
  }
  for (const Argument* a = end; a != thetas_end; ++a) {
    if (a->kind != Argument::kX || !e_.gx) continue;
    frames_.Project(*a, 0.5, &theta_value_[a->ambient - r.ambient_size], jv_.data());
    for (int j = 0; j < a->tangent_size; ++j) {
      own_probe += 0.0 * jv_[j];
      e_.gx[a->tangent_offset + j] += scale * jv_[j];
    }
  }
  *probe += own_probe;
  return true;
}

bool ResidualBlockEvaluator::AddGradient(int index, double scale, double* value, double* probe) {
  const Residual& r = function_.residuals()[index];
  return Guarded(r, [&] {
    FindArguments(r, e_.gx != nullptr, e_.gy != nullptr);
    if (!r.TapesGradient()) return AddGradient(r, nullptr, scale, value, probe);
    internal::Recording recording(
        parameters_.data(), r.cost->parameter_block_sizes(), r.num_residuals);
    return AddGradient(r, &recording, scale, value, probe);
  });
}

}  // namespace bilevel
