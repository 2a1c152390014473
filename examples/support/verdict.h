#ifndef BILEVEL_EXAMPLES_SUPPORT_VERDICT_H_
#define BILEVEL_EXAMPLES_SUPPORT_VERDICT_H_

#include "bilevel/upper_level/verdict.h"
#include "examples/support/table.h"

namespace examples {

/// What comes first in a program's report.
void Print(const bilevel::Verdict& verdict);

/// What a program ends with: 0 where the learned values are to be used, 3 where the user's are to
/// be kept, 4 where the data do not tell, and 1 where something has failed.
int ExitCode(bool ok, const bilevel::Verdict& verdict);

/// "better", "worse" or "not told apart".
const char* Word(const bilevel::Verdict& verdict);

Json ToJson(const bilevel::Verdict& verdict);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_VERDICT_H_
