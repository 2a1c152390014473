#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <sstream>

#include "bilevel/base/internal/json_quote.h"
#include "bilevel/internal/iteration_fields.h"
#include "bilevel/solver.h"

namespace bilevel {
namespace {

using Summary = Solver::Summary;

std::string Format(const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof(buffer), format, arguments);
  va_end(arguments);
  return buffer;
}

// JSON has no NaN.
std::string JsonNumber(double value) {
  return std::isfinite(value) ? Format("%.17g", value) : std::string("null");
}

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

// The lines of FullReport.
class Rows {
 public:
  void operator()(const std::string& name, const std::string& value) {
    out_ << Format("%-41s ", name.c_str()) << value << "\n";
  }
  void Gap() { out_ << "\n"; }
  void Title(const std::string& title) { out_ << "\n" << title << "\n\n"; }
  std::string str() const { return out_.str(); }

 private:
  std::ostringstream out_;
};

void ReportSizes(const Summary& s, Rows& row) {
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

void ReportAnswer(const Summary& s, Rows& row) {
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

void ReportWork(const Summary& s, Rows& row) {
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

void ReportSeconds(const Summary& s, Rows& row) {
  row("Seconds, total", Format("%.3f", s.total_time_in_seconds));
  row("  ceres::Solve of the lower level", Format("%.3f", s.lower_solver.seconds_in_ceres));
  row("  lower level evaluation", Format("%.3f", s.lower_solver.seconds_in_evaluation));
  row("  lower level linear algebra", Format("%.3f", s.lower_solver.seconds_in_linear_algebra));
}

}  // namespace

std::string Solver::Summary::BriefReport() const {
  std::string report = Format(
      "bilevel report: method %s, iterations %d, initial objective %.6e, final objective "
      "%.6e, termination %s",
      method.empty() ? "none" : method.c_str(),
      iterations.empty() ? 0 : iterations.back().iteration,
      initial_objective,
      final_objective,
      ceres::TerminationTypeToString(termination_type));
  for (const std::string& note : assessment.notes) report += "\n  Note: " + note + ".";
  return report;
}

std::string Solver::Summary::FullReport() const {
  Rows row;
  row.Title("Bilevel summary");
  row("Method", method.empty() ? "none" : method);
  ReportSizes(*this, row);
  if (!iterations.empty()) {
    row.Gap();
    ReportAnswer(*this, row);
    row.Gap();
    ReportWork(*this, row);
    row.Gap();
    ReportSeconds(*this, row);
  }
  row.Gap();
  row("Termination",
      std::string(ceres::TerminationTypeToString(termination_type)) + " (" + message + ")");
  return row.str();
}

std::string Solver::Summary::Csv() const {
  std::ostringstream out;
  for (const IterationField& field : IterationFields()) {
    out << (&field == &IterationFields().front() ? "" : ",") << field.name;
  }
  const size_t size = iterations.empty() ? 0 : iterations.front().x.size();
  for (size_t i = 0; i < size; ++i) out << ",x" << i;
  // Standard errors are those of the answer, the last iterate accepted.
  const Uncertainty& uncertainty = assessment.uncertainty;
  const Vector errors = uncertainty.available() ? uncertainty.standard_errors() : Vector();
  for (int i = 0; i < errors.size(); ++i) out << ",standard_error" << i;
  out << "\n";
  const auto last_accepted =
      std::find_if(iterations.rbegin(), iterations.rend(), [](const IterationSummary& it) {
        return it.step_is_successful;
      });
  for (const IterationSummary& it : iterations) {
    for (const IterationField& field : IterationFields()) {
      out << Format(&field == &IterationFields().front() ? "%.17g" : ",%.17g", field.value(it));
    }
    for (const double coordinate : it.x) out << Format(",%.17g", coordinate);
    const bool is_answer = last_accepted != iterations.rend() && &it == &*last_accepted;
    for (double error : errors) out << Format(",%.17g", is_answer ? error : std::nan(""));
    out << "\n";
  }
  return out.str();
}

std::string Solver::Summary::Json() const {
  std::ostringstream out;
  out << "{\n";
  out << "  \"method\": " << JsonQuote(method) << ",\n";
  out << "  \"termination_type\": " << JsonQuote(ceres::TerminationTypeToString(termination_type))
      << ",\n";
  out << "  \"answer\": " << JsonQuote(NameOf(answer)) << ",\n";
  out << "  \"message\": " << JsonQuote(message) << ",\n";
  out << "  \"initial_objective\": " << JsonNumber(initial_objective) << ",\n";
  out << "  \"final_objective\": " << JsonNumber(final_objective) << ",\n";
  out << "  \"final_gradient_max_norm\": " << JsonNumber(final_gradient_max_norm) << ",\n";
  out << "  \"final_lower_level_decrement\": " << JsonNumber(final_lower_level_decrement) << ",\n";
  out << "  \"reproducible_from_start\": " << reproducible_from_start << ",\n";
  out << "  \"objective_from_start\": " << JsonNumber(objective_from_start) << ",\n";
  out << "  \"final_lower_gap\": " << JsonNumber(final_lower_gap) << ",\n";
  out << "  \"final_objective_at_own_y\": " << JsonNumber(final_objective_at_own_y) << ",\n";
  out << "  \"x_bias\": " << JsonNumber(assessment.x_bias) << ",\n";
  out << "  \"goldstein_norm\": " << JsonNumber(assessment.goldstein_norm) << ",\n";
  out << "  \"goldstein_half_width\": " << JsonNumber(assessment.goldstein_half_width) << ",\n";
  out << "  \"num_successful_steps\": " << num_successful_steps << ",\n";
  out << "  \"num_unsuccessful_steps\": " << num_unsuccessful_steps << ",\n";
  out << "  \"rejections\": {";
  for (size_t i = 0; i < rejections.size(); ++i) {
    out << (i ? ", " : "") << JsonQuote(rejections[i].reason) << ": " << rejections[i].count;
  }
  out << "},\n";
  out << "  \"num_upper_parameters\": " << num_upper_parameters << ",\n";
  out << "  \"num_lower_parameters\": " << num_lower_parameters << ",\n";
  out << "  \"num_exact_residual_blocks\": " << num_exact_residual_blocks << ",\n";
  out << "  \"num_numeric_residual_blocks\": " << num_numeric_residual_blocks << ",\n";
  out << "  \"num_free_directions\": " << num_free_directions << ",\n";
  out << "  \"free_directions\": " << JsonQuote(free_directions) << ",\n";
  out << "  \"cold_solves\": " << lower_solver.cold_solves << ",\n";
  out << "  \"warm_solves\": " << lower_solver.warm_solves << ",\n";
  out << "  \"failed_solves\": " << lower_solver.failed_solves << ",\n";
  out << "  \"factorizations\": " << lower_solver.factorizations << ",\n";
  const auto level = [&](const char* name, const FunctionCounts& counts, double epochs) {
    out << "  " << JsonQuote(name)
        << Format(
               ": {\"values\": %ld, \"gradients\": %ld, \"products\": %ld, \"jacobians\": %ld, "
               "\"samples\": %ld, \"epochs\": ",
               counts.values,
               counts.gradients,
               counts.products,
               counts.linearizations,
               counts.samples)
        << JsonNumber(epochs) << "},\n";
  };
  level("upper", upper, upper_epochs);
  level("lower", lower, lower_epochs);
  out << "  \"trace\": {";
  for (const IterationField& field : IterationFields()) {
    out << (&field == &IterationFields().front() ? "\n    " : ",\n    ") << JsonQuote(field.name)
        << ": [";
    for (size_t i = 0; i < iterations.size(); ++i) {
      out << (i ? ", " : "") << JsonNumber(field.value(iterations[i]));
    }
    out << "]";
  }
  out << "\n  },\n";
  out << "  \"total_time_in_seconds\": " << JsonNumber(total_time_in_seconds) << ",\n";
  out << "  \"x\": [";
  for (size_t i = 0; i < x.size(); ++i) out << (i ? ", " : "") << JsonNumber(x[i]);
  out << "]";
  if (const Uncertainty& u = assessment.uncertainty; u.available()) {
    // An infinite standard error is null.
    out << ",\n  \"noise_variance\": " << JsonNumber(u.noise_variance());
    out << ",\n  \"degrees_of_freedom\": " << u.degrees_of_freedom();
    out << ",\n  \"standard_errors\": [";
    const Vector errors = u.standard_errors();
    for (int i = 0; i < errors.size(); ++i) out << (i ? ", " : "") << JsonNumber(errors[i]);
    out << "]";
  }
  out << "\n}\n";
  return out.str();
}

}  // namespace bilevel
