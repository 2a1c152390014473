#include "bilevel/lower_level/newton_cg_lower_solver.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/finite_differences.h"
#include "bilevel/base/internal/rounding.h"
#include "bilevel/base/memory.h"
#include "bilevel/lower_level/internal/for_each_scenario.h"
#include "bilevel/lower_level/internal/noise_of_value.h"
#include "bilevel/oracle/internal/remember_counts.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {

// One scenario's solver.
struct NewtonCgLowerSolver::PerScenario {
  PerScenario(Program* program, const Program::Scenario* s)
      : scenario(s),
        g(s->g.get(), &program->pool),
        noise(s->g.get()),
        y(&s->y),
        trial(&s->y),
        held(s->y.tangent_size(), 0),
        hp(s->y.tangent_size()) {
    for (Vector* v : {&gradient, &trial_gradient, &step, &solution, &adjoint}) {
      v->setZero(s->y.tangent_size());
    }
    pulled_back.resize(program->x.tangent_size());
  }

  const Program::Scenario* scenario;
  LevelEvaluator g;
  NoiseOfValue noise;
  Point y, trial;
  std::vector<char> held;
  Vector gradient, trial_gradient, step, r, p, hp, solution, adjoint, pulled_back;
  double value = 0.0, relative_decrement = -1.0, linear_residual = -1.0;
  bool ok = true;
  std::string message;
  LowerSolverCounts counts;

  bool Fail(const std::string& what) {
    message = what;
    return false;
  }
  auto Segment(const Vector& v) const {
    return v.segment(scenario->tangent_offset, scenario->y.tangent_size());
  }
  void FindHeld(Vector* slope) {
    for (size_t j = 0; scenario->y.has_bounds() && j < held.size(); ++j) {
      held[j] = scenario->y.IsHeld(y.value().data(), static_cast<int>(j), (*slope)[j]);
    }
    ClearHeld(slope);
  }
  void ClearHeld(Vector* v) const {
    for (size_t j = 0; scenario->y.has_bounds() && j < held.size(); ++j) {
      if (held[j]) (*v)[j] = 0.0;
    }
  }
};

NewtonCgLowerSolver::NewtonCgLowerSolver(Program* program, const Options& options)
    : program_(program),
      options_(options),
      tolerance_(options.tolerance),
      linear_tolerance_(options.linear_tolerance),
      x_(&program->x) {
  for (const auto& scenario : program->scenarios) {
    parts_.push_back(std::make_unique<PerScenario>(program, scenario.get()));
  }
}

NewtonCgLowerSolver::~NewtonCgLowerSolver() = default;

std::string NewtonCgLowerSolver::CheckOptions() const {
  return FirstNotPositive(
      {{"newton_cg.tolerance", options_.tolerance},
       {"newton_cg.max_num_iterations", options_.max_num_iterations},
       {"newton_cg.max_num_linear_iterations", options_.max_num_linear_iterations},
       {"newton_cg.linear_tolerance", options_.linear_tolerance}});
}

std::unique_ptr<LowerSolver> NewtonCgLowerSolver::Fork() const {
  return std::make_unique<NewtonCgLowerSolver>(program_, options_);
}

double NewtonCgLowerSolver::relative_decrement() const {
  double largest = -1.0;
  for (const auto& part : parts_) largest = std::max(largest, part->relative_decrement);
  return largest;
}

LowerSolverReport NewtonCgLowerSolver::Report() const {
  LowerSolverReport report;
  for (const auto& part : parts_) {
    report.linear_residual = std::max(report.linear_residual, part->linear_residual);
    report.num_active_bounds +=
        static_cast<int>(std::count(part->held.begin(), part->held.end(), char(1)));
  }
  report.remark = "the lower level was solved by products with its Hessian, without a matrix";
  return report;
}

// body(part) for all scenarios in parallel; the first that fails gives the message.
template <typename Body>
bool NewtonCgLowerSolver::ForEach(const char* what, Body body) {
  message_.clear();
  const PerScenario* failed = ForEachScenario(&program_->pool, parts_, &counts_, body);
  if (!failed) return true;
  message_ = failed->message;
  if (parts_.size() > 1) {
    message_ = "the lower level of scenario '" + failed->scenario->name + "' " + what + message_;
  }
  return false;
}

bool NewtonCgLowerSolver::Evaluate(const double* x,
                                   const Point& y,
                                   PerScenario* part,
                                   Vector* gradient) {
  Stopwatch watch(&part->counts.seconds_in_evaluation);
  ++part->counts.gradient_steps;
  return part->g.Gradient(
             x, y.value().data(), Batch::All(), &part->value, nullptr, gradient->data()) ||
         part->Fail(part->g.error());
}

// H s = b in the coordinates that are not held, from s or from 0 if that is closer, until
// |b - H s| <= tolerance |b| or a direction without positive curvature, which replaces s = 0 if it
// is the first. linear_residual is what was reached.
NewtonCgLowerSolver::Curvature NewtonCgLowerSolver::Conjugate(
    const double* x, const Vector& b, double tolerance, PerScenario* part, Vector* s) {
  Stopwatch watch(&part->counts.seconds_in_linear_algebra);
  Vector &r = part->r, &p = part->p, &hp = part->hp;
  const auto multiply = [&](const Vector& v) {
    ++part->counts.gradient_steps;
    if (!part->g.HessianProduct(
            x, part->y.value().data(), Batch::All(), v.data(), hp.data(), nullptr)) {
      return part->Fail(part->g.error());
    }
    part->ClearHeld(&hp);
    return true;
  };
  r = b;
  part->ClearHeld(&r);
  const double norm = r.norm();
  part->ClearHeld(s);
  bool from_zero = s->isZero(0.0);
  if (!from_zero) {
    if (!multiply(*s)) return Curvature::kFailed;
    from_zero = !((r - hp).norm() < norm);
    if (!from_zero) r -= hp;
  }
  if (from_zero) s->setZero();
  p = r;
  double rr = r.squaredNorm();
  part->linear_residual = 0.0;
  for (int k = 0; std::sqrt(rr) > tolerance * norm; ++k) {
    part->linear_residual = std::sqrt(rr) / norm;
    if (k == options_.max_num_linear_iterations) break;
    if (!multiply(p)) return Curvature::kFailed;
    const double curvature = p.dot(hp);
    if (!(curvature > kRoundingOfCurvature * p.norm() * hp.norm())) {
      if (k == 0 && from_zero) *s = curvature == 0.0 ? p : Vector(rr / std::abs(curvature) * p);
      return Curvature::kNegative;
    }
    const double alpha = rr / curvature;
    *s += alpha * p;
    r -= alpha * hp;
    const double next = r.squaredNorm();
    p = r + next / rr * p;
    rr = next;
    part->linear_residual = std::sqrt(rr) / norm;
  }
  return Curvature::kPositive;
}

bool NewtonCgLowerSolver::Minimize(const double* x, PerScenario* part) {
  constexpr int kMostHalvings = 40;
  Vector& gradient = part->gradient;
  if (!Evaluate(x, part->y, part, &gradient)) return false;
  double first_norm = -1.0;
  part->noise.Forget();
  for (int iteration = 0;; ++iteration) {
    if (program_->IsLate()) return part->Fail(Program::kTimeIsOver);
    part->FindHeld(&gradient);
    const double value = part->value, norm = gradient.norm();
    const double unit = std::sqrt(2.0 * std::abs(value));
    if (first_norm < 0.0) first_norm = norm;
    const double tolerance = norm == 0.0 ? 0.1 : std::min(0.1, std::sqrt(norm / first_norm));
    part->trial_gradient = -gradient;
    part->step.setZero();
    const Curvature curvature = Conjugate(x, part->trial_gradient, tolerance, part, &part->step);
    if (curvature == Curvature::kFailed) return false;
    const double decrement2 = std::max(0.0, -gradient.dot(part->step));
    part->relative_decrement = unit > 0.0 ? std::sqrt(decrement2) / unit : std::sqrt(decrement2);
    const bool convex = curvature == Curvature::kPositive;
    if (convex && part->relative_decrement <= tolerance_) {
      part->trial = part->y;
      if (part->trial.Move(part->step)) std::swap(part->y, part->trial);
      return true;
    }
    if (iteration == options_.max_num_iterations) {
      return part->Fail("no stationary point of the lower level after " +
                        std::to_string(iteration) +
                        " Newton iterations by conjugate gradients (relative decrement " +
                        Scientific(part->relative_decrement) + ")");
    }
    // Below the rounding of the value, the gradient decides.
    bool hidden = convex && IsHiddenInValue(decrement2, std::abs(value));
    bool moved = false;
    double length = 1.0;
    for (int k = 0; k < kMostHalvings && !moved; ++k, length *= 0.5) {
      part->trial = part->y;
      if (!part->trial.Move(length * part->step)) continue;
      if (!Evaluate(x, part->trial, part, &part->trial_gradient)) continue;
      moved = !hidden && part->value <= value - kSufficientDecrease * length * decrement2;
      if (!moved && !hidden && convex && k == 0) {
        part->noise.At(x, part->y.value().data());
        const double noise = part->noise.At(x, part->trial.value().data());
        hidden = part->value == value || IsHiddenInValue(decrement2, noise / kEpsilon);
      }
      if (hidden) moved = part->trial_gradient.norm() < 0.5 * norm;
      if (hidden) break;
    }
    if (!moved && hidden) return true;
    if (!moved) {
      return part->Fail(
          "no step along the lower level's Newton direction lowers it (relative decrement " +
          Scientific(part->relative_decrement) + "): its gradient may be wrong");
    }
    std::swap(part->y, part->trial);
    gradient.swap(part->trial_gradient);
    if (!part->y.value().allFinite() || part->y.value().norm() > 1e100) {
      return part->Fail("the lower level seems unbounded below");
    }
  }
}

void NewtonCgLowerSolver::SetTolerance(double tolerance) {
  tolerance_ = std::max(options_.tolerance, tolerance);
  linear_tolerance_ = std::max(options_.linear_tolerance, tolerance);
}

bool NewtonCgLowerSolver::Solve(const Point& x, Point* y) {
  have_dy_dx_ = false;
  ++counts_.warm_solves;
  const bool ok = ForEach("was not solved: ", [&](PerScenario* part) {
    part->y.value() = y->value().segment(part->scenario->offset, part->scenario->y.size());
    return Minimize(x.value().data(), part);
  });
  if (!ok) {
    ++counts_.failed_solves;
    return false;
  }
  for (const auto& part : parts_) {
    y->value().segment(part->scenario->offset, part->scenario->y.size()) = part->y.value();
  }
  return true;
}

bool NewtonCgLowerSolver::Differentiate(const Point& x, const Point& y) {
  have_dy_dx_ = false;
  x_ = x;
  return ForEach("was not differentiated: ", [&](PerScenario* part) {
    part->y.value() = y.value().segment(part->scenario->offset, part->scenario->y.size());
    if (!part->scenario->y.has_bounds()) return true;
    if (!Evaluate(x_.value().data(), part->y, part, &part->gradient)) return false;
    part->FindHeld(&part->gradient);
    return true;
  });
}

bool NewtonCgLowerSolver::SolveLinear(const Vector& b, PerScenario* part, Vector* solution) {
  const Curvature curvature = Conjugate(x_.value().data(), b, linear_tolerance_, part, solution);
  if (curvature == Curvature::kFailed) return false;
  if (curvature == Curvature::kNegative) {
    return part->Fail(
        "conjugate gradients met a direction without positive curvature in the lower level: "
        "y*(x) is not determined there, or no minimiser");
  }
  if (part->linear_residual > linear_tolerance_) {
    return part->Fail("the adjoint of the lower level was not solved in " +
                      std::to_string(options_.max_num_linear_iterations) +
                      " products (relative residual " + Scientific(part->linear_residual) + ")");
  }
  return true;
}

bool NewtonCgLowerSolver::Adjoint(const Vector& fy, Vector* product) {
  const bool ok = ForEach("was not differentiated: ", [&](PerScenario* part) {
    part->step = part->Segment(fy);
    return SolveLinear(part->step, part, &part->adjoint) &&
           (part->g.HessianProduct(x_.value().data(),
                                   part->y.value().data(),
                                   Batch::All(),
                                   part->adjoint.data(),
                                   part->hp.data(),
                                   part->pulled_back.data()) ||
            part->Fail(part->g.error()));
  });
  if (!ok) return false;
  product->setZero(x_.dim());
  for (const auto& part : parts_) *product -= part->pulled_back;
  return true;
}

bool NewtonCgLowerSolver::IsDetermined(const Vector& fy) {
  return ForEach("was not differentiated: ", [&](PerScenario* part) {
    part->step = part->Segment(fy);
    return SolveLinear(part->step, part, &part->adjoint);
  });
}

bool NewtonCgLowerSolver::AdjointVector(const Vector& fy, Vector* z) {
  if (!IsDetermined(fy)) return false;
  z->resize(program_->y.tangent_size());
  for (const auto& part : parts_) {
    z->segment(part->scenario->tangent_offset, part->adjoint.size()) = part->adjoint;
  }
  return true;
}

bool NewtonCgLowerSolver::FillColumns(PerScenario* part) {
  const double h = 1e-3 * std::max(1.0, x_.value().lpNorm<Eigen::Infinity>());
  Point probe = x_;
  Vector mixed(part->y.dim()), direction = Vector::Zero(x_.dim());
  for (int k = 0; k < x_.dim(); ++k) {
    mixed.setZero();
    for (const DifferencePoint& point : kFourthOrder) {
      probe = x_;
      direction[k] = point.at * h;
      if (!probe.Move(direction)) return part->Fail("x cannot move: its manifold failed");
      if (!Evaluate(probe.value().data(), part->y, part, &part->gradient)) return false;
      mixed -= point.Weight(h) * part->gradient;
    }
    direction[k] = 0.0;
    part->solution.setZero();
    if (!SolveLinear(mixed, part, &part->solution)) return false;
    dy_dx_.col(k).segment(part->scenario->tangent_offset, part->y.dim()) = part->solution;
  }
  return true;
}

const Matrix& NewtonCgLowerSolver::dy_dx() {
  if (have_dy_dx_) return dy_dx_;
  have_dy_dx_ = true;
  dy_dx_.setConstant(
      program_->y.tangent_size(), x_.dim(), std::numeric_limits<double>::quiet_NaN());
  ForEach("was not differentiated: ", [&](PerScenario* part) { return FillColumns(part); });
  return dy_dx_;
}

bool NewtonCgLowerSolver::Remember(Memory* memory) {
  memory->Keep("tolerance", &tolerance_);
  memory->Keep("linear_tolerance", &linear_tolerance_);
  x_.Remember("x", program_->x, memory);
  memory->Keep("have_dy_dx", &have_dy_dx_);
  if (!have_dy_dx_) dy_dx_.resize(0, 0);
  memory->Keep("dy_dx", &dy_dx_);
  RememberCounts("counts", &counts_, memory);
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Memory::Group group(memory, "scenario_" + std::to_string(i));
    PerScenario& part = *parts_[i];
    part.y.Remember("y", part.scenario->y, memory);
    memory->Keep("held", &part.held);
    memory->Keep("step", &part.step);
    memory->Keep("solution", &part.solution);
    memory->Keep("adjoint", &part.adjoint);
    memory->Keep("value", &part.value);
    memory->Keep("relative_decrement", &part.relative_decrement);
    memory->Keep("linear_residual", &part.linear_residual);
    RememberCounts("counts", &part.counts, memory);
  }
  return true;
}

}  // namespace bilevel
