#ifndef BILEVEL_INTERNAL_ITERATION_FIELDS_H_
#define BILEVEL_INTERNAL_ITERATION_FIELDS_H_

#include <vector>

#include "bilevel/solver.h"

namespace bilevel {

/// One number of an iteration, wherever it is shown: CSV, JSON and the screen are made from this
/// one table.
struct IterationField {
  const char* name;
  double (*value)(const IterationSummary&);
  const char* heading = nullptr;  ///< On the screen, as wide as the format; nullptr: not there.
  const char* format = nullptr;
};

const std::vector<IterationField>& IterationFields();

/// A line of the table on the screen, below its heading in iteration 0.
void PrintIteration(const IterationSummary& it);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_ITERATION_FIELDS_H_
