#include "bilevel/lower_level/optimistic_lower_solver.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/memory.h"
#include "bilevel/lower_level/internal/for_each_scenario.h"
#include "bilevel/lower_level/internal/optimistic_lower_solver_scenario.h"
#include "bilevel/oracle/internal/remember_counts.h"

namespace bilevel {

OptimisticLowerSolver::OptimisticLowerSolver(Program* program,
                                             LowerSolver* start,
                                             const Options& options)
    : program_(program), start_(start), options_(options), refusal_(Check(*program, options)) {
  if (!refusal_.empty()) return;
  for (auto& scenario : program->scenarios) {
    parts_.push_back(std::make_unique<PerScenario>(program, scenario.get(), options_));
  }
}

OptimisticLowerSolver::~OptimisticLowerSolver() = default;

std::string OptimisticLowerSolver::Check(const Program& program, const Options& options) {
  if (options.max_num_iterations < 1) {
    return "the optimistic path's max_num_iterations must be positive";
  }
  if (!(options.rank_tolerance >= 0.0 && options.rank_tolerance < 1.0)) {
    return "the optimistic path's rank_tolerance must be at least 0 and below 1";
  }
  if (const std::string first = program.FirstConstraint(); !first.empty()) {
    return "the optimistic path knows no constraints of the lower level, as is " + first;
  }
  for (const auto& s : program.scenarios) {
    for (const LevelFunction* function : {s->f.get(), s->g.get()}) {
      if (function->has_sparse_hessian()) continue;
      return "the optimistic path needs assembled Hessians, and a general term of " +
             function->name() + " is too long for one";
    }
    const int largest = ComponentEigen(s->g->yy_pattern()).largest_component();
    if (largest > kMostCoordinates) {
      return "the optimistic path needs all eigenvalues of the lower level's Hessian, and " +
             std::to_string(largest) + " coordinates hang together in it; " +
             std::to_string(kMostCoordinates) + " is the most it takes";
    }
  }
  return "";
}

std::unique_ptr<LowerSolver> OptimisticLowerSolver::Fork() const {
  std::unique_ptr<LowerSolver> start = start_->Fork();
  auto fork = std::make_unique<OptimisticLowerSolver>(program_, start.get(), options_);
  fork->own_start_ = std::move(start);
  return fork;
}

bool OptimisticLowerSolver::SolveFrom(const Point& x, const Point& y) {
  message_.clear();
  const PerScenario* failed =
      ForEachScenario(&program_->pool, parts_, &own_counts_, [&](PerScenario* part) {
        part->message.clear();
        return part->Minimize(x.value(),
                              y.value().segment(part->scenario->offset, part->scenario->y.size()));
      });
  if (!failed) return true;
  message_ = "the lower level" +
             (parts_.size() > 1 ? " of scenario '" + failed->scenario->name + "'" : std::string()) +
             " has no optimistic solution: " + failed->message;
  return false;
}

bool OptimisticLowerSolver::Solve(const Point& x, Point* y) {
  have_dy_dx_ = false;
  message_ = refusal_;
  if (!message_.empty()) return false;
  ++own_counts_.warm_solves;
  bool solved = solved_before_ && SolveFrom(x, *y);
  if (!solved) {
    const std::string warm_message = message_;
    Point first = *y;
    const bool started = start_->Solve(x, &first);
    solved = SolveFrom(x, first);
    if (!solved && !started) message_ += " (before that: " + start_->message() + ")";
    if (!solved && !warm_message.empty()) message_ = warm_message + "; and anew: " + message_;
  }
  if (!solved) {
    ++own_counts_.failed_solves;
    return false;
  }
  for (auto& part : parts_) {
    y->value().segment(part->scenario->offset, part->scenario->y.size()) = part->y.value();
  }
  solved_before_ = true;
  return true;
}

bool OptimisticLowerSolver::Differentiate(const Point& x, const Point& y) {
  have_dy_dx_ = false;
  message_ = refusal_;
  if (!message_.empty()) return false;
  for (auto& part : parts_) {
    const auto own = y.value().segment(part->scenario->offset, part->scenario->y.size());
    if (part->evaluated && part->x == x.value() && part->y.value() == own) continue;
    part->x = x.value();
    part->y.value() = own;
    part->evaluated = part->Evaluate(true) && part->FindNullSpace(part->Measure()) &&
                      part->Project() && part->CheckSmoothness();
    own_counts_ += std::exchange(part->counts, {});
    if (part->evaluated) continue;
    message_ = "the lower level cannot be differentiated: " + part->message;
    return false;
  }
  return true;
}

const Matrix& OptimisticLowerSolver::dy_dx() {
  if (have_dy_dx_) return dy_dx_;
  Stopwatch watch(&own_counts_.seconds_in_linear_algebra);
  have_dy_dx_ = true;
  dy_dx_.resize(program_->y.tangent_size(), program_->x.tangent_size());
  Vector column, z, t;
  for (auto& part : parts_) {
    for (int j = 0; j < dy_dx_.cols(); ++j) {
      column = part->jacobian.col(j);
      part->eigen.Solve(column, &z);
      column = part->fyx.col(j) + part->third_yx.col(j);
      column -= part->w * z;
      part->reduced_eigen->Solve(part->null.transpose() * column, &t);
      dy_dx_.col(j).segment(part->scenario->tangent_offset, z.size()) = -z - part->null * t;
    }
  }
  return dy_dx_;
}

bool OptimisticLowerSolver::Adjoint(const Vector& fy, Vector* product) {
  Stopwatch watch(&own_counts_.seconds_in_linear_algebra);
  *product = Vector::Zero(program_->x.tangent_size());
  Vector own, u, t, correction;
  for (auto& part : parts_) {
    own = fy.segment(part->scenario->tangent_offset, part->space.tangent_size());
    part->eigen.Solve(own, &u);
    *product -= part->jacobian.transpose() * u;
    if (part->null.cols() == 0) continue;
    if (!part->SolveReduced(own, &t)) {
      message_ = part->message;
      return false;
    }
    correction = Vector::Zero(product->size());
    if (t.norm() > 0.0) part->PullBack(part->null * t, &correction);
    *product -= correction;
  }
  return true;
}

bool OptimisticLowerSolver::AdjointVector(const Vector& fy, Vector* z) {
  z->resize(program_->y.tangent_size());
  Vector own, u;
  for (auto& part : parts_) {
    own = fy.segment(part->scenario->tangent_offset, part->space.tangent_size());
    part->Hold(&own);
    part->eigen.Solve(own, &u);
    z->segment(part->scenario->tangent_offset, u.size()) = u;
  }
  return true;
}

bool OptimisticLowerSolver::IsDetermined(const Vector& fy) {
  Vector t;
  for (auto& part : parts_) {
    if (part->null.cols() == 0) continue;
    if (!part->SolveReduced(fy.segment(part->scenario->tangent_offset, part->space.tangent_size()),
                            &t)) {
      message_ = part->message;
      return false;
    }
  }
  return true;
}

const LowerSolverCounts& OptimisticLowerSolver::counts() const {
  counts_ = own_counts_;
  if (own_start_) counts_ += own_start_->counts();
  return counts_;
}

double OptimisticLowerSolver::relative_decrement() const {
  double largest = -1.0;
  for (auto& part : parts_) largest = std::max(largest, part->relative_decrement);
  return largest;
}

LowerSolverReport OptimisticLowerSolver::Report() const {
  LowerSolverReport report;
  long dimension = 0;
  bool changed = false;
  double largest_null = 0.0, smallest_kept = std::numeric_limits<double>::infinity();
  for (auto& part : parts_) {
    if (!part->evaluated) continue;
    part->NameBounds(&report);
    dimension += part->null.cols();
    changed = changed || part->least_dimension < part->most_dimension;
    largest_null = std::max(largest_null, part->eigen.largest_null());
    smallest_kept = std::min(smallest_kept, part->eigen.smallest_kept());
    const int free = part->reduced_eigen->null_dimension();
    if (free == 0) continue;
    report.num_free_directions += free;
    report.free_directions += (report.free_directions.empty() ? "" : "; ") + part->FreeBlocks();
  }
  report.remark =
      "solutions of dimension " + std::to_string(dimension) +
      ", f's minimiser among them taken; scaled eigenvalues of the Hessian: zero up to " +
      Scientific(largest_null) + ", others from " + Scientific(smallest_kept);
  if (changed) report.remark += "; their dimension was not the same at all x, where phi may jump";
  return report;
}

// What has been evaluated at y is evaluated there again.
bool OptimisticLowerSolver::Remember(Memory* memory) {
  memory->Keep("solved_before", &solved_before_);
  RememberCounts("counts", &own_counts_, memory);
  if (memory->recalls()) have_dy_dx_ = false;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Memory::Group group(memory, "scenario_" + std::to_string(i));
    PerScenario& part = *parts_[i];
    memory->Keep("x", &part.x);
    part.y.Remember("y", part.space, memory);
    memory->Keep("relative_decrement", &part.relative_decrement);
    memory->Keep("held", &part.held);
    memory->Keep("least_dimension", &part.least_dimension);
    memory->Keep("most_dimension", &part.most_dimension);
    RememberCounts("counts", &part.counts, memory);
    if (memory->recalls()) part.evaluated = false;
  }
  const Memory::Group group(memory, "start");
  return !own_start_ || own_start_->Remember(memory);
}

}  // namespace bilevel
