#include "bilevel/search/multi_start.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "bilevel/internal/prepared_problem.h"

namespace bilevel {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

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

}  // namespace

bool MultiStartOptions::IsValid(std::string* error) const {
  const char* what = num_starts < 0                              ? "num_starts must not be negative"
                     : num_refined < 1                           ? "num_refined must be positive"
                     : !(radius > 0.0) || !std::isfinite(radius) ? "radius must be positive"
                                                                 : nullptr;
  if (what && error) *error = what;
  return !what;
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
  const auto prepared = PreparedProblem::Create(options, {}, problem, &summary->message);
  if (!prepared) return;
  const State given = prepared->Start();

  struct Start {
    Point x;
    double objective = kNaN, refined = kNaN;
  };
  const Matrix offsets = LatinHypercube(given.x.dim(), multi_start.num_starts, multi_start.seed);
  std::vector<Start> all(1);
  all[0].x = given.x;
  for (int k = 0; k < multi_start.num_starts; ++k) {
    Start start{given.x};
    if (start.x.Move(multi_start.radius * offsets.col(k))) all.push_back(std::move(start));
  }
  Solver::Options look = options;
  look.max_num_iterations = 0;
  look.minimizer_progress_to_stdout = false;
  look.callbacks.clear();
  LowerSolverCounts counts;
  for (Start& start : all) {
    prepared->WriteUser(start.x, given.y);
    Solver::Summary there;
    Solve(look, problem, &there);
    counts += there.lower_solver;
    if (there.IsSolutionUsable()) start.objective = there.initial_objective;
  }
  const auto rank = [](double objective) {
    return std::isfinite(objective) ? objective : std::numeric_limits<double>::infinity();
  };
  std::stable_sort(all.begin(), all.end(), [&](const Start& a, const Start& b) {
    return rank(a.objective) < rank(b.objective);
  });

  State best_state = given;
  double best = std::numeric_limits<double>::infinity();
  const int refined = std::min<int>(multi_start.num_refined, static_cast<int>(all.size()));
  int same = 0;
  for (int k = 0; k < refined; ++k) {
    prepared->WriteUser(all[k].x, given.y);
    Solver::Summary there;
    Solve(options, problem, &there);
    counts += there.lower_solver;
    if (there.IsSolutionUsable()) all[k].refined = there.final_objective;
    if (k == 0 || rank(all[k].refined) < best) {
      if (rank(all[k].refined) < best) {
        best = all[k].refined;
        best_state = prepared->Start();
      }
      *summary = there;
    }
  }
  prepared->WriteUser(best_state.x, best_state.y);
  for (int k = 0; k < refined; ++k) {
    same += std::abs(rank(all[k].refined) - best) <= 1e-3 * std::abs(best);
  }
  summary->lower_solver = counts;
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
