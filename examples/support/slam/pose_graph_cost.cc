#include "examples/support/slam/pose_graph_cost.h"

#include <cmath>

#include "bilevel/bilevel.h"
#include "examples/support/dense.h"
#include "examples/support/table.h"

namespace examples {
namespace {

Eigen::MatrixXd UpperRoot(const Eigen::MatrixXd& information) {
  const SymmetricEigen eigen(information);
  Eigen::MatrixXd w = HouseholderR(eigen.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal() *
                                   eigen.eigenvectors().transpose());
  for (int k = 0; k < w.rows(); ++k) {
    if (w(k, k) < 0.0) w.row(k) *= -1.0;
  }
  return w;
}

template <int kDim, typename T>
void Weigh(const Eigen::Matrix<double, kDim, kDim>& w, const T* raw, T* residual) {
  for (int r = 0; r < kDim; ++r) {
    residual[r] = T(w(r, r)) * raw[r];
    for (int c = r + 1; c < kDim; ++c) residual[r] += T(w(r, c)) * raw[c];
  }
}

// W Log(Z^-1 Ti^-1 Tj), W'W being the information in the file.
struct EdgeError2 {
  template <typename T>
  bool operator()(const T* pose_i, const T* pose_j, T* residual) const {
    T raw[3];
    error(pose_i, pose_j, raw);
    Weigh<3>(w, raw, residual);
    return true;
  }
  examples::RelativePoseError2 error;
  Eigen::Matrix3d w;
};
struct EdgeError3 {
  template <typename T>
  bool operator()(const T* qi, const T* ti, const T* qj, const T* tj, T* residual) const {
    T raw[6];
    error(qi, ti, qj, tj, raw);
    Weigh<6>(w, raw, residual);
    return true;
  }
  examples::RelativePoseError3 error;
  Eigen::Matrix<double, 6, 6> w;
};

struct PriorError2 {
  template <typename T>
  bool operator()(const T* pose, T* residual) const {
    T raw[3];
    const T measured[3] = {T(z.v[0]), T(z.v[1]), T(z.v[2])};
    Between(measured, pose, raw);
    raw[2] = Wrap(raw[2]);
    Weigh<3>(w, raw, residual);
    return true;
  }
  Pose2 z;
  Eigen::Matrix3d w;
};
struct PriorError3 {
  template <typename T>
  bool operator()(const T* q, const T* t, T* residual) const {
    T turn[4], raw[6];
    const T qz[4] = {T(z.q[0]), T(z.q[1]), T(z.q[2]), T(z.q[3])};
    const T tz[3] = {T(z.t[0]), T(z.t[1]), T(z.t[2])};
    Between(qz, tz, q, t, turn, raw);
    bilevel::QuaternionToAngleAxis(turn, raw + 3);
    Weigh<6>(w, raw, residual);
    return true;
  }
  Pose3 z;
  Eigen::Matrix<double, 6, 6> w;
};

struct SwitchedError2 {
  template <typename T>
  bool operator()(const T* pose_i, const T* pose_j, const T* s, T* residual) const {
    if (!error(pose_i, pose_j, residual)) return false;
    for (int k = 0; k < 3; ++k) residual[k] *= s[0];
    return true;
  }
  EdgeError2 error;
};
struct SwitchedError3 {
  template <typename T>
  bool operator()(
      const T* qi, const T* ti, const T* qj, const T* tj, const T* s, T* residual) const {
    if (!error(qi, ti, qj, tj, residual)) return false;
    for (int k = 0; k < 6; ++k) residual[k] *= s[0];
    return true;
  }
  EdgeError3 error;
};
struct SwitchPrior {
  template <typename T>
  bool operator()(const T* s, const T* log_scale, T* residual) const {
    using std::exp;
    residual[0] = exp(log_scale[0]) * (T(1.0) - s[0]);
    return true;
  }
};

std::vector<bilevel::NoiseModel::Entry> Entries(int size) {
  std::vector<bilevel::NoiseModel::Entry> entries;
  for (int k = 0; k < size; ++k) entries.push_back({k, k, k < (size == 3 ? 2 : 3) ? 0 : 1, -1});
  return entries;
}

}  // namespace

std::vector<double*> Blocks(Pose2* pose) { return {pose->v.data()}; }
std::vector<double*> Blocks(Pose3* pose) { return {pose->q.data(), pose->t.data()}; }

void AddPose(Pose2* pose, ceres::Problem* problem) {
  problem->AddParameterBlock(pose->v.data(), 3);
}
void AddPose(Pose3* pose, ceres::Problem* problem) {
  problem->AddParameterBlock(pose->q.data(), 4, new ceres::QuaternionManifold);
  problem->AddParameterBlock(pose->t.data(), 3);
}

Eigen::Matrix3d SquareRoot(const PoseGraph2::Information& information) {
  return UpperRoot(information);
}
Eigen::Matrix<double, 6, 6> SquareRoot(const PoseGraph3::Information& information) {
  return UpperRoot(information);
}

ceres::CostFunction* MakeCost(const PoseGraph2::Edge& edge) {
  return new bilevel::AutoDiffCostFunction<EdgeError2, 3, 3, 3>(
      new EdgeError2{{edge.measured}, SquareRoot(edge.information)});
}
ceres::CostFunction* MakeCost(const PoseGraph3::Edge& edge) {
  return new bilevel::AutoDiffCostFunction<EdgeError3, 6, 4, 3, 4, 3>(
      new EdgeError3{{edge.measured}, SquareRoot(edge.information)});
}
ceres::CostFunction* MakeCost(const PoseGraph2::Prior& prior) {
  return new bilevel::AutoDiffCostFunction<PriorError2, 3, 3>(
      new PriorError2{prior.measured, SquareRoot(prior.information)});
}
ceres::CostFunction* MakeCost(const PoseGraph3::Prior& prior) {
  return new bilevel::AutoDiffCostFunction<PriorError3, 6, 4, 3>(
      new PriorError3{prior.measured, SquareRoot(prior.information)});
}
ceres::CostFunction* MakeSwitchedCost(const PoseGraph2::Edge& edge) {
  return new bilevel::AutoDiffCostFunction<SwitchedError2, 3, 3, 3, 1>(
      new SwitchedError2{{{edge.measured}, SquareRoot(edge.information)}});
}
ceres::CostFunction* MakeSwitchedCost(const PoseGraph3::Edge& edge) {
  return new bilevel::AutoDiffCostFunction<SwitchedError3, 6, 4, 3, 4, 3, 1>(
      new SwitchedError3{{{edge.measured}, SquareRoot(edge.information)}});
}
ceres::CostFunction* MakeSwitchPrior() {
  return new bilevel::AutoDiffCostFunction<SwitchPrior, 1, 1, 1>(new SwitchPrior);
}

MotionNoise::MotionNoise(double* log_sigmas, int size)
    : NoiseModel(log_sigmas, 2, size, Entries(size)) {}

std::string MotionNoise::Describe(const std::string& name) const {
  return Format("const double %s_sigma_factors[2] = {%.4g, %.4g};  // Translation, rotation.\n",
                name.c_str(),
                std::exp(parameters()[0]),
                std::exp(parameters()[1]));
}

}  // namespace examples
