#include <algorithm>
#include <cmath>

#include "bilevel/methods/registry.h"
#include "bilevel/solver.h"

namespace bilevel {

Solver::Options::Options() : method(CreateMethod("auto")) {
  // Tight enough to hand over to Newton, silent unless asked.
  lower_solver_options.logging_type = ceres::SILENT;
  lower_solver_options.max_num_iterations = 200;
  lower_solver_options.function_tolerance = 1e-10;
}

bool Solver::Options::IsValid(std::string* error) const {
  const auto require = [&](bool ok, const char* what) {
    if (!ok && error) *error = what;
    return ok;
  };
  std::string lower_error;
  if (!lower_solver_options.IsValid(&lower_error)) {
    return require(false, ("lower_solver_options: " + lower_error).c_str());
  }
  return require(lower_tolerance > 0.0 && lower_tolerance < 1.0,
                 "lower_tolerance must be between 0 and 1") &&
         require(max_num_lower_newton_iterations >= 0,
                 "max_num_lower_newton_iterations must not be negative") &&
         require(lower_starts >= 1, "lower_starts must be at least 1") &&
         require(lower_start_spread > 0.0 && std::isfinite(lower_start_spread),
                 "lower_start_spread must be positive") &&
         require(max_num_iterations >= 0, "max_num_iterations must not be negative") &&
         require(max_solver_time_in_seconds >= 0.0,
                 "max_solver_time_in_seconds must not be negative") &&
         require(gradient_tolerance >= 0.0, "gradient_tolerance must not be negative") &&
         require(function_tolerance >= 0.0, "function_tolerance must not be negative") &&
         require(parameter_tolerance >= 0.0, "parameter_tolerance must not be negative") &&
         require(num_threads > 0 && num_threads <= 1024,
                 "num_threads must be between 1 and 1024") &&
         require(checkpoint.every_num_iterations >= 0,
                 "checkpoint.every_num_iterations must not be negative") &&
         require(checkpoint.every_seconds >= 0.0,
                 "checkpoint.every_seconds must not be negative") &&
         require(num_scenarios_per_iteration >= 0,
                 "num_scenarios_per_iteration must not be negative") &&
         require(method != nullptr, "the method is null") &&
         require(std::find(callbacks.begin(), callbacks.end(), nullptr) == callbacks.end(),
                 "a callback is null");
}

NewtonLowerSolver::Options Solver::Options::LowerSolverOptions() const {
  NewtonLowerSolver::Options lower;
  lower.ceres = lower_solver_options;
  lower.ceres.max_solver_time_in_seconds =
      std::min(lower.ceres.max_solver_time_in_seconds, max_solver_time_in_seconds);
  lower.tolerance = lower_tolerance;
  lower.tolerance_name = "lower_tolerance";
  lower.limit_name = "max_num_lower_newton_iterations";
  lower.max_num_newton_iterations = max_num_lower_newton_iterations;
  lower.hessian = lower_hessian;
  lower.singular_handling = singular_handling;
  return lower;
}

}  // namespace bilevel
