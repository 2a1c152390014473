#include "bilevel/analysis/hypergradient_checker.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>
#include <random>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/check_against_ceres.h"
#include "bilevel/internal/prepared_problem.h"
#include "bilevel/lower_level/internal/find_wrong_row.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/program/space.h"

namespace bilevel {
namespace {

// Least-squares slope of log(remainder) against log(step).
double Slope(const std::vector<double>& steps, const std::vector<double>& remainders) {
  const int n = static_cast<int>(steps.size());
  if (n < 3) return std::nan("");
  double sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (int i = 0; i < n; ++i) {
    const double x = std::log(steps[i]), y = std::log(remainders[i]);
    sx += x;
    sy += y;
    sxx += x * x;
    sxy += x * y;
  }
  return (n * sxy - sx * sy) / (n * sxx - sx * sx);
}

// The limit of central differences at steps halved again and again: two levels of Richardson; of
// all steps, the one where neighbours agree best.
double Extrapolate(const std::vector<double>& central) {
  double best = central[0], agreement = std::numeric_limits<double>::infinity(), last = best;
  for (size_t i = 2; i < central.size(); ++i) {
    const double once_before = (4.0 * central[i - 1] - central[i - 2]) / 3.0;
    const double once = (4.0 * central[i] - central[i - 1]) / 3.0;
    const double twice = (16.0 * once - once_before) / 15.0;
    const double change = std::abs(twice - (i == 2 ? once : last));
    last = twice;
    if (change < agreement) {
      agreement = change;
      best = twice;
    }
  }
  return best;
}

std::string Complaint(const HypergradientChecker::Options& options) {
  if (options.num_steps < 3) return "num_steps must be at least 3";
  if (options.num_directions < 1) return "num_directions must be positive";
  if (!(options.largest_step > 0.0)) return "largest_step must be positive";
  return "";
}

// Names a block of x that the check would push through a bound.
std::string FindBoundNearby(const Point& x, double largest_step) {
  const Space& space = x.space();
  for (int j = 0; j < space.tangent_size(); ++j) {
    const int i = space.AmbientIndex(j);
    if (i < 0) continue;
    const double value = x.value()[i];
    if (value - space.LowerBound(j) < largest_step || space.UpperBound(j) - value < largest_step) {
      return space.BlockOf(j).name +
             " is closer than largest_step to a bound, beyond which phi cannot be evaluated";
    }
  }
  return "";
}

// Holds the gradient at x against values of phi along one direction. Returns what went wrong.
std::string CheckDirection(const HypergradientChecker::Options& options,
                           const Point& x,
                           const Vector& gradient,
                           const Vector& direction,
                           HyperObjective* phi,
                           HypergradientChecker::Result* result) {
  const double expected = gradient.dot(direction);
  std::vector<double> steps, remainders, central;
  double h = options.largest_step;
  for (int i = 0; i < options.num_steps; ++i, h *= 0.5) {
    double value[2];
    for (int side = 0; side < 2; ++side) {
      Point moved = x;
      moved.Move((side ? -h : h) * direction);
      if (!phi->Evaluate(moved, &value[side], nullptr)) {
        return "at a step of " + Number(h) + ": " + phi->message();
      }
    }
    central.push_back((value[0] - value[1]) / (2.0 * h));
    const double remainder = std::abs(value[0] - result->objective - h * expected);
    if (remainder > 1e3 * 2.2e-16 * std::abs(result->objective)) {
      steps.push_back(h);
      remainders.push_back(remainder);
    }
  }
  result->slopes.push_back(Slope(steps, remainders));
  const double differenced = Extrapolate(central);
  const double size = std::max({std::abs(expected),
                                std::abs(differenced),
                                gradient.norm() / std::sqrt(static_cast<double>(x.dim()))});
  const double relative = size > 0.0 ? std::abs(expected - differenced) / size : 0.0;
  if (!std::isfinite(relative)) return "phi or its gradient is not finite";
  result->relative_errors.push_back(relative);
  result->max_relative_error = std::max(result->max_relative_error, relative);
  return "";
}

// All of them. Returns what went wrong. weak: bounds and constraints that are only weakly active.
std::string CheckDirections(const HypergradientChecker::Options& options,
                            const Point& x,
                            const LowerSolver& lower,
                            HyperObjective* phi,
                            std::string* weak,
                            HypergradientChecker::Result* result) {
  Vector gradient;
  if (!phi->Evaluate(x, &result->objective, &gradient)) return phi->message();
  phi->Accept();
  *weak = lower.Report().weakly_active;
  result->gradient.assign(gradient.data(), gradient.data() + gradient.size());
  std::mt19937_64 generator(options.seed);
  std::normal_distribution<double> normal;
  result->max_relative_error = 0.0;
  std::string error;
  for (int k = 0; k < options.num_directions && error.empty(); ++k) {
    Vector direction(x.dim());
    for (double& entry : direction) entry = normal(generator);
    direction.normalize();
    error = CheckDirection(options, x, gradient, direction, phi, result);
  }
  return error;
}

// A constraint of the lower level whose derivatives are wrong; nothing, if none is.
std::string FindWrongRow(const Program& program, const Point& x, const Point& y) {
  for (const auto& scenario : program.scenarios) {
    if (!scenario->constraints) continue;
    const double* const own = y.value().data() + scenario->offset;
    std::string wrong = FindWrongRow(program.x, *scenario, x.value().data(), own);
    if (!wrong.empty()) return wrong;
  }
  return "";
}

}  // namespace

HypergradientChecker::Result HypergradientChecker::Check(Problem* problem, const Options& options) {
  Result result;
  const auto fail = [&](const std::string& what) {
    result.message = what;
    return result;
  };
  if (!problem) return fail("the problem is null");
  if (const std::string what = Complaint(options); !what.empty()) return fail(what);
  std::string error;
  Solver::Options solver = options.solver;
  solver.lower_tolerance = std::min(solver.lower_tolerance, 1e-12);
  PreparedProblem::Needs needs;
  needs.derivative = true;
  needs.ranks = true;
  const auto prepared = PreparedProblem::Create(solver, needs, problem, &error);
  if (!prepared) return fail(error);
  const Program& program = prepared->program();
  error = program.exchange.Complaint("checking the problem", CheckRecordings(program, true));
  if (!error.empty()) return fail(error);
  const State start = prepared->Start();
  const Point& x = start.x;
  error = FindBoundNearby(x, options.largest_step);
  if (!error.empty()) return fail(error);
  HyperObjective phi(&prepared->oracle(), start.y);
  std::string weak;
  const std::string thrown =
      Thrown([&] { error = CheckDirections(options, x, prepared->lower(), &phi, &weak, &result); });
  if (!thrown.empty()) error = "the check" + thrown;
  if (!error.empty()) return fail(error);
  const std::string wrong = FindWrongRow(prepared->program(), x, phi.y());
  result.ok = true;
  result.message = !wrong.empty() ? wrong
                   : weak.empty()
                       ? "checked"
                       : "checked at a kink, of which the gradient sees one side: " + weak +
                             " is only weakly active";
  return result;
}

std::string HypergradientChecker::Result::Report() const {
  if (!ok) return "hypergradient not checked: " + message;
  std::string report;
  char line[160];
  for (size_t i = 0; i < slopes.size(); ++i) {
    std::snprintf(line,
                  sizeof(line),
                  "direction %d: Taylor remainder slope %.3f (2 is right), relative error %.2e\n",
                  static_cast<int>(i),
                  slopes[i],
                  relative_errors[i]);
    report += line;
  }
  return message == "checked" ? report : report + message + "\n";
}

}  // namespace bilevel
