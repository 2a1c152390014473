// Trials of a line search start from the tangent of y*(x).
#include "bilevel/oracle/hyper_objective.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>

#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/program/program.h"
#include "gtest/gtest.h"
#include "pose_graph.h"
#include "test_problems.h"

namespace bilevel {
namespace {

struct Line {
  Line() : graph(MakeHelix(30, 4, 0.1, 3)) {
    problem.AddUpperParameterBlock(log_weights, 2);
    graph->AddEdges(problem.lower(), log_weights);
    graph->AddPrior(problem.lower(), 0, 10.0);
    graph->AddErrors(problem.upper());
    std::string error;
    program = problem.Compile({}, &error);
    EXPECT_TRUE(program) << error;
    NewtonLowerSolver::Options options;
    options.use_ceres = false;
    lower = std::make_unique<NewtonLowerSolver>(program.get(), options);
    oracle = std::make_unique<Oracle>(program.get(), lower.get(), 0);
    x = Point(&program->x);
    y = Point(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(y.value().data());
  }
  // phi at x + a d for a = 1, 1/2, 1/4, as a line search asks for it; the factorisations of that.
  long Search(HyperObjective* phi, const Vector& direction, std::vector<double>* values) {
    double value;
    Vector gradient;
    EXPECT_TRUE(phi->Evaluate(x, &value, &gradient)) << phi->message();
    phi->Accept();
    const long before = lower->counts().factorizations;
    values->clear();
    for (const double a : {1.0, 0.5, 0.25}) {
      Point moved = x;
      moved.Move(a * direction);
      EXPECT_TRUE(phi->Evaluate(moved, &value, &gradient)) << phi->message();
      values->push_back(value);
    }
    return lower->counts().factorizations - before;
  }
  std::unique_ptr<PoseGraph> graph;
  double log_weights[2] = {0.0, 0.0};
  Problem problem;
  std::unique_ptr<Program> program;
  std::unique_ptr<NewtonLowerSolver> lower;
  std::unique_ptr<Oracle> oracle;
  Point x, y;
};

TEST(HyperObjective, TangentSavesStepsAndChangesNothingElse) {
  for (const double length : {0.005, 0.02, 0.05}) {
    long counts[2], chords[2];
    std::vector<double> values[2];
    for (const bool use : {false, true}) {
      Line line;
      HyperObjective phi(line.oracle.get(), line.y);
      phi.set_use_tangent(use);
      Vector direction(2);
      direction << length, -0.5 * length;
      counts[use] = line.Search(&phi, direction, &values[use]);
      chords[use] = line.lower->counts().chord_steps;
    }
    std::printf(
        "step %.3f: %ld factorisations and %ld other steps from y, %ld and %ld from its "
        "tangent\n",
        length,
        counts[0],
        chords[0],
        counts[1],
        chords[1]);
    EXPECT_LE(counts[1], counts[0]);
    EXPECT_LT(chords[1], chords[0]);
    for (int k = 0; k < 3; ++k) {
      EXPECT_NEAR(values[1][k], values[0][k], 1e-9 * values[0][k]) << length << " " << k;
    }
  }
}

// Another direction than the first trial's starts at y itself: phi is what it is.
TEST(HyperObjective, TrialsOffTheLine) {
  Line line, plain;
  HyperObjective phi(line.oracle.get(), line.y), reference(plain.oracle.get(), plain.y);
  reference.set_use_tangent(false);
  Vector direction(2), other(2);
  direction << 0.1, 0.2;
  other << 0.2, -0.1;
  std::vector<double> unused;
  line.Search(&phi, direction, &unused);
  plain.Search(&reference, direction, &unused);
  Point moved = line.x;
  moved.Move(other);
  double value, expected;
  ASSERT_TRUE(phi.Evaluate(moved, &value, nullptr)) << phi.message();
  moved = plain.x;
  moved.Move(other);
  ASSERT_TRUE(reference.Evaluate(moved, &expected, nullptr)) << reference.message();
  EXPECT_NEAR(value, expected, 1e-9 * expected);
}

}  // namespace
}  // namespace bilevel
