#include "examples/support/flags.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <utility>
#include <vector>

DEFINE_string(summary_json, "", "write the results to this JSON file");
DEFINE_string(trace_csv, "", "write one line an iteration to this CSV file");
DEFINE_string(plot, "", "draw a picture, .png or .svg (needs gnuplot)");
DEFINE_string(config, "", "read flags from this file too, one a line: \"split = 0.5\"");
DEFINE_bool(quick, false, "a small cut of the problem, for a look");
DEFINE_int32(num_threads, 2, "threads");

DECLARE_bool(help);
DECLARE_bool(helpfull);
DECLARE_bool(helpshort);

namespace examples {
namespace {

using Strings = std::vector<std::string>;

// How many letters to put in, leave out or change (Levenshtein, 1966).
int Distance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = std::exchange(row[0], static_cast<int>(i));
    for (size_t j = 1; j <= b.size(); ++j) {
      const int change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({change, diagonal + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

bool Contains(const Strings& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool IsSwitch(const std::string& name) {
  return gflags::GetCommandLineFlagInfoOrDie(name.c_str()).type == "bool";
}

struct Setting {
  std::string name, value;
};

// The flag of an argument without its dashes; whether its value is still to come.
bool Parse(const std::string& text,
           const Strings& known,
           Setting* setting,
           bool* needs_value,
           std::string* error) {
  const size_t equals = text.find('=');
  std::string name = text.substr(0, equals);
  std::replace(name.begin(), name.end(), '-', '_');
  if (name == "h") name = "help";
  *needs_value = equals == std::string::npos;
  *setting = {name, *needs_value ? "" : text.substr(equals + 1)};
  if (*needs_value && Contains(known, name) && IsSwitch(name)) {
    *needs_value = false;
    setting->value = "true";
  } else if (*needs_value && name.rfind("no", 0) == 0 && Contains(known, name.substr(2)) &&
             IsSwitch(name.substr(2))) {
    *needs_value = false;
    *setting = {name.substr(2), "false"};
  }
  if (Contains(known, setting->name)) return true;
  *error = "There is no flag --" + name + DidYouMean(name, known, "--");
  return false;
}

std::string Strip(const std::string& text, const char* what) {
  const size_t first = text.find_first_not_of(what);
  return first == std::string::npos ? ""
                                    : text.substr(first, text.find_last_not_of(what) - first + 1);
}

bool ReadConfig(const std::string& path,
                const Strings& known,
                std::vector<Setting>* settings,
                std::string* error) {
  std::ifstream file(path);
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line = Strip(line, " \t\r");
    if (line.empty() || line[0] == '#') continue;
    const size_t equals = line.find('=');
    std::string text = Strip(line.substr(0, equals), " \t");
    text.erase(0, text.find_first_not_of('-'));
    if (equals != std::string::npos) text += "=" + Strip(line.substr(equals + 1), " \t");
    Setting setting;
    bool needs_value = false;
    const bool is_known = Parse(text, known, &setting, &needs_value, error);
    if (is_known && needs_value) *error = "\"" + line + "\" has no = and value.";
    if (is_known && setting.name == "config") *error = "Configuration files do not nest.";
    if (!error->empty()) {
      *error = path + ":" + std::to_string(number) + ": " + *error;
      return false;
    }
    settings->push_back(setting);
  }
  if (file.eof()) return true;
  *error = path + " cannot be read.";
  return false;
}

bool Set(const Setting& setting, std::string* error) {
  if (!gflags::SetCommandLineOption(setting.name.c_str(), setting.value.c_str()).empty()) {
    return true;
  }
  const std::string type = gflags::GetCommandLineFlagInfoOrDie(setting.name.c_str()).type;
  *error = "--" + setting.name + "=" + setting.value + ": that is " +
           (type == "bool"     ? "neither true nor false"
            : type == "double" ? "no number"
                               : "no whole number") +
           ".";
  return false;
}

}  // namespace

std::string DidYouMean(const std::string& name,
                       const std::vector<std::string>& names,
                       const std::string& dashes) {
  const std::string* nearest = nullptr;
  int least = 1 + std::max(1, static_cast<int>(name.size()) / 3);
  for (const std::string& candidate : names) {
    // What was begun and not ended is near, too.
    const bool is_beginning = name.size() > 2 && candidate.rfind(name, 0) == 0;
    const int distance = is_beginning ? 1 : Distance(name, candidate);
    if (distance >= least) continue;
    least = distance;
    nearest = &candidate;
  }
  return nearest ? "; did you mean " + dashes + *nearest + "?" : ".";
}

bool SetFlags(const std::vector<std::string>& arguments,
              const std::vector<std::string>& known,
              std::vector<std::string>* words,
              std::string* error) {
  std::vector<Setting> settings, of_file;
  error->clear();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument.size() < 2 || argument[0] != '-') {
      words->push_back(argument);
      continue;
    }
    Setting setting;
    bool needs_value = false;
    const std::string text = argument.substr(argument.find_first_not_of('-', 1) == 1 ? 1 : 2);
    if (!Parse(text, known, &setting, &needs_value, error)) return false;
    if (needs_value && i + 1 == arguments.size()) {
      *error = "--" + setting.name + " needs a value.";
      return false;
    }
    if (needs_value) setting.value = arguments[++i];
    if (setting.name == "config" && !ReadConfig(setting.value, known, &of_file, error)) {
      return false;
    }
    settings.push_back(setting);
  }
  settings.insert(settings.begin(), of_file.begin(), of_file.end());
  return std::all_of(settings.begin(), settings.end(), [&](const Setting& setting) {
    return Set(setting, error);
  });
}

void ParseFlags(const std::string& what, int* argc, char*** argv, std::string* file) {
  Quieten();
  gflags::SetUsageMessage(what);
  std::vector<gflags::CommandLineFlagInfo> flags;
  gflags::GetAllFlags(&flags);
  Strings known, words;
  for (const auto& flag : flags) known.push_back(flag.name);
  std::string error;
  if (!SetFlags({*argv + 1, *argv + *argc}, known, &words, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    std::exit(1);
  }
  if (FLAGS_help || FLAGS_helpshort) {
    std::printf("%s\n\nFlags:\n", what.c_str());
    for (const auto& flag : flags) {
      if (flag.filename.find("examples/") == std::string::npos) continue;
      const std::string shown =
          flag.type == "string" ? "\"" + flag.default_value + "\"" : flag.default_value;
      std::printf("  --%-14s %s (%s, default %s)\n",
                  flag.name.c_str(),
                  flag.description.c_str(),
                  flag.type.c_str(),
                  shown.c_str());
    }
    std::exit(0);
  }
  gflags::HandleCommandLineHelpFlags();
  const size_t most = file ? 1 : 0;
  if (words.size() > most) {
    std::fprintf(stderr, "What is \"%s\"? Flags begin with --; see --help.\n", words[most].c_str());
    std::exit(1);
  }
  if (!words.empty()) *file = words[0];
}

void Quieten() {
  std::signal(SIGPIPE, SIG_IGN);
  gflags::SetCommandLineOptionWithMode("minloglevel", "2", gflags::SET_FLAG_IF_DEFAULT);
}

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool WriteFile(const std::string& path, const std::string& text) {
  if (path.empty()) return true;
  std::ofstream file(path);
  file << text;
  file.close();
  if (file) return true;
  std::fprintf(stderr, "%s cannot be written.\n", path.c_str());
  return false;
}

}  // namespace examples
