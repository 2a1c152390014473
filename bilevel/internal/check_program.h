#ifndef BILEVEL_INTERNAL_CHECK_PROGRAM_H_
#define BILEVEL_INTERNAL_CHECK_PROGRAM_H_

#include <string>
#include <unordered_map>
#include <vector>

#include "bilevel/program/program.h"
#include "bilevel/program/space.h"
#include "bilevel/terms/objective.h"
#include "ceres/loss_function.h"
#include "ceres/problem.h"

namespace bilevel {

// The blocks of a space in the order of the user's memory; the space must not change.
class BlocksInMemory {
 public:
  explicit BlocksInMemory(const Space& space);
  // One that shares memory with these values; nullptr: none does.
  const Space::Block* Overlapping(const double* values, int size) const;

 private:
  std::vector<const Space::Block*> blocks_;
};

// The parameters of a learnable loss must be whole blocks of x, or constants. False with a sentence
// in *error, the loss being one `suffix`, where they are not.
bool CheckLoss(const ceres::LossFunction* loss,
               const BlocksInMemory& x,
               const Space& y,
               const std::string& suffix,
               std::string* error);

// The sizes of a general term's blocks must be what it was made for, `name` being its. False with a
// sentence in *error where they are not.
bool CheckTerm(const Objective& term,
               const std::vector<int>& sizes,
               const std::string& name,
               std::string* error);

// Weights are those of residual blocks in these lists, and positive. Returns what is wrong, in the
// beginning of a sentence, or nothing.
std::string CheckSamplingWeights(
    const std::unordered_map<ceres::ResidualBlockId, double>& weights,
    const std::vector<const std::vector<ceres::ResidualBlockId>*>& residual_blocks);

// The size of a block that no residual block has told, `name` being its and whose it is: that in
// the problems and spaces that know it. Returns what is wrong, in a sentence, or nothing.
std::string CheckBlock(const double* values,
                       int size,
                       const std::string& name,
                       const std::vector<const ceres::Problem*>& problems,
                       const std::vector<const Space*>& spaces);

// What can only be said of the whole: blocks are apart in memory, something stands above (where
// that is needed), all of x is used, and values and gradients are finite at the start. Evaluates f
// and g once. Returns what is wrong, in a sentence, or nothing. All ranks call it.
std::string CheckProgram(const Program& program, bool need_f);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_CHECK_PROGRAM_H_
