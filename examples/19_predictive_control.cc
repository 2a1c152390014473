// The weights of a model-predictive controller, found again from drives: actuator limits below.
//
// The lower level is a controller's plan: a vehicle, a point mass in the plane, to the origin in 20
// steps of cost |p|^2 + e^x0 |v|^2 + e^x1 |a|^2. The dynamics are equalities; that tyres hold
// |a| <= 1 m/s^2, the friction circle, is an inequality for each step. Three drives are shown, by
// weights to be found. Beside it: the limit as a penalty (0: a plan that is to be clipped).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "bilevel/bilevel.h"

constexpr int kSteps = 20, kDrives = 3;
constexpr double kDt = 0.4, kLimit = 1.0;                // s, m/s^2
constexpr double kVelocity = 0.3, kAcceleration = 0.05;  // The weights to find.
constexpr double kStarts[kDrives][4] = {{4, 1, 0, 1}, {-3, 4, 1, 0}, {1, -2, -2, -1.5}};  // m, m/s

template <typename F, int... kSizes>
auto* Cost(F f = {}) {
  return new bilevel::AutoDiffCostFunction<F, kSizes...>(new F(f));
}

struct StageCost {
  template <typename T>
  bool operator()(const T* x, const T* state, const T* a, T* r) const {
    using std::exp;
    for (int k = 0; k < 2; ++k) {
      r[k] = state[k];
      r[2 + k] = exp(0.5 * x[0]) * state[2 + k];
      r[4 + k] = exp(0.5 * x[1]) * a[k];
    }
    return true;
  }
};

struct Dynamics {  // next - (p + v dt + a dt^2 / 2, v + a dt) = 0.
  template <typename T>
  bool operator()(const T* now, const T* a, const T* next, T* h) const {
    for (int k = 0; k < 2; ++k) {
      h[k] = next[k] - now[k] - kDt * now[2 + k] - 0.5 * kDt * kDt * a[k];
      h[2 + k] = next[2 + k] - now[2 + k] - kDt * a[k];
    }
    return true;
  }
};

struct FrictionCircle {  // |a|^2 - limit^2 <= 0.
  template <typename T>
  bool operator()(const T* a, T* c) const {
    c[0] = a[0] * a[0] + a[1] * a[1] - kLimit * kLimit;
    return true;
  }
};

struct Excess {  // As a residual: what is above the limit, smoothed over 1 cm/s^2.
  template <typename T>
  bool operator()(const T* a, T* r) const {
    using std::sqrt;
    const T over = sqrt(a[0] * a[0] + a[1] * a[1] + 1e-9) - kLimit;
    r[0] = weight * 0.5 * (over + sqrt(over * over + 1e-4));
    return true;
  }
  double weight;
};

// One controller for each drive; x is variable, the states they begin at are constant. A penalty
// without end is the constraint. f: how far off the accelerations shown they are, if any.
struct Controllers {
  Controllers(double v, double a, double penalty, const Controllers* shown = nullptr)
      : x{std::log(v), std::log(a)} {
    problem.AddUpperParameterBlock(x, 2);
    for (int d = 0; d < kDrives; ++d) {
      bilevel::Scenario* s = problem.AddScenario("drive " + std::to_string(d));
      std::copy_n(kStarts[d], 4, state[d][0]);
      s->lower()->AddParameterBlock(state[d][0], 4);
      s->lower()->SetParameterBlockConstant(state[d][0]);
      for (int i = 0; i < kSteps; ++i) {
        double *now = state[d][i], *next = state[d][i + 1], *u = control[d][i];
        s->lower()->AddResidualBlock(Cost<StageCost, 6, 2, 4, 2>(), nullptr, x, next, u);
        s->AddLowerEquality(Cost<Dynamics, 4, 4, 2, 4>(), now, u, next);
        if (std::isinf(penalty)) {
          s->AddLowerInequality(Cost<FrictionCircle, 1, 2>(), u);
        } else {
          s->lower()->AddResidualBlock(Cost<Excess, 1, 2>({penalty}), nullptr, u);
        }
        if (!shown) continue;
        const double* to = shown->control[d][i];
        s->upper()->AddResidualBlock(new bilevel::NormalPrior({to[0], to[1]}, 1.0), nullptr, u);
      }
    }
  }
  double x[2], state[kDrives][kSteps + 1][4] = {}, control[kDrives][kSteps][2] = {};
  bilevel::Problem problem;
};

int main() {
  Controllers shown(kVelocity, kAcceleration, HUGE_VAL);
  bilevel::Sensitivity::Options polish;
  polish.polish = true;  // Solves the lower level alone.
  if (!bilevel::Sensitivity(polish).Compute(&shown.problem, {shown.x})) return 1;
  std::printf("limit as          velocity  acceleration  a off [m/s^2]  greatest |a|\n");
  std::printf("the drives' own  %9.6f     %9.6f\n", kVelocity, kAcceleration);
  double error = 0.0;
  for (const double penalty : {0.0, 10.0, 100.0, 1000.0, HUGE_VAL}) {
    Controllers learner(1.0, 1.0, penalty, &shown);
    bilevel::Solver::Summary summary;
    bilevel::Solve({}, &learner.problem, &summary);
    double greatest = 0.0;
    for (const auto& drive : learner.control)
      for (const auto& u : drive) greatest = std::max(greatest, std::hypot(u[0], u[1]));
    const double v = std::exp(learner.x[0]), a = std::exp(learner.x[1]);
    const double off = std::sqrt(2.0 * summary.final_objective / (kDrives * kSteps));
    std::printf(
        "penalty of %-6g%9.6f     %9.6f        %.1e      %.6f\n", penalty, v, a, off, greatest);
    error = std::max(std::abs(v / kVelocity - 1.0), std::abs(a / kAcceleration - 1.0));
  }
  std::printf("The constraint (a penalty without end) finds the weights to %.0e.\n", error);
  return error < 1e-6 ? 0 : 1;
}
