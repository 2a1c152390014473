#include "bilevel/program/internal/assembly.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/thrown.h"

namespace bilevel {

using Argument = LevelFunction::Argument;

Assembly::Assembly(const LevelFunction& function, const Evaluation& evaluation)
    : function_(function), e_(evaluation), ambient_gradient_(Vector::Zero(function.y().size())) {
  size_t widest = 0;
  for (const Space::Block& block : function_.y().blocks()) {
    if (block.manifold) widest = std::max<size_t>(widest, block.tangent_size);
  }
  curvature_.resize(widest * widest);
}

void Assembly::Begin(const std::vector<int>& touched_y) {
  for (const int b : touched_y) {
    const Space::Block& block = function_.y().blocks()[b];
    if (block.manifold) std::fill_n(ambient_gradient_.data() + block.offset, block.size, 0.0);
  }
}

void Assembly::Add(double scale, int first, int num, int first_slot, BlockDerivatives* block) {
  if (e_.order == Evaluation::kValue || e_.order == Evaluation::kRows) return;
  if (e_.has_products()) {
    AddGradient(scale, first, num, block->product(), e_.xy_v, e_.yy_v);
  }
  if (e_.order != Evaluation::kProduct) {
    AddGradient(scale, first, num, block->gradient(), e_.gx, e_.gy);
  }
  if (e_.order == Evaluation::kGradient) return;
  for (int p = first; p < first + num; ++p) {
    const Argument& a = function_.arguments()[p];
    AddAmbientGradient(scale, a, block->ambient_gradient() + a.ambient);
  }
  if (e_.order == Evaluation::kHessian) AddHessian(first, num, first_slot, block);
}

void Assembly::AddGradient(
    double scale, int first, int num, const double* from, double* gx, double* gy) {
  double* const gradients[] = {gx, gy};
  const Argument* const begin = &function_.arguments()[first];
  for (const Argument* a = begin; a != begin + num; ++a) {
    if (a->kind == Argument::kConstant || !gradients[a->kind]) continue;
    double* const to = gradients[a->kind] + a->tangent_offset;
    for (int j = 0; j < a->tangent_size; ++j) to[j] += scale * from[a->local + j];
  }
}

void Assembly::AddAmbientGradient(double scale, const Argument& a, const double* gradient) {
  if (a.kind != Argument::kY || function_.y().curvature(a.block).is_zero()) return;
  double* const to = ambient_gradient_.data() + a.offset;
  for (int j = 0; j < a.size; ++j) to[j] += scale * gradient[j];
}

void Assembly::AddHessian(int first, int num, int first_slot, BlockDerivatives* block) {
  const int local = block->local();
  const double* const hessian = block->hessian();
  const int* slot = function_.slots().data() + first_slot;
  function_.ForEachHessianBlock(first, num, [&](const Argument& p, const Argument& q, bool in_yy) {
    const int base = *slot++;
    SparseMatrix* matrix = in_yy ? e_.yy : e_.yx;
    if (!matrix) return;
    const Space& columns = in_yy ? function_.y() : function_.x();
    const int first_column = columns.blocks()[q.block].tangent_offset;
    const bool triangle = in_yy && p.block == q.block;
    for (int j = 0; j < q.tangent_size; ++j) {
      // In the lower triangle each column of a block column is one entry shorter at the top.
      const int begin = triangle ? j : 0;
      double* to =
          matrix->valuePtr() + matrix->outerIndexPtr()[first_column + j] + base - (in_yy ? j : 0);
      if (in_yy) {  // Symmetric: the row is read.
        const double* const row = hessian + (q.local + j) * local + p.local;
        for (int i = begin; i < p.tangent_size; ++i) to[i] += row[i];
      } else {
        const double* const column = hessian + p.local * local + q.local + j;
        for (int i = 0; i < p.tangent_size; ++i) to[i] += column[i * local];
      }
    }
  });
}

bool Assembly::AddCurvature(const std::vector<int>& touched_y, std::string* error) {
  const Space& space = function_.y();
  for (const int b : touched_y) {
    if (space.curvature(b).is_zero()) continue;
    const Space::Block& block = space.blocks()[b];
    const int t = block.tangent_size;
    std::fill_n(curvature_.begin(), t * t, 0.0);
    const auto who = [&] { return "the manifold of " + block.name; };
    const auto add = [&] {
      return space.curvature(b).Add(
          e_.y + block.offset, ambient_gradient_.data() + block.offset, curvature_.data());
    };
    if (!NameThrown(who, add)) {
      *error = who() + " could not be differentiated twice";
      return false;
    }
    if (e_.order != Evaluation::kHessian) {
      const double* v = e_.direction + block.tangent_offset;
      double* const to = e_.yy_v + block.tangent_offset;
      for (int i = 0; i < t; ++i) {
        for (int j = 0; j < t; ++j) to[i] += curvature_[i * t + j] * v[j];
      }
      continue;
    }
    for (int j = 0; j < t; ++j) {
      double* to = e_.yy->valuePtr() + e_.yy->outerIndexPtr()[block.tangent_offset + j] - j;
      for (int i = j; i < t; ++i) to[i] += curvature_[i * t + j];
    }
  }
  return true;
}

bool Assembly::CheckHessian(std::string* error) const {
  for (const SparseMatrix* matrix : {e_.yy, e_.yx}) {
    if (!matrix || Eigen::Map<const Vector>(matrix->valuePtr(), matrix->nonZeros()).allFinite()) {
      continue;
    }
    const Space& columns = matrix == e_.yy ? function_.y() : function_.x();
    for (int j = 0; j < matrix->cols(); ++j) {
      for (SparseMatrix::InnerIterator entry(*matrix, j); entry; ++entry) {
        if (std::isfinite(entry.value())) continue;
        *error = "the second derivative of " + function_.name() + " with respect to " +
                 function_.y().BlockOf(static_cast<int>(entry.row())).name + " and " +
                 columns.BlockOf(j).name + " is not finite";
        return false;
      }
    }
  }
  return true;
}

}  // namespace bilevel
