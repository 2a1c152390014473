#ifndef BILEVEL_PROGRAM_LEVEL_FUNCTION_H_
#define BILEVEL_PROGRAM_LEVEL_FUNCTION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/SparseCore"
#include "bilevel/derivatives/taped_cost_function.h"
#include "bilevel/program/space.h"
#include "bilevel/terms/learnable_loss.h"
#include "bilevel/terms/objective.h"
#include "ceres/evaluation_callback.h"
#include "ceres/loss_function.h"

namespace bilevel {

using SparseMatrix = Eigen::SparseMatrix<double>;
using RowSparseMatrix = Eigen::SparseMatrix<double, Eigen::RowMajor>;

/// f or g of one scenario: 1/2 sum rho_i(|r_i(x, y)|^2) + sum of general terms, laid out once.
/// Immutable after Finish(); evaluated through a LevelEvaluator.
class LevelFunction {
 public:
  /// Where one argument of a residual block, loss or term comes from.
  struct Argument {
    enum Kind { kX, kY, kConstant } kind;
    int block;               ///< Of the space of x or y.
    const double* constant;  ///< Read at every evaluation.
    int size;
    int tangent_size;    ///< 0 for a constant.
    int offset;          ///< Of the block within the point of x or y.
    int tangent_offset;  ///< Within its tangent vectors.
    bool has_manifold;
    int local;    ///< Offset among the term's variables (tangent).
    int ambient;  ///< Offset among the term's arguments (ambient).
  };

  struct Residual {
    const ceres::CostFunction* cost;
    const SecondOrderCostFunction* exact;  ///< The same object, or nullptr: differenced.
    const TapedCostFunction* taped;        ///< The same object, or nullptr.
    const ceres::LossFunction* loss;       ///< nullptr: none.
    const LearnableLoss* learnable;        ///< The same object, or nullptr.
    int first, num_arguments;              ///< Arguments of the cost function.
    int num_thetas;                        ///< Arguments of the loss, after them.
    int num_residuals;
    int ambient_size;  ///< Of the cost function's arguments.
    int theta_size;    ///< Ambient size of the loss's arguments.
    int local_size;    ///< Tangent size of all variable arguments.
    int row;           ///< First row in Linearize.
    int first_slot;    ///< Into slots.

    /// Whether its gradient is cheaper by the tape than by its Jacobian.
    bool TapesGradient() const { return taped && ambient_size >= 14; }
  };

  struct Term {
    const Objective* objective;
    int first, num_arguments;
    int ambient_size, local_size;
    int first_slot;
  };

  /// The spaces are not owned; `name` ("the lower problem") is for messages.
  LevelFunction(const Space* x, const Space* y, std::string name);

  /// blocks: the user's pointers and sizes. A loss is looked into only where it is a LearnableLoss.
  /// Minibatches draw it in proportion to its sampling weight, all of them equally often where all
  /// weights are the same; an infinite one is in every batch.
  void AddResidual(const ceres::CostFunction* cost,
                   const ceres::LossFunction* loss,
                   const std::vector<double*>& blocks,
                   double sampling_weight = 1.0);
  void AddTerm(const Objective* objective,
               const std::vector<double*>& blocks,
               std::vector<int> sizes);
  void SetCallback(ceres::EvaluationCallback* callback) { callback_ = callback; }
  /// Lays out the sparsity patterns.
  void Finish();

  const Space& x() const { return *x_; }
  const Space& y() const { return *y_; }
  int num_residual_blocks() const { return static_cast<int>(residuals_.size()); }
  int num_terms() const { return static_cast<int>(terms_.size()); }
  /// The residual blocks that minibatches draw from: all but those in every batch.
  int num_drawn() const { return static_cast<int>(drawn_.size()); }
  /// The numbers of terms that minibatches draw from, one for the residual blocks and each general
  /// term that is a sum; Objective::kStream for a stream.
  std::vector<int> DrawnFrom() const;
  /// Residual blocks and samples of general terms in an evaluation; a stream counts by its batches.
  long NumSamples(const Batch& batch) const;
  /// Whether some are to be drawn more often than others.
  bool has_importance() const;
  int num_exact_blocks() const;
  int num_residuals() const { return num_rows_; }
  const std::string& name() const { return name_; }

  /// Whether any term depends on the block.
  bool UsesX(int block) const { return uses_x_[block]; }
  bool UsesY(int block) const { return uses_y_[block]; }

  /// Whether no parameter of x is inside a loss, so that Linearize applies.
  bool CanLinearize() const { return !learnable_; }
  /// Whether that is all there is: a sum of squares, or of robust losses.
  bool IsLeastSquares() const { return terms_.empty() && !learnable_; }
  /// Whether a residual block depends on y.
  bool ResidualsUseY() const;
  /// Lower triangle of d^2/dy^2 and all of d^2/dydx (y down, x across), both zero-valued, in
  /// tangent coordinates.
  const SparseMatrix& yy_pattern() const { return yy_; }
  const SparseMatrix& yx_pattern() const { return yx_; }
  /// False where a general term is too long for an assembled Hessian.
  bool has_sparse_hessian() const { return has_sparse_hessian_; }

  /// What an evaluation reads. The arguments of all residual blocks and terms stand one after the
  /// other, each term's from its `first` on.
  const std::vector<Argument>& arguments() const { return arguments_; }
  const std::vector<Residual>& residuals() const { return residuals_; }
  const std::vector<Term>& terms() const { return terms_; }
  /// The residual blocks that minibatches draw from, how often (nullptr: all equally), and those in
  /// every batch.
  const std::vector<int>& drawn() const { return drawn_; }
  const Importance* importance() const { return importance_.get(); }
  const std::vector<int>& always() const { return always_; }
  ceres::EvaluationCallback* callback() const { return callback_; }  ///< nullptr: none.
  /// Gives the matrix the pattern of Linearize's Jacobian by x or y, unless it has that. It is not
  /// kept: it would be as large as all else, and many levels are never linearised.
  void LayOutRows(Argument::Kind kind, RowSparseMatrix* matrix) const;
  /// The largest of each kind over all residual blocks.
  struct Largest {
    int ambient = 0, local = 0, residuals = 0, arguments = 0, theta = 0;
  };
  const Largest& largest() const { return largest_; }
  /// Calls body(p, q, in_yy) for every stored block of the Hessian of a term with these arguments,
  /// in a fixed order: that of `slots` from its first_slot on.
  template <typename Body>
  void ForEachHessianBlock(int first, int num, Body body) const;
  /// Where each of them begins within the first column it crosses of a pattern.
  const std::vector<int>& slots() const { return slots_; }

 private:
  Argument Resolve(double* user, int size, int* local, int* ambient);

  const Space* x_;
  const Space* y_;
  std::string name_;
  std::vector<Argument> arguments_;
  std::vector<Residual> residuals_;
  std::vector<Term> terms_;
  std::vector<int> drawn_, always_;         // Residual blocks.
  std::vector<double> sampling_weights_;    // Of drawn_.
  std::unique_ptr<Importance> importance_;  // nullptr: uniform.
  std::vector<char> uses_x_, uses_y_;
  std::vector<int> slots_;
  SparseMatrix yy_, yx_;
  int num_rows_ = 0;
  int64_t row_nonzeros_[2] = {0, 0};  // Of Linearize's Jacobians, by Argument::Kind.
  Largest largest_;
  bool learnable_ = false, has_sparse_hessian_ = true;
  ceres::EvaluationCallback* callback_ = nullptr;
};

template <typename Body>
void LevelFunction::ForEachHessianBlock(int first, int num, Body body) const {
  for (int p = first; p < first + num; ++p) {
    if (arguments_[p].kind != Argument::kY) continue;
    for (int q = first; q < first + num; ++q) {
      if (arguments_[q].kind == Argument::kX) {
        body(arguments_[p], arguments_[q], false);
      } else if (arguments_[q].kind == Argument::kY && arguments_[p].block >= arguments_[q].block) {
        body(arguments_[p], arguments_[q], true);
      }
    }
  }
}

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_LEVEL_FUNCTION_H_
