#include "bilevel/lower_level/internal/secant_correction.h"

#include <algorithm>

#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/memory.h"

namespace bilevel {

void SecantCorrection::Add(const Vector& step, const Vector& change) {
  const double curvature = step.dot(change);
  if (!(curvature > kLeastCurvature * step.norm() * change.norm())) return;
  if (changes_.size() == 0) {  // The last of both, which may have thrown.
    steps_.setZero(step.size(), kMostPairs);
    changes_.setZero(step.size(), kMostPairs);
  }
  if (num_pairs_ == kMostPairs) {  // Forget the oldest.
    for (int k = 1; k < kMostPairs; ++k) {
      steps_.col(k - 1) = steps_.col(k);
      changes_.col(k - 1) = changes_.col(k);
    }
    std::copy(curvature_ + 1, curvature_ + kMostPairs, curvature_);
    --num_pairs_;
  }
  steps_.col(num_pairs_) = step;
  changes_.col(num_pairs_) = change;
  curvature_[num_pairs_++] = curvature;
}

void SecantCorrection::Remember(Memory* memory) {
  const Memory::Group group(memory, "secant");
  memory->Keep("num_pairs", &num_pairs_);
  memory->Keep("steps", &steps_);
  memory->Keep("changes", &changes_);
  // What no pair has set is nothing to read, nor to write.
  std::fill(curvature_ + num_pairs_, curvature_ + kMostPairs, 0.0);
  memory->KeepRange("curvature", curvature_, kMostPairs);
}

}  // namespace bilevel
