// How y moves with x along a direction, where constraints are weakly active to one side of it.
#include <algorithm>
#include <string>
#include <vector>

#include "bilevel/lower_level/internal/constrained_lower_solver_scenario.h"

namespace bilevel {
namespace {

constexpr double kSameSlope = 1e-8;  // Of slopes, what is rounding.
constexpr int kMostPivots = 1000;

}  // namespace

bool ConstrainedLowerSolver::Tangent(const Vector& direction, Vector* motion) {
  motion->resize(program_->y.tangent_size());
  Matrix dy, dmu;
  return SolveSystems([&](PerScenario* part) {
    const Constraints* const c = constraints_[part->index].get();
    const bool is_moved = c && !c->weak.empty() ? MoveToOneSide(part, direction, &dy)
                                                : Move(part, direction, &dy, &dmu);
    if (!is_moved) return false;
    motion->segment(part->scenario->tangent_offset, dy.rows()) = dy;
    return true;
  });
}

// At a kink, dy of min 1/2 dy'W dy + dy'X'dx with B dy + B_x dx = 0 in the rows that are strictly
// active and <= 0 in those that are weakly so: as multipliers eta >= 0 and slopes s = B dy + B_x dx
// <= 0 of which one is zero, by Murty's rule (1974), which is finite where S is positive definite.
// The system has W_rho, in which a row of K that is released counts with rho: eta - rho s.
bool ConstrainedLowerSolver::MoveToOneSide(PerScenario* part, const Vector& dx, Matrix* dy) {
  Constraints* const c = constraints_[part->index].get();
  std::vector<int> all;
  for (const int i : c->active) {
    if (std::count(c->weak.begin(), c->weak.end(), i) == 0) all.push_back(i);
  }
  const size_t num_strict = all.size();
  all.insert(all.end(), c->weak.begin(), c->weak.end());
  const int q = static_cast<int>(all.size());
  Matrix columns(c->b_y.cols(), q), solution;
  Vector moves(q), rho = Vector::Zero(q);  // By x alone.
  for (int k = 0; k < q; ++k) {
    columns.col(k) = c->b_y.row(all[k]).transpose();
    moves[k] = c->b_x.row(all[k]).dot(dx);
    if (c->rows.mode[all[k]] == Constraints::Rows::kIn) rho[k] = c->rows.rho[all[k]];
  }
  if (!part->system.Solve(-(part->yx * dx), dy) || !part->system.Solve(columns, &solution)) {
    return false;
  }
  const Matrix s = columns.transpose() * solution;
  const Vector slopes = moves + columns.transpose() * *dy;  // Without multipliers.
  const Vector scale = s.diagonal().cwiseSqrt();
  const double tolerance = kSameSlope * slopes.cwiseQuotient(scale).lpNorm<Eigen::Infinity>();
  std::vector<char> is_held(q, 1);
  Vector eta(q), own(q);
  for (int iteration = 0; iteration < kMostPivots; ++iteration) {
    Matrix rows = s;
    Vector right = slopes;
    for (int k = 0; k < q; ++k) {
      if (is_held[k]) continue;
      rows.row(k) = Vector::Unit(q, k).transpose() - rho[k] * s.row(k);
      right[k] = -rho[k] * slopes[k];
    }
    eta = rows.partialPivLu().solve(right);
    own = slopes - s * eta;
    int last = q - 1;
    for (; last >= static_cast<int>(num_strict); --last) {
      if (is_held[last] ? eta[last] * scale[last] < -tolerance
                        : own[last] > tolerance * scale[last]) {
        break;
      }
    }
    if (last < static_cast<int>(num_strict)) {
      *dy -= solution * eta;
      return true;
    }
    is_held[last] = !is_held[last];
  }
  part->message = "which of the weakly active constraints (" + c->weakly_active +
                  ") y moves along was not found in " + std::to_string(kMostPivots) + " pivots";
  return false;
}

}  // namespace bilevel
