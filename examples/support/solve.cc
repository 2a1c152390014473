#include "examples/support/solve.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "gflags/gflags.h"

DEFINE_string(checkpoint,
              "",
              "keep what it takes to go on after an interruption in NAME.1.npz (and .2, ..., where "
              "it solves several problems), once a minute and on SIGINT and SIGTERM; the same "
              "command goes on from there, and from the start where they are removed");

namespace examples {
namespace {

volatile std::sig_atomic_t signal_number = 0;

void KeepSignal(int number) { signal_number = number; }

}  // namespace

void Solve(const bilevel::Solver::Options& options,
           bilevel::Problem* problem,
           bilevel::Solver::Summary* summary) {
  static int num_solves = 0;
  if (FLAGS_checkpoint.empty()) return bilevel::Solve(options, problem, summary);
  bilevel::Solver::Options kept = options;
  kept.checkpoint.file = FLAGS_checkpoint + "." + std::to_string(++num_solves) + ".npz";
  kept.checkpoint.resume = true;
  kept.checkpoint.stop = &signal_number;
  const auto before_int = std::signal(SIGINT, KeepSignal);
  const auto before_term = std::signal(SIGTERM, KeepSignal);
  bilevel::Solve(kept, problem, summary);
  std::signal(SIGINT, before_int);
  std::signal(SIGTERM, before_term);
  if (signal_number == 0) return;
  std::printf("Stopped by a signal: %s. The same command goes on.\n", summary->message.c_str());
  std::fflush(nullptr);
  std::_Exit(128 + signal_number);
}

}  // namespace examples
