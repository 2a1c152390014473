#ifndef BILEVEL_METHODS_STOCHASTIC_SRBA_H_
#define BILEVEL_METHODS_STOCHASTIC_SRBA_H_

#include <string>

#include "bilevel/methods/estimators/joint_direction.h"
#include "bilevel/methods/estimators/recursion.h"
#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// SVRB in vector form: STORM on SOBA's three directions at once, one sample of each level at
/// w_t = (x, y, z)_t and at w_{t-1}:
///
///   D_t = D(w_t; i, j) + (1 - eta_t) (D_{t-1} - D(w_{t-1}; i, j))
///   y <- y - rho_t D_y,   z <- z - rho_t D_z,   x <- x - gamma_t D_x
///
/// rho and gamma proportional to t^-1/3, eta to t^-2/3. The method of that name (Guo, Hu, Zhang and
/// Yang, 2021) tracks the matrices H and J themselves and solves with them; this is what of it
/// works on vectors. Dense.
class Svrb : public StochasticMethod {
 public:
  struct Options : StochasticOptions {
    Options() {
      FromCurvature(1.0 / 3.0, &lower);
      FromCurvature(1.0 / 3.0, &x);
      eta = {0.5, 2.0 / 3.0, 0.0};
    }
    Schedule lower;  ///< rho.
    StepRule x;      ///< gamma.
    Schedule eta;    ///< A decay time that is not given, 0, is that of x.
  };

  Svrb() : Svrb(Options()) {}
  explicit Svrb(const Options& options) : Svrb("svrb", options) {}

 protected:
  Svrb(const std::string& method, const Options& options)
      : StochasticMethod(method, options), given_(options) {}
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override { return options_.lower.step; }
  void Start(Oracle& oracle, State& state) override;
  void Iterate(Oracle& oracle, State& state) override;
  void RememberOwn(Oracle& oracle, Memory* memory) override;
  /// One iteration over these samples.
  void Iterate(Oracle& oracle, State& state, double eta, const Batch& i, const Batch& j);

  Options given_, options_;
  Recursion recursion_;

 private:
  JointDirection direction_;
  Vector d_x_, d_y_, d_z_;
};

/// SRBA (Dagreou, Moreau, Vaiter and Ablin, "A lower bound and a near-optimal algorithm for bilevel
/// empirical risk minimization", AISTATS 2024): SVRB's loop with SARAH, that is eta = 0 and both
/// levels in full every `period` iterations; constant steps. It converges without noise on finite
/// sums. The paper projects z onto a ball as well; this, as the authors' code, does not. Dense.
class Srba : public Svrb {
 public:
  struct Options : StochasticOptions {
    Options() {
      FromCurvature(0.0, &lower);
      FromCurvature(0.0, &x);
    }
    Schedule lower;  ///< rho.
    StepRule x;      ///< gamma.
    /// 0: as many iterations as make `fraction` passes over the terms of both levels.
    int period = 0;
    double fraction = 1.0;
  };

  Srba() : Srba(Options()) {}
  explicit Srba(const Options& options);

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void Start(Oracle& oracle, State& state) override;
  void Iterate(Oracle& oracle, State& state) override;

 private:
  Options own_;
  uint64_t period_ = 1;
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_SRBA_H_
