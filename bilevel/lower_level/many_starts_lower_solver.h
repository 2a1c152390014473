#ifndef BILEVEL_LOWER_LEVEL_MANY_STARTS_LOWER_SOLVER_H_
#define BILEVEL_LOWER_LEVEL_MANY_STARTS_LOWER_SOLVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/oracle/lower_solver.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/program.h"

namespace bilevel {

/// For lower levels with several minima: solves from the given y and from others, and takes the one
/// of least g, in each scenario by itself. Every other start follows its own minimum as x moves,
/// and is drawn anew where it has met one that is known already. phi jumps where the least changes;
/// its derivative is that along the one taken.
///
/// Starts are drawn evenly between two bounds, and around y with `spread` as standard deviation
/// elsewhere. It costs `num_starts` solves each.
class ManyStartsLowerSolver : public LowerSolver {
 public:
  struct Options {
    int num_starts = 8;   ///< With the given one.
    double spread = 1.0;  ///< In the units of y's tangent space.
    uint64_t seed = 0;
  };
  using Make = std::function<std::unique_ptr<LowerSolver>()>;

  /// `make` is called once a start. The program is not owned.
  ManyStartsLowerSolver(Program* program, const Make& make, const Options& options);

  std::string CheckOptions() const override;
  bool takes_constraints() const override { return main_->takes_constraints(); }
  bool projects() const override { return main_->projects(); }
  std::string WhyNoDerivative() const override { return main_->WhyNoDerivative(); }
  std::string WhyNoSecondDerivative() const override { return main_->WhyNoSecondDerivative(); }
  bool Solve(const Point& x, Point* y) override;
  void SetTolerance(double tolerance) override { main_->SetTolerance(tolerance); }
  bool has_tolerance() const override { return main_->has_tolerance(); }
  bool Differentiate(const Point& x, const Point& y) override { return main_->Differentiate(x, y); }
  const Matrix& dy_dx() override { return main_->dy_dx(); }
  bool Adjoint(const Vector& fy, Vector* product) override { return main_->Adjoint(fy, product); }
  bool AdjointVector(const Vector& fy, Vector* z) override { return main_->AdjointVector(fy, z); }
  bool Tangent(const Vector& direction, Vector* motion) override {
    return main_->Tangent(direction, motion);
  }
  bool IsDetermined(const Vector& fy) override { return main_->IsDetermined(fy); }
  bool AnyFreeDirection(Vector* direction) override { return main_->AnyFreeDirection(direction); }
  std::unique_ptr<LowerSolver> Fork() const override;
  bool Remember(Memory* memory) override;
  const std::string& message() const override { return main_->message(); }
  const LowerSolverCounts& counts() const override;
  double relative_decrement() const override { return main_->relative_decrement(); }
  LowerSolverReport Report() const override;

 private:
  struct Start {
    std::unique_ptr<LowerSolver> solver;
    Point y;
    bool is_fresh = true;  // To be drawn.
  };
  ManyStartsLowerSolver(Program* program,
                        std::unique_ptr<LowerSolver> main,
                        const Options& options);
  void Draw(const Point& around, Point* y);
  void Values(const Point& x, const Point& y, Vector* values);

  Program* program_;
  Options options_;
  std::unique_ptr<LowerSolver> main_;  // From the given y; and the one that differentiates.
  std::vector<Start> others_;
  std::vector<std::unique_ptr<LevelEvaluator>> g_;  // By scenario.
  uint64_t num_drawn_ = 0;
  mutable LowerSolverCounts counts_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_MANY_STARTS_LOWER_SOLVER_H_
