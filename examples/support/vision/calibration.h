#ifndef BILEVEL_EXAMPLES_SUPPORT_VISION_CALIBRATION_H_
#define BILEVEL_EXAMPLES_SUPPORT_VISION_CALIBRATION_H_

#include <array>
#include <string>
#include <vector>

#include "ceres/rotation.h"

namespace examples {

/// Corners of a flat board seen by two cameras, as they are found in the images.
struct StereoCorners {
  struct Corner {
    double x, y;  ///< On the board, in squares.
    double u, v;  ///< Pixels.
  };
  using View = std::array<std::vector<Corner>, 2>;  ///< Left and right; one may be empty.
  std::vector<std::string> names;
  std::vector<View> views;
  double width = 640.0, height = 480.0;  ///< Of the images, pixels.
};

/// Reads lines side,view,corner,col,row,u,v after a header; side is left or right, view printable
/// ASCII. *error names the line.
bool ReadStereoCorners(const std::string& path, StereoCorners* corners, std::string* error);

/// fx, fy, cx, cy [pixels].
using Intrinsics = std::array<double, 4>;
/// k1, k2, p1, p2, k3 of OpenCV's model: k radial, p tangential.
using Distortion = std::array<double, 5>;
/// Angle-axis and translation [squares]. Of a board: from the board to the left camera.
using Pose = std::array<double, 6>;

template <typename T>
void Transform(const T* pose, const T* point, T* result) {
  ceres::AngleAxisRotatePoint(pose, point, result);
  for (int i = 0; i < 3; ++i) result[i] += pose[3 + i];
}

/// A point in the camera's frame to pixels.
template <typename T>
void Project(const T* intrinsics, const T* d, const T* point, T* pixel) {
  const T x = point[0] / point[2], y = point[1] / point[2];
  const T r2 = x * x + y * y;
  const T radial = 1.0 + r2 * (d[0] + r2 * (d[1] + r2 * d[4]));
  const T xd = x * radial + 2.0 * d[2] * x * y + d[3] * (r2 + 2.0 * x * x);
  const T yd = y * radial + d[2] * (r2 + 2.0 * y * y) + 2.0 * d[3] * x * y;
  pixel[0] = intrinsics[0] * xd + intrinsics[2];
  pixel[1] = intrinsics[1] * yd + intrinsics[3];
}

/// Where to begin: square pixels, a central principal point, no distortion, and poses from the
/// boards' homographies (Zhang, PAMI 2000).
struct CalibrationGuess {
  std::array<Intrinsics, 2> intrinsics;
  Pose right_from_left;
  std::vector<Pose> boards;
};
bool GuessCalibration(const StereoCorners& corners, CalibrationGuess* guess, std::string* error);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_VISION_CALIBRATION_H_
