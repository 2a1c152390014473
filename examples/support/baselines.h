#ifndef BILEVEL_EXAMPLES_SUPPORT_BASELINES_H_
#define BILEVEL_EXAMPLES_SUPPORT_BASELINES_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/internal/prepared_problem.h"

/// Searches without derivatives, to hold what was learned against, and a test of whether one
/// estimate is better than another.
namespace examples {

/// phi at values of some entries of x: solves the lower level there and scores the solution. Every
/// solve begins at the first one's solution, which itself begins at the memory of y as it was.
/// Memory, of x too, is left at the last solution.
class Phi {
 public:
  /// coordinates: the entries of x that are searched, in declared blocks. score: of the user's
  /// memory with y solved; empty: the upper level's value. The problem must outlive this.
  Phi(const bilevel::Solver::Options& options,
      std::vector<double*> coordinates,
      std::function<double()> score,
      bilevel::Problem* problem);

  /// Infinity where the lower level has no solution.
  double operator()(const std::vector<double>& x);

  /// Begins the next solve at the memory of y as it was first, as it is now, or at the last
  /// solution; and every later one at the next one's solution.
  void Restart();
  void StartHere();
  void Continue();

  /// Walks straight from a to b and looks closer where phi (the upper level's value) changes most:
  /// a sentence where it jumps, else empty.
  std::string FindJump(const std::vector<double>& a, const std::vector<double>& b, int steps);

  /// Why nothing can be evaluated; empty if it can.
  const std::string& error() const { return error_; }
  bilevel::LowerSolverCounts counts() const;
  double seconds() const { return seconds_; }

 private:
  void MoveTo(const std::vector<double>& x);

  std::vector<double*> coordinates_;
  std::function<double()> score_;
  std::string error_;
  std::unique_ptr<bilevel::PreparedProblem> prepared_;
  bilevel::LowerSolverCounts counts_;  // Of earlier lower solvers.
  bilevel::Point first_, start_;       // Of y.
  bilevel::State state_;
  bool started_ = false;
  double seconds_ = 0.0;
};

using Score = std::function<double(const std::vector<double>& x)>;

struct SearchResult {
  std::vector<double> x;
  double value = 0.0;
  int evaluations = 0;
};

/// The best point of the product of the axes. Infinite or NaN scores lose.
SearchResult GridSearch(const Score& score, const std::vector<std::vector<double>>& axes);

/// Nelder and Mead's simplex (The Computer Journal 7, 1965), begun at start and start + step in
/// each coordinate, until the values at its corners differ by a share of less than `tolerance`.
SearchResult NelderMead(const Score& score,
                        const std::vector<double>& start,
                        double step,
                        double tolerance,
                        int max_evaluations);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_BASELINES_H_
