#ifndef BILEVEL_PROGRAM_LEVEL_EVALUATOR_H_
#define BILEVEL_PROGRAM_LEVEL_EVALUATOR_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/base/thread_pool.h"
#include "bilevel/program/level_function.h"
#include "bilevel/types.h"

namespace bilevel {

class Assembly;
class ResidualBlockEvaluator;
class TangentFrames;
class TermEvaluator;
struct Evaluation;

/// Evaluates a LevelFunction. Owns all scratch: one a thread of control; allocates nothing after
/// the first call of a kind. Sums are made in the order of the terms, whatever the number of
/// threads, so results do not depend on it.
///
/// x and y are points of the function's spaces, gradients and directions tangent vectors. Every
/// function returns false, with error() naming the culprit, where a cost function fails, throws or
/// is not finite. User memory is touched only where a callback must see the values; it is restored.
class LevelEvaluator {
 public:
  /// pool may be nullptr (serial).
  LevelEvaluator(const LevelFunction* function, ThreadPool* pool);
  ~LevelEvaluator();

  bool Value(const double* x, const double* y, const Batch& batch, double* value);
  /// gx and gy are written; either may be nullptr.
  bool Gradient(
      const double* x, const double* y, const Batch& batch, double* value, double* gx, double* gy);
  /// yy_v = (d^2/dy^2) v and xy_v = (d^2/dxdy) v for a direction v in y; xy_v may be nullptr.
  bool HessianProduct(const double* x,
                      const double* y,
                      const Batch& batch,
                      const double* v,
                      double* yy_v,
                      double* xy_v);
  /// Gradient in y and HessianProduct at once; neither of gy and yy_v may be nullptr.
  bool GradientAndProduct(const double* x,
                          const double* y,
                          const Batch& batch,
                          const double* v,
                          double* value,
                          double* gy,
                          double* yy_v,
                          double* xy_v);
  /// Value, gradient in y, and the two second derivatives into matrices of the function's patterns;
  /// yx may be nullptr.
  bool Hessian(const double* x,
               const double* y,
               HessianKind kind,
               double* value,
               double* gy,
               SparseMatrix* yy,
               SparseMatrix* yx);
  /// r~ = sqrt(rho') r with its Jacobians sqrt(rho') dr: Jy' r~ is the exact gradient, Jy' Jy the
  /// Gauss-Newton Hessian. For CanLinearize() only; general terms are left out.
  bool Linearize(const double* x,
                 const double* y,
                 double* value,
                 Vector* r,
                 RowSparseMatrix* jx,
                 RowSparseMatrix* jy);
  /// The same Jacobian in y alone, whatever the losses; general terms are left out.
  bool JacobianInY(const double* x, const double* y, RowSparseMatrix* jy);

  /// From here on the outputs of gradients and products are zero when an evaluation is asked for,
  /// and it looks only at the blocks of touched_x() and touched_y(): it costs what it touches.
  void SetSparse(bool sparse) { sparse_ = sparse; }
  /// The blocks that the last evaluation with derivatives depended on.
  const std::vector<int>& touched_x() const;
  const std::vector<int>& touched_y() const;
  /// And the parts of other blocks of x, see Objective::block_of_terms.
  const std::vector<SparseVector::Range>& touched_parts_of_x() const;

  const std::string& error() const { return error_; }

 private:
  bool Run(const Evaluation& evaluation, const Batch& batch, double* value);
  bool Draw(const Batch& batch);
  bool Touch(const Batch& batch);
  bool SumResidualBlocks(const Batch& batch, double* value);
  bool SumTerms(const Batch& batch, double* value);
  bool Sum(const Batch& batch, double* value);
  bool CheckFinite(const Batch& batch, double value);
  bool FailDerivative(const Batch& batch, const Space::Block& block);
  bool Fail(const std::string& what);

  const LevelFunction& function_;
  ThreadPool* pool_;
  bool sparse_ = false;
  // The evaluation under way, and what makes it.
  std::unique_ptr<Evaluation> evaluation_;
  std::unique_ptr<TangentFrames> frames_;
  std::unique_ptr<Assembly> assembly_;
  std::vector<ResidualBlockEvaluator> residual_blocks_;  // One a thread.
  std::unique_ptr<TermEvaluator> terms_;
  // The drawn residual blocks, and what each counts for.
  std::vector<int> drawn_;
  std::vector<double> drawn_weights_;
  std::vector<double> derivatives_;  // Of blocks not summed yet.
  std::vector<char> is_evaluated_;
  std::vector<double> saved_x_, saved_y_;  // The user's, while a callback's evaluation lasts.
  double probe_ = 0.0;                     // NaN once something not finite was added serially.
  std::string error_;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_LEVEL_EVALUATOR_H_
