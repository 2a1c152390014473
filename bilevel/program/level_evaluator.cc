#include "bilevel/program/level_evaluator.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/base/internal/vector_passes.h"
#include "bilevel/program/internal/assembly.h"
#include "bilevel/program/internal/block_derivatives.h"
#include "bilevel/program/internal/evaluation.h"
#include "bilevel/program/internal/point_in_user_memory.h"
#include "bilevel/program/internal/residual_block_evaluator.h"
#include "bilevel/program/internal/tangent_frames.h"
#include "bilevel/program/internal/term_evaluator.h"

namespace bilevel {
namespace {

// Residual blocks evaluated in parallel before they are summed in order.
constexpr int kWindow = 1024;
// Fewer of them are not worth the threads.
constexpr int kFewest = 64;

}  // namespace

LevelEvaluator::LevelEvaluator(const LevelFunction* function, ThreadPool* pool)
    : function_(*function),
      pool_(function->callback() ? nullptr : pool),
      evaluation_(std::make_unique<Evaluation>()),
      frames_(std::make_unique<TangentFrames>(function->x(), function->y())),
      assembly_(std::make_unique<Assembly>(*function, *evaluation_)),
      terms_(std::make_unique<TermEvaluator>(
          *function, *evaluation_, frames_.get(), assembly_.get())) {
  const int num_threads = pool_ ? pool_->num_threads() : 1;
  residual_blocks_.reserve(num_threads);
  for (int i = 0; i < num_threads; ++i) {
    residual_blocks_.emplace_back(*function, *evaluation_, *frames_);
  }
}

LevelEvaluator::~LevelEvaluator() = default;

const std::vector<int>& LevelEvaluator::touched_x() const { return frames_->touched_x(); }
const std::vector<int>& LevelEvaluator::touched_y() const { return frames_->touched_y(); }
const std::vector<SparseVector::Range>& LevelEvaluator::touched_parts_of_x() const {
  return terms_->touched_parts_of_x();
}

bool LevelEvaluator::Fail(const std::string& what) {
  error_ = what;
  return false;
}

bool LevelEvaluator::Draw(const Batch& batch) {
  if (batch.size < 0) return Fail("a batch cannot have " + std::to_string(batch.size) + " terms");
  if (batch.all()) return true;
  Batch own = batch;
  own.importance = function_.importance();
  const int n = function_.num_drawn();
  if (const std::string complaint = CheckDraw(own, n); !complaint.empty()) {
    return Fail(function_.name() + " " + complaint);
  }
  drawn_.assign(function_.always().begin(), function_.always().end());
  drawn_weights_.assign(drawn_.size(), 1.0);
  for (int k = 0; n > 0 && k < own.Count(n); ++k) {
    drawn_.push_back(function_.drawn()[own.Term(k, n)]);
    drawn_weights_.push_back(own.Weight(k, n));
  }
  return true;
}

// Registers the blocks that the evaluation depends on.
bool LevelEvaluator::Touch(const Batch& batch) {
  using Argument = LevelFunction::Argument;
  frames_->Begin(evaluation_->x, evaluation_->y);
  if (batch.all()) {
    const int num_x = static_cast<int>(function_.x().blocks().size());
    const int num_y = static_cast<int>(function_.y().blocks().size());
    for (int b = 0; b < num_x; ++b) {
      if (function_.UsesX(b) && !frames_->Touch(Argument::kX, b, &error_)) return false;
    }
    for (int b = 0; b < num_y; ++b) {
      if (function_.UsesY(b) && !frames_->Touch(Argument::kY, b, &error_)) return false;
    }
  } else {
    for (const int i : drawn_) {
      const LevelFunction::Residual& r = function_.residuals()[i];
      for (int p = r.first; p < r.first + r.num_arguments + r.num_thetas; ++p) {
        if (!frames_->Touch(function_.arguments()[p], &error_)) return false;
      }
    }
  }
  return terms_->Begin(batch) || Fail(terms_->error());
}

bool LevelEvaluator::SumResidualBlocks(const Batch& batch, double* value) {
  const Evaluation& e = *evaluation_;
  const int count = batch.all() ? function_.num_residual_blocks() : static_cast<int>(drawn_.size());
  const auto index = [&](int k) { return batch.all() ? k : drawn_[k]; };
  const auto weight = [&](int k) { return batch.all() ? 1.0 : drawn_weights_[k]; };
  const bool parallel = pool_ && pool_->num_threads() > 1 && count >= kFewest;
  ResidualBlockEvaluator& own = residual_blocks_[0];
  if (e.order == Evaluation::kGradient && !parallel) {
    for (int k = 0; k < count; ++k) {
      if (!own.AddGradient(index(k), weight(k), value, &probe_)) return Fail(own.error());
    }
    return true;
  }
  const LevelFunction::Largest& largest = function_.largest();
  const size_t stride = BlockDerivatives::Size(e.order, largest.local, largest.ambient);
  const int window = parallel ? std::min(kWindow, count) : 1;
  if (derivatives_.size() < stride * window) derivatives_.resize(stride * window);
  is_evaluated_.resize(kWindow);
  const auto derivatives = [&](int k, int in_window) {
    const LevelFunction::Residual& r = function_.residuals()[index(k)];
    return BlockDerivatives(
        &derivatives_[in_window * stride], r.local_size, r.ambient_size + r.theta_size);
  };
  for (int begin = 0; begin < count; begin += window) {
    const int size = std::min(window, count - begin);
    if (parallel) {
      const auto body = [&](int worker, int k) {
        BlockDerivatives block = derivatives(begin + k, k);
        is_evaluated_[k] = residual_blocks_[worker].Evaluate(index(begin + k), &block);
      };
      pool_->ParallelFor(size, 16, std::cref(body));  // A reference: nothing is allocated.
    }
    for (int k = 0; k < size; ++k) {
      const int i = index(begin + k);
      BlockDerivatives block = derivatives(begin + k, k);
      // A failed block is evaluated again here, so that the first one in order is the one named.
      if (!(parallel && is_evaluated_[k]) && !own.Evaluate(i, &block)) return Fail(own.error());
      *value += weight(begin + k) * *block.value();
      const LevelFunction::Residual& r = function_.residuals()[i];
      assembly_->Add(
          weight(begin + k), r.first, r.num_arguments + r.num_thetas, r.first_slot, &block);
    }
  }
  return true;
}

bool LevelEvaluator::SumTerms(const Batch& batch, double* value) {
  for (int i = 0; i < function_.num_terms(); ++i) {
    if (!terms_->Evaluate(i, batch, value)) return Fail(terms_->error());
  }
  return true;
}

bool LevelEvaluator::Run(const Evaluation& evaluation, const Batch& batch, double* value) {
  Evaluation& e = *evaluation_;
  e = evaluation;
  e.sparse = sparse_;
  error_.clear();
  for (double* v : {e.gx, e.xy_v}) {
    if (v && !sparse_) std::fill_n(v, function_.x().tangent_size(), 0.0);
  }
  for (double* v : {e.gy, e.yy_v}) {
    if (v && !sparse_) std::fill_n(v, function_.y().tangent_size(), 0.0);
  }
  double unused;
  if (!value) value = &unused;
  *value = probe_ = 0.0;
  bool is_summed = false;
  const std::string thrown = Thrown([&] { is_summed = Sum(batch, value); });
  if (!thrown.empty()) return Fail("evaluating " + function_.name() + thrown);
  return is_summed && CheckFinite(batch, *value);
}

// What Run has prepared.
bool LevelEvaluator::Sum(const Batch& batch, double* value) {
  const Evaluation& e = *evaluation_;
  const bool derivatives = e.order != Evaluation::kValue;
  const bool curved =
      e.has_products() || (e.order == Evaluation::kHessian && e.kind == HessianKind::kExact);
  if (!Draw(batch) || (derivatives && !Touch(batch))) return false;
  const PointInUserMemory point(function_, e, &saved_x_, &saved_y_);
  if (ceres::EvaluationCallback* callback = function_.callback()) {
    NameThrown([] { return std::string("its evaluation callback"); },
               [&] { callback->PrepareForEvaluation(derivatives, true); });
  }
  if (curved) assembly_->Begin(frames_->touched_y());
  if (!SumResidualBlocks(batch, value)) return false;
  if (e.order != Evaluation::kRows && !SumTerms(batch, value)) return false;
  return !curved || assembly_->AddCurvature(frames_->touched_y(), &error_);
}

bool LevelEvaluator::CheckFinite(const Batch& batch, double value) {
  const Evaluation& e = *evaluation_;
  if (!std::isfinite(value)) return Fail("the value of " + function_.name() + " is not finite");
  if (e.order == Evaluation::kValue) return true;
  // The serial sum of residual blocks has looked already.
  const bool probed = e.order == Evaluation::kGradient && function_.num_terms() == 0 &&
                      !(pool_ && pool_->num_threads() > 1);
  if (probed && probe_ == 0.0) return true;
  for (const double* v : {e.gx, e.xy_v}) {
    if (!v) continue;
    for (const int b : touched_x()) {
      const Space::Block& block = function_.x().blocks()[b];
      if (!AllFinite(v + block.tangent_offset, block.tangent_size)) {
        return FailDerivative(batch, block);
      }
    }
    for (const SparseVector::Range& r : touched_parts_of_x()) {
      if (!AllFinite(v + r.begin, r.end - r.begin)) {
        return FailDerivative(batch, function_.x().blocks()[r.block]);
      }
    }
  }
  for (const double* v : {e.yy_v, e.gy}) {
    if (!v) continue;
    for (const int b : touched_y()) {
      const Space::Block& block = function_.y().blocks()[b];
      if (!AllFinite(v + block.tangent_offset, block.tangent_size)) {
        return FailDerivative(batch, block);
      }
    }
  }
  return true;
}

// A derivative by this block is not finite: the first general term that is to blame is named.
bool LevelEvaluator::FailDerivative(const Batch& batch, const Space::Block& block) {
  for (int i = 0; i < function_.num_terms(); ++i) {
    if (terms_->BlameSample(i, batch, "has a derivative that is not finite")) {
      return Fail(terms_->error());
    }
  }
  return Fail("the derivative of " + function_.name() + " with respect to " + block.name +
              " is not finite");
}

bool LevelEvaluator::Value(const double* x, const double* y, const Batch& batch, double* value) {
  return Run({Evaluation::kValue, x, y}, batch, value);
}

bool LevelEvaluator::Gradient(
    const double* x, const double* y, const Batch& batch, double* value, double* gx, double* gy) {
  Evaluation e{Evaluation::kGradient, x, y};
  e.gx = gx;
  e.gy = gy;
  return Run(e, batch, value);
}

bool LevelEvaluator::HessianProduct(const double* x,
                                    const double* y,
                                    const Batch& batch,
                                    const double* v,
                                    double* yy_v,
                                    double* xy_v) {
  Evaluation e{Evaluation::kProduct, x, y, v};
  e.yy_v = yy_v;
  e.xy_v = xy_v;
  return Run(e, batch, nullptr);
}

bool LevelEvaluator::GradientAndProduct(const double* x,
                                        const double* y,
                                        const Batch& batch,
                                        const double* v,
                                        double* value,
                                        double* gy,
                                        double* yy_v,
                                        double* xy_v) {
  Evaluation e{Evaluation::kGradientAndProduct, x, y, v};
  e.gy = gy;
  e.yy_v = yy_v;
  e.xy_v = xy_v;
  return Run(e, batch, value);
}

bool LevelEvaluator::Hessian(const double* x,
                             const double* y,
                             HessianKind kind,
                             double* value,
                             double* gy,
                             SparseMatrix* yy,
                             SparseMatrix* yx) {
  if (!function_.has_sparse_hessian()) {
    return Fail(function_.name() + " has a general term too long for an assembled Hessian");
  }
  for (SparseMatrix* matrix : {yy, yx}) {
    if (matrix) std::fill_n(matrix->valuePtr(), matrix->nonZeros(), 0.0);
  }
  Evaluation e{Evaluation::kHessian, x, y};
  e.kind = kind;
  e.gy = gy;
  e.yy = yy;
  e.yx = yx;
  return Run(e, Batch::All(), value) && assembly_->CheckHessian(&error_);
}

bool LevelEvaluator::Linearize(const double* x,
                               const double* y,
                               double* value,
                               Vector* r,
                               RowSparseMatrix* jx,
                               RowSparseMatrix* jy) {
  if (!function_.CanLinearize()) {
    return Fail(function_.name() + " is not a sum of squares: it cannot be linearised");
  }
  function_.LayOutRows(LevelFunction::Argument::kX, jx);
  function_.LayOutRows(LevelFunction::Argument::kY, jy);
  r->resize(function_.num_residuals());
  Evaluation e{Evaluation::kRows, x, y};
  e.r = r;
  e.jx = jx;
  e.jy = jy;
  return Run(e, Batch::All(), value);
}

bool LevelEvaluator::JacobianInY(const double* x, const double* y, RowSparseMatrix* jy) {
  function_.LayOutRows(LevelFunction::Argument::kY, jy);
  Vector r(function_.num_residuals());
  Evaluation e{Evaluation::kRows, x, y};
  e.r = &r;
  e.jy = jy;
  double unused = 0.0;
  return Run(e, Batch::All(), &unused);
}

}  // namespace bilevel
