#ifndef BILEVEL_EXAMPLES_TUNE_COMMAND_H_
#define BILEVEL_EXAMPLES_TUNE_COMMAND_H_

#include <string>
#include <vector>

#include "examples/support/flags.h"

/// Flags that several commands have, beside those of all examples.
DECLARE_string(json);
DECLARE_string(output);
DECLARE_string(report);
DECLARE_string(test);
DECLARE_bool(simulate);
DECLARE_bool(safe);
DECLARE_bool(baselines);
DECLARE_int32(seed);

namespace examples {

/// What bilevel-tune tunes. Each stands at the end of its own file.
struct Command {
  const char* name;
  const char* summary;             ///< Half a line.
  std::vector<std::string> words;  ///< Its files, {"HAND", "EYE"}; none with --simulate.
  const char* help;                ///< What it learns, from what; then examples, indented.
  /// "truth=FILE", "quick": what it takes beside the flags that all commands take; of --output,
  /// what it writes there. The first ones are those that a newcomer asks for.
  std::vector<std::string> flags, more_flags;
  /// Why there is no --output; empty where there is one.
  const char* no_output;
  int (*run)(const std::vector<std::string>& words);  ///< Returns the exit code (verdict.h).
};

extern const Command kPoseGraph, kBundleAdjustment, kRange, kHandEye, kCalibration;

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_TUNE_COMMAND_H_
