// Learns how far to trust odometry and how far GPS, for a smoother and for the Kalman filter that
// runs on the vehicle.
//
//   lower level   y_s*(x) = argmin sum |step error|^2 / sigma_odometry^2
//                                + sum |fix error|^2 / sigma_gps^2          for each track s
//   upper level   x = argmin sum_s |position - truth|^2, or of fixes that the estimate has not
//   seen,
//                     or -log p(steps, fixes | x), the positions integrated out
//
// y: positions. x: the logarithms of both sigmas. Only their ratio moves the estimate: the upper
// level is flat along their sum, which the solver says, and leaves the sum alone. The residuals'
// own size then gives the absolute level. The likelihood finds both at once, without the truth and
// with every fix in use.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/learnable/noise.h"
#include "bilevel/upper_level/marginal_likelihood.h"
#include "ceres/ceres.h"
#include "examples/support/baselines.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/position_error.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"

DEFINE_double(start_odometry, 0.5, "sigma of a step to start from, as set by hand [m]");
DEFINE_double(start_gps, 3.0, "sigma of a fix to start from, as set by hand [m]");
DEFINE_int32(seed, 0, "of the tracks");

namespace {

using examples::Format;
using Point2 = std::array<double, 2>;

// What the tracks are made with, and what is to be found.
constexpr double kOdometry = 0.05, kGps = 1.5;  // m
constexpr int kStepsAFix = 5;
// Errors of positions so far apart are independent, about: of the smoother with the true sigmas
// they are correlated over kGps / kOdometry * sqrt(kStepsAFix), two thirds of it.
constexpr int kBlock = 100;

struct Step {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    for (int k = 0; k < 2; ++k) r[k] = b[k] - a[k] - measured[k];
    return true;
  }
  Point2 measured;
};

ceres::CostFunction* ErrorTo(const Point2& p) {
  return new bilevel::AutoDiffCostFunction<examples::PositionError, 2, 2>(
      new examples::PositionError{p[0], p[1]});
}

ceres::LossFunction* Mean(double count) {
  return new ceres::ScaledLoss(nullptr, 1.0 / count, ceres::TAKE_OWNERSHIP);
}

struct Track {
  std::vector<Point2> truth, estimate;
  std::vector<Point2> steps;  // steps[i]: from i to i + 1.
  std::vector<Point2> fixes;  // fixes[k]: of position k * kStepsAFix.

  bool IsHeldOut(size_t fix) const { return fix % 5 == 2; }
};

Track Simulate(int size, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  Track track;
  double heading = normal(generator), turn = 0.0;
  Point2 p = {0.0, 0.0};
  for (int i = 0; i < size; ++i) {
    track.truth.push_back(p);
    turn = 0.95 * turn + 0.02 * normal(generator);
    heading += turn;
    const Point2 step = {std::cos(heading), std::sin(heading)};  // A metre.
    track.steps.push_back(
        {step[0] + kOdometry * normal(generator), step[1] + kOdometry * normal(generator)});
    if (i % kStepsAFix == 0) {
      track.fixes.push_back({p[0] + kGps * normal(generator), p[1] + kGps * normal(generator)});
    }
    p = {p[0] + step[0], p[1] + step[1]};
  }
  track.steps.pop_back();
  Point2 guess = track.fixes[0];
  for (int i = 0; i < size; ++i) {
    track.estimate.push_back(guess);
    if (i + 1 < size) guess = {guess[0] + track.steps[i][0], guess[1] + track.steps[i][1]};
  }
  return track;
}

// Of every position of every track [m].
std::vector<double> Errors(const std::vector<Track>& tracks) {
  std::vector<double> errors;
  for (const Track& track : tracks) {
    for (size_t i = 0; i < track.truth.size(); ++i) {
      errors.push_back(std::hypot(track.estimate[i][0] - track.truth[i][0],
                                  track.estimate[i][1] - track.truth[i][1]));
    }
  }
  return errors;
}

double Rms(const std::vector<double>& errors) {
  double sum = 0.0;
  for (const double e : errors) sum += e * e;
  return std::sqrt(sum / static_cast<double>(errors.size()));
}

// The same sigmas in a Kalman filter, which sees the past alone [m].
double FilterRmsError(const std::vector<Track>& tracks, double odometry, double gps) {
  double sum = 0.0, count = 0.0;
  for (const Track& track : tracks) {
    Point2 p = track.fixes[0];
    double variance = gps * gps;
    for (size_t i = 1; i < track.truth.size(); ++i) {
      variance += odometry * odometry;
      for (int k = 0; k < 2; ++k) p[k] += track.steps[i - 1][k];
      if (i % kStepsAFix == 0) {
        const double gain = variance / (variance + gps * gps);
        for (int k = 0; k < 2; ++k) p[k] += gain * (track.fixes[i / kStepsAFix][k] - p[k]);
        variance *= 1.0 - gain;
      }
      for (int k = 0; k < 2; ++k) sum += std::pow(p[k] - track.truth[i][k], 2);
      count += 1.0;
    }
  }
  return std::sqrt(sum / count);
}

enum class Upper { kTruth, kHeldOutFixes, kLikelihood };

// Tracks as scenarios of one problem.
struct Fusion {
  Fusion(std::vector<Track>* tracks, Upper upper, double* log_odometry, double* log_gps)
      : odometry(log_odometry, 2), gps(log_gps, 2) {
    problem.AddUpperParameterBlock(log_odometry, 1);
    problem.AddUpperParameterBlock(log_gps, 1);
    problem.SetParameterName(log_odometry, "log sigma odometry");
    problem.SetParameterName(log_gps, "log sigma GPS");
    double count = 0.0;
    for (const Track& t : *tracks) {
      count += static_cast<double>(upper == Upper::kTruth ? t.truth.size() : t.fixes.size() / 5);
    }
    for (size_t s = 0; s < tracks->size(); ++s) {
      Track& track = (*tracks)[s];
      bilevel::Scenario* scenario = problem.AddScenario("track " + std::to_string(s));
      for (size_t i = 0; i < track.steps.size(); ++i) {
        odometry.AddResidualBlock(
            new bilevel::AutoDiffCostFunction<Step, 2, 2, 2>(new Step{track.steps[i]}),
            nullptr,
            {track.estimate[i].data(), track.estimate[i + 1].data()},
            scenario->lower());
      }
      for (size_t k = 0; k < track.fixes.size(); ++k) {
        double* position = track.estimate[k * kStepsAFix].data();
        const bool held_out = upper == Upper::kHeldOutFixes && track.IsHeldOut(k);
        ceres::CostFunction* cost = ErrorTo(track.fixes[k]);
        if (held_out) {
          scenario->upper()->AddResidualBlock(cost, Mean(count), position);
        } else {
          gps.AddResidualBlock(cost, nullptr, {position}, scenario->lower());
        }
      }
      if (upper != Upper::kTruth) continue;
      for (size_t i = 0; i < track.truth.size(); ++i) {
        scenario->upper()->AddResidualBlock(
            ErrorTo(track.truth[i]), Mean(count), track.estimate[i].data());
      }
    }
    if (upper != Upper::kLikelihood) return;
    bilevel::AddMarginalLikelihood(&problem, &error);
    for (size_t s = 0; s < tracks->size(); ++s) {
      const Track& track = (*tracks)[s];
      const int scenario = static_cast<int>(s) + 1;  // The first has no residuals.
      odometry.AddHalfLogDeterminant(
          static_cast<double>(track.steps.size()), &problem, bilevel::Level::kUpper, scenario);
      gps.AddHalfLogDeterminant(
          static_cast<double>(track.fixes.size()), &problem, bilevel::Level::kUpper, scenario);
    }
  }

  // chi2 at the estimate over its degrees of freedom: the variance that the sigmas lack.
  double Chi2() {
    double sum = 0.0, freedom = 0.0;
    for (int s = 1; s < problem.num_scenarios(); ++s) {  // The first has no residuals.
      double cost = 0.0;
      ceres::Problem* lower = problem.scenario(s)->lower();
      lower->Evaluate({}, &cost, nullptr, nullptr, nullptr);
      sum += 2.0 * cost;
      freedom += lower->NumResiduals() - 2.0 * (lower->NumParameterBlocks() - 2);
    }
    return sum / freedom;
  }

  bilevel::Problem problem;
  bilevel::ScalarNoise odometry, gps;
  std::string error;
};

bilevel::Solver::Options SolverOptions() {
  bilevel::Solver::Options options;
  options.lower_solver_options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.lower_solver_options.logging_type = ceres::SILENT;
  options.num_threads = FLAGS_num_threads;
  return options;
}

int Run() {
  std::vector<Track> train, test;
  const int size = FLAGS_quick ? 400 : 1200;
  for (unsigned s = 0; s < 10; ++s) {
    (s < 6 ? train : test).push_back(Simulate(size, 10 * FLAGS_seed + s + 1));
  }
  std::printf("%zu tracks to learn on and %zu to test, %d positions and %zu GPS fixes each.\n\n",
              train.size(),
              test.size(),
              size,
              train[0].fixes.size());
  double log_odometry, log_gps;
  const auto set = [&](double odometry, double gps) {
    log_odometry = std::log(odometry);
    log_gps = std::log(gps);
  };
  set(FLAGS_start_odometry, FLAGS_start_gps);
  Fusion with_truth(&train, Upper::kTruth, &log_odometry, &log_gps);
  Fusion without(&train, Upper::kHeldOutFixes, &log_odometry, &log_gps);
  Fusion by_likelihood(&train, Upper::kLikelihood, &log_odometry, &log_gps);
  Fusion testing(&test, Upper::kTruth, &log_odometry, &log_gps);
  examples::Phi train_phi(SolverOptions(), {&log_odometry, &log_gps}, {}, &with_truth.problem);
  examples::Phi test_phi(
      SolverOptions(),
      {&log_odometry, &log_gps},
      [&] { return Rms(Errors(test)); },
      &testing.problem);
  for (const std::string& error : {train_phi.error(), test_phi.error(), by_likelihood.error}) {
    if (error.empty()) continue;
    std::fprintf(stderr, "%s.\n", error.c_str());
    return 1;
  }

  examples::Table table({"",
                         "sigma of a step [m]",
                         "of a fix [m]",
                         "ratio",
                         "train [m]",
                         "test [m]",
                         "less by (95 %)",
                         "test, filter [m]"});
  examples::Json json;
  std::vector<double> by_hand;  // Errors of the test tracks with the first row's sigmas.
  bilevel::VerdictOptions options;
  options.num_errors_a_block = kBlock;
  bilevel::Verdict verdict, verdict_of_learned;  // Of the last row; of what the truth has taught.
  const auto add = [&](const std::string& name, double odometry, double gps) {
    const std::vector<double> x = {std::log(odometry), std::log(gps)};
    const double phi = train_phi(x), smoothed = test_phi(x);
    const std::vector<double> errors = Errors(test);
    if (by_hand.empty()) by_hand = errors;
    verdict = bilevel::JudgeLearned(options, by_hand, errors, nullptr);
    const double filtered = FilterRmsError(test, odometry, gps);
    table.Add({name,
               Format("%.4g", odometry),
               Format("%.4g", gps),
               Format("%.3g", gps / odometry),
               Format("%.4f", std::sqrt(2.0 * phi)),
               Format("%.4f", smoothed),
               errors == by_hand ? ""
                                 : Format("%.3f (%.3f to %.3f) %s",
                                          verdict.before - verdict.learned,
                                          -verdict.high,
                                          -verdict.low,
                                          examples::Word(verdict)),
               Format("%.4f", filtered)});
    std::string key = name;
    std::replace(key.begin(), key.end(), ' ', '_');
    json.Add(key,
             examples::Json()
                 .Add("odometry", odometry)
                 .Add("gps", gps)
                 .Add("phi", phi)
                 .Add("test", smoothed)
                 .Add("test_gain_low", -verdict.high)
                 .Add("test_gain_high", -verdict.low)
                 .Add("filter", filtered));
    return phi;
  };
  const double hand_phi = add("set by hand", FLAGS_start_odometry, FLAGS_start_gps);
  const double true_phi = add("true", kOdometry, kGps);

  // Searches over the ratio, sigma of a fix as set by hand.
  examples::Table costs({"", "lower solves", "factorisations", "seconds"});
  const auto add_cost =
      [&](const std::string& name, const bilevel::LowerSolverCounts& c, double seconds) {
        costs.Add({name,
                   std::to_string(c.cold_solves + c.warm_solves),
                   std::to_string(c.factorizations),
                   Format("%.2f", seconds)});
        std::string key = "cost of " + name;
        std::replace(key.begin(), key.end(), ' ', '_');
        json.Add(key,
                 examples::Json()
                     .Add("lower_solves", static_cast<double>(c.cold_solves + c.warm_solves))
                     .Add("factorizations", static_cast<double>(c.factorizations))
                     .Add("seconds", seconds));
      };
  examples::Series grid_curve{"grid", "points", {}, {}};
  const examples::Score of_ratio = [&](const std::vector<double>& log_step) {
    return train_phi({log_step[0], std::log(FLAGS_start_gps)});
  };
  double best_of_grid = 0.0;
  {
    const bilevel::LowerSolverCounts before = train_phi.counts();
    const double seconds = train_phi.seconds();
    std::vector<double> axis;
    for (int k = -4; k <= 4; ++k) {
      axis.push_back(std::log(FLAGS_start_odometry) + 0.5 * k * std::log(10.0));
    }
    const examples::SearchResult grid = examples::GridSearch(
        [&](const std::vector<double>& x) {
          const double phi = of_ratio(x);
          grid_curve.x.push_back(FLAGS_start_gps / std::exp(x[0]));
          grid_curve.y.push_back(std::sqrt(2.0 * phi));
          return phi;
        },
        {axis});
    add_cost("best of the grid", train_phi.counts() - before, train_phi.seconds() - seconds);
    best_of_grid = add("best of the grid", std::exp(grid.x[0]), FLAGS_start_gps);
  }
  {
    const bilevel::LowerSolverCounts before = train_phi.counts();
    const double seconds = train_phi.seconds();
    const examples::SearchResult simplex =
        examples::NelderMead(of_ratio, {std::log(FLAGS_start_odometry)}, std::log(3.0), 1e-6, 100);
    add_cost("Nelder-Mead", train_phi.counts() - before, train_phi.seconds() - seconds);
    add("Nelder-Mead", std::exp(simplex.x[0]), FLAGS_start_gps);
  }

  // Learned, with the truth and without; then the absolute level. And by the likelihood.
  bool ok = true;
  bilevel::Solver::Summary summaries[3];
  double learned_phi[3] = {}, learned[3][2] = {}, standard_errors[2] = {};
  std::string paste;
  Fusion* const fusions[] = {&with_truth, &without, &by_likelihood};
  const char* const names[] = {"learned", "learned without truth", "learned by likelihood"};
  for (int k = 0; k < 3; ++k) {
    Fusion& fusion = *fusions[k];
    const std::string name = names[k];
    set(FLAGS_start_odometry, FLAGS_start_gps);
    bilevel::Solver::Summary& summary = summaries[k];
    examples::Solve(SolverOptions(), &fusion.problem, &summary);
    std::printf("%s: %s\n", name.c_str(), summary.BriefReport().c_str());
    ok = ok && summary.IsSolutionUsable();
    add_cost(name, summary.lower_solver, summary.total_time_in_seconds);
    for (const std::string& flat : summary.flat_upper_directions) {
      std::printf("  Flat, and left alone: %s. Only the ratio moves the estimate.\n", flat.c_str());
    }
    if (k == 2) {
      bilevel::Uncertainty uncertainty;
      std::string message;
      if (!bilevel::ComputeUncertainty(SolverOptions(),
                                       bilevel::HessianKind::kExact,
                                       &fusion.problem,
                                       &uncertainty,
                                       &message)) {
        std::fprintf(stderr, "No standard errors: %s.\n", message.c_str());
        return 1;
      }
      uncertainty.GetStandardErrors(&log_odometry, &standard_errors[0]);
      uncertainty.GetStandardErrors(&log_gps, &standard_errors[1]);
      learned[k][0] = std::exp(log_odometry);
      learned[k][1] = std::exp(log_gps);
      std::printf("  Sigmas %.4g m and %.4g m, standard errors %.1f %% and %.1f %%.\n",
                  learned[k][0],
                  learned[k][1],
                  100.0 * standard_errors[0],
                  100.0 * standard_errors[1]);
      learned_phi[k] = add(name, learned[k][0], learned[k][1]);
      continue;
    }
    const double one = 1.0, minus = -1.0;
    double error = 0.0;
    if (summary.assessment.uncertainty.GetStandardError({{&log_gps, &one}, {&log_odometry, &minus}},
                                                        &error)) {
      std::printf("  Ratio %.3g, standard error %.0f %%.\n",
                  std::exp(log_gps - log_odometry),
                  100.0 * error);
      json.Add(k == 0 ? "ratio_error" : "ratio_error_without_truth", error);
    }
    const double factor = std::sqrt(fusion.Chi2());
    std::printf(
        "  chi2 / degrees of freedom %.4g: both sigmas times %.4g.\n", factor * factor, factor);
    learned[k][0] = factor * std::exp(log_odometry);
    learned[k][1] = factor * std::exp(log_gps);
    set(learned[k][0], learned[k][1]);
    if (k == 0)
      paste = fusion.odometry.Describe("odometry") + "\n" + fusion.gps.Describe("gps") + "\n";
    learned_phi[k] = add(name, learned[k][0], learned[k][1]);
    if (k == 0) verdict_of_learned = verdict;
  }
  examples::Print(verdict_of_learned);
  std::printf(
      "\nRoot mean square position error; less by: than set by hand, with a bootstrap "
      "interval over blocks of %d\npositions\n\n%s\nCost\n\n%s\n",
      kBlock,
      table.ToString().c_str(),
      costs.ToString().c_str());
  if (verdict_of_learned.kind == bilevel::Verdict::kUseLearned) {
    std::printf("To paste:\n\n%s", paste.c_str());
  }

  json.Add("flat_direction",
           summaries[0].flat_upper_directions.empty() ? "" : summaries[0].flat_upper_directions[0])
      .Add("flat_directions", static_cast<double>(summaries[0].flat_upper_directions.size()))
      .Add("standard_errors", std::vector<double>{standard_errors[0], standard_errors[1]})
      .Add("verdict", examples::ToJson(verdict_of_learned))
      .AddRaw("summary", summaries[0].Json());
  ok = examples::WriteFile(FLAGS_summary_json, json.ToString()) && ok;
  ok = examples::WriteFile(FLAGS_trace_csv, summaries[0].Csv()) && ok;
  if (!FLAGS_plot.empty()) {
    examples::Panel map{"The beginning of a test track", "x [m]", "y [m]"};
    map.equal_axes = true;
    constexpr size_t kShown = 100;  // Positions: of more the paths look all the same.
    const auto path = [](const char* name, const char* style, const std::vector<Point2>& points) {
      examples::Series series{name, style, {}, {}};
      const size_t shown = std::strcmp(style, "points") == 0 ? kShown / kStepsAFix : kShown;
      for (size_t i = 0; i < shown; ++i) {
        series.x.push_back(points[i][0]);
        series.y.push_back(points[i][1]);
      }
      return series;
    };
    map.series.push_back(path("GPS", "points", test[0].fixes));
    test_phi({std::log(FLAGS_start_odometry), std::log(FLAGS_start_gps)});
    map.series.push_back(path("set by hand", "lines", test[0].estimate));
    map.series.push_back(path("ground truth", "lines", test[0].truth));
    test_phi({std::log(learned[0][0]), std::log(learned[0][1])});
    map.series.push_back(path("learned", "lines", test[0].estimate));
    std::swap(map.series[1], map.series[3]);
    std::swap(map.series[1], map.series[2]);

    examples::Panel curve{
        "Training error against the ratio", "sigma of a fix / sigma of a step", "rms error [m]"};
    curve.log_x = true;
    examples::Series iterates{"iterations", "linespoints", {}, {}};
    for (const auto& it : summaries[0].iterations) {
      if (!it.step_is_successful) continue;
      iterates.x.push_back(std::exp(it.x[1] - it.x[0]));
      iterates.y.push_back(std::sqrt(2.0 * it.objective));
    }
    curve.series = {grid_curve, iterates};
    ok = examples::Plot(FLAGS_plot, "GPS and odometry", {map, curve}) && ok;
  }

  // The tracks' noise is known, so the outcome can be checked.
  const auto check = [&](bool good, const std::string& what) {
    if (!good) std::fprintf(stderr, "FAILURE: %s.\n", what.c_str());
    ok = ok && good;
  };
  for (int k = 0; k < 3; ++k) {
    check(summaries[k].flat_upper_directions.size() == (k < 2 ? 1 : 0),
          "the flat direction was not found, or seen where there is none");
  }
  for (int i = 0; i < 2; ++i) {
    check(std::abs(std::log(learned[2][i] / (i == 0 ? kOdometry : kGps))) <
              std::max(0.1, 3.0 * standard_errors[i]),
          "the likelihood's sigmas are not the true ones");
  }
  check(learned_phi[0] <= hand_phi && learned_phi[0] <= best_of_grid * (1.0 + 1e-6),
        "the learned ratio scores worse than a guess");
  check(learned_phi[0] <= 1.01 * true_phi, "the learned ratio scores worse than the true one");
  for (const auto& sigmas : learned) {
    check(std::abs(std::log(sigmas[0] / kOdometry)) < 0.3 &&
              std::abs(std::log(sigmas[1] / kGps)) < 0.1,
          "the learned sigmas are not the true ones");
  }
  return examples::ExitCode(ok, verdict_of_learned);
}

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags(
      "Learns the noise of odometry and GPS from tracks with ground truth, again from fixes held\n"
      "out, and by the likelihood of all measurements, for a smoother and a Kalman filter. The\n"
      "tracks are simulated.\n\n"
      "Usage: filter_fusion [flags]\n\n"
      "  filter_fusion --start_odometry=5 --start_gps=0.1 --plot=fusion.png",
      &argc,
      &argv);
  if (!(FLAGS_start_odometry > 0.0) || !(FLAGS_start_gps > 0.0) || FLAGS_num_threads < 1) {
    std::fprintf(stderr, "--start_odometry, --start_gps and --num_threads must be positive.\n");
    return 1;
  }
  return Run();
}
