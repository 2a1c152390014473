#include "bilevel/internal/summary_rows.h"

#include <cmath>
#include <functional>

#include "bilevel/base/internal/text.h"

namespace bilevel {
namespace {

using Summary = Solver::Summary;
using Rows = std::function<void(const std::string& name, const std::string& value)>;

void ReportSizes(const Summary& s, const Rows& row) {
  if (s.num_upper_parameters >= 0) {
    row("Upper parameters", std::to_string(s.num_upper_parameters));
    row("Lower parameters", std::to_string(s.num_lower_parameters));
    row("Scenarios", std::to_string(s.num_scenarios));
    row("Upper residual blocks", std::to_string(s.num_upper_residual_blocks));
    row("Lower residual blocks",
        Format("%d (second derivatives: %d exact, %d differenced)",
               s.num_lower_residual_blocks,
               s.num_exact_residual_blocks,
               s.num_numeric_residual_blocks));
    row("Threads", Format("%d given, %d used", s.num_threads_given, s.num_threads_used));
  }
  if (s.num_checkpoints > 0 || s.resumed_from_iteration >= 0) {
    row("Checkpoints",
        std::to_string(s.num_checkpoints) + " written" +
            (s.resumed_from_iteration < 0
                 ? ""
                 : ", after a start from iteration " + std::to_string(s.resumed_from_iteration)));
  }
  if (!s.checkpoint_error.empty()) row("Last checkpoint", s.checkpoint_error);
  if (s.lower_hessian == HessianKind::kGaussNewton) {
    row("Lower Hessian", "Gauss-Newton: derivatives are approximate");
  }
}

void ReportAnswer(const Summary& s, const Rows& row) {
  row("Objective, start", Format("%.10e", s.initial_objective));
  row("Objective, end", Format("%.10e", s.final_objective));
  row("Gradient max-norm at the end", Format("%.3e", s.final_gradient_max_norm));
  row("Lower level's distance to y*, relative", Format("%.1e", s.final_lower_level_decrement));
  row("Answer", NameOf(s.answer));
  if (s.reproducible_from_start == 0) {
    row("Not reproduced from the start's y",
        s.objective_from_start == -1.0 ? std::string("the lower level was not solved from there")
                                       : Format("phi is %.10e from there", s.objective_from_start));
  }
  if (s.final_lower_gap >= 0.0) {
    row("Lower level's gap before it was solved", Format("%.3e", s.final_lower_gap));
  }
  if (std::isfinite(s.final_objective_at_own_y)) {
    row("f at the method's own y, left there", Format("%.10e", s.final_objective_at_own_y));
  }
  if (std::isfinite(s.assessment.x_bias)) {
    row("Bias of x, estimated", Format("%.2e", s.assessment.x_bias));
  }
  if (std::isfinite(s.assessment.goldstein_norm)) {
    row("Goldstein stationarity, 95 %",
        Format("%.3e +- %.1e", s.assessment.goldstein_norm, s.assessment.goldstein_half_width));
  }
  for (const Assessment::Attempt& attempt : s.assessment.attempts) {
    row("Tried: " + attempt.method,
        Format("%d iterations, phi %.6e: ", attempt.num_iterations, attempt.objective) +
            attempt.ended);
  }
  for (const std::string& note : s.assessment.notes) row("Note", note);
  if (s.linear_residual >= 0.0) {
    row("Linear systems' residual, relative", Format("%.1e", s.linear_residual));
  }
  for (const auto& [name, value] : s.assessment.uncertainty.Rows(20)) row(name, value);
  for (const std::string& coordinate : s.active_upper_bounds) {
    row("Upper parameter on its bound", coordinate);
  }
  for (const std::string& direction : s.flat_upper_directions) {
    row("Flat direction of x, left unmoved", direction);
  }
  if (s.num_free_directions > 0) {
    row("Free directions of the lower level",
        std::to_string(s.num_free_directions) + ", in " + s.free_directions);
  }
  if (!s.lower_level_remark.empty()) row("Lower level", s.lower_level_remark);
  if (s.num_active_lower_bounds > 0) {
    row("Active lower-level bounds", std::to_string(s.num_active_lower_bounds));
  }
  if (!s.weakly_active_lower_bounds.empty()) {
    row("Weakly active (derivative one-sided)", s.weakly_active_lower_bounds);
  }
}

void ReportWork(const Summary& s, const Rows& row) {
  row("Steps accepted / rejected",
      Format("%d / %d", s.num_successful_steps, s.num_unsuccessful_steps));
  for (const Summary::Rejection& rejection : s.rejections) {
    row(Format("  Trials rejected: %d", rejection.count), rejection.reason);
  }
  row("Lower solves cold / warm / failed",
      Format("%ld / %ld / %ld",
             s.lower_solver.cold_solves,
             s.lower_solver.warm_solves,
             s.lower_solver.failed_solves));
  row("Factorisations (of them damped)",
      Format("%ld (%ld)", s.lower_solver.factorizations, s.lower_solver.damped_factorizations));
  const auto level = [&](const char* name, const FunctionCounts& counts, double epochs) {
    row(std::string(name) + ": values, gradients, products, Jacobians",
        Format("%ld, %ld, %ld, %ld",
               counts.values,
               counts.gradients,
               counts.products,
               counts.linearizations));
    const std::string ratio =
        std::isnan(epochs) ? " of a stream" : Format(" (%.4g epochs)", epochs);
    row("  samples in them", std::to_string(counts.samples) + ratio);
  };
  level("Upper level", s.upper, s.upper_epochs);
  level("Lower level", s.lower, s.lower_epochs);
}

void ReportSeconds(const Summary& s, const Rows& row) {
  row("Seconds, total", Format("%.3f", s.total_time_in_seconds));
  row("  ceres::Solve of the lower level", Format("%.3f", s.lower_solver.seconds_in_ceres));
  row("  lower level evaluation", Format("%.3f", s.lower_solver.seconds_in_evaluation));
  row("  lower level linear algebra", Format("%.3f", s.lower_solver.seconds_in_linear_algebra));
}

}  // namespace

const char* NameOf(AnswerKind kind) {
  switch (kind) {
    case AnswerKind::kStationary:
      return "stationary";
    case AnswerKind::kKink:
      return "kink";
    case AnswerKind::kJump:
      return "jump";
    case AnswerKind::kUndetermined:
      return "undetermined";
    case AnswerKind::kStuck:
      return "stuck";
    case AnswerKind::kLimit:
      return "limit";
    case AnswerKind::kNone:
      return "none";
  }
  return "none";
}

std::vector<SummaryGroup> SummaryRows(const Solver::Summary& summary) {
  std::vector<SummaryGroup> groups;
  const Rows row = [&](const std::string& name, const std::string& value) {
    groups.back().rows.emplace_back(name, value);
  };
  const auto begin = [&](const char* title) { groups.push_back({title, {}}); };
  begin("Problem");
  row("Method", summary.method.empty() ? "none" : summary.method);
  ReportSizes(summary, row);
  if (!summary.iterations.empty()) {
    begin("Answer");
    ReportAnswer(summary, row);
    begin("Work");
    ReportWork(summary, row);
    begin("Time");
    ReportSeconds(summary, row);
  }
  begin("Termination");
  row("Termination",
      std::string(ceres::TerminationTypeToString(summary.termination_type)) + " (" +
          summary.message + ")");
  return groups;
}

}  // namespace bilevel
