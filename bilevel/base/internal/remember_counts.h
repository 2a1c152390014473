#ifndef BILEVEL_BASE_INTERNAL_REMEMBER_COUNTS_H_
#define BILEVEL_BASE_INTERNAL_REMEMBER_COUNTS_H_

#include <string>

#include "bilevel/base/memory.h"
#include "bilevel/types.h"

namespace bilevel {

inline void RememberCounts(const std::string& name, FunctionCounts* counts, Memory* memory) {
  const Memory::Group group(memory, name);
  memory->Keep("values", &counts->values);
  memory->Keep("gradients", &counts->gradients);
  memory->Keep("products", &counts->products);
  memory->Keep("linearizations", &counts->linearizations);
  memory->Keep("samples", &counts->samples);
}

inline void RememberCounts(const std::string& name, LowerSolverCounts* counts, Memory* memory) {
  const Memory::Group group(memory, name);
  memory->Keep("cold_solves", &counts->cold_solves);
  memory->Keep("warm_solves", &counts->warm_solves);
  memory->Keep("failed_solves", &counts->failed_solves);
  memory->Keep("factorizations", &counts->factorizations);
  memory->Keep("damped_factorizations", &counts->damped_factorizations);
  memory->Keep("chord_steps", &counts->chord_steps);
  memory->Keep("gradient_steps", &counts->gradient_steps);
  memory->Keep("seconds_in_ceres", &counts->seconds_in_ceres);
  memory->Keep("seconds_in_evaluation", &counts->seconds_in_evaluation);
  memory->Keep("seconds_in_linear_algebra", &counts->seconds_in_linear_algebra);
}

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_REMEMBER_COUNTS_H_
