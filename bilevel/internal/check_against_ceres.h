#ifndef BILEVEL_INTERNAL_CHECK_AGAINST_CERES_H_
#define BILEVEL_INTERNAL_CHECK_AGAINST_CERES_H_

#include <string>

#include "bilevel/program/program.h"

namespace bilevel {

/// Holds what is recorded of residual blocks against their CostFunction::Evaluate, at the user's
/// values: of every block, or of the first of each type. Returns a sentence on the first that
/// differs; empty where none does.
std::string CheckRecordings(const Program& program, bool every_block);

/// Holds each level's residual blocks against ceres::Problem::Evaluate of the user's problem, a
/// little beside the user's values: an evaluation callback that Ceres alone knows of makes them
/// differ. Returns a sentence, or nothing. The user's memory is as before.
std::string CheckCosts(const Program& program);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_CHECK_AGAINST_CERES_H_
