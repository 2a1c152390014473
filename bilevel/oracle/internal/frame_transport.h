#ifndef BILEVEL_ORACLE_INTERNAL_FRAME_TRANSPORT_H_
#define BILEVEL_ORACLE_INTERNAL_FRAME_TRANSPORT_H_

#include <string>
#include <vector>

#include "bilevel/program/space.h"

namespace bilevel {

/// Tangent coordinates of nearby points compared. Each point of a manifold has a basis P of its own
/// (the Jacobian of Plus), which need not turn smoothly: beside the pole of Ceres' spheres it
/// flips. Between two points v goes by orthogonal projection in the ambient space,
///
///     v' = (P''P')^-1 P'' P v,
///
/// which is smooth whatever the bases are. Flat blocks keep their coordinates.
class FrameTransport {
 public:
  /// The space is not owned.
  explicit FrameTransport(const Space* space);

  /// The point that vectors come from. False: a manifold fails, see message().
  bool SetBase(const Point& point) { return Differentiate(point, &base_); }
  /// The point that they go to. False as above.
  bool SetTarget(const Point& point);
  /// A vector's coordinates at the target.
  void ToTarget(Vector* v) const;
  /// A gradient's, taken at the target, at the base: the transpose of that.
  void ToBase(Vector* gradient) const;
  /// The ambient gradient of least norm of a block whose tangent one at the base is given.
  Vector AmbientAtBase(int block, const Vector& gradient) const;
  const std::string& message() const { return message_; }

 private:
  bool Differentiate(const Point& point, std::vector<Matrix>* bases);

  const Space& space_;
  std::vector<Matrix> base_, target_, map_;  // By block; empty where it is flat.
  std::string message_;
};

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_INTERNAL_FRAME_TRANSPORT_H_
