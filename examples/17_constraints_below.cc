// Constraints of the lower level: a path that must keep off a disc and pass a gate.
//
// The lower level is a planner: 20 points between two places, short and smooth, none nearer to the
// disc than its radius and a clearance e^x0, one on the gate y = x1. Somebody has driven such
// a path. The upper level asks which clearance and which gate make the planner drive as they did.
// The constraints are cost functions like any other, over blocks of y and x, each a line.
#include <cmath>
#include <cstdio>

#include "bilevel/bilevel.h"

constexpr int kPoints = 20, kGate = 16;
constexpr double kRadius = 0.15, kCentre[2] = {0.45, 0.03};

struct Straight {  // Second differences.
  template <typename T>
  bool operator()(const T* a, const T* b, const T* c, T* r) const {
    for (int k = 0; k < 2; ++k) r[k] = 10.0 * (a[k] - 2.0 * b[k] + c[k]);
    return true;
  }
};

struct Short {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    for (int k = 0; k < 2; ++k) r[k] = b[k] - a[k];
    return true;
  }
};

struct KeepsOff {  // (radius + clearance)^2 - |p - centre|^2 <= 0.
  template <typename T>
  bool operator()(const T* x, const T* p, T* c) const {
    using std::exp;
    const T off = kRadius + exp(x[0]), dx = p[0] - kCentre[0], dy = p[1] - kCentre[1];
    c[0] = off * off - dx * dx - dy * dy;
    return true;
  }
};

struct IsOnGate {  // p1 - x1 = 0.
  template <typename T>
  bool operator()(const T* x, const T* p, T* h) const {
    h[0] = p[1] - x[1];
    return true;
  }
};

// The planner as a bilevel problem: x is variable, the ends are constant.
struct Planner {
  Planner(double log_clearance, double gate) : x{log_clearance, gate} {
    problem.AddUpperParameterBlock(x, 2);
    problem.SetParameterName(x, "log clearance, gate");
    for (int i = 0; i <= kPoints; ++i) {
      path[i][0] = i / double(kPoints);
      path[i][1] = 0.25 * std::sin(M_PI * path[i][0]);  // Which side of the disc is its start's.
    }
    path[kPoints][1] = 0.0;
    ceres::Problem* lower = problem.lower();
    for (int i = 1; i <= kPoints; ++i) {
      lower->AddResidualBlock(new bilevel::AutoDiffCostFunction<Short, 2, 2, 2>(new Short),
                              nullptr,
                              path[i - 1],
                              path[i]);
      if (i == kPoints) continue;
      lower->AddResidualBlock(new bilevel::AutoDiffCostFunction<Straight, 2, 2, 2, 2>(new Straight),
                              nullptr,
                              path[i - 1],
                              path[i],
                              path[i + 1]);
      problem.AddLowerInequality(
          new bilevel::AutoDiffCostFunction<KeepsOff, 1, 2, 2>(new KeepsOff), x, path[i]);
    }
    problem.AddLowerEquality(
        new bilevel::AutoDiffCostFunction<IsOnGate, 1, 2, 2>(new IsOnGate), x, path[kGate]);
    lower->SetParameterBlockConstant(path[0]);
    lower->SetParameterBlockConstant(path[kPoints]);
  }
  double x[2], path[kPoints + 1][2];
  bilevel::Problem problem;
};

int main() {
  // The demonstration: the planner with a clearance of 0.05 and the gate at 0.1.
  Planner driver(std::log(0.05), 0.1);
  bilevel::Sensitivity::Options polish;
  polish.polish = true;  // Solves the lower level alone.
  bilevel::Sensitivity driven(polish);
  if (!driven.Compute(&driver.problem, {driver.x})) {
    std::fprintf(stderr, "%s\n", driven.message().c_str());
    return 1;
  }

  Planner planner(std::log(0.01), 0.05);
  for (int i = 1; i < kPoints; ++i) {
    planner.problem.upper()->AddResidualBlock(
        new bilevel::NormalPrior({driver.path[i][0], driver.path[i][1]}, 1.0),
        nullptr,
        planner.path[i]);
  }
  const auto check = bilevel::HypergradientChecker::Check(&planner.problem);
  std::printf("hypergradient against differences: %.1e\n", check.max_relative_error);
  bilevel::Solver::Summary summary;
  bilevel::Solve({}, &planner.problem, &summary);
  std::printf("%s\n", summary.BriefReport().c_str());
  std::printf("clearance %.6f (driven 0.05), gate %.6f (driven 0.1)\n",
              std::exp(planner.x[0]),
              planner.x[1]);
  double nearest = 1.0;
  for (const auto& p : planner.path) {
    nearest = std::min(nearest, std::hypot(p[0] - kCentre[0], p[1] - kCentre[1]) - kRadius);
  }
  std::printf("nearest to the disc: %.9f\n", nearest);

  return summary.IsSolutionUsable() ? 0 : 1;
}
