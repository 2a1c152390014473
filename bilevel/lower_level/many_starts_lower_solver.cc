#include "bilevel/lower_level/many_starts_lower_solver.h"

#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "bilevel/base/memory.h"

namespace bilevel {
namespace {

// Minima nearer than this to each other, relative, are one.
constexpr double kSame = 1e-6;
// And a g that is less by no more than this, relative, is the same: ties are not to flip.
constexpr double kTie = 1e-9;

}  // namespace

ManyStartsLowerSolver::ManyStartsLowerSolver(Program* program,
                                             std::unique_ptr<LowerSolver> main,
                                             const Options& options)
    : program_(program), options_(options), main_(std::move(main)) {
  for (const auto& scenario : program->scenarios) {
    g_.push_back(std::make_unique<LevelEvaluator>(scenario->g.get(), nullptr));
  }
}

ManyStartsLowerSolver::ManyStartsLowerSolver(Program* program,
                                             const Make& make,
                                             const Options& options)
    : ManyStartsLowerSolver(program, make(), options) {
  for (int k = 1; k < options.num_starts; ++k) others_.push_back({make(), Point(&program->y)});
}

std::string ManyStartsLowerSolver::CheckOptions() const {
  if (options_.num_starts < 1) return "lower_starts must be at least 1";
  if (!(options_.spread > 0.0) || !std::isfinite(options_.spread)) {
    return "lower_start_spread must be positive";
  }
  return main_->CheckOptions();
}

void ManyStartsLowerSolver::Draw(const Point& around, Point* y) {
  std::seed_seq seed{options_.seed, num_drawn_++};
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  const Space& space = program_->y;
  Vector delta(space.tangent_size());
  for (int j = 0; j < delta.size(); ++j) {
    const double lower = space.LowerBound(j), upper = space.UpperBound(j);
    delta[j] =
        std::isfinite(lower) && std::isfinite(upper)
            ? lower + uniform(random) * (upper - lower) - around.value()[space.AmbientIndex(j)]
            : options_.spread * normal(random);
  }
  *y = around;
  y->Move(delta);
}

// g of every scenario; infinite where it cannot be evaluated.
void ManyStartsLowerSolver::Values(const Point& x, const Point& y, Vector* values) {
  values->resize(g_.size());
  for (size_t s = 0; s < g_.size(); ++s) {
    const double* const own = y.value().data() + program_->scenarios[s]->offset;
    if (!g_[s]->Value(x.value().data(), own, Batch::All(), &(*values)[s])) {
      (*values)[s] = std::numeric_limits<double>::infinity();
    }
  }
}

bool ManyStartsLowerSolver::Solve(const Point& x, Point* y) {
  const Point given = *y;
  const bool is_solved = main_->Solve(x, y);
  Point best = *y;
  Vector least, values;
  if (is_solved) {
    Values(x, best, &least);
  } else {
    least = Vector::Constant(g_.size(), std::numeric_limits<double>::infinity());
  }
  bool is_another = false;
  std::vector<const Point*> known{y};
  for (Start& start : others_) {
    if (start.is_fresh) Draw(given, &start.y);
    start.is_fresh = !start.solver->Solve(x, &start.y);
    if (start.is_fresh) continue;
    Values(x, start.y, &values);
    for (size_t s = 0; s < g_.size(); ++s) {
      if (!(values[s] < least[s] - kTie * std::abs(values[s]))) continue;
      const Program::Scenario& scenario = *program_->scenarios[s];
      best.value().segment(scenario.offset, scenario.y.size()) =
          start.y.value().segment(scenario.offset, scenario.y.size());
      least[s] = values[s];
      is_another = true;
    }
    for (const Point* other : known) {
      const double distance = (other->value() - start.y.value()).norm();
      start.is_fresh |= distance <= kSame * (1.0 + start.y.value().norm());
    }
    known.push_back(&start.y);
  }
  if (!is_another || !least.allFinite()) return is_solved;
  *y = best;
  if (main_->Solve(x, y)) return true;
  *y = given;
  return main_->Solve(x, y);
}

std::unique_ptr<LowerSolver> ManyStartsLowerSolver::Fork() const {
  std::unique_ptr<ManyStartsLowerSolver> fork(
      new ManyStartsLowerSolver(program_, main_->Fork(), options_));
  for (const Start& start : others_) {
    fork->others_.push_back({start.solver->Fork(), start.y, start.is_fresh});
  }
  fork->num_drawn_ = num_drawn_;
  return fork;
}

const LowerSolverCounts& ManyStartsLowerSolver::counts() const {
  counts_ = main_->counts();
  for (const Start& start : others_) counts_ += start.solver->counts();
  return counts_;
}

LowerSolverReport ManyStartsLowerSolver::Report() const {
  LowerSolverReport report = main_->Report();
  const std::string remark =
      "the least of the minima found from " + std::to_string(options_.num_starts) + " starts";
  report.remark = report.remark.empty() ? remark : report.remark + "; " + remark;
  return report;
}

bool ManyStartsLowerSolver::Remember(Memory* memory) {
  memory->Keep("num_drawn", &num_drawn_);
  bool all = true;
  {
    const Memory::Group group(memory, "main");
    all &= main_->Remember(memory);
  }
  for (size_t i = 0; i < others_.size(); ++i) {
    const Memory::Group group(memory, "start_" + std::to_string(i));
    others_[i].y.Remember("y", program_->y, memory);
    memory->Keep("is_fresh", &others_[i].is_fresh);
    all &= others_[i].solver->Remember(memory);
  }
  return all;
}

}  // namespace bilevel
