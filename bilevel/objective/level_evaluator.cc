#include "bilevel/objective/level_evaluator.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <limits>
#include <utility>

#include "bilevel/derivatives/numeric_hessian.h"

namespace bilevel {
namespace {

// Terms evaluated in parallel before they are summed in order.
constexpr int kWindow = 1024;

using MatrixMap =
    Eigen::Map<Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using ConstMatrixMap =
    Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using ConstVectorMap = Eigen::Map<const Vector>;

}  // namespace

struct LevelEvaluator::Scratch {
  std::vector<const double*> parameters;
  std::vector<double*> jacobian_pointers;
  std::vector<double> residuals, jacobians, stacked, weights, gradient, direction, jv, hessian,
      half, theta_value, theta_slope;
  NumericHessianWorkspace workspace;
  std::string error;
};

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
    s.jv.resize(std::max(residuals, ambient));
    s.hessian.resize(function_.has_sparse_hessian_ ? ambient * ambient : 0);
    s.half.resize(function_.has_sparse_hessian_ ? ambient * local : 0);
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
    widest = std::max(widest, block.tangent_size);
  }
  curvature_.resize(static_cast<size_t>(widest) * widest);
}

LevelEvaluator::~LevelEvaluator() = default;

bool LevelEvaluator::Fail(const std::string& what) {
  error_ = what;
  return false;
}

bool LevelEvaluator::EvaluatePlusJacobian(const Space& space, int b, const double* point) {
  const bool is_x = &space == function_.x_;
  unsigned& stamp = (is_x ? stamp_x_ : stamp_y_)[b];
  if (stamp == stamp_) return true;
  stamp = stamp_;
  const Space::Block& block = space.blocks()[b];
  if (!block.manifold) return true;
  double* jacobian = is_x ? &plus_x_[plus_offset_x_[b]] : &plus_y_[plus_offset_y_[b]];
  if (block.manifold->PlusJacobian(point + block.offset, jacobian)) return true;
  return Fail("the manifold of " + block.name + " could not be differentiated");
}

// Row-major size x tangent_size, or nullptr for the identity.
const double* LevelEvaluator::PlusJacobian(const LevelFunction::Argument& argument) const {
  if (!argument.has_manifold) return nullptr;
  const bool is_x = argument.kind == LevelFunction::Argument::kX;
  return is_x ? &plus_x_[plus_offset_x_[argument.block]] : &plus_y_[plus_offset_y_[argument.block]];
}

bool LevelEvaluator::Begin(const Batch& batch, bool derivatives) {
  if (batch.size < 0) return Fail("a batch cannot have " + std::to_string(batch.size) + " terms");
  if (!derivatives) return true;
  ++stamp_;
  if (!function_.has_manifolds_) return true;
  if (batch.all()) {
    for (int b = 0; b < static_cast<int>(function_.x().blocks().size()); ++b) {
      if (!EvaluatePlusJacobian(function_.x(), b, x_)) return false;
    }
    for (int b = 0; b < static_cast<int>(function_.y().blocks().size()); ++b) {
      if (!EvaluatePlusJacobian(function_.y(), b, y_)) return false;
    }
    return true;
  }
  const auto touch = [&](int first, int num) {
    for (int p = first; p < first + num; ++p) {
      const LevelFunction::Argument& a = function_.arguments_[p];
      if (a.kind == LevelFunction::Argument::kX &&
          !EvaluatePlusJacobian(function_.x(), a.block, x_)) {
        return false;
      }
      if (a.kind == LevelFunction::Argument::kY &&
          !EvaluatePlusJacobian(function_.y(), a.block, y_)) {
        return false;
      }
    }
    return true;
  };
  const int n = function_.num_residual_blocks();
  for (int k = 0; n > 0 && k < batch.size; ++k) {
    const LevelFunction::Residual& r = function_.residuals_[batch.Term(k, n)];
    if (!touch(r.first, r.num_arguments + r.num_thetas)) return false;
  }
  for (const LevelFunction::Term& t : function_.terms_) {
    if (!touch(t.first, t.num_arguments)) return false;
  }
  return true;
}

namespace {

// out(tangent) = scale * P' in(ambient); P == nullptr is the identity.
void Project(
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
void Lift(const double* plus, int size, int tangent, const double* in, double* out) {
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

}  // namespace

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

// Slot: value | local gradient or product | ambient gradient (product, Hessian) | local Hessian.
bool LevelEvaluator::EvaluateResidual(Order order, int index, Scratch* s, double* slot) {
  using Argument = LevelFunction::Argument;
  const LevelFunction::Residual& r = function_.residuals_[index];
  const Argument* arguments = &function_.arguments_[r.first];
  const int num_rows = r.num_residuals, ambient = r.ambient_size, local = r.local_size;
  const bool derivatives = order != Order::kValue;
  // Variables of x are skipped where nobody asks for them.
  const bool want_x = gx_ || yx_ || order == Order::kRows;
  const auto fail = [&](const char* what) {
    s->error = "residual block " + std::to_string(index) + " of " + function_.name_ + " " + what;
    return false;
  };

  for (int p = 0; p < r.num_arguments + r.num_thetas; ++p) {
    const Argument& a = arguments[p];
    s->parameters[p] = a.kind == Argument::kX   ? x_ + function_.x_->blocks()[a.block].offset
                       : a.kind == Argument::kY ? y_ + function_.y_->blocks()[a.block].offset
                                                : a.constant;
    const bool wanted = derivatives && p < r.num_arguments &&
                        (a.kind == Argument::kY || (a.kind == Argument::kX && want_x));
    s->jacobian_pointers[p] = wanted ? &s->jacobians[num_rows * a.ambient] : nullptr;
  }
  double* residuals = s->residuals.data();
  if (!r.cost->Evaluate(
          s->parameters.data(), residuals, derivatives ? s->jacobian_pointers.data() : nullptr)) {
    return fail("could not be evaluated: its cost function returned false");
  }
  double squared_norm = 0.0;
  for (int i = 0; i < num_rows; ++i) squared_norm += residuals[i] * residuals[i];
  if (!std::isfinite(squared_norm)) return fail("has a residual that is not finite");

  double rho[3] = {squared_norm, 1.0, 0.0};
  if (r.learnable) {
    r.learnable->Evaluate(squared_norm,
                          s->parameters.data() + r.num_arguments,
                          rho,
                          derivatives ? s->theta_value.data() : nullptr,
                          derivatives ? s->theta_slope.data() : nullptr);
  } else if (r.loss) {
    r.loss->Evaluate(squared_norm, rho);
  }
  if (!std::isfinite(rho[0]) || !std::isfinite(rho[1])) {
    return fail("has a loss that is not finite");
  }
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
  for (int p = 0; p < r.num_arguments; ++p) {
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

  if (order == Order::kProduct) {
    double* direction = s->direction.data();
    double* jv = s->jv.data();
    std::fill_n(direction, ambient, 0.0);
    std::fill_n(jv, num_rows, 0.0);
    for (int p = 0; p < r.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (a.kind != Argument::kY) continue;
      const double* v = direction_ + function_.y_->blocks()[a.block].tangent_offset;
      Lift(PlusJacobian(a), a.size, a.tangent_size, v, direction + a.ambient);
      for (int i = 0; i < num_rows; ++i) {
        for (int j = 0; j < a.size; ++j) {
          jv[i] += s->jacobian_pointers[p][i * a.size + j] * direction[a.ambient + j];
        }
      }
    }
    double* product = gradient;  // Curvature first, then the Jacobian terms on top.
    double r_jv = 0.0;
    for (int i = 0; i < num_rows; ++i) r_jv += residuals[i] * jv[i];
    const bool ok =
        r.exact ? r.exact->EvaluateHessianProduct(s->parameters.data(), weights, direction, product)
                : NumericHessianProduct(
                      *r.cost, s->parameters.data(), weights, direction, product, &s->workspace);
    if (!ok) return fail("has second derivatives that could not be evaluated");
    for (int i = 0; i < num_rows; ++i) jv[i] = rho[1] * jv[i] + 2.0 * rho[2] * r_jv * residuals[i];
    for (int p = 0; p < r.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (!s->jacobian_pointers[p]) continue;
      for (int i = 0; i < num_rows; ++i) {
        for (int j = 0; j < a.size; ++j) {
          product[a.ambient + j] += s->jacobian_pointers[p][i * a.size + j] * jv[i];
        }
      }
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

  // The Hessian in ambient coordinates: curvature + rho' J'J + 2 rho'' (J'r)(J'r)'.
  double* h = s->hessian.data();
  MatrixMap hessian(h, ambient, ambient);
  double* stacked = s->stacked.data();
  for (int p = 0; p < r.num_arguments; ++p) {
    const Argument& a = arguments[p];
    for (int i = 0; i < num_rows; ++i) {
      double* row = stacked + i * ambient + a.ambient;
      if (s->jacobian_pointers[p]) {
        std::copy_n(s->jacobian_pointers[p] + i * a.size, a.size, row);
      } else {
        std::fill_n(row, a.size, 0.0);
      }
    }
  }
  const bool exact = kind_ == HessianKind::kExact;
  if (exact || yx_) {
    const bool ok = r.exact
                        ? r.exact->EvaluateHessian(s->parameters.data(), weights, h)
                        : NumericHessian(*r.cost, s->parameters.data(), weights, h, &s->workspace);
    if (!ok) return fail("has second derivatives that could not be evaluated");
    for (int i = 0; i < num_rows; ++i) AddOuterProduct(rho[1], stacked + i * ambient, ambient, h);
    AddOuterProduct(2.0 * rho[2], gradient, ambient, h);
  }
  if (!exact) {
    ConstMatrixMap jacobian(stacked, num_rows, ambient);
    for (int p = 0; p < r.num_arguments; ++p) {
      for (int q = 0; q < r.num_arguments; ++q) {
        const Argument &a = arguments[p], &b = arguments[q];
        if (a.kind != Argument::kY || b.kind != Argument::kY) continue;
        hessian.block(a.ambient, b.ambient, a.size, b.size) =
            rho[1] * jacobian.middleCols(a.ambient, a.size)
                         .transpose()
                         .lazyProduct(jacobian.middleCols(b.ambient, b.size));
      }
    }
  }

  // Into tangent coordinates: columns, then rows.
  double* local_hessian = ambient_gradient + ambient + r.theta_size;
  MatrixMap to(local_hessian, local, local);
  MatrixMap half(s->half.data(), ambient, local);
  for (int q = 0; q < r.num_arguments; ++q) {
    const Argument& a = arguments[q];
    if (a.kind == Argument::kConstant) continue;
    const double* plus = PlusJacobian(a);
    auto columns = half.middleCols(a.local, a.tangent_size);
    if (plus) {
      columns = hessian.middleCols(a.ambient, a.size)
                    .lazyProduct(ConstMatrixMap(plus, a.size, a.tangent_size));
    } else {
      columns = hessian.middleCols(a.ambient, a.size);
    }
  }
  const int cost_local = [&] {  // The local size of the cost function's own arguments.
    return r.num_thetas > 0 ? arguments[r.num_arguments].local : local;
  }();
  for (int p = 0; p < r.num_arguments; ++p) {
    const Argument& a = arguments[p];
    if (a.kind == Argument::kConstant) continue;
    const double* plus = PlusJacobian(a);
    auto rows = to.block(a.local, 0, a.tangent_size, cost_local);
    if (plus) {
      rows = ConstMatrixMap(plus, a.size, a.tangent_size)
                 .transpose()
                 .lazyProduct(half.block(a.ambient, 0, a.size, cost_local));
    } else {
      rows = half.block(a.ambient, 0, a.size, cost_local);
    }
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
  return true;
}

// Slot as EvaluateResidual's.
bool LevelEvaluator::EvaluateTerm(Order order, int index, const Batch& batch, double* slot) {
  using Argument = LevelFunction::Argument;
  const LevelFunction::Term& t = function_.terms_[index];
  const Argument* arguments = &function_.arguments_[t.first];
  Scratch& s = scratch_[0];
  const auto fail = [&](const char* what) {
    return Fail("general term " + std::to_string(index) + " of " + function_.name_ + " " + what);
  };
  const auto point = [&](const Argument& a) {
    return a.kind == Argument::kX   ? x_ + function_.x_->blocks()[a.block].offset
           : a.kind == Argument::kY ? y_ + function_.y_->blocks()[a.block].offset
                                    : a.constant;
  };
  for (int p = 0; p < t.num_arguments; ++p) s.parameters[p] = point(arguments[p]);
  // Writes the ambient gradient over `to`, constants as zeros.
  const auto gradient = [&](double* to) {
    std::fill_n(to, t.ambient_size, 0.0);
    for (int p = 0; p < t.num_arguments; ++p) {
      const Argument& a = arguments[p];
      s.jacobian_pointers[p] = a.kind == Argument::kConstant ? nullptr : to + a.ambient;
    }
    return t.objective->Evaluate(s.parameters.data(), batch, slot, s.jacobian_pointers.data());
  };
  const auto project = [&](const double* from, double* to) {
    for (int p = 0; p < t.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (a.kind == Argument::kConstant) continue;
      Project(PlusJacobian(a), a.size, a.tangent_size, 1.0, from + a.ambient, to + a.local);
    }
  };
  if (order == Order::kValue) {
    return t.objective->Evaluate(s.parameters.data(), batch, slot, nullptr) ||
           fail("could not be evaluated");
  }
  double* out = slot + 1;
  double* ambient_gradient = out + t.local_size;
  if (!gradient(order == Order::kGradient ? s.gradient.data() : ambient_gradient)) {
    return fail("could not be evaluated");
  }
  if (order == Order::kGradient) {
    project(s.gradient.data(), out);
    return true;
  }

  // The product with an ambient direction, over `to`.
  const auto product = [&](const double* direction, double* to) {
    if (t.objective->has_hessian_product()) {
      term_direction_.resize(t.num_arguments);
      for (int p = 0; p < t.num_arguments; ++p) {
        const Argument& a = arguments[p];
        term_direction_[p] = a.kind == Argument::kY ? direction + a.ambient : nullptr;
        s.jacobian_pointers[p] = a.kind == Argument::kConstant ? nullptr : to + a.ambient;
      }
      return t.objective->HessianProduct(
          s.parameters.data(), batch, term_direction_.data(), s.jacobian_pointers.data());
    }
    // Central difference of the gradient along the direction.
    double norm = 0.0, size = 0.0;
    for (int p = 0; p < t.num_arguments; ++p) {
      for (int j = 0; j < arguments[p].size; ++j) {
        norm = std::max(norm, std::abs(direction[arguments[p].ambient + j]));
        size = std::max(size, std::abs(s.parameters[p][j]));
      }
    }
    if (norm == 0.0) {
      std::fill_n(to, t.ambient_size, 0.0);
      return true;
    }
    const double h = std::cbrt(std::numeric_limits<double>::epsilon()) * std::max(1.0, size) / norm;
    shifted_.resize(t.ambient_size);
    difference_.resize(t.ambient_size);
    bool ok = true;
    for (const double sign : {1.0, -1.0}) {
      for (int p = 0; p < t.num_arguments; ++p) {
        const Argument& a = arguments[p];
        const double* parameter = point(a);
        for (int j = 0; j < a.size; ++j) {
          shifted_[a.ambient + j] = parameter[j] + sign * h * direction[a.ambient + j];
        }
        s.parameters[p] = &shifted_[a.ambient];
      }
      ok = ok && gradient(sign > 0 ? to : difference_.data());
    }
    for (int p = 0; p < t.num_arguments; ++p) s.parameters[p] = point(arguments[p]);
    for (int j = 0; j < t.ambient_size; ++j) to[j] = (to[j] - difference_[j]) / (2.0 * h);
    return ok;
  };
  double* direction = s.direction.data();
  if (order == Order::kProduct) {
    std::fill_n(direction, t.ambient_size, 0.0);
    for (int p = 0; p < t.num_arguments; ++p) {
      const Argument& a = arguments[p];
      if (a.kind != Argument::kY) continue;
      Lift(PlusJacobian(a),
           a.size,
           a.tangent_size,
           direction_ + function_.y_->blocks()[a.block].tangent_offset,
           direction + a.ambient);
    }
    if (!product(direction, s.gradient.data())) {
      return fail("has second derivatives that could not be evaluated");
    }
    project(s.gradient.data(), out);
    return true;
  }
  project(ambient_gradient, out);
  MatrixMap to(ambient_gradient + t.ambient_size, t.local_size, t.local_size);
  term_column_.resize(t.local_size);
  for (int q = 0; q < t.num_arguments; ++q) {
    const Argument& a = arguments[q];
    if (a.kind != Argument::kY) continue;
    for (int j = 0; j < a.tangent_size; ++j) {
      std::fill_n(direction, t.ambient_size, 0.0);
      const double* plus = PlusJacobian(a);
      for (int i = 0; i < a.size; ++i) {
        direction[a.ambient + i] = plus ? plus[i * a.tangent_size + j] : i == j;
      }
      if (!product(direction, s.gradient.data())) {
        return fail("has second derivatives that could not be evaluated");
      }
      project(s.gradient.data(), term_column_.data());
      to.row(a.local + j) = term_column_;
    }
  }
  return true;
}

// The serial way to a gradient: as EvaluateResidual and Reduce, entry by entry the same arithmetic,
// without the slot between them.
bool LevelEvaluator::AddGradient(int index, double scale, double* value) {
  using Argument = LevelFunction::Argument;
  const LevelFunction::Residual& r = function_.residuals_[index];
  const Argument* const begin = &function_.arguments_[r.first];
  const Argument* const end = begin + r.num_arguments;
  const Argument* const thetas_end = end + r.num_thetas;
  Scratch& s = scratch_[0];
  const double* const points[] = {x_, y_, nullptr};
  double* const gradients[] = {gx_, gy_, nullptr};
  static_assert(Argument::kX == 0 && Argument::kY == 1 && Argument::kConstant == 2, "");
  const int num_rows = r.num_residuals;
  const double** parameter = s.parameters.data();
  double** jacobian = s.jacobian_pointers.data();
  for (const Argument* a = begin; a != thetas_end; ++a, ++parameter) {
    *parameter = a->kind == Argument::kConstant ? a->constant : points[a->kind] + a->offset;
    if (a < end) {
      *jacobian++ = gradients[a->kind] ? s.jacobians.data() + num_rows * a->ambient : nullptr;
    }
  }
  double* const residuals = s.residuals.data();
  const auto fail = [&](const char* what) {
    return Fail("residual block " + std::to_string(index) + " of " + function_.name_ + " " + what);
  };
  if (!r.cost->Evaluate(s.parameters.data(), residuals, s.jacobian_pointers.data())) {
    return fail("could not be evaluated: its cost function returned false");
  }
  double squared_norm = 0.0;
  for (int i = 0; i < num_rows; ++i) squared_norm += residuals[i] * residuals[i];
  if (!std::isfinite(squared_norm)) return fail("has a residual that is not finite");
  double rho[3] = {squared_norm, 1.0, 0.0};
  if (r.loss) {
    if (r.learnable) {
      r.learnable->Evaluate(squared_norm,
                            s.parameters.data() + r.num_arguments,
                            rho,
                            s.theta_value.data(),
                            s.theta_slope.data());
    } else {
      r.loss->Evaluate(squared_norm, rho);
    }
    if (!std::isfinite(rho[0]) || !std::isfinite(rho[1])) {
      return fail("has a loss that is not finite");
    }
  }
  *value += scale * (0.5 * rho[0]);
  double probe = 0.0;
  jacobian = s.jacobian_pointers.data();
  for (const Argument* a = begin; a != end; ++a, ++jacobian) {
    if (!*jacobian) continue;
    double* const to = gradients[a->kind] + a->tangent_offset;
    const int size = a->size;
    const auto entry = [&](int j) {
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
    const Space& space = a.kind == Argument::kX ? *function_.x_ : *function_.y_;
    to += space.blocks()[a.block].tangent_offset;
    for (int j = 0; j < a.tangent_size; ++j) to[j] += scale * out[a.local + j];
  }
  if (order == Order::kGradient) return;
  const double* ambient_gradient = out + local;
  for (int p = 0; p < num; ++p) {
    const Argument& a = arguments[p];
    if (a.kind != Argument::kY || function_.y_->curvature(a.block).is_zero()) continue;
    double* to = ambient_gradient_.data() + function_.y_->blocks()[a.block].offset;
    for (int j = 0; j < a.size; ++j) to[j] += scale * ambient_gradient[a.ambient + j];
  }
  if (order == Order::kProduct) return;
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
  const int n = function_.num_residual_blocks();
  if (n == 0) return true;
  const int count = batch.all() ? n : batch.size;
  const double scale = batch.all() ? 1.0 : static_cast<double>(n) / batch.size;
  const auto index = [&](int k) { return batch.all() ? k : batch.Term(k, n); };
  size_t stride = 1;
  const size_t local = function_.max_local_, ambient = function_.max_ambient_;
  if (order != Order::kValue && order != Order::kRows) stride += local;
  if (order == Order::kProduct || order == Order::kHessian) stride += ambient;
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
        if (!AddGradient(index(k), scale, value)) return false;
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
      *value += scale * slot[0];
      const LevelFunction::Residual& r = function_.residuals_[index(begin + k)];
      Reduce(order, r.first, r.num_arguments + r.num_thetas, r.first_slot, slot, scale);
    }
  }
  return true;
}

bool LevelEvaluator::RunTerms(Order order, const Batch& batch, double* value) {
  for (int i = 0; i < function_.num_terms(); ++i) {
    const LevelFunction::Term& t = function_.terms_[i];
    size_t size = 1 + t.local_size + t.ambient_size;
    if (order == Order::kHessian) size += static_cast<size_t>(t.local_size) * t.local_size;
    if (slots_.size() < size) slots_.resize(size);
    // A single function is a part of every batch; a sum draws its own samples.
    Batch own = t.objective->num_terms() > 1 ? batch : Batch::All();
    own.seed += static_cast<uint64_t>(i + 1) << 32;
    try {
      if (!EvaluateTerm(order, i, own, slots_.data())) return false;
    } catch (const std::exception& e) {
      return Fail("general term " + std::to_string(i) + " of " + function_.name_ +
                  " threw: " + e.what());
    } catch (...) {
      return Fail("general term " + std::to_string(i) + " of " + function_.name_ +
                  " threw something that is not a std::exception");
    }
    if (!std::isfinite(slots_[0])) {
      return Fail("general term " + std::to_string(i) + " of " + function_.name_ +
                  " has a value that is not finite");
    }
    *value += slots_[0];
    Reduce(order, t.first, t.num_arguments, t.first_slot, slots_.data(), 1.0);
  }
  return true;
}

// Adds what the manifolds of y contribute to the Hessian or to the product.
bool LevelEvaluator::FinishCurvature(Order order) {
  const Space& space = *function_.y_;
  for (int b = 0; b < static_cast<int>(space.blocks().size()); ++b) {
    if (space.curvature(b).is_zero() || stamp_y_[b] != stamp_) continue;
    const Space::Block& block = space.blocks()[b];
    const int t = block.tangent_size;
    std::fill_n(curvature_.begin(), t * t, 0.0);
    if (!space.curvature(b).Add(
            y_ + block.offset, ambient_gradient_.data() + block.offset, curvature_.data())) {
      return Fail("the manifold of " + block.name + " could not be differentiated twice");
    }
    if (order == Order::kProduct) {
      const double* v = direction_ + block.tangent_offset;
      for (int i = 0; i < t; ++i) {
        for (int j = 0; j < t; ++j) gy_[block.tangent_offset + i] += curvature_[i * t + j] * v[j];
      }
      continue;
    }
    for (int j = 0; j < t; ++j) {
      double* to = yy_->valuePtr() + yy_->outerIndexPtr()[block.tangent_offset + j] - j;
      for (int i = j; i < t; ++i) to[i] += curvature_[i * t + j];
    }
  }
  return true;
}

bool LevelEvaluator::Run(
    Order order, const double* x, const double* y, const Batch& batch, double* value) {
  x_ = x;
  y_ = y;
  error_.clear();
  if (gx_) std::fill_n(gx_, function_.x_->tangent_size(), 0.0);
  if (gy_) std::fill_n(gy_, function_.y_->tangent_size(), 0.0);
  *value = probe_ = 0.0;
  try {
    if (!Begin(batch, order != Order::kValue)) return false;
    const Guard guard(this);
    if (function_.callback_) {
      function_.callback_->PrepareForEvaluation(order != Order::kValue, true);
    }
    if (!RunResiduals(order, batch, value) || !RunTerms(order, batch, value)) return false;
    const bool curved =
        order == Order::kProduct || (order == Order::kHessian && kind_ == HessianKind::kExact);
    if (curved && !FinishCurvature(order)) return false;
  } catch (const std::exception& e) {
    return Fail("evaluating " + function_.name_ + " threw: " + e.what());
  } catch (...) {
    return Fail("evaluating " + function_.name_ + " threw something that is not a std::exception");
  }
  const bool probed =
      order == Order::kGradient && function_.terms_.empty() && !(pool_ && pool_->num_threads() > 1);
  if (probed && probe_ == 0.0 && std::isfinite(*value)) return true;
  const auto finite = [](const double* v, int n) { return !v || ConstVectorMap(v, n).allFinite(); };
  if (!std::isfinite(*value)) return Fail("the value of " + function_.name_ + " is not finite");
  for (const Space* space : {function_.x_, function_.y_}) {
    const double* v = space == function_.x_ ? gx_ : gy_;
    if (finite(v, space->tangent_size())) continue;
    for (const Space::Block& block : space->blocks()) {
      if (!finite(v + block.tangent_offset, block.tangent_size)) {
        return Fail("the derivative of " + function_.name_ + " with respect to " + block.name +
                    " is not finite");
      }
    }
  }
  return true;
}

bool LevelEvaluator::Value(const double* x, const double* y, const Batch& batch, double* value) {
  gx_ = gy_ = nullptr;
  yy_ = yx_ = nullptr;
  return Run(Order::kValue, x, y, batch, value);
}

bool LevelEvaluator::Gradient(
    const double* x, const double* y, const Batch& batch, double* value, double* gx, double* gy) {
  gx_ = gx;
  gy_ = gy;
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
  yy_ = yx_ = nullptr;
  direction_ = v;
  ambient_gradient_.setZero();
  double unused;
  return Run(Order::kProduct, x, y, batch, &unused);
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
  gx_ = nullptr;
  gy_ = gy;
  yy_ = yy;
  yx_ = yx;
  kind_ = kind;
  for (SparseMatrix* matrix : {yy, yx}) {
    if (matrix) std::fill_n(matrix->valuePtr(), matrix->nonZeros(), 0.0);
  }
  ambient_gradient_.setZero();
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
  if (!function_.IsLeastSquares()) {
    return Fail(function_.name_ + " is not a sum of squares: it cannot be linearised");
  }
  if (jx->nonZeros() != function_.rows_x_.nonZeros() || jx->rows() != function_.num_rows_) {
    *jx = function_.rows_x_;
  }
  if (jy->nonZeros() != function_.rows_y_.nonZeros() || jy->rows() != function_.num_rows_) {
    *jy = function_.rows_y_;
  }
  r->resize(function_.num_rows_);
  gx_ = gy_ = nullptr;
  yy_ = yx_ = nullptr;
  rows_r_ = r;
  rows_jx_ = jx;
  rows_jy_ = jy;
  double unused;
  return Run(Order::kRows, x, y, Batch::All(), value ? value : &unused);
}

}  // namespace bilevel
