#include "bilevel/search/multi_start.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "bilevel/base/internal/bookkeeping.h"
#include "bilevel/internal/prepared_problem.h"

namespace bilevel {
namespace {

// Offsets in [-1, 1]: each coordinate visits each of n strata once.
Matrix LatinHypercube(int dimension, int n, unsigned seed) {
  std::mt19937 generator(seed);
  Matrix offsets(dimension, n);
  std::vector<int> order(n);
  for (int i = 0; i < dimension; ++i) {
    std::iota(order.begin(), order.end(), 0);
    for (int k = n; k > 1; --k) std::swap(order[k - 1], order[generator() % k]);
    for (int k = 0; k < n; ++k) {
      const double within = static_cast<double>(generator()) / 4294967296.0;
      offsets(i, k) = 2.0 * (order[k] + within) / n - 1.0;
    }
  }
  return offsets;
}

// A start, phi there, and phi where the run from it ended. NaN: not known.
struct Start {
  Point x;
  double objective = kNaN, refined = kNaN;
};

// What is not known ranks last.
double Rank(double objective) {
  return std::isfinite(objective) ? objective : std::numeric_limits<double>::infinity();
}

// The given x, then as many others as the manifolds let move.
std::vector<Start> Spread(const MultiStartOptions& options, const Point& x) {
  const Matrix offsets = LatinHypercube(x.dim(), options.num_starts, options.seed);
  std::vector<Start> starts(1);
  starts[0].x = x;
  for (int k = 0; k < options.num_starts; ++k) {
    Start start{x};
    if (start.x.Move(options.radius * offsets.col(k))) starts.push_back(std::move(start));
  }
  return starts;
}

// Solves a problem again and again, from any x and always the same y.
struct Runner {
  Problem* problem;
  const PreparedProblem& prepared;
  const State given;
  LowerSolverCounts counts;

  Solver::Summary SolveFrom(const Point& x, const Solver::Options& options) {
    prepared.WriteUser(x, given.y);
    Solver::Summary summary;
    Solve(options, problem, &summary);
    counts += summary.lower_solver;
    return summary;
  }
};

// Evaluates phi at all starts and brings the best to the front.
void Look(Solver::Options options, Runner* runner, std::vector<Start>* starts) {
  options.max_num_iterations = 0;
  options.minimizer_progress_to_stdout = false;
  options.callbacks.clear();
  for (Start& start : *starts) {
    const Solver::Summary summary = runner->SolveFrom(start.x, options);
    if (summary.IsSolutionUsable()) start.objective = summary.initial_objective;
  }
  std::stable_sort(starts->begin(), starts->end(), [](const Start& a, const Start& b) {
    return Rank(a.objective) < Rank(b.objective);
  });
}

// Solves from the first `num` starts. Leaves the user's memory and *summary at the best end, and
// returns how many ended as low.
int Refine(const Solver::Options& options,
           int num,
           Runner* runner,
           std::vector<Start>* starts,
           Solver::Summary* summary) {
  State best_state = runner->given;
  double best = std::numeric_limits<double>::infinity();
  for (int k = 0; k < num; ++k) {
    Start& start = (*starts)[k];
    const Solver::Summary there = runner->SolveFrom(start.x, options);
    if (there.IsSolutionUsable()) start.refined = there.final_objective;
    const bool better = Rank(start.refined) < best;
    if (better) {
      best = start.refined;
      best_state = runner->prepared.Start();
    }
    if (better || k == 0) *summary = there;
  }
  runner->prepared.WriteUser(best_state.x, best_state.y);
  return static_cast<int>(
      std::count_if(starts->begin(), starts->begin() + num, [best](const Start& start) {
        return std::abs(Rank(start.refined) - best) <= 1e-3 * std::abs(best);
      }));
}

}  // namespace

bool MultiStartOptions::IsValid(std::string* error) const {
  const char* what = num_starts < 0                              ? "num_starts must not be negative"
                     : num_refined < 1                           ? "num_refined must be positive"
                     : !(radius > 0.0) || !std::isfinite(radius) ? "radius must be positive"
                                                                 : nullptr;
  return !what || Refuse(what, error);
}

void SolveFromManyStarts(const MultiStartOptions& multi_start,
                         const Solver::Options& options,
                         Problem* problem,
                         Solver::Summary* summary,
                         std::vector<MultiStartReport>* starts) {
  Solver::Summary unwanted;
  if (!summary) summary = &unwanted;
  *summary = Solver::Summary();
  if (starts) starts->clear();
  if (!multi_start.IsValid(&summary->message)) return;
  if (!options.checkpoint.file.empty()) {
    summary->message = "options.checkpoint is of one solve, and these are many";
    return;
  }
  const auto prepared = PreparedProblem::Create(options, {}, problem, &summary->message);
  if (!prepared) return;
  Runner runner{problem, *prepared, prepared->Start(), {}};
  std::vector<Start> all = Spread(multi_start, runner.given.x);
  Look(options, &runner, &all);
  const int refined = std::min<int>(multi_start.num_refined, static_cast<int>(all.size()));
  const int same = Refine(options, refined, &runner, &all, summary);
  summary->lower_solver = runner.counts;
  summary->message += "; the best of " + std::to_string(refined) + " runs from the best of " +
                      std::to_string(all.size()) + " starts, reached by " + std::to_string(same);
  if (!starts) return;
  for (const Start& start : all) {
    const Vector& values = start.x.value();
    starts->push_back(
        {{values.data(), values.data() + values.size()}, start.objective, start.refined});
  }
}

}  // namespace bilevel
