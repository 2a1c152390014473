// Pose graphs of 10^3, 10^4 and 10^5 poses on a cylinder, 50 a turn, edges along and across: one
// warm upper iteration beside one factorisation of the lower level's Hessian, and the peak memory
// of a hypergradient, first solve included, beside that of ceres::Solve alone. The two memories are
// those of separate processes.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "bilevel/bilevel.h"
#include "bilevel/lower_level/factorization.h"
#include "bilevel/lower_level/internal/one_openmp_thread.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/program.h"
#include "ceres/ceres.h"
#include "figures.h"
#include "pose_graph.h"

namespace bilevel {
namespace {

constexpr int kTurn = 50;
std::string program_name;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::unique_ptr<PoseGraph> MakeCylinder(int n) {
  auto graph = std::make_unique<PoseGraph>();
  std::mt19937 generator(1);
  std::normal_distribution<double> normal(0.0, 0.01);
  for (int i = 0; i < n; ++i) {
    const double angle = 2.0 * M_PI * i / kTurn;
    Pose pose;
    const double turn[3] = {0.0, 0.0, angle};
    AngleAxisToQuaternion(turn, pose.q.data());
    pose.t = {8.0 * std::cos(angle), 8.0 * std::sin(angle), 1.0 * i / kTurn};
    graph->truth.push_back(pose);
  }
  graph->poses = graph->truth;
  for (int i = 0; i < n; ++i) {
    for (const int j : {i + 1, i + kTurn}) {
      if (j >= n) continue;
      PoseGraph::Edge edge{i, j, j > i + 1, {}};
      const Pose &a = graph->truth[i], &b = graph->truth[j];
      double inverse[4] = {a.q[0], -a.q[1], -a.q[2], -a.q[3]}, apart[3], turn[3], wobble[4], q[4];
      for (int k = 0; k < 3; ++k) apart[k] = b.t[k] - a.t[k];
      ceres::UnitQuaternionRotatePoint(inverse, apart, edge.z.t.data());
      ceres::QuaternionProduct(inverse, b.q.data(), q);
      for (double& value : turn) value = normal(generator);
      for (double& value : edge.z.t) value += normal(generator);
      AngleAxisToQuaternion(turn, wobble);
      ceres::QuaternionProduct(q, wobble, edge.z.q.data());
      graph->edges.push_back(edge);
    }
  }
  return graph;
}

ceres::Solver::Options CeresOptions() {
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.logging_type = ceres::SILENT;
  return options;
}

// The graph with two learned noise scales.
struct Learned {
  explicit Learned(int n) : graph(MakeCylinder(n)) {
    problem.AddUpperParameterBlock(scales, 2);
    graph->AddEdges(problem.lower(), scales);
    graph->AddPrior(problem.lower(), 0, 100.0);
    graph->AddErrors(problem.upper());
    std::string error;
    program = problem.Compile({}, &error);
    NewtonLowerSolver::Options options;
    options.ceres = CeresOptions();
    lower = std::make_unique<NewtonLowerSolver>(program.get(), options);
    oracle = std::make_unique<Oracle>(program.get(), lower.get(), 0);
    x = Point(&program->x);
    y = Point(&program->y);
    program->x.ReadUser(x.value().data());
    program->y.ReadUser(y.value().data());
  }
  bool Hypergradient(const Point& at, Point* from) {
    if (!oracle->Solve(at, from) || !oracle->Differentiate(at, *from)) return false;
    oracle->f.Gradient(at, *from, &fx, &fy);
    return lower->Adjoint(fy, &product);
  }
  std::unique_ptr<PoseGraph> graph;
  double scales[2] = {std::log(20.0), std::log(50.0)};
  Problem problem;
  std::unique_ptr<Program> program;
  std::unique_ptr<NewtonLowerSolver> lower;
  std::unique_ptr<Oracle> oracle;
  Point x, y;
  Vector fx, fy, product;
};

// Kilobytes this process has held at most.
long PeakKilobytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmHWM:") continue;
    long kilobytes = 0;
    status >> kilobytes;
    return kilobytes;
  }
  return -1;
}

// In a process of its own: does one of the two, prints the peak.
int Child(const std::string& what, int n) {
  if (what == "ceres") {
    const std::unique_ptr<PoseGraph> graph = MakeCylinder(n);
    ceres::Problem problem;
    graph->AddEdges(&problem, nullptr);
    graph->AddPrior(&problem, 0, 100.0);
    ceres::Solver::Summary summary;
    ceres::Solve(CeresOptions(), &problem, &summary);
    if (!summary.IsSolutionUsable()) return 1;
  } else {
    Learned learned(n);
    if (!learned.Hypergradient(learned.x, &learned.y)) return 1;
  }
  std::printf("%ld\n", PeakKilobytes());
  return 0;
}

double PeakOf(const char* what, int n) {
  const std::string command = program_name + " --child=" + what + " " + std::to_string(n);
  FILE* pipe = popen(command.c_str(), "r");
  double kilobytes = -1.0;
  if (pipe && std::fscanf(pipe, "%lf", &kilobytes) != 1) kilobytes = -1.0;
  if (pipe) pclose(pipe);
  return kilobytes;
}

double first_ratio = 0.0;  // At 10^3 poses, which run first.

void WarmUpperIteration(benchmark::State& state) {
  Learned learned(static_cast<int>(state.range(0)));
  if (!learned.Hypergradient(learned.x, &learned.y)) {
    return state.SkipWithError(learned.lower->message().c_str());
  }
  const Program::Scenario& scenario = *learned.program->scenarios[0];
  LevelEvaluator evaluator(scenario.g.get(), nullptr);
  Factorization factorization(scenario.g->yy_pattern());
  SparseMatrix yy = scenario.g->yy_pattern();
  Vector gy(learned.y.dim()), motion;
  double value;
  evaluator.Hessian(learned.x.value().data(),
                    learned.y.value().data(),
                    HessianKind::kExact,
                    &value,
                    gy.data(),
                    &yy,
                    nullptr);
  std::vector<double> warm, factorize;
  Point moved = learned.x, predicted = learned.y;
  const Vector dx = Vector::Unit(2, 0) * 0.05;
  moved.Move(dx);
  for (auto _ : state) {
    const OneOpenMpThread guard;
    double begin = Now();
    factorization.Factorize(yy, 0.0, nullptr);
    factorize.push_back(Now() - begin);
    if (!learned.oracle->Differentiate(learned.x, learned.y)) {
      return state.SkipWithError(learned.lower->message().c_str());
    }
    begin = Now();
    predicted = learned.y;
    const bool ok = learned.lower->Tangent(dx, &motion) && predicted.Move(motion) &&
                    learned.Hypergradient(moved, &predicted);
    if (!ok) return state.SkipWithError(learned.lower->message().c_str());
    warm.push_back(Now() - begin);
    state.SetIterationTime(warm.back());
  }
  const double ratio = Median(warm) / Median(factorize);
  if (state.range(0) == 1000) first_ratio = ratio;
  state.counters["factorisation_ms"] = 1e3 * Median(factorize);
  state.counters["factorisations"] = ratio;
  // Its growth, beside that of a factorisation.
  state.counters["ratio"] = first_ratio > 0.0 ? ratio / first_ratio : 0.0;
  state.counters["target"] = 1.3;
}

void PeakMemory(benchmark::State& state) {
  const int n = static_cast<int>(state.range(0));
  double ours = 0.0, ceres = 0.0;
  for (auto _ : state) {
    ours = PeakOf("hypergradient", n);
    ceres = PeakOf("ceres", n);
    state.SetIterationTime(1.0);
  }
  if (ours < 0.0 || ceres < 0.0) return state.SkipWithError("a process of its own failed");
  state.counters["megabytes"] = ours / 1024.0;
  state.counters["ceres_megabytes"] = ceres / 1024.0;
  state.counters["ratio"] = ours / ceres;
  state.counters["target"] = 2.0;
}

BENCHMARK(WarmUpperIteration)
    ->ArgName("poses")
    ->Arg(1000)
    ->Arg(10000)
    ->Arg(100000)
    ->Iterations(3)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(PeakMemory)
    ->ArgName("poses")
    ->Arg(1000)
    ->Arg(10000)
    ->Arg(100000)
    ->Iterations(1)
    ->UseManualTime();

}  // namespace
}  // namespace bilevel

int main(int argc, char** argv) {
  const std::string child = "--child=";
  if (argc == 3 && std::string(argv[1]).rfind(child, 0) == 0) {
    return bilevel::Child(std::string(argv[1]).substr(child.size()), std::atoi(argv[2]));
  }
  bilevel::program_name = argv[0];
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
