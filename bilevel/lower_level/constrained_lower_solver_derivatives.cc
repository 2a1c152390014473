// The KKT system, the derivatives of y*(x) by it, and what is to be told of them.
#include <algorithm>
#include <cmath>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/memory.h"
#include "bilevel/lower_level/internal/constrained_lower_solver_scenario.h"

namespace bilevel {
namespace {

// Of S_ii: what is left of a row beside those before it, where it depends on them.
constexpr double kDependent = 1e-13;
// A multiplier that a step of y by this share of its size would explain, as IsWeakMultiplier; the
// share of y that a constraint may be away; and of a row's derivative by x what is rounding.
constexpr double kWeak = 1e-6, kAway = 1e-9, kSameByX = 1e-8;
constexpr double kFarthestPull = 1e6;  // Of a multiplier, in y's own length.
constexpr double kLongStep = 1e3;      // In tolerances: y was not solved.

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

// [z; eta] = K^-1 [a; b]; b = 0 where it is nullptr. False: the system's message says why.
bool ConstrainedLowerSolver::SolveKkt(
    PerScenario* part, const Matrix& a, const Matrix* b, Matrix* z, Matrix* eta) {
  Constraints* const c = constraints_[part->index].get();
  if (!part->system.Solve(a, z)) return false;
  if (!c) return true;
  c->Multiply(c->b_y, *z, eta);
  if (b) *eta -= *b;
  c->SolveSchur(eta);
  c->SubtractTransposed(a, *eta, &c->rhs);
  return part->system.Solve(c->rhs, z);
}

// How y and the multipliers move with x.
bool ConstrainedLowerSolver::Move(PerScenario* part, const Matrix& dx, Matrix* dy, Matrix* dmu) {
  const Constraints* const c = constraints_[part->index].get();
  Matrix b;
  if (c) {
    c->Multiply(c->b_x, dx, &b);
    b = -b;
  }
  return SolveKkt(part, -(part->yx * dx), c ? &b : nullptr, dy, dmu);
}

bool ConstrainedLowerSolver::DifferentiatePart(PerScenario* part, const Point& x, const Point& y) {
  Constraints* const c = constraints_[part->index].get();
  if (!c) return NewtonLowerSolver::DifferentiatePart(part, x, y);
  const auto own = y.value().segment(part->scenario->offset, part->scenario->y.size());
  const bool here =
      c->is_solved && part->evaluated && part->x == x.value() && part->y.value() == own;
  if (!here) {
    part->start.value() = part->y.value() = own;
    if (!Follow(part, x.value().data(), false)) return false;
    part->step.setZero();
    part->scenario->y.Minus(part->y.value().data(), part->start.value().data(), part->step.data());
    const double moved = part->RelativeStep();
    if (!(moved <= kLongStep * tolerance_)) {
      part->message = "y is not solved: within its constraints it is a relative " +
                      Scientific(moved) + " away from stationary";
      return false;
    }
  }
  if (!FindDependent(part)) return false;
  c->FindWeaklyActive();
  c->anchor_x = x.value();
  c->anchor_y = part->y.value();
  c->anchor_mu = c->mu;
  c->may_ask_tangent = true;
  return true;
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

bool ConstrainedLowerSolver::ComputeColumns(int first, int count) {
  Stopwatch watch(&counts_.seconds_in_linear_algebra);
  dy_dx_.resize(program_->y.tangent_size(), program_->x.tangent_size());
  Matrix dx = Matrix::Zero(program_->x.tangent_size(), count), dy, dmu;
  dx.middleRows(first, count).setIdentity();
  return SolveSystems([&](PerScenario* part) {
    if (!Move(part, dx, &dy, &dmu)) return false;
    dy_dx_.block(part->scenario->tangent_offset, first, dy.rows(), count) = dy;
    return true;
  });
}

bool ConstrainedLowerSolver::SolveHessian(int scenario, const Matrix& b, Matrix* x) {
  Matrix eta;
  PerScenario* const part = parts_[scenario].get();
  if (SolveKkt(part, b, nullptr, x, &eta)) return true;
  message_ = WhyUnsolved(*part);
  return false;
}

bool ConstrainedLowerSolver::Adjoint(const Vector& fy, Vector* product) {
  *product = Vector::Zero(program_->x.tangent_size());
  Matrix z, eta, shares(product->size(), parts_.size());
  const bool are_solved = SolveSystems([&](PerScenario* part) {
    const Matrix own = fy.segment(part->scenario->tangent_offset, part->scenario->y.tangent_size());
    if (!SolveKkt(part, own, nullptr, &z, &eta)) return false;
    auto share = shares.col(part->index);
    share = part->yx.transpose() * z.col(0);
    const Constraints* const c = constraints_[part->index].get();
    for (size_t k = 0; c && k < c->active.size(); ++k) {
      share += eta(k, 0) * c->b_x.row(c->active[k]).transpose();
    }
    return true;
  });
  if (!are_solved) return false;
  const Matrix all = program_->exchange.Columns("pulling back to x", nullptr, shares);
  for (const auto& share : all.colwise()) *product -= share;
  return true;
}

std::string ConstrainedLowerSolver::WhyNoSecondDerivative() const {
  return "the second derivative of phi knows no constraints of the lower level, as is " +
         original_->FirstConstraint();
}

bool ConstrainedLowerSolver::AdjointVector(const Vector& /*fy*/, Vector* /*z*/) {
  message_ = WhyNoSecondDerivative();
  return false;
}

const Vector& ConstrainedLowerSolver::multipliers(int scenario) const {
  static const Vector none;
  return constraints_[scenario] ? constraints_[scenario]->mu : none;
}

long ConstrainedLowerSolver::num_kkt_systems() const {
  long sum = 0;
  for (const auto& c : constraints_) sum += c ? c->num_systems : 0;
  return sum;
}

long ConstrainedLowerSolver::num_fallbacks() const {
  long sum = 0;
  for (const auto& c : constraints_) sum += c ? c->num_fallbacks : 0;
  return sum;
}

std::string ConstrainedLowerSolver::WeaklyActive(const PerScenario& part) const {
  std::string names = NewtonLowerSolver::WeaklyActive(part);
  const Constraints* const c = constraints_[part.index].get();
  if (!c || c->weakly_active.empty()) return names;
  return names + (names.empty() ? "" : ", ") + c->weakly_active;
}

LowerSolverReport ConstrainedLowerSolver::Report() const {
  LowerSolverReport report = NewtonLowerSolver::Report();
  Matrix counts = Matrix::Zero(3, constraints_.size());
  std::vector<std::string> names(constraints_.size());
  for (size_t i = 0; i < constraints_.size(); ++i) {
    if (!constraints_[i]) continue;
    const Constraints& c = *constraints_[i];
    const LevelFunction& all = *c.scenario.constraints;
    counts.col(i) << static_cast<double>(c.active.size()), static_cast<double>(c.mu.size()),
        all.num_residual_blocks() - all.num_exact_blocks();
    names[i] = c.redundant;
  }
  const Vector sums = program_->exchange.Columns("reporting", nullptr, counts).rowwise().sum();
  std::string redundant;
  for (const std::string& own : program_->exchange.Texts("reporting", names)) {
    if (!own.empty()) redundant += (redundant.empty() ? "" : ", ") + own;
  }
  report.remark += "; " + Number(sums[0]) + " of " + Number(sums[1]) + " constraints are active";
  if (sums[2] > 0.0) {
    report.remark +=
        ", second derivatives of " + Number(sums[2]) + " of their cost functions being differenced";
  }
  if (!redundant.empty()) report.remark += ", and met with them, redundant: " + redundant;
  return report;
}

bool ConstrainedLowerSolver::Remember(Memory* memory) {
  if (!NewtonLowerSolver::Remember(memory)) return false;
  for (size_t i = 0; i < constraints_.size(); ++i) {
    if (!constraints_[i]) continue;
    const Memory::Group group(memory, "constraints_" + std::to_string(i));
    constraints_[i]->Remember(memory);
  }
  return true;
}

void ConstrainedLowerSolver::Constraints::Remember(Memory* memory) {
  memory->Keep("rho", &rows.rho);
  memory->Keep("shift", &rows.shift);
  memory->Keep("mode", &rows.mode);
  memory->Keep("mu", &mu);
  memory->Keep("value", &value);
  if (b_y.nonZeros() != scenario.constraints->rows_y().nonZeros()) {  // Not evaluated yet.
    b_x = scenario.constraints->rows_x();
    b_y = scenario.constraints->rows_y();
  }
  memory->KeepRange("b_x", b_x.valuePtr(), b_x.nonZeros());
  memory->KeepRange("b_y", b_y.valuePtr(), b_y.nonZeros());
  memory->Keep("unit_rho", &unit_rho);
  memory->Keep("curvature", &curvature);
  memory->Keep("farthest", &farthest);
  memory->Keep("rho_of_kkt", &rho_of_kkt);
  memory->Keep("rho_at_solution", &rho_at_solution);
  memory->Keep("active", &active);
  memory->Keep("l", &l);
  memory->Keep("has_kkt", &has_kkt);
  memory->Keep("is_solved", &is_solved);
  memory->Keep("has_solution", &has_solution);
  memory->Keep("may_ask_tangent", &may_ask_tangent);
  memory->Keep("anchor_x", &anchor_x);
  memory->Keep("anchor_y", &anchor_y);
  memory->Keep("anchor_mu", &anchor_mu);
  memory->Keep("line", &line);
  memory->Keep("y_motion", &y_motion);
  memory->Keep("mu_motion", &mu_motion);
  memory->Keep("weakly_active", &weakly_active);
  memory->Keep("weak", &weak);
  memory->Keep("redundant", &redundant);
}

}  // namespace bilevel
