#ifndef BILEVEL_UPPER_LEVEL_INTERNAL_COORDINATE_NAMES_H_
#define BILEVEL_UPPER_LEVEL_INTERNAL_COORDINATE_NAMES_H_

#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/program/space.h"

namespace bilevel {

/// "'log sigma'[2]" for each ambient coordinate of x.
inline std::vector<std::string> NameCoordinates(const Problem& problem, const Space& x) {
  std::vector<std::string> names;
  for (size_t b = 0; b < x.blocks().size(); ++b) {
    const Space::Block& block = x.blocks()[b];
    const std::string name = problem.NameOf(block.user, "x block " + std::to_string(b));
    for (int i = 0; i < block.size; ++i) {
      names.push_back(block.size == 1 ? name : name + "[" + std::to_string(i) + "]");
    }
  }
  return names;
}

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_INTERNAL_COORDINATE_NAMES_H_
