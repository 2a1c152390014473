#include "bilevel/lower_level/internal/make_blocks_positive_definite.h"

#include "bilevel/base/internal/decompositions.h"

namespace bilevel {

bool MakeBlocksPositiveDefinite(const Space& space, SparseMatrix* yy) {
  constexpr int kLargest = 16;
  // Of the largest eigenvalue of a block, and of its diagonal, which scales it: its
  // coordinates may have different units.
  constexpr double kSmallestShare = 1e-2, kSmallestScale = 1e-8;
  bool any = false;
  Matrix block;
  for (const Space::Block& b : space.blocks()) {
    const int n = b.tangent_size;
    if (n > kLargest) continue;
    block.resize(n, n);
    // A column begins at its diagonal, and its block comes first.
    const auto entry = [&](int i, int j) -> double& {
      return yy->valuePtr()[yy->outerIndexPtr()[b.tangent_offset + j] + i - j];
    };
    for (int j = 0; j < n; ++j) {
      for (int i = j; i < n; ++i) block(i, j) = block(j, i) = entry(i, j);
    }
    if (IsPositiveDefinite(block)) continue;
    const double least = kSmallestScale * block.cwiseAbs().maxCoeff();
    if (!(least > 0.0)) continue;  // Zeros.
    const Vector scale = block.diagonal().cwiseAbs().cwiseMax(least).cwiseSqrt();
    block = scale.cwiseInverse().asDiagonal() * block * scale.cwiseInverse().asDiagonal();
    const SymmetricEigen eigen(block);
    Vector values = eigen.eigenvalues().cwiseAbs();
    if (!(values.maxCoeff() > 0.0)) continue;  // Not finite.
    values = values.cwiseMax(kSmallestShare * values.maxCoeff());
    block = eigen.eigenvectors() * values.asDiagonal() * eigen.eigenvectors().transpose();
    block = scale.asDiagonal() * block * scale.asDiagonal();
    for (int j = 0; j < n; ++j) {
      for (int i = j; i < n; ++i) entry(i, j) = block(i, j);
    }
    any = true;
  }
  return any;
}

}  // namespace bilevel
