// One call after the other of a user's code goes wrong, and what becomes of the solve; see
// faults.h.
//
//     fault_campaign [--positions=40] [--seconds=1e9] [--verbose]
//
// So many calls of each site, spread over a solve, in every way, once and for ever, by nine
// methods, on one and two threads. Each method has a process of its own; one that dies is counted,
// and goes on after the point that killed it.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "campaign/faults.h"

namespace bilevel {
namespace {

const char* const kMethods[] = {"auto",
                                "levenberg_marquardt",
                                "lbfgs",
                                "projected_lbfgs",
                                "newton",
                                "adam",
                                "bome",
                                "igfm",
                                "pattern_search"};

// What the processes share.
struct Counts {
  size_t next;
  long reached, violations, deaths, must_name, named;
};

std::vector<FaultPoint> PointsOf(const std::string& method, long positions) {
  const std::vector<long> calls = CountCalls(method);
  std::vector<FaultPoint> points;
  for (int site = 0; site < FaultPoint::kNumSites; ++site) {
    const bool has_result = site != FaultPoint::kEvaluationCallback;
    const long step = std::max(1L, calls[site] / positions);
    for (int fault = has_result ? 0 : FaultPoint::kException; fault < FaultPoint::kNumFaults;
         ++fault) {
      for (long call = 0; call < calls[site]; call += step) {
        for (const bool for_ever : {false, true}) {
          // Each number of threads in its turn.
          const int threads = static_cast<int>(points.size() % 3);
          points.push_back({method,
                            static_cast<FaultPoint::Site>(site),
                            static_cast<FaultPoint::Fault>(fault),
                            call,
                            for_ever,
                            threads == 1 ? 2 : 1,
                            threads == 2 ? 2 : 1});
        }
      }
    }
  }
  return points;
}

void Child(const std::vector<FaultPoint>& points, bool verbose, Counts* counts) {
  while (counts->next < points.size()) {
    const FaultPoint& point = points[counts->next];
    alarm(20);
    const FaultOutcome outcome = RunWithFault(point);
    ++counts->next;
    counts->reached += outcome.is_reached;
    counts->must_name += outcome.must_name;
    counts->named += outcome.must_name && outcome.is_named;
    if (!outcome.violation.empty()) {
      ++counts->violations;
      std::printf("VIOLATION %s: %s (%s)\n",
                  point.Name().c_str(),
                  outcome.violation.c_str(),
                  outcome.message.c_str());
    }
    if (verbose && outcome.must_name && !outcome.is_named) {
      std::printf("NOT NAMED %s: %s\n", point.Name().c_str(), outcome.message.c_str());
    }
  }
  std::fflush(stdout);
  _exit(0);
}

int Main(int argc, char** argv) {
  long positions = 40;
  double seconds = 1e9;
  bool verbose = false;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag.rfind("--positions=", 0) == 0) {
      positions = std::max(1L, std::atol(flag.c_str() + 12));
    } else if (flag.rfind("--seconds=", 0) == 0) {
      seconds = std::atof(flag.c_str() + 10);
    } else if (flag == "--verbose") {
      verbose = true;
    } else {
      std::fprintf(stderr, "Unknown option %s.\n", flag.c_str());
      return 2;
    }
  }
  auto* counts = static_cast<Counts*>(
      mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const auto start = std::chrono::steady_clock::now();
  long total = 0, reached = 0, bad = 0;
  std::printf("%-22s %8s %8s %7s %10s %8s\n",
              "method",
              "points",
              "reached",
              "deaths",
              "violations",
              "named");
  for (const char* method : kMethods) {
    const double past =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (past > seconds) break;
    std::memset(counts, 0, sizeof(Counts));
    const std::vector<FaultPoint> points = PointsOf(method, positions);
    while (counts->next < points.size()) {
      std::fflush(stdout);
      const pid_t child = fork();
      if (child == 0) Child(points, verbose, counts);
      int status = 0;
      waitpid(child, &status, 0);
      if (counts->next >= points.size()) break;
      ++counts->deaths;
      std::printf("DEATH %s: signal %d\n",
                  points[counts->next++].Name().c_str(),
                  WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    }
    std::printf("%-22s %8zu %8ld %7ld %10ld %7.2f%%\n",
                method,
                points.size(),
                counts->reached,
                counts->deaths,
                counts->violations,
                counts->must_name ? 100.0 * counts->named / counts->must_name : 100.0);
    total += static_cast<long>(points.size());
    reached += counts->reached;
    bad += counts->deaths + counts->violations;
  }
  std::printf("%-22s %8ld %8ld\n", "all", total, reached);
  return bad > 0;
}

}  // namespace
}  // namespace bilevel

int main(int argc, char** argv) { return bilevel::Main(argc, argv); }
