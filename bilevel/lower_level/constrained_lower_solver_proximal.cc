// The augmented Lagrangian where g has no minimum of its own, or hardly one, as linear programs.
#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/constrained_lower_solver_scenario.h"

namespace bilevel {
namespace {

constexpr int kMostSteps = 100, kMostHalvings = 30;
constexpr double kLastStep = 1e-8;  // Relative to the first.

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

}  // namespace bilevel
