#ifndef BILEVEL_EXAMPLES_SUPPORT_FLAGS_H_
#define BILEVEL_EXAMPLES_SUPPORT_FLAGS_H_

#include <string>

#include "gflags/gflags.h"

/// Flags that all examples have.
DECLARE_string(summary_json);
DECLARE_string(trace_csv);
DECLARE_string(plot);
DECLARE_bool(quick);
DECLARE_int32(num_threads);

namespace examples {

/// Reads the flags, and into *file the one argument that is no flag, where an example takes one;
/// any other argument is named, and the program exits. So it does after --help, which prints `what`
/// and the examples' own flags (not those of every library linked in).
void ParseFlags(const std::string& what, int* argc, char*** argv, std::string* file = nullptr);

/// Seconds on a steady clock.
double Now();

/// Writes the text; an empty path does nothing, a failure is printed.
bool WriteFile(const std::string& path, const std::string& text);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_FLAGS_H_
