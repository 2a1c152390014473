// A fleet's recordings on many machines: two noise levels learned from all of them by MPI.
//
//     mpirun -n 4 18_many_machines [recordings] [positions of each]
//
// Every process builds and solves its own recordings and no others; x is the same on all, to the
// last bit, for any number of processes. The model is that of 04_many_recordings.cc.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/mpi/ranks.h"
#include "ceres/ceres.h"

// The data sheets' noise [m], and by which factor it is off in truth.
constexpr double kSheetStep = 0.02, kSheetFix = 1.0;
constexpr double kTrueOdometry = 2.5, kTrueFix = 0.5;

struct StepError {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    using std::sin;
    r[0] = (b[0] - a[0] - step + 0.001 * sin(a[0])) / kSheetStep;  // The rail is a little uneven.
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

// Stands for a file that only its own process reads.
struct Recording {
  Recording(int number, int length) : truth(1, 0.0), estimate(length, 0.0) {
    std::mt19937 generator(number + 1);
    std::normal_distribution<double> normal;
    for (int i = 1; i < length; ++i) {
      const double moved = normal(generator);
      steps.push_back(moved + 0.001 * std::sin(truth.back()) +
                      kTrueOdometry * kSheetStep * normal(generator));
      truth.push_back(truth.back() + moved);
    }
    for (int i = 0; i < length; i += 5) {  // Every fifth position has a fix.
      fixes.push_back(truth[i] + kTrueFix * kSheetFix * normal(generator));
    }
  }

  void AddTo(double* x, bilevel::Scenario* scenario) {
    double* y = estimate.data();
    auto* step_loss = new bilevel::NoiseScaleLoss(nullptr, &x[0], ceres::TAKE_OWNERSHIP);
    auto* fix_loss = new bilevel::NoiseScaleLoss(nullptr, &x[1], ceres::TAKE_OWNERSHIP);
    for (size_t i = 0; i < steps.size(); ++i) {
      scenario->lower()->AddResidualBlock(
          new StepCost(new StepError{steps[i]}), step_loss, y + i, y + i + 1);
    }
    for (size_t i = 0; i < fixes.size(); ++i) {
      scenario->lower()->AddResidualBlock(
          new PositionCost(new PositionError{fixes[i], kSheetFix}), fix_loss, y + 5 * i);
    }
    for (size_t i = 0; i < truth.size(); ++i) {
      scenario->upper()->AddResidualBlock(
          new PositionCost(new PositionError{truth[i], 1.0}), nullptr, y + i);
    }
  }

  std::vector<double> truth, steps, fixes, estimate;
};

int main(int argc, char** argv) {
  bilevel::mpi::Ranks ranks(&argc, &argv);  // Ends MPI when main does.
  const int num_recordings = argc > 1 ? std::atoi(argv[1]) : 16;
  const int length = argc > 2 ? std::atoi(argv[2]) : 200;

  double x[2] = {0.0, 0.0};  // Logarithms of the factors.
  std::vector<std::unique_ptr<Recording>> mine;
  bilevel::Problem problem;
  problem.SetRanks(&ranks);
  for (int k = 0; k < 2; ++k) {
    problem.AddUpperParameterBlock(&x[k], 1);
    problem.SetParameterName(&x[k], k == 0 ? "log factor of odometry" : "log factor of fixes");
  }
  for (int s = 0; s < num_recordings; ++s) {
    // All processes name all recordings; one has it.
    auto* scenario = problem.AddScenario("recording " + std::to_string(s), 1.0 / length);
    if (!ranks.IsMine(s)) continue;
    mine.push_back(std::make_unique<Recording>(s, length));
    mine.back()->AddTo(x, scenario);
  }
  bilevel::Solver::Options options;
  options.method = bilevel::CreateMethod("lbfgs");  // Hands on the least: a gradient in x.
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, &problem, &summary);  // With one result on all processes.

  const double ratio = std::exp(x[0] - x[1]), true_ratio = kTrueOdometry / kTrueFix;
  if (ranks.rank() == 0) {
    std::puts(summary.FullReport().c_str());
    std::printf(
        "odometry's factor over that of fixes: learned %.17g, true %g\n", ratio, true_ratio);
    std::printf("%d processes, %.3f s, %ld bytes handed on by each\n",
                ranks.size(),
                summary.total_time_in_seconds,
                ranks.num_bytes());
  }
  const bool ok = summary.IsSolutionUsable() && std::abs(std::log(ratio / true_ratio)) < 0.5;
  return ok ? 0 : 1;
}
