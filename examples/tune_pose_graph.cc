// Learns the noise of a pose graph's odometry and loop closures, and the scale of a robust loss
// against false ones.
//
//   lower level   y*(x) = argmin sum over edges of rho(|W(x) Log(Z^-1 Ti^-1 Tj)|^2; x) / 2
//   upper level   x     = argmin mean squared distance of the aligned positions to the truth, or
//                         mean squared error of loop closures that the estimate has not seen, and
//                         a weak prior around the file's sigmas
//
// y: the poses, and a switch for each loop closure where asked for. x: for each class of edges, how
// many times larger than in the file the sigmas of translation and rotation are (or of each axis),
// the loss's log-scale in sigmas, and where there is a truth the rigid motion that aligns the
// trajectory with it. All sigmas larger alike (and the loss's scale smaller) leave y*(x) as it is:
// without a prior the solver names that direction and leaves it alone.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "Eigen/Cholesky"
#include "Eigen/Eigenvalues"
#include "Eigen/Geometry"
#include "Eigen/SVD"
#include "bilevel/bilevel.h"
#include "bilevel/learnable/noise.h"
#include "bilevel/methods/levenberg_marquardt.h"
#include "ceres/ceres.h"
#include "examples/support/baselines.h"
#include "examples/support/flags.h"
#include "examples/support/g2o.h"
#include "examples/support/plot.h"
#include "examples/support/table.h"
#include "examples/support/trajectory.h"

DEFINE_string(graph, "", "the graph to learn on, g2o or TORO, .gz too; empty: simulated");
DEFINE_string(
    truth,
    "",
    "its ground truth: KITTI, TUM, \"x y heading\", or the vertices of a g2o file; empty: "
    "hold out loop closures instead");
DEFINE_string(test_graph, "", "the graph to test on (with a truth)");
DEFINE_string(test_truth, "", "its ground truth");
DEFINE_double(split, 1.0, "share of the vertices to learn on; the others are the graph to test on");
DEFINE_string(
    loss,
    "",
    "of loop closures: none, cauchy, geman_mcclure, or switchable (a weight to be "
    "estimated for each, with a prior; the same estimate as geman_mcclure); empty: cauchy "
    "if there are false ones, else none");
DEFINE_double(false_loops, 0.0, "false loop closures to inject, as a share of the true ones");
DEFINE_bool(per_axis, false, "a sigma for each axis instead of one each for moving and turning");
DEFINE_double(prior,
              10.0,
              "without a truth: the factor on a sigma that costs as much as one average error of a "
              "held-out loop closure at the start; 0: no prior");
DEFINE_double(start, 1.0, "factor on the sigmas of loop closures to start from");
DEFINE_bool(baselines, true, "search by a grid and by Nelder and Mead as well");
DEFINE_string(write_g2o, "", "write the graph, solved and with the learned information");
DEFINE_int32(seed, 0, "of the simulation, the false loop closures and the split");
DEFINE_bool(progress, false, "print the iterations");

namespace {

using examples::Format;
using examples::Now;
using examples::Pose2;
using examples::Pose3;
using examples::PoseGraph2;
using examples::PoseGraph3;
using Positions = std::vector<Eigen::Vector3d>;

constexpr double kWidest = 1000.0;  // Factors on sigma stay between this and its inverse.

// ------------------------------------------------------------------------------------------------
// Poses in the plane and in space.

std::vector<double*> Blocks(Pose2* pose) { return {pose->v.data()}; }
std::vector<double*> Blocks(Pose3* pose) { return {pose->q.data(), pose->t.data()}; }
Eigen::Vector3d Position(const Pose2& pose) { return {pose.v[0], pose.v[1], 0.0}; }
Eigen::Vector3d Position(const Pose3& pose) { return {pose.t[0], pose.t[1], pose.t[2]}; }

void AddPose(Pose2* pose, ceres::Problem* problem) {
  problem->AddParameterBlock(pose->v.data(), 3);
}
void AddPose(Pose3* pose, ceres::Problem* problem) {
  problem->AddParameterBlock(pose->q.data(), 4, new ceres::QuaternionManifold);
  problem->AddParameterBlock(pose->t.data(), 3);
}

// W Log(Z^-1 Ti^-1 Tj), W'W being the information in the file.
struct EdgeError2 {
  template <typename T>
  bool operator()(const T* pose_i, const T* pose_j, T* residual) const {
    T raw[3];
    error(pose_i, pose_j, raw);
    for (int r = 0; r < 3; ++r) {
      residual[r] = T(w(r, r)) * raw[r];
      for (int c = r + 1; c < 3; ++c) residual[r] += T(w(r, c)) * raw[c];
    }
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
    for (int r = 0; r < 6; ++r) {
      residual[r] = T(w(r, r)) * raw[r];
      for (int c = r + 1; c < 6; ++c) residual[r] += T(w(r, c)) * raw[c];
    }
    return true;
  }
  examples::RelativePoseError3 error;
  Eigen::Matrix<double, 6, 6> w;
};

// Switchable constraints (Suenderhauf and Protzel, IROS 2012): a loop closure's error times its
// switch s, and (1 - s) times the root of the prior's weight, which is learned. The best s leaves
// a^2 u / (1 + u), u = error^2 / a^2: Geman and McClure's loss of scale a.
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

// Upper triangular, also of a singular information.
template <typename Information>
Information SquareRoot(const Information& information) {
  const Eigen::SelfAdjointEigenSolver<Information> eigen(information);
  const Information root =
      eigen.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal() * eigen.eigenvectors().transpose();
  Information w = root.householderQr().matrixQR().template triangularView<Eigen::Upper>();
  for (int k = 0; k < w.rows(); ++k) {
    if (w(k, k) < 0.0) w.row(k) *= -1.0;
  }
  return w;
}

ceres::CostFunction* MakeCost(const PoseGraph2::Edge& edge) {
  return new bilevel::AutoDiffCostFunction<EdgeError2, 3, 3, 3>(
      new EdgeError2{{edge.measured}, SquareRoot(edge.information)});
}
ceres::CostFunction* MakeCost(const PoseGraph3::Edge& edge) {
  return new bilevel::AutoDiffCostFunction<EdgeError3, 6, 4, 3, 4, 3>(
      new EdgeError3{{edge.measured}, SquareRoot(edge.information)});
}
ceres::CostFunction* MakeSwitchedCost(const PoseGraph2::Edge& edge) {
  return new bilevel::AutoDiffCostFunction<SwitchedError2, 3, 3, 3, 1>(
      new SwitchedError2{{{edge.measured}, SquareRoot(edge.information)}});
}
ceres::CostFunction* MakeSwitchedCost(const PoseGraph3::Edge& edge) {
  return new bilevel::AutoDiffCostFunction<SwitchedError3, 6, 4, 3, 4, 3, 1>(
      new SwitchedError3{{{edge.measured}, SquareRoot(edge.information)}});
}

// One sigma for the translation and one for the rotation of a motion.
class MotionNoise final : public bilevel::NoiseModel {
 public:
  MotionNoise(double* log_sigmas, int size) : NoiseModel(log_sigmas, 2, size, Entries(size)) {}
  std::string Describe(const std::string& name) const override {
    return Format("const double %s_sigma_factors[2] = {%.4g, %.4g};  // Translation, rotation.\n",
                  name.c_str(),
                  std::exp(parameters()[0]),
                  std::exp(parameters()[1]));
  }

 private:
  static std::vector<Entry> Entries(int size) {
    std::vector<Entry> entries;
    for (int k = 0; k < size; ++k) entries.push_back({k, k, k < (size == 3 ? 2 : 3) ? 0 : 1, -1});
    return entries;
  }
};

// ------------------------------------------------------------------------------------------------
// Alignment with the truth.

struct Motion {
  Eigen::Matrix3d r = Eigen::Matrix3d::Identity();
  Eigen::Vector3d t = Eigen::Vector3d::Zero();
};

// The rigid motion that brings `from` closest to `to` (Kabsch); about z alone in the plane.
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
    const Eigen::JacobiSVD<Eigen::Matrix3d> svd(s, Eigen::ComputeFullU | Eigen::ComputeFullV);
    Eigen::Vector3d signs(1.0, 1.0, svd.matrixU().determinant() * svd.matrixV().determinant());
    motion.r = svd.matrixU() * signs.asDiagonal() * svd.matrixV().transpose();
  }
  motion.t = b - motion.r * a;
  return motion;
}

// The aligned position less the true one, over sqrt(number of poses) [m]. The alignment learned is
// a correction about the trajectory's centre, in units that change it by ten typical errors: phi is
// quadratic in it, so that it need not use up the trust region of what is not.
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

// ------------------------------------------------------------------------------------------------

// A graph, whose vertices are y, and what is known about it.
template <typename Graph>
struct Recording {
  Graph graph;
  Positions truth;             // Empty: none.
  std::vector<int> pose_set;   // Of each vertex's truth: 0 is to learn by, 2 to test.
  std::vector<int> set;        // Of each edge: 0 is for the estimate, 1 validation, 2 test.
  std::vector<char> is_false;  // Of each edge: injected.

  Positions Estimate() const {
    Positions positions;
    for (const auto& v : graph.vertices) positions.push_back(Position(v.pose));
    return positions;
  }

  // The motion that brings the positions to learn by closest to their truth.
  Motion Alignment() const {
    const Positions estimate = Estimate();
    Positions from, to;
    for (size_t i = 0; i < truth.size(); ++i) {
      if (pose_set[i] != 0) continue;
      from.push_back(estimate[i]);
      to.push_back(truth[i]);
    }
    return Align(from, to, Graph::kDim == 3);
  }

  // Distance to the truth of each aligned position of a set [m].
  std::vector<double> PositionErrors(int which) const {
    const Positions estimate = Estimate();
    const Motion motion = Alignment();
    std::vector<double> errors;
    for (size_t i = 0; i < truth.size(); ++i) {
      if (pose_set[i] != which) continue;
      errors.push_back((motion.r * estimate[i] + motion.t - truth[i]).norm());
    }
    return errors;
  }

  // Root mean square of each edge of a set, in the file's sigmas, over the edge's dimensions.
  std::vector<double> EdgeErrors(int which) {
    std::vector<double> errors;
    double residuals[6];
    for (size_t k = 0; k < graph.edges.size(); ++k) {
      if (set[k] != which || is_false[k]) continue;
      const std::unique_ptr<ceres::CostFunction> cost(MakeCost(graph.edges[k]));
      std::vector<double*> blocks = EdgeBlocks(graph.edges[k]);
      cost->Evaluate(blocks.data(), residuals, nullptr);
      errors.push_back(Eigen::Map<Eigen::VectorXd>(residuals, Graph::kDim).norm() /
                       std::sqrt(1.0 * Graph::kDim));
    }
    return errors;
  }

  std::vector<double*> EdgeBlocks(const typename Graph::Edge& edge) {
    std::vector<double*> blocks = Blocks(&graph.vertices[edge.from].pose);
    for (double* block : Blocks(&graph.vertices[edge.to].pose)) blocks.push_back(block);
    return blocks;
  }
};

double Rms(const std::vector<double>& errors) {
  double sum = 0.0;
  for (const double e : errors) sum += e * e;
  return std::sqrt(sum / static_cast<double>(errors.size()));
}

// x but for the alignment.
struct Noise {
  int size = 2;  // Of each class.
  double odometry[6] = {}, loops[6] = {};
  double log_scale = std::log(5.0);
  std::string loss = "none";

  std::vector<double*> Coordinates() {
    std::vector<double*> all;
    for (int k = 0; k < size; ++k) all.push_back(odometry + k);
    for (int k = 0; k < size; ++k) all.push_back(loops + k);
    if (loss != "none") all.push_back(&log_scale);
    return all;
  }
  std::vector<double> Get() {
    std::vector<double> values;
    for (const double* p : Coordinates()) values.push_back(*p);
    return values;
  }
  void Set(const std::vector<double>& values) {
    const std::vector<double*> all = Coordinates();
    for (size_t i = 0; i < all.size(); ++i) *all[i] = values[i];
  }
};

// A recording's two levels under a noise.
template <typename Graph>
class Levels {
 public:
  Levels(Recording<Graph>* recording, Noise* noise) : recording_(recording), noise_(noise) {
    auto& vertices = recording->graph.vertices;
    for (auto& v : vertices) {
      AddPose(&v.pose, problem.lower());
      for (double* block : Blocks(&v.pose)) {
        problem.SetParameterName(block, "vertex " + std::to_string(v.id));
      }
    }
    bool any_fixed = false;
    for (auto& v : vertices) {
      any_fixed |= v.fixed;
      if (v.fixed) SetConstant(&v.pose);
    }
    if (!any_fixed) SetConstant(&vertices[0].pose);

    switches.assign(recording->graph.edges.size(), 1.0);
    odometry = Model(noise->odometry, noise->size);
    loops = Model(noise->loops, noise->size);
    if (noise->loss == "cauchy") {
      loss = problem.Own(std::make_unique<bilevel::CauchyLoss>(&noise->log_scale));
    } else if (noise->loss == "geman_mcclure") {
      loss = problem.Own(std::make_unique<bilevel::GemanMcClureLoss>(&noise->log_scale));
    }
    for (size_t k = 0; k < recording->graph.edges.size(); ++k) {
      if (recording->set[k] != 0) continue;
      const auto& edge = recording->graph.edges[k];
      const bool is_odometry = edge.IsOdometry();
      if (!is_odometry && noise->loss == "switchable") {
        std::vector<double*> blocks = recording->EdgeBlocks(edge);
        blocks.push_back(&switches[k]);
        loops->AddResidualBlock(MakeSwitchedCost(edge), nullptr, blocks, problem.lower());
        problem.lower()->AddResidualBlock(
            new bilevel::AutoDiffCostFunction<SwitchPrior, 1, 1, 1>(new SwitchPrior),
            nullptr,
            &switches[k],
            &noise->log_scale);
        continue;
      }
      (is_odometry ? odometry : loops)
          ->AddResidualBlock(MakeCost(edge),
                             is_odometry ? nullptr : loss,
                             recording->EdgeBlocks(edge),
                             problem.lower());
    }
    problem.AddUpperParameterBlock(noise->odometry, noise->size);
    problem.AddUpperParameterBlock(noise->loops, noise->size);
    problem.SetParameterName(noise->odometry, "log odometry");
    problem.SetParameterName(noise->loops, "log loops");
    const bool robust = noise->loss != "none";
    if (robust) {
      problem.AddUpperParameterBlock(&noise->log_scale, 1);
      problem.SetParameterName(&noise->log_scale, "log scale");
    }
    for (double* p : {noise->odometry, noise->loops}) {
      for (int k = 0; k < noise->size; ++k) {
        problem.SetParameterLowerBound(p, k, -std::log(kWidest));
        problem.SetParameterUpperBound(p, k, std::log(kWidest));
      }
    }
    if (robust) {
      problem.SetParameterLowerBound(&noise->log_scale, 0, std::log(0.01));
      problem.SetParameterUpperBound(&noise->log_scale, 0, std::log(1000.0));
    }
    if (recording->truth.empty()) {
      AddHeldOut();
    }
  }

  // The truth as an upper level, aligned with the trajectory as it stands in memory.
  void AddTruth() {
    constexpr bool kPlanar = Graph::kDim == 3;
    auto& vertices = recording_->graph.vertices;
    PositionError error;
    error.aligned = recording_->Alignment();
    const double n = static_cast<double>(vertices.size());
    error.weight =
        1.0 /
        std::sqrt(1.0 * std::count(recording_->pose_set.begin(), recording_->pose_set.end(), 0));
    error.centre.setZero();
    for (const auto& p : recording_->truth) error.centre += p / n;
    double extent = 0.0;
    for (const auto& p : recording_->truth) extent += (p - error.centre).squaredNorm() / n;
    error.unit = 10.0 * std::max(Rms(recording_->PositionErrors(0)), 1e-3);
    error.turn_unit = error.unit / std::sqrt(extent);
    for (size_t i = 0; i < vertices.size(); ++i) {
      if (recording_->pose_set[i] != 0) continue;
      error.truth = recording_->truth[i];
      ceres::CostFunction* cost;
      if constexpr (kPlanar) {
        cost =
            new bilevel::AutoDiffCostFunction<PositionError2, 2, 3, 3>(new PositionError2{error});
      } else {
        cost =
            new bilevel::AutoDiffCostFunction<PositionError3, 3, 6, 3>(new PositionError3{error});
      }
      problem.upper()->AddResidualBlock(cost, nullptr, alignment, Blocks(&vertices[i].pose).back());
    }
    problem.AddUpperParameterBlock(alignment, Graph::kDim);
    problem.SetParameterName(alignment, "alignment");
  }

  // Few held-out errors would have sigmas go anywhere: a prior around the file's, worth
  // `num_errors` of them as they are with the estimate in memory at each factor of `factor`.
  void AddPrior(double factor) {
    if (!(factor > 1.0)) return;
    const double held_out = Graph::kDim * static_cast<double>(recording_->EdgeErrors(1).size());
    prior_sigma_ = std::log(factor) * std::sqrt(held_out) / Rms(recording_->EdgeErrors(1));
    for (double* block : {noise_->odometry, noise_->loops}) {
      problem.upper()->AddResidualBlock(
          new bilevel::NormalPrior(std::vector<double>(noise_->size, 0.0), prior_sigma_),
          nullptr,
          block);
    }
  }

  // The root of twice phi.
  double Score() {
    if (!recording_->truth.empty()) return Rms(recording_->PositionErrors(0));
    double square = std::pow(Rms(recording_->EdgeErrors(1)), 2);
    for (const double* block : {noise_->odometry, noise_->loops}) {
      for (int k = 0; k < noise_->size; ++k) square += std::pow(block[k] / prior_sigma_, 2);
    }
    return std::sqrt(square);
  }

  // Loop closures that are false or not, and how many of each are switched off by more than half.
  struct Switched {
    int all[2] = {}, off[2] = {};
  };
  Switched CountSwitches() const {
    Switched count;
    for (size_t k = 0; k < switches.size(); ++k) {
      if (recording_->graph.edges[k].IsOdometry() || recording_->set[k] != 0) continue;
      const int is_false = recording_->is_false[k];
      ++count.all[is_false];
      count.off[is_false] += switches[k] < 0.5;
    }
    return count;
  }

  bilevel::Problem problem;
  std::unique_ptr<bilevel::NoiseModel> odometry, loops;
  bilevel::LearnableLoss* loss = nullptr;
  std::vector<double> switches;  // Of each edge; for loop closures with --loss=switchable.
  double alignment[6] = {};

 private:
  void SetConstant(typename Graph::Pose* pose) {
    for (double* block : Blocks(pose)) problem.lower()->SetParameterBlockConstant(block);
  }

  static std::unique_ptr<bilevel::NoiseModel> Model(double* log_sigmas, int size) {
    if (size == 2) return std::make_unique<MotionNoise>(log_sigmas, Graph::kDim);
    return std::make_unique<bilevel::DiagonalNoise>(log_sigmas, Graph::kDim);
  }

  void AddHeldOut() {
    const double count = static_cast<double>(
        std::count(recording_->set.begin(), recording_->set.end(), 1) * Graph::kDim);
    for (size_t k = 0; k < recording_->graph.edges.size(); ++k) {
      if (recording_->set[k] != 1 || recording_->is_false[k]) continue;
      problem.upper()->AddResidualBlock(
          MakeCost(recording_->graph.edges[k]),
          new ceres::ScaledLoss(nullptr, 1.0 / count, ceres::TAKE_OWNERSHIP),
          recording_->EdgeBlocks(recording_->graph.edges[k]));
    }
  }

  Recording<Graph>* recording_;
  Noise* noise_;
  double prior_sigma_ = std::numeric_limits<double>::infinity();
};

// ------------------------------------------------------------------------------------------------
// Graphs that were never driven: streets on a grid, a pose a metre, loops where a place is met
// again. The file's information is a guess, 0.1 m and 0.1 rad for everything.

struct TrueSigmas {
  double odometry[3] = {0.03, 0.03, 0.005}, loops[3] = {0.2, 0.2, 0.02};
};

Recording<PoseGraph2> Simulate(int size, unsigned seed) {
  constexpr double kGuess = 0.1;
  const TrueSigmas sigmas;
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  const auto noisy = [&](Pose2 motion, const double* sigma) {
    for (int k = 0; k < 3; ++k) motion.v[k] += sigma[k] * normal(generator);
    return motion;
  };
  const int city = std::max(8, static_cast<int>(0.5 * std::sqrt(1.0 * size)));
  std::vector<Pose2> truth;
  int x = 0, y = 0, heading = 0;
  const int dx[] = {1, 0, -1, 0}, dy[] = {0, 1, 0, -1};
  const auto inside = [&](int h) {
    return std::abs(x + dx[h]) <= city && std::abs(y + dy[h]) <= city;
  };
  for (int i = 0; i < size; ++i) {
    truth.push_back({{1.0 * x, 1.0 * y, examples::Wrap(0.5 * M_PI * heading)}});
    const unsigned draw = generator() % 12;
    if (draw < 2) heading = (heading + (draw == 0 ? 1 : 3)) % 4;
    while (!inside(heading)) heading = (heading + 1) % 4;
    x += dx[heading];
    y += dy[heading];
  }
  Recording<PoseGraph2> recording;
  const Eigen::Matrix3d guess = Eigen::Matrix3d::Identity() / (kGuess * kGuess);
  std::map<std::pair<int, int>, std::vector<int>> visits;
  for (int i = 0; i < size; ++i) {
    recording.graph.vertices.push_back({i, truth[i]});
    recording.truth.push_back(Position(truth[i]));
    if (i > 0) {
      recording.graph.edges.push_back(
          {i - 1, i, noisy(Between(truth[i - 1], truth[i]), sigmas.odometry), guess});
    }
    auto& here = visits[{static_cast<int>(std::lround(truth[i].v[0])),
                         static_cast<int>(std::lround(truth[i].v[1]))}];
    if (!here.empty() && i - here.back() > 10) {
      const int j = here[generator() % here.size()];
      recording.graph.edges.push_back(
          {j, i, noisy(Between(truth[j], truth[i]), sigmas.loops), guess});
    }
    here.push_back(i);
  }
  std::string error;
  examples::PlaceByOdometry(&recording.graph, &error);
  return recording;
}

// False ones join places that are not the same, with what another loop closure measured.
template <typename Graph>
void InjectFalseLoops(double share, unsigned seed, Recording<Graph>* recording) {
  auto& edges = recording->graph.edges;
  std::vector<size_t> loops;
  for (size_t k = 0; k < edges.size(); ++k) {
    if (!edges[k].IsOdometry()) loops.push_back(k);
  }
  recording->is_false.assign(edges.size(), 0);
  if (loops.empty()) return;
  std::mt19937 generator(seed + 100);
  const int n = static_cast<int>(recording->graph.vertices.size());
  for (int k = static_cast<int>(share * static_cast<double>(loops.size())); k > 0;) {
    auto edge = edges[loops[generator() % loops.size()]];
    edge.from = static_cast<int>(generator() % n);
    edge.to = static_cast<int>(generator() % n);
    if (std::abs(edge.from - edge.to) < 20) continue;
    edges.push_back(edge);
    recording->is_false.push_back(1);
    --k;
  }
}

// A fifth of the loop closures each for validation and for test, in runs of ten neighbours: one
// that is closed next to it gives away what another says.
template <typename Graph>
bool HoldOut(Recording<Graph>* recording, std::string* error) {
  constexpr int kRun = 10;
  std::vector<size_t> loops;
  for (size_t k = 0; k < recording->graph.edges.size(); ++k) {
    if (!recording->graph.edges[k].IsOdometry()) loops.push_back(k);
  }
  std::stable_sort(loops.begin(), loops.end(), [&](size_t a, size_t b) {
    const auto &ea = recording->graph.edges[a], &eb = recording->graph.edges[b];
    return std::max(ea.from, ea.to) < std::max(eb.from, eb.to);
  });
  const int run = std::max(1, std::min<int>(kRun, static_cast<int>(loops.size()) / 20));
  std::vector<double> runs(loops.size() / run + 1);
  bilevel::HoldoutOptions options;
  options.kind = bilevel::HoldoutOptions::Kind::kByBlock;
  options.fractions = {0.2, 0.2};
  options.min_left = 0;
  options.seed = FLAGS_seed;
  std::vector<std::vector<const double*>> blocks;
  for (const double& r : runs) options.blocks.push_back(&r);
  for (size_t i = 0; i < loops.size(); ++i) blocks.push_back({&runs[i / run]});
  std::vector<int> set;
  if (!bilevel::ChooseHoldout(options, blocks, &set, error)) return false;
  for (size_t i = 0; i < loops.size(); ++i) recording->set[loops[i]] = set[i];
  return true;
}

// ------------------------------------------------------------------------------------------------

struct Result {
  std::string name;
  std::vector<double> x;
  double train = std::nan(""), test = std::nan("");
  std::vector<double> test_errors;
};

struct Cost {
  std::string name;
  bilevel::LowerSolverCounts counts;
  double seconds;
};

bilevel::Solver::Options SolverOptions() {
  bilevel::Solver::Options options;
  options.lower_solver_options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.lower_solver_options.max_num_iterations = 200;
  options.lower_solver_options.num_threads = FLAGS_num_threads;
  options.lower_solver_options.logging_type = ceres::SILENT;
  options.num_threads = FLAGS_num_threads;
  options.function_tolerance = 1e-4;
  bilevel::LevenbergMarquardt::Options method;
  method.initial_trust_region_radius = 1.0;  // Sigmas are often off by a factor of ten.
  options.method = std::make_shared<bilevel::LevenbergMarquardt>(method);
  options.minimizer_progress_to_stdout = FLAGS_progress;
  return options;
}

template <typename Graph>
class Job {
 public:
  Job(Recording<Graph> train, Recording<Graph> test, std::vector<double> true_x)
      : train_(std::move(train)), test_(std::move(test)), true_x_(std::move(true_x)) {}

  int Run();

 private:
  bool Draw(const std::vector<Result>& rows,
            const Result& learned,
            const bilevel::Solver::Summary& summary);
  bool has_truth() const { return !train_.truth.empty(); }
  bool has_test_graph() const { return !test_.graph.vertices.empty(); }

  // Scores of the solution at x, begun at the solution with the file's sigmas, and that at the
  // graph's own start; robust losses by graduation.
  double SolveCold(const std::vector<double>& x, examples::Phi* phi) {
    phi->Restart();
    if (noise_.loss == "none" && x != by_hand_) {
      std::isfinite((*phi)(by_hand_)) ? phi->Continue() : phi->Restart();
    }
    if (noise_.loss != "none") {
      for (const double scale : {100.0, 10.0, 1.0}) {
        if (scale <= 1.5 * std::exp(x.back())) break;
        std::vector<double> stage = x;
        stage.back() = std::log(scale);
        (*phi)(stage);
        phi->Continue();
      }
    }
    return (*phi)(x);
  }

  Result Evaluate(const std::string& name, const std::vector<double>& x) {
    Result result;
    result.name = name;
    result.x = x;
    result.train = SolveCold(x, phi_.get());
    if (has_test_graph()) {
      result.test = SolveCold(x, test_phi_.get());
      result.test_errors = test_.PositionErrors(0);
    } else {
      result.test_errors = has_truth() ? train_.PositionErrors(2) : train_.EdgeErrors(2);
      result.test = Rms(result.test_errors);
    }
    return result;
  }

  Recording<Graph> train_, test_;
  std::vector<double> true_x_, by_hand_;
  Noise noise_;
  std::unique_ptr<examples::Phi> phi_, test_phi_;
};

template <typename Graph>
int Job<Graph>::Run() {
  const double begin = Now();
  noise_.size = FLAGS_per_axis ? Graph::kDim : 2;
  noise_.loss = !FLAGS_loss.empty() ? FLAGS_loss : FLAGS_false_loops > 0.0 ? "cauchy" : "none";
  const std::set<std::string> losses = {"none", "cauchy", "geman_mcclure", "switchable"};
  if (losses.count(noise_.loss) == 0) {
    std::fprintf(stderr, "--loss must be none, cauchy, geman_mcclure or switchable.\n");
    return 1;
  }
  std::string error;
  for (Recording<Graph>* r : {&train_, &test_}) {
    InjectFalseLoops(FLAGS_false_loops, FLAGS_seed, r);
    r->set.assign(r->graph.edges.size(), 0);
    r->pose_set.assign(r->truth.size(), 0);
  }
  const bool share_truth = has_truth() && !has_test_graph();
  for (size_t i = 0; share_truth && i < train_.truth.size(); ++i) {
    train_.pose_set[i] = 10 * i / train_.truth.size() % 2 == 0 ? 0 : 2;
  }
  if (!has_truth() && !HoldOut(&train_, &error)) {
    std::fprintf(stderr, "Loop closures cannot be held out: %s.\n", error.c_str());
    return 1;
  }
  const auto& edges = train_.graph.edges;
  const long num_odometry =
      std::count_if(edges.begin(), edges.end(), [](const auto& e) { return e.IsOdometry(); });
  const long num_loops = static_cast<long>(edges.size()) - num_odometry;
  if (num_odometry == 0 || num_loops == 0) {
    std::fprintf(stderr,
                 "The graph to learn on has %ld odometry edges and %ld loop closures: there must "
                 "be some of each.\n",
                 num_odometry,
                 num_loops);
    return 1;
  }
  std::printf("%zu poses, %ld odometry edges, %ld loop closures",
              train_.graph.vertices.size(),
              num_odometry,
              num_loops);
  if (FLAGS_false_loops > 0.0) {
    std::printf(" (%ld of them false)",
                std::count(train_.is_false.begin(), train_.is_false.end(), 1));
  }
  if (!has_truth()) {
    std::printf(", %ld held out to learn by and %ld to test",
                std::count(train_.set.begin(), train_.set.end(), 1),
                std::count(train_.set.begin(), train_.set.end(), 2));
  }
  std::printf(".\n");
  if (share_truth) {
    std::printf("Of the truth every second tenth of the way is to learn by, the others to test.\n");
  }
  if (!has_truth() && std::count(train_.set.begin(), train_.set.end(), 1) < 10 * 2 * noise_.size) {
    std::printf("WARNING: so few held-out loop closures say little about %d unknowns.\n",
                2 * noise_.size);
  }

  Levels<Graph> levels(&train_, &noise_);
  std::unique_ptr<Levels<Graph>> test_levels;
  bilevel::Solver::Options options = SolverOptions();
  if (!has_truth()) options.function_tolerance = 1e-3;  // Held-out errors tell no more.
  const auto make_phi = [&](Levels<Graph>* l) {
    return std::make_unique<examples::Phi>(
        options, noise_.Coordinates(), [l] { return l->Score(); }, &l->problem);
  };
  phi_ = make_phi(&levels);
  if (has_test_graph()) {
    test_levels = std::make_unique<Levels<Graph>>(&test_, &noise_);
    test_phi_ = make_phi(test_levels.get());
  }
  for (const auto* phi : {phi_.get(), test_phi_.get()}) {
    if (phi && !phi->error().empty()) {
      std::fprintf(stderr, "%s.\n", phi->error().c_str());
      return 1;
    }
  }

  // Learned, from each start; the truth is aligned with the first solution.
  by_hand_ = noise_.Get();
  std::vector<double> start = by_hand_;
  for (int k = 0; k < noise_.size; ++k) start[noise_.size + k] = std::log(FLAGS_start);
  std::vector<std::vector<double>> starts = {start};
  if (noise_.loss != "none") {
    for (const double scale : {1.0, 30.0}) {
      starts.push_back(start);
      starts.back().back() = std::log(scale);
      if (FLAGS_quick) break;
    }
  }
  std::vector<Cost> costs;
  examples::Table starts_table(
      {"start", "learned from there", "score", "iterations", "solves", ""});
  const auto describe = [&](const std::vector<double>& x) {
    std::string text;
    for (size_t i = 0; i < x.size(); ++i) text += Format("%s%.3g", i ? " " : "", std::exp(x[i]));
    return text;
  };
  Result learned;
  bilevel::Solver::Summary summary;
  std::vector<double> end_scores;
  Cost learning{"learned", {}, 0.0};
  bool have_upper = false;
  for (const auto& from : starts) {
    const double start_time = Now();
    const bilevel::LowerSolverCounts before = phi_->counts();
    if (!std::isfinite(SolveCold(from, phi_.get()))) {
      starts_table.Add({describe(from), "-", "-", "-", "-", "no lower solution"});
      continue;
    }
    if (!have_upper && has_truth()) levels.AddTruth();
    if (!have_upper && !has_truth()) levels.AddPrior(FLAGS_prior);
    have_upper = true;
    std::fill(std::begin(levels.alignment), std::end(levels.alignment), 0.0);
    bilevel::Solver::Summary trial;
    bilevel::Solve(options, &levels.problem, &trial);
    bilevel::LowerSolverCounts counts = trial.lower_solver;
    counts += phi_->counts() - before;
    learning.counts += counts;
    learning.seconds += Now() - start_time;
    const double score = levels.Score();
    const bool usable = trial.IsSolutionUsable();
    starts_table.Add({describe(from),
                      usable ? describe(noise_.Get()) : "-",
                      usable ? Format("%.4g", score) : "-",
                      std::to_string(trial.iterations.size()),
                      std::to_string(counts.cold_solves + counts.warm_solves),
                      trial.termination_type == ceres::CONVERGENCE ? "" : trial.message});
    if (!usable) continue;
    end_scores.push_back(score);
    if (learned.x.empty() || score < learned.train) {
      learned.x = noise_.Get();
      learned.train = score;
      summary = trial;
    }
  }
  const char* unit = has_truth() ? "m" : "sigmas in the file";
  std::printf("\nLearning: factors on the sigmas of odometry and loop closures%s, score [%s]\n\n%s",
              noise_.loss == "none" ? "" : ", scale of the loss",
              unit,
              starts_table.ToString().c_str());
  if (learned.x.empty()) {
    std::fprintf(stderr, "FAILURE: nothing was learned.\n");
    return 1;
  }
  costs.push_back(learning);
  if (*std::max_element(end_scores.begin(), end_scores.end()) > 1.01 * learned.train) {
    std::printf("\nThe starts lead to different minima; the best is taken.\n");
  }
  std::printf("\n%s\n", summary.BriefReport().c_str());
  for (const std::string& flat : summary.flat_upper_directions) {
    std::printf("Flat, and left alone: %s.\n", flat.c_str());
  }
  for (const std::string& bound : summary.active_upper_bounds) {
    std::printf("Ended on its bound: %s.\n", bound.c_str());
  }
  double warm_train = learned.train;

  // The same at the same starts, without derivatives; the first sigma stays as it is.
  std::vector<Result> others = {Evaluate("as in the file", by_hand_)};
  std::string jump;
  double from_elsewhere = std::nan("");
  if (FLAGS_baselines) {
    const auto search = [&](const char* name, auto run) {
      const double start_time = Now();
      const bilevel::LowerSolverCounts counts = phi_->counts();
      SolveCold(start, phi_.get());
      const examples::SearchResult result = run([&](const std::vector<double>& rest) {
        std::vector<double> x = start;
        std::copy(rest.begin(), rest.end(), x.begin() + 1);
        return (*phi_)(x);
      });
      costs.push_back({name, phi_->counts() - counts, Now() - start_time});
      std::vector<double> x = start;
      std::copy(result.x.begin(), result.x.end(), x.begin() + 1);
      others.push_back(Evaluate(name, x));
    };
    search("best of the grid", [&](const examples::Score& score) {
      std::vector<std::vector<double>> axes;
      for (size_t i = 1; i < start.size(); ++i) {
        axes.emplace_back();
        // Five points an axis; a learned scale of the loss, and more axes, more coarsely.
        const int step = FLAGS_quick || axes.size() > 3 ? 2 : 1;
        for (int k = -2; k <= 2; k += step) axes.back().push_back(start[i] + k * std::log(3.0));
        if (FLAGS_per_axis && axes.size() > 3) axes.back() = {start[i]};
      }
      return examples::GridSearch(score, axes);
    });
    search("Nelder-Mead", [&](const examples::Score& score) {
      return examples::NelderMead(
          score, {start.begin() + 1, start.end()}, std::log(3.0), 1e-4, FLAGS_quick ? 80 : 200);
    });
  }
  if (!true_x_.empty() && noise_.size == 2) {
    std::vector<double> x = true_x_;
    if (noise_.loss != "none") x.push_back(learned.x.back());
    others.push_back(Evaluate("true sigmas", x));
  }
  // Only what a solve from the graph's own start reproduces can be used: else go back on the way
  // that x took, in up to eight strides.
  const int last = static_cast<int>(summary.iterations.size()) - 1;
  const std::vector<double> end = learned.x;
  learned = Evaluate("learned", end);
  for (int k = 1; k <= 8 && !(learned.train <= 1.01 * warm_train); ++k) {
    if (k == 1) {
      std::printf(
          "\nA cold solve at the learned values scores %.4g instead of %.4g: the estimate has more "
          "than one solution there. Taken instead: an earlier iterate.\n",
          learned.train,
          warm_train);
    }
    const auto& it = summary.iterations[last - k * last / 8];
    if (!it.step_is_successful) continue;
    std::copy_n(it.x.begin(), end.size(), learned.x.begin());
    warm_train = std::sqrt(2.0 * it.objective);
    learned = Evaluate("learned", learned.x);
  }
  if (noise_.loss != "none") {
    // Robust losses have many solutions: from another start the same x may score otherwise, and phi
    // jumps where a solution ends.
    SolveCold(by_hand_, phi_.get());
    jump = phi_->FindJump(by_hand_, learned.x, 6);
    from_elsewhere = (*phi_)(learned.x);
    std::printf("\nOn the straight way from the file's sigmas to the learned ones: %s.\n",
                jump.empty() ? "no jump of the score" : jump.c_str());
    if (std::abs(from_elsewhere - learned.train) > 0.01 * learned.train) {
      std::printf(
          "Begun at the solution with the file's sigmas, the estimate with the learned ones scores "
          "%.4g: another solution. Begin with a large scale of the loss, as here.\n",
          from_elsewhere);
    }
  }
  others.push_back(learned);

  std::printf("\nRoot mean square %s [%s]\n\n",
              has_truth()         ? "position error"
              : FLAGS_prior > 1.0 ? "error of held-out loop closures, train: with the prior"
                                  : "error of held-out loop closures",
              unit);
  examples::Table table({"", "factors on sigmas", "train", "test", "test, to the file's"});
  for (const Result& r : others) {
    const bool have_test = std::isfinite(r.test);
    table.Add({r.name,
               describe(r.x),
               Format("%.4g", r.train),
               have_test ? Format("%.4g", r.test) : "-",
               have_test ? Format("%+.1f %%", 100.0 * (r.test / others[0].test - 1.0)) : "-"});
  }
  std::printf("%s", table.ToString().c_str());
  examples::Interval interval{0.0, 0.0};
  constexpr size_t kFewest = 20;
  if (!learned.test_errors.empty() && learned.test_errors.size() < kFewest) {
    std::printf("\nThe test part has %zu errors: too few to tell whether one is better.\n",
                learned.test_errors.size());
  } else if (!learned.test_errors.empty()) {
    const int block = std::max<int>(1, static_cast<int>(learned.test_errors.size()) / 30);
    interval = examples::BootstrapDifference(learned.test_errors, others[0].test_errors, block);
    std::printf(
        "\nOn the test part, learned less as in the file: %+.4g, 95 %% interval %+.4g to %+.4g "
        "(bootstrap over blocks): %s.\n",
        learned.test - others[0].test,
        interval.low,
        interval.high,
        interval.high < 0.0  ? "better"
        : interval.low > 0.0 ? "worse"
                             : "no difference that these data show");
  }

  for (const Result& r : others) {
    if (!(r.test < 0.99 * learned.test && r.train > 1.01 * learned.train)) continue;
    std::printf(
        "\n\"%s\" scores worse on the training part and better on the test: what was learned "
        "overfits.\n",
        r.name.c_str());
    break;
  }

  std::printf("\nCost\n\n");
  examples::Table cost_table(
      {"", "cold solves", "warm solves", "failed", "factorisations", "seconds"});
  for (const Cost& c : costs) {
    cost_table.Add({c.name,
                    std::to_string(c.counts.cold_solves),
                    std::to_string(c.counts.warm_solves),
                    std::to_string(c.counts.failed_solves),
                    std::to_string(c.counts.factorizations),
                    Format("%.1f", c.seconds)});
  }
  std::printf("%s", cost_table.ToString().c_str());
  const long solves = learning.counts.cold_solves + learning.counts.warm_solves;
  const double full = std::pow(5.0, static_cast<double>(learned.x.size()) - 1.0);
  std::printf(
      "\nA grid of 5 points an axis, one sigma held, has %.0f: %.1f times as many lower solves as "
      "learning took.\n",
      full,
      full / static_cast<double>(solves));

  // Whatever the score, absolute sigmas follow from the size of the residuals at the solution.
  SolveCold(learned.x, phi_.get());
  double common = 1.0;
  if (noise_.loss == "none") {
    double chi2 = 0.0;
    double freedom = -Graph::kDim * (static_cast<double>(train_.graph.vertices.size()) - 1.0);
    std::vector<ceres::ResidualBlockId> ids;
    levels.problem.lower()->GetResidualBlocks(&ids);
    freedom += Graph::kDim * static_cast<double>(ids.size());
    ceres::Problem::EvaluateOptions evaluate;
    evaluate.residual_blocks = ids;
    levels.problem.lower()->Evaluate(evaluate, &chi2, nullptr, nullptr, nullptr);
    chi2 *= 2.0;
    if (freedom > 0.0) common = std::sqrt(chi2 / freedom);
    std::printf(
        "\nAbsolute level: with these ratios the residuals ask for %.4g times larger sigmas "
        "(chi2 / degrees of freedom = %.4g). It is in the lines and in the file below.\n",
        common,
        common * common);
    for (int k = 0; k < noise_.size; ++k) {
      noise_.odometry[k] += std::log(common);
      noise_.loops[k] += std::log(common);
    }
  }
  std::string paste = levels.odometry->Describe("odometry") + levels.loops->Describe("loop") +
                      (levels.loss ? levels.loss->Describe() + "\n" : "");
  examples::Json switched;
  if (noise_.loss == "switchable") {
    paste += Format("const double sqrt_switch_prior = %.4g;  // Times (1 - s).\n",
                    std::exp(noise_.log_scale));
    const auto count = levels.CountSwitches();
    std::printf("\nSwitched off: %d of %d false loop closures, %d of %d true ones.\n",
                count.off[1],
                count.all[1],
                count.off[0],
                count.all[0]);
    switched.Add("false", count.off[1] / std::max(1.0, 1.0 * count.all[1]))
        .Add("true", count.off[0] / std::max(1.0, 1.0 * count.all[0]));
  }
  std::printf(
      "\nTo paste into a Ceres program (factors on the sigmas of the file's information):\n\n%s",
      paste.c_str());
  if (!FLAGS_write_g2o.empty()) {
    Graph graph = train_.graph;
    for (auto& edge : graph.edges) {
      const double* log_sigmas = edge.IsOdometry() ? noise_.odometry : noise_.loops;
      typename Graph::Information w = SquareRoot(edge.information);
      for (int k = 0; k < Graph::kDim; ++k) {
        const int entry = noise_.size > 2 ? k : k < (Graph::kDim == 3 ? 2 : 3) ? 0 : 1;
        w.row(k) *= std::exp(-log_sigmas[entry]);
      }
      edge.information = w.transpose() * w;
    }
    if (!examples::WriteG2o(graph, FLAGS_write_g2o, &error)) {
      std::fprintf(stderr, "%s.\n", error.c_str());
      return 1;
    }
  }
  std::printf("\n%.0f s in all.\n", Now() - begin);

  examples::Json json;
  const auto row = [](const Result& r) {
    return examples::Json().Add("x", r.x).Add("train", r.train).Add("test", r.test);
  };
  for (const Result& r : others) {
    std::string key = r.name;
    std::replace(key.begin(), key.end(), ' ', '_');
    json.Add(key, row(r));
  }
  for (const Cost& c : costs) {
    std::string key = "cost of " + c.name;
    std::replace(key.begin(), key.end(), ' ', '_');
    json.Add(key,
             examples::Json()
                 .Add("cold_solves", static_cast<double>(c.counts.cold_solves))
                 .Add("warm_solves", static_cast<double>(c.counts.warm_solves))
                 .Add("factorizations", static_cast<double>(c.counts.factorizations))
                 .Add("seconds", c.seconds));
  }
  json.Add("test_interval", std::vector<double>{interval.low, interval.high})
      .Add("common_factor", common)
      .Add("flat_directions", static_cast<double>(summary.flat_upper_directions.size()))
      .Add("jump", jump)
      .Add("scores_of_starts", end_scores)
      .Add("score_from_elsewhere", from_elsewhere)
      .Add("paste", paste)
      .Add("switched_off", switched)
      .AddRaw("summary", summary.Json());
  bool ok = examples::WriteFile(FLAGS_summary_json, json.ToString());
  ok = examples::WriteFile(FLAGS_trace_csv, summary.Csv()) && ok;
  if (!FLAGS_plot.empty()) ok = Draw(others, learned, summary) && ok;
  return ok ? 0 : 1;
}

template <typename Graph>
bool Job<Graph>::Draw(const std::vector<Result>& rows,
                      const Result& learned,
                      const bilevel::Solver::Summary& summary) {
  std::vector<examples::Panel> panels;
  const auto map = [&](const std::string& title, Recording<Graph>* r, examples::Phi* phi) {
    Positions paths[2];
    const Positions reference = r->truth;
    for (int k = 0; k < 2; ++k) {
      SolveCold(k == 0 ? rows[0].x : learned.x, phi);
      paths[k] = r->Estimate();
      if (reference.empty()) continue;
      const Motion motion = r->Alignment();
      for (auto& p : paths[k]) p = motion.r * p + motion.t;
    }
    // The two axes along which it goes farthest.
    Eigen::Vector3d low = paths[1][0], high = low;
    for (const auto& p : reference.empty() ? paths[1] : reference) {
      low = low.cwiseMin(p);
      high = high.cwiseMax(p);
    }
    int least;
    (high - low).minCoeff(&least);
    const int a = least == 0 ? 1 : 0, b = least == 2 ? 1 : 2;
    const char* names[] = {"x [m]", "y [m]", "z [m]"};
    examples::Panel panel{title, names[a], names[b]};
    panel.equal_axes = true;
    const auto add = [&](const char* name, const Positions& path) {
      examples::Series series{name, "lines", {}, {}};
      for (const auto& p : path) {
        series.x.push_back(p[a]);
        series.y.push_back(p[b]);
      }
      panel.series.push_back(series);
    };
    if (!reference.empty()) add("ground truth", reference);
    add("as in the file", paths[0]);
    add("learned", paths[1]);
    panels.push_back(panel);
  };
  map("Training graph", &train_, phi_.get());
  if (has_test_graph()) map("Test graph", &test_, test_phi_.get());

  examples::Panel convergence{
      "Convergence", "iteration", has_truth() ? "rms error [m]" : "rms error"};
  examples::Series score{"score (left)", "linespoints", {}, {}};
  std::vector<examples::Series> factors;
  const char* names[] = {"odometry, translation",
                         "odometry, rotation",
                         "loops, translation",
                         "loops, rotation",
                         "scale of the loss"};
  for (size_t i = 0; i < learned.x.size(); ++i) {
    factors.push_back(
        {noise_.size == 2 ? names[i] : "sigma " + std::to_string(i), "lines", {}, {}, true});
  }
  for (const auto& it : summary.iterations) {
    if (!it.step_is_successful) continue;
    score.x.push_back(it.iteration);
    score.y.push_back(std::sqrt(2.0 * it.objective));
    for (size_t i = 0; i < factors.size(); ++i) {
      factors[i].x.push_back(it.iteration);
      factors[i].y.push_back(it.x[i] / std::log(10.0));
    }
  }
  convergence.series = {score};
  convergence.series.insert(convergence.series.end(), factors.begin(), factors.end());
  convergence.right_label = "log10 of factors";
  panels.push_back(convergence);

  if (!learned.test_errors.empty()) {
    examples::Panel errors{"Errors of the test part",
                           has_truth() ? "pose" : "loop closure held out",
                           has_truth() ? "error [m]" : "error [sigmas in the file]"};
    for (const Result* r : {&rows[0], &learned}) {
      examples::Series series{r->name, has_truth() ? "lines" : "points", {}, {}};
      for (size_t i = 0; i < r->test_errors.size(); ++i) {
        series.x.push_back(static_cast<double>(i));
        series.y.push_back(r->test_errors[i]);
      }
      errors.series.push_back(series);
    }
    panels.push_back(errors);
  }
  return examples::Plot(FLAGS_plot, "Learning the noise of a pose graph", panels);
}

// ------------------------------------------------------------------------------------------------

bool Fail(const std::string& error) {
  std::fprintf(stderr, "%s.\n", error.c_str());
  return false;
}

// The positions of the truth, as many as the graph has vertices.
bool ReadTruth(const std::string& path, bool planar, size_t size, Positions* truth) {
  std::string error;
  examples::AnyPoseGraph graph;
  examples::Trajectory trajectory;
  if (examples::ReadPoseGraph(path, &graph, &error)) {
    std::visit(
        [&](const auto& g) {
          for (const auto& v : g.vertices) truth->push_back(Position(v.pose));
        },
        graph);
  } else {
    std::string second;
    if (!examples::ReadTrajectory(path, &trajectory, &second)) {
      return Fail("Neither a graph nor a trajectory: " + error + "; " + second);
    }
    if (planar) {
      for (const Pose2& pose : examples::SeenFromAbove(trajectory))
        truth->push_back(Position(pose));
    } else {
      for (const Pose3& pose : trajectory.poses) truth->push_back(Position(pose));
    }
  }
  if (truth->size() == size) return true;
  return Fail(path + " has " + std::to_string(truth->size()) + " poses, the graph " +
              std::to_string(size) + " vertices");
}

template <typename Graph>
bool Fill(const examples::AnyPoseGraph& any,
          const std::string& truth,
          Recording<Graph>* recording) {
  if (!std::holds_alternative<Graph>(any)) {
    return Fail("Of the two graphs one is in the plane and the other in space");
  }
  recording->graph = std::get<Graph>(any);
  return truth.empty() ||
         ReadTruth(truth, Graph::kDim == 3, recording->graph.vertices.size(), &recording->truth);
}

// The vertices from `begin` to before `end`, with the edges between them.
template <typename Graph>
Recording<Graph> Cut(const Recording<Graph>& whole, int begin, int end) {
  Recording<Graph> part;
  part.graph.vertices.assign(whole.graph.vertices.begin() + begin,
                             whole.graph.vertices.begin() + end);
  part.truth.assign(whole.truth.begin() + begin, whole.truth.begin() + end);
  for (auto edge : whole.graph.edges) {
    edge.from -= begin;
    edge.to -= begin;
    const int size = end - begin;
    if (edge.from < 0 || edge.to < 0 || edge.from >= size || edge.to >= size) continue;
    part.graph.edges.push_back(edge);
  }
  return part;
}

template <typename Graph>
int RunFiles(const examples::AnyPoseGraph& any) {
  Recording<Graph> train, test;
  if (!Fill(any, FLAGS_truth, &train)) return 1;
  if (FLAGS_split < 1.0 && !train.truth.empty()) {
    const int size = static_cast<int>(train.graph.vertices.size());
    const int middle = static_cast<int>(FLAGS_split * size);
    test = Cut(train, middle, size);
    train = Cut(train, 0, middle);
  }
  if (!FLAGS_test_graph.empty()) {
    examples::AnyPoseGraph test_graph;
    std::string error;
    if (!examples::ReadPoseGraph(FLAGS_test_graph, &test_graph, &error)) {
      std::fprintf(stderr, "%s.\n", error.c_str());
      return 1;
    }
    if (!Fill(test_graph, FLAGS_test_truth, &test)) return 1;
    if (train.truth.empty() || test.truth.empty()) {
      std::fprintf(stderr, "A graph to test on needs a truth, and so does the one to learn on.\n");
      return 1;
    }
  }
  return Job<Graph>(std::move(train), std::move(test), {}).Run();
}

int Run() {
  if (FLAGS_graph.empty()) {
    const TrueSigmas sigmas;
    std::vector<double> true_x;
    for (const double* s : {sigmas.odometry, sigmas.loops}) {
      for (const int k : {0, 2}) true_x.push_back(std::log(s[k] / 0.1));
    }
    const int size = FLAGS_quick ? 700 : 2000;
    return Job<PoseGraph2>(
               Simulate(size, 2 * FLAGS_seed + 1), Simulate(size, 2 * FLAGS_seed + 2), true_x)
        .Run();
  }
  examples::AnyPoseGraph graph;
  std::string error;
  if (!examples::ReadPoseGraph(FLAGS_graph, &graph, &error)) {
    std::fprintf(stderr, "%s.\n", error.c_str());
    return 1;
  }
  return std::holds_alternative<PoseGraph2>(graph) ? RunFiles<PoseGraph2>(graph)
                                                   : RunFiles<PoseGraph3>(graph);
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // To be watched, into a file too.
  examples::ParseFlags(
      "Learns the noise of a pose graph's odometry and loop closures so that its positions come\n"
      "closest to the truth, or so that it foretells loop closures held out; with --false_loops "
      "or\n"
      "--loss also the scale of a robust loss. Beside it a grid and Nelder and Mead's simplex.\n\n"
      "Usage: tune_pose_graph [flags] [graph]\n\n"
      "  tune_pose_graph --false_loops=0.2 --plot=tuned.png\n"
      "  tune_pose_graph --graph=kitti_00.g2o --truth=poses/00.txt --test_graph=kitti_02.g2o \\\n"
      "      --test_truth=poses/02.txt --write_g2o=tuned.g2o\n"
      "  tune_pose_graph intel.g2o",
      &argc,
      &argv);
  if (argc > 1) FLAGS_graph = argv[1];
  if (FLAGS_num_threads < 1 || !(FLAGS_start > 0.0) || !(FLAGS_false_loops >= 0.0) ||
      !(FLAGS_split > 0.0) || FLAGS_split > 1.0 || (FLAGS_prior != 0.0 && !(FLAGS_prior > 1.0))) {
    std::fprintf(stderr,
                 "--num_threads and --start must be positive, --false_loops not negative, --split "
                 "between 0 and 1, --prior 0 or above 1.\n");
    return 1;
  }
  return Run();
}
