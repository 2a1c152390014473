#ifndef BILEVEL_PROGRAM_INTERNAL_EVALUATION_H_
#define BILEVEL_PROGRAM_INTERNAL_EVALUATION_H_

#include <string>

#include "bilevel/program/level_function.h"
#include "bilevel/terms/batch.h"
#include "bilevel/types.h"

namespace bilevel {

constexpr char kNoSecondDerivatives[] = "has second derivatives that could not be evaluated";

// One evaluation of a LevelFunction: at which point, of what, and where that is added. Nothing is
// owned.
struct Evaluation {
  enum Order { kValue, kGradient, kProduct, kGradientAndProduct, kHessian, kRows };
  Order order = kValue;
  const double* x = nullptr;
  const double* y = nullptr;
  const double* direction = nullptr;       // In y, of products.
  HessianKind kind = HessianKind::kExact;  // Of kHessian.
  bool sparse = false;                     // See LevelEvaluator::SetSparse.

  // The results, which are nullptr where nobody asks for them.
  double* gx = nullptr;
  double* gy = nullptr;
  double* xy_v = nullptr;  // The products with the direction.
  double* yy_v = nullptr;
  SparseMatrix* yy = nullptr;
  SparseMatrix* yx = nullptr;
  Vector* r = nullptr;            // The rows of Linearize.
  RowSparseMatrix* jx = nullptr;  // May be left out.
  RowSparseMatrix* jy = nullptr;

  bool has_products() const { return order == kProduct || order == kGradientAndProduct; }
  bool wants_x() const { return gx || xy_v || yx || jx; }
  const double* At(const LevelFunction::Argument& a) const {
    const double* const points[] = {x, y};
    return a.kind == LevelFunction::Argument::kConstant ? a.constant : points[a.kind] + a.offset;
  }
};

// What is wrong with drawing the batch out of num_terms terms, to be put after their function's
// name: "has no block 7 of 10 terms: they are 42". Empty where nothing is.
std::string CheckDraw(const Batch& batch, int num_terms);

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_INTERNAL_EVALUATION_H_
