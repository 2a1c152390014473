#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_NAME_BLOCKS_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_NAME_BLOCKS_H_

#include <functional>
#include <string>

#include "bilevel/program/space.h"

namespace bilevel {

/// "y[3], pose and 2 more": the blocks that have a share of the whole, the largest first.
std::string NameBlocks(const Space& space,
                       double whole,
                       const std::function<double(const Space::Block&)>& share);

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_NAME_BLOCKS_H_
