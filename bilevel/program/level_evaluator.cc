#include "bilevel/program/level_evaluator.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <utility>

#include "bilevel/base/internal/vector_passes.h"
#include "bilevel/program/internal/level_evaluator_scratch.h"

namespace bilevel {
namespace {

// Terms evaluated in parallel before they are summed in order.
constexpr int kWindow = 1024;

}  // namespace

// The user's memory holds the values while a callback's evaluation lasts.
struct LevelEvaluator::Guard {
  explicit Guard(LevelEvaluator* evaluator)
      : function_(evaluator->function_),
        saved_x_(evaluator->saved_x_),
        saved_y_(evaluator->saved_y_),
        active_(function_.callback_ != nullptr) {
    if (!active_) return;
    saved_x_.resize(function_.x().size());
    saved_y_.resize(function_.y().size());
    function_.x().ReadUser(saved_x_.data());
    function_.y().ReadUser(saved_y_.data());
    function_.x().WriteUser(evaluator->x_);
    function_.y().WriteUser(evaluator->y_);
  }
  ~Guard() {
    if (!active_) return;
    function_.x().WriteUser(saved_x_.data());
    function_.y().WriteUser(saved_y_.data());
  }
  const LevelFunction& function_;
  std::vector<double>&saved_x_, &saved_y_;
  bool active_;
};

LevelEvaluator::LevelEvaluator(const LevelFunction* function, ThreadPool* pool)
    : function_(*function), pool_(function->callback_ ? nullptr : pool) {
  scratch_.resize(pool_ ? pool_->num_threads() : 1);
  const size_t ambient = function_.max_ambient_, local = function_.max_local_;
  const size_t residuals = function_.max_residuals_;
  for (Scratch& s : scratch_) {
    s.parameters.resize(function_.max_arguments_);
    s.jacobian_pointers.resize(function_.max_arguments_);
    s.residuals.resize(residuals);
    s.jacobians.resize(residuals * ambient);
    s.stacked.resize(residuals * ambient);
    s.weights.resize(residuals);
    s.gradient.resize(ambient);
    s.direction.resize(ambient);
    s.product.resize(ambient);
    s.jv.resize(std::max(residuals, ambient));
    if (function_.has_sparse_hessian_) {
      s.hessian.resize(ambient * ambient);
      s.directions.resize(ambient * local);
      s.products.resize(ambient * local);
      s.half.resize(ambient * local);
      s.along.resize(residuals * local);
    }
    NumericHessianWorkspace& w = s.workspace;  // Whichever thread differences first.
    for (auto* v : {&w.point, &w.gradient, &w.direction, &w.difference, &w.estimate}) {
      v->reserve(ambient);
    }
    w.residuals.reserve(residuals);
    w.jacobian.reserve(residuals * ambient);
    w.point_blocks.reserve(function_.max_arguments_);
    w.jacobian_blocks.reserve(function_.max_arguments_);
    s.theta_value.resize(function_.max_theta_);
    s.theta_slope.resize(function_.max_theta_);
  }
  const auto lay_out =
      [](const Space& space, std::vector<double>* values, std::vector<int>* offsets) {
        int size = 0;
        for (const Space::Block& block : space.blocks()) {
          offsets->push_back(size);
          if (block.manifold) size += block.size * block.tangent_size;
        }
        values->resize(size);
      };
  lay_out(function_.x(), &plus_x_, &plus_offset_x_);
  lay_out(function_.y(), &plus_y_, &plus_offset_y_);
  stamp_x_.resize(function_.x().blocks().size(), 0);
  stamp_y_.resize(function_.y().blocks().size(), 0);
  ambient_gradient_ = Vector::Zero(function_.y().size());
  int widest = 0;
  for (const Space::Block& block : function_.y().blocks()) {
    if (block.manifold) widest = std::max(widest, block.tangent_size);
  }
  curvature_.resize(static_cast<size_t>(widest) * widest);
  touched_x_.reserve(stamp_x_.size());
  touched_y_.reserve(stamp_y_.size());
  if (!function_.terms_.empty()) term_gradient_.resize(ambient);
  // Over all terms, those of blocks no residual and no term before them has a part in.
  std::vector<char> seen_x(stamp_x_.size(), 0), seen_y(stamp_y_.size(), 0);
  is_first_in_all_.resize(function_.arguments_.size(), 0);
  for (size_t p = 0; p < function_.arguments_.size(); ++p) {
    const LevelFunction::Argument& a = function_.arguments_[p];
    if (a.kind == LevelFunction::Argument::kConstant) continue;
    char& seen = (a.kind == LevelFunction::Argument::kX ? seen_x : seen_y)[a.block];
    is_first_in_all_[p] = !seen;
    seen = 1;
  }
  is_first_ = is_first_in_all_;
  std::vector<int> uses(stamp_x_.size(), 0);
  for (const LevelFunction::Argument& a : function_.arguments_) {
    if (a.kind == LevelFunction::Argument::kX) ++uses[a.block];
  }
  for (const LevelFunction::Argument& a : function_.arguments_) {
    is_alone_.push_back(a.kind == LevelFunction::Argument::kX && !a.has_manifold &&
                        uses[a.block] == 1);
  }
}

LevelEvaluator::~LevelEvaluator() = default;

bool LevelEvaluator::Fail(const std::string& what) {
  error_ = what;
  return false;
}

std::string LevelEvaluator::CheckBatch(const Batch& batch, int num_terms) {
  if (batch.all() || num_terms == 0) return "";
  if (batch.sampling == Batch::kDistinct && batch.size > num_terms) {
    return "has " + std::to_string(num_terms) + " terms, too few to draw " +
           std::to_string(batch.size) + " without replacement";
  }
  if (batch.sampling == Batch::kBlock && batch.Term(0, num_terms) >= num_terms) {
    return "has no block " + std::to_string(batch.position) + " of " + std::to_string(batch.size) +
           " terms: they are " + std::to_string(num_terms);
  }
  if (batch.importance && batch.sampling != Batch::kIndependent &&
      batch.sampling != Batch::kBlock) {
    return "has sampling weights, which independent draws only can honour";
  }
  return "";
}

// Draws the residual blocks and registers the parameter blocks.
bool LevelEvaluator::Begin(const Batch& batch, bool derivatives) {
  if (batch.size < 0) return Fail("a batch cannot have " + std::to_string(batch.size) + " terms");
  if (!batch.all()) {
    Batch own = batch;
    own.importance = function_.importance_.get();
    const int n = function_.num_drawn();
    if (const std::string complaint = CheckBatch(own, n); !complaint.empty()) {
      return Fail(function_.name_ + " " + complaint);
    }
    drawn_.assign(function_.always_.begin(), function_.always_.end());
    drawn_weights_.assign(drawn_.size(), 1.0);
    for (int k = 0; n > 0 && k < own.Count(n); ++k) {
      drawn_.push_back(function_.drawn_[own.Term(k, n)]);
      drawn_weights_.push_back(own.Weight(k, n));
    }
  }
  if (!derivatives) return true;
  ++stamp_;
  touched_x_.clear();
  touched_y_.clear();
  touched_parts_.clear();
  if (batch.all()) {
    if (!function_.terms_.empty()) is_first_ = is_first_in_all_;
    for (int b = 0; b < static_cast<int>(stamp_x_.size()); ++b) {
      if (function_.UsesX(b) && !Touch(true, b)) return false;
    }
    for (int b = 0; b < static_cast<int>(stamp_y_.size()); ++b) {
      if (function_.UsesY(b) && !Touch(false, b)) return false;
    }
    return true;
  }
  const auto touch = [&](int p) {
    const LevelFunction::Argument& a = function_.arguments_[p];
    return a.kind == LevelFunction::Argument::kConstant ||
           Touch(a.kind == LevelFunction::Argument::kX, a.block);
  };
  for (const int i : drawn_) {
    const LevelFunction::Residual& r = function_.residuals_[i];
    for (int p = r.first; p < r.first + r.num_arguments + r.num_thetas; ++p) {
      if (!touch(p)) return false;
    }
  }
  for (const LevelFunction::Term& t : function_.terms_) {
    const int partly = PartlyTouched(t, batch);
    for (int p = t.first; p < t.first + t.num_arguments; ++p) {
      if (p == partly) {
        is_first_[p] = 1;
        continue;
      }
      const size_t before = touched_x_.size() + touched_y_.size();
      if (!touch(p)) return false;
      is_first_[p] = touched_x_.size() + touched_y_.size() > before;
    }
  }
  return true;
}

void LevelEvaluator::Reduce(
    Order order, int first, int num, int first_slot, const double* slot, double scale) {
  using Argument = LevelFunction::Argument;
  if (order == Order::kValue || order == Order::kRows) return;
  const Argument* arguments = &function_.arguments_[first];
  const double* out = slot + 1;
  int local = 0, ambient = 0;
  for (int p = 0; p < num; ++p) {
    const Argument& a = arguments[p];
    local += a.tangent_size;
    ambient += a.size;
    if (a.kind == Argument::kConstant) continue;
    double* to = a.kind == Argument::kX ? gx_ : gy_;
    if (!to) continue;
    to += a.tangent_offset;
    for (int j = 0; j < a.tangent_size; ++j) to[j] += scale * out[a.local + j];
  }
  if (order == Order::kGradient) return;
  const double* ambient_gradient = out + local;
  for (int p = 0; p < num; ++p) {
    const Argument& a = arguments[p];
    if (a.kind != Argument::kY || function_.y_->curvature(a.block).is_zero()) continue;
    double* to = ambient_gradient_.data() + a.offset;
    for (int j = 0; j < a.size; ++j) to[j] += scale * ambient_gradient[a.ambient + j];
  }
  if (order == Order::kProduct) return;
  if (order == Order::kBoth) {
    const double* own = ambient_gradient + ambient;
    for (int p = 0; p < num; ++p) {
      const Argument& a = arguments[p];
      if (a.kind != Argument::kY) continue;
      double* to = gradient_y_ + a.tangent_offset;
      for (int j = 0; j < a.tangent_size; ++j) to[j] += scale * own[a.local + j];
    }
    return;
  }
  const double* hessian = ambient_gradient + ambient;
  const int* slot_base = function_.slots_.data() + first_slot;
  function_.ForEachHessianBlock(first, num, [&](const Argument& p, const Argument& q, bool in_yy) {
    const int base = *slot_base++;
    SparseMatrix* matrix = in_yy ? yy_ : yx_;
    if (!matrix) return;
    const Space& columns = in_yy ? *function_.y_ : *function_.x_;
    const int first_column = columns.blocks()[q.block].tangent_offset;
    const bool triangle = in_yy && p.block == q.block;
    for (int j = 0; j < q.tangent_size; ++j) {
      // In the lower triangle each column of a block column is one entry shorter at the top.
      const int begin = triangle ? j : 0;
      double* to =
          matrix->valuePtr() + matrix->outerIndexPtr()[first_column + j] + base - (in_yy ? j : 0);
      for (int i = begin; i < p.tangent_size; ++i) {
        to[i] += hessian[(p.local + i) * local + q.local + j];
      }
    }
  });
}

bool LevelEvaluator::RunResiduals(Order order, const Batch& batch, double* value) {
  const int count = batch.all() ? function_.num_residual_blocks() : static_cast<int>(drawn_.size());
  if (count == 0) return true;
  const auto index = [&](int k) { return batch.all() ? k : drawn_[k]; };
  const auto scale = [&](int k) { return batch.all() ? 1.0 : drawn_weights_[k]; };
  size_t stride = 1;
  const size_t local = function_.max_local_, ambient = function_.max_ambient_;
  if (order != Order::kValue && order != Order::kRows) stride += local;
  if (order == Order::kProduct || order == Order::kBoth || order == Order::kHessian) {
    stride += ambient;
  }
  if (order == Order::kBoth) stride += local;
  if (order == Order::kHessian) stride += local * local;

  const auto threw = [&](int i, const char* what) {
    return "residual block " + std::to_string(i) + " of " + function_.name_ + " threw" + what;
  };
  const bool parallel = pool_ && pool_->num_threads() > 1 && count >= 64;
  const int window = parallel ? std::min(kWindow, count) : 1;
  if (slots_.size() < stride * window) slots_.resize(stride * window);
  slot_ok_.resize(kWindow);
  const auto evaluate = [&](int worker, int k, double* slot) {
    Scratch& s = scratch_[worker];
    try {
      return EvaluateResidual(order, index(k), &s, slot);
    } catch (const std::exception& e) {
      s.error = threw(index(k), ": ") + e.what();
    } catch (...) {
      s.error = threw(index(k), " something that is not a std::exception");
    }
    return false;
  };
  if (order == Order::kGradient && !parallel) {
    int k = 0;
    try {
      for (; k < count; ++k) {
        if (!AddGradient(index(k), scale(k), value)) return false;
      }
    } catch (const std::exception& e) {
      return Fail(threw(index(k), ": ") + e.what());
    } catch (...) {
      return Fail(threw(index(k), " something that is not a std::exception"));
    }
    return true;
  }
  for (int begin = 0; begin < count; begin += window) {
    const int size = std::min(window, count - begin);
    if (parallel) {
      const auto body = [&](int worker, int k) {
        slot_ok_[k] = evaluate(worker, begin + k, &slots_[k * stride]);
      };
      pool_->ParallelFor(size, 16, std::cref(body));  // A reference: nothing is allocated.
    }
    for (int k = 0; k < size; ++k) {
      double* slot = &slots_[k * stride];
      // A failed term is evaluated again here, so that the first one in order is the one named.
      if (!(parallel && slot_ok_[k]) && !evaluate(0, begin + k, slot)) {
        return Fail(scratch_[0].error);
      }
      *value += scale(begin + k) * slot[0];
      const LevelFunction::Residual& r = function_.residuals_[index(begin + k)];
      Reduce(order, r.first, r.num_arguments + r.num_thetas, r.first_slot, slot, scale(begin + k));
    }
  }
  return true;
}

bool LevelEvaluator::Run(
    Order order, const double* x, const double* y, const Batch& batch, double* value) {
  x_ = x;
  y_ = y;
  error_.clear();
  if (!sparse_) {
    if (gx_) std::fill_n(gx_, function_.x_->tangent_size(), 0.0);
    if (gy_) std::fill_n(gy_, function_.y_->tangent_size(), 0.0);
    if (gradient_y_) std::fill_n(gradient_y_, function_.y_->tangent_size(), 0.0);
  }
  *value = probe_ = 0.0;
  try {
    if (!Begin(batch, order != Order::kValue)) return false;
    const Guard guard(this);
    if (function_.callback_) {
      function_.callback_->PrepareForEvaluation(order != Order::kValue, true);
    }
    if (!RunResiduals(order, batch, value)) return false;
    if (order != Order::kRows && !RunTerms(order, batch, value)) return false;
    const bool curved = order == Order::kProduct || order == Order::kBoth ||
                        (order == Order::kHessian && kind_ == HessianKind::kExact);
    if (curved && !FinishCurvature(order)) return false;
  } catch (const std::exception& e) {
    return Fail("evaluating " + function_.name_ + " threw: " + e.what());
  } catch (...) {
    return Fail("evaluating " + function_.name_ + " threw something that is not a std::exception");
  }
  const bool probed =
      order == Order::kGradient && function_.terms_.empty() && !(pool_ && pool_->num_threads() > 1);
  if (probed && probe_ == 0.0 && std::isfinite(*value)) return true;
  if (!std::isfinite(*value)) return Fail("the value of " + function_.name_ + " is not finite");
  if (order == Order::kValue) return true;
  for (const bool is_x : {true, false}) {
    const Space& space = is_x ? *function_.x_ : *function_.y_;
    for (const double* v : {is_x ? gx_ : gy_, is_x ? nullptr : gradient_y_}) {
      if (!v) continue;
      for (const int b : is_x ? touched_x_ : touched_y_) {
        const Space::Block& block = space.blocks()[b];
        if (!AllFinite(v + block.tangent_offset, block.tangent_size)) {
          return FailDerivative(batch, is_x, b);
        }
      }
      for (const SparseVector::Range& r : touched_parts_) {
        if (is_x && !AllFinite(v + r.begin, r.end - r.begin)) {
          return FailDerivative(batch, is_x, r.block);
        }
      }
    }
  }
  return true;
}

bool LevelEvaluator::Value(const double* x, const double* y, const Batch& batch, double* value) {
  gx_ = gy_ = gradient_y_ = nullptr;
  yy_ = yx_ = nullptr;
  return Run(Order::kValue, x, y, batch, value);
}

bool LevelEvaluator::Gradient(
    const double* x, const double* y, const Batch& batch, double* value, double* gx, double* gy) {
  gx_ = gx;
  gy_ = gy;
  gradient_y_ = nullptr;
  yy_ = yx_ = nullptr;
  double unused;
  return Run(Order::kGradient, x, y, batch, value ? value : &unused);
}

bool LevelEvaluator::HessianProduct(const double* x,
                                    const double* y,
                                    const Batch& batch,
                                    const double* v,
                                    double* yy_v,
                                    double* xy_v) {
  gx_ = xy_v;
  gy_ = yy_v;
  gradient_y_ = nullptr;
  yy_ = yx_ = nullptr;
  direction_ = v;
  double unused;
  return Run(Order::kProduct, x, y, batch, &unused);
}

bool LevelEvaluator::GradientAndProduct(const double* x,
                                        const double* y,
                                        const Batch& batch,
                                        const double* v,
                                        double* value,
                                        double* gy,
                                        double* yy_v,
                                        double* xy_v) {
  gx_ = xy_v;
  gy_ = yy_v;
  gradient_y_ = gy;
  yy_ = yx_ = nullptr;
  direction_ = v;
  double unused;
  return Run(Order::kBoth, x, y, batch, value ? value : &unused);
}

bool LevelEvaluator::Hessian(const double* x,
                             const double* y,
                             HessianKind kind,
                             double* value,
                             double* gy,
                             SparseMatrix* yy,
                             SparseMatrix* yx) {
  if (!function_.has_sparse_hessian_) {
    return Fail(function_.name_ + " has a general term too long for an assembled Hessian");
  }
  gx_ = gradient_y_ = nullptr;
  gy_ = gy;
  yy_ = yy;
  yx_ = yx;
  kind_ = kind;
  for (SparseMatrix* matrix : {yy, yx}) {
    if (matrix) std::fill_n(matrix->valuePtr(), matrix->nonZeros(), 0.0);
  }
  double unused;
  if (!Run(Order::kHessian, x, y, Batch::All(), value ? value : &unused)) return false;
  for (const SparseMatrix* matrix : {yy, yx}) {
    if (!matrix || ConstVectorMap(matrix->valuePtr(), matrix->nonZeros()).allFinite()) continue;
    for (int j = 0; j < matrix->cols(); ++j) {
      for (SparseMatrix::InnerIterator entry(*matrix, j); entry; ++entry) {
        if (std::isfinite(entry.value())) continue;
        const Space& columns = matrix == yy ? *function_.y_ : *function_.x_;
        return Fail("the second derivative of " + function_.name_ + " with respect to " +
                    function_.y_->BlockOf(static_cast<int>(entry.row())).name + " and " +
                    columns.BlockOf(j).name + " is not finite");
      }
    }
  }
  return true;
}

bool LevelEvaluator::Linearize(const double* x,
                               const double* y,
                               double* value,
                               Vector* r,
                               RowSparseMatrix* jx,
                               RowSparseMatrix* jy) {
  if (!function_.CanLinearize()) {
    return Fail(function_.name_ + " is not a sum of squares: it cannot be linearised");
  }
  const auto lay_out = [](const RowSparseMatrix& pattern, RowSparseMatrix* matrix) {
    if (matrix->rows() != pattern.rows() || matrix->cols() != pattern.cols() ||
        matrix->nonZeros() != pattern.nonZeros()) {
      *matrix = pattern;
    }
  };
  lay_out(function_.rows_x_, jx);
  lay_out(function_.rows_y_, jy);
  r->resize(function_.num_rows_);
  gx_ = gy_ = gradient_y_ = nullptr;
  yy_ = yx_ = nullptr;
  rows_r_ = r;
  rows_jx_ = jx;
  rows_jy_ = jy;
  double unused;
  return Run(Order::kRows, x, y, Batch::All(), value ? value : &unused);
}

}  // namespace bilevel
