// A lower level with many solutions, of which the upper level chooses.
//
// A planar arm of four joints has two more than it needs to reach a point on a table's edge: the
// lower level, reaching, leaves a curved set of postures. Among them the upper level takes the most
// comfortable one, and with it the place x along the edge where the object should stand.
//
//   lower level   Y*(x) = argmin 1/2 |hand(y) - (x, 0.5)|^2
//   upper level   min over x and y in Y*(x) of 1/2 |y - comfortable|^2 + 1/2 |0.3 (x - 3)|^2
//
// `optimistic` follows that set exactly; `bome` needs first derivatives only. Plain Newton cannot
// differentiate y*(x) here and says so.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>

#include "bilevel/bilevel.h"
#include "bilevel/methods/value_function/bome.h"
#include "ceres/ceres.h"

constexpr int kJoints = 4;
const double kComfortable[kJoints] = {0.9, -0.5, -0.3, -0.2};  // Angles [rad].

struct Reach {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    T angle(0.0);
    r[0] = -weight * x[0];
    r[1] = T(-weight * 0.5);
    for (int i = 0; i < kJoints; ++i) {  // Every part of the arm is one long.
      angle += y[i];
      r[0] += weight * cos(angle);
      r[1] += weight * sin(angle);
    }
    return true;
  }
  double weight = 1.0;
};

using ReachCost = bilevel::AutoDiffCostFunction<Reach, 2, 1, kJoints>;

struct Answer {
  double x = 3.0, y[kJoints] = {0.9, -0.5, -0.3, -0.2};
};

void AddComfort(Answer* a, ceres::Problem* problem) {
  problem->AddResidualBlock(
      new bilevel::NormalPrior({kComfortable, kComfortable + kJoints}, 1.0), nullptr, a->y);
  problem->AddResidualBlock(new bilevel::NormalPrior({3.0}, 1.0 / 0.3), nullptr, &a->x);
}

Answer Solve(std::shared_ptr<bilevel::Method> method) {
  Answer a;
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&a.x, 1);
  problem.lower()->AddResidualBlock(new ReachCost(new Reach), nullptr, &a.x, a.y);
  AddComfort(&a, problem.upper());
  bilevel::Solver::Options options;
  options.method = method;
  options.max_num_iterations = 3000;
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  std::puts(summary.BriefReport().c_str());
  return a;
}

// To compare with: one level in which reaching weighs ten thousand times as much.
Answer SolveWithPenalty() {
  Answer a;
  ceres::Problem problem;
  problem.AddResidualBlock(new ReachCost(new Reach{1e4}), nullptr, &a.x, a.y);
  AddComfort(&a, &problem);
  ceres::Solver::Options options;
  options.logging_type = ceres::SILENT;
  options.function_tolerance = options.parameter_tolerance = 1e-15;
  options.max_num_iterations = 1000;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &problem, &summary);
  return a;
}

double Print(const char* name, const Answer& a, const Answer& reference) {
  double worst = std::abs(a.x - reference.x);
  std::printf("%-12s x %.6f   posture", name, a.x);
  for (int i = 0; i < kJoints; ++i) {
    std::printf(" %9.6f", a.y[i]);
    worst = std::max(worst, std::abs(a.y[i] - reference.y[i]));
  }
  std::printf("\n");
  return worst;
}

int main() {
  bilevel::Bome::Options steps;
  steps.x.step = steps.y.step = 0.01;  // y stays off Y*(x) by about so much, and so does x.
  const Answer reference = SolveWithPenalty();
  const Answer exact = Solve(bilevel::CreateMethod("optimistic"));
  const Answer first_order = Solve(std::make_shared<bilevel::Bome>(steps));
  Print("penalty", reference, reference);
  const double error = Print("optimistic", exact, reference);
  const double bome_error = Print("bome", first_order, reference);
  return error < 1e-6 && bome_error < 1e-2 ? 0 : 1;
}
