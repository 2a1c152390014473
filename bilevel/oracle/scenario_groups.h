#ifndef BILEVEL_ORACLE_SCENARIO_GROUPS_H_
#define BILEVEL_ORACLE_SCENARIO_GROUPS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/oracle/lower_solver.h"
#include "bilevel/program/program.h"

namespace bilevel {

/// The lower level in groups of neighbouring scenarios, each with a lower solver of its own, which
/// keeps its factorisations and warm starts: one group is solved at a time, or all of them in
/// order. Within a group scenarios run in parallel. For minibatches of scenarios.
class ScenarioGroups : public LowerSolver {
 public:
  using Factory = std::function<std::unique_ptr<LowerSolver>(Program*)>;

  /// The program is not owned; make is called once a group. group_size: scenarios, fewer in the
  /// last.
  ScenarioGroups(Program* program, int group_size, const Factory& make);

  int num_groups() const { return static_cast<int>(groups_.size()); }
  int first_scenario(int group) const { return group * group_size_; }
  int num_scenarios(int group) const;
  /// Everything below is about this group from here on; -1: about all of them.
  void Use(int group) { used_ = group; }

  std::string CheckOptions() const override;
  bool takes_constraints() const override { return groups_[0].solver->takes_constraints(); }
  bool takes_ranks() const override { return groups_[0].solver->takes_ranks(); }
  bool projects() const override { return groups_[0].solver->projects(); }
  std::string WhyNoDerivative() const override;
  void SetTolerance(double tolerance) override;
  bool has_tolerance() const override;
  /// Touches the y of the used groups only.
  bool Solve(const Point& x, Point* y) override;
  bool Differentiate(const Point& x, const Point& y) override;
  /// Zero for scenarios not in use.
  const Matrix& dy_dx() override;
  bool Adjoint(const Vector& fy, Vector* product) override;
  bool IsDetermined(const Vector& fy) override;
  std::unique_ptr<LowerSolver> Fork() const override;
  bool Remember(Memory* memory) override;
  const std::string& message() const override { return message_; }
  const LowerSolverCounts& counts() const override;
  double relative_decrement() const override;
  LowerSolverReport Report() const override;

 private:
  struct Group {
    std::unique_ptr<Program> program;
    std::unique_ptr<LowerSolver> solver;
  };
  // Those in use: body(group), until it returns false.
  template <typename Body>
  bool ForEach(Body body) const;

  Program* program_;
  int group_size_;
  std::vector<Group> groups_;
  int used_ = -1;
  Matrix dy_dx_;
  std::string message_;
  mutable LowerSolverCounts counts_;
};

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_SCENARIO_GROUPS_H_
