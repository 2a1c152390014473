#ifndef BILEVEL_EXAMPLES_SUPPORT_BUNDLE_ADJUSTMENT_BAL_H_
#define BILEVEL_EXAMPLES_SUPPORT_BUNDLE_ADJUSTMENT_BAL_H_

#include <array>
#include <string>
#include <vector>

#include "ceres/rotation.h"

namespace examples {

/// A scene of "Bundle Adjustment in the Large" (Agarwal, Snavely, Seitz and Szeliski, ECCV 2010).
struct BalScene {
  struct Observation {
    int camera, point;
    double u, v;  ///< Pixels, origin at the centre of the image.
  };
  /// Angle-axis, translation, focal length, two coefficients of radial distortion.
  std::vector<std::array<double, 9>> cameras;
  std::vector<std::array<double, 3>> points;
  std::vector<Observation> observations;
  /// Focal length and distortion are known: those of a libmv file are shared by all its images.
  bool fixed_intrinsics = false;
  std::string notes;  ///< What a reader made of the file, a sentence a line, to be printed.
};

/// Reads the text format, Bundler's ("# Bundle file v0.3") or the binary one of Ceres'
/// libmv_bundle_adjuster, packed or not; every number must be there and make sense, and nothing may
/// follow. Markers of images or tracks that a libmv file has not reconstructed are left out.
/// *error names the line, or the byte.
bool ReadScene(const std::string& path, BalScene* scene, std::string* error);

/// Writes the text format, without loss.
bool WriteBal(const BalScene& scene, const std::string& path, std::string* error);

/// The first cameras only, with the points that at least two of them see, at most so many.
BalScene Cut(const BalScene& scene, int num_cameras, int num_points);

/// The point in the camera's frame, which looks down its negative z axis.
template <typename T>
void ToCamera(const T* camera, const T* point, T* p) {
  ceres::AngleAxisRotatePoint(camera, point, p);
  for (int i = 0; i < 3; ++i) p[i] += camera[3 + i];
}

/// Reprojection error in pixels, for an auto-diff cost function <2, 9, 3>.
struct ReprojectionError {
  template <typename T>
  bool operator()(const T* camera, const T* point, T* residual) const {
    T p[3];
    ToCamera(camera, point, p);
    const T x = -p[0] / p[2], y = -p[1] / p[2];
    const T r2 = x * x + y * y;
    const T scale = camera[6] * (1.0 + r2 * (camera[7] + camera[8] * r2));
    residual[0] = scale * x - u;
    residual[1] = scale * y - v;
    return true;
  }
  double u, v;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_BUNDLE_ADJUSTMENT_BAL_H_
