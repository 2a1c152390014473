#include "bilevel/internal/describe_problem.h"

namespace bilevel {

void DescribeProblem(const Solver::Options& options,
                     const Program& program,
                     Solver::Summary* summary) {
  summary->num_threads_given = options.num_threads;
  summary->num_threads_used = program.pool.num_threads();
  summary->lower_hessian = options.lower_hessian;
  summary->num_upper_parameters = program.x.tangent_size();
  summary->num_lower_parameters = program.y.tangent_size();
  summary->num_scenarios = static_cast<int>(program.scenarios.size());
  summary->num_upper_residual_blocks = summary->num_lower_residual_blocks = 0;
  summary->num_exact_residual_blocks = 0;
  for (const auto& s : program.scenarios) {
    summary->num_upper_residual_blocks += s->f->num_residual_blocks();
    summary->num_lower_residual_blocks += s->g->num_residual_blocks();
    summary->num_exact_residual_blocks += s->g->num_exact_blocks();
  }
  summary->num_numeric_residual_blocks =
      summary->num_lower_residual_blocks - summary->num_exact_residual_blocks;
}

}  // namespace bilevel
