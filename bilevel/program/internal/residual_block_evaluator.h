#ifndef BILEVEL_PROGRAM_INTERNAL_RESIDUAL_BLOCK_EVALUATOR_H_
#define BILEVEL_PROGRAM_INTERNAL_RESIDUAL_BLOCK_EVALUATOR_H_

#include <string>
#include <vector>

#include "bilevel/derivatives/internal/numeric_hessian.h"
#include "bilevel/program/internal/block_derivatives.h"
#include "bilevel/program/internal/evaluation.h"
#include "bilevel/program/internal/tangent_frames.h"
#include "bilevel/program/level_function.h"

namespace bilevel {

// Evaluates one residual block of a LevelFunction after the other, 1/2 rho(|r(x, y)|^2), as the
// evaluation under way wants it. Owns the scratch of one thread and allocates nothing after its
// construction; function, evaluation and frames must outlive it.
//
// Every function returns false, with error() naming the block, where the cost function fails or
// throws, or where residuals or loss are not finite.
class ResidualBlockEvaluator {
 public:
  ResidualBlockEvaluator(const LevelFunction& function,
                         const Evaluation& evaluation,
                         const TangentFrames& frames);

  // Writes what the evaluation's order asks for; the rows of kRows go where they belong, each
  // block's being its own.
  bool Evaluate(int index, BlockDerivatives* block);
  // The serial way to a gradient: as Evaluate and Assembly::Add, entry by entry the same
  // arithmetic, without memory between them. *probe becomes NaN where something not finite was
  // added.
  bool AddGradient(int index, double scale, double* value, double* probe);

  const std::string& error() const { return error_; }

 private:
  using Argument = LevelFunction::Argument;
  using Residual = LevelFunction::Residual;
  template <typename Body>
  bool Guarded(const Residual& r, Body body);
  bool Fail(const Residual& r, const std::string& what);
  const Argument* Arguments(const Residual& r) const { return &function_.arguments()[r.first]; }
  void FindArguments(const Residual& r, bool want_x, bool want_y);
  bool Tapes(const Residual& r) const;
  bool EvaluateCost(const Residual& r, internal::Recording* recording);
  bool EvaluateOrder(const Residual& r, internal::Recording* recording, BlockDerivatives* block);
  bool AddGradient(const Residual& r,
                   internal::Recording* recording,
                   double scale,
                   double* value,
                   double* probe);
  void WriteRows(const Residual& r);
  void MultiplyJacobian(const Residual& r);
  void ProjectThetas(const Residual& r, double scale, const double* by_theta, double* out) const;
  void ProjectGradient(const Residual& r, double* out) const;
  void PrepareCurvature(const Residual& r, BlockDerivatives* block);

  bool EvaluateProduct(const Residual& r, internal::Recording* recording, BlockDerivatives* block);
  void LiftDirection(const Residual& r);
  bool MultiplyHessian(const Residual& r);
  bool EvaluateHessian(const Residual& r, internal::Recording* recording, BlockDerivatives* block);
  void EvaluateGaussNewton(const Residual& r, BlockDerivatives* block);
  int LiftDirections(const Residual& r);
  bool MultiplyDirections(const Residual& r, int count);
  void ProjectHessian(const Residual& r, int count, BlockDerivatives* block);
  void ProjectThetaHessian(const Residual& r, BlockDerivatives* block);

  const LevelFunction& function_;
  const Evaluation& e_;
  const TangentFrames& frames_;
  // What belongs to the block under way, in ambient coordinates.
  std::vector<const double*> parameters_;
  std::vector<double*> jacobian_pointers_;
  std::vector<double> residuals_, jacobians_;
  double rho_[3];
  // d rho and d rho' by the loss's parameters.
  std::vector<double> theta_value_, theta_slope_;
  std::vector<double> weights_;   // rho' r
  std::vector<double> gradient_;  // J'r
  // One direction v, H v and J v.
  std::vector<double> direction_, product_, jv_;
  // The tangent directions of y, and H and J times them.
  std::vector<double> directions_, products_, along_;
  // J in one, H, and P'H times the directions for a manifold's Plus Jacobian P.
  std::vector<double> stacked_, hessian_, half_;
  NumericHessianWorkspace workspace_;
  std::string error_;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_INTERNAL_RESIDUAL_BLOCK_EVALUATOR_H_
