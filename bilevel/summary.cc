#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <sstream>

#include "bilevel/internal/iteration_fields.h"
#include "bilevel/solver.h"

namespace bilevel {
namespace {

std::string Format(const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof(buffer), format, arguments);
  va_end(arguments);
  return buffer;
}

// JSON has no NaN.
std::string Number(double value) {
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

std::string Quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += Format("\\u%04x", c);
    } else {
      out += c;
    }
  }
  return out + "\"";
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
  std::ostringstream out;
  out << "\nBilevel summary\n\n";
  const auto row = [&](const char* name, const std::string& value) {
    out << Format("%-42s", name) << value << "\n";
  };
  row("Method", method.empty() ? "none" : method);
  if (num_upper_parameters >= 0) {
    row("Upper parameters", std::to_string(num_upper_parameters));
    row("Lower parameters", std::to_string(num_lower_parameters));
    row("Scenarios", std::to_string(num_scenarios));
    row("Upper residual blocks", std::to_string(num_upper_residual_blocks));
    row("Lower residual blocks",
        Format("%d (second derivatives: %d exact, %d differenced)",
               num_lower_residual_blocks,
               num_exact_residual_blocks,
               num_numeric_residual_blocks));
    row("Threads", Format("%d given, %d used", num_threads_given, num_threads_used));
  }
  if (lower_hessian == HessianKind::kGaussNewton) {
    row("Lower Hessian", "Gauss-Newton: derivatives are approximate");
  }
  if (!iterations.empty()) {
    out << "\n";
    row("Objective, start", Format("%.10e", initial_objective));
    row("Objective, end", Format("%.10e", final_objective));
    row("Gradient max-norm at the end", Format("%.3e", final_gradient_max_norm));
    row("Lower level's distance to y*, relative", Format("%.1e", final_lower_level_decrement));
    row("Answer", NameOf(answer));
    if (reproducible_from_start == 0) {
      row("Not reproduced from the start's y",
          Format("phi is %.10e from there", objective_from_start));
    }
    if (final_lower_gap >= 0.0) {
      row("Lower level's gap before it was solved", Format("%.3e", final_lower_gap));
    }
    if (std::isfinite(assessment.x_bias)) {
      row("Bias of x, estimated", Format("%.2e", assessment.x_bias));
    }
    if (std::isfinite(assessment.goldstein_norm)) {
      row("Goldstein stationarity, 95 %",
          Format("%.3e +- %.1e", assessment.goldstein_norm, assessment.goldstein_half_width));
    }
    for (const Assessment::Attempt& attempt : assessment.attempts) {
      row(("Tried: " + attempt.method).c_str(),
          Format("%d iterations, phi %.6e: ", attempt.num_iterations, attempt.objective) +
              attempt.ended);
    }
    for (const std::string& note : assessment.notes) row("Note", note);
    if (linear_residual >= 0.0) {
      row("Linear systems' residual, relative", Format("%.1e", linear_residual));
    }
    for (const auto& [name, value] : assessment.uncertainty.Rows(20)) row(name.c_str(), value);
    for (const std::string& coordinate : active_upper_bounds) {
      row("Upper parameter on its bound", coordinate);
    }
    for (const std::string& direction : flat_upper_directions) {
      row("Flat direction of x, left unmoved", direction);
    }
    if (num_free_directions > 0) {
      row("Free directions of the lower level",
          std::to_string(num_free_directions) + ", in " + free_directions);
    }
    if (!lower_level_remark.empty()) row("Lower level", lower_level_remark);
    if (num_active_lower_bounds > 0) {
      row("Active lower-level bounds", std::to_string(num_active_lower_bounds));
    }
    if (!weakly_active_lower_bounds.empty()) {
      row("Weakly active (derivative one-sided)", weakly_active_lower_bounds);
    }
    out << "\n";
    row("Steps accepted / rejected",
        Format("%d / %d", num_successful_steps, num_unsuccessful_steps));
    for (const Rejection& rejection : rejections) {
      row(Format("  Trials rejected: %d", rejection.count).c_str(), rejection.reason);
    }
    row("Lower solves cold / warm / failed",
        Format("%ld / %ld / %ld",
               lower_solver.cold_solves,
               lower_solver.warm_solves,
               lower_solver.failed_solves));
    row("Factorisations (of them damped)",
        Format("%ld (%ld)", lower_solver.factorizations, lower_solver.damped_factorizations));
    const auto level = [&](const char* name, const FunctionCounts& counts, double epochs) {
      row((std::string(name) + ": values, gradients, products, Jacobians").c_str(),
          Format("%ld, %ld, %ld, %ld",
                 counts.values,
                 counts.gradients,
                 counts.products,
                 counts.linearizations));
      const std::string ratio =
          std::isnan(epochs) ? " of a stream" : Format(" (%.4g epochs)", epochs);
      row("  samples in them", std::to_string(counts.samples) + ratio);
    };
    level("Upper level", upper, upper_epochs);
    level("Lower level", lower, lower_epochs);
    out << "\n";
    row("Seconds, total", Format("%.3f", total_time_in_seconds));
    row("  ceres::Solve of the lower level", Format("%.3f", lower_solver.seconds_in_ceres));
    row("  lower level evaluation", Format("%.3f", lower_solver.seconds_in_evaluation));
    row("  lower level linear algebra", Format("%.3f", lower_solver.seconds_in_linear_algebra));
  }
  out << "\n";
  row("Termination",
      std::string(ceres::TerminationTypeToString(termination_type)) + " (" + message + ")");
  return out.str();
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
    for (double x : it.x) out << Format(",%.17g", x);
    const bool is_answer = last_accepted != iterations.rend() && &it == &*last_accepted;
    for (double error : errors) out << Format(",%.17g", is_answer ? error : std::nan(""));
    out << "\n";
  }
  return out.str();
}

std::string Solver::Summary::Json() const {
  std::ostringstream out;
  out << "{\n";
  out << "  \"method\": " << Quote(method) << ",\n";
  out << "  \"termination_type\": " << Quote(ceres::TerminationTypeToString(termination_type))
      << ",\n";
  out << "  \"answer\": " << Quote(NameOf(answer)) << ",\n";
  out << "  \"message\": " << Quote(message) << ",\n";
  out << "  \"initial_objective\": " << Number(initial_objective) << ",\n";
  out << "  \"final_objective\": " << Number(final_objective) << ",\n";
  out << "  \"final_gradient_max_norm\": " << Number(final_gradient_max_norm) << ",\n";
  out << "  \"final_lower_level_decrement\": " << Number(final_lower_level_decrement) << ",\n";
  out << "  \"reproducible_from_start\": " << reproducible_from_start << ",\n";
  out << "  \"objective_from_start\": " << Number(objective_from_start) << ",\n";
  out << "  \"final_lower_gap\": " << Number(final_lower_gap) << ",\n";
  out << "  \"x_bias\": " << Number(assessment.x_bias) << ",\n";
  out << "  \"goldstein_norm\": " << Number(assessment.goldstein_norm) << ",\n";
  out << "  \"goldstein_half_width\": " << Number(assessment.goldstein_half_width) << ",\n";
  out << "  \"num_successful_steps\": " << num_successful_steps << ",\n";
  out << "  \"num_unsuccessful_steps\": " << num_unsuccessful_steps << ",\n";
  out << "  \"rejections\": {";
  for (size_t i = 0; i < rejections.size(); ++i) {
    out << (i ? ", " : "") << Quote(rejections[i].reason) << ": " << rejections[i].count;
  }
  out << "},\n";
  out << "  \"num_upper_parameters\": " << num_upper_parameters << ",\n";
  out << "  \"num_lower_parameters\": " << num_lower_parameters << ",\n";
  out << "  \"num_exact_residual_blocks\": " << num_exact_residual_blocks << ",\n";
  out << "  \"num_numeric_residual_blocks\": " << num_numeric_residual_blocks << ",\n";
  out << "  \"num_free_directions\": " << num_free_directions << ",\n";
  out << "  \"free_directions\": " << Quote(free_directions) << ",\n";
  out << "  \"cold_solves\": " << lower_solver.cold_solves << ",\n";
  out << "  \"warm_solves\": " << lower_solver.warm_solves << ",\n";
  out << "  \"failed_solves\": " << lower_solver.failed_solves << ",\n";
  out << "  \"factorizations\": " << lower_solver.factorizations << ",\n";
  const auto level = [&](const char* name, const FunctionCounts& counts, double epochs) {
    out << "  " << Quote(name)
        << Format(
               ": {\"values\": %ld, \"gradients\": %ld, \"products\": %ld, \"jacobians\": %ld, "
               "\"samples\": %ld, \"epochs\": ",
               counts.values,
               counts.gradients,
               counts.products,
               counts.linearizations,
               counts.samples)
        << Number(epochs) << "},\n";
  };
  level("upper", upper, upper_epochs);
  level("lower", lower, lower_epochs);
  out << "  \"trace\": {";
  for (const IterationField& field : IterationFields()) {
    out << (&field == &IterationFields().front() ? "\n    " : ",\n    ") << Quote(field.name)
        << ": [";
    for (size_t i = 0; i < iterations.size(); ++i) {
      out << (i ? ", " : "") << Number(field.value(iterations[i]));
    }
    out << "]";
  }
  out << "\n  },\n";
  out << "  \"total_time_in_seconds\": " << Number(total_time_in_seconds) << ",\n";
  out << "  \"x\": [";
  const size_t size = iterations.empty() ? 0 : iterations.back().x.size();
  for (size_t i = 0; i < size; ++i) {
    out << (i ? ", " : "") << Number(iterations.back().x[i]);
  }
  out << "]";
  if (const Uncertainty& u = assessment.uncertainty; u.available()) {
    // An infinite standard error is null.
    out << ",\n  \"noise_variance\": " << Number(u.noise_variance());
    out << ",\n  \"degrees_of_freedom\": " << u.degrees_of_freedom();
    out << ",\n  \"standard_errors\": [";
    const Vector errors = u.standard_errors();
    for (int i = 0; i < errors.size(); ++i) out << (i ? ", " : "") << Number(errors[i]);
    out << "]";
  }
  out << "\n}\n";
  return out.str();
}

}  // namespace bilevel
