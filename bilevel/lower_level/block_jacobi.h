#ifndef BILEVEL_LOWER_LEVEL_BLOCK_JACOBI_H_
#define BILEVEL_LOWER_LEVEL_BLOCK_JACOBI_H_

#include <string>
#include <vector>

#include "bilevel/lower_level/metric.h"

namespace bilevel {

/// A metric for first-order steps on g, y <- y - step M^-1 g_y: M has the diagonal blocks of the
/// Gauss-Newton Hessian of g in y, one a parameter block, and no second derivatives are needed.
/// Steps then do not depend on the units of y. Where no residual block has more than p blocks of
/// y, M^-1 H has eigenvalues up to p (near a solution with small residuals): step 1 / p is safe,
/// and step 1 is Newton's for p = 1.
///
/// A block with bounds counts as a block for each coordinate, so that clamping remains a
/// projection. Directions without curvature take the largest curvature there is, of their block or
/// else of all; negative ones, of general terms, their size.
class BlockJacobi : public Metric {
 public:
  /// Sentence on what of the program it cannot be had for; empty if nothing. `option` is what asks
  /// for it.
  static std::string Check(const Program& program, const std::string& option);

  /// One linearisation of g, cubic in the size of a block.
  void Compute(Oracle& oracle, const Point& x, const Point& y) override;
  void Apply(Vector* v) const override;
  /// At the cost of the blocks v touches.
  void Apply(SparseVector* v) const override;

 private:
  void ApplyBlock(int block, double* v) const;

  const Space* space_ = nullptr;
  Vector inverses_;  // By block, one after the other.
  std::vector<int> offsets_;
  mutable Vector product_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_BLOCK_JACOBI_H_
