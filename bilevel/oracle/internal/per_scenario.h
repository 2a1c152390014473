#ifndef BILEVEL_ORACLE_INTERNAL_PER_SCENARIO_H_
#define BILEVEL_ORACLE_INTERNAL_PER_SCENARIO_H_

#include "bilevel/oracle/oracle.h"
#include "bilevel/program/level_evaluator.h"

namespace bilevel {

// One scenario's evaluators and scratch.
struct Oracle::PerScenario {
  explicit PerScenario(Program* program, const Program::Scenario* s)
      : scenario(s), f(s->f.get(), &program->pool), g(s->g.get(), &program->pool) {
    gx.resize(program->x.tangent_size());
  }
  const Program::Scenario* scenario;
  int index = 0, first_block = 0;  // Of the scenario, and of its blocks in y.
  SparseVector in_x;
  LevelEvaluator f, g;
  bool evaluated = false;
  double value = 0.0;
  Vector gx, r;
  RowSparseMatrix jx, jy;
  SparseMatrix yy[2];  // Of g and of f.
};

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_INTERNAL_PER_SCENARIO_H_
