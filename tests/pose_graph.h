#ifndef BILEVEL_TESTS_POSE_GRAPH_H_
#define BILEVEL_TESTS_POSE_GRAPH_H_

#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "Eigen/Geometry"
#include "bilevel/derivatives/auto_diff_cost_function.h"
#include "bilevel/derivatives/rotation.h"
#include "ceres/manifold.h"
#include "ceres/problem.h"
#include "ceres/rotation.h"
#include "examples/support/slam/pose_graph.h"

// Pose graphs in SE(3): poses as a unit quaternion (w, x, y, z) and a translation that map the body
// to the world.
namespace bilevel {

using Pose = examples::Pose3;
using examples::LogBetween;

/// Log(Z^-1 Ti^-1 Tj), its translation and rotation times exp(log_weights[0]) and
/// exp(log_weights[1]) where there are such.
struct RelativePoseError {
  template <typename T>
  bool operator()(const T* qi, const T* ti, const T* qj, const T* tj, T* residual) const {
    return examples::RelativePoseError3{z}(qi, ti, qj, tj, residual);
  }

  template <typename T>
  bool operator()(
      const T* qi, const T* ti, const T* qj, const T* tj, const T* log_weights, T* residual) const {
    using std::exp;
    (*this)(qi, ti, qj, tj, residual);
    const T translation = exp(log_weights[0]), rotation = exp(log_weights[1]);
    for (int k = 0; k < 3; ++k) {
      residual[k] *= translation;
      residual[k + 3] *= rotation;
    }
    return true;
  }

  /// Poses of seven entries, quaternion first.
  template <typename T>
  bool operator()(const T* pose_i, const T* pose_j, const T* log_weights, T* residual) const {
    return (*this)(pose_i, pose_i + 4, pose_j, pose_j + 4, log_weights, residual);
  }

  Pose z;
};

/// weight * Log(prior^-1 T).
struct PosePrior {
  template <typename T>
  bool operator()(const T* q, const T* t, T* residual) const {
    T q0[4], t0[3];
    for (int k = 0; k < 4; ++k) q0[k] = T(prior.q[k]);
    for (int k = 0; k < 3; ++k) t0[k] = T(prior.t[k]);
    LogBetween(q0, t0, q, t, residual);
    for (int k = 0; k < 6; ++k) residual[k] *= weight;
    return true;
  }
  template <typename T>
  bool operator()(const T* pose, T* residual) const {
    return (*this)(pose, pose + 4, residual);
  }
  Pose prior;
  double weight;
};

/// weight * (t - t_truth, R - R_truth).
struct PoseError {
  template <typename T>
  bool operator()(const T* q, const T* t, T* residual) const {
    double expected[9];
    T rotation[9];
    ceres::QuaternionToRotation(truth.q.data(), expected);
    ceres::QuaternionToRotation(q, rotation);
    for (int k = 0; k < 3; ++k) residual[k] = weight * (t[k] - truth.t[k]);
    for (int k = 0; k < 9; ++k) residual[k + 3] = weight * (rotation[k] - expected[k]);
    return true;
  }
  template <typename T>
  bool operator()(const T* pose, T* residual) const {
    return (*this)(pose, pose + 4, residual);
  }
  Pose truth;
  double weight;
};

struct PoseGraph {
  struct Edge {
    int i, j;
    bool is_loop;
    Pose z;
  };
  std::vector<Pose> truth, poses;
  std::vector<Edge> edges;

  int size() const { return static_cast<int>(poses.size()); }

  /// Adds the pose's blocks with their manifold, which the problem owns, where they are not there.
  void AddPose(ceres::Problem* problem, int i) {
    if (problem->HasParameterBlock(poses[i].q.data())) return;
    problem->AddParameterBlock(poses[i].q.data(), 4, new ceres::QuaternionManifold);
    problem->AddParameterBlock(poses[i].t.data(), 3);
  }

  /// The relative poses alone; log_weights (2) may be nullptr.
  std::vector<ceres::ResidualBlockId> AddEdges(ceres::Problem* problem,
                                               double* log_weights,
                                               ceres::LossFunction* loss = nullptr) {
    std::vector<ceres::ResidualBlockId> ids;
    for (const Edge& edge : edges) {
      AddPose(problem, edge.i);
      AddPose(problem, edge.j);
      std::vector<double*> blocks = {poses[edge.i].q.data(),
                                     poses[edge.i].t.data(),
                                     poses[edge.j].q.data(),
                                     poses[edge.j].t.data()};
      auto* error = new RelativePoseError{edge.z};
      ceres::CostFunction* cost;
      if (log_weights) {
        blocks.push_back(log_weights);
        cost = new bilevel::AutoDiffCostFunction<RelativePoseError, 6, 4, 3, 4, 3, 2>(error);
      } else {
        cost = new bilevel::AutoDiffCostFunction<RelativePoseError, 6, 4, 3, 4, 3>(error);
      }
      ids.push_back(problem->AddResidualBlock(cost, loss, blocks));
    }
    return ids;
  }

  void AddPrior(ceres::Problem* problem, int i, double weight) {
    AddPose(problem, i);
    problem->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<PosePrior, 6, 4, 3>(new PosePrior{poses[i], weight}),
        nullptr,
        poses[i].q.data(),
        poses[i].t.data());
  }

  /// 1/(2n) sum |t - t_truth|^2 + |R - R_truth|^2.
  void AddErrors(ceres::Problem* problem) {
    for (int i = 0; i < size(); ++i) {
      AddPose(problem, i);
      problem->AddResidualBlock(new bilevel::AutoDiffCostFunction<PoseError, 12, 4, 3>(
                                    new PoseError{truth[i], 1.0 / std::sqrt(1.0 * size())}),
                                nullptr,
                                poses[i].q.data(),
                                poses[i].t.data());
    }
  }
};

/// t (3) and R (9, row-major), as the text files of sphere_benchmark have them.
inline Pose ReadPose(std::istream& in) {
  Pose pose;
  Eigen::Matrix3d r;
  for (double& value : pose.t) in >> value;
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column) in >> r(row, column);
  }
  const Eigen::Quaterniond q = Eigen::Quaterniond(r).normalized();
  pose.q = {q.w(), q.x(), q.y(), q.z()};
  return pose;
}

/// What a command prints, line after line; empty where it fails.
inline std::vector<std::string> ReadLines(const std::string& command) {
  std::vector<std::string> lines;
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return lines;
  std::string line;
  for (int c; (c = std::fgetc(pipe)) != EOF;) {
    if (c == '\n') {
      lines.push_back(std::move(line));
      line.clear();
    } else {
      line += static_cast<char>(c);
    }
  }
  pclose(pipe);
  return lines;
}

/// "V id truth start" and "E i j is_loop z", compressed.
inline std::unique_ptr<PoseGraph> ReadSphere(const std::string& path) {
  auto graph = std::make_unique<PoseGraph>();
  for (const std::string& line : ReadLines("zcat '" + path + "'")) {
    std::istringstream in(line);
    char kind;
    in >> kind;
    if (kind == 'V') {
      int id;
      in >> id;
      graph->truth.push_back(ReadPose(in));
      graph->poses.push_back(ReadPose(in));
    } else {
      PoseGraph::Edge edge;
      in >> edge.i >> edge.j >> edge.is_loop;
      edge.z = ReadPose(in);
      graph->edges.push_back(edge);
    }
  }
  return graph;
}

/// Poses on a helix with edges to the next `reach` poses, all noisy; the start is the truth.
inline std::unique_ptr<PoseGraph> MakeHelix(int n, int reach, double noise, unsigned seed) {
  auto graph = std::make_unique<PoseGraph>();
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  for (int i = 0; i < n; ++i) {
    Pose pose;
    const double turn[3] = {0.3 * std::sin(0.9 * i), 0.2 * i, 0.4 * std::cos(1.7 * i)};
    bilevel::AngleAxisToQuaternion(turn, pose.q.data());
    pose.t = {2.0 * std::cos(0.7 * i), 2.0 * std::sin(0.7 * i), 0.3 * i};
    graph->truth.push_back(pose);
  }
  graph->poses = graph->truth;
  for (int i = 0; i < n; ++i) {
    for (int j = i + 1; j <= i + reach && j < n; ++j) {
      const Pose &a = graph->truth[i], &b = graph->truth[j];
      PoseGraph::Edge edge{i, j, j > i + 1, {}};
      edge.z = examples::Between(a, b);
      const std::array<double, 4> q = edge.z.q;
      double wobble[4], turn[3];
      for (double& value : turn) value = noise * normal(generator);
      for (double& value : edge.z.t) value += noise * normal(generator);
      bilevel::AngleAxisToQuaternion(turn, wobble);
      ceres::QuaternionProduct(q.data(), wobble, edge.z.q.data());
      graph->edges.push_back(edge);
    }
  }
  return graph;
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_POSE_GRAPH_H_
