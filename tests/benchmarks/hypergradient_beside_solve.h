#ifndef BILEVEL_TESTS_BENCHMARKS_HYPERGRADIENT_BESIDE_SOLVE_H_
#define BILEVEL_TESTS_BENCHMARKS_HYPERGRADIENT_BESIDE_SOLVE_H_

#include <chrono>

#include "benchmark/benchmark.h"
#include "bilevel/oracle/lower_solver.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/program.h"

namespace bilevel {

/// One hypergradient beside its own lower solve from the user's y: the counters lower_solve_s,
/// hypergradient_s, ratio and target.
inline void MeasureHypergradient(benchmark::State& state, Program* program, LowerSolver* solver) {
  using Clock = std::chrono::steady_clock;
  Oracle oracle(program, solver, 0);
  Point x(&program->x), start(&program->y), y(&program->y);
  program->x.ReadUser(x.value().data());
  program->y.ReadUser(start.value().data());
  std::chrono::duration<double> solve(0.0), hypergradient(0.0);
  Vector gx, gy, pulled_back;
  for (auto _ : state) {
    y = start;
    const Clock::time_point begin = Clock::now();
    if (!oracle.Solve(x, &y)) return state.SkipWithError(oracle.message().c_str());
    const Clock::time_point middle = Clock::now();
    oracle.f.Gradient(x, y, &gx, &gy);
    if (!oracle.Differentiate(x, y) || !solver->Adjoint(gy, &pulled_back)) {
      return state.SkipWithError(oracle.message().c_str());
    }
    solve += middle - begin;
    hypergradient += Clock::now() - middle;
  }
  const double count = static_cast<double>(state.iterations());
  state.counters["lower_solve_s"] = solve.count() / count;
  state.counters["hypergradient_s"] = hypergradient.count() / count;
  state.counters["ratio"] = hypergradient / solve;
  state.counters["target"] = 1.0;
}

}  // namespace bilevel

#endif  // BILEVEL_TESTS_BENCHMARKS_HYPERGRADIENT_BESIDE_SOLVE_H_
