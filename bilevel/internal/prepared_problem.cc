#include "bilevel/internal/prepared_problem.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/join_ranks.h"
#include "bilevel/lower_level/constrained_lower_solver.h"
#include "bilevel/lower_level/many_starts_lower_solver.h"
#include "bilevel/lower_level/newton_cg_lower_solver.h"

namespace bilevel {
namespace {

// The user's own, or by products where a term is too long for a matrix, or Newton's method.
std::unique_ptr<LowerSolver> MakeOne(const Solver::Options& options, Program* program) {
  if (options.lower_solver) return options.lower_solver(program);
  const auto& scenarios = program->scenarios;
  const bool is_too_long =
      program->exchange.Any(std::any_of(scenarios.begin(), scenarios.end(), [](const auto& s) {
        return !s->g->has_sparse_hessian();
      }));
  if (!is_too_long) return MakeNewtonLowerSolver(program, options.LowerSolverOptions());
  NewtonCgLowerSolver::Options matrix_free;
  matrix_free.tolerance = options.lower_tolerance;
  return std::make_unique<NewtonCgLowerSolver>(program, matrix_free);
}

// What the ranks' options have in common: all that the run depends on and can be told.
std::vector<std::string> Describe(const Solver::Options& options) {
  const auto line = [](const char* name, double value) {
    return std::string("options.") + name + " = " + Number(value);
  };
  return {
      "options.method " + options.method->name(),
      std::string(options.lower_solver ? "an" : "no") + " options.lower_solver",
      line("lower_solver_options.max_num_iterations",
           options.lower_solver_options.max_num_iterations),
      line("lower_solver_options.function_tolerance",
           options.lower_solver_options.function_tolerance),
      line("lower_solver_options.linear_solver_type",
           options.lower_solver_options.linear_solver_type),
      line("lower_tolerance", options.lower_tolerance),
      line("max_num_lower_newton_iterations", options.max_num_lower_newton_iterations),
      line("singular_handling", static_cast<int>(options.singular_handling)),
      line("lower_hessian", static_cast<int>(options.lower_hessian)),
      line("lower_starts", options.lower_starts),
      line("check_from_start", options.check_from_start),
      line("max_num_iterations", options.max_num_iterations),
      line("gradient_tolerance", options.gradient_tolerance),
      line("function_tolerance", options.function_tolerance),
      line("parameter_tolerance", options.parameter_tolerance),
      line("num_scenarios_per_iteration", options.num_scenarios_per_iteration),
      line("seed", options.seed),
  };
}

// Whether options and what is asked make sense, and are the same, on all ranks; a sentence if not.
std::string CheckRanks(const Solver::Options& options,
                       const PreparedProblem::Needs& needs,
                       const std::string& complaint,
                       Ranks* ranks) {
  const std::string first = Exchange(ranks, {}).Complaint("checking options", complaint);
  if (!first.empty()) return first;
  if (!needs.ranks) {
    return "a problem that is shared among ranks is for Solve, ComputeUncertainty and "
           "HypergradientChecker only";
  }
  if (!options.checkpoint.file.empty() && ranks->size() > 1) {
    return "options.checkpoint: ranks that share a problem write no checkpoints";
  }
  return DifferenceBetween(ranks, "comparing options", Describe(options));
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
  std::string what;
  const bool is_valid = options.IsValid(&what);
  if (problem->ranks()) what = CheckRanks(options, needs, is_valid ? "" : what, problem->ranks());
  if (!is_valid || !what.empty()) return fail(what);
  Problem::CompileOptions compile = needs.compile;
  compile.num_threads = options.num_threads;
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
  if (!prepared->program_->exchange.is_alone() && !lower->takes_ranks()) {
    return fail(
        "a problem that is shared among ranks wants a lower solver that knows of them: "
        "NewtonLowerSolver and ConstrainedLowerSolver do, from one start (lower_starts)");
  }
  const std::string projected = prepared->program_->FirstProjectedOnly();
  if (!projected.empty() && !lower->projects()) {
    return fail("of " + projected +
                " only the projection is known, and the lower solver does not project: Sgm in "
                "options.lower_solver does");
  }
  const bool projects =
      lower->projects() && prepared->program_->FirstConstraintBesideSets().empty();
  if (!constraint.empty() && !lower->takes_constraints() && !projects) {
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
  if (in_groups_ && per_iteration > 0 && per_iteration < program_->num_scenarios()) {
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
  state.y.ProjectOnSets();
  return state;
}

void PreparedProblem::WriteUser(const Point& x, const Point& y) const {
  program_->x.WriteUser(x.value().data());
  program_->y.WriteUser(y.value().data());
}

}  // namespace bilevel
