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

// Those that are not empty.
std::string Join(const std::vector<std::string>& texts, const char* separator) {
  std::string all;
  for (const std::string& text : texts) {
    if (!text.empty()) all += (all.empty() ? "" : separator) + text;
  }
  return all;
}

}  // namespace

bool NewtonLowerSolver::Differentiate(const Point& x, const Point& y) {
  have_dy_dx_ = false;
  message_.clear();
  const ScenarioFailure failure = ForEachScenarioOfRanks(
      *program_, "differentiating", x.value(), parts_, &counts_, [&](PerScenario* part) {
        return DifferentiatePart(part, x, y);
      });
  message_ = failure.message;
  return !failure.has_failed();
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

// What is wrong with a part's linear system.
std::string NewtonLowerSolver::WhyUnsolved(const PerScenario& part) {
  std::string why = part.system.message();
  if (part.system.null_space().cols() > 0) {
    why += BlocksBeyondLosses(*part.scenario->g, part.x.data(), part.y.value().data());
  }
  return why;
}

bool NewtonLowerSolver::SolveSystems(const std::function<bool(PerScenario*)>& body) {
  ScenarioFailure failure;
  for (size_t i = 0; i < parts_.size() && !failure.has_failed(); ++i) {
    PerScenario* const part = parts_[i].get();
    if (body(part)) continue;
    failure = {part->scenario->index,
               "",
               part->system.message().empty() ? part->message : WhyUnsolved(*part)};
  }
  failure = JoinFailures(*program_, "solving linear systems", nullptr, failure, nullptr);
  if (failure.has_failed()) message_ = failure.message;
  return !failure.has_failed();
}

bool NewtonLowerSolver::ComputeColumns(int first, int count) {
  Stopwatch watch(&counts_.seconds_in_linear_algebra);
  // Only now: with a long x, adjoints are what is asked for.
  dy_dx_.resize(program_->y.tangent_size(), program_->x.tangent_size());
  Matrix solution;
  return SolveSystems([&](PerScenario* part) {
    if (!part->system.Solve(-Matrix(part->yx.middleCols(first, count)), &solution)) return false;
    dy_dx_.block(part->scenario->tangent_offset, first, solution.rows(), count) = solution;
    return true;
  });
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
  return SolveSystems([&](PerScenario* part) {
    if (!part->system.Solve(Vector(-(part->yx * direction)), &solution)) return false;
    motion->segment(part->scenario->tangent_offset, solution.size()) = solution;
    return true;
  });
}

bool NewtonLowerSolver::SolveHessian(int scenario, const Matrix& b, Matrix* x) {
  HessianSystem& system = parts_[scenario]->system;
  if (system.Solve(b, x)) return true;
  message_ = WhyUnsolved(*parts_[scenario]);
  return false;
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
  return SolveSystems([&](PerScenario* part) {
    own = fy.segment(part->scenario->tangent_offset, part->scenario->y.tangent_size());
    if (!part->system.Solve(own, &solution)) return false;
    z->segment(part->scenario->tangent_offset, solution.size()) = solution;
    return true;
  });
}

bool NewtonLowerSolver::Adjoint(const Vector& fy, Vector* product) {
  *product = Vector::Zero(program_->x.tangent_size());
  if (!AdjointVector(fy, &z_)) return false;
  Matrix shares(product->size(), parts_.size());
  for (size_t i = 0; i < parts_.size(); ++i) {
    const PerScenario& part = *parts_[i];
    shares.col(i) = part.yx.transpose() * z_.segment(part.scenario->tangent_offset, part.yx.rows());
  }
  const Matrix all = program_->exchange.Columns("pulling back to x", nullptr, shares);
  for (const auto& share : all.colwise()) *product -= share;
  return true;
}

bool NewtonLowerSolver::IsDetermined(const Vector& fy) {
  Vector own, z;
  return SolveSystems([&](PerScenario* part) {
    if (part->system.null_space().cols() == 0) return true;
    own = fy.segment(part->scenario->tangent_offset, part->scenario->y.tangent_size());
    return part->system.Solve(own, &z);
  });
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
  const double norm = program_->NormInY(*direction);
  if (norm > 0.0) *direction /= norm;
  return norm > 0.0;
}

double NewtonLowerSolver::relative_decrement() const {
  double largest = -1.0;
  for (auto& part : parts_) largest = std::max(largest, part->relative_decrement);
  return program_->exchange.Largest(largest);
}

LowerSolverReport NewtonLowerSolver::Report() const {
  enum { kFree, kActive, kResidual, kRounding, kSize, kNumbers };
  Matrix numbers(kNumbers, parts_.size());
  std::vector<std::string> free, weak;
  for (size_t i = 0; i < parts_.size(); ++i) {
    PerScenario& part = *parts_[i];
    numbers(kFree, i) = static_cast<double>(part.system.null_space().cols());
    numbers(kActive, i) = part.num_active_bounds();
    numbers(kResidual, i) = part.system.residual();
    numbers(kRounding, i) = part.system.Rounding();
    numbers(kSize, i) = static_cast<double>(part.gradient.size());
    free.push_back(part.free_directions());
    weak.push_back(WeaklyActive(part));
  }
  const Exchange& exchange = program_->exchange;
  numbers = exchange.Columns("reporting", nullptr, numbers);
  LowerSolverReport report;
  report.free_directions = Join(exchange.Texts("reporting", free), "; ");
  report.weakly_active = Join(exchange.Texts("reporting", weak), ", ");
  if (numbers.cols() == 0) return report;
  report.num_free_directions = static_cast<int>(numbers.row(kFree).sum());
  report.num_active_bounds = static_cast<int>(numbers.row(kActive).sum());
  report.linear_residual = std::max(0.0, numbers.row(kResidual).maxCoeff());
  int largest;
  numbers.row(kSize).maxCoeff(&largest);
  std::string how;
  for (const auto& part : parts_) {
    if (part->scenario->index - program_->first_scenario != largest) continue;
    how = part->system.factorization().Describe();
  }
  report.remark = "linear systems by " + exchange.FromOwner(largest, how);
  if (const double share = numbers.row(kRounding).maxCoeff(); share > 0.0) {
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
  std::vector<std::string> names;
  for (auto& part : parts_) names.push_back(part->free_directions());
  return Join(names, "; ");
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
  for (auto& part : parts_) count += part->num_active_bounds();
  return count;
}

std::string NewtonLowerSolver::weakly_active() const {
  std::vector<std::string> names;
  for (auto& part : parts_) names.push_back(WeaklyActive(*part));
  return Join(names, ", ");
}

std::string NewtonLowerSolver::WeaklyActive(const PerScenario& part) const {
  std::vector<std::string> names;
  for (const int j : part.weakly_active) {
    const Space::Block& block = part.scenario->y.BlockOf(j);
    names.push_back(block.name + "[" +
                    std::to_string(part.scenario->y.AmbientIndex(j) - block.offset) + "]");
  }
  return Join(names, ", ");
}

}  // namespace bilevel
