#ifndef BILEVEL_TERMS_OBJECTIVE_H_
#define BILEVEL_TERMS_OBJECTIVE_H_

#include <string>
#include <vector>

#include "bilevel/terms/batch.h"

namespace bilevel {

/// A general term of f or g: any smooth function of some parameter blocks, for what is not a sum
/// of squared residuals (a log-determinant, a softmax regression by matrix products, ...).
/// Unlike residuals, its value is not halved.
///
///     class Entropy : public bilevel::Objective { ... };
///     problem.AddTerm(Level::kLower, std::make_unique<Entropy>(), {{weights, 5}});
///
/// All functions must be thread-safe; derivatives are in the blocks' ambient coordinates.
class Objective {
 public:
  virtual ~Objective() = default;

  /// The number of terms (samples) the function is a sum of; what Batch draws from. A function of
  /// one term is a part of every batch. kStream: an expectation, of which every batch is a sample.
  virtual int num_terms() const { return 1; }
  static constexpr int kStream = 0;

  /// Sentence on blocks of these sizes, in their order, that the function is not made for; empty if
  /// it is. Asked once, before anything is evaluated.
  virtual std::string CheckBlocks(const std::vector<int>& /*sizes*/) const { return ""; }

  /// How often to draw which term (kIndependent); nullptr: all equally often. Must not change.
  virtual const Importance* importance() const { return nullptr; }

  /// The block whose i-th coordinate only the i-th term depends on (its weight, say), or -1. Over a
  /// minibatch derivatives by it are handed in as zeros, of which a function that names it writes
  /// the drawn terms' alone: the evaluation costs what it touches, however many terms there are.
  virtual int block_of_terms() const { return -1; }

  /// Adds nothing, writes everything: *value, and gradients[i] (the size of block i) where
  /// gradients and gradients[i] are not nullptr. Over a minibatch it is an unbiased estimate of
  /// the whole: the drawn terms times their Batch::Weight. A stream makes or reads `size` samples
  /// that depend on the batch's seed and position alone, so that it can be replayed; the seeds of
  /// independent batches differ. batch.all() it refuses. False: cannot be evaluated here.
  virtual bool Evaluate(double const* const* blocks,
                        const Batch& batch,
                        double* value,
                        double** gradients) const = 0;

  /// Hessian times direction, over the same batch: products[i] for block i where not nullptr;
  /// a nullptr direction[i] is zero. Differenced from Evaluate (and reported) where this is not
  /// overridden: it then returns false and has_hessian_product() is false.
  virtual bool HessianProduct(double const* const* /*blocks*/,
                              const Batch& /*batch*/,
                              double const* const* /*direction*/,
                              double** /*products*/) const {
    return false;
  }
  virtual bool has_hessian_product() const { return false; }

  /// Evaluate and HessianProduct in one, for what they share.
  virtual bool EvaluateWithProduct(double const* const* blocks,
                                   const Batch& batch,
                                   double const* const* direction,
                                   double* value,
                                   double** gradients,
                                   double** products) const {
    return Evaluate(blocks, batch, value, gradients) &&
           HessianProduct(blocks, batch, direction, products);
  }
};

}  // namespace bilevel

#endif  // BILEVEL_TERMS_OBJECTIVE_H_
