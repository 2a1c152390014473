#ifndef BILEVEL_INTERNAL_SUMMARY_ROWS_H_
#define BILEVEL_INTERNAL_SUMMARY_ROWS_H_

#include <string>
#include <utility>
#include <vector>

#include "bilevel/solver.h"

namespace bilevel {

/// What there is to say about a Solve, wherever it is shown: rows of a name and a value, in groups
/// with a title.
struct SummaryGroup {
  std::string title;
  std::vector<std::pair<std::string, std::string>> rows;
};

std::vector<SummaryGroup> SummaryRows(const Solver::Summary& summary);

const char* NameOf(AnswerKind kind);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_SUMMARY_ROWS_H_
