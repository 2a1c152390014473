#include <algorithm>
#include <cmath>
#include <sstream>

#include "bilevel/base/internal/text.h"
#include "bilevel/internal/iteration_fields.h"
#include "bilevel/internal/summary_rows.h"
#include "bilevel/solver.h"

namespace bilevel {
namespace {

// JSON has no NaN.
std::string JsonNumber(double value) {
  return std::isfinite(value) ? Format("%.17g", value) : std::string("null");
}

}  // namespace

std::string Solver::Summary::BriefReport() const {
  std::string report = Format(
      "bilevel report: method %s, iterations %ld, initial objective %.6e, final objective "
      "%.6e, termination %s",
      method.empty() ? "none" : method.c_str(),
      iterations.empty() ? 0L : iterations.back().iteration,
      initial_objective,
      final_objective,
      ceres::TerminationTypeToString(termination_type));
  for (const std::string& note : assessment.notes) report += "\n  Note: " + note + ".";
  return report;
}

std::string Solver::Summary::FullReport() const {
  std::string report = "\nBilevel summary\n";
  for (const SummaryGroup& group : SummaryRows(*this)) {
    report += "\n";
    for (const auto& [name, value] : group.rows) {
      report += Format("%-41s ", name.c_str()) + value + "\n";
    }
  }
  return report;
}

std::string Solver::Summary::Csv() const {
  std::ostringstream out;
  for (const IterationField& field : IterationFields()) {
    out << (&field == &IterationFields().front() ? "" : ",") << field.name;
  }
  const size_t size = iterations.empty() ? 0L : iterations.front().x.size();
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
