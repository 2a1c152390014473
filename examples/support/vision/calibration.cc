#include "examples/support/vision/calibration.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "Eigen/Geometry"
#include "Eigen/LU"
#include "examples/support/dense.h"
#include "examples/support/text.h"

namespace examples {
namespace {

// Board to image, for points in squares and pixels.
Eigen::Matrix3d Homography(const std::vector<StereoCorners::Corner>& corners) {
  double board = 0.0, image = 0.0;
  Eigen::Vector2d board_mean(0.0, 0.0), image_mean(0.0, 0.0);
  const double n = static_cast<double>(corners.size());
  for (const auto& c : corners) {
    board_mean += Eigen::Vector2d(c.x, c.y) / n;
    image_mean += Eigen::Vector2d(c.u, c.v) / n;
  }
  for (const auto& c : corners) {
    board += (Eigen::Vector2d(c.x, c.y) - board_mean).norm() / n;
    image += (Eigen::Vector2d(c.u, c.v) - image_mean).norm() / n;
  }
  Eigen::MatrixXd a(2 * corners.size(), 9);
  for (size_t i = 0; i < corners.size(); ++i) {
    const double x = (corners[i].x - board_mean[0]) / board;
    const double y = (corners[i].y - board_mean[1]) / board;
    const double u = (corners[i].u - image_mean[0]) / image;
    const double v = (corners[i].v - image_mean[1]) / image;
    a.row(2 * i) << x, y, 1, 0, 0, 0, -u * x, -u * y, -u;
    a.row(2 * i + 1) << 0, 0, 0, x, y, 1, -v * x, -v * y, -v;
  }
  const Eigen::VectorXd h = LeastSingularVector(a);
  Eigen::Matrix3d normalized, to_board, from_image;
  normalized << h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8];
  to_board << 1 / board, 0, -board_mean[0] / board, 0, 1 / board, -board_mean[1] / board, 0, 0, 1;
  from_image << image, 0, image_mean[0], 0, image, image_mean[1], 0, 0, 1;
  return from_image * normalized * to_board;
}

struct Rigid {
  Eigen::Matrix3d rotation;
  Eigen::Vector3d translation;
};

Rigid PoseFrom(const Eigen::Matrix3d& homography, const Intrinsics& k) {
  Eigen::Matrix3d camera;
  camera << k[0], 0, k[2], 0, k[1], k[3], 0, 0, 1;
  Eigen::Matrix3d h = camera.inverse() * homography;
  h *= (h(2, 2) > 0.0 ? 2.0 : -2.0) / (h.col(0).norm() + h.col(1).norm());
  Eigen::Matrix3d near;
  near << h.col(0), h.col(1), h.col(0).cross(h.col(1));
  return {NearestRotation(near), h.col(2)};
}

Pose ToPose(const Rigid& rigid) {
  Pose pose;
  ceres::RotationMatrixToAngleAxis(rigid.rotation.data(), pose.data());  // Both column-major.
  for (int i = 0; i < 3; ++i) pose[3 + i] = rigid.translation[i];
  return pose;
}

// A focal length from the homographies' two conditions each, for square pixels and a known
// principal point: h1' w h2 = 0 and h1' w h1 = h2' w h2 are linear in 1 / f^2.
double Focal(const std::vector<Eigen::Matrix3d>& homographies, double cx, double cy) {
  double num = 0.0, den = 0.0;
  for (const Eigen::Matrix3d& raw : homographies) {
    Eigen::Matrix3d h = raw / raw.norm();
    h.row(0) -= cx * h.row(2);
    h.row(1) -= cy * h.row(2);
    const auto add = [&](double a, double b) {  // a / f^2 + b = 0
      num -= a * b;
      den += a * a;
    };
    add(h(0, 0) * h(0, 1) + h(1, 0) * h(1, 1), h(2, 0) * h(2, 1));
    add(h.block<2, 1>(0, 0).squaredNorm() - h.block<2, 1>(0, 1).squaredNorm(),
        h(2, 0) * h(2, 0) - h(2, 1) * h(2, 1));
  }
  return num > 0.0 ? std::sqrt(den / num) : std::nan("");
}

}  // namespace

bool ReadStereoCorners(const std::string& path, StereoCorners* corners, std::string* error) {
  *corners = StereoCorners();
  LineReader in;
  std::map<std::string, size_t> index;
  const auto read_corner = [&] {
    if (in.size() < 2) return in.Fail("the line ends where the view should be");
    const std::string &side = in[0], &view = in[1];
    if (side != "left" && side != "right") return in.Fail("the side is neither left nor right");
    if (view.empty() || !IsPrintable(view)) {
      return in.Fail("the view's name is not one of printable ASCII");
    }
    long corner;
    StereoCorners::Corner c;
    if (!in.Integer(2, "the corner", &corner) || !in.Number(3, "col", &c.x) ||
        !in.Number(4, "row", &c.y) || !in.Number(5, "u", &c.u) || !in.Number(6, "v", &c.v) ||
        !in.End(7, "v")) {
      return false;
    }
    const auto [at, is_new] = index.emplace(view, index.size());
    if (is_new) {
      corners->names.push_back(view);
      corners->views.emplace_back();
    }
    corners->views[at->second][side == "right"].push_back(c);
    return true;
  };
  bool ok = in.Open(path, LineReader::kComma);
  while (ok && in.Next()) ok = in.line() == 1 || read_corner();
  if (ok && corners->views.empty()) ok = in.FailAt(0, "there are no corners");
  *error = in.error();
  return ok;
}

bool GuessCalibration(const StereoCorners& corners, CalibrationGuess* guess, std::string* error) {
  std::array<std::vector<Eigen::Matrix3d>, 2> homographies;
  for (int side = 0; side < 2; ++side) {
    for (size_t i = 0; i < corners.views.size(); ++i) {
      if (corners.views[i][side].size() < 8) {
        *error = "view " + corners.names[i] + " has fewer than 8 corners on one side";
        return false;
      }
      homographies[side].push_back(Homography(corners.views[i][side]));
    }
    const double cx = 0.5 * corners.width, cy = 0.5 * corners.height;
    const double focal = Focal(homographies[side], cx, cy);
    if (!std::isfinite(focal)) {
      *error = "the views do not determine a focal length: tilt the board";
      return false;
    }
    guess->intrinsics[side] = {focal, focal, cx, cy};
  }
  guess->boards.clear();
  for (size_t i = 0; i < corners.views.size(); ++i) {
    const Rigid left = PoseFrom(homographies[0][i], guess->intrinsics[0]);
    guess->boards.push_back(ToPose(left));
    if (i > 0) continue;
    const Rigid right = PoseFrom(homographies[1][i], guess->intrinsics[1]);
    const Eigen::Matrix3d r = right.rotation * left.rotation.transpose();
    guess->right_from_left = ToPose({r, right.translation - r * left.translation});
  }
  return true;
}

}  // namespace examples
