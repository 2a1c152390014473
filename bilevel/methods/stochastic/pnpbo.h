#ifndef BILEVEL_METHODS_STOCHASTIC_PNPBO_H_
#define BILEVEL_METHODS_STOCHASTIC_PNPBO_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "bilevel/methods/estimators/joint_direction.h"
#include "bilevel/methods/estimators/saga.h"
#include "bilevel/methods/stochastic/stochastic_method.h"

namespace bilevel {

/// PnPBO (Chu, Xu, Yao, Yu and Zhang, "A provably convergent plug-and-play framework for stochastic
/// bilevel optimization", 2025): one loop, an estimator for each of its three directions. With one
/// sample i of g and one sample j of f an iteration, every oracle at w_t = (x, y, z)_t,
///
///   D_y = g_y,i    D_z = H_i z - f_y,j    D_x = f_x,j - J_i z
///   y <- y - rho_t u_y,   z <- z - rho_t u_z,   x <- x - gamma_t u_x      u = estimate of D
///
/// H = d^2g/dy^2, J = d^2g/dxdy; z_0 = 0. One rho for y and z on purpose: they have the same
/// conditioning. (The papers' z is the negative of this one.) With an average, x <- x - gamma_t h
/// and then h <- (1 - theta_t) h + theta_t u_x, h_0 = 0.
///
///   kSgd        u = D(w_t)                                                costs what batches touch
///   kStorm      u = D(w_t) + (1 - eta_t) (u - D(w_{t-1})), one sample     dense
///   kPage       the same with eta = 0, begun anew over all terms          dense; finite sums
///   kSaga       tables of the last value of every entry, see Saga         dense; finite sums
///   kZeroSarah  tables and differences, never over all terms              dense; finite sums
///
/// kPage, kSaga and kZeroSarah in all three leave no noise: with constant steps x settles. One
/// noisy direction among them keeps its noise, z's the most. Entries of tables are the blocks of
/// lower_batch and upper_batch neighbours, so that sampling must be kBlocks or kShuffledBlocks;
/// with n_b blocks below and m_b above, x of length m and y of length n, three directions take
/// 8 (n_b (2 n + m) + m_b (m + n)) bytes.
class PnpBo : public StochasticMethod {
 public:
  enum Estimator { kSgd, kStorm, kPage, kSaga, kZeroSarah };

  struct Options : StochasticOptions {
    Options() : Options(kZeroSarah, 0.0) { sampling = Batch::kBlocks; }
    /// The estimator of all directions, and the published exponent of their steps.
    Options(Estimator all, double exponent) : of_y(all), of_z(all), of_x(all) {
      FromCurvature(exponent, &lower);
      FromCurvature(exponent, &x);
    }
    Estimator of_y, of_z, of_x;
    Schedule lower;             ///< rho; not given: 1 / L, with tables 1 / (3 L), that of SAGA.
    std::optional<Schedule> z;  ///< Another rho for z.
    StepRule x;                 ///< gamma.
    std::optional<Schedule> average;  ///< theta.
    /// kStorm's. A decay time that is not given, 0, is that of x.
    Schedule eta{0.5, 2.0 / 3.0, 0.0};
    /// kPage begins anew every so many iterations; 0: as many as make `fraction` passes over the
    /// terms of both levels.
    int period = 0;
    double fraction = 1.0;
    bool tosses_coin = false;  ///< It does so with probability 1 / period instead.
  };

  PnpBo() : PnpBo(Options()) {}
  explicit PnpBo(const Options& options) : PnpBo("pnpbo", options) {}
  PnpBo(const std::string& name, const Options& options)
      : StochasticMethod(name, options), given_(options) {}

 protected:
  std::string CheckOptions(const Oracle& oracle) const override;
  void FillOptions(Defaults* defaults) override;
  double LongestLowerStep() const override;
  void Start(Oracle& oracle, State& state) override;
  void Iterate(Oracle& oracle, State& state) override;
  void RememberOwn(Oracle& oracle, Memory* memory) override;

 private:
  // One direction a - b, a and b being of one level each; its estimate is dense.
  struct Direction {
    Direction() = default;
    Direction(Estimator estimator, bool a_of_g, bool with_b)
        : kind(estimator), a_is_of_g(a_of_g), has_b(with_b) {}

    Estimator kind = kSgd;
    bool a_is_of_g = false, has_b = false;
    bool begun = false, in_full = false;  // Over all terms, in this iteration.
    Vector a, b, a_before, b_before;      // Over the batches, at w_t and at w_{t-1}.
    Vector u;
    Saga saga_a, saga_b;
    ZeroSarah zero_a, zero_b;

    bool has_tables() const { return kind == kSaga || kind == kZeroSarah; }
    bool looks_back() const { return begun && kind != kSgd && kind != kSaga; }
    void Estimate(double eta, const Batch& i, const Batch& j);
  };
  enum { kOfY, kOfZ, kOfX };

  bool Uses(Estimator estimator) const;
  bool UsesTables() const;
  bool BeginsAnew(const Oracle& oracle) const;
  void Read(bool in_full, bool before);
  void Estimate(Oracle& oracle, State& state, bool in_full, const Batch& i, const Batch& j);
  void MoveX(Oracle& oracle, State& state);

  Options given_, options_;
  std::array<Direction, 3> directions_;
  JointDirection d_;
  Point last_x_, last_y_;
  Vector last_z_;
  uint64_t period_ = 1;
  int terms_of_g_ = 0, terms_of_f_ = 0;  // That entries of tables are blocks of.
};

/// SOBA (Dagreou, Ablin, Vaiter and Moreau, "A framework for bilevel optimization that enables
/// stochastic and global variance reduction algorithms", NeurIPS 2022). The paper has rho and gamma
/// both proportional to t^-1/2 (f and g with Lipschitz third derivatives of g), or t^-2/5 and
/// t^-3/5 with less; its ratios gamma / rho were searched for in 1e-6 ... 1.
class Soba : public PnpBo {
 public:
  struct Options : PnpBo::Options {
    Options() : PnpBo::Options(kSgd, 0.5) {}
  };
  explicit Soba(const Options& options = Options()) : PnpBo("soba", options) {}
};

/// MA-SOBA (Chen, Xiao and Balasubramanian, "Optimal algorithms for stochastic bilevel optimization
/// under relaxed smoothness conditions", JMLR 2024): SOBA with the average, which does without
/// third derivatives. All its steps and theta are proportional to 1 / sqrt(K) for a run of K
/// iterations. A system of second order: it swings for a long time unless y, z and h are fast
/// beside x. A rule of thumb (not the paper's): rho / gamma >= 2 L_phi / mu, theta / gamma >= 4
/// L_phi; what is not given follows it. Dense in x.
class MaSoba : public PnpBo {
 public:
  struct Options : PnpBo::Options {
    Options() : PnpBo::Options(kSgd, 0.5) { FromCurvature(0.5, &average.emplace()); }
  };
  explicit MaSoba(const Options& options = Options()) : PnpBo("ma_soba", options) {}
};

/// SABA, of SOBA's paper: SAGA on all samples at once. Constant steps; it converges without noise
/// on finite sums.
class Saba : public PnpBo {
 public:
  struct Options : PnpBo::Options {
    Options() : PnpBo::Options(kSaga, 0.0) { sampling = Batch::kBlocks; }
  };
  explicit Saba(const Options& options = Options()) : PnpBo("saba", options) {}
};

/// SVRB in vector form: rho and gamma proportional to t^-1/3, eta to t^-2/3. The method of that
/// name (Guo, Hu, Zhang and Yang, 2021) tracks the matrices H and J themselves and solves with
/// them; this is what of it works on vectors.
class Svrb : public PnpBo {
 public:
  struct Options : PnpBo::Options {
    Options() : PnpBo::Options(kStorm, 1.0 / 3.0) {}
  };
  explicit Svrb(const Options& options = Options()) : PnpBo("svrb", options) {}
};

/// SRBA (Dagreou, Moreau, Vaiter and Ablin, "A lower bound and a near-optimal algorithm for bilevel
/// empirical risk minimization", AISTATS 2024): SARAH, begun anew every `period` iterations;
/// constant steps. It converges without noise on finite sums. The paper projects z onto a ball as
/// well; this, as the authors' code, does not.
class Srba : public PnpBo {
 public:
  struct Options : PnpBo::Options {
    Options() : PnpBo::Options(kPage, 0.0) {}
  };
  explicit Srba(const Options& options = Options()) : PnpBo("srba", options) {}
};

/// SPABA (Chu, Xu, Yao and Zhang, "SPABA: a single-loop and probabilistic stochastic bilevel
/// algorithm achieving optimal sample complexity", ICML 2024): SRBA with PAGE's coin.
class Spaba : public PnpBo {
 public:
  struct Options : PnpBo::Options {
    Options() : PnpBo::Options(kPage, 0.0) { tosses_coin = true; }
  };
  explicit Spaba(const Options& options = Options()) : PnpBo("spaba", options) {}
};

}  // namespace bilevel

#endif  // BILEVEL_METHODS_STOCHASTIC_PNPBO_H_
