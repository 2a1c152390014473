#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_GRAPH_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_GRAPH_H_

#include <array>
#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "Eigen/Core"
#include "bilevel/derivatives/rotation.h"
#include "ceres/rotation.h"

/// Poses in the plane and in space, the logarithm of a motion, and the error of a measured one.
/// Poses map the body to the world.
namespace examples {

struct Pose2 {
  std::array<double, 3> v = {0.0, 0.0, 0.0};  ///< x [m], y [m], heading [rad].
};

struct Pose3 {
  std::array<double, 4> q = {1.0, 0.0, 0.0, 0.0};  ///< Unit quaternion (w, x, y, z).
  std::array<double, 3> t = {0.0, 0.0, 0.0};       ///< Metres.
};

/// (1 - x/2 cot(x/2)) / x^2 as a function of u = x^2, smooth at 0.
template <typename T>
T HalfCotangentDefect(const T& u) {
  using std::cos;
  using std::sin;
  using std::sqrt;
  if (u >= T(1.0)) {
    const T half = T(0.5) * sqrt(u);
    return (T(1.0) - half * cos(half) / sin(half)) / u;
  }
  // |B_2k| / (2k)! with Bernoulli's numbers B, for k = 1, 2, ...; converges for u < 4 pi^2.
  constexpr double kCoefficients[] = {1.0 / 12.0,
                                      1.0 / 720.0,
                                      1.0 / 30240.0,
                                      1.0 / 1209600.0,
                                      1.0 / 47900160.0,
                                      691.0 / 1307674368000.0,
                                      1.0 / 74724249600.0,
                                      3617.0 / 10670622842880000.0,
                                      43867.0 / 5109094217170944000.0,
                                      174611.0 / 802857662698291200000.0,
                                      77683.0 / 14101100039391805440000.0,
                                      236364091.0 / 1693824136731743669452800000.0};
  T sum(0.0);
  for (int k = 11; k >= 0; --k) sum = sum * u + T(kCoefficients[k]);
  return sum;
}

/// The angle less its whole turns, in [-pi, pi).
template <typename T>
T Wrap(const T& angle) {
  using std::floor;
  return angle - T(2.0 * M_PI) * floor((angle + T(M_PI)) / T(2.0 * M_PI));
}

/// Log of a motion in the plane: (rho, angle) with t = V(angle) rho.
template <typename T>
void LogSE2(const T motion[3], T rho_angle[3]) {
  const T angle = Wrap(motion[2]);
  const T half = T(0.5) * angle;
  const T a = T(1.0) - angle * angle * HalfCotangentDefect(T(angle * angle));
  rho_angle[0] = a * motion[0] + half * motion[1];
  rho_angle[1] = a * motion[1] - half * motion[0];
  rho_angle[2] = angle;
}

/// Log of the motion (q, t): (rho, phi) with rotation vector phi and t = V(phi) rho.
template <typename T>
void LogSE3(const T q[4], const T t[3], T rho_phi[6]) {
  T* phi = rho_phi + 3;
  bilevel::QuaternionToAngleAxis(q, phi);
  // V^-1 t = t - phi x t / 2 + c phi x (phi x t).
  const T c = HalfCotangentDefect(T(phi[0] * phi[0] + phi[1] * phi[1] + phi[2] * phi[2]));
  T once[3], twice[3];
  ceres::CrossProduct(phi, t, once);
  ceres::CrossProduct(phi, once, twice);
  for (int i = 0; i < 3; ++i) rho_phi[i] = t[i] - T(0.5) * once[i] + c * twice[i];
}

/// A^-1 B.
template <typename T>
void Between(const T a[3], const T b[3], T motion[3]) {
  using std::cos;
  using std::sin;
  const T c = cos(a[2]), s = sin(a[2]), x = b[0] - a[0], y = b[1] - a[1];
  motion[0] = c * x + s * y;
  motion[1] = c * y - s * x;
  motion[2] = b[2] - a[2];
}
template <typename T>
void Between(const T qa[4], const T ta[3], const T qb[4], const T tb[3], T q[4], T t[3]) {
  const T inverse[4] = {qa[0], -qa[1], -qa[2], -qa[3]};
  const T difference[3] = {tb[0] - ta[0], tb[1] - ta[1], tb[2] - ta[2]};
  ceres::QuaternionProduct(inverse, qb, q);
  ceres::UnitQuaternionRotatePoint(inverse, difference, t);
}

/// Log of A^-1 B.
template <typename T>
void LogBetween(const T qa[4], const T ta[3], const T qb[4], const T tb[3], T rho_phi[6]) {
  T q[4], t[3];
  Between(qa, ta, qb, tb, q, t);
  LogSE3(q, t, rho_phi);
}

inline Pose2 Between(const Pose2& a, const Pose2& b) {
  Pose2 motion;
  Between(a.v.data(), b.v.data(), motion.v.data());
  return motion;
}
inline Pose3 Between(const Pose3& a, const Pose3& b) {
  Pose3 motion;
  Between(a.q.data(), a.t.data(), b.q.data(), b.t.data(), motion.q.data(), motion.t.data());
  return motion;
}

/// A B.
inline Pose2 Compose(const Pose2& a, const Pose2& b) {
  const double c = std::cos(a.v[2]), s = std::sin(a.v[2]);
  return {
      {a.v[0] + c * b.v[0] - s * b.v[1], a.v[1] + s * b.v[0] + c * b.v[1], Wrap(a.v[2] + b.v[2])}};
}
inline Pose3 Compose(const Pose3& a, const Pose3& b) {
  Pose3 c;
  ceres::QuaternionProduct(a.q.data(), b.q.data(), c.q.data());
  ceres::UnitQuaternionRotatePoint(a.q.data(), b.t.data(), c.t.data());
  for (int k = 0; k < 3; ++k) c.t[k] += a.t[k];
  return c;
}

/// Exp of (rho, angle) and (rho, phi): Log's inverse.
inline Pose2 ExpSE2(const double* rho_angle) {
  const double angle = rho_angle[2];
  const double a = 1.0 - angle * angle * HalfCotangentDefect(angle * angle), b = 0.5 * angle;
  const double det = a * a + b * b;  // V^-1 = [a b; -b a].
  return {{(a * rho_angle[0] - b * rho_angle[1]) / det,
           (b * rho_angle[0] + a * rho_angle[1]) / det,
           angle}};
}
Pose3 ExpSE3(const double* rho_phi);

/// Log(Z^-1 Ti^-1 Tj) of a measured motion Z.
struct RelativePoseError2 {
  template <typename T>
  bool operator()(const T* pose_i, const T* pose_j, T* residual) const {
    T motion[3], error[3];
    const T measured[3] = {T(z.v[0]), T(z.v[1]), T(z.v[2])};
    Between(pose_i, pose_j, motion);
    Between(measured, motion, error);
    LogSE2(error, residual);
    return true;
  }
  Pose2 z;
};

struct RelativePoseError3 {
  template <typename T>
  bool operator()(const T* qi, const T* ti, const T* qj, const T* tj, T* residual) const {
    T q[4], t[3], qz[4], tz[3];
    Between(qi, ti, qj, tj, q, t);
    for (int k = 0; k < 4; ++k) qz[k] = T(z.q[k]);
    for (int k = 0; k < 3; ++k) tz[k] = T(z.t[k]);
    LogBetween(qz, tz, q, t, residual);
    return true;
  }
  Pose3 z;
};

/// Vertices and edges as a file has them.
template <typename PoseType, int kTangentSize>
struct PoseGraph {
  using Pose = PoseType;
  static constexpr int kDim = kTangentSize;
  using Information = Eigen::Matrix<double, kDim, kDim>;
  struct Vertex {
    long id;
    Pose pose;
    bool fixed = false;
  };
  struct Edge {
    int from, to;  ///< Indices of vertices.
    Pose measured;
    /// Inverse covariance of Log(measured^-1 T_from^-1 T_to): metres, then radians.
    Information information;
    /// Between vertices that follow each other in the list; the others close loops.
    bool IsOdometry() const { return to == from + 1 || from == to + 1; }
  };
  /// Where a vertex is in the world, as by a satellite.
  struct Prior {
    int vertex;
    Pose measured;
    /// Inverse covariance of (translation, Log of rotation) of measured^-1 T: rank 2 or 3 where the
    /// rotation is not known.
    Information information;
  };
  std::vector<Vertex> vertices;
  std::vector<Edge> edges;
  std::vector<Prior> priors;  ///< None, or as many as fix the graph's frame.
  std::string notes;          ///< What a reader made of the file, a sentence a line, to be printed.
};
using PoseGraph2 = PoseGraph<Pose2, 3>;
using PoseGraph3 = PoseGraph<Pose3, 6>;
using AnyPoseGraph = std::variant<PoseGraph2, PoseGraph3>;

/// Drops priors that leave the frame free: the graph is then better held by one vertex than torn.
/// One of full rank fixes it, or positions of two vertices, in space of three, or a fixed vertex.
/// How many were dropped.
int DropWeakPriors(PoseGraph2* graph);
int DropWeakPriors(PoseGraph3* graph);

/// Places the vertices along edges from the first fixed one, or from the first: by odometry as far
/// as that reaches. False: *error names a vertex that no edge leads to, or beyond finite numbers.
bool PlaceByOdometry(PoseGraph2* graph, std::string* error);
bool PlaceByOdometry(PoseGraph3* graph, std::string* error);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_GRAPH_H_
