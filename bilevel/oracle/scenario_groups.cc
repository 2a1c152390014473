#include "bilevel/oracle/scenario_groups.h"

#include <algorithm>

#include "bilevel/base/memory.h"

namespace bilevel {

ScenarioGroups::ScenarioGroups(Program* program, int group_size, const Factory& make)
    : program_(program), group_size_(group_size) {
  const int num_scenarios = program->num_scenarios();
  for (int first = 0; first < num_scenarios; first += group_size) {
    Group group;
    group.program =
        std::make_unique<Program>(*program, first, std::min(group_size, num_scenarios - first));
    group.solver = make(group.program.get());
    groups_.push_back(std::move(group));
  }
}

int ScenarioGroups::num_scenarios(int group) const {
  return groups_[group].program->num_scenarios();
}

template <typename Body>
bool ScenarioGroups::ForEach(Body body) const {
  for (int g = 0; g < num_groups(); ++g) {
    if ((used_ < 0 || used_ == g) && !body(groups_[g])) return false;
  }
  return true;
}

std::string ScenarioGroups::CheckOptions() const {
  for (const Group& group : groups_) {
    if (!group.solver) return "options.lower_solver returned no lower solver";
    if (const std::string complaint = group.solver->CheckOptions(); !complaint.empty()) {
      return complaint;
    }
  }
  return "";
}

std::string ScenarioGroups::WhyNoDerivative() const {
  return groups_.empty() ? "" : groups_[0].solver->WhyNoDerivative();
}

void ScenarioGroups::SetTolerance(double tolerance) {
  for (const Group& group : groups_) group.solver->SetTolerance(tolerance);
}

bool ScenarioGroups::has_tolerance() const {
  return !groups_.empty() && groups_[0].solver->has_tolerance();
}

bool ScenarioGroups::Solve(const Point& x, Point* y) {
  Point solved = *y;
  const bool ok = ForEach([&](const Group& group) {
    if (group.solver->Solve(x, &solved)) return true;
    message_ = group.solver->message();
    return false;
  });
  if (ok) *y = solved;
  return ok;
}

bool ScenarioGroups::Differentiate(const Point& x, const Point& y) {
  return ForEach([&](const Group& group) {
    if (group.solver->Differentiate(x, y)) return true;
    message_ = group.solver->message();
    return false;
  });
}

const Matrix& ScenarioGroups::dy_dx() {
  dy_dx_ = Matrix::Zero(program_->y.tangent_size(), program_->x.tangent_size());
  ForEach([&](const Group& group) {
    const Matrix& own = group.solver->dy_dx();
    for (const auto& scenario : group.program->scenarios) {
      const int first = scenario->tangent_offset, size = scenario->y.tangent_size();
      dy_dx_.middleRows(first, size) = own.middleRows(first, size);
    }
    return true;
  });
  return dy_dx_;
}

bool ScenarioGroups::Adjoint(const Vector& fy, Vector* product) {
  *product = Vector::Zero(program_->x.tangent_size());
  Vector own;
  return ForEach([&](const Group& group) {
    if (!group.solver->Adjoint(fy, &own)) {
      message_ = group.solver->message();
      return false;
    }
    *product += own;
    return true;
  });
}

bool ScenarioGroups::IsDetermined(const Vector& fy) {
  return ForEach([&](const Group& group) {
    if (group.solver->IsDetermined(fy)) return true;
    message_ = group.solver->message();
    return false;
  });
}

std::unique_ptr<LowerSolver> ScenarioGroups::Fork() const {
  size_t next = 0;
  auto fork = std::make_unique<ScenarioGroups>(
      program_, group_size_, [&](Program*) { return groups_[next++].solver->Fork(); });
  fork->used_ = used_;
  return fork;
}

const LowerSolverCounts& ScenarioGroups::counts() const {
  counts_ = {};
  for (const Group& group : groups_) counts_ += group.solver->counts();
  return counts_;
}

double ScenarioGroups::relative_decrement() const {
  double largest = -1.0;
  ForEach([&](const Group& group) {
    largest = std::max(largest, group.solver->relative_decrement());
    return true;
  });
  return largest;
}

LowerSolverReport ScenarioGroups::Report() const {
  LowerSolverReport all;
  const auto join = [](const std::string& more, std::string* text) {
    if (!more.empty()) *text += (text->empty() ? "" : "; ") + more;
  };
  ForEach([&](const Group& group) {
    const LowerSolverReport own = group.solver->Report();
    all.num_free_directions += own.num_free_directions;
    all.num_active_bounds += own.num_active_bounds;
    all.linear_residual = std::max(all.linear_residual, own.linear_residual);
    join(own.free_directions, &all.free_directions);
    join(own.weakly_active, &all.weakly_active);
    if (all.remark != own.remark) join(own.remark, &all.remark);
    return true;
  });
  return all;
}

bool ScenarioGroups::Remember(Memory* memory) {
  bool all = true;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const Memory::Group group(memory, "group_" + std::to_string(i));
    all &= groups_[i].solver->Remember(memory);
  }
  return all;
}

}  // namespace bilevel
