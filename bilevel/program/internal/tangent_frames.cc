#include "bilevel/program/internal/tangent_frames.h"

#include "bilevel/base/internal/thrown.h"

namespace bilevel {

using Argument = LevelFunction::Argument;

static_assert(Argument::kX == 0 && Argument::kY == 1, "They are indices.");

TangentFrames::Level::Level(const Space& s) : space(s), stamps(s.blocks().size(), 0) {
  int size = 0;
  for (const Space::Block& block : s.blocks()) {
    offsets.push_back(size);
    if (block.manifold) size += block.size * block.tangent_size;
  }
  plus.resize(size);
  touched.reserve(stamps.size());
}

void TangentFrames::Begin(const double* x, const double* y) {
  ++stamp_;
  levels_[0].point = x;
  levels_[1].point = y;
  for (Level& level : levels_) level.touched.clear();
}

bool TangentFrames::Touch(Argument::Kind kind, int b, std::string* error) {
  Level& level = levels_[kind];
  if (level.stamps[b] == stamp_) return true;
  level.stamps[b] = stamp_;
  level.touched.push_back(b);
  const Space::Block& block = level.space.blocks()[b];
  if (!block.manifold) return true;
  const auto who = [&] { return "the manifold of " + block.name; };
  const auto differentiate = [&] {
    return block.manifold->PlusJacobian(level.point + block.offset, &level.plus[level.offsets[b]]);
  };
  if (NameThrown(who, differentiate)) return true;
  *error = who() + " could not be differentiated";
  return false;
}

}  // namespace bilevel
