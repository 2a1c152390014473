// bilevel-tune: learns the settings of an estimation from files, and says whether to use them.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "bilevel/version.h"
#include "examples/support/flags.h"
#include "examples/support/table.h"
#include "examples/tune/command.h"
#include "examples/tune/report.h"

DEFINE_string(json, "", "write the verdict, the learned values with intervals and the scores");
DEFINE_string(output, "", "");  // Each command says what.
DEFINE_string(report, "", "write a page of HTML about the learning: curves, errors, time");
DEFINE_string(test, "", "another one, to test on");
DEFINE_bool(simulate, false, "instead of files: simulated ones, for a look");
DEFINE_bool(safe, true, "learn by the rule that does not lose; --nosafe: by the score alone");
DEFINE_bool(baselines, false, "search without derivatives as well, to compare with; takes longer");
DEFINE_int32(seed, 0, "of what is drawn by chance: splits, simulations");

DECLARE_bool(help);
DECLARE_string(checkpoint);

namespace {

using examples::Command;
using Strings = std::vector<std::string>;

const Command* const kCommands[] = {&examples::kPoseGraph,
                                    &examples::kBundleAdjustment,
                                    &examples::kRange,
                                    &examples::kHandEye,
                                    &examples::kCalibration};
const Strings kCommonFlags = {
    "json=FILE", "plot=FILE", "report=FILE", "num_threads=N", "config=FILE"};
const Strings kMoreCommonFlags = {"trace_csv=FILE", "checkpoint=NAME", "quick"};

constexpr char kExitCodes[] =
    "The report begins with the verdict, which is the exit code too:\n"
    "  0  use what was learned     3  keep what you have\n"
    "  4  not enough data          1  failed: the last line says why\n";

std::string NameOf(const std::string& flag) { return flag.substr(0, flag.find('=')); }

int Fail(const std::string& sentence) {
  std::fprintf(stderr, "bilevel-tune: %s\n", sentence.c_str());
  return 1;
}

// Words after a first column of `indent`, in lines of 80.
std::string Wrap(std::string line, size_t indent, const std::string& text) {
  line.resize(std::max(indent, line.size() + 2), ' ');
  std::string result;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (line.size() + word.size() > 80) {
      result += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
      line.assign(indent, ' ');
    }
    line += word + " ";
  }
  return result + line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
}

std::string Describe(const Strings& flags) {
  std::string text;
  for (const std::string& flag : flags) {
    const auto info = gflags::GetCommandLineFlagInfoOrDie(NameOf(flag).c_str());
    std::string description = info.description;
    const size_t equals = flag.find('=');
    if (NameOf(flag) == "output") description = flag.substr(equals + 1);
    const bool is_number = info.type != "string" && info.type != "bool";
    if (is_number || (info.type == "string" && !info.default_value.empty())) {
      description += " (default " + info.default_value + ")";
    }
    const bool is_on = info.default_value == "true";
    const std::string shown = NameOf(flag) == "output" ? "output=FILE" : flag;
    text += Wrap((is_on ? "  --[no]" : "  --") + shown, 22, description);
  }
  return text;
}

int PrintHelp() {
  std::printf(
      "Usage: bilevel-tune COMMAND FILE... [flags]\n\n"
      "Learns the settings of an estimation (noise, weights, losses) from your files,\n"
      "and says whether to use them, by errors on data that learning has not seen.\n\n");
  for (const Command* c : kCommands) {
    std::printf("%s", Wrap(std::string("  ") + c->name, 22, c->summary).c_str());
  }
  std::printf(
      "\n%s\nbilevel-tune COMMAND --help tells its flags, --version the version. Files may be\n"
      "packed by gzip, bzip2 or xz.\n",
      kExitCodes);
  return 0;
}

std::string Usage(const Command& command) {
  std::string text = std::string("bilevel-tune ") + command.name;
  for (const std::string& word : command.words) text += " " + word;
  return text;
}

int PrintHelp(const Command& command) {
  Strings flags = command.flags, more = command.more_flags;
  flags.insert(flags.end(), kCommonFlags.begin(), kCommonFlags.end());
  more.insert(more.end(), kMoreCommonFlags.begin(), kMoreCommonFlags.end());
  std::printf("Usage: %s [flags]\n\n%s\n%s", Usage(command).c_str(), command.help, "Flags:\n");
  std::printf("%s\nFor experts:\n%s", Describe(flags).c_str(), Describe(more).c_str());
  if (*command.no_output) std::printf("\nThere is no --output: %s.\n", command.no_output);
  std::printf("\n%s", kExitCodes);
  return 0;
}

// Before the work, which takes minutes. What was not there is not left behind.
bool CanBeWritten(const std::string& path) {
  const bool was_there = std::ifstream(path).good();
  const bool can = std::ofstream(path, std::ios::app).good();
  if (can && !was_there) std::remove(path.c_str());
  return can;
}

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// What is wrong with the command line, a sentence; empty where nothing is.
std::string Objection(const Command& command, const Strings& words) {
  const std::string usage = "Usage: " + Usage(command) + " [flags]";
  if (words.size() > command.words.size()) {
    return "What is \"" + words[command.words.size()] + "\"? " + usage + ".";
  }
  if (FLAGS_simulate && !words.empty()) return "--simulate is in place of " + words[0] + ".";
  if (!FLAGS_simulate && words.size() < command.words.size()) {
    return command.words[words.size()] + " is missing. " + usage + "; --help tells more.";
  }
  const Strings& more = command.more_flags;
  const bool is_safe = FLAGS_safe && std::find(more.begin(), more.end(), "safe") != more.end();
  if (is_safe && !FLAGS_checkpoint.empty()) {
    return "--checkpoint goes with --nosafe: the rule that does not lose begins afresh.";
  }
  if (FLAGS_num_threads < 1) return "--num_threads must be positive.";
  for (const char* end : {".gz", ".bz2", ".xz"}) {
    if (EndsWith(FLAGS_output, end))
      return "--output is not packed: leave out " + std::string(end) + ".";
  }
  for (const std::string& path :
       {FLAGS_output, FLAGS_json, FLAGS_plot, FLAGS_report, FLAGS_trace_csv}) {
    if (!path.empty() && !CanBeWritten(path)) return path + " cannot be written.";
  }
  return "";
}

int Run(const Command& command, const Strings& arguments) {
  Strings known = {"help"}, words;
  for (const Strings* flags :
       {&command.flags, &command.more_flags, &kCommonFlags, &kMoreCommonFlags}) {
    for (const std::string& flag : *flags) known.push_back(NameOf(flag));
  }
  std::string error;
  if (!examples::SetFlags(arguments, known, &words, &error)) {
    if (*command.no_output && error.rfind("There is no flag --output", 0) == 0) {
      error = std::string("There is no --output: ") + command.no_output + ".";
    }
    return Fail(error);
  }
  if (FLAGS_help) return PrintHelp(command);
  error = Objection(command, words);
  if (!error.empty()) return Fail(error);
  const int code = command.run(words);
  examples::EndReport();
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  examples::Quieten();
  const Strings arguments(argv + std::min(argc, 2), argv + argc);
  const std::string name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") return PrintHelp();
  if (name == "--version") {
    std::printf("bilevel-tune %s\n", bilevel::Version());
    return 0;
  }
  if (name.empty()) {
    PrintHelp();
    return 1;
  }
  Strings names;
  for (const Command* c : kCommands) {
    if (name == c->name) return Run(*c, arguments);
    names.push_back(c->name);
  }
  std::string list;
  for (const std::string& n : names) list += (list.empty() ? "" : ", ") + n;
  if (name[0] == '-') return Fail("The command comes before its flags. There are " + list + ".");
  const std::string near = examples::DidYouMean(name, names);
  return Fail("There is no command " + name + near +
              (near == "." ? " There are " + list + "." : ""));
}
