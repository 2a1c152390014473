#ifndef BILEVEL_MODELS_INTERNAL_CHECK_SIZES_H_
#define BILEVEL_MODELS_INTERNAL_CHECK_SIZES_H_

#include <string>
#include <vector>

namespace bilevel {

// Objective::CheckBlocks of a term with the blocks {Theta}, or {Theta, weights}.
inline std::string CheckSizes(const std::vector<int>& sizes,
                              const std::string& who,
                              int theta,
                              int num_weights) {
  const size_t blocks = num_weights > 0 ? 2 : 1;
  if (sizes.size() != blocks) {
    return who + " takes " +
           (blocks == 2 ? "two blocks, Theta and its weights" : "one block, Theta") + ", not " +
           std::to_string(sizes.size());
  }
  for (size_t i = 0; i < blocks; ++i) {
    const int size = i == 0 ? theta : num_weights;
    if (sizes[i] == size) continue;
    return who + (i == 0 ? "'s Theta has the size " : "'s weights have the size ") +
           std::to_string(sizes[i]) + ", not " + std::to_string(size);
  }
  return "";
}

}  // namespace bilevel

#endif  // BILEVEL_MODELS_INTERNAL_CHECK_SIZES_H_
