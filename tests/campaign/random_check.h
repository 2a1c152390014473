#ifndef BILEVEL_TESTS_CAMPAIGN_RANDOM_CHECK_H_
#define BILEVEL_TESTS_CAMPAIGN_RANDOM_CHECK_H_

// Whether an answer keeps what Solve promises, by the problem's own formulas and differences of
// re-solved lower levels; no derivative and no solver of the library takes part.

#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/bilevel.h"
#include "campaign/random_problems.h"

namespace bilevel {

struct RandomVerdict {
  enum Kind {
    kNotChecked,    // It promises nothing (no CONVERGENCE), or nothing that can be checked.
    kVerified,      // Stationary by differences.
    kVerifiedKink,  // At a kink or jump that the Summary names, phi falls to no side.
    kUnclear,       // Differences are too noisy to tell.
    kViolation,
  };
  Kind kind = kNotChecked;
  std::string why;
};

class RandomCheck {
 public:
  RandomCheck(const RandomProblem& problem,
              const Solver::Options& options,
              const Solver::Summary& summary);
  RandomVerdict Run();

 private:
  struct Slope {
    double value, error, curvature;
  };
  // What holds of every usable answer: finite, within bounds, on manifolds, f as reported.
  std::string Memory() const;
  std::string LowerLevel();
  double FallOfG(int scenario, double way) const;
  // phi at x moved along a tangent direction; NaN where there is no y*(x).
  double Phi(const Eigen::VectorXd& step);
  Slope Differences(const Eigen::VectorXd& direction, double h);
  // By two step sizes, which give the error.
  Slope Differentiate(const Eigen::VectorXd& direction, double h);
  double Curvature(const Eigen::VectorXd& direction);
  // With the sign of x's bounds: 0 where a step downhill leaves them.
  void Gradient();
  RandomVerdict Stationary();
  RandomVerdict NoSideFalls(const std::string& why);

  const RandomProblem& problem_;
  const Solver::Options& options_;
  const Solver::Summary& summary_;
  BlockValues values_;
  std::vector<int> x_;
  std::vector<double> room_below_, room_above_;  // Of x's tangent coordinates.
  double phi_ = 0.0, noise_ = 0.0, negligible_ = 0.0, size_ = 1.0;
  bool is_singular_ = false, is_weak_ = false, is_unclear_ = false;
  Eigen::VectorXd gradient_, error_;
};

}  // namespace bilevel

#endif  // BILEVEL_TESTS_CAMPAIGN_RANDOM_CHECK_H_
