#include "examples/support/flags.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

DEFINE_string(summary_json, "", "write the results to this JSON file");
DEFINE_string(trace_csv, "", "write one line an iteration to this CSV file");
DEFINE_string(plot, "", "draw a picture, .png or .svg (needs gnuplot)");
DEFINE_bool(quick, false, "a small cut of the problem, for a look");
DEFINE_int32(num_threads, 2, "threads");

DECLARE_bool(help);
DECLARE_bool(helpfull);
DECLARE_bool(helpshort);

namespace examples {

void ParseFlags(const std::string& what, int* argc, char*** argv, std::string* file) {
  // A reader that leaves (`| head`) does not end a run whose files are still to be written.
  std::signal(SIGPIPE, SIG_IGN);
  gflags::SetUsageMessage(what);
  gflags::ParseCommandLineNonHelpFlags(argc, argv, /*remove_flags=*/true);
  if (FLAGS_help || FLAGS_helpshort) {
    std::printf("%s\n\nFlags:\n", what.c_str());
    std::vector<gflags::CommandLineFlagInfo> flags;
    gflags::GetAllFlags(&flags);
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
  const int most = file ? 2 : 1;
  if (*argc > most) {
    std::fprintf(stderr, "What is \"%s\"? Flags begin with --; see --help.\n", (*argv)[most]);
    std::exit(1);
  }
  if (*argc > 1) *file = (*argv)[1];
  // Ceres warns of every step it rejects.
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
