// The second derivatives of TermEvaluator.
#include <algorithm>
#include <cmath>
#include <limits>

#include "bilevel/program/internal/term_evaluator.h"

namespace bilevel {
// The direction in ambient coordinates. Whether some manifold on the way is curved.
bool TermEvaluator::LiftDirection(const Term& t) {
  bool curved = false;
  const Argument* const arguments = Arguments(t);
  for (int p = 0; p < t.num_arguments; ++p) {
    const Argument& a = arguments[p];
    direction_pointers_[p] = nullptr;
    if (a.kind != Argument::kY) continue;
    curved = curved || !function_.y().curvature(a.block).is_zero();
    const double* const v = e_.direction + a.tangent_offset;
    if (a.has_manifold) frames_.Lift(a, v, &direction_[a.ambient]);
    direction_pointers_[p] = a.has_manifold ? &direction_[a.ambient] : v;
  }
  return curved;
}

// As Targets, of the ambient gradient by y, all of it into scratch.
double** TermEvaluator::AmbientTargets(const Term& t, const Batch& own) {
  const Argument* const arguments = Arguments(t);
  const int zeroed = own.all() ? -1 : t.objective->block_of_terms();
  for (int p = 0; p < t.num_arguments; ++p) {
    const Argument& a = arguments[p];
    gradient_pointers_[p] = a.kind == Argument::kY ? &gradient_[a.ambient] : nullptr;
    if (p == zeroed && gradient_pointers_[p]) std::fill_n(gradient_pointers_[p], a.size, 0.0);
  }
  return gradient_pointers_.data();
}

bool TermEvaluator::EvaluateProduct(int index, const Batch& own, double* value) {
  const Term& t = function_.terms()[index];
  const Objective& objective = *t.objective;
  const Argument* const arguments = Arguments(t);
  FindArguments(t);
  const bool curved = LiftDirection(t);
  const bool both = e_.order == Evaluation::kGradientAndProduct;
  // A curved manifold needs its block's gradient as it is, ambient.
  double** gradients = nullptr;
  if (both) {
    gradients = Targets(t, own, nullptr, e_.gy, gradient_.data(), &gradient_pointers_);
  } else if (curved) {
    gradients = AmbientTargets(t, own);
  }
  double** const products = Targets(t, own, e_.xy_v, e_.yy_v, product_.data(), &pointers_);
  double* const product = product_.data();
  const double* const* const direction = direction_pointers_.data();
  const bool exact = objective.has_hessian_product();
  *value = 0.0;
  bool ok;
  if (exact && gradients) {
    ok = objective.EvaluateWithProduct(
        parameters_.data(), own, direction, value, gradients, products);
  } else {
    ok = !gradients || objective.Evaluate(parameters_.data(), own, value, gradients);
    ok = ok && (exact ? objective.HessianProduct(parameters_.data(), own, direction, products)
                      : DifferenceGradient(t, own, product));
  }
  if (!ok) return FailSample(index, own, kNoSecondDerivatives);
  for (int p = 0; !exact && p < t.num_arguments; ++p) {  // Into scratch, whatever the targets.
    const Argument& a = arguments[p];
    if (products[p] && products[p] != product + a.ambient) {
      std::copy_n(product + a.ambient, a.size, products[p]);
    }
  }
  AddTangent(t, product, e_.xy_v, e_.yy_v);
  if (both) AddTangent(t, gradient_.data(), nullptr, e_.gy);
  for (int p = 0; curved && p < t.num_arguments; ++p) {
    assembly_.AddAmbientGradient(1.0, arguments[p], gradient_.data() + arguments[p].ambient);
  }
  return true;
}

// The product with the direction by central differences of the gradient.
bool TermEvaluator::DifferenceGradient(const Term& t, const Batch& own, double* product) {
  const Argument* const arguments = Arguments(t);
  double norm = 0.0, size = 0.0;
  for (int p = 0; p < t.num_arguments; ++p) {
    const double* const parameter = e_.At(arguments[p]);
    const double* const direction = direction_pointers_[p];
    for (int j = 0; j < arguments[p].size; ++j) {
      if (direction) norm = std::max(norm, std::abs(direction[j]));
      size = std::max(size, std::abs(parameter[j]));
    }
  }
  std::fill_n(product, t.ambient_size, 0.0);
  if (norm == 0.0) return true;
  const double h = std::cbrt(std::numeric_limits<double>::epsilon()) * std::max(1.0, size) / norm;
  shifted_.resize(t.ambient_size);
  difference_.resize(t.ambient_size);
  difference_pointers_.resize(t.num_arguments);
  bool ok = true;
  for (const double sign : {1.0, -1.0}) {
    double* const gradient = sign > 0 ? product : difference_.data();
    std::fill_n(gradient, t.ambient_size, 0.0);
    for (int p = 0; p < t.num_arguments; ++p) {
      const Argument& a = arguments[p];
      const double* const parameter = e_.At(a);
      const double* const direction = direction_pointers_[p];
      for (int j = 0; j < a.size; ++j) {
        shifted_[a.ambient + j] = parameter[j] + (direction ? sign * h * direction[j] : 0.0);
      }
      parameters_[p] = &shifted_[a.ambient];
      difference_pointers_[p] = a.kind == Argument::kConstant ? nullptr : gradient + a.ambient;
    }
    double unused;
    ok = ok && t.objective->Evaluate(parameters_.data(), own, &unused, difference_pointers_.data());
  }
  FindArguments(t);
  for (int j = 0; j < t.ambient_size; ++j) product[j] = (product[j] - difference_[j]) / (2.0 * h);
  return ok;
}

// The memory of one term's Hessian.
BlockDerivatives TermEvaluator::HessianBlock(const Term& t) {
  const size_t size = BlockDerivatives::Size(Evaluation::kHessian, t.local_size, t.ambient_size);
  if (hessian_.size() < size) hessian_.resize(size);
  return BlockDerivatives(hessian_.data(), t.local_size, t.ambient_size);
}

// By one product a column.
bool TermEvaluator::EvaluateHessian(int index, double* value) {
  const Term& t = function_.terms()[index];
  const Objective& objective = *t.objective;
  const Argument* const arguments = Arguments(t);
  const auto project = [&](const double* from, double* to) {
    for (int p = 0; p < t.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (a.kind != Argument::kConstant) frames_.Project(a, 1.0, from + a.ambient, to + a.local);
    }
  };
  FindArguments(t);
  BlockDerivatives block = HessianBlock(t);
  std::fill_n(block.gradient(), t.local_size, 0.0);
  std::fill_n(block.ambient_gradient(), t.ambient_size, 0.0);
  const Batch all = Batch::All();
  double** const gradients = Pointers(t, block.ambient_gradient());
  if (!objective.Evaluate(parameters_.data(), all, value, gradients)) {
    return FailSample(index, all, "could not be evaluated");
  }
  project(block.ambient_gradient(), block.gradient());
  direction_pointers_.assign(t.num_arguments, nullptr);
  for (int q = 0; q < t.num_arguments; ++q) {
    const Argument& a = arguments[q];
    if (a.kind != Argument::kY) continue;
    const double* const plus = frames_.PlusJacobian(a);
    double* const direction = &direction_[a.ambient];
    direction_pointers_[q] = direction;
    for (int j = 0; j < a.tangent_size; ++j) {
      for (int i = 0; i < a.size; ++i) {
        direction[i] = plus ? plus[i * a.tangent_size + j] : i == j;
      }
      const bool ok = objective.has_hessian_product()
                          ? objective.HessianProduct(parameters_.data(),
                                                     all,
                                                     direction_pointers_.data(),
                                                     Pointers(t, product_.data()))
                          : DifferenceGradient(t, all, product_.data());
      if (!ok) return FailSample(index, all, kNoSecondDerivatives);
      project(product_.data(), block.hessian() + (a.local + j) * t.local_size);
    }
    direction_pointers_[q] = nullptr;
  }
  return true;
}

}  // namespace bilevel
