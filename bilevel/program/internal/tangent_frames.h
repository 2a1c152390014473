#ifndef BILEVEL_PROGRAM_INTERNAL_TANGENT_FRAMES_H_
#define BILEVEL_PROGRAM_INTERNAL_TANGENT_FRAMES_H_

#include <algorithm>
#include <string>
#include <vector>

#include "bilevel/program/level_function.h"
#include "bilevel/program/space.h"

namespace bilevel {

// The blocks that an evaluation depends on, each with its tangent frame: the Jacobian of its
// manifold's Plus at the point.
class TangentFrames {
 public:
  TangentFrames(const Space& x, const Space& y) : levels_{Level(x), Level(y)} {}

  // No block yet, at this point.
  void Begin(const double* x, const double* y);
  // Adds a block, of x (kX) or of y (kY). False, with a sentence, where its manifold fails.
  bool Touch(LevelFunction::Argument::Kind kind, int block, std::string* error);
  // Adds what an argument is of, unless it is a constant.
  bool Touch(const LevelFunction::Argument& a, std::string* error) {
    return a.kind == LevelFunction::Argument::kConstant || Touch(a.kind, a.block, error);
  }
  // In the order of Touch.
  const std::vector<int>& touched_x() const { return levels_[0].touched; }
  const std::vector<int>& touched_y() const { return levels_[1].touched; }

  // Row-major size x tangent_size, or nullptr for the identity.
  const double* PlusJacobian(const LevelFunction::Argument& a) const {
    if (!a.has_manifold) return nullptr;
    const Level& level = levels_[a.kind];
    return &level.plus[level.offsets[a.block]];
  }
  // out(tangent) = scale * P' in(ambient).
  void Project(const LevelFunction::Argument& a,
               double scale,
               const double* in,
               double* out) const {
    const double* const plus = PlusJacobian(a);
    if (!plus) {
      for (int i = 0; i < a.size; ++i) out[i] = scale * in[i];
      return;
    }
    for (int j = 0; j < a.tangent_size; ++j) {
      double sum = 0.0;
      for (int i = 0; i < a.size; ++i) sum += plus[i * a.tangent_size + j] * in[i];
      out[j] = scale * sum;
    }
  }
  // out(ambient) = P in(tangent).
  void Lift(const LevelFunction::Argument& a, const double* in, double* out) const {
    const double* const plus = PlusJacobian(a);
    if (!plus) {
      std::copy_n(in, a.size, out);
      return;
    }
    for (int i = 0; i < a.size; ++i) {
      double sum = 0.0;
      for (int j = 0; j < a.tangent_size; ++j) sum += plus[i * a.tangent_size + j] * in[j];
      out[i] = sum;
    }
  }

 private:
  struct Level {
    explicit Level(const Space& space);
    const Space& space;
    const double* point = nullptr;
    std::vector<double> plus;
    std::vector<int> offsets;  // Of each block within it.
    std::vector<unsigned> stamps;
    std::vector<int> touched;
  };
  Level levels_[2];  // By Argument::Kind.
  unsigned stamp_ = 0;
};

}  // namespace bilevel

#endif  // BILEVEL_PROGRAM_INTERNAL_TANGENT_FRAMES_H_
