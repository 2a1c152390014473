#include "examples/support/slam/pose_graph_levels.h"

#include <algorithm>

#include "bilevel/learnable/noise.h"
#include "ceres/ceres.h"
#include "examples/support/slam/grow_pose_graph.h"
#include "examples/support/slam/pose_graph_cost.h"

namespace examples {
namespace {

std::unique_ptr<bilevel::NoiseModel> Model(double* log_sigmas, int size, int dim) {
  if (size == 2) return std::make_unique<MotionNoise>(log_sigmas, dim);
  return std::make_unique<bilevel::DiagonalNoise>(log_sigmas, dim);
}

}  // namespace

std::vector<double*> PoseGraphNoise::Coordinates() {
  std::vector<double*> all;
  for (int k = 0; k < size; ++k) all.push_back(odometry + k);
  for (int k = 0; k < size; ++k) all.push_back(loops + k);
  if (loss != "none") all.push_back(&log_scale);
  return all;
}

void PoseGraphNoise::Set(const std::vector<double>& values) {
  const std::vector<double*> all = Coordinates();
  for (size_t i = 0; i < all.size(); ++i) *all[i] = values[i];
}

std::vector<double> PoseGraphNoise::Get() {
  std::vector<double> values;
  for (const double* p : Coordinates()) values.push_back(*p);
  return values;
}

template <typename Graph>
PoseGraphLevels<Graph>::PoseGraphLevels(Recording<Graph>* recording, PoseGraphNoise* noise)
    : recording_(recording), noise_(noise) {
  auto& vertices = recording->graph.vertices;
  bool any_fixed = false;
  for (auto& v : vertices) {
    AddPose(&v.pose, problem.lower());
    for (double* block : Blocks(&v.pose)) {
      problem.SetParameterName(block, "vertex " + std::to_string(v.id));
    }
    any_fixed |= v.fixed;
    if (v.fixed) SetConstant(&v.pose);
  }
  if (!any_fixed && recording->graph.priors.empty()) SetConstant(&vertices[0].pose);

  switches.assign(recording->graph.edges.size(), 1.0);
  odometry = Model(noise->odometry, noise->size, Graph::kDim);
  loops = Model(noise->loops, noise->size, Graph::kDim);
  if (noise->loss == "cauchy") {
    loss = problem.Own(std::make_unique<bilevel::CauchyLoss>(&noise->log_scale));
  } else if (noise->loss == "geman_mcclure") {
    loss = problem.Own(std::make_unique<bilevel::GemanMcClureLoss>(&noise->log_scale));
  }
  AddEdges();

  const double widest = std::log(PoseGraphNoise::kWidest);
  const auto add = [&](double* block, int size, const char* name, double low, double high) {
    problem.AddUpperParameterBlock(block, size);
    problem.SetParameterName(block, name);
    for (int k = 0; k < size; ++k) {
      problem.SetParameterLowerBound(block, k, low);
      problem.SetParameterUpperBound(block, k, high);
    }
  };
  add(noise->odometry, noise->size, "log odometry", -widest, widest);
  add(noise->loops, noise->size, "log loops", -widest, widest);
  if (noise->loss != "none") add(&noise->log_scale, 1, "log scale", std::log(0.01), widest);
  if (recording->truth.empty()) AddHeldOut();
}

template <typename Graph>
void PoseGraphLevels<Graph>::AddEdges() {
  for (const auto& prior : recording_->graph.priors) {
    problem.lower()->AddResidualBlock(
        MakeCost(prior), nullptr, Blocks(&recording_->graph.vertices[prior.vertex].pose));
  }
  for (size_t k = 0; k < recording_->graph.edges.size(); ++k) {
    if (recording_->set[k] != 0) continue;
    const auto& edge = recording_->graph.edges[k];
    std::vector<double*> blocks = recording_->EdgeBlocks(edge);
    if (edge.IsOdometry()) {
      odometry->AddResidualBlock(MakeCost(edge), nullptr, blocks, problem.lower());
    } else if (noise_->loss != "switchable") {
      loops->AddResidualBlock(MakeCost(edge), loss, blocks, problem.lower());
    } else {
      blocks.push_back(&switches[k]);
      loops->AddResidualBlock(MakeSwitchedCost(edge), nullptr, blocks, problem.lower());
      problem.lower()->AddResidualBlock(
          MakeSwitchPrior(), nullptr, &switches[k], &noise_->log_scale);
    }
  }
}

template <typename Graph>
void PoseGraphLevels<Graph>::SetConstant(typename Graph::Pose* pose) {
  for (double* block : Blocks(pose)) problem.lower()->SetParameterBlockConstant(block);
}

template <typename Graph>
void PoseGraphLevels<Graph>::AddHeldOut() {
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

template <typename Graph>
void PoseGraphLevels<Graph>::AddTruth() {
  auto& vertices = recording_->graph.vertices;
  const auto& pose_set = recording_->pose_set;
  const PositionErrors errors(recording_->Alignment(),
                              ToPositions(recording_->truth),
                              std::max(Rms(recording_->PositionErrors(0)), 1e-3));
  const double weight = 1.0 / std::sqrt(1.0 * std::count(pose_set.begin(), pose_set.end(), 0));
  for (size_t i = 0; i < vertices.size(); ++i) {
    if (pose_set[i] != 0) continue;
    const Eigen::Vector3d truth = Position(recording_->truth[i]);
    problem.upper()->AddResidualBlock(
        Graph::kDim == 3 ? errors.InPlane(truth, weight) : errors.InSpace(truth, weight),
        nullptr,
        alignment,
        Blocks(&vertices[i].pose).back());
  }
  problem.AddUpperParameterBlock(alignment, Graph::kDim);
  problem.SetParameterName(alignment, "alignment");
}

template <typename Graph>
void PoseGraphLevels<Graph>::AddPrior(double factor) {
  if (!(factor > 1.0)) return;
  const std::vector<double> errors = recording_->EdgeErrors(1);
  const double held_out = Graph::kDim * static_cast<double>(errors.size());
  prior_sigma = std::log(factor) * std::sqrt(held_out) / Rms(errors);
  for (double* block : {noise_->odometry, noise_->loops}) {
    problem.upper()->AddResidualBlock(
        new bilevel::NormalPrior(std::vector<double>(noise_->size, 0.0), prior_sigma),
        nullptr,
        block);
  }
}

template <typename Graph>
double PoseGraphLevels<Graph>::Score() {
  if (!recording_->truth.empty()) return Rms(recording_->PositionErrors(0));
  double square = std::pow(Rms(recording_->EdgeErrors(1)), 2);
  for (const double* block : {noise_->odometry, noise_->loops}) {
    for (int k = 0; k < noise_->size; ++k) square += std::pow(block[k] / prior_sigma, 2);
  }
  return std::sqrt(square);
}

template <typename Graph>
double PoseGraphLevels<Graph>::RelativeChi2() {
  if (!recording_->graph.priors.empty()) return 0.0;
  double cost = 0.0;
  problem.lower()->Evaluate(ceres::Problem::EvaluateOptions(), &cost, nullptr, nullptr, nullptr);
  const double freedom =
      Graph::kDim * (static_cast<double>(problem.lower()->NumResidualBlocks()) -
                     static_cast<double>(recording_->graph.vertices.size()) + 1.0);
  return freedom > 0.0 ? 2.0 * cost / freedom : 0.0;
}

template <typename Graph>
typename PoseGraphLevels<Graph>::Switched PoseGraphLevels<Graph>::CountSwitches() const {
  Switched count;
  for (size_t k = 0; k < switches.size(); ++k) {
    if (recording_->graph.edges[k].IsOdometry() || recording_->set[k] != 0) continue;
    const int is_false = recording_->is_false[k];
    ++count.all[is_false];
    count.off[is_false] += switches[k] < 0.5;
  }
  return count;
}

template <typename Graph>
void PoseGraphLevels<Graph>::SetSwitches() {
  const double square = std::exp(2.0 * noise_->log_scale);
  const Graph graph = WithNoise(recording_->graph, *noise_);
  double residuals[6];
  for (size_t k = 0; k < switches.size(); ++k) {
    const std::unique_ptr<ceres::CostFunction> cost(MakeCost(graph.edges[k]));
    cost->Evaluate(recording_->EdgeBlocks(graph.edges[k]).data(), residuals, nullptr);
    switches[k] =
        square / (square + Eigen::Map<Eigen::VectorXd>(residuals, Graph::kDim).squaredNorm());
  }
}

template <typename Graph>
void PoseGraphEstimator<Graph>::Grow() {
  examples::Grow(WithNoise(file_, noise), std::exp(noise.log_scale), num_threads_, &recording);
  if (noise.loss == "switchable") levels.SetSwitches();
}

template <typename Graph>
double PoseGraphEstimator<Graph>::SolveCold(const std::vector<double>& x) {
  if (noise.loss == "none") {
    phi.Restart();
    if (x != by_hand_) std::isfinite(phi(by_hand_)) ? phi.Continue() : phi.Restart();
    return phi(x);
  }
  noise.Set(x);
  Grow();
  phi.StartHere();
  return phi(x);
}

template <typename Graph>
Graph WithNoise(const Graph& graph, const PoseGraphNoise& noise) {
  Graph changed = graph;
  for (auto& edge : changed.edges) {
    const double* log_sigmas = edge.IsOdometry() ? noise.odometry : noise.loops;
    typename Graph::Information w = SquareRoot(edge.information);
    for (int k = 0; k < Graph::kDim; ++k) {
      w.row(k) *= std::exp(-log_sigmas[noise.Entry(k, Graph::kDim)]);
    }
    edge.information = w.transpose() * w;
  }
  return changed;
}

template <typename Graph>
bilevel::ResidualStatistics MeasureAtTruth(const Recording<Graph>& recording,
                                           const PoseGraphNoise& noise) {
  Recording<Graph> at_truth = recording;
  auto& r = at_truth;
  for (size_t i = 0; i < r.truth.size(); ++i) r.graph.vertices[i].pose = r.truth[i];
  for (size_t k = 0; k < r.set.size(); ++k) {
    const auto& edge = r.graph.edges[k];
    if (r.pose_set[edge.from] != 0 || r.pose_set[edge.to] != 0) r.set[k] = 2;
  }
  PoseGraphNoise own = noise;
  PoseGraphLevels<Graph> levels(&r, &own);
  if (own.loss == "switchable") levels.SetSwitches();
  return bilevel::MeasureResiduals({}, &levels.problem);
}

template class PoseGraphLevels<PoseGraph2>;
template class PoseGraphLevels<PoseGraph3>;
template class PoseGraphEstimator<PoseGraph2>;
template class PoseGraphEstimator<PoseGraph3>;
template PoseGraph2 WithNoise(const PoseGraph2&, const PoseGraphNoise&);
template PoseGraph3 WithNoise(const PoseGraph3&, const PoseGraphNoise&);
template bilevel::ResidualStatistics MeasureAtTruth(const Recording<PoseGraph2>&,
                                                    const PoseGraphNoise&);
template bilevel::ResidualStatistics MeasureAtTruth(const Recording<PoseGraph3>&,
                                                    const PoseGraphNoise&);

}  // namespace examples
