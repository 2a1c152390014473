#ifndef BILEVEL_TERMS_BATCH_H_
#define BILEVEL_TERMS_BATCH_H_

#include <cstdint>
#include <vector>

namespace bilevel {

/// SplitMix64 (Steele, Lea and Flood, 2014): a 64-bit number that looks random for every z.
inline uint64_t Mix(uint64_t z) {
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// Terms drawn with probabilities proportional to given weights, in constant time a draw (Walker's
/// alias method). Immutable.
class Importance {
 public:
  /// Positive and finite, at least one.
  explicit Importance(const std::vector<double>& weights);
  int Draw(uint64_t random) const;
  double probability(int term) const { return probability_[term]; }
  int num_terms() const { return static_cast<int>(probability_.size()); }

 private:
  std::vector<double> probability_, threshold_;
  std::vector<int> alias_;
};

/// Which terms of a sum an evaluation is over, and with which weights: a value that can be stored
/// and replayed. The drawn terms depend on the members alone, so the same Batch means the same
/// terms at every point and on every thread.
///
///     for (int k = 0; k < batch.Count(n); ++k) {
///       sum += batch.Weight(k, n) * term[batch.Term(k, n)];     // The sum of all n on average.
///     }
struct Batch {
  enum Sampling {
    kIndependent,     ///< Each term by itself: with replacement.
    kDistinct,        ///< Without replacement within a batch.
    kShuffled,        ///< Epochs: every term once before any is drawn again.
    kBlocks,          ///< `size` neighbours: block b is terms b size ... (b + 1) size - 1.
    kShuffledBlocks,  ///< Blocks, every one once an epoch.
    kBlock,           ///< The block of number `position`.
  };
  int size = 0;  ///< 0: every term, once.
  uint64_t seed = 0;
  Sampling sampling = kIndependent;
  uint64_t position = 0;                   ///< How many batches of the stream come before this one.
  const Importance* importance = nullptr;  ///< kIndependent only: other than uniform. Not owned.

  static Batch All() { return {}; }
  /// The number-th block of `size` neighbours. One(i) is term i alone.
  static Batch Block(int size, int number) {
    return {size, 0, kBlock, static_cast<uint64_t>(number)};
  }
  static Batch One(int term) { return Block(1, term); }
  bool all() const { return size == 0; }
  bool is_block() const { return sampling >= kBlocks; }

  /// How many terms are drawn out of num_terms; 0 of them are a stream, of which `size` come.
  int Count(int num_terms) const {
    if (all()) return num_terms;
    if (!is_block() || num_terms == 0) return size;
    const int first = Term(0, num_terms);
    return size < num_terms - first ? size : num_terms - first;
  }

  /// The k-th drawn term, 0 <= k < Count(num_terms).
  int Term(int k, int num_terms) const;

  /// What the k-th drawn term counts for: the weighted sum is num_terms times the mean term on
  /// average (of a stream: the mean).
  double Weight(int k, int num_terms) const {
    if (all()) return 1.0;
    if (is_block()) return num_terms == 0 ? 1.0 / size : NumBlocks(num_terms);
    if (importance) return 1.0 / (size * importance->probability(Term(k, num_terms)));
    return (num_terms == 0 ? 1.0 : num_terms) / static_cast<double>(size);
  }

  int NumBlocks(int num_terms) const { return (num_terms + size - 1) / size; }

  /// Where the drawn terms are neighbours: the first of them, and one weight for all. Otherwise -1.
  int First(int num_terms) const { return all() ? 0 : is_block() ? Term(0, num_terms) : -1; }
};

}  // namespace bilevel

#endif  // BILEVEL_TERMS_BATCH_H_
