#ifndef BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_GRAPH_LEVELS_H_
#define BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_GRAPH_LEVELS_H_

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/learnable/noise.h"
#include "examples/support/baselines.h"
#include "examples/support/slam/recording.h"

namespace examples {

/// What is learned about a pose graph: for each class of edges the log-factors on the sigmas of the
/// file, one each for translation and rotation or one an axis, and the log-scale of the loop
/// closures' loss in sigmas.
struct PoseGraphNoise {
  static constexpr double kWidest = 1000.0;  ///< Factors stay between this and its inverse.

  int size = 2;  ///< Of each class; or 3 or 6, one an axis.
  double odometry[6] = {}, loops[6] = {};
  double log_scale = std::log(5.0);
  /// Of loop closures: none, cauchy, geman_mcclure, or switchable (a switch for each).
  std::string loss = "none";

  std::vector<double*> Coordinates();
  std::vector<double> Get();
  void Set(const std::vector<double>& values);
  /// Of which entry of a class the coordinate k of an edge's error is.
  int Entry(int k, int dim) const { return size > 2 ? k : k < (dim == 3 ? 2 : 3) ? 0 : 1; }
};

/// The two levels of a recording under a noise. Below: its edges for the estimate. Above: held-out
/// loop closures, or with AddTruth the truth.
template <typename Graph>
class PoseGraphLevels {
 public:
  /// Both must outlive this.
  PoseGraphLevels(Recording<Graph>* recording, PoseGraphNoise* noise);

  /// The truth as an upper level, aligned with the trajectory as it stands in memory.
  void AddTruth();
  /// Few held-out errors would have sigmas go anywhere: a prior around the file's, worth
  /// one error of them as they are with the estimate in memory at each factor of `factor`.
  void AddPrior(double factor);

  /// The root of twice phi, at what stands in memory.
  double Score();

  /// chi2 over the degrees of freedom at the solution in memory; 0 where there are none, or priors,
  /// beside which sigmas have no common factor to spare. Without a robust loss.
  double RelativeChi2();

  /// Loop closures that are false or not, and how many of each are switched off by more than half.
  struct Switched {
    int all[2] = {}, off[2] = {};
  };
  Switched CountSwitches() const;
  /// Switches at their best for the poses in memory.
  void SetSwitches();

  bilevel::Problem problem;
  std::unique_ptr<bilevel::NoiseModel> odometry, loops;
  bilevel::LearnableLoss* loss = nullptr;
  std::vector<double> switches;  ///< Of each edge; for loop closures that are switchable.
  double alignment[6] = {};
  double prior_sigma = std::numeric_limits<double>::infinity();

 private:
  void SetConstant(typename Graph::Pose* pose);
  void AddEdges();
  void AddHeldOut();

  Recording<Graph>* recording_;
  PoseGraphNoise* noise_;
};

/// A recording under a noise of its own, and its estimate from the graph's own start, as the
/// graph's user would have it.
template <typename Graph>
class PoseGraphEstimator {
 public:
  PoseGraphEstimator(const Recording<Graph>& r,
                     const PoseGraphNoise& n,
                     const bilevel::Solver::Options& o)
      : recording(r),
        noise(n),
        levels(&recording, &noise),
        phi(
            o, noise.Coordinates(), [this] { return levels.Score(); }, &levels.problem),
        file_(r.graph),
        by_hand_(noise.Get()),
        num_threads_(o.num_threads) {}
  PoseGraphEstimator(const PoseGraphEstimator&) = delete;
  PoseGraphEstimator& operator=(const PoseGraphEstimator&) = delete;

  /// With a robust loss: the graph as it grows with the noise as it is, and switches for that.
  void Grow();

  /// The score of the solution at x, begun at the solution with the file's sigmas, and that at the
  /// graph's own start; with a robust loss, at the graph as it grew.
  double SolveCold(const std::vector<double>& x);

  Recording<Graph> recording;
  PoseGraphNoise noise;
  PoseGraphLevels<Graph> levels;
  Phi phi;

 private:
  const Graph file_;
  const std::vector<double> by_hand_;
  const int num_threads_;
};

/// The graph with the noise's factors in its information.
template <typename Graph>
Graph WithNoise(const Graph& graph, const PoseGraphNoise& noise);

/// The noise that the edges between poses to learn by have at the truth.
template <typename Graph>
bilevel::ResidualStatistics MeasureAtTruth(const Recording<Graph>& recording,
                                           const PoseGraphNoise& noise);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_SLAM_POSE_GRAPH_LEVELS_H_
