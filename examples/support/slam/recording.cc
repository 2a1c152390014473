#include "examples/support/slam/recording.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <utility>

#include "bilevel/bilevel.h"
#include "examples/support/slam/pose_graph_cost.h"
#include "examples/support/table.h"

namespace examples {

template <typename Graph>
void Recording<Graph>::UseAll() {
  set.assign(graph.edges.size(), 0);
  is_false.resize(graph.edges.size(), 0);
  pose_set.assign(truth.size(), 0);
}

template <typename Graph>
Motion Recording<Graph>::Alignment() const {
  Positions from, to;
  for (size_t i = 0; i < truth.size(); ++i) {
    if (pose_set[i] != 0) continue;
    from.push_back(Position(graph.vertices[i].pose));
    to.push_back(Position(truth[i]));
  }
  return Align(from, to, Graph::kDim == 3);
}

template <typename Graph>
std::vector<double> Recording<Graph>::PositionErrors(int which) const {
  const Motion motion = Alignment();
  std::vector<double> errors;
  for (size_t i = 0; i < truth.size(); ++i) {
    if (pose_set[i] != which) continue;
    errors.push_back(
        (motion.r * Position(graph.vertices[i].pose) + motion.t - Position(truth[i])).norm());
  }
  return errors;
}

template <typename Graph>
std::vector<double> Recording<Graph>::EdgeErrors(int which) {
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

template <typename Graph>
std::vector<double*> Recording<Graph>::EdgeBlocks(const typename Graph::Edge& edge) {
  std::vector<double*> blocks = Blocks(&graph.vertices[edge.from].pose);
  for (double* block : Blocks(&graph.vertices[edge.to].pose)) blocks.push_back(block);
  return blocks;
}

template <typename Graph>
std::string CompareWithTruth(const Recording<Graph>& recording) {
  const Positions from = Estimate(recording.graph), to = ToPositions(recording.truth);
  const Motion motion = Align(from, to, Graph::kDim == 3);
  Eigen::Vector3d centre = Eigen::Vector3d::Zero();
  for (const auto& p : to) centre += p / static_cast<double>(to.size());
  std::vector<double> errors, extents;
  for (size_t i = 0; i < to.size(); ++i) {
    errors.push_back((motion.r * from[i] + motion.t - to[i]).norm());
    extents.push_back((to[i] - centre).norm());
  }
  double measured = 0.0, way = 0.0;
  for (const auto& e : recording.graph.edges) {
    if (!e.IsOdometry()) continue;
    measured += Position(e.measured).norm();
    way += (to[e.to] - to[e.from]).norm();
  }
  const double share = Rms(errors) / Rms(extents), ratio = measured / way;
  return Format(
      "The graph's poses, aligned, are %.4g m rms from the truth, %.3g %% of its extent%s Its "
      "odometry is %.4g times as long as the truth's way%s\n",
      Rms(errors),
      100.0 * share,
      share < 1.0 ? "." : ": no closer than one point would be; is the truth of this graph?",
      ratio,
      ratio > 0.5 && ratio < 2.0 ? "." : ": are both in metres, and is a row a vertex's?");
}

template <typename Graph>
Recording<Graph> Cut(const Recording<Graph>& whole, int begin, int end) {
  Recording<Graph> part;
  part.graph.vertices.assign(whole.graph.vertices.begin() + begin,
                             whole.graph.vertices.begin() + end);
  part.truth.assign(whole.truth.begin() + begin, whole.truth.begin() + end);
  const int size = end - begin;
  for (auto prior : whole.graph.priors) {
    prior.vertex -= begin;
    if (prior.vertex >= 0 && prior.vertex < size) part.graph.priors.push_back(prior);
  }
  DropWeakPriors(&part.graph);
  for (auto edge : whole.graph.edges) {
    edge.from -= begin;
    edge.to -= begin;
    if (edge.from < 0 || edge.to < 0 || edge.from >= size || edge.to >= size) continue;
    part.graph.edges.push_back(edge);
  }
  return part;
}

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

template <typename Graph>
bool HoldOutLoops(unsigned seed, Recording<Graph>* recording, std::string* error) {
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
  options.seed = seed;
  std::vector<std::vector<const double*>> blocks;
  for (const double& r : runs) options.blocks.push_back(&r);
  for (size_t i = 0; i < loops.size(); ++i) blocks.push_back({&runs[i / run]});
  std::vector<int> set;
  if (!bilevel::ChooseHoldout(options, blocks, &set, error)) return false;
  for (size_t i = 0; i < loops.size(); ++i) recording->set[loops[i]] = set[i];
  return true;
}

Recording<PoseGraph2> SimulateGraph(int size, unsigned seed) {
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
    truth.push_back({{1.0 * x, 1.0 * y, Wrap(0.5 * M_PI * heading)}});
    const unsigned draw = generator() % 12;
    if (draw < 2) heading = (heading + (draw == 0 ? 1 : 3)) % 4;
    while (!inside(heading)) heading = (heading + 1) % 4;
    x += dx[heading];
    y += dy[heading];
  }
  Recording<PoseGraph2> recording;
  const Eigen::Matrix3d guess = Eigen::Matrix3d::Identity() / (sigmas.guess * sigmas.guess);
  std::map<std::pair<int, int>, std::vector<int>> visits;
  for (int i = 0; i < size; ++i) {
    recording.graph.vertices.push_back({i, truth[i]});
    recording.truth.push_back(truth[i]);
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
  PlaceByOdometry(&recording.graph, &error);
  return recording;
}

Recording<PoseGraph2> SimulateAlong(const std::vector<Pose2>& trajectory,
                                    const double* guess,
                                    unsigned seed) {
  constexpr double kOdometry[] = {0.03, 0.03, 0.002}, kLoops[] = {0.2, 0.2, 0.02}, kReach = 4.0;
  constexpr int kApart = 100, kSpacing = 5;
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  Recording<PoseGraph2> recording;
  recording.truth = trajectory;
  const auto add = [&](int from, int to, const double* sigma, const double* factor) {
    PoseGraph2::Edge edge{from, to, Between(trajectory[from], trajectory[to]), {}};
    Eigen::Vector3d guessed;
    for (int k = 0; k < 3; ++k) {
      edge.measured.v[k] += sigma[k] * normal(generator);
      guessed[k] = sigma[k] * factor[k == 2];
    }
    edge.information = guessed.cwiseAbs2().cwiseInverse().asDiagonal();
    recording.graph.edges.push_back(edge);
  };
  const auto distance = [&](int i, int j) {
    return std::hypot(trajectory[i].v[0] - trajectory[j].v[0],
                      trajectory[i].v[1] - trajectory[j].v[1]);
  };
  for (int i = 0; i < static_cast<int>(trajectory.size()); ++i) {
    recording.graph.vertices.push_back({i, trajectory[i]});
    if (i > 0) add(i - 1, i, kOdometry, guess);
    if (i % kSpacing != 0) continue;
    int nearest = -1;
    for (int j = 0; j + kApart <= i; ++j) {
      if (nearest < 0 || distance(i, j) < distance(i, nearest)) nearest = j;
    }
    if (nearest >= 0 && distance(i, nearest) < kReach) add(nearest, i, kLoops, guess + 2);
  }
  std::string error;
  PlaceByOdometry(&recording.graph, &error);
  return recording;
}

template std::string CompareWithTruth(const Recording<PoseGraph2>&);
template std::string CompareWithTruth(const Recording<PoseGraph3>&);
template struct Recording<PoseGraph2>;
template struct Recording<PoseGraph3>;
template Recording<PoseGraph2> Cut(const Recording<PoseGraph2>&, int, int);
template Recording<PoseGraph3> Cut(const Recording<PoseGraph3>&, int, int);
template void InjectFalseLoops(double, unsigned, Recording<PoseGraph2>*);
template void InjectFalseLoops(double, unsigned, Recording<PoseGraph3>*);
template bool HoldOutLoops(unsigned, Recording<PoseGraph2>*, std::string*);
template bool HoldOutLoops(unsigned, Recording<PoseGraph3>*, std::string*);

}  // namespace examples
