#include <algorithm>

#include "bilevel/program/internal/level_evaluator_scratch.h"

namespace bilevel {

// Registers a block of the evaluation under way, and differentiates its manifold.
bool LevelEvaluator::Touch(bool is_x, int b) {
  unsigned& stamp = (is_x ? stamp_x_ : stamp_y_)[b];
  if (stamp == stamp_) return true;
  stamp = stamp_;
  (is_x ? touched_x_ : touched_y_).push_back(b);
  const Space::Block& block = (is_x ? function_.x() : function_.y()).blocks()[b];
  if (!block.manifold) return true;
  if (!is_x) std::fill_n(ambient_gradient_.data() + block.offset, block.size, 0.0);
  const double* point = is_x ? x_ : y_;
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

// Adds what the manifolds of y contribute to the Hessian or to the product.
bool LevelEvaluator::FinishCurvature(Order order) {
  const Space& space = *function_.y_;
  for (const int b : touched_y_) {
    if (space.curvature(b).is_zero()) continue;
    const Space::Block& block = space.blocks()[b];
    const int t = block.tangent_size;
    std::fill_n(curvature_.begin(), t * t, 0.0);
    if (!space.curvature(b).Add(
            y_ + block.offset, ambient_gradient_.data() + block.offset, curvature_.data())) {
      return Fail("the manifold of " + block.name + " could not be differentiated twice");
    }
    if (order != Order::kHessian) {
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

}  // namespace bilevel
