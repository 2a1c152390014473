#ifndef BILEVEL_METHODS_ESTIMATORS_HYPERGRADIENT_H_
#define BILEVEL_METHODS_ESTIMATORS_HYPERGRADIENT_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/methods/method.h"

namespace bilevel {

/// An estimate of the hypergradient  d phi / dx = f_x - (d^2g/dxdy) z,  (d^2g/dy^2) z = f_y,  from
/// an estimate of y*(x). Moves state.y, warm-started from where it stands.
class HypergradientEstimator {
 public:
  virtual ~HypergradientEstimator() = default;
  virtual std::string Check(const Oracle& /*oracle*/) const { return ""; }
  /// Whether that y is y*(x), to the lower solver's tolerance.
  virtual bool solves_lower_level() const { return false; }
  /// Returns f(x, y) at the y used. What fails latches in the oracle.
  virtual double Estimate(Oracle& oracle, State& state, Vector* gradient) = 0;
};

/// y solved to tolerance, one direct adjoint solve: the exact hypergradient.
class ExactHypergradient : public HypergradientEstimator {
 public:
  bool solves_lower_level() const override { return true; }
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;

 private:
  Vector fy_, pulled_back_;
};

/// Approximate implicit differentiation (Pedregosa, ICML 2016; Grazzi et al., ICML 2020): T
/// gradient steps on g for y, then K iterations for z, both warm-started. The error is of the
/// order of |y - y*| and of the linear residual, over the smallest eigenvalue of d^2g/dy^2.
class AidHypergradient : public HypergradientEstimator {
 public:
  enum Kind {
    kConjugateGradients,
    kFixedPoint,  ///< z <- z - linear_step (H z - f_y): Neumann's series when begun at 0.
  };
  struct Options {
    Kind kind = kConjugateGradients;
    /// Gradient steps on g; 0: solve y to tolerance instead (no bias from y).
    int num_lower_steps = 10;
    double lower_step = 0.1;
    int num_linear_iterations = 10;  ///< Grazzi et al.'s K.
    double linear_tolerance = 1e-10;
    double linear_step = 0.1;  ///< Fixed point only; below 2 / L.
  };
  explicit AidHypergradient(const Options& options) : options_(options) {}
  bool solves_lower_level() const override { return options_.num_lower_steps == 0; }
  std::string Check(const Oracle& oracle) const override;
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;

 private:
  Options options_;
  Vector gy_, fy_, hz_, jz_, r_, p_, unused_;
};

/// Reverse-mode differentiation of T gradient steps on g (ITD; Franceschi et al., ICML 2017),
/// truncated to the last K (Shaban et al., AISTATS 2019). Keeps K + 1 copies of y. With momentum,
/// the lower steps are v <- momentum v + g_y, y <- y - step v, v starting at 0.
/// On manifolds the derivatives of the retraction and of the moving frame are differenced.
class UnrolledHypergradient : public HypergradientEstimator {
 public:
  struct Options {
    int num_lower_steps = 10;
    double lower_step = 0.1;
    double momentum = 0.0;
    int num_reverse_steps = 0;  ///< K; 0: all.
  };
  explicit UnrolledHypergradient(const Options& options) : options_(options) {}
  std::string Check(const Oracle& oracle) const override;
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;

 private:
  Options options_;
  std::vector<Point> path_;
  std::vector<Vector> steps_, gradients_;
  Vector v_, a_, b_, h_, j_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_HYPERGRADIENT_H_
