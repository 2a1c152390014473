#ifndef BILEVEL_METHODS_ZEROTH_ORDER_IGFM_H_
#define BILEVEL_METHODS_ZEROTH_ORDER_IGFM_H_

#include <string>
#include <vector>

#include "bilevel/methods/estimators/discontinuity.h"
#include "bilevel/methods/method.h"
#include "bilevel/methods/step_rule.h"

namespace bilevel {

/// IGFM, the inexact gradient-free method (Chen, Xu and Zhang, "Bilevel optimization without
/// lower-level strong convexity from the hyper-objective perspective", 2023, Algorithm 2): descent
/// on phi smoothed over a ball of radius delta, from values of phi alone. For each of B
/// directions u on the unit sphere of x's tangent space (d its dimension)
///
///   grad ~ d / (2 delta) (phi(x + delta u) - phi(x - delta u)) u,       x <- x - step mean(grad)
///
/// phi(x) = f(x, y) with the y of the lower solver, which may be any: Newton's, or Sgm where
/// y*(x) is a set. An error zeta of phi adds up to d zeta / delta to an estimate. Both sides of a
/// pair start from the same y, and all probes run in parallel: 2 B + 1 lower solves an iteration.
/// Manifolds by retraction. With bounds on x, probes and steps are projected: it then descends on
/// phi(P(x)), the same inside.
class Igfm : public Method {
 public:
  enum Output {
    kBest,    ///< Least phi.
    kRandom,  ///< Uniform over the iterates: what the paper's theorem is about.
  };
  struct Options {
    Options() { x.step = 0.01; }

    double delta = 1e-3;     ///< The paper's.
    int num_directions = 1;  ///< B; the paper's.
    /// Directions of one iteration orthogonal to each other, as far as d allows: each is still
    /// uniform on the sphere, their mean varies less. With B = d the pairs are central differences
    /// in a random frame.
    bool orthogonal = true;
    /// 0.01: of the paper's grid 1e2, ..., 1e-5.
    StepRule x;
    Output output = kBest;
    /// Pairs for the estimate of Goldstein stationarity in the end; 0: none.
    int num_stationarity_pairs = 0;
  };

  /// What theorem 6.2 asks to know.
  struct Constants {
    int size = 1;                ///< Of x, tangent: d.
    double phi_lipschitz = 1.0;  ///< C.
    double gap = 1.0;            ///< phi(x_0) - inf phi: Delta.
  };
  /// delta, the step, B = 1 and a random iterate as theorem 6.2 has them for an x that is (delta,
  /// epsilon)-Goldstein stationary in expectation, the rest of *options untouched:
  ///
  ///   T = d^{3/2} (C^4 / epsilon^4 + Delta C^3 / (delta epsilon^4))  in *num_iterations,
  ///   step = sqrt(delta (Delta + delta C) / (d^{3/2} C^3 T)),
  ///   phi good to delta epsilon^2 / (d C)                            in *phi_accuracy (zeta_f).
  ///
  /// The paper gives orders: their constants are taken as 1. False: a constant makes no sense, or T
  /// is beyond an int; *error says so.
  static bool ByTheorem(const Constants& constants,
                        double delta,
                        double epsilon,
                        Options* options,
                        int* num_iterations,
                        double* phi_accuracy,
                        std::string* error);

  Igfm() = default;
  explicit Igfm(const Options& options) : options_(options) {}

  std::string name() const override { return "igfm"; }
  std::string Check(const Oracle& oracle) override;
  bool TakesLowerConstraints() const override { return true; }
  bool Remember(Oracle& oracle, Memory* memory) override;
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override;

 protected:
  void Start(Oracle& oracle, State& state) override;
  void Step(Oracle& oracle, State& state, Progress* progress) override;

 private:
  int Probe(Oracle& oracle, const State& state, int num_pairs, bool orthogonal);

  Options options_;
  Matrix estimates_;  // A column a pair.
  std::vector<Point> xs_, ys_;
  Vector phi_, direction_;
  std::string probe_message_;
  Discontinuity steepest_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ZEROTH_ORDER_IGFM_H_
