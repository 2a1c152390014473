// What hypergradients and tuning cost beside ceres::Solve, on the sphere graphs of 100, 500 and
// 2,500 poses: ratios of medians, both sides measured in turns in one process on one thread.
// The page README.md beside this file says what each row means.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/internal/one_openmp_thread.h"
#include "bilevel/oracle/hyper_objective.h"
#include "bilevel/program/program.h"
#include "ceres/ceres.h"
#include "figures.h"
#include "pose_graph.h"
#include "test_data.h"

namespace bilevel {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Per-axis weights of one edge class.
struct AxisWeights {
  template <typename T>
  bool operator()(
      const T* qi, const T* ti, const T* qj, const T* tj, const T* log_weights, T* residual) const {
    using std::exp;
    error(qi, ti, qj, tj, residual);
    for (int k = 0; k < 6; ++k) residual[k] *= exp(log_weights[k]);
    return true;
  }
  RelativePoseError error;
};

struct FixedWeights {
  template <typename T>
  bool operator()(const T* qi, const T* ti, const T* qj, const T* tj, T* residual) const {
    error(qi, ti, qj, tj, residual);
    for (int k = 0; k < 3; ++k) {
      residual[k] *= 20.0;
      residual[k + 3] *= 50.0;
    }
    return true;
  }
  RelativePoseError error;
};

ceres::Solver::Options CeresOptions() {
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.logging_type = ceres::SILENT;
  options.max_num_iterations = 100;
  return options;
}

// An ordinary Ceres program with the weights, and a loss, as constants; tolerances are Ceres'
// defaults.
class PlainCeres {
 public:
  explicit PlainCeres(const PoseGraph& graph, ceres::LossFunction* loss = nullptr)
      : graph_(graph), start_(graph.poses) {
    for (const PoseGraph::Edge& edge : graph_.edges) {
      graph_.AddPose(&problem_, edge.i);
      graph_.AddPose(&problem_, edge.j);
      problem_.AddResidualBlock(
          new ceres::AutoDiffCostFunction<FixedWeights, 6, 4, 3, 4, 3>(new FixedWeights{{edge.z}}),
          loss,
          graph_.poses[edge.i].q.data(),
          graph_.poses[edge.i].t.data(),
          graph_.poses[edge.j].q.data(),
          graph_.poses[edge.j].t.data());
    }
    graph_.AddPrior(&problem_, 0, 100.0);
  }
  // On one thread, or with the OpenMP threads that CHOLMOD starts by itself.
  double Solve(const ceres::Solver::Options& options, bool one_thread = true) {
    std::optional<OneOpenMpThread> guard;
    if (one_thread) guard.emplace();
    graph_.poses = start_;
    ceres::Solver::Summary summary;
    const double begin = Now();
    ceres::Solve(options, &problem_, &summary);
    return Now() - begin;
  }
  const std::vector<Pose>& poses() const { return graph_.poses; }

 private:
  PoseGraph graph_;
  std::vector<Pose> start_;
  ceres::Problem problem_;
};

// The same graph with its weights learned: 2 or 12 of them.
struct Learned {
  Learned(const PoseGraph& from, bool per_axis) : graph(from) {
    for (int k = 0; k < 6; ++k) odometry[k] = loops[k] = std::log(k < 3 ? 20.0 : 50.0);
    if (per_axis) {
      problem.AddUpperParameterBlock(odometry, 6);
      problem.AddUpperParameterBlock(loops, 6);
      for (const PoseGraph::Edge& edge : graph.edges) {
        graph.AddPose(problem.lower(), edge.i);
        graph.AddPose(problem.lower(), edge.j);
        problem.lower()->AddResidualBlock(
            new AutoDiffCostFunction<AxisWeights, 6, 4, 3, 4, 3, 6>(new AxisWeights{{edge.z}}),
            nullptr,
            graph.poses[edge.i].q.data(),
            graph.poses[edge.i].t.data(),
            graph.poses[edge.j].q.data(),
            graph.poses[edge.j].t.data(),
            edge.is_loop ? loops : odometry);
      }
    } else {
      problem.AddUpperParameterBlock(scales, 2);
      graph.AddEdges(problem.lower(), scales);
    }
    graph.AddPrior(problem.lower(), 0, 100.0);
    graph.AddErrors(problem.upper());
  }
  PoseGraph graph;
  double odometry[6], loops[6];
  double scales[2] = {std::log(20.0), std::log(50.0)};
  Problem problem;
};

Solver::Options LearnOptions() {
  Solver::Options options;
  options.lower_solver_options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  return options;
}

// With Welsch's loss y*(x) has many branches and phi jumps between them; Ceres needs hundreds of
// iterations to converge. The unit is its solve to a function tolerance of 1e-12.
bool RunWelsch(const PoseGraph& graph) {
  double log_scale = 0.5 * std::log(9.0), log_weights[2] = {std::log(20.0), std::log(50.0)};
  ceres::Solver::Options converged = CeresOptions();
  converged.max_num_iterations = 1000;
  converged.function_tolerance = 1e-12;
  PlainCeres plain(graph, new WelschLoss(std::exp(log_scale)));
  PoseGraph own = graph;
  Problem problem;
  problem.AddUpperParameterBlock(log_weights, 2);
  problem.AddUpperParameterBlock(&log_scale, 1);
  own.AddEdges(problem.lower(), log_weights, problem.Own(std::make_unique<WelschLoss>(&log_scale)));
  own.AddPrior(problem.lower(), 0, 100.0);
  own.AddErrors(problem.upper());
  std::string error;
  const std::unique_ptr<Program> program = problem.Compile({}, &error);
  Solver::Options options = LearnOptions();
  options.lower_solver_options.max_num_iterations = options.max_num_lower_newton_iterations = 200;
  NewtonLowerSolver::Options lower_options = options.LowerSolverOptions();
  lower_options.use_ceres = false;
  NewtonLowerSolver lower(program.get(), lower_options);
  Oracle oracle(program.get(), &lower, 0);
  Point x(&program->x), y(&program->y);
  program->x.ReadUser(x.value().data());
  Vector fx, fy, product;
  std::vector<double> cold, polished;
  bool ok = true;
  for (int k = 0; k < 5 && ok; ++k) {
    cold.push_back(plain.Solve(converged));
    own.poses = plain.poses();
    program->y.ReadUser(y.value().data());
    ok = oracle.Solve(x, &y);
    x.value()[0] += 1e-14;  // So that nothing of the solve can be taken over.
    const double begin = Now();
    ok = ok && oracle.Differentiate(x, y);
    oracle.f.Gradient(x, y, &fx, &fy);
    ok = ok && lower.Adjoint(fy, &product);
    polished.push_back(Now() - begin);
  }
  if (!ok) {
    std::printf("a lower solve with Welsch's loss failed: %s\n", lower.message().c_str());
    return false;
  }
  own.poses = graph.poses;
  Solver::Summary summary;
  const double begin = Now();
  Solve(options, &problem, &summary);
  const double tuned = Now() - begin;
  const double unit = Median(cold);
  std::printf(
      "%d poses with Welsch's loss, one ceres::Solve to convergence: %.4f s\n", graph.size(), unit);
  Row("hypergradient, 3 variables, at a polished point / that solve",
      Median(polished) / unit,
      "none");
  Row("weights and scale of the loss learned / that solve", tuned / unit, "none");
  const auto jumps = std::count_if(
      summary.assessment.notes.begin(), summary.assessment.notes.end(), [](const auto& note) {
        return note.find("jumps") != std::string::npos;
      });
  std::printf("  phi %.6f -> %.6f, %d steps and %d rejected, %ld jumps found: %s\n\n",
              summary.initial_objective,
              summary.final_objective,
              summary.num_successful_steps,
              summary.num_unsuccessful_steps,
              static_cast<long>(jumps),
              summary.message.c_str());
  return true;
}

bool Run(int n) {
  const std::string path = DataPath("sphere_benchmark/sphere_" + std::to_string(n) + ".txt.gz");
  if (path.empty()) {
    std::printf("sphere_%d is not here: set BILEVEL_DATA_DIR\n", n);
    return true;
  }
  const std::unique_ptr<PoseGraph> graph = ReadSphere(path);
  const int repeats = n > 1000 ? 3 : 7;
  std::printf("%d poses, %zu edges\n", n, graph->edges.size());

  // Hypergradients in 12 variables.
  PlainCeres plain(*graph);
  Learned learned(*graph, true);
  std::string error;
  const std::unique_ptr<Program> program = learned.problem.Compile({}, &error);
  if (!program) {
    std::printf("%s\n", error.c_str());
    return false;
  }
  NewtonLowerSolver::Options lower_options = LearnOptions().LowerSolverOptions();
  lower_options.use_ceres = false;
  NewtonLowerSolver lower(program.get(), lower_options);
  Oracle oracle(program.get(), &lower, 0);
  Point x(&program->x), moved(&program->x), y(&program->y), unpolished(&program->y);
  program->x.ReadUser(x.value().data());
  Vector fx, fy, product;
  const auto hypergradient = [&](const Point& at, Point* from, bool solve) {
    const double begin = Now();
    if ((solve && !oracle.Solve(at, from)) || !oracle.Differentiate(at, *from)) return -1.0;
    oracle.f.Gradient(at, *from, &fx, &fy);
    return lower.Adjoint(fy, &product) ? Now() - begin : -1.0;
  };
  std::vector<double> cold, cold_openmp, ten, polished, from_solve, warm;
  ceres::Solver::Options ten_iterations = CeresOptions();
  ten_iterations.max_num_iterations = 10;
  ten_iterations.function_tolerance = ten_iterations.gradient_tolerance =
      ten_iterations.parameter_tolerance = 1e-30;
  bool ok = true;
  for (int k = 0; k < repeats; ++k) {
    cold_openmp.push_back(plain.Solve(CeresOptions(), false));
    cold.push_back(plain.Solve(CeresOptions()));
    learned.graph.poses = plain.poses();  // Moves no memory: the blocks stay where they are.
    program->y.ReadUser(unpolished.value().data());
    y = unpolished;
    from_solve.push_back(hypergradient(x, &y, true));
    // Another x by rounding alone, so that nothing of the solve can be taken over.
    moved = x;
    moved.value()[0] += 1e-14 * (k + 1);
    polished.push_back(hypergradient(moved, &y, false));
    // 5 % more weight on odometry: predict, re-solve, exact gradient.
    moved = x;
    for (int i = 0; i < 6; ++i) moved.value()[i] += 0.05;
    // The factorisation at x is that of the iteration before, for its gradient.
    Vector dx = moved.value() - x.value(), motion;
    ok = ok && oracle.Differentiate(x, y);
    const double begin = Now();
    ok = ok && lower.Tangent(dx, &motion);
    Point predicted = y;
    ok = ok && predicted.Move(motion);
    const double seconds = Now() - begin;
    warm.push_back(seconds + hypergradient(moved, &predicted, true));
    ten.push_back(plain.Solve(ten_iterations));
    for (const auto& v : {from_solve, polished, warm}) ok = ok && v.back() > 0.0;
  }
  if (!ok) {
    std::printf("a lower solve failed: %s\n", lower.message().c_str());
    return false;
  }
  const double unit = Median(cold);
  std::printf(
      "  one cold ceres::Solve at its default tolerances: %.4f s; with CHOLMOD's OpenMP: %.4f s\n",
      unit,
      Median(cold_openmp));
  Row("hypergradient, 12 variables, at a polished point / cold solve",
      Median(polished) / unit,
      "0.15");
  Row("the same / a cold solve as it comes, with CHOLMOD's threads",
      Median(polished) / Median(cold_openmp),
      "0.15");
  Row("the same from that solve's unpolished result / cold solve", Median(from_solve) / unit, "1");
  Row("warm upper iteration, x changed by 5 % / ten Ceres iterations",
      Median(warm) / Median(ten),
      "0.35 at 2,500 poses");

  // Tuning two noise scales from the file's start, the first solve included.
  std::vector<double> tuned;
  Solver::Summary summary;
  for (int k = 0; k < (n > 1000 ? 1 : 3); ++k) {
    Learned two(*graph, false);
    Solver::Options options = LearnOptions();
    options.gradient_tolerance = 0.0;
    options.function_tolerance = 0.0;
    // Stop where the gradient has fallen by 1e-6.
    struct Stop : IterationCallback {
      ceres::CallbackReturnType operator()(const IterationSummary& s) override {
        if (s.iteration == 0) first = s.gradient_max_norm;
        return s.gradient_max_norm <= 1e-6 * first ? ceres::SOLVER_TERMINATE_SUCCESSFULLY
                                                   : ceres::SOLVER_CONTINUE;
      }
      double first = 0.0;
    } stop;
    options.callbacks.push_back(&stop);
    const double begin = Now();
    Solve(options, &two.problem, &summary);
    tuned.push_back(Now() - begin);
    if (!summary.IsSolutionUsable()) {
      std::printf("tuning failed: %s\n", summary.message.c_str());
      return false;
    }
  }
  Row("two noise scales to 1e-6 of the first gradient / cold solve", Median(tuned) / unit, "5");
  Row("its factorisations", static_cast<double>(summary.lower_solver.factorizations), "25");
  std::printf(
      "  flat direction: %s\n\n",
      summary.flat_upper_directions.empty() ? "none" : summary.flat_upper_directions[0].c_str());
  return n != 100 || RunWelsch(*graph);
}

}  // namespace
}  // namespace bilevel

int main() {
  bool ok = true;
  for (const int n : {100, 500, 2500}) ok = bilevel::Run(n) && ok;
  return ok ? 0 : 1;
}
