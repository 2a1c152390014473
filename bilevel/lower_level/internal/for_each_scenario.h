#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_FOR_EACH_SCENARIO_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_FOR_EACH_SCENARIO_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/base/thread_pool.h"
#include "bilevel/program/program.h"
#include "bilevel/types.h"

namespace bilevel {

/// Calls body(part) for every scenario's part of a lower solver, on the pool's threads. A part has
/// members ok, message and counts: false or an exception is its failure, for which the message
/// gives the reason. *counts takes up what the parts counted. Returns the first that failed, in
/// the order of scenarios; nullptr where none did.
template <typename PerScenario, typename Body>
PerScenario* ForEachScenario(ThreadPool* pool,
                             const std::vector<std::unique_ptr<PerScenario>>& parts,
                             LowerSolverCounts* counts,
                             const Body& body) {
  pool->ParallelFor(static_cast<int>(parts.size()), 1, [&](int, int i) {
    PerScenario* part = parts[i].get();
    part->ok = false;
    const std::string thrown = Thrown([&] { part->ok = body(part); });
    if (!thrown.empty()) part->message = "solving it" + thrown;
  });
  PerScenario* failed = nullptr;
  for (const auto& part : parts) {
    *counts += std::exchange(part->counts, {});
    if (!part->ok && !failed) failed = part.get();
  }
  return failed;
}

/// Why a lower level is not solved, or has no derivative; of no scenario: it is, and has one.
struct ScenarioFailure {
  int scenario = -1;  ///< Its index, among those of all ranks.
  std::string name, message;
  bool has_failed() const { return scenario >= 0; }
};

/// Of the ranks' first failures the first, and in *counts what all of them have counted; alone: the
/// same. Ranks are to be at the same step and x (may be nullptr).
ScenarioFailure JoinFailures(const Program& program,
                             const char* step,
                             const Vector* x,
                             const ScenarioFailure& own,
                             LowerSolverCounts* counts);

/// ForEachScenario in all ranks. Of a part it wants its scenario besides.
template <typename PerScenario, typename Body>
ScenarioFailure ForEachScenarioOfRanks(const Program& program,
                                       const char* step,
                                       const Vector& x,
                                       const std::vector<std::unique_ptr<PerScenario>>& parts,
                                       LowerSolverCounts* counts,
                                       const Body& body) {
  LowerSolverCounts own_counts;
  const PerScenario* failed = ForEachScenario(&program.pool, parts, &own_counts, body);
  ScenarioFailure own;
  if (failed) own = {failed->scenario->index, failed->scenario->name, failed->message};
  own = JoinFailures(program, step, &x, own, &own_counts);
  *counts += own_counts;
  return own;
}

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_FOR_EACH_SCENARIO_H_
