#include "bilevel/oracle/lower_solver.h"

namespace bilevel {

LowerSolverCounts& LowerSolverCounts::operator+=(const LowerSolverCounts& other) {
  cold_solves += other.cold_solves;
  warm_solves += other.warm_solves;
  failed_solves += other.failed_solves;
  factorizations += other.factorizations;
  damped_factorizations += other.damped_factorizations;
  chord_steps += other.chord_steps;
  gradient_steps += other.gradient_steps;
  seconds_in_ceres += other.seconds_in_ceres;
  seconds_in_evaluation += other.seconds_in_evaluation;
  seconds_in_linear_algebra += other.seconds_in_linear_algebra;
  return *this;
}

LowerSolverCounts LowerSolverCounts::operator-(const LowerSolverCounts& other) const {
  LowerSolverCounts difference = *this;
  difference.cold_solves -= other.cold_solves;
  difference.warm_solves -= other.warm_solves;
  difference.failed_solves -= other.failed_solves;
  difference.factorizations -= other.factorizations;
  difference.damped_factorizations -= other.damped_factorizations;
  difference.chord_steps -= other.chord_steps;
  difference.gradient_steps -= other.gradient_steps;
  difference.seconds_in_ceres -= other.seconds_in_ceres;
  difference.seconds_in_evaluation -= other.seconds_in_evaluation;
  difference.seconds_in_linear_algebra -= other.seconds_in_linear_algebra;
  return difference;
}

std::string LowerSolver::WhyNoSecondDerivative() const {
  const std::string why = WhyNoDerivative();
  return why.empty() ? "the lower solver has no second derivative of phi: no AdjointVector" : why;
}

}  // namespace bilevel
