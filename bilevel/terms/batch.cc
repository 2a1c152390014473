#include "bilevel/terms/batch.h"

#include <numeric>

namespace bilevel {
namespace {

// A number in [0, n) from 64 random bits.
int Reduce(uint64_t random, int n) {
  return static_cast<int>(((random >> 32) * static_cast<uint64_t>(n)) >> 32);
}

// Entry i of a random permutation of [0, n) that `key` stands for. Each round is a bijection of
// [0, 2^b), the smallest power of two that holds n; walking on until the result is below n makes
// it one of [0, n).
int Permute(uint64_t key, int i, int n) {
  if (n <= 1) return 0;
  int bits = 1;
  while (bits < 31 && (1u << bits) < static_cast<unsigned>(n)) ++bits;
  const uint32_t mask = (1u << bits) - 1;
  const int shift = (bits + 1) / 2;
  uint32_t x = static_cast<uint32_t>(i);
  do {
    uint64_t k = key;
    for (int round = 0; round < 6; ++round) {
      k = Mix(k);
      x = (x + static_cast<uint32_t>(k)) & mask;
      x = (x * (static_cast<uint32_t>(k >> 32) | 1u)) & mask;
      x ^= x >> shift;
    }
  } while (x >= static_cast<uint32_t>(n));
  return static_cast<int>(x);
}

}  // namespace

Importance::Importance(const std::vector<double>& weights)
    : probability_(weights), threshold_(weights.size()), alias_(weights.size()) {
  const int n = num_terms();
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int> small, large;
  for (int i = 0; i < n; ++i) {
    probability_[i] /= sum;
    threshold_[i] = n * probability_[i];
    alias_[i] = i;
    (threshold_[i] < 1.0 ? small : large).push_back(i);
  }
  // Each column of height 1 holds a small term and, on top of it, a piece of a large one.
  while (!small.empty() && !large.empty()) {
    const int s = small.back(), l = large.back();
    small.pop_back();
    alias_[s] = l;
    threshold_[l] -= 1.0 - threshold_[s];
    if (threshold_[l] >= 1.0) continue;
    large.pop_back();
    small.push_back(l);
  }
  for (int i : small) threshold_[i] = 1.0;  // Rounding only.
  for (int i : large) threshold_[i] = 1.0;
}

int Importance::Draw(uint64_t random) const {
  const int column = Reduce(random, num_terms());
  const double fraction = static_cast<double>(Mix(random) >> 11) * 0x1p-53;
  return fraction < threshold_[column] ? column : alias_[column];
}

int Batch::Term(int k, int num_terms) const {
  if (all()) return k;
  const uint64_t n = static_cast<uint64_t>(num_terms);
  switch (sampling) {
    case kIndependent: {
      const uint64_t random = Mix(seed + static_cast<uint64_t>(k) * 0x9E3779B97F4A7C15ull);
      return importance ? importance->Draw(random) : Reduce(random, num_terms);
    }
    case kDistinct:
      return Permute(seed, k, num_terms);
    case kShuffled: {
      const uint64_t drawn = position * size + k;
      return Permute(Mix(seed + drawn / n), static_cast<int>(drawn % n), num_terms);
    }
    case kBlocks:
      return Reduce(Mix(seed), NumBlocks(num_terms)) * size + k;
    case kShuffledBlocks: {
      const uint64_t blocks = static_cast<uint64_t>(NumBlocks(num_terms));
      return size * Permute(Mix(seed + position / blocks),
                            static_cast<int>(position % blocks),
                            static_cast<int>(blocks)) +
             k;
    }
    case kBlock:
      break;
  }
  return static_cast<int>(position) * size + k;
}

}  // namespace bilevel
