#include "examples/support/slam/alignment.h"

#include <cmath>

#include "Eigen/Geometry"
#include "bilevel/bilevel.h"
#include "examples/support/dense.h"

namespace examples {
namespace {

struct PositionError {
  template <typename T>
  void Correct(const T* turn, const T* shift, const T* position, T* residual) const {
    T p[3], q[3];
    for (int r = 0; r < 3; ++r) {
      p[r] = T(aligned.t[r] - centre[r]);
      for (int c = 0; c < 3; ++c) p[r] += T(aligned.r(r, c)) * position[c];
    }
    bilevel::AngleAxisRotatePoint(turn, p, q);
    for (int r = 0; r < 3; ++r) {
      residual[r] = T(weight) * (q[r] + T(unit) * shift[r] + T(centre[r] - truth[r]));
    }
  }
  Motion aligned;
  Eigen::Vector3d centre, truth;
  double unit, turn_unit, weight;
};
struct PositionError2 : PositionError {
  template <typename T>
  bool operator()(const T* alignment, const T* pose, T* residual) const {
    const T turn[3] = {T(0.0), T(0.0), T(turn_unit) * alignment[2]};
    const T shift[3] = {alignment[0], alignment[1], T(0.0)};
    const T position[3] = {pose[0], pose[1], T(0.0)};
    T error[3];
    Correct(turn, shift, position, error);
    residual[0] = error[0];
    residual[1] = error[1];
    return true;
  }
};
struct PositionError3 : PositionError {
  template <typename T>
  bool operator()(const T* alignment, const T* position, T* residual) const {
    const T turn[3] = {
        T(turn_unit) * alignment[3], T(turn_unit) * alignment[4], T(turn_unit) * alignment[5]};
    Correct(turn, alignment, position, residual);
    return true;
  }
};

}  // namespace

Eigen::Vector3d Position(const Pose2& pose) { return {pose.v[0], pose.v[1], 0.0}; }
Eigen::Vector3d Position(const Pose3& pose) { return {pose.t[0], pose.t[1], pose.t[2]}; }

double Rms(const std::vector<double>& errors) {
  double sum = 0.0;
  for (const double e : errors) sum += e * e;
  return std::sqrt(sum / static_cast<double>(errors.size()));
}

Motion Align(const Positions& from, const Positions& to, bool planar) {
  Eigen::Vector3d a = Eigen::Vector3d::Zero(), b = a;
  for (size_t i = 0; i < from.size(); ++i) {
    a += from[i];
    b += to[i];
  }
  a /= static_cast<double>(from.size());
  b /= static_cast<double>(from.size());
  Eigen::Matrix3d s = Eigen::Matrix3d::Zero();
  for (size_t i = 0; i < from.size(); ++i) s += (to[i] - b) * (from[i] - a).transpose();
  Motion motion;
  if (planar) {
    motion.r = Eigen::AngleAxisd(std::atan2(s(1, 0) - s(0, 1), s(0, 0) + s(1, 1)),
                                 Eigen::Vector3d::UnitZ())
                   .toRotationMatrix();
  } else {
    motion.r = NearestRotation(s);
  }
  motion.t = b - motion.r * a;
  return motion;
}

PositionErrors::PositionErrors(const Motion& aligned, const Positions& truth, double typical_error)
    : aligned_(aligned), centre_(Eigen::Vector3d::Zero()), unit_(10.0 * typical_error) {
  const double n = static_cast<double>(truth.size());
  for (const auto& p : truth) centre_ += p / n;
  double extent = 0.0;
  for (const auto& p : truth) extent += (p - centre_).squaredNorm() / n;
  turn_unit_ = unit_ / std::sqrt(extent);
}

ceres::CostFunction* PositionErrors::InPlane(const Eigen::Vector3d& truth, double weight) const {
  return new bilevel::AutoDiffCostFunction<PositionError2, 2, 3, 3>(
      new PositionError2{{aligned_, centre_, truth, unit_, turn_unit_, weight}});
}
ceres::CostFunction* PositionErrors::InSpace(const Eigen::Vector3d& truth, double weight) const {
  return new bilevel::AutoDiffCostFunction<PositionError3, 3, 6, 3>(
      new PositionError3{{aligned_, centre_, truth, unit_, turn_unit_, weight}});
}

Panel Map(const std::string& title, const std::vector<std::pair<std::string, Positions>>& paths) {
  Eigen::Vector3d low = paths[0].second[0], high = low;
  for (const auto& p : paths[0].second) {
    low = low.cwiseMin(p);
    high = high.cwiseMax(p);
  }
  int least;
  (high - low).minCoeff(&least);
  const int a = least == 0 ? 1 : 0, b = least == 2 ? 1 : 2;
  const char* names[] = {"x [m]", "y [m]", "z [m]"};
  Panel panel{title, names[a], names[b]};
  panel.equal_axes = true;
  for (const auto& [name, path] : paths) {
    Series series{name, "lines", {}, {}};
    for (const auto& p : path) {
      series.x.push_back(p[a]);
      series.y.push_back(p[b]);
    }
    panel.series.push_back(series);
  }
  return panel;
}

}  // namespace examples
