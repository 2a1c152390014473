// Bounds on y that hold it, or do not: along the set Y*(x) neither may change.
#include <algorithm>

#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/optimistic_lower_solver_scenario.h"

namespace bilevel {

// Coordinates at a bound that the gradient pushes out of are no longer variables.
void OptimisticLowerSolver::PerScenario::FindHeld() {
  std::fill(held.begin(), held.end(), char(0));
  for (int j = 0; space.has_bounds() && j < space.tangent_size(); ++j) {
    held[j] = space.IsHeld(y.value().data(), j, gradient[j]) &&
              !IsWeakMultiplier(gradient[j], h.coeff(j, j), y.value()[space.AmbientIndex(j)]);
  }
}

// Held coordinates' equations become those of zero, as large as the others.
void OptimisticLowerSolver::PerScenario::Hold(SparseMatrix* yy, SparseMatrix* yx) const {
  if (!space.has_bounds()) return;
  const Vector diagonal = yy->diagonal().cwiseAbs();
  const double largest = diagonal.maxCoeff();
  for (int j = 0; j < yy->cols(); ++j) {
    for (SparseMatrix::InnerIterator it(*yy, j); it; ++it) {
      if (!held[it.row()] && !held[j]) continue;
      it.valueRef() = it.row() == j ? (largest > 0.0 ? largest : 1.0) : 0.0;
    }
  }
  for (int k = 0; k < yx->cols(); ++k) {
    for (SparseMatrix::InnerIterator it(*yx, k); it; ++it) {
      if (held[it.row()]) it.valueRef() = 0.0;
    }
  }
}

void OptimisticLowerSolver::PerScenario::Hold(Vector* v) const {
  for (int j = 0; space.has_bounds() && j < v->size(); ++j) {
    if (held[j]) (*v)[j] = 0.0;
  }
}

// y moves, unless a bound is in the way: f's minimum on the set may then be at that bound, where
// it is not smooth.
bool OptimisticLowerSolver::PerScenario::Move(const Vector& direction, Point* point) {
  for (int j = 0; space.has_bounds() && j < direction.size(); ++j) {
    const int i = space.AmbientIndex(j);
    if (i < 0 || held[j]) continue;
    const double to = point->value()[i] + direction[j];
    if (to >= space.LowerBound(j) && to <= space.UpperBound(j)) continue;
    message = "a bound of " + space.BlockOf(j).name + " is in the way";
    return false;
  }
  return point->Move(direction);
}

// Whether what is held is so still, and strongly.
bool OptimisticLowerSolver::PerScenario::CheckHeld() {
  for (int j = 0; space.has_bounds() && j < space.tangent_size(); ++j) {
    if (!held[j]) continue;
    if (!space.IsHeld(y.value().data(), j, multipliers[j])) {
      return Fail("a bound of " + space.BlockOf(j).name +
                  " no longer holds it along its solutions, which have a kink there");
    }
  }
  return true;
}

void OptimisticLowerSolver::PerScenario::NameBounds(LowerSolverReport* report) const {
  for (int j = 0; space.has_bounds() && j < space.tangent_size(); ++j) {
    const int i = space.AmbientIndex(j);
    if (i < 0) continue;
    const double at = y.value()[i];
    if (at > space.LowerBound(j) && at < space.UpperBound(j)) continue;
    ++report->num_active_bounds;
    if (held[j]) continue;
    std::string& names = report->weakly_active;
    const Space::Block& block = space.BlockOf(j);
    names +=
        (names.empty() ? "" : ", ") + block.name + "[" + std::to_string(i - block.offset) + "]";
  }
}

}  // namespace bilevel
