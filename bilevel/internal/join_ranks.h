#ifndef BILEVEL_INTERNAL_JOIN_RANKS_H_
#define BILEVEL_INTERNAL_JOIN_RANKS_H_

#include <string>
#include <vector>

#include "bilevel/base/ranks.h"
#include "bilevel/program/program.h"

namespace bilevel {

// As all ranks declare it; built: it has residual blocks or terms on this one.
struct DeclaredScenario {
  std::string name;
  double weight;
  bool is_built;
};

// Makes the programs of all ranks, which are this rank's scenarios so far, one that is shared:
// numbers the scenarios, and tells who has which. *error says what is wrong with this rank's; where
// anything is with any, or the ranks' problems differ, it is false and *error the same sentence on
// all of them. `program` may be nullptr where there is an error.
bool JoinRanks(Ranks* ranks,
               const std::vector<DeclaredScenario>& declared,
               Program* program,
               std::string* error);

// What is said line by line on all ranks must be the same. Returns the first difference, in a
// sentence, or nothing.
std::string DifferenceBetween(Ranks* ranks,
                              const std::string& step,
                              const std::vector<std::string>& lines);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_JOIN_RANKS_H_
