#include "bilevel/lower_level/block_jacobi.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/decompositions.h"

namespace bilevel {

std::string BlockJacobi::Check(const Program& program, const std::string& option) {
  for (const auto& scenario : program.scenarios) {
    if (!scenario->g->has_sparse_hessian()) {
      return option + " needs the diagonal blocks of d^2g/dy^2, and " + scenario->g->name() +
             " has a general term too long for them";
    }
  }
  return "";
}

void BlockJacobi::Compute(Oracle& oracle, const Point& x, const Point& y) {
  // Of a curvature to the largest, what rounding makes.
  constexpr double kNone = 1e-14;
  space_ = &y.space();
  oracle.g.HessianBlocks(x, y, &inverses_);
  if (!oracle.ok()) return;
  const auto for_each_block = [&](auto body) {
    double* h = inverses_.data();
    for (const Space::Block& block : space_->blocks()) {
      const int t = block.tangent_size;
      body(block, Eigen::Map<Matrix>(h, t, t));
      h += t * t;
    }
  };
  offsets_.clear();
  int offset = 0;
  for (const Space::Block& block : space_->blocks()) {
    offsets_.push_back(offset);
    offset += block.tangent_size * block.tangent_size;
  }
  double largest = 0.0;
  int widest = 0;
  for_each_block([&](const Space::Block& block, Eigen::Map<Matrix> h) {
    widest = std::max(widest, block.tangent_size);
    largest = std::max(largest, h.norm());
    for (int j = block.tangent_offset; j < block.tangent_offset + block.tangent_size; ++j) {
      if (!std::isfinite(space_->LowerBound(j)) && !std::isfinite(space_->UpperBound(j))) continue;
      h = h.diagonal().asDiagonal().toDenseMatrix().eval();
      break;
    }
  });
  if (largest == 0.0) largest = 1.0;
  product_.resize(widest);
  for_each_block([&](const Space::Block& block, Eigen::Map<Matrix> h) {
    const auto inverse = [&](double curvature, double most) {
      if (!(most > kNone * largest)) most = largest;
      return 1.0 / (std::abs(curvature) > kNone * most ? std::abs(curvature) : most);
    };
    if (block.tangent_size == 1) {
      h(0, 0) = inverse(h(0, 0), std::abs(h(0, 0)));
      return;
    }
    if (block.tangent_size == 0) return;
    const SymmetricEigen eigen(h);
    const double most = eigen.eigenvalues().cwiseAbs().maxCoeff();
    const Vector inverses =
        eigen.eigenvalues().unaryExpr([&](double curvature) { return inverse(curvature, most); });
    h = eigen.eigenvectors() * inverses.asDiagonal() * eigen.eigenvectors().transpose();
  });
}

void BlockJacobi::ApplyBlock(int b, double* v) const {
  const Space::Block& block = space_->blocks()[b];
  const int t = block.tangent_size;
  const double* inverse = inverses_.data() + offsets_[b];
  if (t == 1) {
    v[block.tangent_offset] *= *inverse;
    return;
  }
  Eigen::Map<Vector> own(v + block.tangent_offset, t);
  product_.head(t).noalias() = Eigen::Map<const Matrix>(inverse, t, t) * own;
  own = product_.head(t);
}

void BlockJacobi::Apply(Vector* v) const {
  for (int b = 0; b < static_cast<int>(offsets_.size()); ++b) ApplyBlock(b, v->data());
}

void BlockJacobi::Apply(SparseVector* v) const {
  for (const SparseVector::Range& r : v->blocks()) ApplyBlock(r.block, v->data());
}

}  // namespace bilevel
