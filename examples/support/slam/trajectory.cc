#include "examples/support/slam/trajectory.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <utility>

#include "Eigen/Geometry"
#include "examples/support/table.h"
#include "examples/support/text.h"

namespace examples {
namespace {

constexpr int kRtabmapColumns = 9, kEurocColumns = 17;

using RowMajor = Eigen::Matrix<double, 3, 4, Eigen::RowMajor>;

void SetRotation(const Eigen::Quaterniond& q, Pose3* pose) {
  const Eigen::Quaterniond unit = q.normalized();
  pose->q = {unit.w(), unit.x(), unit.y(), unit.z()};
}

Eigen::Vector3d At(const Pose3& pose) { return {pose.t[0], pose.t[1], pose.t[2]}; }

Eigen::Matrix3d RotationOf(const Pose3& pose) {
  return Eigen::Quaterniond(pose.q[0], pose.q[1], pose.q[2], pose.q[3]).toRotationMatrix();
}

double Degrees(double radians) { return radians * 180.0 / M_PI; }

bool ReadMatrix(LineReader* in, Pose3* pose) {
  RowMajor m;
  for (int k = 0; k < 12; ++k) {
    if (!in->Number(k, "an entry of the matrix", m.data() + k)) return false;
  }
  const Eigen::Matrix3d r = m.leftCols<3>();
  if (!(r.transpose() * r).isIdentity(1e-3) || r.determinant() < 0.0) {
    return in->Fail("the matrix is not a rotation and a translation");
  }
  SetRotation(Eigen::Quaterniond(r), pose);
  for (int k = 0; k < 3; ++k) pose->t[k] = m(k, 3);
  return true;
}

bool ReadStamped(LineReader* in, double* time, Pose3* pose) {
  const bool w_first = in->size() == kEurocColumns;
  const char* names[] = {"the time", "tx", "ty", "tz", "qx", "qy", "qz", "qw"};
  double value[8];
  for (int k = 0; k < 8; ++k) {
    const int column = !w_first || k < 4 ? k : k == 7 ? 4 : k + 1;
    if (!in->Number(column, names[k], &value[k])) return false;
  }
  *time = value[0];
  const Eigen::Quaterniond q(value[7], value[4], value[5], value[6]);
  if (std::abs(q.norm() - 1.0) > 0.01) return in->Fail("the quaternion is not of length 1");
  SetRotation(q, pose);
  for (int k = 0; k < 3; ++k) pose->t[k] = value[1 + k];
  return true;
}

bool ReadPlanar(LineReader* in, Pose3* pose, std::string* notes) {
  double heading;
  if (!in->Number(0, "x", &pose->t[0]) || !in->Number(1, "y", &pose->t[1]) ||
      !in->Number(2, "the heading", &heading)) {
    return false;
  }
  SetRotation(Eigen::Quaterniond(Eigen::AngleAxisd(heading, Eigen::Vector3d::UnitZ())), pose);
  if (notes->empty() && std::abs(heading) > 8.0 * M_PI) {
    *notes = Format(
        "%s:%d: a heading is %.4g; are they degrees?\n", in->path().c_str(), in->line(), heading);
  }
  return true;
}

bool ReadRow(LineReader* in, Trajectory* trajectory) {
  Pose3 pose;
  double time = static_cast<double>(trajectory->poses.size());
  const bool ok = trajectory->format == Trajectory::kKitti ? ReadMatrix(in, &pose)
                  : trajectory->format == Trajectory::kTum
                      ? ReadStamped(in, &time, &pose)
                      : ReadPlanar(in, &pose, &trajectory->notes);
  trajectory->times.push_back(time);
  trajectory->poses.push_back(pose);
  trajectory->lines.push_back(in->line());
  return ok;
}

double MedianStep(const std::vector<double>& times) {
  std::vector<double> steps;
  for (size_t i = 1; i < times.size(); ++i) {
    if (times[i] != times[i - 1]) steps.push_back(std::abs(times[i] - times[i - 1]));
  }
  if (steps.empty()) return 0.0;
  std::nth_element(steps.begin(), steps.begin() + steps.size() / 2, steps.end());
  return steps[steps.size() / 2];
}

// Seconds since 1973 are 1e8 and more, and below 1e11 for long.
void ConvertTimes(const std::string& path, Trajectory* trajectory) {
  const double size = std::abs(trajectory->times[trajectory->times.size() / 2]);
  const double step = MedianStep(trajectory->times);
  const char* name = "nanoseconds";
  double unit = 1.0;
  if (size >= 1e17 || (size < 1e14 && step > 2e6)) {
    unit = 1e9;
  } else if (size >= 1e14) {
    name = "microseconds";
    unit = 1e6;
  } else if (size >= 1e11) {
    name = "milliseconds";
    unit = 1e3;
  }
  if (unit > 1.0) {
    for (double& time : trajectory->times) time /= unit;
    trajectory->notes += path + ": the times are " + name + ", taken as such.\n";
  } else if (step > 60.0) {
    trajectory->notes += Format(
        "%s: poses are %.4g s apart, at the median; are the times seconds?\n", path.c_str(), step);
  }
}

// A vehicle goes ahead: along z only where that is not up.
void FindUp(const std::string& path, Trajectory* trajectory) {
  const std::vector<Pose3>& poses = trajectory->poses;
  Eigen::Vector3d way = Eigen::Vector3d::Zero();
  for (size_t i = 1; i < poses.size(); ++i) {
    const Eigen::Vector3d step = At(poses[i]) - At(poses[i - 1]);
    way += (RotationOf(poses[i - 1]).transpose() * step).cwiseAbs();
  }
  int axis;
  const double most = way.maxCoeff(&axis);
  if (!(most > 0.0)) axis = 2;
  if (axis != 2) trajectory->format = Trajectory::kKittiZUp;
  trajectory->notes +=
      Format("%s: taken for poses of a %s; %.3g %% of the way goes along its %c axis.\n",
             path.c_str(),
             axis == 2 ? "camera with z ahead, as KITTI's" : "body with z up",
             most > 0.0 ? 100.0 * most / way.sum() : 0.0,
             "xyz"[axis]);
}

double PathLength(const Trajectory& trajectory) {
  double length = 0.0;
  for (size_t i = 1; i < trajectory.poses.size(); ++i) {
    length += (At(trajectory.poses[i]) - At(trajectory.poses[i - 1])).norm();
  }
  return length;
}

Trajectory SortedByTime(const Trajectory& trajectory) {
  std::vector<size_t> order(trajectory.times.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return trajectory.times[a] < trajectory.times[b];
  });
  Trajectory sorted;
  sorted.format = trajectory.format;
  sorted.notes = trajectory.notes;
  for (const size_t i : order) {
    sorted.times.push_back(trajectory.times[i]);
    sorted.poses.push_back(trajectory.poses[i]);
    sorted.lines.push_back(trajectory.lines[i]);
  }
  return sorted;
}

// Poses of the same time, which follow each other, become their mean.
void AverageEqualTimes(const std::string& path, Trajectory* trajectory) {
  Trajectory mean;
  double metres = 0.0, radians = 0.0;
  for (size_t begin = 0, end; begin < trajectory->times.size(); begin = end) {
    const Pose3& first = trajectory->poses[begin];
    Eigen::Vector4d q = Eigen::Vector4d::Zero();
    Eigen::Vector3d t = Eigen::Vector3d::Zero();
    for (end = begin;
         end < trajectory->times.size() && trajectory->times[end] == trajectory->times[begin];
         ++end) {
      const Pose3& pose = trajectory->poses[end];
      const Eigen::Vector4d one(first.q.data()), other(pose.q.data());
      const Eigen::Vector4d near = other.dot(one) < 0.0 ? Eigen::Vector4d(-other) : other;
      q += near;
      t += At(pose);
      metres = std::max(metres, (At(pose) - At(first)).norm());
      radians = std::max(radians, 4.0 * std::asin(std::min(1.0, 0.5 * (near - one).norm())));
    }
    Pose3 pose = first;
    if (end > begin + 1) {
      SetRotation(Eigen::Quaterniond(q[0], q[1], q[2], q[3]), &pose);
      t /= static_cast<double>(end - begin);
      pose.t = {t[0], t[1], t[2]};
    }
    mean.times.push_back(trajectory->times[begin]);
    mean.poses.push_back(pose);
    mean.lines.push_back(trajectory->lines[begin]);
  }
  const size_t fewer = trajectory->times.size() - mean.times.size();
  if (fewer == 0) return;
  mean.format = trajectory->format;
  mean.notes = trajectory->notes +
               Format(
                   "%s: %zu of %zu poses have the time of another: averaged, at most %.3g m and "
                   "%.3g degrees from the first.\n",
                   path.c_str(),
                   fewer,
                   trajectory->times.size(),
                   metres,
                   Degrees(radians));
  *trajectory = std::move(mean);
}

}  // namespace

bool ReadTrajectory(const std::string& path, Trajectory* trajectory, std::string* error) {
  *trajectory = Trajectory();
  LineReader in;
  bool ok = in.Open(path, LineReader::kAny);
  int columns = 0;
  while (ok && in.Next()) {
    if (columns == 0) {
      columns = in.size();
      const bool stamped = columns == 8 || columns == kRtabmapColumns || columns == kEurocColumns;
      trajectory->format = columns == 12 ? Trajectory::kKitti
                           : stamped     ? Trajectory::kTum
                                         : Trajectory::kPlanar;
      if (columns != 12 && !stamped && columns != 3) {
        ok = in.Fail(
            std::to_string(columns) +
            " columns, not 12 (KITTI), 8 (TUM), 9 (rtabmap), 17 (EuRoC) or 3 (x y heading)");
        break;
      }
    }
    ok = in.size() == columns ? ReadRow(&in, trajectory)
                              : in.Fail(std::to_string(in.size()) + " columns, not " +
                                        std::to_string(columns) + " as in the first line");
  }
  if (ok && columns == 0) ok = in.FailAt(0, "there is no pose");
  *error = in.error();
  if (!ok) return false;
  if (columns == kEurocColumns) {
    trajectory->notes += path +
                         ": 17 columns, EuRoC's: quaternions are w x y z, and the last nine "
                         "columns are not used.\n";
  }
  if (trajectory->format == Trajectory::kTum) ConvertTimes(path, trajectory);
  if (trajectory->format == Trajectory::kKitti) FindUp(path, trajectory);
  return true;
}

bool OrderByTime(const std::string& path, Trajectory* trajectory, std::string* error) {
  const std::vector<double>& times = trajectory->times;
  int backwards = 0, line = 0;
  double back = 0.0;
  for (size_t i = 1; i < times.size(); ++i) {
    if (times[i] >= times[i - 1]) continue;
    if (++backwards == 1) line = trajectory->lines[i];
    back = std::max(back, times[i - 1] - times[i]);
  }
  if (backwards > 0) {
    Trajectory sorted = SortedByTime(*trajectory);
    const double before = PathLength(*trajectory), after = PathLength(sorted);
    const std::string what =
        Format("by up to %.4g s, and sorting makes the path %.4g m long instead of %.4g",
               back,
               after,
               before);
    if (after > 2.0 * before) {
      *error = path + ":" + std::to_string(line) + ": the time goes back, " + what;
      return false;
    }
    sorted.notes += Format(
        "%s: %d of %zu times are before that of the line above, the first in line %d, %s: "
        "sorted.\n",
        path.c_str(),
        backwards,
        times.size(),
        line,
        what.c_str());
    *trajectory = std::move(sorted);
  }
  AverageEqualTimes(path, trajectory);
  return true;
}

bool WriteTrajectory(const Trajectory& trajectory, const std::string& path, std::string* error) {
  std::ofstream out(path);
  out.precision(17);
  for (size_t i = 0; i < trajectory.poses.size(); ++i) {
    const Pose3& p = trajectory.poses[i];
    if (trajectory.format == Trajectory::kKitti || trajectory.format == Trajectory::kKittiZUp) {
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
