#include "bilevel/lower_level/internal/name_blocks.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace bilevel {

std::string NameBlocks(const Space& space,
                       double whole,
                       const std::function<double(const Space::Block&)>& share) {
  constexpr size_t kMostNames = 5;
  constexpr double kNoShare = 1e-12;
  std::vector<std::pair<double, const Space::Block*>> shares;
  for (const Space::Block& block : space.blocks()) {
    const double own = share(block);
    if (own > kNoShare * whole) shares.emplace_back(own, &block);
  }
  std::sort(
      shares.begin(), shares.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string names;
  for (size_t i = 0; i < shares.size() && i < kMostNames; ++i) {
    names += (i ? ", " : "") + shares[i].second->name;
  }
  if (shares.size() > kMostNames) {
    names += " and " + std::to_string(shares.size() - kMostNames) + " more";
  }
  return names;
}

}  // namespace bilevel
