#ifndef BILEVEL_ANALYSIS_OPTIMALITY_H_
#define BILEVEL_ANALYSIS_OPTIMALITY_H_

#include <limits>
#include <string>

#include "bilevel/problem.h"
#include "bilevel/solver.h"

namespace bilevel {

/// How near the current x and y, whatever found them, are to a solution where the lower level need
/// not be strongly convex: the notions of Chen, Xu and Zhang, "Bilevel optimization without
/// lower-level strong convexity from the hyper-objective perspective" (2023). Nothing of the user's
/// is changed.

/// Definition 3.9: y is (zeta_f, zeta_g)-optimal below where |f(x, y) - phi(x)| <= zeta_f and
/// g(x, y) - g*(x) <= zeta_g. These are the least zetas for which it is.
struct LowerOptimality {
  bool ok = false;
  std::string message = "CheckLowerOptimality was not called.";
  double zeta_f = std::numeric_limits<double>::quiet_NaN();
  double zeta_g = std::numeric_limits<double>::quiet_NaN();
  double objective = std::numeric_limits<double>::quiet_NaN();    ///< phi(x).
  double lower_value = std::numeric_limits<double>::quiet_NaN();  ///< g*(x).
  /// Definition 3.2: |y - P(y - eta g_y)| / eta, eta = 1 / L with the L that Lanczos' process finds
  /// at y (1 where it finds none), P the projection on the bounds of y.
  double generalized_gradient = std::numeric_limits<double>::quiet_NaN();
  std::string Report() const;
};

/// phi(x) and g*(x) by a solve from y: with options.lower_solver where it is given, Sgm say; else
/// exactly, f's choice followed along a smooth set of solutions (OptimisticLowerSolver). Not ok:
/// there is no such reference, message says why.
LowerOptimality CheckLowerOptimality(Problem* problem, const Solver::Options& options);
inline LowerOptimality CheckLowerOptimality(Problem* problem) {
  return CheckLowerOptimality(problem, Solver::Options());
}

/// Definition 3.8: x is (delta, epsilon)-Goldstein stationary where the hull of phi's Clarke
/// gradients within delta of x has a point of norm epsilon at most (Zhang et al., ICML 2020).
struct GoldsteinStationarity {
  bool ok = false;
  std::string message = "CheckGoldsteinStationarity was not called.";
  /// x is (delta, epsilon)-stationary. With a derivative of y*(x): the least norm in the hull of
  /// hypergradients at x and num_points others drawn from the ball, an upper bound without any
  /// chance in it. Without one: of the gradient of phi smoothed over the ball, an element of the
  /// hull, by 2 num_points values of phi (as Igfm), plus the half-width of its 95 % interval.
  double epsilon = std::numeric_limits<double>::quiet_NaN();
  double half_width = 0.0;
  int num_points = 0;  ///< Those of them that have a phi.
  std::string Report() const;
};

struct GoldsteinOptions {
  Solver::Options solver;  ///< Its lower level's part, and its seed.
  double delta = 1e-3;     ///< In the units of x.
  int num_points = 0;      ///< 0: twice x's length, or 100 without a derivative.
};

/// A kink at x asks for as many points as it has sides; a jump within the ball, where the notion
/// has no meaning, is told in the message.
GoldsteinStationarity CheckGoldsteinStationarity(Problem* problem, const GoldsteinOptions& options);

/// What of the lower level makes a bilevel problem tractable without strong convexity, as it is
/// along one run of projected subgradient steps of Polyak's length from the current y, at the
/// current x:
///
///   y_{k+1} = P(y_k - (g(y_k) - g*) / |g_y|^2 g_y),   g* by the lower solver from the run's end.
///
/// For a convex g the run comes no farther from any solution, so that the distance d_k to where it
/// ends lies between dist(y_k, Y*(x)) and twice that: constants below are too small by up to that
/// factor (its p-th power), where Y* is more than a point. They are those of the points met, hence
/// bounds from above on what holds everywhere.
struct LowerRegularity {
  bool ok = false;
  std::string message = "EstimateLowerRegularity was not called.";
  /// Hoelder's error bound g - g* >= growth * dist^exponent: 1 where the minimum is weak sharp, 2
  /// where gradients dominate, more where g is flat. The exponent is the slope of log(g - g*) by
  /// log(dist), the growth what it then is at worst.
  double exponent = std::numeric_limits<double>::quiet_NaN(), growth = exponent;
  /// Assumption 5.1's alpha: |G_{1/L}(y)| >= alpha dist.
  double dominance = exponent;
  /// Assumption 5.2's: g - g* >= 2 alpha dist.
  double sharpness = exponent;
  /// Largest |grad g(x, y_k) - grad g(x, y_{k+1})| / |y_k - y_{k+1}|, gradients by x and y: L.
  double smoothness = exponent;
  double lipschitz_x = exponent, lipschitz_y = exponent;  ///< Largest |g_x| and |g_y|.
  int num_points = 0;                                     ///< That the numbers are made of.
  std::string Report() const;
};

LowerRegularity EstimateLowerRegularity(Problem* problem,
                                        const Solver::Options& options,
                                        int num_steps = 200);

}  // namespace bilevel

#endif  // BILEVEL_ANALYSIS_OPTIMALITY_H_
