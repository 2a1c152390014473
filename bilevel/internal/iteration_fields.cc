#include "bilevel/internal/iteration_fields.h"

#include <cmath>
#include <cstdio>

namespace bilevel {

const std::vector<IterationField>& IterationFields() {
  using It = const IterationSummary&;
  static const auto* const fields = new std::vector<IterationField>{
      {"iteration", [](It it) { return double(it.iteration); }, "iter", "%4.0f"},
      {"objective", [](It it) { return it.objective; }, "    objective ", "% 13.6e"},
      {"objective_change", [](It it) { return it.objective_change; }, "     change", " % 10.2e"},
      {"upper_value", [](It it) { return it.upper_value; }},
      {"held_out", [](It it) { return it.held_out; }},
      {"lower_gap", [](It it) { return it.lower_gap; }},
      {"kkt_loss", [](It it) { return it.kkt_loss; }},
      {"gradient_max_norm", [](It it) { return it.gradient_max_norm; }, "  |gradient|", " % 11.2e"},
      {"step_norm", [](It it) { return it.step_norm; }, "    |step|", " % 9.2e"},
      {"trust_region_radius",
       [](It it) { return it.trust_region_radius; },
       " tr_radius",
       " % 9.2e"},
      {"successful", [](It it) { return it.step_is_successful ? 1.0 : 0.0; }},
      {"lower_level_decrement",
       [](It it) { return it.lower_level_decrement; },
       "   decrement",
       " % 11.2e"},
      {"cold_solves", [](It it) { return double(it.lower_solver.cold_solves); }},
      {"warm_solves", [](It it) { return double(it.lower_solver.warm_solves); }},
      {"failed_solves", [](It it) { return double(it.lower_solver.failed_solves); }},
      {"factorizations",
       [](It it) { return double(it.lower_solver.factorizations); },
       " factor.",
       " %7.0f"},
      {"upper_gradients", [](It it) { return double(it.upper.gradients); }},
      {"lower_gradients", [](It it) { return double(it.lower.gradients); }},
      {"lower_products", [](It it) { return double(it.lower.products); }},
      {"upper_samples", [](It it) { return double(it.upper.samples); }},
      {"lower_samples", [](It it) { return double(it.lower.samples); }},
      {"upper_epochs", [](It it) { return it.upper_epochs; }},
      {"lower_epochs", [](It it) { return it.lower_epochs; }},
      {"seconds", [](It it) { return it.cumulative_time_in_seconds; }, "    time", " %7.2f"},
  };
  return *fields;
}

void PrintIteration(const IterationSummary& it) {
  if (it.iteration == 0) {
    for (const IterationField& field : IterationFields()) {
      if (field.heading) std::fputs(field.heading, stdout);
    }
    std::fputs("\n", stdout);
  }
  for (const IterationField& field : IterationFields()) {
    if (!field.heading) continue;
    double value = field.value(it);
    if (field.name == std::string("objective")) {
      // ~: f at a y that is not y*(x).
      const bool is_known = !std::isnan(value) || std::isnan(it.upper_value);
      std::fputs(is_known ? " " : "~", stdout);
      if (!is_known) value = it.upper_value;
    }
    std::printf(field.format, value);
  }
  if (!it.step_is_successful) std::printf("  rejected: %s", it.note.c_str());
  std::fputs("\n", stdout);
  std::fflush(stdout);
}

}  // namespace bilevel
