#ifndef BILEVEL_REPORT_H_
#define BILEVEL_REPORT_H_

#include <string>

#include "bilevel/solver.h"

namespace bilevel {

/// Writes a page of HTML about a Solve that needs no other file: how it ended, what was learned
/// with its standard errors, how it converged, where the time went, and all that FullReport says.
/// Its pictures are drawn by gnuplot; where that is not installed, the page says so and has the
/// numbers alone. False: *error (may be nullptr) says why the file could not be written.
bool WriteReport(const Solver::Summary& summary,
                 const std::string& path,
                 std::string* error = nullptr);

}  // namespace bilevel

#endif  // BILEVEL_REPORT_H_
