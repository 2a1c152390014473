#ifndef BILEVEL_INTERNAL_CHECK_PROGRAM_H_
#define BILEVEL_INTERNAL_CHECK_PROGRAM_H_

#include <string>
#include <vector>

#include "bilevel/program/program.h"
#include "bilevel/program/space.h"
#include "bilevel/terms/objective.h"
#include "ceres/loss_function.h"

namespace bilevel {

// The parameters of a learnable loss must be whole blocks of x, or constants. False with a sentence
// in *error, the loss being one `suffix`, where they are not.
bool CheckLoss(const ceres::LossFunction* loss,
               const Space& x,
               const Space& y,
               const std::string& suffix,
               std::string* error);

// The sizes of a general term's blocks must be what it was made for, `name` being its. False with a
// sentence in *error where they are not.
bool CheckTerm(const Objective& term,
               const std::vector<int>& sizes,
               const std::string& name,
               std::string* error);

// What can only be said of the whole: blocks are apart in memory, something stands above (where
// that is needed), all of x is used, and values and gradients are finite at the start. Evaluates f
// and g once. False with a sentence in *error where it is not so.
bool CheckProgram(const Program& program, bool need_f, std::string* error);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_CHECK_PROGRAM_H_
