#ifndef BILEVEL_EXAMPLES_SUPPORT_FLAGS_H_
#define BILEVEL_EXAMPLES_SUPPORT_FLAGS_H_

#include <string>
#include <vector>

#include "gflags/gflags.h"

/// Flags that all examples have.
DECLARE_string(summary_json);
DECLARE_string(trace_csv);
DECLARE_string(plot);
DECLARE_bool(quick);
DECLARE_int32(num_threads);

namespace examples {

/// Sets flags: --name=value or --name value, --name and --noname of those that are on or off; - and
/// _ are alike. Of --config=FILE first the file's lines, each a flag without its dashes
/// ("split = 0.5", "# a remark"). What does not begin with - goes to *words. Only the `known` flags
/// are taken. False: *error is a sentence that names the culprit, and the flag that is like it.
bool SetFlags(const std::vector<std::string>& arguments,
              const std::vector<std::string>& known,
              std::vector<std::string>* words,
              std::string* error);

/// "; did you mean NAME?", the one that is most like `name`; where none is, ".".
std::string DidYouMean(const std::string& name,
                       const std::vector<std::string>& names,
                       const std::string& dashes = "");

/// Reads the flags, and into *file the one argument that is no flag, where an example takes one;
/// any other argument is named, and the program exits. So it does after --help, which prints `what`
/// and the examples' own flags (not those of every library linked in).
void ParseFlags(const std::string& what, int* argc, char*** argv, std::string* file = nullptr);

/// What every program does before its work: a reader that leaves (`| head`) does not end a run
/// whose files are still to be written, and Ceres does not warn of every step it rejects.
void Quieten();

/// Seconds on a steady clock.
double Now();

/// Writes the text; an empty path does nothing, a failure is printed.
bool WriteFile(const std::string& path, const std::string& text);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_FLAGS_H_
