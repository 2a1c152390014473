// The deterministic methods beside the recursions of their papers in long double, on a problem that
// is no quadratic: every iterate of x, and of the methods' own y, for 25 iterations. Those on
// minibatches are in stochastic/replay_test.cc.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/sgm.h"
#include "bilevel/methods/baselines/bsg1.h"
#include "bilevel/methods/baselines/optimistic_gd.h"
#include "bilevel/methods/hyper_objective/bda.h"
#include "bilevel/methods/hyper_objective/bgs.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/hyper_objective/ia_gm.h"
#include "bilevel/methods/value_function/bome.h"
#include "bilevel/methods/value_function/bvfsm.h"
#include "bilevel/methods/value_function/penalty.h"
#include "bilevel/methods/zeroth_order/igfm.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using Real = long double;
using VecX = Eigen::Matrix<Real, 2, 1>;
using VecY = Eigen::Matrix<Real, 3, 1>;

constexpr int kIterations = 25;

// g = 1/2 y'Hy - y'(Cx + d) + q/4 sum y_i^4,  f = 1/2 |y - b|^2 + rho/2 |x|^2 + k (x_0 y_0 + x_1
// y_2).
constexpr double kH[3][3] = {{1.5, 0.25, 0.0}, {0.25, 1.0, -0.125}, {0.0, -0.125, 0.75}};
constexpr double kC[3][2] = {{1.0, 0.5}, {-0.5, 0.25}, {0.75, -1.0}};
constexpr double kD[3] = {0.5, -0.25, 0.125}, kB[3] = {0.75, -0.5, 0.25};
constexpr double kQ = 0.25, kRho = 0.5, kK = 0.125;

struct LowerLevel {
  template <typename T>
  bool operator()(const T* x, const T* y, T* g) const {
    g[0] = T(0.0);
    for (int i = 0; i < 3; ++i) {
      T hy(0.0);
      for (int j = 0; j < 3; ++j) hy += kH[i][j] * y[j];
      g[0] += y[i] * (0.5 * hy - kC[i][0] * x[0] - kC[i][1] * x[1] - kD[i]);
      g[0] += 0.25 * kQ * (y[i] * y[i]) * (y[i] * y[i]);
    }
    return true;
  }
};
struct UpperLevel {
  template <typename T>
  bool operator()(const T* x, const T* y, T* f) const {
    f[0] = 0.5 * kRho * (x[0] * x[0] + x[1] * x[1]) + kK * (x[0] * y[0] + x[1] * y[2]);
    for (int i = 0; i < 3; ++i) f[0] += 0.5 * (y[i] - kB[i]) * (y[i] - kB[i]);
    return true;
  }
};

// The levels and their derivatives, by hand; J v is (d^2g/dxdy) v.
Real G(const VecX& x, const VecY& y) {
  Real g;
  LowerLevel()(x.data(), y.data(), &g);
  return g;
}
Real F(const VecX& x, const VecY& y) {
  Real f;
  UpperLevel()(x.data(), y.data(), &f);
  return f;
}
VecY Hv(const VecY& y, const VecY& v) {
  VecY out = VecY::Zero();
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) out[i] += Real(kH[i][j]) * v[j];
    out[i] += 3 * Real(kQ) * y[i] * y[i] * v[i];
  }
  return out;
}
VecY Gy(const VecX& x, const VecY& y) {
  VecY out;
  for (int i = 0; i < 3; ++i) {
    out[i] =
        Real(kQ) * y[i] * y[i] * y[i] - Real(kC[i][0]) * x[0] - Real(kC[i][1]) * x[1] - Real(kD[i]);
    for (int j = 0; j < 3; ++j) out[i] += Real(kH[i][j]) * y[j];
  }
  return out;
}
VecX Jv(const VecY& v) {
  VecX out = VecX::Zero();
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 2; ++j) out[j] -= Real(kC[i][j]) * v[i];
  }
  return out;
}
VecX Gx(const VecY& y) { return Jv(y); }
VecY Fy(const VecX& x, const VecY& y) {
  return {y[0] - Real(kB[0]) + Real(kK) * x[0],
          y[1] - Real(kB[1]),
          y[2] - Real(kB[2]) + Real(kK) * x[1]};
}
VecX Fx(const VecX& x, const VecY& y) {
  return {Real(kRho) * x[0] + Real(kK) * y[0], Real(kRho) * x[1] + Real(kK) * y[2]};
}
VecX FxyV(const VecY& v) { return {Real(kK) * v[0], Real(kK) * v[2]}; }

struct Iterates {
  std::vector<VecX> x;
  std::vector<VecY> y;
};

const VecX kStartX(0.5L, -0.25L);
const VecY kStartY(0.25L, -0.5L, 1.0L);

// The method's iterates, from the same start.
Iterates PathOf(std::shared_ptr<Method> method, const Solver::Options& given = {}) {
  double x[2], y[3];
  for (int i = 0; i < 2; ++i) x[i] = static_cast<double>(kStartX[i]);
  for (int i = 0; i < 3; ++i) y[i] = static_cast<double>(kStartY[i]);
  Problem problem;
  problem.AddUpperParameterBlock(x, 2);
  problem.AddTerm(
      Level::kLower, std::make_unique<AutoDiffObjective<LowerLevel, 2, 3>>(), {{x, 2}, {y, 3}});
  problem.AddTerm(
      Level::kUpper, std::make_unique<AutoDiffObjective<UpperLevel, 2, 3>>(), {{x, 2}, {y, 3}});
  class Keep : public IterationCallback {
   public:
    Keep(const double* x, const double* y) : x_(x), y_(y) {}
    ceres::CallbackReturnType operator()(const IterationSummary&) override {
      path.x.emplace_back(x_[0], x_[1]);
      path.y.emplace_back(y_[0], y_[1], y_[2]);
      return ceres::SOLVER_CONTINUE;
    }
    Iterates path;

   private:
    const double *x_, *y_;
  } keep(x, y);
  Solver::Options options = given;
  options.method = std::move(method);
  options.max_num_iterations = kIterations;
  options.gradient_tolerance = options.function_tolerance = options.parameter_tolerance = 0.0;
  options.update_state_every_iteration = true;
  options.callbacks = {&keep};
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  return keep.path;
}

// The recursion reports (x_k, its own y) for k = 0, 1, ...
using Step = std::function<void(int k, VecX* x, VecY* y)>;

// `look` makes y of (x_k, y) and the direction of the step; `move` takes it.
void ExpectSame(std::shared_ptr<Method> method, const Step& look, const Step& move) {
  const std::string name = method->name();
  const Iterates path = PathOf(std::move(method));
  ASSERT_EQ(path.x.size(), kIterations + 1u) << name;
  VecX x = kStartX;
  VecY y = kStartY;
  for (int k = 0; k <= kIterations; ++k) {
    if (k > 0) move(k - 1, &x, &y);
    look(k, &x, &y);
    EXPECT_LT((path.x[k] - x).norm(), 1e-12L) << name << ", x of iteration " << k;
    EXPECT_LT((path.y[k] - y).norm(), 1e-12L) << name << ", y of iteration " << k;
  }
  EXPECT_GT((path.x.back() - kStartX).norm(), 1e-2L) << name;
}

// Algorithm 1 of BOME.
TEST(Trajectory, Bome) {
  for (const auto barrier : {Bome::kGradientBarrier, Bome::kValueBarrier}) {
    Bome::Options options;
    options.barrier = barrier;
    options.eta = 0.4;
    options.lower_level = Bome::kGradientSteps;
    options.num_lower_steps = 4;
    options.lower_step = 0.2;
    options.x.step = 0.1;
    options.y.step = 0.15;
    VecX dx;
    VecY dy;
    ExpectSame(
        std::make_shared<Bome>(options),
        [&](int, const VecX* x, const VecY* y) {
          VecY hat = *y;
          for (int t = 0; t < 4; ++t) hat -= Real(0.2) * Gy(*x, hat);
          const Real q = G(*x, *y) - G(*x, hat);
          const VecX qx = Gx(*y) - Gx(hat), fx = Fx(*x, *y);
          const VecY qy = Gy(*x, *y), fy = Fy(*x, *y);
          const Real qq = qx.squaredNorm() + qy.squaredNorm();
          const Real phi = Real(0.4) * (barrier == Bome::kGradientBarrier ? qq : q);
          const Real lambda =
              std::max(Real(0), (phi - fx.dot(qx) - fy.dot(qy)) / (qq + Real(options.epsilon)));
          dx = fx + lambda * qx;
          dy = fy + lambda * qy;
        },
        [&](int, VecX* x, VecY* y) {
          *x -= Real(0.1) * dx;
          *y -= Real(0.15) * dy;
        });
  }
}

StepRule Rule(double step) {
  StepRule rule;
  rule.step = step;
  return rule;
}

template <typename Estimator>
void ExpectDescent(const char* name,
                   const typename Estimator::Options& options,
                   const std::function<VecX(int k, const VecX& x, VecY* y)>& hypergradient) {
  VecX d;
  ExpectSame(
      std::make_shared<GradientMethod>(name, std::make_unique<Estimator>(options), Rule(0.2)),
      [&](int k, const VecX* x, VecY* y) { d = hypergradient(k, *x, y); },
      [&](int, VecX* x, VecY*) { *x -= Real(0.2) * d; });
}

// T steps with momentum mu, the last K of them differentiated: for (y, v)_k the covectors (a, c).
VecX Unrolled(int t_max, int kept, Real alpha, Real mu, const VecX& x, VecY* y) {
  std::vector<VecY> path;
  VecY v = VecY::Zero();
  for (int t = 0; t < t_max; ++t) {
    path.push_back(*y);
    v = mu * v + alpha * Gy(x, *y);
    *y -= v;
  }
  VecX p = Fx(x, *y);
  VecY a = Fy(x, *y), c = VecY::Zero();
  for (int t = t_max - 1; t >= t_max - kept; --t) {
    c -= a;  // y_{t+1} = y_t - v_{t+1}
    p += alpha * Jv(c);
    a += alpha * Hv(path[t], c);
    c *= mu;
  }
  return p;
}

TEST(Trajectory, Unrolling) {
  for (const double momentum : {0.0, 0.5}) {
    for (const int kept : {0, 3}) {
      UnrolledHypergradient::Options options;
      options.num_lower_steps = 6;
      options.lower_step = 0.2;
      options.momentum = momentum;
      options.num_reverse_steps = kept;
      ExpectDescent<UnrolledHypergradient>("itd", options, [&](int, const VecX& x, VecY* y) {
        return Unrolled(6, kept == 0 ? 6 : kept, 0.2, momentum, x, y);
      });
    }
  }
}

// T steps, then K of a linear iteration for z.
TEST(Trajectory, ApproximateImplicitDifferentiation) {
  using Kind = AdjointSteps;
  for (const auto kind : {Kind::kFixedPoint, Kind::kNeumann, Kind::kConjugateGradients}) {
    AidHypergradient::Options options;
    options.num_lower_steps = 5;
    options.lower_step = options.linear_step = 0.2;
    options.kind = kind;
    options.num_linear_iterations = 2;
    VecY z = VecY::Zero();
    ExpectDescent<AidHypergradient>("aid", options, [&](int, const VecX& x, VecY* y) {
      for (int t = 0; t < 5; ++t) *y -= Real(0.2) * Gy(x, *y);
      const VecY b = Fy(x, *y);
      if (kind == Kind::kNeumann) z.setZero();
      if (kind == Kind::kConjugateGradients) {
        VecY r = b - Hv(*y, z), p = r;
        for (int q = 0; q < 2; ++q) {
          const VecY hp = Hv(*y, p);
          const Real rr = r.dot(r), alpha = rr / p.dot(hp);
          z += alpha * p;
          r -= alpha * hp;
          p = r + r.dot(r) / rr * p;
        }
      } else {
        for (int q = 0; q < 2; ++q) z -= Real(0.2) * (Hv(*y, z) - b);
      }
      return VecX(Fx(x, *y) - Jv(z));
    });
  }
}

// M = 2 of T = 5 steps differentiated, z by a fixed point that is kept.
TEST(Trajectory, Bgs) {
  BgsHypergradient::Options options;
  options.num_lower_steps = 5;
  options.num_reverse_steps = 2;
  options.lower_step = options.linear_step = 0.2;
  options.kind = AdjointSteps::kFixedPoint;
  options.num_linear_iterations = 3;
  VecY z = VecY::Zero();
  ExpectDescent<BgsHypergradient>("bgs", options, [&](int, const VecX& x, VecY* y) {
    std::vector<VecY> path;
    for (int t = 0; t < 5; ++t) {
      path.push_back(*y);
      *y -= Real(0.2) * Gy(x, *y);
    }
    VecX d = Fx(x, *y);
    VecY b = Fy(x, *y);
    for (int t = 4; t >= 3; --t) {
      d -= Real(0.2) * Jv(b);
      b -= Real(0.2) * Hv(path[t], b);
    }
    for (int q = 0; q < 3; ++q) z -= Real(0.2) * (Hv(*y, z) - b);
    return VecX(d - Jv(z));
  });
}

TEST(Trajectory, Bda) {
  BdaHypergradient::Options options;
  options.num_lower_steps = 6;
  options.lower_step = 0.25;
  options.upper_step = 0.3;
  options.share = 0.5;
  ExpectDescent<BdaHypergradient>("bda", options, [&](int, const VecX& x, VecY* y) {
    *y = kStartY;
    std::vector<VecY> path;
    for (int k = 0; k < 6; ++k) {
      const Real a = Real(0.5) / (k + 1);
      path.push_back(*y);
      *y -= a * Real(0.3) * Fy(x, *y) + (1 - a) * Real(0.25) * Gy(x, *y);
    }
    VecX p = Fx(x, *y);
    VecY c = Fy(x, *y);
    for (int k = 5; k >= 0; --k) {
      const Real a = Real(0.5) / (k + 1);
      p -= a * Real(0.3) * FxyV(c) + (1 - a) * Real(0.25) * Jv(c);
      c -= a * Real(0.3) * c + (1 - a) * Real(0.25) * Hv(path[k], c);
    }
    return p;
  });
}

TEST(Trajectory, InitialisationAuxiliary) {
  for (const bool truncated : {false, true}) {
    IaGm::Options options;
    options.num_lower_steps = 5;
    options.lower_step = 0.2;
    options.x.step = 0.2;
    options.w.step = 0.1;
    options.truncate_pessimistically = truncated;
    VecY w = kStartY, dw;
    VecX dx;
    ExpectSame(
        std::make_shared<IaGm>(options),
        [&](int, const VecX* x, VecY* y) {
          std::vector<VecY> path{w};
          for (int k = 0; k < 5; ++k) path.push_back(path[k] - Real(0.2) * Gy(*x, path[k]));
          int n = 5;
          for (int k = 4; truncated && k >= 1; --k) {
            if (F(*x, path[k]) > F(*x, path[n])) n = k;
          }
          *y = path[5];
          dx = Fx(*x, path[n]);
          dw = Fy(*x, path[n]);
          for (int k = n - 1; k >= 0; --k) {
            dx -= Real(0.2) * Jv(dw);
            dw -= Real(0.2) * Hv(path[k], dw);
          }
        },
        [&](int, VecX* x, VecY*) {
          *x -= Real(0.2) * dx;
          w -= Real(0.1) * dw;
        });
  }
}

// As its authors released it.
TEST(Trajectory, BvfsmDetached) {
  BvfsmHypergradient::Options options;
  options.barrier = BvfsmHypergradient::kDetached;
  options.num_w_steps = 4;
  options.num_y_steps = 3;
  options.w.step = 0.2;
  options.y.step = 0.05;
  options.mu = 0.1;
  options.theta = 0.05;
  options.sigma = 2.0;
  options.offset = 2.0;
  VecY w = kStartY;
  ExpectDescent<BvfsmHypergradient>("bvfsm", options, [&](int k, const VecX& x, VecY* y) {
    const Real decay = 1 / std::log(Real(1.1) * (k + 2));
    const Real mu = decay * Real(0.1), theta = decay * Real(0.05), sigma = decay * 2;
    for (int t = 0; t < 4; ++t) w -= Real(0.2) * (Gy(x, w) + 2 * mu * w);
    const Real slope = sigma / (2 + G(x, w) + mu * w.squaredNorm());
    for (int t = 0; t < 3; ++t) {
      *y -= Real(0.05) * (Fy(x, *y) + slope * Gy(x, *y) + 2 * theta * *y);
    }
    return VecX(Fx(x, *y) + slope * (Gx(*y) - Gx(w)));
  });
}

TEST(Trajectory, Penalty) {
  Penalty::Options options;
  options.num_lower_steps = 3;
  options.rho = 0.5;
  options.lambda = 0.4;
  options.epsilon = 1.0;
  options.growth = 1.1;
  options.nu = 0.01;
  options.x = Rule(0.1);
  options.y = Rule(0.05);
  Real rho = 0.5, lambda = 0.4, epsilon = 1, step_x = 0.1, step_y = 0.05;
  VecY nu = VecY::Constant(0.01);
  VecX dx;
  int num_updates = 0;
  ExpectSame(
      std::make_shared<Penalty>(options),
      [&](int, const VecX* x, VecY* y) {
        VecY s, dy;
        const auto gradients = [&] {
          s = Gy(*x, *y);
          dy = Fy(*x, *y) + Hv(*y, nu + rho * s) + lambda * s;
          dx = Fx(*x, *y) + Jv(nu + rho * s);
        };
        for (int t = 0; t < 3; ++t) {
          gradients();
          *y -= step_y * dy;
        }
        gradients();
        if (dx.squaredNorm() + dy.squaredNorm() < epsilon * epsilon) {
          ++num_updates;
          nu += rho * s;
          rho *= Real(1.1);
          for (Real* shrinking : {&lambda, &epsilon, &step_x, &step_y}) *shrinking /= Real(1.1);
        }
      },
      [&](int, VecX* x, VecY*) { *x -= step_x * dx; });
  EXPECT_GT(num_updates, 2);
}

TEST(Trajectory, Bsg1) {
  Bsg1Hypergradient::Options options;
  options.num_lower_steps = 2;
  options.lower_step = 0.1;
  options.epsilon = 0.1;  // Where g_y is small the ratio enlarges rounding.
  ExpectDescent<Bsg1Hypergradient>("bsg1", options, [&](int, const VecX& x, VecY* y) {
    for (int t = 0; t < 2; ++t) *y -= Real(0.1) * Gy(x, *y);
    const VecY gy = Gy(x, *y);
    const Real ratio = gy.dot(Fy(x, *y)) / (gy.squaredNorm() + Real(0.1));
    return VecX(Fx(x, *y) - ratio * Gx(*y));
  });
}

// Algorithm 1 of the hyper-objective paper: g* is the least g met (the paper's is the last).
VecY SwitchingGradient(const Sgm::Options& o, const VecX& x, const VecY& start) {
  VecY y = start;
  Real least = G(x, y);
  for (int k = 0; k < o.num_lower_steps; ++k) {
    y -= Real(o.lower_step) * Gy(x, y);
    least = std::min(least, G(x, y));
  }
  y = start;
  VecY sum = VecY::Zero();
  int num = 0;
  for (int k = 0; k < o.num_steps; ++k) {
    if (G(x, y) - least <= 2 * Real(o.theta)) {
      sum += y;
      ++num;
      y -= Real(o.step) * Fy(x, y);
    } else {
      y -= Real(o.step) * Gy(x, y);
    }
  }
  EXPECT_GT(num, 0);
  EXPECT_LT(num, o.num_steps);  // Both branches.
  return sum / num;
}

// Algorithm 2 around it, with B = 2 directions that need not be orthogonal.
TEST(Trajectory, IgfmAroundSgm) {
  Sgm::Options sgm;
  sgm.theta = 0.02;
  sgm.step = 0.05;
  sgm.num_steps = 60;
  sgm.lower_step = 0.3;
  sgm.num_lower_steps = 30;
  Igfm::Options igfm;
  igfm.delta = 0.1;
  igfm.num_directions = 2;
  igfm.orthogonal = false;
  igfm.x.step = 0.1;
  Solver::Options options;
  options.seed = 5;
  options.lower_solver = [sgm](Program* program) { return std::make_unique<Sgm>(program, sgm); };
  const Iterates path = PathOf(std::make_shared<Igfm>(igfm), options);

  // The directions of iteration k, from the seed.
  double own_x[2] = {}, own_y[3] = {};
  Problem problem;
  problem.AddUpperParameterBlock(own_x, 2);
  problem.AddTerm(Level::kLower,
                  std::make_unique<AutoDiffObjective<LowerLevel, 2, 3>>(),
                  {{own_x, 2}, {own_y, 3}});
  problem.AddTerm(Level::kUpper,
                  std::make_unique<AutoDiffObjective<UpperLevel, 2, 3>>(),
                  {{own_x, 2}, {own_y, 3}});
  std::string error;
  const auto program = problem.Compile({}, &error);
  Oracle oracle(program.get(), nullptr, 5);
  VecX x = kStartX;
  VecY y = kStartY;
  Vector u(2);
  for (int k = 0; k <= kIterations; ++k) {
    if (k > 0) {
      oracle.iteration = k;
      VecX mean = VecX::Zero();
      for (int b = 0; b < 2; ++b) {
        oracle.RandomDirection(b, &u);
        const VecX direction = u.cast<Real>();
        const VecX ahead = x + Real(0.1) * direction, behind = x - Real(0.1) * direction;
        const Real rise = F(ahead, SwitchingGradient(sgm, ahead, y)) -
                          F(behind, SwitchingGradient(sgm, behind, y));
        mean += 2 / (2 * Real(0.1)) * rise * direction / 2;
      }
      x -= Real(0.1) * mean;
    }
    y = SwitchingGradient(sgm, x, y);
    EXPECT_LT((path.x[k] - x).norm(), 1e-12L) << "x of iteration " << k;
    EXPECT_LT((path.y[k] - y).norm(), 1e-12L) << "y of iteration " << k;
  }
}

}  // namespace
}  // namespace bilevel
