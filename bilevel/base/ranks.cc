#include "bilevel/base/ranks.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace bilevel {
namespace {

constexpr int kStepSize = Ranks::kHeaderSize - static_cast<int>(sizeof(uint64_t));

std::string HeaderOf(const std::string& step, uint64_t key) {
  std::string header(Ranks::kHeaderSize, '\0');
  std::copy_n(step.begin(), std::min<size_t>(step.size(), kStepSize - 1), header.begin());
  std::memcpy(&header[kStepSize], &key, sizeof(key));
  return header;
}

}  // namespace

std::vector<std::string> Ranks::Gather(const std::string& step,
                                       uint64_t key,
                                       const std::string& own) {
  if (are_apart()) throw std::runtime_error(apart_);
  const std::string header = HeaderOf(step, key);
  ++num_gathers_;
  num_bytes_ += static_cast<long>(kHeaderSize + own.size());
  std::vector<std::string> all = Exchange(header + own);
  const std::string first = all[0].substr(0, kHeaderSize);
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r].compare(0, kHeaderSize, first) == 0) continue;
    const std::string name = "rank " + std::to_string(r);
    const std::string at = all[r].c_str(), at_first = first.c_str();
    apart_ = at == at_first ? name + " has another x than rank 0, " + at
                            : name + " stands " + at + ", and rank 0 " + at_first;
    // Who ends says why.
    for (const size_t who : {r, size_t{0}}) {
      const std::string why = all[who].substr(kHeaderSize);
      if (all[who].compare(0, sizeof(kAtItsEnd) - 1, kAtItsEnd) == 0 && !why.empty()) {
        apart_ += "; rank " + std::to_string(who) + ": " + why;
      }
    }
    throw std::runtime_error(apart_);
  }
  for (std::string& text : all) text.erase(0, kHeaderSize);
  return all;
}

}  // namespace bilevel
