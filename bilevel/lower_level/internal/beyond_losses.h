#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_BEYOND_LOSSES_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_BEYOND_LOSSES_H_

#include <string>
#include <vector>

#include "bilevel/program/level_function.h"

namespace bilevel {

/// A redescending loss is flat beyond its scale, and a block of y with no residual within it is
/// free. "; every residual of pose 3 is beyond its loss's scale, ..."; empty where there is none.
std::string BlocksBeyondLosses(const LevelFunction& g, const double* x, const double* y);

/// The residual blocks, by their number, that are beyond their loss's scale. What user code throws
/// goes through.
std::vector<int> ResidualsBeyondLosses(const LevelFunction& g, const double* x, const double* y);

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_BEYOND_LOSSES_H_
