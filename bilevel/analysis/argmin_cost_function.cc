#include "bilevel/analysis/argmin_cost_function.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/internal/prepared_problem.h"
#include "bilevel/program/program.h"

namespace bilevel {
namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// One for all functions of a problem: a cold solve works on the user's memory.
std::shared_ptr<std::mutex> MutexOf(const Problem* problem) {
  static std::mutex mutex;
  static std::unordered_map<const Problem*, std::weak_ptr<std::mutex>> mutexes;
  std::lock_guard<std::mutex> lock(mutex);
  for (auto it = mutexes.begin(); it != mutexes.end();) {
    it = it->second.expired() ? mutexes.erase(it) : std::next(it);
  }
  std::shared_ptr<std::mutex> found = mutexes[problem].lock();
  if (!found) mutexes[problem] = found = std::make_shared<std::mutex>();
  return found;
}

}  // namespace

struct ArgminCostFunction::Implementation {
  std::mutex mutex;  // Of what is below.
  std::shared_ptr<std::mutex> problem_mutex;
  std::unique_ptr<PreparedProblem> prepared;
  Program* program = nullptr;
  LowerSolver* solver = nullptr;
  std::vector<int> blocks;  // Of y.
  Point x, y;
  std::string error;

  bool Fail(const std::string& what) {
    error = what;
    return false;
  }

  bool Evaluate(double const* const* parameters, double* residuals, double** jacobians) {
    for (size_t b = 0; b < program->x.blocks().size(); ++b) {
      const Space::Block& block = program->x.blocks()[b];
      std::copy_n(parameters[b], block.size, x.value().data() + block.offset);
    }
    if (!solver->Solve(x, &y)) return Fail(solver->message());
    double* out = residuals;
    for (int b : blocks) {
      const Space::Block& block = program->y.blocks()[b];
      out = std::copy_n(y.value().data() + block.offset, block.size, out);
    }
    if (!jacobians) return true;
    if (!solver->Differentiate(x, y)) return Fail(solver->message());
    const Matrix& dy_dx = solver->dy_dx();
    if (!dy_dx.allFinite()) return Fail(solver->message());
    RowMatrix ambient;
    for (size_t u = 0; u < program->x.blocks().size(); ++u) {
      if (!jacobians[u]) continue;
      const Space::Block& columns = program->x.blocks()[u];
      double* to = jacobians[u];
      for (int b : blocks) {
        const Space::Block& rows = program->y.blocks()[b];
        ambient = dy_dx.block(
            rows.tangent_offset, columns.tangent_offset, rows.tangent_size, columns.tangent_size);
        if (rows.manifold) {
          RowMatrix plus(rows.size, rows.tangent_size);
          if (!rows.manifold->PlusJacobian(y.value().data() + rows.offset, plus.data())) {
            return Fail("the manifold of " + rows.name + " could not be differentiated");
          }
          ambient = (plus * ambient).eval();
        }
        if (columns.manifold) {
          RowMatrix minus(columns.tangent_size, columns.size);
          if (!columns.manifold->MinusJacobian(x.value().data() + columns.offset, minus.data())) {
            return Fail("the manifold of " + columns.name + " could not be differentiated");
          }
          ambient = (ambient * minus).eval();
        }
        to = std::copy_n(ambient.data(), ambient.size(), to);
      }
    }
    return true;
  }
};

ArgminCostFunction::ArgminCostFunction(const Solver::Options& options,
                                       Problem* problem,
                                       const std::vector<const double*>& lower_blocks)
    : implementation_(std::make_unique<Implementation>()) {
  Implementation& s = *implementation_;
  set_num_residuals(1);  // Until there is something to say.
  if (!problem) {
    s.error = "the problem is null";
    return;
  }
  if (!options.IsValid(&s.error)) return;
  s.problem_mutex = MutexOf(problem);
  std::lock_guard<std::mutex> lock(*s.problem_mutex);
  PreparedProblem::Needs needs;
  needs.compile.need_f = needs.compile.need_x = false;
  needs.derivative = true;
  s.prepared = PreparedProblem::Create(options, needs, problem, &s.error);
  if (!s.prepared) return;
  s.program = &s.prepared->program();
  int num_residuals = 0;
  for (const double* user : lower_blocks) {
    const int index = s.program->y.Find(user);
    if (index < 0) {
      s.error = "a requested block is not variable in the lower level";
      return;
    }
    s.blocks.push_back(index);
    num_residuals += s.program->y.blocks()[index].size;
  }
  if (num_residuals == 0) {
    s.error = "no lower-level block was requested";
    return;
  }
  set_num_residuals(num_residuals);
  for (const Space::Block& block : s.program->x.blocks()) {
    mutable_parameter_block_sizes()->push_back(block.size);
  }
  s.solver = &s.prepared->lower();
  const State start = s.prepared->Start();
  s.x = start.x;
  s.y = start.y;
}

ArgminCostFunction::~ArgminCostFunction() = default;

bool ArgminCostFunction::ok() const { return implementation_->solver != nullptr; }

std::string ArgminCostFunction::error() const {
  std::lock_guard<std::mutex> lock(implementation_->mutex);
  return implementation_->error;
}

bool ArgminCostFunction::Evaluate(double const* const* parameters,
                                  double* residuals,
                                  double** jacobians) const {
  Implementation& s = *implementation_;
  if (!s.solver) return false;
  std::scoped_lock lock(s.mutex, *s.problem_mutex);
  bool is_evaluated = false;
  const std::string thrown =
      Thrown([&] { is_evaluated = s.Evaluate(parameters, residuals, jacobians); });
  return thrown.empty() ? is_evaluated : s.Fail("evaluating it" + thrown);
}

}  // namespace bilevel
