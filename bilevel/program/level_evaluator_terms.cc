#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "bilevel/base/internal/vector_passes.h"
#include "bilevel/program/internal/level_evaluator_scratch.h"

namespace bilevel {

const double* LevelEvaluator::Value(const LevelFunction::Argument& a) const {
  return a.kind == LevelFunction::Argument::kX   ? x_ + a.offset
         : a.kind == LevelFunction::Argument::kY ? y_ + a.offset
                                                 : a.constant;
}

// The argument of which a minibatch touches some coordinates only, where it can be left at that:
// one that is read and written nowhere else. -1: none.
int LevelEvaluator::PartlyTouched(const LevelFunction::Term& t, const Batch& batch) const {
  const int own = sparse_ && !batch.all() ? t.objective->block_of_terms() : -1;
  return own >= 0 && is_alone_[t.first + own] ? t.first + own : -1;
}

// Where a general term writes its derivative by argument p: straight into the result where nothing
// else has been added there, else into scratch, for AddTangent.
double* LevelEvaluator::Target(int p, double* out_x, double* out_y, double* scratch) const {
  const LevelFunction::Argument& a = function_.arguments_[p];
  if (a.kind == LevelFunction::Argument::kConstant) return nullptr;
  double* const out = a.kind == LevelFunction::Argument::kX ? out_x : out_y;
  if (!out) return nullptr;
  return is_first_[p] && !a.has_manifold ? out + a.tangent_offset : scratch + a.ambient;
}

void LevelEvaluator::AddTangent(const LevelFunction::Term& t,
                                const double* scratch,
                                double* out_x,
                                double* out_y) {
  for (int p = t.first; p < t.first + t.num_arguments; ++p) {
    const LevelFunction::Argument& a = function_.arguments_[p];
    double* const out = a.kind == LevelFunction::Argument::kX ? out_x : out_y;
    if (a.kind == LevelFunction::Argument::kConstant || !out) continue;
    const double* const plus = PlusJacobian(a);
    const double* const from = scratch + a.ambient;
    double* const to = out + a.tangent_offset;
    if (!plus) {
      if (is_first_[p]) continue;
      AddScaled(1.0, from, a.size, to);
      continue;
    }
    for (int j = 0; j < a.tangent_size; ++j) {
      double sum = 0.0;
      for (int i = 0; i < a.size; ++i) sum += plus[i * a.tangent_size + j] * from[i];
      to[j] += sum;
    }
  }
}

bool LevelEvaluator::EvaluateTerm(Order order, int index, const Batch& batch, double* value) {
  using Argument = LevelFunction::Argument;
  const LevelFunction::Term& t = function_.terms_[index];
  const Argument* arguments = &function_.arguments_[t.first];
  Scratch& s = scratch_[0];
  for (int p = 0; p < t.num_arguments; ++p) s.parameters[p] = Value(arguments[p]);
  const int zeroed = batch.all() ? -1 : t.objective->block_of_terms();
  const auto targets = [&](double* out_x, double* out_y, double* scratch) {
    for (int p = 0; p < t.num_arguments; ++p) {
      s.jacobian_pointers[p] = Target(t.first + p, out_x, out_y, scratch);
      if (p == zeroed && s.jacobian_pointers[p] == scratch + arguments[p].ambient) {
        std::fill_n(s.jacobian_pointers[p], arguments[p].size, 0.0);
      }
    }
    return s.jacobian_pointers.data();
  };
  if (order == Order::kValue || order == Order::kGradient) {
    double* scratch = s.gradient.data();
    double** gradients = order == Order::kValue ? nullptr : targets(gx_, gy_, scratch);
    if (!t.objective->Evaluate(s.parameters.data(), batch, value, gradients)) {
      return FailTerm(index, batch, "could not be evaluated");
    }
    if (gradients) AddTangent(t, scratch, gx_, gy_);
    return true;
  }
  if (order == Order::kHessian) return FillTermHessian(index, value);

  // Product, or both. The manifolds' curvature needs the ambient gradient.
  bool curved = false;
  double* direction = s.direction.data();
  term_direction_.resize(t.num_arguments);
  for (int p = 0; p < t.num_arguments; ++p) {
    const Argument& a = arguments[p];
    term_direction_[p] = nullptr;
    if (a.kind != Argument::kY) continue;
    curved = curved || !function_.y_->curvature(a.block).is_zero();
    const double* v = direction_ + a.tangent_offset;
    const double* plus = PlusJacobian(a);
    if (plus) Lift(plus, a.size, a.tangent_size, v, direction + a.ambient);
    term_direction_[p] = plus ? direction + a.ambient : v;
  }
  const bool both = order == Order::kBoth;
  double* gradient = both || curved ? term_gradient_.data() : nullptr;
  double* product = s.gradient.data();
  *value = 0.0;
  term_pointers_.resize(t.num_arguments);
  for (int p = 0; gradient && p < t.num_arguments; ++p) {
    const bool wanted = arguments[p].kind == Argument::kY;
    // A curved block's gradient is needed as it is, ambient.
    term_pointers_[p] = !wanted ? nullptr
                        : both  ? Target(t.first + p, nullptr, gradient_y_, gradient)
                                : gradient + arguments[p].ambient;
    if (p == zeroed && term_pointers_[p] == gradient + arguments[p].ambient) {
      std::fill_n(term_pointers_[p], arguments[p].size, 0.0);
    }
  }
  double** products = targets(gx_, gy_, product);
  const bool exact = t.objective->has_hessian_product();
  bool ok;
  if (exact && gradient) {
    ok = t.objective->EvaluateWithProduct(
        s.parameters.data(), batch, term_direction_.data(), value, term_pointers_.data(), products);
  } else {
    ok = !gradient ||
         t.objective->Evaluate(s.parameters.data(), batch, value, term_pointers_.data());
    ok = ok && (exact ? t.objective->HessianProduct(
                            s.parameters.data(), batch, term_direction_.data(), products)
                      : DifferenceTerm(t, batch, product));
  }
  if (!ok) return FailTerm(index, batch, "has second derivatives that could not be evaluated");
  if (!exact) {  // Into scratch, whatever the targets.
    for (int p = 0; p < t.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (s.jacobian_pointers[p] && s.jacobian_pointers[p] != product + a.ambient) {
        std::copy_n(product + a.ambient, a.size, s.jacobian_pointers[p]);
      }
    }
  }
  AddTangent(t, product, gx_, gy_);
  if (both) AddTangent(t, gradient, nullptr, gradient_y_);
  for (int p = 0; curved && p < t.num_arguments; ++p) {
    const Argument& a = arguments[p];
    if (a.kind != Argument::kY || function_.y_->curvature(a.block).is_zero()) continue;
    double* to = ambient_gradient_.data() + a.offset;
    for (int j = 0; j < a.size; ++j) to[j] += gradient[a.ambient + j];
  }
  return true;
}

// The product with term_direction_ by central differences of the gradient, over `to`.
bool LevelEvaluator::DifferenceTerm(const LevelFunction::Term& t, const Batch& batch, double* to) {
  using Argument = LevelFunction::Argument;
  const Argument* arguments = &function_.arguments_[t.first];
  Scratch& s = scratch_[0];
  double norm = 0.0, size = 0.0;
  for (int p = 0; p < t.num_arguments; ++p) {
    const double* parameter = Value(arguments[p]);
    for (int j = 0; j < arguments[p].size; ++j) {
      if (term_direction_[p]) norm = std::max(norm, std::abs(term_direction_[p][j]));
      size = std::max(size, std::abs(parameter[j]));
    }
  }
  std::fill_n(to, t.ambient_size, 0.0);
  if (norm == 0.0) return true;
  const double h = std::cbrt(std::numeric_limits<double>::epsilon()) * std::max(1.0, size) / norm;
  shifted_.resize(t.ambient_size);
  difference_.resize(t.ambient_size);
  difference_pointers_.resize(t.num_arguments);
  bool ok = true;
  for (const double sign : {1.0, -1.0}) {
    double* gradient = sign > 0 ? to : difference_.data();
    std::fill_n(gradient, t.ambient_size, 0.0);
    for (int p = 0; p < t.num_arguments; ++p) {
      const Argument& a = arguments[p];
      const double* parameter = Value(a);
      for (int j = 0; j < a.size; ++j) {
        shifted_[a.ambient + j] =
            parameter[j] + (term_direction_[p] ? sign * h * term_direction_[p][j] : 0.0);
      }
      s.parameters[p] = &shifted_[a.ambient];
      difference_pointers_[p] = a.kind == Argument::kConstant ? nullptr : gradient + a.ambient;
    }
    double unused;
    ok = ok &&
         t.objective->Evaluate(s.parameters.data(), batch, &unused, difference_pointers_.data());
  }
  for (int p = 0; p < t.num_arguments; ++p) s.parameters[p] = Value(arguments[p]);
  for (int j = 0; j < t.ambient_size; ++j) to[j] = (to[j] - difference_[j]) / (2.0 * h);
  return ok;
}

// As FillHessian, by one product a column.
bool LevelEvaluator::FillTermHessian(int index, double* value) {
  using Argument = LevelFunction::Argument;
  const LevelFunction::Term& t = function_.terms_[index];
  const Argument* arguments = &function_.arguments_[t.first];
  Scratch& s = scratch_[0];
  double* out = slots_.data() + 1;
  double* ambient_gradient = out + t.local_size;
  std::fill_n(out, t.local_size + t.ambient_size, 0.0);
  const auto project = [&](const double* from, double* to) {
    for (int p = 0; p < t.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (a.kind == Argument::kConstant) continue;
      Project(PlusJacobian(a), a.size, a.tangent_size, 1.0, from + a.ambient, to + a.local);
    }
  };
  term_direction_.assign(t.num_arguments, nullptr);
  const auto pointers = [&](double* to) {
    for (int p = 0; p < t.num_arguments; ++p) {
      const Argument& a = arguments[p];
      s.jacobian_pointers[p] = a.kind == Argument::kConstant ? nullptr : to + a.ambient;
    }
    return s.jacobian_pointers.data();
  };
  if (!t.objective->Evaluate(
          s.parameters.data(), Batch::All(), value, pointers(ambient_gradient))) {
    return FailTerm(index, Batch::All(), "could not be evaluated");
  }
  project(ambient_gradient, out);
  MatrixMap to(ambient_gradient + t.ambient_size, t.local_size, t.local_size);
  term_column_.resize(t.local_size);
  double* direction = s.direction.data();
  double* product = s.gradient.data();
  for (int q = 0; q < t.num_arguments; ++q) {
    const Argument& a = arguments[q];
    if (a.kind != Argument::kY) continue;
    term_direction_[q] = direction + a.ambient;
    for (int j = 0; j < a.tangent_size; ++j) {
      const double* plus = PlusJacobian(a);
      for (int i = 0; i < a.size; ++i) {
        direction[a.ambient + i] = plus ? plus[i * a.tangent_size + j] : i == j;
      }
      const bool ok =
          t.objective->has_hessian_product()
              ? t.objective->HessianProduct(
                    s.parameters.data(), Batch::All(), term_direction_.data(), pointers(product))
              : DifferenceTerm(t, Batch::All(), product);
      if (!ok) {
        return FailTerm(index, Batch::All(), "has second derivatives that could not be evaluated");
      }
      project(product, term_column_.data());
      to.row(a.local + j) = term_column_;
    }
    term_direction_[q] = nullptr;
  }
  return true;
}

// Names the sample at fault, where each can be evaluated by itself.
bool LevelEvaluator::FailTerm(int index, const Batch& batch, const char* what) {
  const LevelFunction::Term& t = function_.terms_[index];
  const int n = t.objective->num_terms();
  std::string sample;
  if (n == Objective::kStream) {
    sample = " (batch " + std::to_string(batch.position) + " of " + std::to_string(batch.size) +
             " samples of its stream)";
  }
  Scratch& s = scratch_[0];
  for (int p = 0; p < t.num_arguments; ++p) {
    const LevelFunction::Argument& a = function_.arguments_[t.first + p];
    s.parameters[p] = Value(a);
    s.jacobian_pointers[p] =
        a.kind == LevelFunction::Argument::kConstant ? nullptr : s.gradient.data() + a.ambient;
  }
  for (int k = 0; n > 1 && sample.empty() && k < batch.Count(n); ++k) {
    const int term = batch.Term(k, n);
    double value = 0.0;
    std::fill_n(s.gradient.data(), t.ambient_size, 0.0);
    try {
      if (t.objective->Evaluate(
              s.parameters.data(), Batch::One(term), &value, s.jacobian_pointers.data()) &&
          std::isfinite(value) && ConstVectorMap(s.gradient.data(), t.ambient_size).allFinite()) {
        continue;
      }
    } catch (...) {  // It may not be made for one sample, and did not throw for all of them.
      break;
    }
    sample = " (sample " + std::to_string(term) + ")";
  }
  return Fail("general term " + std::to_string(index) + " of " + function_.name_ + " " + what +
              sample);
}

bool LevelEvaluator::RunTerms(Order order, const Batch& batch, double* value) {
  for (int i = 0; i < function_.num_terms(); ++i) {
    const LevelFunction::Term& t = function_.terms_[i];
    if (order == Order::kHessian) {
      const size_t local = t.local_size, size = 1 + local + t.ambient_size + local * local;
      if (slots_.size() < size) slots_.resize(size);
    }
    // A single function is a part of every batch; a sum draws its own samples.
    const int n = t.objective->num_terms();
    Batch own = n == 1 ? Batch::All() : batch;
    own.seed = Mix(batch.seed + static_cast<uint64_t>(i));
    own.importance = t.objective->importance();
    const auto fail = [&](const std::string& what) {
      return Fail("general term " + std::to_string(i) + " of " + function_.name_ + " " + what);
    };
    if (own.all() && n == Objective::kStream) {
      return fail("is a stream: it can be evaluated over minibatches only");
    }
    if (const std::string complaint = CheckBatch(own, n); !complaint.empty()) {
      return fail(complaint);
    }
    double own_value = 0.0;
    try {
      if (!EvaluateTerm(order, i, own, &own_value)) return false;
    } catch (const std::exception& e) {
      return fail(std::string("threw: ") + e.what());
    } catch (...) {
      return fail("threw something that is not a std::exception");
    }
    if (const int p = order == Order::kValue ? -1 : PartlyTouched(t, batch); p >= 0) {
      const LevelFunction::Argument& a = function_.arguments_[p];
      const int first = a.tangent_offset + own.First(n), count = own.Count(n);
      if (own.is_block()) touched_parts_.push_back({a.block, first, first + count});
      for (int k = 0; !own.is_block() && k < count; ++k) {
        const int at = a.tangent_offset + own.Term(k, n);
        touched_parts_.push_back({a.block, at, at + 1});
      }
    }
    if (!std::isfinite(own_value)) return FailTerm(i, own, "has a value that is not finite");
    *value += own_value;
    if (order == Order::kHessian) {
      Reduce(order, t.first, t.num_arguments, t.first_slot, slots_.data(), 1.0);
    }
  }
  return true;
}

// A derivative by this block is not finite: FailTerm for the first general term that is to blame.
bool LevelEvaluator::FailDerivative(const Batch& batch, bool is_x, int block) {
  const std::string what = "the derivative of " + function_.name_ + " with respect to " +
                           (is_x ? function_.x() : function_.y()).blocks()[block].name +
                           " is not finite";
  for (int i = 0; i < function_.num_terms(); ++i) {
    const LevelFunction::Term& t = function_.terms_[i];
    if (t.objective->num_terms() <= 1) continue;
    Batch own = batch;
    own.seed = Mix(batch.seed + static_cast<uint64_t>(i));
    own.importance = t.objective->importance();
    FailTerm(i, own, "has a derivative that is not finite");
    if (error_.find("(sample") != std::string::npos) return false;
  }
  return Fail(what);
}

}  // namespace bilevel
