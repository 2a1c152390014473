#ifndef BILEVEL_PROGRAM_LEVEL_EVALUATOR_H_
#define BILEVEL_PROGRAM_LEVEL_EVALUATOR_H_

#include <string>
#include <vector>

#include "bilevel/base/thread_pool.h"
#include "bilevel/program/level_function.h"
#include "bilevel/types.h"

namespace bilevel {

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
  /// Value, gradient in y, and the two second derivatives into matrices of the function's
  /// patterns; yx may be nullptr.
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

  /// From here on the outputs of gradients and products are zero when an evaluation is asked for,
  /// and it looks only at the blocks of touched_x() and touched_y(): it costs what it touches.
  void SetSparse(bool sparse) { sparse_ = sparse; }
  /// The blocks that the last evaluation with derivatives depended on.
  const std::vector<int>& touched_x() const { return touched_x_; }
  const std::vector<int>& touched_y() const { return touched_y_; }
  /// And the parts of other blocks of x, see Objective::block_of_terms.
  const std::vector<SparseVector::Range>& touched_parts_of_x() const { return touched_parts_; }

  const std::string& error() const { return error_; }

 private:
  struct Scratch;
  struct Guard;
  enum class Order { kValue, kGradient, kProduct, kBoth, kHessian, kRows };
  bool Begin(const Batch& batch, bool derivatives);
  static std::string CheckBatch(const Batch& batch, int num_terms);
  bool Touch(bool is_x, int block);
  const double* PlusJacobian(const LevelFunction::Argument& argument) const;
  void FindArguments(int index, bool want_x, bool want_y, Scratch* scratch);
  bool EvaluateCost(int index, bool derivatives, internal::Recording* recording, Scratch* scratch);
  bool EvaluateResidual(Order order, int index, Scratch* scratch, double* slot);
  void LiftDirection(int index, Scratch* scratch) const;
  bool MultiplyHessian(int index, Scratch* scratch);
  bool MultiplyDirections(int index, internal::Recording* recording, Scratch* scratch);
  void FillHessian(int index, double* ambient_gradient, Scratch* scratch);
  bool AddGradient(int index, double scale, double* value);
  bool AddGradient(int index, internal::Recording* recording, double scale, double* value);
  const double* Value(const LevelFunction::Argument& argument) const;
  int PartlyTouched(const LevelFunction::Term& term, const Batch& batch) const;
  double* Target(int argument, double* out_x, double* out_y, double* scratch) const;
  void AddTangent(const LevelFunction::Term& term,
                  const double* scratch,
                  double* out_x,
                  double* out_y);
  bool EvaluateTerm(Order order, int index, const Batch& batch, double* value);
  bool DifferenceTerm(const LevelFunction::Term& term, const Batch& batch, double* to);
  bool FillTermHessian(int index, double* value);
  bool RunResiduals(Order order, const Batch& batch, double* value);
  bool RunTerms(Order order, const Batch& batch, double* value);
  void Reduce(Order order, int first, int num, int first_slot, const double* slot, double scale);
  bool FinishCurvature(Order order);
  bool Run(Order order, const double* x, const double* y, const Batch& batch, double* value);
  bool Fail(const std::string& what);
  bool FailResidual(int index, const char* what, Scratch* scratch);
  bool FailTerm(int index, const Batch& batch, const char* what);
  bool FailDerivative(const Batch& batch, bool is_x, int block);

  const LevelFunction& function_;
  ThreadPool* pool_;
  std::vector<Scratch> scratch_;
  std::vector<double> slots_;
  std::vector<char> slot_ok_;
  // The evaluation under way.
  const double* x_ = nullptr;
  const double* y_ = nullptr;
  const double* direction_ = nullptr;
  double* gx_ = nullptr;
  double* gy_ = nullptr;          // The gradient, or the product.
  double* gradient_y_ = nullptr;  // Where both are asked for.
  bool sparse_ = false;
  SparseMatrix* yy_ = nullptr;
  SparseMatrix* yx_ = nullptr;
  Vector* rows_r_ = nullptr;
  RowSparseMatrix* rows_jx_ = nullptr;
  RowSparseMatrix* rows_jy_ = nullptr;
  HessianKind kind_ = HessianKind::kExact;
  std::vector<double> plus_x_, plus_y_;
  std::vector<int> plus_offset_x_, plus_offset_y_;
  std::vector<unsigned> stamp_x_, stamp_y_;
  unsigned stamp_ = 0;
  std::vector<int> touched_x_, touched_y_, drawn_;
  std::vector<SparseVector::Range> touched_parts_;
  std::vector<char> is_alone_;  // By argument: a block of x that is no other's, and flat.
  std::vector<double> drawn_weights_;
  // By argument of general terms: nothing is added to its block before.
  std::vector<char> is_first_, is_first_in_all_;
  Vector ambient_gradient_;  // Of y, for the curvature of its manifolds.
  std::vector<double> curvature_, shifted_, difference_, saved_x_, saved_y_;
  std::vector<const double*> term_direction_;
  std::vector<double*> term_pointers_, difference_pointers_;
  Vector term_gradient_, term_column_;
  double probe_ = 0.0;  // NaN once something not finite was added to gx or gy.
  std::string error_;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_LEVEL_EVALUATOR_H_
