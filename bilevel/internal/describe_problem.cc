#include "bilevel/internal/describe_problem.h"

namespace bilevel {

void DescribeProblem(const Solver::Options& options,
                     const Program& program,
                     Solver::Summary* summary) {
  summary->num_threads_given = options.num_threads;
  summary->num_threads_used = program.pool.num_threads();
  summary->lower_hessian = options.lower_hessian;
  summary->num_upper_parameters = program.x.tangent_size();
  summary->num_scenarios = program.num_scenarios();
  Vector counts = Vector::Zero(4);
  counts[0] = program.y.tangent_size();
  for (const auto& s : program.scenarios) {
    counts[1] += s->f->num_residual_blocks();
    counts[2] += s->g->num_residual_blocks();
    counts[3] += s->g->num_exact_blocks();
  }
  counts = program.exchange.ByRank("describing the problem", nullptr, counts).rowwise().sum();
  summary->num_lower_parameters = static_cast<int>(counts[0]);
  summary->num_upper_residual_blocks = static_cast<int>(counts[1]);
  summary->num_lower_residual_blocks = static_cast<int>(counts[2]);
  summary->num_exact_residual_blocks = static_cast<int>(counts[3]);
  summary->num_numeric_residual_blocks =
      summary->num_lower_residual_blocks - summary->num_exact_residual_blocks;
}

}  // namespace bilevel
