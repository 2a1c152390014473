// Which rows are active, how far y is from meeting the others, and which hold it only just.
#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/lower_level/internal/constrained_lower_solver_scenario.h"

namespace bilevel {
namespace {

// Of S_ii: what is left of a row beside those before it, where it depends on them.
constexpr double kDependent = 1e-13;
// A multiplier that a step of y by this share of its size would explain, as IsWeakMultiplier; the
// share of y that a constraint may be away; and of a row's derivative by x what is rounding.
constexpr double kWeak = 1e-6, kAway = 1e-9, kSameByX = 1e-8;
constexpr double kFarthestPull = 1e6;  // Of a multiplier, in y's own length.

}  // namespace

// Equalities first, then what is violated, by how far, then by the size of multipliers: those that
// come late are left out where they depend on the others.
void ConstrainedLowerSolver::Constraints::ChooseActive() {
  active.clear();
  for (int i = 0; i < num_rows(); ++i) {
    const bool is_in = !is_inequality(i) || mu[i] + rows.rho[i] * value[i] > 0.0;
    rows.mode[i] = is_in ? Rows::kIn : Rows::kOut;
    if (is_in) active.push_back(i);
    if (!is_in) mu[i] = 0.0;
    rows.shift[i] = mu[i] / rows.rho[i] - value[i];
  }
  const auto violation = [&](int i) { return IsMet(i, value[i]) ? 0.0 : value[i] * Root(i); };
  std::stable_sort(active.begin(), active.end(), [&](int i, int j) {
    if (is_inequality(i) != is_inequality(j)) return !is_inequality(i);
    if (!is_inequality(i)) return false;
    if (violation(i) != violation(j)) return violation(i) > violation(j);
    return mu[i] / Root(i) > mu[j] / Root(j);
  });
}

double ConstrainedLowerSolver::Constraints::Penalty() const {
  double sum = 0.0;
  for (int i = 0; i < num_rows(); ++i) {
    const double shifted = value[i] + rows.shift[i];
    if (rows.mode[i] == Rows::kIn) sum += 0.5 * rows.rho[i] * shifted * shifted;
  }
  return sum;
}

bool ConstrainedLowerSolver::Constraints::HasDiverged(const Vector& y) {
  MeasureY(y);
  const double length = std::sqrt(curvature.dot(size_of_y.cwiseAbs2()));
  for (int i = 0; i < num_rows(); ++i) {
    if (!(std::abs(mu[i]) <= kFarthestPull * length * Root(i))) return true;
  }
  return false;
}

bool ConstrainedLowerSolver::Constraints::IsActiveSetOfKkt() {
  for (int i = 0; i < num_rows(); ++i) {
    const bool is_in = !is_inequality(i) || mu[i] + rows.rho[i] * value[i] > 0.0;
    if (is_in != (rows.mode[i] == Rows::kIn)) return false;
    if (!is_in) mu[i] = 0.0;
    rows.shift[i] = mu[i] / rows.rho[i] - value[i];
  }
  return true;
}

bool ConstrainedLowerSolver::Constraints::TakeStep(Point* y) {
  if (!dy.allFinite() || !y->Move(dy.col(0))) return false;
  for (size_t k = 0; k < active.size(); ++k) mu[active[k]] += dmu(k, 0);
  return true;
}

// Cholesky's factor L of S = B W_rho^-1 B', row by row; dependent rows leave K.
void ConstrainedLowerSolver::Constraints::FactorizeSchur(const Matrix& s) {
  const int q = static_cast<int>(active.size());
  std::vector<int> kept;
  l.setZero(q, q);
  for (int k = 0; k < q; ++k) {
    const int r = static_cast<int>(kept.size());
    Vector row = s.row(k)(kept).transpose();
    l.topLeftCorner(r, r).triangularView<Eigen::Lower>().solveInPlace(row);
    const double pivot = s(k, k) - row.squaredNorm();
    if (!(pivot > kDependent * s(k, k))) continue;
    l.row(r).head(r) = row.transpose();
    l(r, r) = std::sqrt(pivot);
    kept.push_back(k);
  }
  const int rank = static_cast<int>(kept.size());
  l = l.topLeftCorner(rank, rank).eval();
  if (rank == q) return;
  std::vector<int> independent;
  independent.reserve(rank);
  for (const int k : kept) independent.push_back(active[k]);
  for (const int i : active) {
    if (std::count(independent.begin(), independent.end(), i) == 0) mu[i] = 0.0;
  }
  active = independent;
}

// Beside a coordinate's own size stands what has its units where that is about zero: how far it
// would have to go for all of g, or as far as y has been in the norm of g's curvature. It is 1 at
// most, since beside a stiff coordinate that is far for a soft one.
void ConstrainedLowerSolver::Constraints::MeasureY(const Vector& y) {
  double squared = 0.0;
  for (int j = 0; j < size_of_y.size(); ++j) {
    const int i = scenario.y.AmbientIndex(j);
    if (i >= 0) squared += curvature[j] * y[i] * y[i];
  }
  farthest = std::max(farthest, std::sqrt(squared));
  for (int j = 0; j < size_of_y.size(); ++j) {
    const int i = scenario.y.AmbientIndex(j);
    const double typical = farthest > 0.0 ? farthest / std::sqrt(curvature[j]) : 1.0;
    size_of_y[j] = i < 0 ? 1.0 : std::min(typical, 1.0) + std::abs(y[i]);
  }
}

double ConstrainedLowerSolver::Constraints::Distance(int i, double violation) const {
  if (violation == 0.0) return 0.0;
  double change = 0.0;  // Of the row, where every coordinate changes by its own size.
  for (RowSparseMatrix::InnerIterator it(b_y, i); it; ++it) {
    change += std::abs(it.value()) * size_of_y[it.col()];
  }
  return std::abs(violation) / change;
}

bool ConstrainedLowerSolver::Constraints::IsMet(int i, double violation) const {
  return !(violation > 0.0) || Distance(i, violation) <= kAway;
}

// Rows that are met with equality though they are out of K: some depend on those in it.
bool ConstrainedLowerSolver::FindDependent(PerScenario* part) {
  Constraints* const c = constraints_[part->index].get();
  std::vector<char> is_in(c->num_rows(), 0);
  for (const int i : c->active) is_in[i] = 1;
  c->MeasureY(part->y.value());
  c->touching.clear();
  c->dependent.clear();
  for (int i = 0; i < c->num_rows(); ++i) {
    if (!is_in[i] && c->Distance(i, c->value[i]) <= kAway) c->touching.push_back(i);
  }
  if (c->touching.empty()) return true;
  Matrix columns = Matrix::Zero(c->b_y.cols(), c->touching.size()), solution;
  for (size_t k = 0; k < c->touching.size(); ++k) {
    columns.col(k) = c->b_y.row(c->touching[k]).transpose();
  }
  if (!part->system.Solve(columns, &solution)) {
    part->message = part->system.message();
    return false;
  }
  Matrix of_active;
  c->Multiply(c->b_y, solution, &of_active);
  c->shares = of_active;
  c->SolveSchur(&c->shares);
  // What is left of a row beside the rows of K.
  const Matrix own = columns.transpose() * solution;
  const Matrix left = own - of_active.transpose() * c->shares;
  for (size_t k = 0; k < c->touching.size(); ++k) {
    if (left(k, k) <= kDependent * own(k, k)) c->dependent.push_back(static_cast<int>(k));
  }
  return true;
}

// Where y* or its derivative changes with the active set.
void ConstrainedLowerSolver::Constraints::FindWeaklyActive() {
  weakly_active.clear();
  weak.clear();
  const auto add = [this](int i) {
    weakly_active += (weakly_active.empty() ? "" : ", ") + scenario.row_names[i];
  };
  for (size_t k = 0; k < active.size(); ++k) {
    const int i = active[k];
    if (!is_inequality(i)) continue;
    // Without it the row would go that far: S_kk = s / (1 + rho s).
    const double s = l.row(k).squaredNorm();
    const double way = Distance(i, mu[i] * s / std::max(1.0 - rows.rho[i] * s, 1e-3));
    if (way > kWeak) continue;
    add(i);
    weak.push_back(i);
  }
  // A dependent row that moves as those of K do changes nothing.
  std::vector<char> is_redundant(touching.size(), 0);
  for (const int k : dependent) {
    Vector by_x = b_x.row(touching[k]).transpose();
    double size = by_x.norm();
    for (size_t r = 0; r < active.size(); ++r) {
      by_x -= shares(r, k) * b_x.row(active[r]).transpose();
      size += std::abs(shares(r, k)) * b_x.row(active[r]).norm();
    }
    is_redundant[k] = by_x.norm() <= kSameByX * size;
  }
  redundant.clear();
  for (size_t k = 0; k < touching.size(); ++k) {
    if (std::count(dependent.begin(), dependent.end(), static_cast<int>(k)) == 0) {
      weak.push_back(touching[k]);
    }
    if (is_redundant[k]) {
      redundant += (redundant.empty() ? "" : ", ") + scenario.row_names[touching[k]];
    } else {
      add(touching[k]);
    }
  }
}

}  // namespace bilevel
