#ifndef BILEVEL_LOWER_LEVEL_INTERNAL_FOR_EACH_SCENARIO_H_
#define BILEVEL_LOWER_LEVEL_INTERNAL_FOR_EACH_SCENARIO_H_

#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/base/internal/thrown.h"
#include "bilevel/base/thread_pool.h"
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

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_INTERNAL_FOR_EACH_SCENARIO_H_
