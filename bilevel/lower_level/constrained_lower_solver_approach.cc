// The way to a KKT point by the augmented Lagrangian; for Newton's steps on K, which end it.
#include <algorithm>
#include <cmath>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/constrained_lower_solver_scenario.h"

namespace bilevel {
namespace {

// rho grows by so much where a violation has not fallen to kShare, up to kMostRho times the first.
constexpr double kGrowth = 10.0, kShare = 0.25, kMostRho = 1e9;
constexpr int kMostRounds = 60, kMostFailures = 4;
// The augmented Lagrangian stops at a violation, relative to y, below this; and where the active
// set is not found from there, below that.
constexpr double kMet = 1e-6, kMetAtBest = 1e-10;
// Violations that penalties of ten times the weight leave at this share will not be met.
constexpr double kUnmoved = 0.8;
// Of steps with y held near where it is; the last is relative to the first.
constexpr int kMostSteps = 100, kMostHalvings = 30;
constexpr double kLastStep = 1e-8;

}  // namespace

// argmin L_rho + 1/2 |y - y0|^2 in the norm of `curvature`, y0 being where y is: a step of the
// proximal method of multipliers (Rockafellar, Math. Oper. Res. 1, 1976). Of a convex problem the
// sum is strictly convex, and Newton's steps with Armijo's rule end at its minimum.
bool ConstrainedLowerSolver::MinimizeNear(PerScenario* part, const double* x) {
  const Constraints* const c = constraints_[part->index].get();
  const Space& space = part->scenario->y;
  const Vector anchor = part->y.value();
  Vector away = Vector::Zero(space.tangent_size());
  double first = -1.0;
  for (int k = 0; k < kMostSteps && !program_->IsLate(); ++k) {
    if (!Evaluate(part, x)) return false;
    part->gradient += c->curvature.cwiseProduct(away);
    part->yy.diagonal() += c->curvature;
    const double here = part->value + 0.5 * c->curvature.dot(away.cwiseAbs2());
    FindActive(part);
    Factorization& factorization = part->system.factorization();
    if (factorization.Factorize(part->yy, 0.0, part->Fixed()) !=
        Factorization::Status::kPositiveDefinite) {
      return false;
    }
    factorization.Solve(part->gradient, &part->step);
    const double squared = part->gradient.dot(part->step);
    if (first < 0.0) first = squared;
    if (!(squared > kLastStep * kLastStep * first)) return true;
    double share = 1.0, value = 0.0;
    for (int halvings = 0;; ++halvings, share *= 0.5) {
      if (halvings == kMostHalvings) return squared <= kLastStep * first;
      part->trial.value() = part->y.value();
      if (!part->trial.Move(-share * part->step)) continue;
      if (!part->g.Value(x, part->trial.value().data(), Batch::All(), &value)) continue;
      if (!space.Minus(part->trial.value().data(), anchor.data(), away.data())) continue;
      value += 0.5 * c->curvature.dot(away.cwiseAbs2());
      if (value <= here - kSufficientDecrease * share * squared) break;
    }
    std::swap(part->y, part->trial);
  }
  return false;
}

// mu <- mu + rho h, max(0, mu + rho c). Returns how far y and mu are from being a solution's,
// relative to y's size; *worst is the row that y meets least, and *violated_by by what.
double ConstrainedLowerSolver::Constraints::UpdateMultipliers(int* worst, double* violated_by) {
  double violation = 0.0, largest = -1.0;
  for (int i = 0; i < num_rows(); ++i) {
    const double unmet = is_inequality(i) ? std::max(0.0, value[i]) : value[i];
    const double off = is_inequality(i) ? std::max(value[i], -mu[i] / rows.rho[i]) : unmet;
    mu[i] += rows.rho[i] * off;
    violation = std::max(violation, Distance(i, off));
    if (Distance(i, unmet) <= largest) continue;
    largest = Distance(i, unmet);
    *worst = i;
    *violated_by = std::abs(unmet);
  }
  return violation;
}

// Of the row that is met least, `fall` being what the last penalties have left of its violation.
std::string ConstrainedLowerSolver::WhyUnmet(
    PerScenario* part, const double* x, int worst, double violated_by, double fall) {
  Constraints* const c = constraints_[part->index].get();
  const std::string& name = c->scenario.row_names[worst];
  std::string why =
      !(fall <= kUnmoved)
          ? "its constraints cannot all be met: " + name + " is violated by " +
                Number(violated_by) + " where the violations are least nearby"
          : "the multiplier of " + name + " grows without bound, to " + Scientific(c->mu[worst]) +
                ": where it is met its derivative vanishes, or opposes those of others";
  if (!PrepareKkt(part, x)) return why;
  for (int i = 0; i < c->num_rows(); ++i) {
    if (c->is_inequality(i) || std::count(c->active.begin(), c->active.end(), i) > 0) continue;
    return why + "; the derivative of " + c->scenario.row_names[i] +
           " by y is made up of those of others, to 6 digits: they contradict each other, or are "
           "too nearly dependent to be told apart";
  }
  return why;
}

// The method of multipliers; Newton's steps on K end it.
bool ConstrainedLowerSolver::Approach(PerScenario* part, const double* x, bool cold) {
  Constraints* const c = constraints_[part->index].get();
  if (!c->Evaluate(x, part->y.value().data())) {
    part->message = c->evaluator.error();
    return false;
  }
  if (c->unit_rho.size() == 0 && !FindScales(part, x)) return false;
  c->has_kkt = false;
  double growth = 1.0, previous = kInfinity, fall = 0.0, violated_by = 0.0;
  int num_failures = 0, worst = 0;
  bool is_near = false;
  std::string why_near;
  Point best = part->y;
  for (int round = 0; round < kMostRounds && growth <= kMostRho; ++round) {
    c->SetRho(growth);
    c->rows.shift = c->mu.cwiseQuotient(c->rows.rho);
    c->rows.mode.assign(c->num_rows(), Constraints::Rows::kOpen);
    part->kept = false;
    part->start = part->y = best;
    if (!is_near && !NewtonLowerSolver::SolvePart(part, x, cold)) {
      is_near = true;
      why_near = part->message;
      part->y = best;
    }
    if (is_near && !MinimizeNear(part, x)) {
      // Without enough of a penalty there may be no minimum.
      if (++num_failures == kMostFailures || program_->IsLate()) return false;
      growth *= kGrowth;
      continue;
    }
    cold = false;
    best = part->y;
    if (!c->Evaluate(x, part->y.value().data())) {
      part->message = c->evaluator.error();
      return false;
    }
    c->MeasureY(part->y.value());
    c->ScaleRows();
    const double violation = c->UpdateMultipliers(&worst, &violated_by);
    if (violation <= kMet) {
      const Vector mu = c->mu;
      if (Follow(part, x, true)) return true;
      if (violation <= kMetAtBest && !is_near) return false;  // There y may still be on its way.
      c->mu = mu;
    }
    fall = violation / previous;
    if (!(fall <= kShare)) growth *= kGrowth;  // Of a row that has become flat it is no number.
    previous = violation;
  }
  if (is_near && previous <= kMet) {
    part->message = why_near;
    return false;
  }
  part->message = WhyUnmet(part, x, worst, violated_by, fall);
  return false;
}

}  // namespace bilevel
