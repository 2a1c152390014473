#include "bilevel/analysis/optimality.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/prepared_problem.h"
#include "bilevel/lower_level/optimistic_lower_solver.h"
#include "bilevel/methods/estimators/curvature.h"
#include "bilevel/methods/estimators/discontinuity.h"
#include "bilevel/methods/estimators/internal/active_bounds.h"
#include "bilevel/methods/estimators/internal/min_norm.h"
#include "bilevel/methods/zeroth_order/igfm.h"
#include "bilevel/oracle/hyper_objective.h"

namespace bilevel {
namespace {

// Opens the problem and hands what `body` returns, or throws, to the result.
template <typename Result, typename Body>
Result Analyse(
    Problem* problem, const Solver::Options& options, bool need_f, const char* what, Body body) {
  Result result;
  PreparedProblem::Needs needs;
  needs.compile.need_f = need_f;
  needs.compile.need_x = false;
  std::string error;
  const auto prepared = PreparedProblem::Create(options, needs, problem, &error);
  if (!prepared) {
    result.message = error;
    return result;
  }
  const std::string thrown = Thrown([&] { error = body(*prepared, &result); });
  if (!thrown.empty()) error = what + thrown;
  result.ok = error.empty();
  if (!result.ok) result.message = error;
  return result;
}

// Whether f has no choice left at (x, y).
bool IsStationary(Oracle& oracle, LowerSolver& lower, const Point& x, const Point& y) {
  Vector fy;
  oracle.f.Gradient(x, y, nullptr, &fy);
  return oracle.ok() && lower.Differentiate(x, y) && lower.IsDetermined(fy);
}

// y* as f likes it best. Empty, or why there is none.
std::string SolveOptimistically(const Solver::Options& options,
                                PreparedProblem& prepared,
                                const Point& x,
                                Point* y) {
  Oracle& oracle = prepared.oracle();
  if (options.lower_solver) return oracle.Solve(x, y) ? "" : oracle.message();
  const OptimisticLowerSolver::Options optimistic;
  std::string refusal = OptimisticLowerSolver::Check(prepared.program(), optimistic);
  if (refusal.empty()) {
    OptimisticLowerSolver solver(&prepared.program(), &prepared.lower(), optimistic);
    Point best = *y;
    if (solver.Solve(x, &best) && IsStationary(oracle, solver, x, best)) {
      *y = best;
      return "";
    }
    refusal = solver.message().empty() ? oracle.error() : solver.message();
    oracle.Clear();
  }
  if (!oracle.Solve(x, y)) return oracle.message();
  if (IsStationary(oracle, prepared.lower(), x, *y)) return "";
  if (!oracle.ok()) return oracle.error();
  return "f has a choice among the lower level's solutions that cannot be followed (" + refusal +
         "): phi(x) takes an Sgm in options.lower_solver";
}

double GeneralizedGradient(const Vector& gradient, double eta, const Point& y, Vector* difference) {
  Point moved = y;
  difference->resize(y.dim());
  if (!moved.Move(-eta * gradient) ||
      !y.space().Minus(moved.value().data(), y.value().data(), difference->data())) {
    return kNaN;
  }
  return difference->norm() / eta;
}

std::string Line(const char* what, double value) {
  char text[120];
  std::snprintf(text, sizeof(text), "%-32s %.6g\n", what, value);
  return text;
}

}  // namespace

LowerOptimality CheckLowerOptimality(Problem* problem, const Solver::Options& options) {
  const auto body = [&](PreparedProblem& prepared, LowerOptimality* result) -> std::string {
    const State at = prepared.Start();
    Oracle& oracle = prepared.oracle();
    Point best = at.y;
    if (std::string error = SolveOptimistically(options, prepared, at.x, &best); !error.empty()) {
      return error;
    }
    Vector gradient, difference;
    const double g = oracle.g.Gradient(at.x, at.y, nullptr, &gradient);
    result->objective = oracle.f.Value(at.x, best);
    result->lower_value = oracle.g.Value(at.x, best);
    result->zeta_f = std::abs(oracle.f.Value(at.x, at.y) - result->objective);
    // A reference that is itself inexact may have the larger g.
    result->zeta_g = std::max(0.0, g - result->lower_value);
    if (!oracle.ok()) return oracle.error();
    const double l = EstimateCurvature(oracle, Batch(), at.x, at.y, nullptr).largest;
    oracle.Clear();  // A g without second derivatives.
    const double eta = l > 0.0 && std::isfinite(l) ? 1.0 / l : 1.0;
    result->generalized_gradient = GeneralizedGradient(gradient, eta, at.y, &difference);
    result->message = "checked";
    return "";
  };
  return Analyse<LowerOptimality>(problem, options, true, "the check", body);
}

namespace {

// The least norm in the hull of hypergradients at x and around it.
std::string LeastCommonGradient(const GoldsteinOptions& options,
                                PreparedProblem& prepared,
                                const State& at,
                                GoldsteinStationarity* result) {
  Oracle& oracle = prepared.oracle();
  HyperObjective phi(&oracle, at.y);
  const int m = at.x.dim(), num = options.num_points > 0 ? options.num_points : 2 * m;
  Matrix columns(m, num + 1);
  Vector gradient, direction(m);
  double value;
  if (!phi.Evaluate(at.x, &value, &gradient)) return phi.message();
  phi.Accept();
  const double centre = value;
  double steepest = gradient.norm();
  Discontinuity rise;
  int count = 0;
  ClearHeld(at.x, gradient, &gradient);
  columns.col(count++) = gradient;
  for (int k = 0; k < num; ++k) {
    oracle.RandomDirection(k, &direction);
    Point x = at.x;
    // Uniform in the ball: radii are the m-th roots of a uniform distribution's quantiles.
    if (!x.Move(options.delta * std::pow((k + 1.0) / num, 1.0 / m) * direction)) continue;
    if (!phi.Evaluate(x, &value, &gradient)) {
      result->message = "some points have no phi: " + phi.message();
      continue;
    }
    rise.Add(at.x, centre, x, value, at.y);
    steepest = std::max(steepest, gradient.norm());
    ClearHeld(x, gradient, &gradient);
    columns.col(count++) = gradient;
  }
  result->num_points = count;
  result->epsilon = MinNormInHull(columns.leftCols(count)).norm();
  // Where phi is smooth enough it rises by no more than its gradients say.
  if (!rise.empty()) {
    if (const std::string jump = rise.FindJump(oracle); !jump.empty()) result->message = jump;
  }
  return "";
}

// By values of phi alone, as igfm does in the end.
std::string SmoothedGradient(const GoldsteinOptions& options,
                             PreparedProblem& prepared,
                             const State& at,
                             GoldsteinStationarity* result) {
  Igfm::Options igfm;
  igfm.delta = options.delta;
  result->num_points = igfm.num_stationarity_pairs =
      options.num_points > 0 ? options.num_points : 100;
  Igfm method(igfm);
  Assessment assessment;
  method.Finish(prepared.oracle(), at, &assessment);
  if (!std::isfinite(assessment.goldstein_norm)) {
    return "fewer than two pairs of points around x have a phi";
  }
  result->epsilon = assessment.goldstein_norm + assessment.goldstein_half_width;
  result->half_width = assessment.goldstein_half_width;
  for (const std::string& note : assessment.notes) result->message = note;
  return "";
}

}  // namespace

GoldsteinStationarity CheckGoldsteinStationarity(Problem* problem,
                                                 const GoldsteinOptions& options) {
  GoldsteinStationarity refused;
  refused.message = FirstNotPositive({{"delta", options.delta}});
  if (refused.message.empty() && (options.num_points < 0 || options.num_points == 1)) {
    refused.message = "num_points must be 0, or at least 2";
  }
  if (!refused.message.empty()) return refused;
  const auto body = [&](PreparedProblem& prepared, GoldsteinStationarity* result) -> std::string {
    result->message = "checked";
    State at = prepared.Start();
    if (at.x.dim() == 0) return "there is no x: no upper parameter block was declared";
    if (!prepared.oracle().Solve(at.x, &at.y)) return prepared.oracle().message();
    return prepared.lower().WhyNoDerivative().empty()
               ? LeastCommonGradient(options, prepared, at, result)
               : SmoothedGradient(options, prepared, at, result);
  };
  return Analyse<GoldsteinStationarity>(problem, options.solver, true, "the check", body);
}

namespace {

// A run of Polyak's steps and what was met on it.
struct PolyakRun {
  std::vector<Point> y;
  std::vector<Vector> gy;
  std::vector<double> gap;
  double last_step = 0.0;
  double doubt_of_gap = 0.0;

  // g* was that much lower: what does not stand clear of it says nothing.
  void Lower(double by) {
    if (!(by > 0.0)) return;
    for (double& above : gap) above += by;
    doubt_of_gap = by;
  }

  // Empty, or what failed.
  std::string Run(Oracle& oracle,
                  const Point& x,
                  double g_star,
                  int num_steps,
                  Point from,
                  LowerRegularity* result) {
    Vector gx, gy_now, gx_before, gy_before;
    result->smoothness = result->lipschitz_x = result->lipschitz_y = 0.0;
    const double rounding = RoundingOfValue(std::abs(g_star));
    for (int k = 0; k < num_steps; ++k) {
      const double above = oracle.g.Gradient(x, from, &gx, &gy_now) - g_star;
      if (!oracle.ok()) return oracle.error();
      result->lipschitz_x = std::max(result->lipschitz_x, gx.norm());
      result->lipschitz_y = std::max(result->lipschitz_y, gy_now.norm());
      if (!y.empty()) Compare(y.back(), from, gx - gx_before, gy_now - gy_before, result);
      if (!(above > rounding) || gy_now.squaredNorm() == 0.0) break;
      y.push_back(from);
      gy.push_back(gy_now);
      gap.push_back(above);
      gx_before = gx;
      gy_before = gy_now;
      if (!from.Move(-above / gy_now.squaredNorm() * gy_now)) return "y is no longer finite";
      last_step = above / gy_now.norm();
    }
    y.push_back(from);
    return "";
  }

  static void Compare(const Point& a,
                      const Point& b,
                      const Vector& by_x,
                      const Vector& by_y,
                      LowerRegularity* result) {
    Vector step(a.dim());
    if (!a.space().Minus(b.value().data(), a.value().data(), step.data())) return;
    const double length = step.norm();
    if (!(length > 0.0)) return;
    const double turn = std::sqrt(by_x.squaredNorm() + by_y.squaredNorm());
    result->smoothness = std::max(result->smoothness, turn / length);
  }
};

// The slope of log(gap) by log(distance) and the constants, from the points that are clear of
// rounding and of the doubt about the run's end.
std::string FitRegularity(const PolyakRun& run,
                          const Point& end,
                          double doubt,
                          LowerRegularity* result) {
  const double eta = result->smoothness > 0.0 ? 1.0 / result->smoothness : 1.0;
  std::vector<double> distances, gaps;
  Vector difference(end.dim());
  result->dominance = result->sharpness = result->growth = kInfinity;
  for (size_t k = 0; k < run.gap.size(); ++k) {
    const Vector& y = run.y[k].value();
    if (!end.space().Minus(y.data(), end.value().data(), difference.data())) continue;
    const double distance = difference.norm();
    if (!(distance > 100.0 * doubt) || !(distance > 1e-7 * (1.0 + end.value().norm()))) continue;
    if (!(run.gap[k] > 100.0 * run.doubt_of_gap)) continue;
    distances.push_back(distance);
    gaps.push_back(run.gap[k]);
    result->sharpness = std::min(result->sharpness, 0.5 * run.gap[k] / distance);
    const double gradient = GeneralizedGradient(run.gy[k], eta, run.y[k], &difference);
    result->dominance = std::min(result->dominance, gradient / distance);
  }
  const int n = result->num_points = static_cast<int>(distances.size());
  if (n < 3) {
    return "fewer than three points of the run are clear of its end: y is at a solution already, "
           "or far from one for that many steps";
  }
  double sx = 0.0, sy = 0.0, sxx = 0.0, sxy = 0.0;
  for (int k = 0; k < n; ++k) {
    const double x = std::log(distances[k]), y = std::log(gaps[k]);
    sx += x;
    sy += y;
    sxx += x * x;
    sxy += x * y;
  }
  result->exponent = (n * sxy - sx * sy) / (n * sxx - sx * sx);
  for (int k = 0; k < n; ++k) {
    result->growth = std::min(result->growth, gaps[k] / std::pow(distances[k], result->exponent));
  }
  return "";
}

}  // namespace

LowerRegularity EstimateLowerRegularity(Problem* problem,
                                        const Solver::Options& options,
                                        int num_steps) {
  LowerRegularity refused;
  if (num_steps < 3) {
    refused.message = "num_steps must be at least 3";
    return refused;
  }
  const auto body = [&](PreparedProblem& prepared, LowerRegularity* result) -> std::string {
    const State at = prepared.Start();
    Oracle& oracle = prepared.oracle();
    Point end = at.y;
    if (!oracle.Solve(at.x, &end)) return oracle.message();
    const double g_star = oracle.g.Value(at.x, end);
    PolyakRun run;
    std::string error = run.Run(oracle, at.x, g_star, num_steps, at.y, result);
    if (!error.empty()) return error;
    end = run.y.back();
    double doubt = run.last_step;  // Of steps that shrink evenly, about what is left of them.
    // On from there: the solution that the run goes to.
    if (Point solved = end; oracle.Solve(at.x, &solved)) {
      Vector rest(end.dim());
      if (end.space().Minus(solved.value().data(), end.value().data(), rest.data())) {
        doubt = std::max(doubt, rest.norm());
        end = solved;
        run.Lower(g_star - oracle.g.Value(at.x, end));
      }
    }
    result->message = "estimated";
    return FitRegularity(run, end, doubt, result);
  };
  return Analyse<LowerRegularity>(problem, options, false, "the estimate", body);
}

std::string LowerOptimality::Report() const {
  if (!ok) return "lower optimality not checked: " + message + "\n";
  return Line("|f(x, y) - phi(x)|", zeta_f) + Line("g(x, y) - g*(x)", zeta_g) +
         Line("generalised gradient", generalized_gradient);
}

std::string GoldsteinStationarity::Report() const {
  if (!ok) return "Goldstein stationarity not checked: " + message + "\n";
  std::string report = Line("Goldstein stationary up to", epsilon);
  if (half_width > 0.0) report += Line("of which by chance (95 %)", half_width);
  return message == "checked" ? report : report + message + "\n";
}

std::string LowerRegularity::Report() const {
  if (!ok) return "regularity of the lower level not estimated: " + message + "\n";
  return Line("exponent of the error bound", exponent) + Line("growth", growth) +
         Line("gradient dominance (alpha)", dominance) + Line("weak sharpness (alpha)", sharpness) +
         Line("smoothness (L)", smoothness) + Line("Lipschitz constant in x", lipschitz_x) +
         Line("Lipschitz constant in y", lipschitz_y);
}

}  // namespace bilevel
