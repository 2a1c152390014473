#include "bilevel/lower_level/internal/for_each_scenario.h"

#include <limits>

#include "bilevel/oracle/internal/remember_counts.h"

namespace bilevel {

ScenarioFailure JoinFailures(const Program& program,
                             const char* step,
                             const Vector* x,
                             const ScenarioFailure& own,
                             LowerSolverCounts* counts) {
  const Exchange& exchange = program.exchange;
  if (exchange.is_alone()) return own;
  constexpr int kSize = 1 + static_cast<int>(std::size(kLowerSolverCounts)) +
                        static_cast<int>(std::size(kLowerSolverSeconds));
  Vector mine(kSize);
  double* to = mine.data();
  *to++ = own.has_failed() ? own.scenario : std::numeric_limits<double>::infinity();
  for (const auto& field : kLowerSolverCounts) {
    *to++ = counts ? static_cast<double>(counts->*field.second) : 0.0;
  }
  for (const auto& field : kLowerSolverSeconds) *to++ = counts ? counts->*field.second : 0.0;
  const Matrix all = exchange.ByRank(step, x, mine);
  const Vector sums = all.rowwise().sum();
  const double* from = sums.data() + 1;
  if (counts) {
    for (const auto& field : kLowerSolverCounts) {
      counts->*field.second = static_cast<long>(*from++);
    }
    for (const auto& field : kLowerSolverSeconds) counts->*field.second = *from++;
  }
  ScenarioFailure first;
  if (!std::isfinite(all.row(0).minCoeff())) return first;
  first.scenario = static_cast<int>(all.row(0).minCoeff());
  const int place = first.scenario - program.first_scenario;
  first.name = exchange.FromOwner(place, own.name);
  first.message = exchange.FromOwner(place, exchange.Signed(own.message));
  return first;
}

}  // namespace bilevel
