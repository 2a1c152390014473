#include "bilevel/internal/remember_iterations.h"

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bilevel/oracle/internal/remember_counts.h"

namespace bilevel {
namespace {

// field(it) is a reference to a number, a bool or an enumeration.
template <typename Field>
void Column(const std::string& name,
            Memory* memory,
            std::vector<IterationSummary>* iterations,
            Field field) {
  using Value = std::decay_t<decltype(field(iterations->front()))>;
  using Stored = std::conditional_t<std::is_floating_point<Value>::value, double, long>;
  std::vector<Stored> column;
  for (IterationSummary& it : *iterations) column.push_back(static_cast<Stored>(field(it)));
  memory->Keep(name, &column);
  if (!memory->recalls() || column.size() != iterations->size()) return;
  for (size_t k = 0; k < column.size(); ++k) {
    field((*iterations)[k]) = static_cast<Value>(column[k]);
  }
}

constexpr std::pair<const char*, double IterationSummary::*> kNumbers[] = {
    {"objective", &IterationSummary::objective},
    {"upper_value", &IterationSummary::upper_value},
    {"held_out", &IterationSummary::held_out},
    {"lower_gap", &IterationSummary::lower_gap},
    {"kkt_loss", &IterationSummary::kkt_loss},
    {"gradient_max_norm", &IterationSummary::gradient_max_norm},
    {"step_norm", &IterationSummary::step_norm},
    {"trust_region_radius", &IterationSummary::trust_region_radius},
    {"objective_change", &IterationSummary::objective_change},
    {"lower_level_decrement", &IterationSummary::lower_level_decrement},
    {"upper_epochs", &IterationSummary::upper_epochs},
    {"lower_epochs", &IterationSummary::lower_epochs},
    {"cumulative_time_in_seconds", &IterationSummary::cumulative_time_in_seconds},
};

// Of iterations that are there already, as many as were kept.
void RememberFields(Memory* memory, std::vector<IterationSummary>* all) {
  using It = IterationSummary&;
  Column("iteration", memory, all, [](It it) -> long& { return it.iteration; });
  Column("is_successful", memory, all, [](It it) -> bool& { return it.step_is_successful; });
  Column("keep", memory, all, [](It it) -> Progress::Keep& { return it.keep; });
  Column("y_is_solved", memory, all, [](It it) -> bool& { return it.y_is_solved; });
  Column("leave_y", memory, all, [](It it) -> bool& { return it.leave_y; });
  for (const auto& [name, field] : kNumbers) {
    Column(name, memory, all, [field = field](It it) -> double& { return it.*field; });
  }
  for (const auto& [name, field] : kFunctionCounts) {
    const std::string what = name;
    Column(
        "upper_" + what, memory, all, [field = field](It it) -> long& { return it.upper.*field; });
    Column(
        "lower_" + what, memory, all, [field = field](It it) -> long& { return it.lower.*field; });
  }
  for (const auto& [name, field] : kLowerSolverCounts) {
    Column(name, memory, all, [field = field](It it) -> long& { return it.lower_solver.*field; });
  }
  for (const auto& [name, field] : kLowerSolverSeconds) {
    Column(name, memory, all, [field = field](It it) -> double& { return it.lower_solver.*field; });
  }
}

void RememberNotes(Memory* memory, std::vector<IterationSummary>* all) {
  std::vector<std::string> notes;
  for (const IterationSummary& it : *all) notes.push_back(it.note);
  memory->Keep("notes", &notes);
  if (!memory->recalls() || notes.size() != all->size()) return;
  for (size_t k = 0; k < notes.size(); ++k) (*all)[k].note = notes[k];
}

// A column an iteration.
void RememberX(Memory* memory, std::vector<IterationSummary>* all) {
  const long size = all->empty() ? 0 : static_cast<long>(all->front().x.size());
  Eigen::MatrixXd x(size, all->size());
  for (long k = 0; k < x.cols(); ++k) {
    x.col(k) = Eigen::Map<const Eigen::VectorXd>((*all)[k].x.data(), (*all)[k].x.size());
  }
  memory->Keep("x", &x);
  if (!memory->recalls() || x.cols() != static_cast<long>(all->size())) return;
  for (long k = 0; k < x.cols(); ++k) {
    (*all)[k].x.assign(x.col(k).data(), x.col(k).data() + x.rows());
  }
}

}  // namespace

void RememberIterations(Memory* memory, Solver::Summary* summary) {
  const Memory::Group group(memory, "iterations");
  memory->Keep("num_successful_steps", &summary->num_successful_steps);
  memory->Keep("num_unsuccessful_steps", &summary->num_unsuccessful_steps);
  std::vector<std::string> reasons;
  std::vector<int> counts;
  for (const auto& rejection : summary->rejections) {
    reasons.push_back(rejection.reason);
    counts.push_back(rejection.count);
  }
  memory->Keep("rejections", &reasons);
  memory->Keep("rejection_counts", &counts);
  if (memory->recalls()) {
    summary->rejections.clear();
    for (size_t k = 0; k < std::min(reasons.size(), counts.size()); ++k) {
      summary->rejections.push_back({reasons[k], counts[k]});
    }
    std::vector<long> rows;
    memory->Keep("iteration", &rows);
    summary->iterations.assign(rows.size(), IterationSummary());
  }
  RememberFields(memory, &summary->iterations);
  RememberNotes(memory, &summary->iterations);
  RememberX(memory, &summary->iterations);
}

}  // namespace bilevel
