#include "examples/support/slam/trajectory.h"

#include <cmath>
#include <fstream>

#include "Eigen/Geometry"
#include "examples/support/text.h"

namespace examples {
namespace {

using RowMajor = Eigen::Matrix<double, 3, 4, Eigen::RowMajor>;

void SetRotation(const Eigen::Quaterniond& q, Pose3* pose) {
  const Eigen::Quaterniond unit = q.normalized();
  pose->q = {unit.w(), unit.x(), unit.y(), unit.z()};
}

Eigen::Matrix3d RotationOf(const Pose3& pose) {
  return Eigen::Quaterniond(pose.q[0], pose.q[1], pose.q[2], pose.q[3]).toRotationMatrix();
}

bool ReadRow(LineReader* in, Trajectory* trajectory) {
  Pose3 pose;
  double time = static_cast<double>(trajectory->poses.size());
  if (trajectory->format == Trajectory::kKitti) {
    RowMajor m;
    for (int k = 0; k < 12; ++k) {
      if (!in->Number(k, "an entry of the matrix", m.data() + k)) return false;
    }
    const Eigen::Matrix3d r = m.leftCols<3>();
    if (!(r.transpose() * r).isIdentity(1e-3) || r.determinant() < 0.0) {
      return in->Fail("the matrix is not a rotation and a translation");
    }
    SetRotation(Eigen::Quaterniond(r), &pose);
    for (int k = 0; k < 3; ++k) pose.t[k] = m(k, 3);
  } else if (trajectory->format == Trajectory::kTum) {
    const char* names[] = {"the time", "tx", "ty", "tz", "qx", "qy", "qz", "qw"};
    double value[8];
    for (int k = 0; k < 8; ++k) {
      if (!in->Number(k, names[k], &value[k])) return false;
    }
    time = value[0];
    if (!trajectory->times.empty() && time <= trajectory->times.back()) {
      return in->Fail("the time is not after that of the line before");
    }
    const Eigen::Quaterniond q(value[7], value[4], value[5], value[6]);
    if (std::abs(q.norm() - 1.0) > 0.01) return in->Fail("the quaternion is not of length 1");
    SetRotation(q, &pose);
    for (int k = 0; k < 3; ++k) pose.t[k] = value[1 + k];
  } else {
    double heading;
    if (!in->Number(0, "x", &pose.t[0]) || !in->Number(1, "y", &pose.t[1]) ||
        !in->Number(2, "the heading", &heading)) {
      return false;
    }
    SetRotation(Eigen::Quaterniond(Eigen::AngleAxisd(heading, Eigen::Vector3d::UnitZ())), &pose);
  }
  trajectory->times.push_back(time);
  trajectory->poses.push_back(pose);
  return true;
}

}  // namespace

bool ReadTrajectory(const std::string& path, Trajectory* trajectory, std::string* error) {
  *trajectory = Trajectory();
  LineReader in;
  bool ok = in.Open(path);
  int columns = 0;
  while (ok && in.Next()) {
    if (columns == 0) {
      columns = in.size();
      trajectory->format = columns == 12  ? Trajectory::kKitti
                           : columns == 8 ? Trajectory::kTum
                                          : Trajectory::kPlanar;
      if (columns != 12 && columns != 8 && columns != 3) {
        ok = in.Fail(std::to_string(columns) +
                     " columns, not 12 (KITTI), 8 (TUM) or 3 (x y heading)");
        break;
      }
    }
    ok = in.size() == columns ? ReadRow(&in, trajectory)
                              : in.Fail(std::to_string(in.size()) + " columns, not " +
                                        std::to_string(columns) + " as in the first line");
  }
  if (ok && columns == 0) ok = in.FailAt(0, "there is no pose");
  *error = in.error();
  return ok;
}

bool WriteTrajectory(const Trajectory& trajectory, const std::string& path, std::string* error) {
  std::ofstream out(path);
  out.precision(17);
  for (size_t i = 0; i < trajectory.poses.size(); ++i) {
    const Pose3& p = trajectory.poses[i];
    if (trajectory.format == Trajectory::kKitti) {
      RowMajor m;
      m << RotationOf(p), Eigen::Map<const Eigen::Vector3d>(p.t.data());
      for (int k = 0; k < 12; ++k) out << (k ? " " : "") << m.data()[k];
    } else if (trajectory.format == Trajectory::kTum) {
      out << trajectory.times[i] << " " << p.t[0] << " " << p.t[1] << " " << p.t[2] << " " << p.q[1]
          << " " << p.q[2] << " " << p.q[3] << " " << p.q[0];
    } else {
      out << p.t[0] << " " << p.t[1] << " " << Wrap(2.0 * std::atan2(p.q[3], p.q[0]));
    }
    out << "\n";
  }
  out.close();
  if (out) return true;
  *error = path + " cannot be written";
  return false;
}

std::vector<Pose2> SeenFromAbove(const Trajectory& trajectory) {
  std::vector<Pose2> poses;
  for (const Pose3& p : trajectory.poses) {
    const Eigen::Matrix3d r = RotationOf(p);
    if (trajectory.format == Trajectory::kKitti) {
      poses.push_back({{p.t[2], -p.t[0], std::atan2(-r(0, 2), r(2, 2))}});
    } else {
      poses.push_back({{p.t[0], p.t[1], std::atan2(r(1, 0), r(0, 0))}});
    }
  }
  return poses;
}

}  // namespace examples
