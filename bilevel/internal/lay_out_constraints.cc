#include "bilevel/internal/lay_out_constraints.h"

#include <memory>

#include "bilevel/program/level_function.h"

namespace bilevel {
namespace {

// "'pose 3', 'pose 4'": those of the blocks that are y.
std::string NamesOfY(const std::vector<double*>& blocks, const Space& y) {
  std::string names;
  for (const double* values : blocks) {
    const int b = y.Find(values);
    if (b >= 0) names += (names.empty() ? "" : ", ") + y.blocks()[b].name;
  }
  return names;
}

std::string RowName(int row, const std::string& constraint) {
  return "row " + std::to_string(row) + " of " + constraint;
}

}  // namespace

std::string CheckConstraint(const LowerConstraint& constraint) {
  if (!constraint.cost) return constraint.name + " is null";
  const size_t num_sizes = constraint.cost->parameter_block_sizes().size();
  if (num_sizes == constraint.blocks.size()) return "";
  return constraint.name + " was given " + std::to_string(constraint.blocks.size()) +
         " blocks, but its cost function has " + std::to_string(num_sizes);
}

std::string LayOutConstraints(std::vector<LowerConstraint> constraints,
                              const Space* x,
                              const std::string& suffix,
                              TrueJacobians* true_jacobians,
                              Program::Scenario* scenario) {
  if (constraints.empty()) return "";
  scenario->constraints = std::make_unique<LevelFunction>(
      x, &scenario->y, "the constraints of the lower problem" + suffix);
  for (LowerConstraint& constraint : constraints) {
    const std::string names = NamesOfY(constraint.blocks, scenario->y);
    if (names.empty()) {
      return constraint.name +
             " depends on no variable block of the lower level: it constrains nothing there";
    }
    const std::string name =
        constraint.is_set ? constraint.name : constraint.name + " (over " + names + ")";
    const std::string complaint = true_jacobians->OfCost(constraint.blocks, &constraint.cost);
    if (!complaint.empty()) return constraint.name.append(" ").append(complaint);
    scenario->constraints->AddResidual(constraint.cost, nullptr, constraint.blocks);
    const int num_rows = constraint.cost->num_residuals();
    if (!constraint.is_set) scenario->num_own_rows += num_rows;
    for (int i = 0; i < num_rows; ++i) {
      scenario->is_inequality.push_back(constraint.is_inequality);
      scenario->row_names.push_back(num_rows == 1 ? name : RowName(i, name));
    }
  }
  scenario->constraints->Finish();
  return "";
}

}  // namespace bilevel
