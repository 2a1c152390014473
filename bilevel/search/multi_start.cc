#include "bilevel/search/multi_start.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "bilevel/program/program.h"

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
  if (!problem) {
    summary->message = "the problem is null";
    return;
  }
  const std::unique_ptr<Program> program =
      problem->Compile(Problem::CompileOptions(), &summary->message);
  if (!program) return;
  Point x(&program->x), y(&program->y);
  program->x.ReadUser(x.value().data());
  program->y.ReadUser(y.value().data());

  struct Start {
    Point x;
    double objective = kNaN, refined = kNaN;
  };
  const Matrix offsets = LatinHypercube(x.dim(), multi_start.num_starts, multi_start.seed);
  std::vector<Start> all(1);
  all[0].x = x;
  for (int k = 0; k < multi_start.num_starts; ++k) {
    Start start{x};
    if (start.x.Move(multi_start.radius * offsets.col(k))) all.push_back(std::move(start));
  }
  const auto write = [&](const Point& at_x, const Point& at_y) {
    program->x.WriteUser(at_x.value().data());
    program->y.WriteUser(at_y.value().data());
  };
  Solver::Options look = options;
  look.max_num_iterations = 0;
  look.minimizer_progress_to_stdout = false;
  look.callbacks.clear();
  LowerSolverCounts counts;
  for (Start& start : all) {
    write(start.x, y);
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

  Point best_x = x, best_y = y;
  double best = std::numeric_limits<double>::infinity();
  const int refined = std::min<int>(multi_start.num_refined, static_cast<int>(all.size()));
  int same = 0;
  for (int k = 0; k < refined; ++k) {
    write(all[k].x, y);
    Solver::Summary there;
    Solve(options, problem, &there);
    counts += there.lower_solver;
    if (there.IsSolutionUsable()) all[k].refined = there.final_objective;
    if (k == 0 || rank(all[k].refined) < best) {
      if (rank(all[k].refined) < best) {
        best = all[k].refined;
        program->x.ReadUser(best_x.value().data());
        program->y.ReadUser(best_y.value().data());
      }
      *summary = there;
    }
  }
  write(best_x, best_y);
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
