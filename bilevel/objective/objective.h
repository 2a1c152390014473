#ifndef BILEVEL_OBJECTIVE_OBJECTIVE_H_
#define BILEVEL_OBJECTIVE_OBJECTIVE_H_

#include <cstdint>
#include <vector>

namespace bilevel {

/// Which terms of a sum an evaluation is over: a value that can be stored and replayed.
///
/// The terms of a minibatch are drawn independently and uniformly (with replacement) by a
/// counter-based generator from `seed` alone, so the same Batch means the same terms at every
/// point and on every thread.
struct Batch {
  int size = 0;  ///< 0: every term, once.
  uint64_t seed = 0;

  static Batch All() { return {}; }
  bool all() const { return size == 0; }

  /// The k-th drawn term out of num_terms, 0 <= k < size.
  int Term(int k, int num_terms) const {
    // SplitMix64 (Steele, Lea and Flood, 2014) of (seed, k), then a multiply-shift reduction.
    uint64_t z = seed + (static_cast<uint64_t>(k) + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    return static_cast<int>(((z >> 32) * static_cast<uint64_t>(num_terms)) >> 32);
  }
};

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

  /// The number of terms (samples) the function is a sum of; what Batch draws from.
  virtual int num_terms() const { return 1; }

  /// Adds nothing, writes everything: *value, and gradients[i] (the size of block i) where
  /// gradients and gradients[i] are not nullptr. Over a minibatch it is an unbiased estimate of
  /// the whole: the drawn terms times num_terms() / batch.size. False: cannot be evaluated here.
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
};

}  // namespace bilevel

#endif  // BILEVEL_OBJECTIVE_OBJECTIVE_H_
