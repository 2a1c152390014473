#ifndef BILEVEL_ORACLE_LEVEL_VIEW_H_
#define BILEVEL_ORACLE_LEVEL_VIEW_H_

#include <string>
#include <vector>

#include "bilevel/program/program.h"
#include "bilevel/program/space.h"
#include "bilevel/terms/batch.h"
#include "bilevel/types.h"

namespace bilevel {

class Oracle;

/// f or g as a method sees it: counted, latching, over everything or over one batch. Over ranks
/// values and all in x are those of all scenarios, what is in y is this rank's; sparse vectors and
/// Hessian blocks are to be had in a process alone only.
class LevelView {
 public:
  double Value(const Point& x, const Point& y);
  /// Writes the gradients (tangent); either may be nullptr. Returns the value.
  double Gradient(const Point& x, const Point& y, Vector* gx, Vector* gy);
  /// The same at the cost of what the batch touches, as the other two below.
  double Gradient(const Point& x, const Point& y, SparseVector* gx, SparseVector* gy);
  /// For a direction v in y: yy_v = (d^2/dy^2) v, xy_v = (d^2/dxdy) v (may be nullptr).
  void HessianProduct(const Point& x, const Point& y, const Vector& v, Vector* yy_v, Vector* xy_v);
  void HessianProduct(
      const Point& x, const Point& y, const Vector& v, SparseVector* yy_v, SparseVector* xy_v);
  /// The gradient in y and HessianProduct at once, for little more than the latter; counts as both.
  double GradientAndProduct(const Point& x,
                            const Point& y,
                            const Vector& v,
                            SparseVector* gy,
                            SparseVector* yy_v,
                            SparseVector* xy_v);
  /// The residuals sqrt(rho') r and their total derivative J = Jx + Jy dy_dx along y*(x), so that
  /// J'r is the hypergradient of their sum of squares. Returns its value. General terms are left
  /// out; losses must have no learned parameters (CanLinearize).
  double Linearize(const Point& x, const Point& y, const Matrix& dy_dx, Vector* r, Matrix* j);
  bool CanLinearize() const;
  /// Whether there are no general terms besides.
  bool IsLeastSquares() const;
  /// Whether a residual block depends on y.
  bool ResidualsUseY() const;
  /// The diagonal blocks of the Gauss-Newton Hessian in y (of general terms: of their Hessian), one
  /// a parameter block: tangent size squared entries each, one after the other. Counts as a
  /// linearisation; minibatches are not looked at.
  void HessianBlocks(const Point& x, const Point& y, Vector* blocks);
  /// The lower triangle of all of it; its pattern is always the same.
  void GaussNewtonHessian(const Point& x, const Point& y, SparseMatrix* lower);

  /// What minibatches draw from: the number of terms of every sum, see LevelFunction::DrawnFrom.
  std::vector<int> DrawnFrom() const;
  /// Terms in an evaluation over everything; streams not counted.
  long num_terms() const;
  /// Samples of the counts over num_terms(); NaN where a term is a stream.
  double Epochs(const FunctionCounts& counts) const;
  bool has_importance() const;

  /// The same function over a minibatch.
  LevelView operator()(const Batch& batch) const {
    LevelView f = *this;
    f.batch_ = batch;
    return f;
  }

 private:
  friend class Oracle;
  LevelView(Oracle* oracle, bool upper) : oracle_(oracle), upper_(upper) {}
  template <typename Body>
  bool ForEachPart(Body body);
  template <typename Evaluate>
  bool Sum(const Point& x, Evaluate evaluate, double* sum, Vector* in_x, Vector* in_y);
  bool SumOverRanks(const Point& x, double* sum, Vector* in_x, Vector* in_y);
  bool JoinRows(double* sum, Vector* r, Matrix* j);
  template <typename Is>
  bool Any(Is is) const;
  double WeightOf(const Program::Scenario& scenario) const;
  std::string ErrorOf(int place) const;
  template <typename Evaluate>
  double ForEachSparsePart(const Point& x,
                           const Point& y,
                           SparseVector* in_x,
                           SparseVector* in_y,
                           SparseVector* more_in_y,
                           Evaluate evaluate);
  template <typename Body>
  void ForEachHessian(const Point& x, const Point& y, Body body);
  const LevelFunction& LevelOf(const Program::Scenario& scenario) const;
  Batch BatchOf(int scenario) const;
  FunctionCounts& counts();

  Oracle* oracle_;
  bool upper_;
  Batch batch_;
};

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_LEVEL_VIEW_H_
