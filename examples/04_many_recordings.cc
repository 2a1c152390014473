// Two noise levels learned on some recordings of a trolley on a rail and tested on others.
//
// Every recording is a scenario: a lower problem (odometry and position fixes) and an upper one
// (ground truth) of its own. All share x, two factors on the noise that data sheets promise:
//
//   lower level   y_s*(x) = argmin sum |odometry_s / e^{x_0}|^2 + |fixes_s / e^{x_1}|^2
//   upper level   x = argmin sum_s |position_s - truth_s|^2 / positions_s
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

// The data sheets' noise [m], and by which factor it is off in truth.
constexpr double kSheetStep = 0.02, kSheetFix = 1.0;
constexpr double kTrueOdometry = 2.5, kTrueFix = 0.5;

struct StepError {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    r[0] = (b[0] - a[0] - step) / kSheetStep;
    return true;
  }
  double step;
};

struct PositionError {  // Of a fix below, of the estimate above.
  template <typename T>
  bool operator()(const T* p, T* r) const {
    r[0] = (p[0] - position) / sigma;
    return true;
  }
  double position, sigma;
};
using StepCost = bilevel::AutoDiffCostFunction<StepError, 1, 1, 1>;
using PositionCost = bilevel::AutoDiffCostFunction<PositionError, 1, 1>;

struct Recording {
  explicit Recording(unsigned seed) : truth(1, 0.0), estimate(200, 0.0) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    for (size_t i = 1; i < estimate.size(); ++i) {
      const double moved = normal(generator);
      truth.push_back(truth.back() + moved);
      steps.push_back(moved + kTrueOdometry * kSheetStep * normal(generator));
    }
    for (size_t i = 0; i < truth.size(); i += 5) {  // Every fifth position has a fix.
      fixes.push_back(truth[i] + kTrueFix * kSheetFix * normal(generator));
    }
  }
  std::vector<double> truth, steps, fixes, estimate;
};

// x stands in two losses, one for each kind of residual, which ceres::Solve takes with the present
// value of x; the cost functions know nothing of it.
void AddLowerLevel(double* x, Recording* r, ceres::Problem* lower) {
  auto* step_loss = new bilevel::NoiseScaleLoss(nullptr, &x[0], ceres::TAKE_OWNERSHIP);
  auto* fix_loss = new bilevel::NoiseScaleLoss(nullptr, &x[1], ceres::TAKE_OWNERSHIP);
  double* y = r->estimate.data();
  for (size_t i = 0; i < r->steps.size(); ++i) {
    lower->AddResidualBlock(new StepCost(new StepError{r->steps[i]}), step_loss, y + i, y + i + 1);
  }
  for (size_t i = 0; i < r->fixes.size(); ++i) {
    lower->AddResidualBlock(
        new PositionCost(new PositionError{r->fixes[i], kSheetFix}), fix_loss, y + 5 * i);
  }
}

double RmsError(double* x, std::vector<Recording>* recordings) {
  double sum = 0.0, count = 0.0;
  for (Recording& r : *recordings) {
    ceres::Problem problem;
    AddLowerLevel(x, &r, &problem);
    ceres::Solver::Options options;
    options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
    options.logging_type = ceres::SILENT;
    ceres::Solver::Summary summary;
    ceres::Solve(options, &problem, &summary);
    for (size_t i = 0; i < r.truth.size(); ++i) sum += std::pow(r.estimate[i] - r.truth[i], 2);
    count += static_cast<double>(r.truth.size());
  }
  return std::sqrt(sum / count);
}

int main() {
  std::vector<Recording> training{Recording(1), Recording(2), Recording(3), Recording(4)};
  std::vector<Recording> testing{Recording(5), Recording(6)};
  double x[2] = {0.0, 0.0}, sheet[2] = {0.0, 0.0};  // Logarithms of the factors.
  bilevel::Problem problem;
  for (int k = 0; k < 2; ++k) {
    problem.AddUpperParameterBlock(&x[k], 1);  // A loss's parameters are blocks of their own.
    problem.SetParameterName(&x[k], k == 0 ? "log factor of odometry" : "log factor of fixes");
  }
  for (size_t s = 0; s < training.size(); ++s) {
    Recording& r = training[s];
    auto* scenario = problem.AddScenario("recording " + std::to_string(s), 1.0 / r.truth.size());
    AddLowerLevel(x, &r, scenario->lower());
    for (size_t i = 0; i < r.truth.size(); ++i) {
      scenario->upper()->AddResidualBlock(
          new PositionCost(new PositionError{r.truth[i], 1.0}), nullptr, &r.estimate[i]);
    }
  }
  bilevel::Solver::Options options;
  options.num_threads = 2;  // The result does not depend on it.
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);
  std::puts(summary.FullReport().c_str());

  // Ground truth sees the ratio of noise levels alone: their common factor moves no estimate, the
  // report names it as flat, and x has not moved along it.
  const double ratio = std::exp(x[0] - x[1]), true_ratio = kTrueOdometry / kTrueFix;
  const double before = RmsError(sheet, &testing), after = RmsError(x, &testing);
  std::printf("odometry's factor over that of fixes: learned %.2f, true %.2f\n", ratio, true_ratio);
  std::printf("RMS error on the others: data sheet %.3f m, learned %.3f m\n", before, after);
  const bool ok = summary.IsSolutionUsable() && summary.flat_upper_directions.size() == 1;
  return ok && std::abs(std::log(ratio / true_ratio)) < 0.5 && after < before ? 0 : 1;
}
