// Where implicit differentiation does not reach: small problems whose lower level has many
// solutions, none that is smooth, or one that jumps, the methods made for them, and those that the
// papers compare them with: a table of all, and the figures of the papers for the methods they
// show.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <memory>
#include <sstream>
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
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/toy_problems.h"

DEFINE_string(
    problems,
    "coreset,min_max,degenerate,non_unique,sine,sines,sum,discontinuous,non_smooth,corner,"
    "regularised,chain,sharp_chain,printed_kink,least_squares_game",
    "which of them");
DEFINE_string(methods,
              "bome,bome_T,igfm,igfm_sgm,optimistic,gradient_descent,aid_cg,itd,itd_momentum,"
              "truncated_itd,bgs,bda,ia_gm,iaptt_gm,bvfsm,bvfsm_detached,penalty,bsg1,"
              "optimistic_gd",
              "bome (y_hat solved), bome_T (y_hat by 10 gradient steps), igfm, igfm_sgm (with the "
              "switching gradient method below), or any name of ListMethods()");
DEFINE_int32(iterations, 2000, "of each method; igfm_sgm makes a tenth");
DEFINE_bool(timing, false, "also measure IGFM's iterations on 50 coordinates against lower solves");

namespace {

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> names;
  std::istringstream in(list);
  for (std::string name; std::getline(in, name, ',');) {
    if (!name.empty()) names.push_back(name);
  }
  return names;
}

std::vector<examples::Toy> Problems() {
  using namespace examples;
  return {Coreset(0, 3),
          MinMax(),
          Degenerate(),
          NonUnique(),
          Sine(),
          Sines(),
          Sum(),
          Discontinuous(),
          NonSmooth(),
          Corner(),
          Regularised(),
          Chain(),
          SharpChain(),
          PrintedKink(),
          LeastSquaresGame()};
}

// Settings of the papers' toy problems; coreset with Adam, since plain steps take 1e5 iterations.
bilevel::Bome::Options BomeOptions(const std::string& problem) {
  bilevel::Bome::Options bome;
  if (problem == "degenerate") bome.x.step = bome.y.step = bome.lower_step = 0.5;
  if (problem == "coreset") {
    bome.x.kind = bilevel::StepRule::kAdam;
    bome.x.step = 0.1;
  }
  return bome;
}

bilevel::Igfm::Options IgfmOptions() {
  bilevel::Igfm::Options igfm;
  igfm.num_directions = 2;
  igfm.x.step = 0.1;
  igfm.x.decay_exponent = 0.7;
  igfm.x.decay_time = 50.0;
  igfm.num_stationarity_pairs = 50;
  return igfm;
}

// The steps of x and y, those of BOME's authors for the first three problems, and for T = 10 steps
// below (BDA's and IA-GM's too): what the lower level's curvature, up to 2, allows.
struct Steps {
  bilevel::StepRule x;
  double lower = 0.3;
  explicit Steps(const std::string& problem) {
    x.step = 0.1;
    if (problem == "coreset" || problem == "min_max") x.step = lower = 0.05;
    if (problem == "degenerate") x.step = lower = 0.5;
    if (problem == "sine") x.step = lower = 5e-3;
    if (problem == "sines") x.step = 0.02;
  }
};

template <typename Estimator>
std::shared_ptr<bilevel::Method> Descent(const std::string& name,
                                         const typename Estimator::Options& options,
                                         const Steps& steps) {
  return std::make_shared<bilevel::GradientMethod>(
      name, std::make_unique<Estimator>(options), steps.x);
}

std::shared_ptr<bilevel::Method> MakeMethod(const std::string& method, const std::string& problem) {
  const Steps steps(problem);
  if (method == "bome" || method == "bome_T") {
    bilevel::Bome::Options bome = BomeOptions(problem);
    if (method == "bome_T") bome.lower_level = bilevel::Bome::kGradientSteps;
    return std::make_shared<bilevel::Bome>(bome);
  }
  if (method == "igfm" || method == "igfm_sgm") {
    return std::make_shared<bilevel::Igfm>(IgfmOptions());
  }
  if (method == "gradient_descent") {
    return std::make_shared<bilevel::GradientMethod>(
        method, std::make_unique<bilevel::ExactHypergradient>(), steps.x);
  }
  if (method == "aid_cg" || method == "aid_fp") {
    bilevel::AidHypergradient::Options aid;
    if (method == "aid_fp") aid.kind = bilevel::AdjointSteps::kFixedPoint;
    aid.lower_step = aid.linear_step = steps.lower;
    return Descent<bilevel::AidHypergradient>(method, aid, steps);
  }
  if (method.find("itd") != std::string::npos) {
    bilevel::UnrolledHypergradient::Options itd;
    itd.lower_step = steps.lower;
    if (method.find("momentum") != std::string::npos) itd.momentum = 0.5;
    if (method.find("truncated") != std::string::npos) itd.num_reverse_steps = 5;
    return Descent<bilevel::UnrolledHypergradient>(method, itd, steps);
  }
  if (method == "bgs") {
    bilevel::BgsHypergradient::Options bgs;
    bgs.num_lower_steps = 10;
    bgs.lower_step = steps.lower;
    return Descent<bilevel::BgsHypergradient>(method, bgs, steps);
  }
  if (method == "bda") {
    bilevel::BdaHypergradient::Options bda;
    bda.lower_step = bda.upper_step = steps.lower;
    return Descent<bilevel::BdaHypergradient>(method, bda, steps);
  }
  if (method == "bsg1") {
    bilevel::Bsg1Hypergradient::Options bsg;
    bsg.lower_step = steps.lower;
    bsg.epsilon = 1e-50;
    return Descent<bilevel::Bsg1Hypergradient>(method, bsg, steps);
  }
  if (method == "ia_gm" || method == "iaptt_gm") {
    bilevel::IaGm::Options ia;
    ia.truncate_pessimistically = method == "iaptt_gm";
    ia.x = ia.w = steps.x;
    ia.lower_step = steps.lower;
    if (problem == "sine") {  // The authors', with steps of x that shrink: its minimum is a kink.
      ia.num_lower_steps = 40;
      ia.lower_step = 5e-4;
      ia.x.step = ia.w.step = 0.1;
      ia.x.decay_exponent = 0.6;
      ia.x.decay_time = 100.0;
    }
    return std::make_shared<bilevel::IaGm>(ia);
  }
  if (method == "bvfsm" || method == "bvfsm_detached") {
    bilevel::BvfsmHypergradient::Options bvfsm;
    if (method == "bvfsm_detached") bvfsm.barrier = bilevel::BvfsmHypergradient::kDetached;
    bvfsm.num_w_steps = bvfsm.num_y_steps = 10;
    bvfsm.w.step = bvfsm.y.step = steps.lower;
    // BOME's authors' for the first three problems.
    bvfsm.mu = bvfsm.theta = bvfsm.sigma = 0.1;
    if (problem == "min_max") bvfsm.sigma = 1.0;
    if (problem == "degenerate") bvfsm.sigma = 1e-3;
    if (problem == "sines") bvfsm.mu = bvfsm.theta = bvfsm.sigma = 1e-2;
    // More than -min g, and not so little that the weight sigma / offset is too long a step's.
    bvfsm.offset = problem == "coreset" ? 1e-4 : problem == "min_max" ? 100.0 : 3.0;
    if (method == "bvfsm") bvfsm.offset = 1e-4;
    return Descent<bilevel::BvfsmHypergradient>(method, bvfsm, steps);
  }
  if (method == "penalty") {
    bilevel::Penalty::Options penalty;
    penalty.x = steps.x;
    penalty.y.kind = bilevel::StepRule::kGradient;
    penalty.y.step = 0.1 * steps.lower;
    if (problem == "coreset") {
      penalty.lambda = 0.1;
      penalty.epsilon = penalty.rho = 0.01;
      penalty.y.step = steps.lower;
    }
    return std::make_shared<bilevel::Penalty>(penalty);
  }
  if (method == "optimistic_gd") {
    bilevel::OptimisticGd::Options ogd;
    ogd.x.step = ogd.y.step = steps.x.step;
    return std::make_shared<bilevel::OptimisticGd>(ogd);
  }
  return bilevel::CreateMethod(method);
}

// What the picture shows of a problem: paths, or the distance to the solution over the iterations,
// of the methods that are compared on it in the papers.
struct Drawing {
  const char* problem;
  const char* methods;
  bool distances;
};
constexpr Drawing kDrawings[] = {
    {"coreset", "bome,bsg1,bvfsm_detached,penalty", false},
    {"min_max", "bome_T,optimistic_gd,bsg1,bvfsm_detached,penalty", false},
    {"degenerate", "bome,bda,ia_gm,penalty,itd,bgs", true},
    {"non_unique", "bome,igfm,bda,ia_gm,itd,bgs", true},
    {"sine", "bome,iaptt_gm,itd,bda", false},
    {"sines", "bome,bvfsm,bvfsm_detached,itd", true},
    {"sum", "bome,penalty,bvfsm_detached,bsg1,gradient_descent", true},
    {"discontinuous", "bome,gradient_descent", false},
    {"non_smooth", "igfm,igfm_sgm,bome,gradient_descent", false},
    {"corner", "igfm,igfm_sgm,bome,gradient_descent", false},
    {"regularised", "bome,igfm,bda,ia_gm,optimistic", false},
    {"chain", "bome,bome_T,gradient_descent,itd", true},
    {"sharp_chain", "bome,bome_T,igfm_sgm", true},
    {"printed_kink", "igfm,igfm_sgm,bome,gradient_descent", false},
    {"least_squares_game", "bome,igfm,bda,ia_gm,optimistic", true},
};

// The path of x and of the method's own y.
class Path : public bilevel::IterationCallback {
 public:
  explicit Path(const examples::Toy* toy) : toy_(toy) {}
  ceres::CallbackReturnType operator()(const bilevel::IterationSummary&) override {
    x.push_back(toy_->x);
    y.push_back(toy_->y);
    return ceres::SOLVER_CONTINUE;
  }
  std::vector<std::vector<double>> x, y;

 private:
  const examples::Toy* toy_;
};

struct Outcome {
  bilevel::Solver::Summary summary;
  Path path;
};

// As the papers draw them: x against y where both are numbers, else the plane of x or of y.
examples::Series DrawPath(const std::string& method, const Path& path) {
  examples::Series series{method, "lines", {}, {}};
  for (size_t k = 0; k < path.x.size(); ++k) {
    const auto &x = path.x[k], &y = path.y[k];
    series.x.push_back(x.size() <= 2 ? x[0] : y[0]);
    series.y.push_back(x.size() == 1 ? y[0] : x.size() == 2 ? x[1] : y[1]);
  }
  return series;
}

examples::Series DrawDistance(const std::string& method,
                              const Path& path,
                              const std::vector<double>& best) {
  examples::Series series{method, "lines", {}, {}};
  for (size_t k = 1; k < path.x.size(); ++k) {
    double square = 0.0;
    for (size_t i = 0; i < best.size(); ++i) {
      const size_t n = path.x[k].size();
      square += std::pow((i < n ? path.x[k][i] : path.y[k][i - n]) - best[i], 2);
    }
    series.x.push_back(static_cast<double>(k));
    series.y.push_back(std::max(1e-9, std::sqrt(square)));  // What is to be seen.
  }
  return series;
}

// Leaves x and y of the toy at the answer.
Outcome Solve(examples::Toy* toy, const std::string& method) {
  const auto problem = toy->Build();
  Outcome outcome{{}, Path(toy)};
  bilevel::Solver::Options options;
  options.method = MakeMethod(method, toy->name);
  options.max_num_iterations = std::max(1, FLAGS_quick ? FLAGS_iterations / 10 : FLAGS_iterations);
  options.num_threads = FLAGS_num_threads;
  options.update_state_every_iteration = true;
  options.callbacks = {&outcome.path};
  if (method == "igfm_sgm") {
    options.max_num_iterations = std::max(1, options.max_num_iterations / 10);
    options.lower_solver = [](bilevel::Program* program) {
      bilevel::Sgm::Options sgm;
      sgm.theta = 1e-3;
      sgm.step = 0.01;
      sgm.lower_step = 0.2;
      sgm.num_lower_steps = 200;
      sgm.num_steps = 1000;
      sgm.output = bilevel::Sgm::kLastFeasible;
      return std::make_unique<bilevel::Sgm>(program, sgm);
    };
  }
  examples::Solve(options, problem.get(), &outcome.summary);
  return outcome;
}

std::string Numbers(const std::vector<double>& values) {
  std::string text;
  for (const double v : values) {
    const char* const format = std::abs(v) < 1e6 ? "%.4f" : "%.3g";
    text += (text.empty() ? "" : " ") + examples::Format(format, std::abs(v) < 5e-5 ? 0.0 : v);
  }
  return text;
}

// A lower level that costs something: 40 coefficients of 100 residuals, two to each of x's 50.
struct Bump {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    T sum(0.0);
    for (int k = 0; k < 40; ++k) {
      const double d = t - k / 39.0;
      sum += y[k] * std::exp(-800.0 * d * d);
    }
    r[0] =
        exp(x[row % 50]) * (sum + 0.1 * sin(sum) - std::sin(9.0 * t) - 0.3 * std::sin(71.0 * row));
    return true;
  }
  double t;
  int row;
};
struct Ridge {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    for (int k = 0; k < 40; ++k) r[k] = 0.1 * y[k];
    return true;
  }
};
struct CleanBump {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    T sum(0.0);
    for (int k = 0; k < 40; ++k) {
      const double d = t - k / 39.0;
      sum += y[k] * std::exp(-800.0 * d * d);
    }
    r[0] = sum + 0.1 * sin(sum) - std::sin(9.0 * t);
    return true;
  }
  double t;
};

struct Clock {  // Wall and processor time, all threads'; the latter does not see other programs.
  double wall =
      std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  double processor = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
};

class Clocks : public bilevel::IterationCallback {
 public:
  ceres::CallbackReturnType operator()(const bilevel::IterationSummary& it) override {
    (it.iteration == 0 ? first : last) = Clock();
    return ceres::SOLVER_CONTINUE;
  }
  Clock first, last;
};

// An iteration's time over that of its 2 * directions lower solves.
void MeasureTime() {
  constexpr int kDirections = 16, kIterations = 8, kSolves = 100;
  double x[50] = {}, y[40] = {};
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(x, 50);
  for (int i = 0; i < 100; ++i) {
    problem.lower()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<Bump, 1, 50, 40>(new Bump{i / 100.0, i}), nullptr, x, y);
  }
  problem.lower()->AddResidualBlock(
      new bilevel::AutoDiffCostFunction<Ridge, 40, 40>(new Ridge), nullptr, y);
  for (int i = 0; i < 50; ++i) {
    problem.upper()->AddResidualBlock(
        new bilevel::AutoDiffCostFunction<CleanBump, 1, 40>(new CleanBump{i / 50.0}), nullptr, y);
  }
  bilevel::Igfm::Options igfm;
  igfm.num_directions = kDirections;
  igfm.x.step = 1e-3;

  // Lower solves as the probes make them, one after the other, on one thread.
  std::string error;
  const auto program = problem.Compile({}, &error);
  bilevel::NewtonLowerSolver::Options newton;
  newton.use_ceres = false;
  bilevel::NewtonLowerSolver lower(program.get(), newton);
  bilevel::Oracle oracle(program.get(), &lower, 1);
  bilevel::Point at(&program->x), from(&program->y);
  program->x.ReadUser(at.value().data());
  program->y.ReadUser(from.value().data());
  if (!oracle.Solve(at, &from)) std::printf("%s\n", oracle.message().c_str());
  bilevel::Point probe = at, solution = from;
  bilevel::Vector direction(50);
  const Clock start;
  for (int i = 0; i < kSolves; ++i) {
    oracle.RandomDirection(i, &direction);
    probe = at;
    solution = from;
    probe.Move(igfm.delta * direction);
    oracle.Solve(probe, &solution);
    oracle.f.Value(probe, solution);
  }
  const Clock end;
  const double solve = (end.wall - start.wall) / kSolves;
  const double processor = (end.processor - start.processor) / kSolves;

  for (const int num_threads : {1, 2}) {
    Clocks clocks;
    bilevel::Solver::Options options;
    options.method = std::make_shared<bilevel::Igfm>(igfm);
    options.max_num_iterations = kIterations;
    options.num_threads = num_threads;
    options.callbacks = {&clocks};
    std::fill_n(x, 50, 0.0);
    bilevel::Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
    const double wall = (clocks.last.wall - clocks.first.wall) / kIterations;
    const double used = (clocks.last.processor - clocks.first.processor) / kIterations;
    std::printf(
        "IGFM, 50 coordinates, %d directions, %d threads: %.0f ms an iteration, %.1f ms a lower "
        "solve; over 2 * directions * solve / threads: %.2f in wall time, %.2f in processor time "
        "(all threads')\n",
        kDirections,
        num_threads,
        1e3 * wall,
        1e3 * solve,
        wall / (2.0 * kDirections * solve / num_threads),
        used / (2.0 * kDirections * processor));
  }
}

}  // namespace

int main(int argc, char** argv) {
  examples::ParseFlags("Toy problems beyond implicit differentiation.", &argc, &argv);
  std::vector<examples::Panel> panels;
  examples::Json json;
  std::string csv;
  bool ok = true;
  const std::vector<std::string> wanted = Split(FLAGS_problems), methods = Split(FLAGS_methods);
  for (const examples::Toy& toy : Problems()) {
    if (std::find(wanted.begin(), wanted.end(), toy.name) == wanted.end()) continue;
    std::printf(
        "\n%s: %s\n  answer: %s\n", toy.name.c_str(), toy.formulas.c_str(), toy.answer.c_str());
    examples::Table table({"method", "phi - least", "x", "y", "gap closed", "iterations", "ms"});
    const Drawing* drawing = nullptr;
    for (const Drawing& one : kDrawings) {
      if (one.problem == toy.name) drawing = &one;
    }
    const std::vector<std::string> drawn = Split(drawing->methods);
    examples::Panel panel{toy.name, "x_1", "x_2"};
    panel.key_outside = true;
    if (toy.x.size() > 2) {
      panel.x_label = "y_1";
      panel.y_label = "y_2";
    } else if (toy.x.size() == 1) {
      panel.x_label = "x";
      panel.y_label = "y";
    }
    if (drawing->distances) {
      panel.x_label = "iteration";
      panel.y_label = "|(x, y) - solution|";
      panel.log_x = panel.log_y = true;
    }
    examples::Json results;
    if (toy.name == "coreset") {
      panel.series.push_back({"hull", "lines", {1, 3, -3, -2, 1}, {3, 1, -2, 2, 3}});
    }
    std::vector<std::string> notes;
    for (const std::string& method : methods) {
      examples::Toy own = toy;
      const Outcome outcome = Solve(&own, method);
      const bilevel::Solver::Summary& summary = outcome.summary;
      const bool usable = summary.IsSolutionUsable();
      table.Add(
          {method,
           usable ? examples::Format("%.1e", summary.final_objective - toy.phi) : "failed",
           Numbers(own.x),
           Numbers(own.y),
           summary.final_lower_gap >= 0.0 ? examples::Format("%.0e", summary.final_lower_gap) : "-",
           std::to_string(std::max<size_t>(summary.iterations.size(), 1) - 1),
           summary.iterations.empty()
               ? "-"
               : examples::Format("%.0f", 1e3 * summary.total_time_in_seconds)});
      if (!usable) notes.push_back(method + ": " + summary.message);
      for (const std::string& note : summary.assessment.notes)
        notes.push_back(method + ": " + note);
      if (std::isfinite(summary.assessment.x_bias)) {
        notes.push_back(examples::Format(
            "%s: x is biased by about %.2g", method.c_str(), summary.assessment.x_bias));
      }
      if (std::isfinite(summary.assessment.goldstein_norm)) {
        notes.push_back(examples::Format("%s: Goldstein stationarity %.2g +- %.2g",
                                         method.c_str(),
                                         summary.assessment.goldstein_norm,
                                         summary.assessment.goldstein_half_width));
      }
      results.AddRaw(method, summary.Json());
      csv += "# " + toy.name + ", " + method + "\n" + summary.Csv();
      if (std::find(drawn.begin(), drawn.end(), method) != drawn.end() &&
          outcome.path.x.size() > 1) {
        panel.series.push_back(drawing->distances ? DrawDistance(method, outcome.path, toy.best)
                                                  : DrawPath(method, outcome.path));
      }
      if (!summary.lower_level_remark.empty()) {
        notes.push_back(method + ": " + summary.lower_level_remark);
      }
      // What is made for a problem must solve it; sharp_chain is there since nothing is.
      const bool coarse = FLAGS_quick || FLAGS_iterations < 2000;
      if (toy.name != "sharp_chain" && method == (toy.name == "sine" ? "iaptt_gm" : "bome") &&
          (!usable || (!coarse && summary.final_objective > toy.phi + 0.05))) {
        ok = false;
      }
    }
    std::printf("%s", table.ToString().c_str());
    for (const std::string& note : notes) std::printf("  %s\n", note.c_str());
    if (toy.name == "coreset") panel.series.push_back({"solution", "points", {1.8}, {0.4}});
    if (toy.name == "min_max") panel.series.push_back({"solution", "points", {0.0}, {0.0}});
    if (toy.name == "sine") panel.series.push_back({"solution", "points", {toy.best[0]}, {-2.0}});
    panels.push_back(panel);
    json.Add(toy.name, results);
  }
  if (FLAGS_timing) MeasureTime();
  ok = examples::WriteFile(FLAGS_summary_json, json.ToString()) && ok;
  ok = examples::WriteFile(FLAGS_trace_csv, csv) && ok;
  if (!panels.empty()) {
    ok = examples::Plot(
             FLAGS_plot,
             "Paths of the iterates with the methods' own y, or the distance to the solution",
             panels) &&
         ok;
  }
  return ok ? 0 : 1;
}
