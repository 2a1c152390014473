// Many random problems, each by many methods, and every CONVERGENCE checked; see random_check.h.
//
//     random_problems_campaign [--seed=1] [--num_problems=200] [--seconds=1e9]
//                              [--methods=auto,lbfgs] [--iterations=100] [--tolerance=1e-4]
//                              [--verbose]
//
// --tolerance is for gradient and function alike; without it they are the defaults.
//
// Every solve runs in a process of its own, so that a crash or hang is its seed's and method's.
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "campaign/random_check.h"
#include "campaign/random_problems.h"

namespace bilevel {
namespace {

constexpr int kTimeOut = 20;        // Seconds for a solve and its check.
constexpr double kTimeLimit = 5.0;  // Of a solve, by its options.

struct Arguments {
  unsigned seed = 1;
  int num_problems = 200;
  int iterations = 100;
  double seconds = 1e9;
  double tolerance = 0.0;  // 0: the defaults.
  bool verbose = false;
  std::string methods =
      "auto,levenberg_marquardt,lbfgs,projected_lbfgs,newton,bfgs,gradient_descent,hoag,bome,igfm,"
      "pattern_search,optimistic,adam";
};

struct Row {
  int runs = 0, convergence = 0, verified = 0, kink = 0, unclear = 0, not_checked = 0;
  int violations = 0, failures = 0, mute = 0, crashes = 0, hangs = 0;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Say(int to, const std::string& text) {
  if (write(to, text.data(), text.size()) < 0) _exit(3);
}

// "S" when solved, then termination, verdict, why and message, each on a line.
void Child(unsigned seed, const std::string& method, const Arguments& arguments, int to) {
  RandomProblem problem(seed);
  Solver::Options options;
  options.method = CreateMethod(method);
  options.max_num_iterations = arguments.iterations;
  if (arguments.tolerance > 0.0) {
    options.gradient_tolerance = options.function_tolerance = arguments.tolerance;
  }
  options.max_solver_time_in_seconds = kTimeLimit;
  Solver::Summary summary;
  const double start = Now();
  Solve(options, problem.problem(), &summary);
  const double seconds = Now() - start;
  Say(to, "S\n");
  RandomVerdict verdict = RandomCheck(problem, options, summary).Run();
  if (seconds > 2.0 * kTimeLimit && verdict.kind != RandomVerdict::kViolation) {
    verdict = {RandomVerdict::kViolation,
               "the time limit was exceeded: " + std::to_string(seconds)};
  }
  std::ostringstream out;
  out << summary.termination_type << '\n' << verdict.kind << '\n' << verdict.why << '\n';
  std::string message = summary.message;
  for (char& c : message) c = c == '\n' ? ' ' : c;
  out << message << '\n'
      << "phi " << summary.initial_objective << " -> " << summary.final_objective << ", "
      << summary.iterations.size() << " iterations, |gradient| " << summary.final_gradient_max_norm
      << ", answer " << static_cast<int>(summary.answer) << '\n';
  Say(to, out.str());
}

struct Result {
  bool crashed = false, hung = false, was_solved = false;
  int status = 0;
  int termination = -1, verdict = 0;
  std::string why, message, figures;
};

Result RunChild(unsigned seed, const std::string& method, const Arguments& arguments) {
  Result result;
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    Child(seed, method, arguments, ends[1]);
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  const double end = Now() + kTimeOut;
  for (char buffer[4096];;) {
    pollfd poll_for{ends[0], POLLIN, 0};
    const int wait = static_cast<int>(1e3 * (end - Now()));
    if (wait <= 0 || poll(&poll_for, 1, wait) == 0) {
      result.hung = true;
      kill(child, SIGKILL);
      break;
    }
    const ssize_t n = read(ends[0], buffer, sizeof(buffer));
    if (n <= 0) break;
    text.append(buffer, n);
  }
  close(ends[0]);
  waitpid(child, &result.status, 0);
  result.was_solved = !text.empty();
  result.crashed = !result.hung && result.status != 0;
  std::istringstream in(text);
  std::string line;
  if (std::getline(in, line) && std::getline(in, line))
    result.termination = std::atoi(line.c_str());
  if (std::getline(in, line)) result.verdict = std::atoi(line.c_str());
  std::getline(in, result.why);
  std::getline(in, result.message);
  std::getline(in, result.figures);
  return result;
}

void Count(const Result& result, Row* row) {
  ++row->runs;
  row->crashes += result.crashed;
  row->hangs += result.hung;
  if (result.crashed || result.hung) return;
  const bool converged = result.termination == ceres::CONVERGENCE;
  row->convergence += converged;
  row->failures += result.termination == ceres::FAILURE;
  row->mute += result.message.size() < 10;
  row->verified += result.verdict == RandomVerdict::kVerified;
  row->kink += result.verdict == RandomVerdict::kVerifiedKink;
  row->unclear += result.verdict == RandomVerdict::kUnclear;
  row->not_checked += converged && result.verdict == RandomVerdict::kNotChecked;
  row->violations += result.verdict == RandomVerdict::kViolation;
}

void Print(unsigned seed, const std::string& method, const Result& r, bool verbose) {
  const char* kind = r.hung      ? (r.was_solved ? "SLOW CHECK" : "HANG")
                     : r.crashed ? "CRASH"
                     : r.verdict == RandomVerdict::kViolation ? "VIOLATION"
                     : r.message.size() < 10                  ? "MUTE"
                     : !verbose                               ? nullptr
                     : r.termination == ceres::FAILURE        ? "failure"
                     : r.verdict == RandomVerdict::kUnclear   ? "unclear"
                     : r.termination == ceres::CONVERGENCE    ? "ok"
                                                              : "no convergence";
  if (!kind) return;
  std::printf("%s seed %u %s: %s | %s | %s",
              kind,
              seed,
              method.c_str(),
              r.why.c_str(),
              r.figures.c_str(),
              r.message.c_str());
  if (r.crashed) std::printf(" | status %x after %s", r.status, r.was_solved ? "it" : "the start");
  std::printf("\n");
}

void PrintTable(const std::map<std::string, Row>& rows) {
  std::printf("\n%-20s %5s %5s %8s %5s %7s %9s %9s %8s %5s %7s %5s\n",
              "method",
              "runs",
              "conv",
              "verified",
              "kink",
              "unclear",
              "unchecked",
              "VIOLATION",
              "failures",
              "mute",
              "crashes",
              "hangs");
  for (const auto& [method, r] : rows) {
    std::printf("%-20s %5d %5d %8d %5d %7d %9d %9d %8d %5d %7d %5d\n",
                method.c_str(),
                r.runs,
                r.convergence,
                r.verified,
                r.kink,
                r.unclear,
                r.not_checked,
                r.violations,
                r.failures,
                r.mute,
                r.crashes,
                r.hangs);
  }
}

int Main(const Arguments& arguments) {
  std::vector<std::string> methods;
  std::istringstream in(arguments.methods);
  for (std::string name; std::getline(in, name, ',');) methods.push_back(name);
  std::map<std::string, Row> rows;
  const double end = Now() + arguments.seconds;
  bool found = false;
  for (int k = 0; k < arguments.num_problems && Now() < end; ++k) {
    const unsigned seed = arguments.seed + k;
    if (arguments.verbose) std::printf("%s\n", RandomProblem(seed).Describe().c_str());
    for (const std::string& method : methods) {
      const Result result = RunChild(seed, method, arguments);
      Count(result, &rows[method]);
      Print(seed, method, result, arguments.verbose);
      found = found || result.crashed || result.hung || result.verdict == RandomVerdict::kViolation;
    }
  }
  PrintTable(rows);
  return found ? 1 : 0;
}

}  // namespace
}  // namespace bilevel

int main(int argc, char** argv) {
  bilevel::Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (name == "--seed") {
      arguments.seed = std::strtoul(value.c_str(), nullptr, 10);
    } else if (name == "--num_problems") {
      arguments.num_problems = std::atoi(value.c_str());
    } else if (name == "--methods") {
      arguments.methods = value;
    } else if (name == "--seconds") {
      arguments.seconds = std::atof(value.c_str());
    } else if (name == "--tolerance") {
      arguments.tolerance = std::atof(value.c_str());
    } else if (name == "--iterations") {
      arguments.iterations = std::atoi(value.c_str());
    } else if (name == "--verbose") {
      arguments.verbose = true;
    } else {
      std::fprintf(stderr, "unknown argument %s\n", argv[i]);
      return 2;
    }
  }
  return bilevel::Main(arguments);
}
