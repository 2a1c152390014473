// The KKT system, the derivatives of y*(x) by it, and what is to be told of them.
#include <algorithm>
#include <cmath>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/memory.h"
#include "bilevel/lower_level/internal/constrained_lower_solver_scenario.h"

namespace bilevel {
namespace {

constexpr double kLongStep = 1e3;  // In tolerances: y was not solved.

}  // namespace

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
  scenario.constraints->LayOutRows(LevelFunction::Argument::kX, &b_x);  // Not evaluated yet.
  scenario.constraints->LayOutRows(LevelFunction::Argument::kY, &b_y);
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
