// From a start to y*(x), scenario by scenario.
#include "bilevel/lower_level/newton_lower_solver.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/lower_level/internal/for_each_scenario.h"
#include "bilevel/lower_level/internal/newton_lower_solver_scenario.h"
#include "bilevel/lower_level/internal/one_openmp_thread.h"
#include "bilevel/oracle/internal/remember_counts.h"

namespace bilevel {
namespace {

// A new factorisation costs as much as about so many steps with an old one.
constexpr double kFactorizationInSteps = 15.0;
constexpr double kBeside = 1e-2;  // Of 1 + |y|: where a minimum of higher order is reached from.
constexpr double kFarAway = 1e3;  // Such a growth of y is no way to a minimum.
// So many times the iterations that Ceres may have, where Newton's were not enough.
constexpr int kMoreIterations = 10;

// Puts back what is in the user's memory now.
class UserMemoryGuard {
 public:
  explicit UserMemoryGuard(const Program& program)
      : program_(program), x_(program.x.size()), y_(program.y.size()) {
    program_.x.ReadUser(x_.data());
    program_.y.ReadUser(y_.data());
  }
  ~UserMemoryGuard() {
    program_.x.WriteUser(x_.data());
    program_.y.WriteUser(y_.data());
  }
  UserMemoryGuard(const UserMemoryGuard&) = delete;
  UserMemoryGuard& operator=(const UserMemoryGuard&) = delete;

 private:
  const Program& program_;
  Vector x_, y_;
};

}  // namespace

NewtonLowerSolver::NewtonLowerSolver(Program* program, const Options& options)
    : program_(program), options_(options), tolerance_(options.tolerance) {
  for (auto& scenario : program->scenarios) {
    const int index = static_cast<int>(parts_.size());
    parts_.push_back(std::make_unique<PerScenario>(program, scenario.get(), index));
  }
}

NewtonLowerSolver::~NewtonLowerSolver() = default;

std::unique_ptr<LowerSolver> NewtonLowerSolver::Fork() const {
  Options options = options_;
  options.use_ceres = false;
  return std::make_unique<NewtonLowerSolver>(program_, options);
}

bool NewtonLowerSolver::Remember(Memory* memory) {
  memory->Keep("solved_before", &solved_before_);
  memory->Keep("tolerance", &tolerance_);
  memory->Keep("have_dy_dx", &have_dy_dx_);
  if (!have_dy_dx_) dy_dx_.resize(0, 0);
  memory->Keep("dy_dx", &dy_dx_);
  RememberCounts("counts", &counts_, memory);
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Memory::Group group(memory, "scenario_" + std::to_string(i));
    parts_[i]->Remember(memory);
  }
  return true;
}

void NewtonLowerSolver::PerScenario::Remember(Memory* memory) {
  memory->KeepRange("y", y.value().data(), y.value().size());
  memory->Keep("x", &x);
  memory->Keep("value", &value);
  memory->Keep("gradient", &gradient);
  memory->KeepRange("yy", yy.valuePtr(), yy.nonZeros());
  memory->KeepRange("yx", yx.valuePtr(), yx.nonZeros());
  system.Remember(&yy, memory);
  secant.Remember(memory);
  memory->Keep("fixed", &fixed);
  memory->Keep("any_fixed", &any_fixed);
  memory->Keep("weakly_active", &weakly_active);
  memory->Keep("singular", &singular);
  memory->Keep("may_be_weak", &may_be_weak);
  memory->Keep("factorized", &factorized);
  memory->Keep("kept", &kept);
  memory->Keep("unconfirmed", &unconfirmed);
  memory->Keep("ran_out", &ran_out);
  memory->Keep("evaluated", &evaluated);
  memory->Keep("decrement", &decrement);
  memory->Keep("relative_decrement", &relative_decrement);
  RememberCounts("counts", &counts, memory);
}

void NewtonLowerSolver::SetTolerance(double tolerance) {
  tolerance_ = std::max(options_.tolerance, tolerance);
}

bool NewtonLowerSolver::Solve(const Point& x, Point* y) {
  have_dy_dx_ = false;
  message_.clear();
  const bool cold = options_.use_ceres && !solved_before_ && !options_.first_is_warm;
  ++(cold ? counts_.cold_solves : counts_.warm_solves);
  // ceres::Solve works on the user's memory; all of it is put back.
  std::optional<UserMemoryGuard> guard;
  if (options_.use_ceres) {
    guard.emplace(*program_);
    program_->x.WriteUser(x.value().data());
  }
  for (auto& part : parts_) {
    part->y.value() = y->value().segment(part->scenario->offset, part->scenario->y.size());
    part->start.value() = part->y.value();
  }
  const ScenarioFailure failure = ForEachScenarioOfRanks(
      *program_, "solving", x.value(), parts_, &counts_, [&](PerScenario* part) {
        return SolvePart(part, x.value().data(), cold);
      });
  if (failure.has_failed()) {
    message_ =
        "the lower level" +
        (program_->num_scenarios() > 1 ? " of scenario '" + failure.name + "'" : std::string()) +
        " was not solved: " + failure.message;
    ++counts_.failed_solves;
    return false;
  }
  for (auto& part : parts_) {
    y->value().segment(part->scenario->offset, part->scenario->y.size()) = part->y.value();
  }
  solved_before_ = true;
  return true;
}

bool NewtonLowerSolver::SolvePart(PerScenario* part, const double* x, bool cold) {
  if (!Reach(part, x, cold)) return false;
  if (part->singular && part->evaluated) ReachFromBeside(part, x);
  return true;
}

// A minimum of d^4, met exactly, looks like a free direction. From beside it y comes back as near
// as its tolerance, where there are derivatives.
void NewtonLowerSolver::ReachFromBeside(PerScenario* part, const double* x) {
  const Space& space = part->scenario->y;
  const Point there = part->y;
  const double flat = Factorization::kRankTolerance * part->yy.diagonal().cwiseAbs().maxCoeff();
  const double rounding = RoundingOfValue(part->Summands(part->Rounding()));
  double longest = 0.0;
  for (int j = 0; j < space.tangent_size(); ++j) {
    const int i = space.AmbientIndex(j);
    if (i < 0 || (part->any_fixed && part->fixed[j]) || part->yy.coeff(j, j) > flat) continue;
    const double at = there.value()[i], way = kBeside * (1.0 + std::abs(at));
    if (at - way < space.LowerBound(j) || at + way > space.UpperBound(j)) continue;
    const auto rises = [&](double side) {
      double value;
      part->trial.value() = there.value();
      part->trial.value()[i] += side * way;
      return part->g.Value(x, part->trial.value().data(), Batch::All(), &value) &&
             value > part->value + rounding;
    };
    if (!rises(1.0) || !rises(-1.0)) continue;
    part->y.value()[i] += way;
    longest = std::max(longest, way);
  }
  if (longest == 0.0) return;
  part->singular = false;
  if (Newton(part, x, false) && !part->singular &&
      (part->y.value() - there.value()).norm() < 0.1 * longest) {
    return;
  }
  part->y = there;
  part->singular = true;
  Newton(part, x, false);
}

bool NewtonLowerSolver::Reach(PerScenario* part, const double* x, bool cold) {
  part->factorized = part->evaluated = part->unconfirmed = false;
  if (cold && !RunCeres(part)) return false;
  if (Newton(part, x, !cold && options_.use_ceres)) return true;
  if (!options_.use_ceres) return false;
  std::string messages = part->message;
  if (!cold) {  // The warm start led nowhere.
    ++part->counts.cold_solves;
    part->y.value() = part->start.value();
    if (RunCeres(part) && Newton(part, x, false)) return true;
    if (part->message != messages) messages += "; and from a cold start: " + part->message;
  }
  // Ceres' steps are cheap: where Newton's were too few, many of those may do.
  if (part->ran_out && RunCeres(part, true)) {
    if (Newton(part, x, false)) {
      const double size = 1.0 + part->start.value().norm();
      if (part->y.value().norm() <= kFarAway * size) return true;
      messages += "; and by Ceres y goes as far as " + Number(part->y.value().norm());
    } else {
      messages = "from where Ceres ends with tight tolerances: " + part->message;
    }
  }
  part->message = messages;
  return false;
}

// Newton's steps with a Hessian factorised earlier, corrected by secants: a gradient and a
// back-substitution each. False: they have become too slow, or cannot be taken; y is the best
// point.
bool NewtonLowerSolver::Follow(PerScenario* part, const double* x) {
  // Bounds change the matrix with the active set.
  if (!part->kept || part->scenario->y.has_bounds()) return false;
  const auto gradient = [&](const Point& y, double* value, Vector* g) {
    Stopwatch watch(&part->counts.seconds_in_evaluation);
    return part->g.Gradient(x, y.value().data(), Batch::All(), value, nullptr, g->data());
  };
  const bool at_same_x = part->x == Eigen::Map<const Vector>(x, program_->x.size());
  part->factorized = part->evaluated = false;
  part->secant.Clear();
  if (!gradient(part->y, &part->value, &part->gradient)) return false;
  double previous = std::numeric_limits<double>::infinity();
  for (;;) {
    {
      Stopwatch watch(&part->counts.seconds_in_linear_algebra);
      part->secant.Apply(
          part->gradient,
          [&](const Vector& b, Vector* solution) {
            part->system.factorization().Solve(b, solution);
          },
          &part->step);
    }
    part->step = -part->step;
    const double decrement2 = -part->gradient.dot(part->step);
    if (!(decrement2 >= 0.0)) return false;
    part->decrement = std::sqrt(decrement2);
    part->SetRelativeDecrement();
    const double rounding = part->Rounding();
    part->trial.value() = part->y.value();
    if (!part->trial.Move(part->step)) return false;
    // Newton's last step overshoots the tolerance by far; so does this, the last step included.
    const double target = std::max(1e-2 * tolerance_ * part->Unit(), rounding);
    if (part->decrement <= target && part->RunsAway()) return false;
    if (part->decrement <= target) {
      // So says the Hessian of another x. What has seen the gradient fall may be believed.
      if (!at_same_x && part->decrement > 0.0 &&
          !(std::isfinite(previous) && part->decrement <= 0.5 * previous)) {
        double unused = 0.0;
        if (!gradient(part->trial, &unused, &part->trial_gradient)) return false;
        const double curvature = part->step.dot(part->trial_gradient - part->gradient);
        if (!(curvature >= 0.5 * decrement2)) return false;
      }
      part->unconfirmed = !at_same_x;
      std::swap(part->y, part->trial);
      return true;
    }
    // At the rate of the last step, how many more?
    const double rate = std::log(part->decrement / previous);
    if (!(kFactorizationInSteps * rate < std::log(target / part->decrement))) return false;
    previous = part->decrement;
    double trial_value = 0.0;
    if (!gradient(part->trial, &trial_value, &part->trial_gradient)) return false;
    ++part->counts.chord_steps;
    const double allowance = RoundingOfValue(part->Summands(rounding));
    if (!(trial_value <= part->value - kSufficientDecrease * decrement2 + allowance)) return false;
    part->product = part->trial_gradient - part->gradient;
    part->secant.Add(part->step, part->product);
    std::swap(part->y, part->trial);
    std::swap(part->gradient, part->trial_gradient);
    part->value = trial_value;
  }
}

bool NewtonLowerSolver::RunCeres(PerScenario* part, bool tightly) {
  Stopwatch watch(&part->counts.seconds_in_ceres);
  const Program::Scenario& s = *part->scenario;
  if (!s.lower || s.g->num_residual_blocks() == 0 || s.g->num_terms() > 0) return true;
  if (!part->ceres) part->ceres = std::make_unique<GuardedProblem>(*program_, s);
  s.y.WriteUser(part->y.value().data());
  std::optional<OneOpenMpThread> one_thread;
  if (options_.ceres.num_threads == 1) one_thread.emplace();
  ceres::Solver::Options options = options_.ceres;
  const std::chrono::duration<double> left = *program_->deadline - std::chrono::steady_clock::now();
  if (left.count() < options.max_solver_time_in_seconds) {
    options.max_solver_time_in_seconds = std::max(0.0, left.count());
  }
  if (tightly) {
    options.function_tolerance = options.gradient_tolerance = options.parameter_tolerance = 1e-16;
    options.max_num_iterations *= kMoreIterations;
  }
  if (!part->ceres->Solve(options, &part->message)) return false;
  s.y.ReadUser(part->y.value().data());
  return true;
}

bool NewtonLowerSolver::Evaluate(PerScenario* part, const double* x) {
  Stopwatch watch(&part->counts.seconds_in_evaluation);
  part->factorized = false;
  part->x = Eigen::Map<const Vector>(x, program_->x.size());
  part->evaluated = part->g.Hessian(x,
                                    part->y.value().data(),
                                    options_.hessian,
                                    &part->value,
                                    part->gradient.data(),
                                    &part->yy,
                                    &part->yx);
  if (!part->evaluated) part->message = part->g.error();
  return part->evaluated;
}

// Bounds that hold y: at the bound, with the gradient pushing outwards.
bool NewtonLowerSolver::FindActive(PerScenario* part) const {
  const Space& space = part->scenario->y;
  part->any_fixed = false;
  part->weakly_active.clear();
  part->unstable.clear();
  std::fill(part->fixed.begin(), part->fixed.end(), char(0));
  for (const double* user : options_.fixed_blocks) {
    const int index = space.Find(user);
    if (index < 0) continue;
    const Space::Block& block = space.blocks()[index];
    std::fill_n(part->fixed.begin() + block.tangent_offset, block.tangent_size, char(1));
    part->any_fixed = true;
  }
  if (!space.has_bounds()) return part->any_fixed;
  for (int j = 0; j < space.tangent_size(); ++j) {
    const int i = space.AmbientIndex(j);
    if (i < 0 || part->fixed[j]) continue;
    const double value = part->y.value()[i], g = part->gradient[j];
    const bool at_lower = value <= space.LowerBound(j), at_upper = value >= space.UpperBound(j);
    if (!at_lower && !at_upper) continue;
    const double curvature = part->yy.valuePtr()[part->yy.outerIndexPtr()[j]];
    const bool is_weak = IsWeakMultiplier(g, curvature, value);
    if (is_weak && curvature < 0.0 && space.LowerBound(j) < space.UpperBound(j)) {
      part->unstable.push_back(j);
      continue;
    }
    // Unlike Space::IsHeld: where nothing drives y off a bound, it stays.
    part->fixed[j] = (at_lower && g >= 0.0) || (at_upper && g <= 0.0);
    part->any_fixed = part->any_fixed || part->fixed[j];
    if (is_weak) part->weakly_active.push_back(j);
  }
  return part->any_fixed;
}

}  // namespace bilevel
