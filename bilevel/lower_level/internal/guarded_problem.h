#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_GUARDED_PROBLEM_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_GUARDED_PROBLEM_H_

#include <memory>
#include <string>

#include "bilevel/program/program.h"
#include "ceres/problem.h"
#include "ceres/solver.h"

namespace bilevel {

/// A scenario's lower level as a ceres::Problem of our own: over the user's memory, with x and the
/// user's constants constant, and with every cost function, loss, manifold and evaluation callback
/// behind a guard. What Ceres would abort on (a loss that falls or is not a number), or could not
/// catch on its threads (exceptions), is a residual block that cannot be evaluated.
class GuardedProblem {
 public:
  /// Neither is owned.
  GuardedProblem(const Program& program, const Program::Scenario& scenario);
  ~GuardedProblem();

  /// ceres::Solve from the user's memory, and to there. False: *message says why, with the first
  /// culprit by name.
  bool Solve(const ceres::Solver::Options& options, std::string* message);

 private:
  class Culprit;
  class Cost;
  class Loss;
  class Manifold;
  class Callback;

  std::unique_ptr<Culprit> culprit_;
  std::unique_ptr<Callback> callback_;
  std::unique_ptr<ceres::Problem> problem_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_GUARDED_PROBLEM_H_
