#ifndef BILEVEL_ORACLE_INTERNAL_REMEMBER_COUNTS_H_
#define BILEVEL_ORACLE_INTERNAL_REMEMBER_COUNTS_H_

#include <string>
#include <utility>

#include "bilevel/base/memory.h"
#include "bilevel/types.h"

namespace bilevel {

/// All fields of the counts, by name: checkpoints keep them, a run's and those of each iteration.
constexpr std::pair<const char*, long FunctionCounts::*> kFunctionCounts[] = {
    {"values", &FunctionCounts::values},
    {"gradients", &FunctionCounts::gradients},
    {"products", &FunctionCounts::products},
    {"linearizations", &FunctionCounts::linearizations},
    {"samples", &FunctionCounts::samples},
};
constexpr std::pair<const char*, long LowerSolverCounts::*> kLowerSolverCounts[] = {
    {"cold_solves", &LowerSolverCounts::cold_solves},
    {"warm_solves", &LowerSolverCounts::warm_solves},
    {"failed_solves", &LowerSolverCounts::failed_solves},
    {"factorizations", &LowerSolverCounts::factorizations},
    {"damped_factorizations", &LowerSolverCounts::damped_factorizations},
    {"chord_steps", &LowerSolverCounts::chord_steps},
    {"gradient_steps", &LowerSolverCounts::gradient_steps},
};
constexpr std::pair<const char*, double LowerSolverCounts::*> kLowerSolverSeconds[] = {
    {"seconds_in_ceres", &LowerSolverCounts::seconds_in_ceres},
    {"seconds_in_evaluation", &LowerSolverCounts::seconds_in_evaluation},
    {"seconds_in_linear_algebra", &LowerSolverCounts::seconds_in_linear_algebra},
};

inline void RememberCounts(const std::string& name, FunctionCounts* counts, Memory* memory) {
  const Memory::Group group(memory, name);
  for (const auto& [field, at] : kFunctionCounts) memory->Keep(field, &(counts->*at));
}

inline void RememberCounts(const std::string& name, LowerSolverCounts* counts, Memory* memory) {
  const Memory::Group group(memory, name);
  for (const auto& [field, at] : kLowerSolverCounts) memory->Keep(field, &(counts->*at));
  for (const auto& [field, at] : kLowerSolverSeconds) memory->Keep(field, &(counts->*at));
}

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_INTERNAL_REMEMBER_COUNTS_H_
