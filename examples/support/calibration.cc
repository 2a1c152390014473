#include "examples/support/calibration.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "Eigen/Dense"

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
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(a, Eigen::ComputeFullV);
  const Eigen::VectorXd h = svd.matrixV().col(8);
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
  const Eigen::JacobiSVD<Eigen::Matrix3d> svd(near, Eigen::ComputeFullU | Eigen::ComputeFullV);
  return {svd.matrixU() * svd.matrixV().transpose(), h.col(2)};
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
  std::ifstream file(path);
  if (!file) {
    *error = path + " cannot be read";
    return false;
  }
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    char side[16], view[64];
    int corner, end = 0;
    StereoCorners::Corner c;
    if (number == 1 || line.empty()) continue;
    if (std::sscanf(line.c_str(),
                    "%15[^,],%63[^,],%d,%lf,%lf,%lf,%lf %n",
                    side,
                    view,
                    &corner,
                    &c.x,
                    &c.y,
                    &c.u,
                    &c.v,
                    &end) != 7 ||
        end != static_cast<int>(line.size()) || !std::isfinite(c.x + c.y + c.u + c.v) ||
        (side != std::string("left") && side != std::string("right"))) {
      *error = path + ":" + std::to_string(number) +
               ": expected left or right,view,corner,col,row,u,v with finite numbers";
      return false;
    }
    auto at = std::find(corners->names.begin(), corners->names.end(), view);
    if (at == corners->names.end()) {
      corners->names.push_back(view);
      corners->views.emplace_back();
      at = corners->names.end() - 1;
    }
    corners->views[at - corners->names.begin()][side == std::string("right")].push_back(c);
  }
  if (corners->views.empty()) *error = path + " has no corners";
  return !corners->views.empty();
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
