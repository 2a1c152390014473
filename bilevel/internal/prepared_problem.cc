#include "bilevel/internal/prepared_problem.h"

#include <utility>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/lower_level/constrained_lower_solver.h"
#include "bilevel/lower_level/many_starts_lower_solver.h"
#include "bilevel/lower_level/newton_cg_lower_solver.h"

namespace bilevel {
namespace {

// The user's own, or by products where a term is too long for a matrix, or Newton's method.
std::unique_ptr<LowerSolver> MakeOne(const Solver::Options& options, Program* program) {
  if (options.lower_solver) return options.lower_solver(program);
  for (const auto& scenario : program->scenarios) {
    if (scenario->g->has_sparse_hessian()) continue;
    NewtonCgLowerSolver::Options matrix_free;
    matrix_free.tolerance = options.lower_tolerance;
    return std::make_unique<NewtonCgLowerSolver>(program, matrix_free);
  }
  return MakeNewtonLowerSolver(program, options.LowerSolverOptions());
}

}  // namespace

std::unique_ptr<LowerSolver> MakeLowerSolver(const Solver::Options& options, Program* program) {
  if (options.lower_starts == 1) return MakeOne(options, program);
  ManyStartsLowerSolver::Options starts;
  starts.num_starts = options.lower_starts;
  starts.spread = options.lower_start_spread;
  starts.seed = options.seed;
  return std::make_unique<ManyStartsLowerSolver>(
      program, [&] { return MakeOne(options, program); }, starts);
}

std::unique_ptr<PreparedProblem> PreparedProblem::Create(const Solver::Options& options,
                                                         const Needs& needs,
                                                         Problem* problem,
                                                         std::string* error) {
  const auto fail = [error](const std::string& what) {
    if (error) *error = what;
    return nullptr;
  };
  if (!problem) return fail("the problem is null");
  if (!options.IsValid(error)) return nullptr;
  Problem::CompileOptions compile = needs.compile;
  compile.num_threads = options.num_threads;
  std::string what;
  std::unique_ptr<PreparedProblem> prepared(new PreparedProblem(options, needs.scenario_groups));
  prepared->program_ = problem->Compile(compile, &what);
  if (!prepared->program_) return fail(what);
  if (what = Thrown([&] { prepared->Restart(); }); !what.empty()) {
    return fail("making the lower solver" + what);
  }
  const LowerSolver* const lower = prepared->lower_.get();
  if (!lower) return fail("options.lower_solver returned no lower solver");
  if (what = lower->CheckOptions(); !what.empty()) return fail(what);
  const std::string constraint = prepared->program_->FirstConstraint();
  if (!constraint.empty() && !lower->takes_constraints()) {
    return fail("the lower level has constraints, as is " + constraint +
                ", of which its lower solver knows nothing: ConstrainedLowerSolver does, the "
                "default but where a general term is too long for a matrix");
  }
  if (needs.derivative) {
    if (what = lower->WhyNoDerivative(); !what.empty()) return fail(what);
  }
  return prepared;
}

void PreparedProblem::Restart() {
  oracle_.reset();
  groups_ = nullptr;
  const auto make_lower = [this](Program* of) { return MakeLowerSolver(options_, of); };
  const int per_iteration = options_.num_scenarios_per_iteration;
  if (in_groups_ && per_iteration > 0 &&
      per_iteration < static_cast<int>(program_->scenarios.size())) {
    auto groups = std::make_unique<ScenarioGroups>(program_.get(), per_iteration, make_lower);
    groups_ = groups.get();
    lower_ = std::move(groups);
  } else {
    lower_ = make_lower(program_.get());
  }
}

Oracle& PreparedProblem::oracle() {
  if (!oracle_) oracle_ = std::make_unique<Oracle>(program_.get(), lower_.get(), options_.seed);
  return *oracle_;
}

State PreparedProblem::Start() const {
  State state;
  state.x = Point(&program_->x);
  state.y = Point(&program_->y);
  program_->x.ReadUser(state.x.value().data());
  program_->y.ReadUser(state.y.value().data());
  return state;
}

void PreparedProblem::WriteUser(const Point& x, const Point& y) const {
  program_->x.WriteUser(x.value().data());
  program_->y.WriteUser(y.value().data());
}

}  // namespace bilevel
