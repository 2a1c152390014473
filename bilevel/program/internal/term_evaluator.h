#ifndef BILEVEL_PROGRAM_INTERNAL_TERM_EVALUATOR_H_
#define BILEVEL_PROGRAM_INTERNAL_TERM_EVALUATOR_H_

#include <string>
#include <vector>

#include "bilevel/program/internal/assembly.h"
#include "bilevel/program/internal/block_derivatives.h"
#include "bilevel/program/internal/evaluation.h"
#include "bilevel/program/internal/tangent_frames.h"
#include "bilevel/program/level_function.h"

namespace bilevel {

// Evaluates the general terms of a LevelFunction as the evaluation under way wants it, straight
// into its results where nothing stands there yet. All arguments of the constructor must outlive
// it.
//
// Every function returns false, with error() naming the term and, where it can be found, the sample
// at fault, where an Objective fails, throws or is not finite.
class TermEvaluator {
 public:
  TermEvaluator(const LevelFunction& function,
                const Evaluation& evaluation,
                TangentFrames* frames,
                Assembly* assembly);

  // Begins an evaluation with derivatives: the frames, which know the residual blocks' (of a whole
  // sum: all), are told the blocks that the terms depend on.
  bool Begin(const Batch& batch);
  // Adds a term over its own share of the batch.
  bool Evaluate(int index, const Batch& batch, double* value);
  // The parts of blocks of x that a minibatch depends on, where it is not the whole block.
  const std::vector<SparseVector::Range>& touched_parts_of_x() const { return touched_parts_; }
  // Whether some sample of the batch has a value or a derivative that is not finite, or fails;
  // error() then says of it `what`.
  bool BlameSample(int index, const Batch& batch, const char* what);

  const std::string& error() const { return error_; }

 private:
  using Argument = LevelFunction::Argument;
  using Term = LevelFunction::Term;
  Batch Share(int index, const Batch& batch) const;
  bool Fail(int index, const std::string& what);
  bool FailSample(int index, const Batch& own, const char* what);
  bool FindSample(const Term& term, const Batch& own, int* sample);
  int PartlyTouched(const Term& term, const Batch& batch) const;
  void TouchParts(const Argument& a, const Batch& own, int num_terms);
  const Argument* Arguments(const Term& term) const { return &function_.arguments()[term.first]; }
  void FindArguments(const Term& term);
  double* Target(int argument, double* out_x, double* out_y, double* scratch) const;
  double** Targets(const Term& term,
                   const Batch& own,
                   double* out_x,
                   double* out_y,
                   double* scratch,
                   std::vector<double*>* targets) const;
  double** AmbientTargets(const Term& term, const Batch& own);
  double** Pointers(const Term& term, double* to);
  void AddTangent(const Term& term, const double* scratch, double* out_x, double* out_y) const;
  bool EvaluateShare(int index, const Batch& own, double* value);
  bool EvaluateGradient(int index, const Batch& own, double* value);
  bool EvaluateProduct(int index, const Batch& own, double* value);
  bool LiftDirection(const Term& term);
  bool EvaluateHessian(int index, double* value);
  BlockDerivatives HessianBlock(const Term& term);
  bool DifferenceGradient(const Term& term, const Batch& own, double* product);

  const LevelFunction& function_;
  const Evaluation& e_;
  TangentFrames& frames_;
  Assembly& assembly_;
  std::vector<char> is_alone_;  // By argument: a block of x that is no other's, and flat.
  // By argument: nothing is added to its block before.
  std::vector<char> is_first_, is_first_in_all_;
  std::vector<SparseVector::Range> touched_parts_;
  // Of the term under way; in ambient coordinates, one argument after the other.
  std::vector<const double*> parameters_, direction_pointers_;
  std::vector<double*> pointers_, gradient_pointers_;
  std::vector<double> gradient_, product_, direction_, hessian_;
  std::vector<double> shifted_, difference_;
  std::vector<double*> difference_pointers_;
  std::string error_;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_INTERNAL_TERM_EVALUATOR_H_
