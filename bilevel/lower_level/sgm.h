#ifndef BILEVEL_LOWER_LEVEL_SGM_H_
#define BILEVEL_LOWER_LEVEL_SGM_H_

#include <memory>
#include <string>

#include "bilevel/lower_level/block_jacobi.h"
#include "bilevel/oracle/lower_solver.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/program.h"

namespace bilevel {

/// The switching gradient method (Chen, Xu and Zhang, "Bilevel optimization without lower-level
/// strong convexity from the hyper-objective perspective", 2023, Algorithm 1; after Polyak, 1967):
/// a y that minimises f(x, .) over argmin g(x, .), both convex in y and neither strongly nor
/// smoothly so. With P the projection on Y, the bounds and convex sets of its blocks:
///
///   g* ~ least g over K0 steps   y <- P(y - lower_step g_y)          from the given start
///   K steps, again from there:   y <- P(y - step f_y)  where g(x, y) - g* <= 2 theta   (set I)
///                                y <- P(y - step g_y)  elsewhere
///   the average of y over I
///
/// For f and g C-Lipschitz, Y of diameter R, step = theta / C^2, K >= 2 R^2 C^2 / theta^2 and g*
/// good to theta: f(y) - phi <= theta and g(y) - min g <= 3 theta. Subgradients will do: return
/// one from an Objective. It has no derivative: for methods of order zero. Where g is flat no
/// first- order method gets near Y* in fewer steps than y has coordinates (their proposition 4.2):
/// Report says so where g still fell by more than theta in the second half of the K0 steps.
class Sgm : public LowerSolver {
 public:
  enum Output {
    kAverage,       ///< Over I, the paper's.
    kBest,          ///< The y of I with least f.
    kLastFeasible,  ///< The last y of I.
  };
  struct Options {
    double theta = 0.05;  ///< The paper tried 1e-1, 1e-2 and 1e-3 on its data.
    /// theta / C^2, for C = 1: scale f and g, or this.
    double step = 0.05;
    int num_steps = 3200;  ///< K = 8 / theta^2: the bound above for C = 1, R = 2.
    /// The paper uses one step in both loops. Up to 1 / L for a smooth g is faster.
    double lower_step = 0.05;
    int num_lower_steps = 3200;  ///< K0.
    /// All steps along g are y <- P(y - lower_step M^-1 g_y), with the metric of BlockJacobi from
    /// the start of each solve; lower_step is then about 1. Steps along f stay as they are.
    bool jacobi = false;
    Output output = kAverage;
  };

  /// What theorem 6.1 asks to know, of f and g within the lower level's set.
  struct Constants {
    double f_lipschitz = 1.0, g_lipschitz = 1.0;  ///< In y.
    double diameter = 2.0;                        ///< Of the set: R.
    /// Hoelder's error bound g - g* >= growth * dist(y, Y*)^exponent: 1 and 2 alpha where the
    /// minimum is weak sharp, 2 and about alpha / 2 where gradients dominate by alpha (proposition
    /// G.1). EstimateLowerRegularity measures both along a run.
    double exponent = 2.0, growth = 0.5;
  };
  /// theta, steps and their numbers with which y is (zeta_f, zeta_g)-optimal (theorem 6.1), the
  /// rest of *options untouched. The paper's own are in an appendix; these are the bounds above
  /// with phi - f(y) <= f_lipschitz (3 theta / growth)^(1 / exponent), and K0 of subgradient steps.
  /// False: a constant makes no sense, or the numbers are beyond an int; *error says so.
  static bool ByTheorem(const Constants& constants,
                        double zeta_f,
                        double zeta_g,
                        Options* options,
                        std::string* error);

  /// The program is not owned.
  Sgm(Program* program, const Options& options);
  ~Sgm() override;

  std::string CheckOptions() const override;
  bool projects() const override { return true; }
  std::string WhyNoDerivative() const override;
  bool Solve(const Point& x, Point* y) override;
  /// False: there is no derivative.
  bool Differentiate(const Point& x, const Point& y) override;
  const Matrix& dy_dx() override { return nothing_; }
  bool Adjoint(const Vector& /*fy*/, Vector* /*product*/) override { return false; }
  bool IsDetermined(const Vector& /*fy*/) override { return false; }
  std::unique_ptr<LowerSolver> Fork() const override;
  bool Remember(Memory* memory) override;
  const std::string& message() const override { return message_; }
  const LowerSolverCounts& counts() const override { return counts_; }
  LowerSolverReport Report() const override;

  /// Of the last Solve: the size of I. Where it is 0, y is the one of least g.
  int num_feasible() const { return num_feasible_; }
  /// Of the last Solve: least g found in the first loop.
  double least_lower_value() const { return g_star_; }

 private:
  bool Move(double step, const Vector& gradient, Point* y);
  bool IsLate();
  bool MoveDown(double step, Point* y);

  Program* program_;
  Options options_;
  Oracle oracle_;
  BlockJacobi jacobi_;
  Point now_, best_, least_;
  Vector gradient_, difference_;
  Matrix nothing_;
  double g_star_ = 0.0;
  int num_feasible_ = 0;
  long num_empty_ = 0, num_unsettled_ = 0;
  std::string message_;
  LowerSolverCounts counts_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_SGM_H_
