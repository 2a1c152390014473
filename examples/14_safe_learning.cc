// Learning that does not lose: noise levels from a few recordings, taken only if the recordings
// that were left out say so.
//
// A robot on a line: odometry, and a fix every fifth step. By hand the fixes are trusted too much,
// or just right; LearnSafely is to tell the two apart. Beside it what minimising the error on the
// recordings alone would give.
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

constexpr int kLength = 60, kStepsAFix = 5;
constexpr double kOdometrySigma = 0.1, kFixSigma = 1.0;  // The truth [m].

struct Step {
  template <typename T>
  bool operator()(const T* a, const T* b, T* residual) const {
    residual[0] = b[0] - a[0] - moved;
    return true;
  }
  double moved;
};

struct Recording {
  explicit Recording(unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    for (int t = 0; t < kLength; ++t) {
      const double step = t > 0 ? normal(generator) : 0.0;
      truth[t] = (t > 0 ? truth[t - 1] : 0.0) + step;
      odometry[t] = step + kOdometrySigma * normal(generator);
      fix[t] = truth[t] + kFixSigma * normal(generator);
    }
  }
  std::array<double, kLength> truth, odometry, fix, estimate{};
};

// Noise levels of many recordings, and their error against the truth above.
struct Job {
  Job(int num_recordings, unsigned seed, double fix_sigma)
      : log_odometry(std::log(kOdometrySigma)), log_fix(std::log(fix_sigma)) {
    problem.AddUpperParameterBlock(&log_odometry, 1);
    problem.AddUpperParameterBlock(&log_fix, 1);
    problem.SetParameterName(&log_odometry, "log odometry");
    problem.SetParameterName(&log_fix, "log fix");
    for (int i = 0; i < num_recordings; ++i) recordings.emplace_back(seed + i);
    for (Recording& r : recordings) Add(&r);
  }
  void Add(Recording* r) {
    using Prior = bilevel::NormalPrior;
    bilevel::Scenario* s = problem.AddScenario("recording " + std::to_string(r - &recordings[0]));
    bilevel::ScalarNoise odometry(&log_odometry, 1), fix(&log_fix, 1);
    double* const y = r->estimate.data();
    for (int t = 0; t < kLength; ++t) {
      if (t > 0) {
        auto* step = new bilevel::AutoDiffCostFunction<Step, 1, 1, 1>(new Step{r->odometry[t]});
        odometry.AddResidualBlock(step, nullptr, {y + t - 1, y + t}, s->lower());
      }
      if (t % kStepsAFix == 0) {
        fix.AddResidualBlock(new Prior({r->fix[t]}, 1.0), nullptr, {y + t}, s->lower());
      }
      s->upper()->AddResidualBlock(new Prior({r->truth[t]}, 1.0), nullptr, y + t);
    }
  }
  // Mean square error of all recordings with these levels.
  double Error(double log_odometry_sigma, double log_fix_sigma) {
    log_odometry = log_odometry_sigma;
    log_fix = log_fix_sigma;
    bilevel::Solver::Options options;
    options.max_num_iterations = 0;  // The lower levels alone.
    bilevel::Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
    return summary.final_objective;
  }
  std::vector<Recording> recordings;
  double log_odometry, log_fix;
  bilevel::Problem problem;
};

int main() {
  bool loses = false;
  for (const double fix_sigma : {kFixSigma, 0.1}) {
    for (const int num_recordings : {1, 6}) {
      std::printf("%d recording(s), sigma of fixes set to %g m, in truth %g m\n",
                  num_recordings,
                  fix_sigma,
                  kFixSigma);
      Job unseen(50, 1000, fix_sigma);
      const double before = unseen.Error(std::log(kOdometrySigma), std::log(fix_sigma));
      Job safe(num_recordings, 0, fix_sigma), bold(num_recordings, 0, fix_sigma);
      const bilevel::SafeLearning result = bilevel::LearnSafely({}, &safe.problem);
      bilevel::Solver::Summary summary;
      bilevel::Solve({}, &bold.problem, &summary);
      const double learned = unseen.Error(safe.log_odometry, safe.log_fix);
      std::printf(
          "  %s\n  Error on 50 others %+.0f %%; by the error on these alone %+.0f %%.\n\n",
          result.message.c_str(),
          100.0 * (std::sqrt(learned / before) - 1.0),
          100.0 * (std::sqrt(unseen.Error(bold.log_odometry, bold.log_fix) / before) - 1.0));
      loses |= !result.ok || learned > 1.1 * before;
    }
  }
  return loses ? 1 : 0;
}
