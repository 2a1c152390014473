// Two noise levels learned on some recordings of a robot and tested on others.
//
// Every recording is a scenario: a lower problem (odometry and position fixes) and an upper one
// (ground truth, from a motion capture room say) of its own. All share x, two factors on the noise
// that the sensors' data sheets promise:
//
//   lower level   y_s*(x) = argmin sum |odometry_s / e^{x_0}|^2 + |fixes_s / e^{x_1}|^2
//   upper level   x = argmin sum_s |position_s - truth_s|^2 / poses_s                     [m^2]
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"

using Pose = std::array<double, 3>;  // x [m], y [m], heading [rad]

// The data sheets' noise, and by which factor it is off in truth.
constexpr double kSheetStep = 0.02, kSheetTurn = 0.01, kSheetFix = 1.0;  // m, rad, m
constexpr double kTrueOdometry = 2.5, kTrueFix = 0.5;

struct Odometry {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    const T c = cos(a[2]), s = sin(a[2]), x = b[0] - a[0], y = b[1] - a[1];
    r[0] = (c * x + s * y - step) / kSheetStep;
    r[1] = (-s * x + c * y) / kSheetStep;
    r[2] = (b[2] - a[2] - turn) / kSheetTurn;
    return true;
  }
  double step, turn;
};

struct Position {  // A fix below, the error to ground truth above.
  template <typename T>
  bool operator()(const T* pose, T* r) const {
    r[0] = (pose[0] - x) / sigma;
    r[1] = (pose[1] - y) / sigma;
    return true;
  }
  double x, y, sigma;
};

struct Recording {
  std::string name;
  std::vector<Odometry> odometry;
  std::vector<Position> fixes;  // Of every fifth pose.
  std::vector<Pose> truth, start, estimate;

  std::vector<double> Errors() const {  // m
    std::vector<double> errors;
    for (size_t i = 0; i < truth.size(); ++i) {
      errors.push_back(std::hypot(estimate[i][0] - truth[i][0], estimate[i][1] - truth[i][1]));
    }
    return errors;
  }
  double RmsError() const {  // m
    double sum = 0.0;
    for (const double e : Errors()) sum += e * e;
    return std::sqrt(sum / truth.size());
  }
};

Recording Record(const std::string& name, int num_poses, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  Recording r{name, {}, {}, {{0.0, 0.0, 0.0}}, {{0.0, 0.0, 0.0}}, {}};
  double bend = 0.0;
  for (int i = 0; i < num_poses; ++i) {
    const Pose p = r.truth.back();
    if (i % 5 == 0) {
      const double noise = kTrueFix * kSheetFix;
      r.fixes.push_back(
          {p[0] + noise * normal(generator), p[1] + noise * normal(generator), kSheetFix});
    }
    if (i + 1 == num_poses) break;
    bend = 0.9 * bend + 0.04 * normal(generator);
    r.truth.push_back({p[0] + std::cos(p[2]), p[1] + std::sin(p[2]), p[2] + bend});
    // The wheels slip forward and sideways; odometry notices the mean only.
    const double step = 1.0 + kTrueOdometry * kSheetStep * normal(generator);
    const double slip = kTrueOdometry * kSheetStep * normal(generator);
    r.truth.back()[0] -= std::sin(p[2]) * slip;
    r.truth.back()[1] += std::cos(p[2]) * slip;
    r.odometry.push_back({step, bend + kTrueOdometry * kSheetTurn * normal(generator)});
    const Pose q = r.start.back();  // The initial guess is dead reckoning.
    const Odometry& o = r.odometry.back();
    r.start.push_back(
        {q[0] + o.step * std::cos(q[2]), q[1] + o.step * std::sin(q[2]), q[2] + o.turn});
  }
  r.estimate = r.start;
  return r;
}

// ------------------------------------------------------------------------------------------------

using Factors = std::array<double, 2>;  // Logarithms, of odometry and fixes. Zero: data sheets.

// One loss each for the two kinds of residuals; the cost functions know nothing of x. It is a Ceres
// loss like any other, so that ceres::Solve works with the present value of x too.
void AddLowerLevel(Factors* x, Recording* r, ceres::Problem* lower) {
  const auto loss = [](double* log_sigma) {
    return new bilevel::NoiseScaleLoss(nullptr, log_sigma, ceres::TAKE_OWNERSHIP);
  };
  ceres::LossFunction* odometry_loss = loss(&(*x)[0]);
  ceres::LossFunction* fix_loss = loss(&(*x)[1]);
  for (size_t i = 0; i < r->odometry.size(); ++i) {
    lower->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<Odometry, 3, 3, 3>(new Odometry(r->odometry[i])),
        odometry_loss,
        r->estimate[i].data(),
        r->estimate[i + 1].data());
  }
  for (size_t i = 0; i < r->fixes.size(); ++i) {
    lower->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<Position, 2, 3>(new Position(r->fixes[i])),
        fix_loss,
        r->estimate[5 * i].data());
  }
}

// Learns *x from where it is; leaves estimates in the recordings.
bilevel::Solver::Summary Learn(std::vector<Recording>* recordings,
                               Factors* x,
                               int threads,
                               bool progress) {
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(&(*x)[0], 1);
  problem.AddUpperParameterBlock(&(*x)[1], 1);
  problem.SetParameterName(&(*x)[0], "log odometry factor");  // For messages and reports.
  problem.SetParameterName(&(*x)[1], "log fix factor");
  for (Recording& r : *recordings) {
    r.estimate = r.start;
    bilevel::Scenario* scenario = problem.AddScenario(r.name, 1.0 / r.truth.size());
    AddLowerLevel(x, &r, scenario->lower());
    for (size_t i = 0; i < r.truth.size(); ++i) {
      scenario->upper()->AddResidualBlock(new bilevel::AutoDiffCostFunction<Position, 2, 3>(
                                              new Position{r.truth[i][0], r.truth[i][1], 1.0}),
                                          nullptr,
                                          r.estimate[i].data());
    }
  }
  bilevel::Solver::Options options;
  options.num_threads = threads;
  options.minimizer_progress_to_stdout = progress;
  bilevel::Solver::Summary summary;
  examples::Solve(options, &problem, &summary);
  return summary;
}

// RMS errors [m] of plain Ceres estimates with the given noise, and where asked those of all poses.
std::vector<double> Errors(std::vector<Recording>* recordings,
                           Factors* x,
                           std::vector<double>* of_poses = nullptr) {
  std::vector<double> errors;
  for (Recording& r : *recordings) {
    ceres::Problem problem;
    r.estimate = r.start;
    AddLowerLevel(x, &r, &problem);
    ceres::Solver::Options options;
    options.logging_type = ceres::SILENT;
    options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
    ceres::Solver::Summary summary;
    ceres::Solve(options, &problem, &summary);
    errors.push_back(r.RmsError());
    if (!of_poses) continue;
    const std::vector<double> of_all = r.Errors();
    of_poses->insert(of_poses->end(), of_all.begin(), of_all.end());
  }
  return errors;
}

int main(int argc, char** argv) {
  examples::ParseFlags("Noise levels learned on some recordings, tested on others.", &argc, &argv);
  const int num_train = FLAGS_quick ? 3 : 6, num_test = FLAGS_quick ? 2 : 4;
  std::vector<Recording> train, test;
  for (int i = 0; i < num_train + num_test; ++i) {
    const bool training = i < num_train;
    (training ? train : test)
        .push_back(Record(
            (training ? "train " : "test ") + std::to_string(i), FLAGS_quick ? 100 : 300, i));
  }
  Factors sheet{}, learned{}, serial{}, elsewhere{std::log(3.0), std::log(3.0)};
  Factors truth{std::log(kTrueOdometry), std::log(kTrueFix)};
  const bilevel::Solver::Summary summary = Learn(&train, &learned, FLAGS_num_threads, true);
  if (!summary.IsSolutionUsable()) {
    std::puts(summary.FullReport().c_str());
    return 1;
  }
  std::vector<double> before, after;
  Errors(&test, &sheet, &before);
  Errors(&test, &learned, &after);
  const bilevel::Verdict verdict = bilevel::JudgeLearned({}, before, after, &summary);
  examples::Print(verdict);
  std::printf("\n%s\n", summary.FullReport().c_str());

  // For the level, look at the residuals: at the right one their mean square is 1, after taking off
  // the degrees of freedom that the poses use up.
  double squares = 0.0, freedom = 0.0;
  for (Recording& r : train) {
    for (size_t i = 0; i < r.odometry.size(); ++i) {
      double v[3];
      r.odometry[i](r.estimate[i].data(), r.estimate[i + 1].data(), v);
      for (double e : v) squares += e * e * std::exp(-2.0 * learned[0]);
    }
    for (size_t i = 0; i < r.fixes.size(); ++i) {
      double v[2];
      r.fixes[i](r.estimate[5 * i].data(), v);
      for (double e : v) squares += e * e * std::exp(-2.0 * learned[1]);
    }
    freedom += 3.0 * r.odometry.size() + 2.0 * r.fixes.size() - 3.0 * r.truth.size();
  }
  const double level = std::sqrt(squares / freedom);

  // Only the ratio is identified: a common factor on all noise scales the lower cost and leaves its
  // minimiser where it is. The upper level is flat along (1, 1): the solver says so and does not
  // move there. Started at three times the noise, it finds the same ratio at three times the level.
  Learn(&train, &elsewhere, FLAGS_num_threads, false);
  // The same with one thread: the same numbers, to the last bit.
  const bilevel::Solver::Summary alone = Learn(&train, &serial, 1, false);

  examples::Table noise({"factor on the data sheet's noise", "odometry", "fixes", "ratio"});
  const auto add = [&](const char* name, const Factors& f, double scale) {
    const double a = scale * std::exp(f[0]), b = scale * std::exp(f[1]);
    noise.Add({name,
               examples::Format("%.3f", a),
               examples::Format("%.3f", b),
               examples::Format("%.3f", a / b)});
    return a / b;
  };
  add("data sheet, the start", sheet, 1.0);
  const double ratio = add("learned: the ratio counts", learned, 1.0);
  const double other_ratio = add("learned from 3 x the data sheet", elsewhere, 1.0);
  add("learned, level from the residuals", learned, level);
  const double true_ratio = add("simulated truth", truth, 1.0);
  std::printf("%s\n", noise.ToString().c_str());

  examples::Table table({"RMS position error [cm]", "data sheet", "learned", "true noise"});
  double sums[2][3] = {};
  std::vector<double> rms[3];
  for (const bool testing : {false, true}) {
    std::vector<Recording>& set = testing ? test : train;
    const std::vector<double> errors[3] = {
        Errors(&set, &sheet), Errors(&set, &learned), Errors(&set, &truth)};
    for (size_t i = 0; i < set.size(); ++i) {
      std::vector<std::string> row{set[i].name};
      for (int k = 0; k < 3; ++k) {
        row.push_back(examples::Format("%.2f", 100 * errors[k][i]));
        sums[testing][k] += errors[k][i] * errors[k][i] / set.size();
        rms[k].push_back(100 * errors[k][i]);
      }
      table.Add(row);
    }
  }
  for (const bool testing : {false, true}) {
    std::vector<std::string> row{testing ? "all test" : "all training"};
    for (double sum : sums[testing]) row.push_back(examples::Format("%.2f", 100 * std::sqrt(sum)));
    table.Add(row);
  }
  std::printf("%s\n", table.ToString().c_str());
  const bool same = alone.final_objective == summary.final_objective;
  std::printf("Learning took %.2f s with %d thread(s), %.2f s with one; objectives %s.\n",
              summary.total_time_in_seconds,
              summary.num_threads_used,
              alone.total_time_in_seconds,
              same ? "equal to the last bit" : "DIFFER");

  const bool flat = std::abs(learned[0] + learned[1]) < 1e-3;
  examples::WriteFile(FLAGS_summary_json,
                      examples::Json()
                          .Add("ratio", ratio)
                          .Add("ratio_from_elsewhere", other_ratio)
                          .Add("true_ratio", true_ratio)
                          .Add("level", level)
                          .Add("verdict", examples::ToJson(verdict))
                          .Add("test_rms_data_sheet_m", std::sqrt(sums[1][0]))
                          .Add("test_rms_learned_m", std::sqrt(sums[1][1]))
                          .Add("test_rms_true_noise_m", std::sqrt(sums[1][2]))
                          .AddRaw("solver", summary.Json())
                          .ToString());
  examples::WriteFile(FLAGS_trace_csv, summary.Csv());
  if (!FLAGS_plot.empty()) {
    examples::Panel path, all;
    path.title = "Recording '" + test[0].name + "'";
    path.x_label = "pose";
    path.y_label = "position error [cm]";
    all.title = "Training, then test recordings";
    all.x_label = "recording";
    all.y_label = "RMS position error [cm]";
    for (Factors* x : {&sheet, &learned}) {
      const char* title = x == &sheet ? "data sheet" : "learned";
      Errors(&test, x);
      examples::Series errors{title, "lines", {}, {}};
      for (size_t i = 0; i < test[0].truth.size(); ++i) {
        const Pose &a = test[0].estimate[i], &b = test[0].truth[i];
        errors.x.push_back(i);
        errors.y.push_back(100 * std::hypot(a[0] - b[0], a[1] - b[1]));
      }
      path.series.push_back(errors);
      examples::Series bars{title, "boxes", {}, rms[x == &sheet ? 0 : 1]};
      for (size_t i = 0; i < bars.y.size(); ++i) bars.x.push_back(i);
      all.series.push_back(bars);
    }
    examples::Plot(FLAGS_plot, "Noise levels learned on recordings", {path, all});
  }
  return examples::ExitCode(same && flat && std::abs(ratio / other_ratio - 1.0) < 1e-3 &&
                                std::abs(std::log(ratio / true_ratio)) < std::log(2.0),
                            verdict);
}
