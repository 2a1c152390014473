#ifndef BILEVEL_EXAMPLES_SUPPORT_POSITION_ERROR_H_
#define BILEVEL_EXAMPLES_SUPPORT_POSITION_ERROR_H_

namespace examples {

/// A place in the plane, the first two entries of a pose or a state, less where it should be.
struct PositionError {
  template <typename T>
  bool operator()(const T* pose, T* r) const {
    r[0] = pose[0] - x;
    r[1] = pose[1] - y;
    return true;
  }
  double x, y;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_POSITION_ERROR_H_
