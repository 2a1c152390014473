// From a start to y*(x) with its multipliers, scenario by scenario.
#include "bilevel/lower_level/constrained_lower_solver.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/constrained_lower_solver_scenario.h"
#include "bilevel/lower_level/internal/find_wrong_row.h"
#include "bilevel/lower_level/internal/schur_of_rows.h"

namespace bilevel {
namespace {

// rho begins at so many times what gives a row the curvature that g has along it.
constexpr double kFirstRho = 10.0;
constexpr int kMostKktSteps = 10;
// Steps by an older K go on while they shrink by this, to this share of the tolerance.
constexpr double kMostOfChord = 0.1, kChordTolerance = 1e-2;
constexpr double kGrowthOfKkt = 10.0, kMostRhoOfKkt = 1e8;
constexpr double kFarthest = 1e3;  // In distances to constraints; see LeastCurvature.
// The last step is to be at most so many tolerances long, relative to y.
constexpr double kStepTolerances = 100.0, kStalledTolerances = 1e3;

}  // namespace

AugmentedProgram::AugmentedProgram(Program* program)
    : augmented(*program, 0, program->num_scenarios()) {
  for (auto& scenario : augmented.scenarios) {
    lagrangians.push_back(nullptr);
    if (!scenario->constraints) continue;
    lagrangians.back() = std::make_unique<AugmentedLagrangian>(*scenario, &augmented.x);
    scenario = lagrangians.back()->scenario();
  }
}

ConstrainedLowerSolver::ConstrainedLowerSolver(Program* program, const Options& options)
    : AugmentedProgram(program), NewtonLowerSolver(&augmented, options), original_(program) {
  for (size_t i = 0; i < lagrangians.size(); ++i) {
    const Program::Scenario& scenario = *program->scenarios[i];
    constraints_.push_back(
        lagrangians[i] ? std::make_unique<Constraints>(*program, scenario, lagrangians[i]->rows())
                       : nullptr);
  }
}

ConstrainedLowerSolver::~ConstrainedLowerSolver() = default;

std::string ConstrainedLowerSolver::CheckOptions() const {
  if (options_.hessian == HessianKind::kExact) return "";
  return "a Gauss-Newton Hessian leaves out what the multipliers make of the curvature of "
         "constraints, as is " +
         original_->FirstConstraint() + ": HessianKind::kExact is wanted";
}

std::unique_ptr<LowerSolver> ConstrainedLowerSolver::Fork() const {
  Options options = options_;
  options.use_ceres = false;
  return std::make_unique<ConstrainedLowerSolver>(original_, options);
}

std::unique_ptr<NewtonLowerSolver> MakeNewtonLowerSolver(
    Program* program, const NewtonLowerSolver::Options& options) {
  if (program->FirstConstraint().empty()) {
    return std::make_unique<NewtonLowerSolver>(program, options);
  }
  return std::make_unique<ConstrainedLowerSolver>(program, options);
}

bool ConstrainedLowerSolver::SolvePart(PerScenario* part, const double* x, bool cold) {
  Constraints* const c = constraints_[part->index].get();
  if (!c) return NewtonLowerSolver::SolvePart(part, x, cold);
  part->kept = c->is_solved = false;
  const Point start = part->start;
  const Vector last_mu = c->mu;
  if (!cold && (c->has_solution || options_.first_is_warm)) {
    Predict(part, x);
    if (Follow(part, x, true)) return true;
    ++c->num_fallbacks;
    part->y = start;
    c->mu = last_mu;
  }
  c->may_ask_tangent = false;
  bool is_solved = Approach(part, x, options_.use_ceres);
  if (!is_solved && !last_mu.isZero(0.0)) {
    part->y = start;
    c->mu.setZero();
    is_solved = Approach(part, x, options_.use_ceres);
  }
  if (is_solved) return true;
  c->mu = last_mu;
  if (program_->IsLate()) return false;
  const std::string wrong = FindWrongRow(program_->x, c->scenario, x, start.value().data());
  if (!wrong.empty()) part->message = wrong;
  return false;
}

// The multipliers, moved along d mu/dx from where it was known last. And y, where the start is
// still there. Trials of one line search share one solve.
void ConstrainedLowerSolver::Predict(PerScenario* part, const double* x) {
  Constraints* const c = constraints_[part->index].get();
  const bool may_ask_tangent = std::exchange(c->may_ask_tangent, false);  // K is to change.
  if (c->anchor_x.size() == 0) return;
  Vector dx(program_->x.tangent_size());
  if (!program_->x.Minus(x, c->anchor_x.data(), dx.data())) return;
  const double length = dx.norm();
  if (!(length > 0.0)) return;
  if (may_ask_tangent) {
    Matrix dy, dmu;
    c->line.resize(0);
    if (Move(part, dx, &dy, &dmu)) {
      c->line = dx;
      c->y_motion = dy;
      c->mu_motion = Vector::Zero(c->num_rows());
      for (size_t k = 0; k < c->active.size(); ++k) c->mu_motion[c->active[k]] = dmu(k, 0);
    }
  }
  if (c->line.size() == 0) return;
  const double share = dx.dot(c->line) / c->line.squaredNorm();
  if ((dx - share * c->line).norm() > 1e-6 * length) return;  // Another line.
  c->mu = c->anchor_mu + share * c->mu_motion;
  if (part->y.value() == c->anchor_y) part->y.Move(share * c->y_motion);
}

// Steps on the KKT system of the active set, until it is solved.
bool ConstrainedLowerSolver::Follow(PerScenario* part, const double* x, bool may_keep_kkt) {
  Constraints* const c = constraints_[part->index].get();
  c->is_solved = false;
  c->previous = kInfinity;
  c->rho_of_kkt = c->rho_at_solution;
  for (int k = 0;; ++k) {
    if (program_->IsLate()) {
      part->message = Program::kTimeIsOver;
      return false;
    }
    if (may_keep_kkt && FollowByChords(part, x)) return true;
    if (!PrepareKkt(part, x)) return false;
    Step(part);
    const bool is_solved = IsSolved(part, 1.0);
    if (!is_solved && k == kMostKktSteps) break;
    if (is_solved) {  // But for the multipliers, whose step is as small.
      for (size_t i = 0; i < c->active.size(); ++i) c->mu[c->active[i]] += c->dmu(i, 0);
      c->is_solved = c->has_solution = true;
      c->rho_at_solution = c->rho_of_kkt;
      return true;
    }
    if (!c->TakeStep(&part->y) || c->HasDiverged(part->y.value())) break;
  }
  part->message = "the active set of its constraints, and with it y, was not found in " +
                  std::to_string(kMostKktSteps) + " steps";
  return false;
}

// Steps with a K factorised earlier: a gradient and a back-substitution each. False: they have
// become too slow, or cannot be taken. What has seen them shrink may be believed until it is
// differentiated.
bool ConstrainedLowerSolver::FollowByChords(PerScenario* part, const double* x) {
  Constraints* const c = constraints_[part->index].get();
  if (!c->has_kkt || part->scenario->y.has_bounds()) return false;
  part->evaluated = false;
  for (double previous = kInfinity;; previous = part->decrement) {
    if (!c->Evaluate(x, part->y.value().data()) || !c->IsActiveSetOfKkt()) return false;
    {
      Stopwatch watch(&part->counts.seconds_in_evaluation);
      if (!part->g.Gradient(x,
                            part->y.value().data(),
                            Batch::All(),
                            &part->value,
                            nullptr,
                            part->gradient.data())) {
        return false;
      }
      part->value -= c->Penalty();
    }
    Stopwatch watch(&part->counts.seconds_in_linear_algebra);
    Step(part);
    const bool is_solved = IsSolved(part, kChordTolerance);
    if (!(part->decrement < kMostOfChord * previous)) return false;
    if (!c->TakeStep(&part->y)) return false;
    ++part->counts.chord_steps;
    if (is_solved && std::isfinite(previous)) return c->has_solution = true;
  }
}

// K at y, with the rows that mu and the violations choose.
bool ConstrainedLowerSolver::PrepareKkt(PerScenario* part, const double* x) {
  Constraints* const c = constraints_[part->index].get();
  c->has_kkt = false;
  if (!c->Evaluate(x, part->y.value().data())) {
    part->message = c->evaluator.error();
    return false;
  }
  if (c->unit_rho.size() == 0 && !FindScales(part, x)) return false;
  for (;; c->rho_of_kkt *= kGrowthOfKkt) {
    c->SetRho(c->rho_of_kkt);
    c->ChooseActive();
    if (!Evaluate(part, x)) return false;
    part->value -= c->Penalty();
    FindActive(part);
    Stopwatch watch(&part->counts.seconds_in_linear_algebra);
    ++c->num_systems;
    if (part->PrepareSystem(options_.singular_handling, false)) break;
    if (c->rho_of_kkt < kMostRhoOfKkt) continue;
    part->message = "y is no strict minimum within its constraints: " + part->message;
    return false;
  }
  part->factorized = part->kept = false;  // Newton's method is to begin anew.
  Stopwatch watch(&part->counts.seconds_in_linear_algebra);
  Matrix schur;
  if (!SchurOfRows(c->b_y, c->active, &part->system, &schur)) {
    part->message = part->system.message();
    return false;
  }
  c->FactorizeSchur(schur);
  return c->has_kkt = true;
}

// rho such that a row's curvature is that of g along it: free of the units of both.
bool ConstrainedLowerSolver::FindScales(PerScenario* part, const double* x) {
  Constraints* const c = constraints_[part->index].get();
  c->rows.mode.assign(c->num_rows(), Constraints::Rows::kOut);
  if (!Evaluate(part, x)) return false;
  c->curvature =
      part->yy.diagonal().cwiseAbs().cwiseMax(c->LeastCurvature(part->gradient, part->y.value()));
  const double largest = c->curvature.maxCoeff() > 0.0 ? c->curvature.maxCoeff() : 1.0;
  for (double& curvature : c->curvature) {
    if (curvature == 0.0) curvature = largest;
  }
  c->unit_rho = Vector::Constant(c->num_rows(), kInfinity);
  c->farthest = part->Unit();
  c->MeasureY(part->y.value());
  c->ScaleRows();
  return true;
}

// By coordinate, that by which g's slope would lead kFarthest times as far as its constraints are
// away, or, from a start that meets them, as y's part of them is long. Curvature that is less does
// not tell how long y is: they do.
Vector ConstrainedLowerSolver::Constraints::LeastCurvature(const Vector& slope,
                                                           const Vector& y) const {
  Vector distance = Vector::Zero(slope.size());
  for (int i = 0; i < num_rows(); ++i) {
    double size = std::abs(value[i]);
    for (RowSparseMatrix::InnerIterator it(b_y, i); it; ++it) {
      const int k = scenario.y.AmbientIndex(static_cast<int>(it.col()));
      if (k >= 0) size += std::abs(it.value() * y[k]);
    }
    for (RowSparseMatrix::InnerIterator it(b_y, i); it; ++it) {
      const double own = size / std::abs(it.value());
      if (std::isfinite(own)) distance[it.col()] = std::max(distance[it.col()], own);
    }
  }
  Vector least = slope.cwiseAbs().cwiseQuotient(kFarthest * distance);
  for (double& own : least) {
    if (!std::isfinite(own)) own = 0.0;
  }
  return least;
}

// A row that is flat at one point may be steep at the next: the steepest counts, and the slope that
// would meet it within as far as y has been.
void ConstrainedLowerSolver::Constraints::ScaleRows() {
  double largest = 0.0;
  for (int i = 0; i < num_rows(); ++i) {
    double squared = 0.0;
    for (RowSparseMatrix::InnerIterator it(b_y, i); it; ++it) {
      squared += it.value() * it.value() / curvature[it.col()];
    }
    if (farthest > 0.0) squared = std::max(squared, std::pow(value[i] / farthest, 2));
    if (squared > 0.0) unit_rho[i] = std::min(unit_rho[i], kFirstRho / squared);
    if (std::isfinite(unit_rho[i])) largest = std::max(largest, unit_rho[i]);
  }
  for (double& unit : unit_rho) {
    if (!std::isfinite(unit)) unit = largest > 0.0 ? largest : kFirstRho * curvature.maxCoeff();
  }
}

void ConstrainedLowerSolver::Step(PerScenario* part) {
  Constraints* const c = constraints_[part->index].get();
  Matrix b(c->active.size(), 1);
  for (size_t k = 0; k < c->active.size(); ++k) b(k, 0) = -c->value[c->active[k]];
  if (!SolveKkt(part, -part->gradient, &b, &c->dy, &c->dmu)) {
    c->dy.setConstant(part->gradient.size(), 1, kInfinity);
    c->dmu.setZero(c->active.size(), 1);
  }
  // The system with W_rho in the place of W has the solution dmu + rho B dy.
  for (size_t k = 0; k < c->active.size(); ++k) {
    c->dmu(k, 0) += c->rows.rho[c->active[k]] * b(k, 0);
  }
  part->step = c->dy.col(0);
}

// Whether the step, by its length in the Hessian's norm, leads nowhere else; no row that is out of
// K is violated, and no multiplier negative.
bool ConstrainedLowerSolver::IsSolved(PerScenario* part, double share) const {
  Constraints* const c = constraints_[part->index].get();
  part->product = part->yy.selfadjointView<Eigen::Lower>() * part->step;
  const double of_y = part->step.dot(part->product);
  const double of_mu = (c->l.transpose() * c->dmu).squaredNorm();
  part->decrement = std::sqrt(std::max(of_y, of_mu));
  part->SetRelativeDecrement();
  const double rounding = part->Rounding(), unit = part->Unit();
  const double target = std::max({share * tolerance_ * unit, rounding, kUnderflow});
  const double previous = std::exchange(c->previous, part->decrement);
  const bool is_small = part->decrement <= target &&
                        (part->singular || part->RelativeStep() <= kStepTolerances * tolerance_ ||
                         part->decrement <= rounding);
  if (!is_small &&
      !HasStalled(part->decrement, previous, kStalledTolerances * tolerance_ * unit, rounding)) {
    return false;
  }
  const double allowed = 10.0 * target;
  for (int i = 0; i < c->num_rows(); ++i) {
    const bool is_equality = c->rows.mode[i] == Constraints::Rows::kIn;
    const double violation = is_equality ? std::abs(c->value[i]) : c->value[i];
    if (violation * c->Root(i) > allowed || !c->IsMet(i, violation)) return false;
  }
  for (size_t k = 0; k < c->active.size(); ++k) {
    const int i = c->active[k];
    if (c->is_inequality(i) && c->mu[i] + c->dmu(k, 0) < -allowed * c->Root(i)) return false;
  }
  return true;
}

}  // namespace bilevel
