#ifndef BILEVEL_EXAMPLES_TUNE_REPORT_H_
#define BILEVEL_EXAMPLES_TUNE_REPORT_H_

#include <cmath>
#include <string>
#include <vector>

#include "bilevel/solver.h"
#include "bilevel/upper_level/safe_learning.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"

namespace examples {

/// printf to the report on standard output. It begins with the verdict: what is said before that is
/// known waits for it.
void Say(const char* format, ...) __attribute__((format(printf, 1, 2)));
void SayVerdict(bilevel::Verdict verdict);
/// Prints what still waits, after a failure.
void EndReport();
/// "bilevel-tune: SENTENCE." on standard error. False.
bool Fail(const std::string& sentence);

/// On a terminal, a line of standard error that tells what is being done and for how long, and
/// where the share of the work that is done is known, how long it will take. Nothing in a pipe.
void ShowProgress(const std::string& what, double share = 0.0);
/// Shows the iterations of a Solve. Static storage.
bilevel::IterationCallback* ShowIterations();

/// A value as it is handed back, and the 95 % interval that the data give it; NaN: none.
struct Learned {
  std::string name;
  double value, low = std::nan(""), high = std::nan("");
};
/// From logarithms x, the first coordinates of what was learned by the rule that does not lose:
/// intervals about the maximum a posteriori; or by the score alone: about x.
std::vector<Learned> FromLogs(const std::vector<std::string>& names,
                              const std::vector<double>& x,
                              const bilevel::SafeLearning& safe);
std::vector<Learned> FromLogs(const std::vector<std::string>& names,
                              const std::vector<double>& x,
                              const bilevel::Solver::Summary& summary);
Learned FromLog(const std::string& name, double log_value, double standard_error);

/// What every command's JSON file begins with.
Json BeginJson(const char* command,
               const bilevel::Verdict& verdict,
               const std::vector<Learned>& values);

/// --trace_csv and --report, where they are given. False: one could not be written, which is said.
bool WriteTrace(const bilevel::Solver::Summary& summary);

/// Whether --output is to be written now: where it is given, and what was learned is to be used.
/// Says so where it is not.
bool IsOutputDue(const bilevel::Verdict& verdict);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_TUNE_REPORT_H_
