#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_FIND_WRONG_ROW_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_FIND_WRONG_ROW_H_

#include <string>

#include "bilevel/program/program.h"

namespace bilevel {

/// A row of a scenario's constraints whose derivatives are not those of its values, by central
/// differences along one direction of y and one of x; in a sentence, or nothing. y is the
/// scenario's.
std::string FindWrongRow(const Space& space_of_x,
                         const Program::Scenario& scenario,
                         const double* x,
                         const double* y);

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_FIND_WRONG_ROW_H_
