// The derivatives of y*(x) at a solution, and what is to be told of it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/lower_level/internal/beyond_losses.h"
#include "bilevel/lower_level/internal/for_each_scenario.h"
#include "bilevel/lower_level/internal/newton_lower_solver_scenario.h"

namespace bilevel {
namespace {

// In tolerances, relative to y: a Newton step that an older Hessian was wrong to leave out.
constexpr double kLongStep = 1e3;

}  // namespace

bool NewtonLowerSolver::Differentiate(const Point& x, const Point& y) {
  have_dy_dx_ = false;
  message_.clear();
  const PerScenario* failed =
      ForEachScenario(&program_->pool, parts_, &counts_, [&](PerScenario* part) {
        return DifferentiatePart(part, x, y);
      });
  if (failed) message_ = failed->message;
  return !failed;
}

bool NewtonLowerSolver::DifferentiatePart(PerScenario* part, const Point& x, const Point& y) {
  const auto own = y.value().segment(part->scenario->offset, part->scenario->y.size());
  const bool here = part->evaluated && part->x == x.value() && part->y.value() == own;
  part->y.value() = own;
  if (!here && !Evaluate(part, x.value().data())) return false;
  FindActive(part);
  Stopwatch watch(&part->counts.seconds_in_linear_algebra);
  part->kept = part->PrepareSystem(options_.singular_handling, here && part->factorized);
  part->factorized = false;  // The system may have damped it.
  if (!part->kept || !std::exchange(part->unconfirmed, false)) return part->kept;
  const double decrement = part->MeasuredDecrement();
  const bool is_short = part->singular || part->RelativeStep() <= kLongStep * tolerance_;
  if (is_short && decrement <= std::max(tolerance_ * part->Unit(), 100.0 * part->Rounding())) {
    return true;
  }
  part->kept = false;
  part->message = "y is not solved: its decrement is " + Scientific(decrement) +
                  " by the Hessian at x, larger than an earlier one had it";
  return false;
}

bool NewtonLowerSolver::FailSystem(const PerScenario& part) {
  message_ = part.system.message();
  if (part.system.null_space().cols() > 0) {
    message_ += BlocksBeyondLosses(*part.scenario->g, part.x.data(), part.y.value().data());
  }
  return false;
}

bool NewtonLowerSolver::ComputeColumns(int first, int count) {
  Stopwatch watch(&counts_.seconds_in_linear_algebra);
  // Only now: with a long x, adjoints are what is asked for.
  dy_dx_.resize(program_->y.tangent_size(), program_->x.tangent_size());
  Matrix solution;
  for (auto& part : parts_) {
    if (!part->system.Solve(-Matrix(part->yx.middleCols(first, count)), &solution)) {
      return FailSystem(*part);
    }
    dy_dx_.block(part->scenario->tangent_offset, first, solution.rows(), count) = solution;
  }
  return true;
}

const Matrix& NewtonLowerSolver::dy_dx() {
  if (!have_dy_dx_ && !ComputeColumns(0, program_->x.tangent_size())) {
    dy_dx_.setConstant(std::numeric_limits<double>::quiet_NaN());
  }
  have_dy_dx_ = true;
  return dy_dx_;
}

bool NewtonLowerSolver::Tangent(const Vector& direction, Vector* motion) {
  motion->resize(program_->y.tangent_size());
  Vector solution;
  for (auto& part : parts_) {
    if (!part->system.Solve(Vector(-(part->yx * direction)), &solution)) {
      return FailSystem(*part);
    }
    motion->segment(part->scenario->tangent_offset, solution.size()) = solution;
  }
  return true;
}

bool NewtonLowerSolver::SolveHessian(int scenario, const Matrix& b, Matrix* x) {
  HessianSystem& system = parts_[scenario]->system;
  if (system.Solve(b, x)) return true;
  return FailSystem(*parts_[scenario]);
}

HessianSystem& NewtonLowerSolver::system(int scenario) { return parts_[scenario]->system; }

double NewtonLowerSolver::MeasureDecrement() {
  for (auto& part : parts_) {
    part->decrement = part->MeasuredDecrement();
    part->SetRelativeDecrement();
  }
  return relative_decrement();
}

bool NewtonLowerSolver::at_rounding() const {
  return std::all_of(parts_.begin(), parts_.end(), [](const auto& part) {
    return part->decrement <= 100.0 * part->Rounding();
  });
}

std::string NewtonLowerSolver::WhyNoSecondDerivative() const {
  if (options_.hessian == HessianKind::kExact) return "";
  return "a Gauss-Newton Hessian of the lower level has no second derivative of phi; "
         "HessianKind::kExact has";
}

bool NewtonLowerSolver::AdjointVector(const Vector& fy, Vector* z) {
  z->resize(program_->y.tangent_size());
  Vector own, solution;
  for (auto& part : parts_) {
    own = fy.segment(part->scenario->tangent_offset, part->scenario->y.tangent_size());
    if (!part->system.Solve(own, &solution)) {
      return FailSystem(*part);
    }
    z->segment(part->scenario->tangent_offset, solution.size()) = solution;
  }
  return true;
}

bool NewtonLowerSolver::Adjoint(const Vector& fy, Vector* product) {
  *product = Vector::Zero(program_->x.tangent_size());
  if (!AdjointVector(fy, &z_)) return false;
  for (auto& part : parts_) {
    *product -= part->yx.transpose() * z_.segment(part->scenario->tangent_offset, part->yx.rows());
  }
  return true;
}

bool NewtonLowerSolver::IsDetermined(const Vector& fy) {
  Vector own, z;
  for (auto& part : parts_) {
    if (part->system.null_space().cols() == 0) continue;
    own = fy.segment(part->scenario->tangent_offset, part->scenario->y.tangent_size());
    if (part->system.Solve(own, &z)) continue;
    return FailSystem(*part);
  }
  return true;
}

bool NewtonLowerSolver::AnyFreeDirection(Vector* direction) {
  direction->setZero(program_->y.tangent_size());
  for (auto& part : parts_) {
    const Matrix& free = part->system.null_space();
    for (int j = 0; j < free.cols(); ++j) {
      direction->segment(part->scenario->tangent_offset, free.rows()) +=
          std::cos(1.0 + j) * free.col(j);
    }
  }
  const double norm = direction->norm();
  if (norm > 0.0) *direction /= norm;
  return norm > 0.0;
}

double NewtonLowerSolver::relative_decrement() const {
  double largest = -1.0;
  for (auto& part : parts_) largest = std::max(largest, part->relative_decrement);
  return largest;
}

LowerSolverReport NewtonLowerSolver::Report() const {
  LowerSolverReport report;
  report.num_free_directions = num_free_directions();
  report.free_directions = free_directions();
  report.num_active_bounds = num_active_bounds();
  report.weakly_active = weakly_active();
  report.linear_residual = linear_residual();
  const auto largest =
      std::max_element(parts_.begin(), parts_.end(), [](const auto& a, const auto& b) {
        return a->gradient.size() < b->gradient.size();
      });
  if (largest != parts_.end()) {
    report.remark = "linear systems by " + (*largest)->system.factorization().Describe();
  }
  if (const double share = rounding(); share > 0.0) {
    report.remark += "; the lower level is ill-conditioned: rounding may be a relative " +
                     Scientific(share) + " of its derivatives";
  }
  return report;
}

int NewtonLowerSolver::num_free_directions() const {
  int count = 0;
  for (auto& part : parts_) count += static_cast<int>(part->system.null_space().cols());
  return count;
}

std::string NewtonLowerSolver::free_directions() const {
  std::string names;
  for (auto& part : parts_) {
    if (part->system.null_space().cols() == 0) continue;
    names += (names.empty() ? "" : "; ") + part->system.NullSpaceBlocks();
  }
  return names;
}

double NewtonLowerSolver::rounding() const {
  double largest = 0.0;
  for (auto& part : parts_) largest = std::max(largest, part->system.Rounding());
  return largest;
}

double NewtonLowerSolver::linear_residual() const {
  double largest = 0.0;
  for (auto& part : parts_) largest = std::max(largest, part->system.residual());
  return largest;
}

int NewtonLowerSolver::num_active_bounds() const {
  int count = 0;
  for (auto& part : parts_) {
    if (part->any_fixed) {
      count += static_cast<int>(std::count(part->fixed.begin(), part->fixed.end(), char(1)));
    }
  }
  return count;
}

std::string NewtonLowerSolver::weakly_active() const {
  std::string names;
  for (auto& part : parts_) {
    for (int j : part->weakly_active) {
      const Space::Block& block = part->scenario->y.BlockOf(j);
      names += (names.empty() ? "" : ", ") + block.name + "[" +
               std::to_string(part->scenario->y.AmbientIndex(j) - block.offset) + "]";
    }
  }
  return names;
}

}  // namespace bilevel
