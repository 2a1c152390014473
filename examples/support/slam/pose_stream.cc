#include "examples/support/slam/pose_stream.h"

#include <cmath>
#include <random>

#include "Eigen/Geometry"

#include "examples/support/dense.h"
#include "examples/support/slam/trajectory.h"
#include "examples/support/table.h"

namespace examples {

bool ReadPoseStream(const std::string& path, PoseStream* stream, std::string* error) {
  *stream = PoseStream();
  Trajectory trajectory;
  if (!ReadTrajectory(path, &trajectory, error) || !OrderByTime(path, &trajectory, error)) {
    return false;
  }
  if (trajectory.format != Trajectory::kTum) {
    *error = path + ": these are not poses with times: t x y z qx qy qz qw";
    return false;
  }
  if (trajectory.poses.size() < 5) {
    *error = path + ": five poses at least are needed";
    return false;
  }
  Eigen::Vector3d low = Eigen::Map<const Eigen::Vector3d>(trajectory.poses[0].t.data()), high = low;
  for (size_t i = 0; i < trajectory.poses.size(); ++i) {
    const Pose3& pose = trajectory.poses[i];
    stream->poses.push_back({trajectory.times[i], pose.q, pose.t});
    low = low.cwiseMin(Eigen::Map<const Eigen::Vector3d>(pose.t.data()));
    high = high.cwiseMax(Eigen::Map<const Eigen::Vector3d>(pose.t.data()));
  }
  stream->notes = trajectory.notes;
  const double extent = (high - low).norm();
  if (extent > 100.0) {
    stream->notes +=
        Format("%s: the positions span %.4g m; are they metres?\n", path.c_str(), extent);
  }
  return true;
}

int CountShared(const PoseStream& hand, const PoseStream& eye, double offset) {
  return static_cast<int>(std::count_if(eye.poses.begin(), eye.poses.end(), [&](const auto& pose) {
    return hand.Covers(pose.t + offset);
  }));
}

void GuessHandEye(
    const PoseStream& hand, const PoseStream& eye, double offset, PoseBlock* x, PoseBlock* w) {
  std::vector<Eigen::Quaterniond> a, b;
  std::vector<Eigen::Vector3d> pa, pb;
  for (const auto& pose : eye.poses) {
    double q[4], p[3];
    if (!hand.Covers(pose.t + offset)) continue;
    hand.Interpolate(pose.t + offset, q, p);
    a.emplace_back(q[0], q[1], q[2], q[3]);
    pa.emplace_back(p[0], p[1], p[2]);
    b.emplace_back(pose.q[0], pose.q[1], pose.q[2], pose.q[3]);
    pb.emplace_back(pose.p[0], pose.p[1], pose.p[2]);
  }
  const auto axis = [](const Eigen::Quaterniond& q) {
    return Eigen::Vector3d((q.w() < 0.0 ? -1.0 : 1.0) * q.vec());
  };
  Eigen::Matrix3d sum = Eigen::Matrix3d::Zero();
  const size_t n = a.size(), step = std::max<size_t>(n / 40, 1);
  for (size_t i = 0; i + step < n; ++i) {
    sum += axis(a[i].conjugate() * a[i + step]) * axis(b[i].conjugate() * b[i + step]).transpose();
  }
  const Eigen::Matrix3d rx = NearestRotation(sum);
  sum.setZero();
  for (size_t i = 0; i < n; ++i) sum += a[i].matrix() * rx * b[i].matrix().transpose();
  const Eigen::Matrix3d rw = NearestRotation(sum);
  Eigen::MatrixXd m(3 * n, 6);
  Eigen::VectorXd rhs(3 * n);
  for (size_t i = 0; i < n; ++i) {
    m.block<3, 3>(3 * i, 0) = a[i].matrix();
    m.block<3, 3>(3 * i, 3) = -Eigen::Matrix3d::Identity();
    rhs.segment<3>(3 * i) = rw * pb[i] - pa[i];
  }
  const Eigen::VectorXd positions = LeastSquares(m, rhs);
  const auto store = [&](const Eigen::Matrix3d& r, int at, PoseBlock* block) {
    ceres::RotationMatrixToAngleAxis(r.data(), block->data());
    for (int i = 0; i < 3; ++i) (*block)[3 + i] = positions[at + i];
  };
  store(rx, 0, x);
  store(rw, 3, w);
}

double GuessOffset(const PoseStream& hand, const PoseStream& eye, double most) {
  const auto speed = [&](const PoseStream& stream, double t) {
    const double h = 0.05;
    double q[2][4], p[3];
    if (!stream.Covers(t - h) || !stream.Covers(t + h)) return -1.0;
    stream.Interpolate(t - h, q[0], p);
    stream.Interpolate(t + h, q[1], p);
    double dot = 0.0;
    for (int i = 0; i < 4; ++i) dot += q[0][i] * q[1][i];
    return std::acos(std::min(1.0, std::abs(dot))) / h;
  };
  double best = 0.0, best_correlation = -2.0;
  for (double offset = -most; offset <= most; offset += 0.02) {
    double n = 0, a = 0, b = 0, aa = 0, bb = 0, ab = 0;
    for (double t = eye.poses.front().t; t < eye.poses.back().t; t += 0.1) {
      const double u = speed(hand, t + offset), v = speed(eye, t);
      if (u < 0.0 || v < 0.0) continue;
      n += 1, a += u, b += v, aa += u * u, bb += v * v, ab += u * v;
    }
    const double c = (n * ab - a * b) / std::sqrt((n * aa - a * a) * (n * bb - b * b));
    if (n > 20 && c > best_correlation) best = offset, best_correlation = c;
  }
  return best;
}

void SimulateHandEye(double seconds, PoseStream* hand, PoseStream* eye) {
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  const auto hand_at = [](double t) {
    const double turn[3] = {
        0.9 * std::sin(0.7 * t), 0.8 * std::sin(1.1 * t + 1), 0.7 * std::cos(0.9 * t)};
    PoseStream::Pose pose;
    pose.t = t;
    ceres::AngleAxisToQuaternion(turn, pose.q.data());
    pose.p = {
        0.5 + 0.2 * std::sin(0.8 * t), 0.2 * std::cos(1.3 * t), 0.8 + 0.3 * std::sin(0.5 * t)};
    return pose;
  };
  const Eigen::Quaterniond x(Eigen::AngleAxisd(1.2, Eigen::Vector3d(1, 2, 0.5).normalized()));
  const Eigen::Quaterniond w(Eigen::AngleAxisd(-2.0, Eigen::Vector3d(0.2, 1, -1).normalized()));
  for (double t = 0.0; t < seconds; t += 0.02) hand->poses.push_back(hand_at(t));
  for (double t = 1.0; t < hand->poses.back().t - 1.0; t += 1.0 / 30.0) {
    const auto a = hand_at(t + 0.137);
    const Eigen::Quaterniond q(a.q[0], a.q[1], a.q[2], a.q[3]);
    const bool outlier = generator() % 30 == 0;
    Eigen::Vector3d turn, shift;
    for (int i = 0; i < 3; ++i) turn[i] = (outlier ? 0.1 : 0.0105) * normal(generator);
    for (int i = 0; i < 3; ++i) shift[i] = (outlier ? 0.05 : 0.004) * normal(generator);
    const Eigen::Quaterniond noise(Eigen::AngleAxisd(turn.norm(), turn.normalized()));
    const Eigen::Quaterniond b = w.conjugate() * q * x * noise;
    const Eigen::Vector3d p = w.conjugate() * (q * Eigen::Vector3d(0.05, -0.1, 0.08) +
                                               Eigen::Vector3d(a.p[0], a.p[1], a.p[2]) -
                                               Eigen::Vector3d(0.3, 1.0, -0.2)) +
                              shift;
    eye->poses.push_back({t, {b.w(), b.x(), b.y(), b.z()}, {p[0], p[1], p[2]}});
  }
}

}  // namespace examples
