#ifndef BILEVEL_PROGRAM_INTERNAL_ASSEMBLY_H_
#define BILEVEL_PROGRAM_INTERNAL_ASSEMBLY_H_

#include <string>
#include <vector>

#include "bilevel/program/internal/block_derivatives.h"
#include "bilevel/program/internal/evaluation.h"
#include "bilevel/program/level_function.h"

namespace bilevel {

// Adds the derivatives of residual blocks and general terms up to those of their LevelFunction, and
// what the curvature of the manifolds of y contributes. Nothing is owned.
class Assembly {
 public:
  Assembly(const LevelFunction& function, const Evaluation& evaluation);

  // Begins an evaluation with second derivatives, which touches these blocks of y.
  void Begin(const std::vector<int>& touched_y);
  // Adds scale times the derivatives of a residual block or term: its first argument, their number,
  // and its first slot (see LevelFunction). Hessians come from whole sums only, with scale 1.
  void Add(double scale, int first, int num, int first_slot, BlockDerivatives* block);
  // Adds a term's ambient gradient by one argument, where its manifold is curved.
  void AddAmbientGradient(double scale, const LevelFunction::Argument& a, const double* gradient);
  // Adds the curvature of the manifolds to the Hessian or the product, when all else is. False,
  // with a sentence, where a manifold fails.
  bool AddCurvature(const std::vector<int>& touched_y, std::string* error);
  // False, with a sentence that names the blocks, where the Hessian is not finite.
  bool CheckHessian(std::string* error) const;

 private:
  void AddGradient(double scale, int first, int num, const double* from, double* gx, double* gy);
  void AddHessian(int first, int num, int first_slot, BlockDerivatives* block);

  const LevelFunction& function_;
  const Evaluation& e_;
  Vector ambient_gradient_;  // By y.
  std::vector<double> curvature_;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_INTERNAL_ASSEMBLY_H_
