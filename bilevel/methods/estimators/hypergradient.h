#ifndef BILEVEL_METHODS_ESTIMATORS_HYPERGRADIENT_H_
#define BILEVEL_METHODS_ESTIMATORS_HYPERGRADIENT_H_

#include <memory>
#include <string>

#include "bilevel/methods/estimators/adjoint_solver.h"
#include "bilevel/methods/estimators/unroll.h"
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
  /// Whether it may vanish, with y settled, where phi is not stationary.
  virtual bool is_biased() const { return false; }
  /// Whether it asks the lower solver for dy*/dx.
  virtual bool needs_derivative() const { return false; }
  /// Whether the lower solver alone knows y and its derivatives: it may honour constraints then.
  virtual bool takes_constraints() const { return false; }
  /// As Method::ProjectsY.
  virtual bool projects_y() const { return false; }
  /// How exact the last estimate was, in a sentence, where that is a matter of its options.
  virtual std::string Remark() const { return ""; }
  /// Returns f(x, y) at the y used. What fails latches in the oracle.
  virtual double Estimate(Oracle& oracle, State& state, Vector* gradient) = 0;
  /// As Method::Remember.
  virtual bool Remember(Oracle& /*oracle*/, Memory* /*memory*/) { return false; }
};

/// y solved to tolerance, one direct adjoint solve: the exact hypergradient.
class ExactHypergradient : public HypergradientEstimator {
 public:
  bool solves_lower_level() const override { return true; }
  bool needs_derivative() const override { return true; }
  bool takes_constraints() const override { return true; }
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;
  bool Remember(Oracle& /*oracle*/, Memory* /*memory*/) override { return true; }

 private:
  Vector fy_, pulled_back_;
};

/// The same, no more exact than it need be: the lower solver's tolerance follows the hypergradient
/// (after HOAG; Pedregosa, ICML 2016). The error per tolerance is measured every tenth iteration,
/// by another estimate with a tenth of the tolerance, and where the gradient has fallen to a tenth;
/// in between the tolerance is such that it amounts to a quarter of what is allowed. As the
/// gradient vanishes, so does its error.
class HoagHypergradient : public HypergradientEstimator {
 public:
  struct Options {
    double accuracy = 0.1;  ///< The gradient's relative error, at most (as measured).
  };
  explicit HoagHypergradient(const Options& options) : options_(options) {}
  std::string Check(const Oracle& oracle) const override;
  bool needs_derivative() const override { return true; }
  bool takes_constraints() const override { return true; }
  std::string Remark() const override;
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;
  bool Remember(Oracle& oracle, Memory* memory) override;

 private:
  Options options_;
  ExactHypergradient estimator_;
  Vector coarse_;
  double tolerance_ = 0.0, error_ = 0.0;  // Of the last estimate.
};

/// Approximate implicit differentiation (Pedregosa, ICML 2016; Grazzi et al., ICML 2020): T
/// gradient steps on g for y, then K iterations for z, both warm-started. The error is of the
/// order of |y - y*| and of the linear residual, over the smallest eigenvalue of d^2g/dy^2.
class AidHypergradient : public HypergradientEstimator {
 public:
  /// 0 lower steps: y is solved to tolerance instead (no bias from y). K = 10 is Grazzi et al.'s.
  struct Options : LowerSteps, AdjointSteps {};

  explicit AidHypergradient(const Options& options)
      : options_(options), unroll_(options), adjoint_(options) {}
  bool solves_lower_level() const override { return options_.num_lower_steps == 0; }
  bool is_biased() const override { return options_.kind == AdjointSteps::kNeumann; }
  std::string Remark() const override;
  std::string Check(const Oracle& oracle) const override;
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;
  bool Remember(Oracle& /*oracle*/, Memory* /*memory*/) override { return true; }

 private:
  Options options_;
  Unroll unroll_;
  AdjointSolver adjoint_;
  Vector fy_, hz_, jz_;
};

/// Reverse-mode differentiation of T steps on g (ITD; Franceschi et al., ICML 2017), truncated to
/// the last K (Shaban et al., AISTATS 2019). Keeps K + 1 copies of y.
class UnrolledHypergradient : public HypergradientEstimator {
 public:
  struct Options : LowerSteps {
    int num_reverse_steps = 0;  ///< K; 0: all.
  };
  explicit UnrolledHypergradient(const Options& options) : options_(options), unroll_(options) {}
  bool is_biased() const override { return true; }
  bool projects_y() const override { return true; }
  std::string Check(const Oracle& oracle) const override;
  double Estimate(Oracle& oracle, State& state, Vector* gradient) override;
  bool Remember(Oracle& /*oracle*/, Memory* /*memory*/) override { return true; }

 private:
  Options options_;
  Unroll unroll_;
  Vector a_;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_ESTIMATORS_HYPERGRADIENT_H_
