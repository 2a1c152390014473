#ifndef BILEVEL_INTERNAL_LAY_OUT_CONSTRAINTS_H_
#define BILEVEL_INTERNAL_LAY_OUT_CONSTRAINTS_H_

#include <string>
#include <vector>

#include "bilevel/internal/true_jacobian.h"
#include "bilevel/program/program.h"
#include "ceres/cost_function.h"

namespace bilevel {

// A constraint of a scenario's lower level as the user gave it.
struct LowerConstraint {
  const ceres::CostFunction* cost;
  std::vector<double*> blocks;
  bool is_inequality;
  std::string name;     // "inequality 3 of the lower problem".
  bool is_set = false;  // Made of a block's convex set; after all others.
};

// What is wrong with it by itself, in a sentence, or nothing.
std::string CheckConstraint(const LowerConstraint& constraint);

// Makes them the scenario's, whose y is complete. Returns what is wrong, in a sentence, or nothing.
std::string LayOutConstraints(std::vector<LowerConstraint> constraints,
                              const Space* x,
                              const std::string& suffix,
                              TrueJacobians* true_jacobians,
                              Program::Scenario* scenario);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_LAY_OUT_CONSTRAINTS_H_
