#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_STREAM_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_STREAM_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "ceres/rotation.h"

namespace examples {

/// Poses with times [s], ascending.
struct PoseStream {
  struct Pose {
    double t;
    std::array<double, 4> q;  ///< w, x, y, z.
    std::array<double, 3> p;
  };
  std::vector<Pose> poses;
  std::string notes;  ///< What was made of a file, a sentence a line, to be printed.

  /// Whether there are two poses before and after a time, or at it.
  bool Covers(double t) const {
    return poses.size() >= 4 && t >= poses[1].t && t <= poses[poses.size() - 2].t;
  }

  /// The pose between: a cubic polynomial through four neighbours, for the rotation in the vector
  /// part of the quaternions that lead there from the second one. The outermost ones beyond the
  /// ends.
  template <typename T>
  void Interpolate(const T& t, T* q, T* p) const {
    size_t k = 1, end = poses.size() - 3;
    while (k < end) {  // The last of 1 to size - 3 that is not after t.
      const size_t middle = (k + end + 1) / 2;
      if (t < poses[middle].t) {
        end = middle - 1;
      } else {
        k = middle;
      }
    }
    const Pose* four = &poses[k - 1];
    const std::array<double, 4>& base = four[1].q;
    const double inverse[4] = {base[0], -base[1], -base[2], -base[3]};
    T v[3] = {T(0.0), T(0.0), T(0.0)};
    for (int i = 0; i < 3; ++i) p[i] = T(0.0);
    for (int m = 0; m < 4; ++m) {
      T weight(1.0);
      for (int n = 0; n < 4; ++n) {
        if (n != m) weight *= (t - four[n].t) / (four[m].t - four[n].t);
      }
      double from_base[4];
      ceres::QuaternionProduct(inverse, four[m].q.data(), from_base);
      const double sign = from_base[0] < 0.0 ? -1.0 : 1.0;
      for (int i = 0; i < 3; ++i) {
        v[i] += weight * (sign * from_base[1 + i]);
        p[i] += weight * four[m].p[i];
      }
    }
    using std::sqrt;
    const T there[4] = {sqrt(1.0 - v[0] * v[0] - v[1] * v[1] - v[2] * v[2]), v[0], v[1], v[2]};
    const T from[4] = {T(base[0]), T(base[1]), T(base[2]), T(base[3])};
    ceres::QuaternionProduct(from, there, q);
  }

  /// Every pose by its inverse.
  void Invert() {
    for (Pose& pose : poses) {
      for (int i = 1; i < 4; ++i) pose.q[i] = -pose.q[i];
      double p[3];
      ceres::UnitQuaternionRotatePoint(pose.q.data(), pose.p.data(), p);
      for (int i = 0; i < 3; ++i) pose.p[i] = -p[i];
    }
  }
};

/// Reads poses with times, five at least (trajectory.h's TUM and EuRoC), and puts them in the order
/// of their times; those of equal times become one. *error names the line.
bool ReadPoseStream(const std::string& path, PoseStream* stream, std::string* error);

/// How many of the eye's poses are at times, with the offset added, that the hand's cover.
int CountShared(const PoseStream& hand, const PoseStream& eye, double offset);

/// Angle-axis, position.
using PoseBlock = std::array<double, 6>;

/// Poses x of the eye on the hand and w of the eye's world in the hand's such that the eye's pose
/// at t is about w^-1 hand(t + offset) x. The axes of corresponding motions give the rotation of x
/// (Park and Martin, 1994), the mean of what is left that of w, linear least squares the positions.
void GuessHandEye(
    const PoseStream& hand, const PoseStream& eye, double offset, PoseBlock* x, PoseBlock* w);

/// The offset from -most to most at which the streams turn alike: correlation of angular speeds.
double GuessOffset(const PoseStream& hand, const PoseStream& eye, double most);

/// A hand that waves, and an eye on it at (0.05, -0.1, 0.08) m whose clock is 0.137 s behind, with
/// noise of 0.0105 rad and 4 mm in each axis; one pose of thirty is an outlier.
void SimulateHandEye(double seconds, PoseStream* hand, PoseStream* eye);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_STREAM_H_
