#include "bilevel/program/internal/term_evaluator.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/base/internal/vector_passes.h"

namespace bilevel {

TermEvaluator::TermEvaluator(const LevelFunction& function,
                             const Evaluation& evaluation,
                             TangentFrames* frames,
                             Assembly* assembly)
    : function_(function), e_(evaluation), frames_(*frames), assembly_(*assembly) {
  if (function.terms().empty()) return;
  size_t ambient = 0, num_arguments = 0;
  for (const Term& t : function.terms()) {
    ambient = std::max<size_t>(ambient, t.ambient_size);
    num_arguments = std::max<size_t>(num_arguments, t.num_arguments);
  }
  for (auto* v : {&gradient_, &product_, &direction_}) v->resize(ambient);
  for (auto* v : {&parameters_, &direction_pointers_}) v->resize(num_arguments);
  for (auto* v : {&pointers_, &gradient_pointers_}) v->resize(num_arguments);
  // Over all terms, those of blocks no residual and no term before them has a part in.
  const size_t num_x = function.x().blocks().size(), num_y = function.y().blocks().size();
  std::vector<int> uses_of_x(num_x, 0), uses_of_y(num_y, 0);
  for (const Argument& a : function.arguments()) {
    const bool constant = a.kind == Argument::kConstant;
    is_first_in_all_.push_back(!constant &&
                               (a.kind == Argument::kX ? uses_of_x : uses_of_y)[a.block]++ == 0);
  }
  is_first_ = is_first_in_all_;
  for (const Argument& a : function.arguments()) {
    is_alone_.push_back(a.kind == Argument::kX && !a.has_manifold && uses_of_x[a.block] == 1);
  }
}

// A single function is a part of every batch; a sum draws its own samples.
Batch TermEvaluator::Share(int index, const Batch& batch) const {
  const Objective& objective = *function_.terms()[index].objective;
  Batch own = objective.num_terms() == 1 ? Batch::All() : batch;
  own.seed = Mix(batch.seed + static_cast<uint64_t>(index));
  own.importance = objective.importance();
  return own;
}

// The argument of which a minibatch touches some coordinates only, where it can be left at that:
// one that is read and written nowhere else. -1: none.
int TermEvaluator::PartlyTouched(const Term& t, const Batch& batch) const {
  const int own = e_.sparse && !batch.all() ? t.objective->block_of_terms() : -1;
  return own >= 0 && is_alone_[t.first + own] ? t.first + own : -1;
}

bool TermEvaluator::Begin(const Batch& batch) {
  touched_parts_.clear();
  if (batch.all()) {
    is_first_ = is_first_in_all_;
    return true;
  }
  for (const Term& t : function_.terms()) {
    const int partly = PartlyTouched(t, batch);
    for (int p = t.first; p < t.first + t.num_arguments; ++p) {
      if (p == partly) {
        is_first_[p] = 1;
        continue;
      }
      const size_t before = frames_.touched_x().size() + frames_.touched_y().size();
      if (!frames_.Touch(function_.arguments()[p], &error_)) return false;
      is_first_[p] = frames_.touched_x().size() + frames_.touched_y().size() > before;
    }
  }
  return true;
}

void TermEvaluator::TouchParts(const Argument& a, const Batch& own, int num_terms) {
  const int count = own.Count(num_terms);
  if (own.is_block()) {
    const int first = a.tangent_offset + own.First(num_terms);
    touched_parts_.push_back({a.block, first, first + count});
    return;
  }
  for (int k = 0; k < count; ++k) {
    const int at = a.tangent_offset + own.Term(k, num_terms);
    touched_parts_.push_back({a.block, at, at + 1});
  }
}

bool TermEvaluator::Evaluate(int index, const Batch& batch, double* value) {
  const Term& t = function_.terms()[index];
  const Batch own = Share(index, batch);
  const int n = t.objective->num_terms();
  if (own.all() && n == Objective::kStream) {
    return Fail(index, "is a stream: it can be evaluated over minibatches only");
  }
  if (const std::string complaint = CheckDraw(own, n); !complaint.empty()) {
    return Fail(index, complaint);
  }
  double own_value = 0.0;
  bool is_evaluated = false;
  const std::string thrown = Thrown([&] { is_evaluated = EvaluateShare(index, own, &own_value); });
  if (!thrown.empty()) return Fail(index, thrown.substr(1));
  if (!is_evaluated) return false;
  if (e_.order != Evaluation::kValue) {
    const int partly = PartlyTouched(t, batch);
    if (partly >= 0) TouchParts(function_.arguments()[partly], own, n);
  }
  if (!std::isfinite(own_value)) return FailSample(index, own, "has a value that is not finite");
  *value += own_value;
  if (e_.order == Evaluation::kHessian) {
    BlockDerivatives block = HessianBlock(t);
    assembly_.Add(1.0, t.first, t.num_arguments, t.first_slot, &block);
  }
  return true;
}

bool TermEvaluator::EvaluateShare(int index, const Batch& own, double* value) {
  if (e_.order == Evaluation::kHessian) return EvaluateHessian(index, value);
  return e_.has_products() ? EvaluateProduct(index, own, value)
                           : EvaluateGradient(index, own, value);
}

void TermEvaluator::FindArguments(const Term& t) {
  const Argument* const arguments = Arguments(t);
  for (int p = 0; p < t.num_arguments; ++p) parameters_[p] = e_.At(arguments[p]);
}

// Where a term writes its derivative by argument p: straight into the result where nothing else has
// been added there, else into scratch, for AddTangent.
double* TermEvaluator::Target(int p, double* out_x, double* out_y, double* scratch) const {
  const Argument& a = function_.arguments()[p];
  if (a.kind == Argument::kConstant) return nullptr;
  double* const out = a.kind == Argument::kX ? out_x : out_y;
  if (!out) return nullptr;
  return is_first_[p] && !a.has_manifold ? out + a.tangent_offset : scratch + a.ambient;
}

// That of all arguments. Over a minibatch Objective::block_of_terms finds zeros.
double** TermEvaluator::Targets(const Term& t,
                                const Batch& own,
                                double* out_x,
                                double* out_y,
                                double* scratch,
                                std::vector<double*>* targets) const {
  const int zeroed = own.all() ? -1 : t.objective->block_of_terms();
  for (int p = 0; p < t.num_arguments; ++p) {
    const Argument& a = function_.arguments()[t.first + p];
    double*& target = (*targets)[p] = Target(t.first + p, out_x, out_y, scratch);
    if (p == zeroed && target == scratch + a.ambient) std::fill_n(target, a.size, 0.0);
  }
  return targets->data();
}

// Those for derivatives by all variables, into one stretch of memory.
double** TermEvaluator::Pointers(const Term& t, double* to) {
  const Argument* const arguments = Arguments(t);
  for (int p = 0; p < t.num_arguments; ++p) {
    const Argument& a = arguments[p];
    pointers_[p] = a.kind == Argument::kConstant ? nullptr : to + a.ambient;
  }
  return pointers_.data();
}

// Adds what Target put into scratch.
void TermEvaluator::AddTangent(const Term& t,
                               const double* scratch,
                               double* out_x,
                               double* out_y) const {
  for (int p = t.first; p < t.first + t.num_arguments; ++p) {
    const Argument& a = function_.arguments()[p];
    double* const out = a.kind == Argument::kX ? out_x : out_y;
    if (a.kind == Argument::kConstant || !out) continue;
    const double* const plus = frames_.PlusJacobian(a);
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

bool TermEvaluator::EvaluateGradient(int index, const Batch& own, double* value) {
  const Term& t = function_.terms()[index];
  FindArguments(t);
  double** gradients = nullptr;
  if (e_.order == Evaluation::kGradient) {
    gradients = Targets(t, own, e_.gx, e_.gy, gradient_.data(), &pointers_);
  }
  if (!t.objective->Evaluate(parameters_.data(), own, value, gradients)) {
    return FailSample(index, own, "could not be evaluated");
  }
  if (gradients) AddTangent(t, gradient_.data(), e_.gx, e_.gy);
  return true;
}

bool TermEvaluator::Fail(int index, const std::string& what) {
  error_ = "general term " + std::to_string(index) + " of " + function_.name() + " " + what;
  return false;
}

// The first sample of the batch that is not finite or fails, where each can be evaluated by itself.
bool TermEvaluator::FindSample(const Term& t, const Batch& own, int* sample) {
  const int n = t.objective->num_terms();
  if (n <= 1) return false;
  FindArguments(t);
  double** const gradients = Pointers(t, gradient_.data());
  for (int k = 0; k < own.Count(n); ++k) {
    *sample = own.Term(k, n);
    double value = 0.0;
    std::fill_n(gradient_.data(), t.ambient_size, 0.0);
    try {
      if (!t.objective->Evaluate(parameters_.data(), Batch::One(*sample), &value, gradients) ||
          !std::isfinite(value) || !AllFinite(gradient_.data(), t.ambient_size)) {
        return true;
      }
    } catch (...) {  // It may not be made for one sample, and did not throw for all of them.
      return false;
    }
  }
  return false;
}

// Fails naming the sample at fault, or the batch of a stream.
bool TermEvaluator::FailSample(int index, const Batch& own, const char* what) {
  const Term& t = function_.terms()[index];
  std::string which;
  int sample;
  if (t.objective->num_terms() == Objective::kStream) {
    which = " (batch " + std::to_string(own.position) + " of " + std::to_string(own.size) +
            " samples of its stream)";
  } else if (FindSample(t, own, &sample)) {
    which = " (sample " + std::to_string(sample) + ")";
  }
  return Fail(index, what + which);
}

bool TermEvaluator::BlameSample(int index, const Batch& batch, const char* what) {
  int sample;
  if (!FindSample(function_.terms()[index], Share(index, batch), &sample)) return false;
  Fail(index, what + (" (sample " + std::to_string(sample) + ")"));
  return true;
}

}  // namespace bilevel
