// How many of the problems with known answers (tests/bilevel_problems.h) are solved from their
// given starts by "auto", by each single method with --all, and by many starts; and how often
// CONVERGENCE is said away from every listed minimum. The page README.md beside this file says what
// the rows mean.
//
//   problems_benchmark [--all] [--seconds=10] [--only=PART_OF_A_NAME] [--general]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/stochastic_method.h"
#include "bilevel_problems.h"

namespace bilevel {
namespace {

struct Flags {
  bool all = false;       // Every method that is not stochastic, beside auto.
  bool general = false;   // Sums of squares as general terms.
  double seconds = 10.0;  // Of one solve, and of all of many starts.
  std::string only;
};

// The methods for minibatches are measured elsewhere.
bool IsStochastic(const std::string& method) {
  return dynamic_cast<StochasticMethod*>(CreateMethod(method).get()) != nullptr;
}

struct Outcome {
  bool is_solved = false;  // x is at a listed minimum.
  bool is_global = false;
  bool has_phi = false;   // f(x, y) is that minimum's phi too.
  bool is_false = false;  // CONVERGENCE away from every listed minimum.
  double x_error = 0.0;   // To the nearest listed minimum, largest coordinate.
  double phi = 0.0;
  Solver::Summary summary;
};

double DistanceToNearest(const BilevelProblem& problem, const Values& x) {
  double nearest = std::numeric_limits<double>::infinity();
  for (const KnownMinimum& minimum : problem.minima) {
    double distance = 0.0;
    for (size_t i = 0; i < x.size(); ++i) {
      distance = std::max(distance, std::abs(x[i] - minimum.x[i]));
    }
    nearest = std::min(nearest, distance);
  }
  return nearest;
}

// method "many_starts": auto, from many starts.
Outcome Run(const BilevelProblem& problem, const std::string& method, const Flags& flags) {
  Outcome outcome;
  Values x = problem.x, y = problem.y;
  const std::unique_ptr<Problem> built = problem.Build(
      x.data(),
      y.data(),
      flags.general ? BilevelProblem::kGeneralTerms : BilevelProblem::kResidualBlocks);
  const bool many = method == "many_starts";
  Solver::Options options;
  options.method = CreateMethod(many ? "auto" : method);
  options.max_num_iterations = 200;
  options.max_solver_time_in_seconds = flags.seconds;
  if (many) {
    MultiStartOptions starts;
    starts.radius = 3.0;  // Of x itself: no logarithms here.
    options.max_solver_time_in_seconds /= 1 + starts.num_refined;
    SolveFromManyStarts(starts, options, built.get(), &outcome.summary, nullptr);
  } else {
    Solve(options, built.get(), &outcome.summary);
  }
  outcome.x_error = DistanceToNearest(problem, x);
  outcome.phi = problem.f(x.data(), y.data());
  KnownMinimum found;
  if (const KnownMinimum* minimum = problem.MinimumAt(x, y, &found)) {
    outcome.is_solved = true;
    outcome.is_global = minimum->kind == KnownMinimum::kGlobal;
    outcome.has_phi =
        std::abs(outcome.phi - minimum->phi) <= problem.tolerance * (1.0 + std::abs(minimum->phi));
  }
  outcome.is_false = !outcome.is_solved && outcome.summary.termination_type == ceres::CONVERGENCE;
  return outcome;
}

struct Count {
  int solved = 0, global = 0, with_phi = 0, wrong = 0;
  void Add(const Outcome& outcome) {
    solved += outcome.is_solved;
    global += outcome.is_global;
    with_phi += outcome.has_phi;
    wrong += outcome.is_false;
  }
};

const char* Word(const Outcome& outcome) {
  if (outcome.is_false) return "WRONG";
  if (!outcome.is_solved) return "no";
  if (!outcome.has_phi) return "x only";
  return outcome.is_global ? "global" : "local";
}

void PrintLine(const BilevelProblem& problem, const std::string& method, const Outcome& outcome) {
  std::string message = outcome.summary.message;
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::printf("%-30s %-16s %-12s %-7s %9.2e %-14s %12.6g  %s\n",
              problem.name.c_str(),
              problem.category.c_str(),
              method.c_str(),
              Word(outcome),
              outcome.x_error,
              ceres::TerminationTypeToString(outcome.summary.termination_type),
              outcome.phi,
              message.substr(0, 90).c_str());
  std::fflush(stdout);
}

// A row of the table, and its target.
void PrintRow(const std::string& what, int value, int target) {
  std::printf("  %-60s %d   (target %d)\n", what.c_str(), value, target);
}

int Main(const Flags& flags) {
  std::vector<std::string> methods{"auto", "many_starts"};
  for (const std::string& method : ListMethods()) {
    if (flags.all && method != "auto" && !IsStochastic(method)) methods.push_back(method);
  }
  std::map<std::string, Count> of_method;
  std::map<std::string, std::pair<int, int>> of_category;  // Solved by auto, all.
  int num_problems = 0, num_by_any = 0;
  std::printf("%-30s %-16s %-12s %-7s %9s %-14s %12s  %s\n",
              "problem",
              "category",
              "method",
              "solved",
              "x error",
              "termination",
              "f(x, y)",
              "message");
  for (const BilevelProblem& problem : AllBilevelProblems()) {
    if (problem.name.find(flags.only) == std::string::npos) continue;
    ++num_problems;
    bool by_any = false;
    for (const std::string& method : methods) {
      const Outcome outcome = Run(problem, method, flags);
      of_method[method].Add(outcome);
      by_any |= outcome.is_solved;
      if (method == "auto") {
        of_category[problem.category].first += outcome.is_solved;
        ++of_category[problem.category].second;
      }
      if (method == "auto" || outcome.is_false || !flags.only.empty()) {
        PrintLine(problem, method, outcome);
      }
    }
    num_by_any += by_any;
  }
  const Count& by_auto = of_method["auto"];
  std::printf("\n%d problems, %s, at most %g s each\n",
              num_problems,
              flags.general ? "general terms only" : "residual blocks where a level is of squares",
              flags.seconds);
  PrintRow("solved by auto", by_auto.solved, num_problems);
  for (const auto& [category, solved] : of_category) {
    PrintRow("solved by auto, " + category, solved.first, solved.second);
  }
  PrintRow("at a global minimum by auto", by_auto.global, num_problems);
  PrintRow("solved by auto, f(x, y) too", by_auto.with_phi, num_problems);
  PrintRow("CONVERGENCE of auto away from every listed minimum", by_auto.wrong, 0);
  PrintRow("solved by many starts of auto", of_method["many_starts"].solved, num_problems);
  PrintRow("at a global minimum by many starts", of_method["many_starts"].global, num_problems);
  PrintRow("CONVERGENCE of many starts away from them", of_method["many_starts"].wrong, 0);
  if (flags.all) {
    PrintRow("solved by any of the methods", num_by_any, num_problems);
    std::printf("\n  %-24s %8s %8s %8s %8s\n", "method", "solved", "global", "and f", "WRONG");
    for (const std::string& method : methods) {
      const Count& count = of_method[method];
      std::printf("  %-24s %8d %8d %8d %8d\n",
                  method.c_str(),
                  count.solved,
                  count.global,
                  count.with_phi,
                  count.wrong);
    }
  }
  return 0;
}

}  // namespace
}  // namespace bilevel

int main(int argc, char** argv) {
  bilevel::Flags flags;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--all") {
      flags.all = true;
    } else if (flag == "--general") {
      flags.general = true;
    } else if (flag.rfind("--seconds=", 0) == 0) {
      flags.seconds = std::atof(flag.c_str() + 10);
    } else if (flag.rfind("--only=", 0) == 0) {
      flags.only = flag.substr(7);
    } else {
      std::fprintf(stderr, "There is no flag %s.\n", argv[i]);
      return 1;
    }
  }
  return bilevel::Main(flags);
}
