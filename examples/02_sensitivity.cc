// How would the map move if the odometry were noisier than we think? Answered by one factorisation,
// for a program that was written before this library existed.
//
// Above the line: an ordinary Ceres pose graph, two laps around a block. The noise is built into
// the residuals as a number; it is no parameter of anything. Below the line: bilevel::Sensitivity.
#include <array>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/table.h"

using Pose = std::array<double, 3>;  // x [m], y [m], heading [rad]

struct RelativePose {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    const T c = cos(a[2]), s = sin(a[2]);
    const T x = b[0] - a[0], y = b[1] - a[1], turn = b[2] - a[2] - measured[2];
    r[0] = (c * x + s * y - measured[0]) / sigma_position;
    r[1] = (-s * x + c * y - measured[1]) / sigma_position;
    r[2] = atan2(sin(turn), cos(turn)) / sigma_heading;
    return true;
  }
  Pose measured;
  double sigma_position, sigma_heading;  // m, rad
};

struct Constraint {
  int from, to;
  Pose measured;
};

struct Graph {
  std::vector<Pose> poses;
  std::vector<Constraint> odometry, loops;
};

struct ResidualIds {
  std::vector<ceres::ResidualBlockId> odometry, loops;
};

ResidualIds Build(Graph* graph, double odometry_factor, ceres::Problem* problem) {
  const auto add = [&](const Constraint& c, double sigma_position, double sigma_heading) {
    return problem->AddResidualBlock(
        new ceres::AutoDiffCostFunction<RelativePose, 3, 3, 3>(
            new RelativePose{c.measured, sigma_position, sigma_heading}),
        nullptr,
        graph->poses[c.from].data(),
        graph->poses[c.to].data());
  };
  ResidualIds ids;
  for (const Constraint& c : graph->odometry) {
    ids.odometry.push_back(add(c, 0.05 * odometry_factor, 0.02 * odometry_factor));
  }
  for (const Constraint& c : graph->loops) ids.loops.push_back(add(c, 0.10, 0.03));
  problem->SetParameterBlockConstant(graph->poses[0].data());
  return ids;
}

void Solve(ceres::Problem* problem) {
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.max_num_iterations = 500;
  options.function_tolerance = options.gradient_tolerance = options.parameter_tolerance = 1e-15;
  options.logging_type = ceres::SILENT;
  ceres::Solver::Summary summary;
  ceres::Solve(options, problem, &summary);
}

Pose Between(const Pose& a, const Pose& b) {
  const double c = std::cos(a[2]), s = std::sin(a[2]), x = b[0] - a[0], y = b[1] - a[1];
  return {c * x + s * y, -s * x + c * y, b[2] - a[2]};
}

// Two laps, a pose a metre, the second lap meeting the first at every fourth pose.
Graph Simulate(int side) {
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  const auto noisy = [&](Pose p, double sigma_position, double sigma_heading) {
    p[0] += sigma_position * normal(generator);
    p[1] += sigma_position * normal(generator);
    p[2] += sigma_heading * normal(generator);
    return p;
  };
  const int lap = 4 * side, n = 2 * lap;
  std::vector<Pose> truth{{0.0, 0.0, 0.0}};
  for (int i = 1; i < n; ++i) {
    const Pose& p = truth.back();
    const double turn = i % side == 0 ? M_PI / 2 : 0.0;
    truth.push_back({p[0] + std::cos(p[2]), p[1] + std::sin(p[2]), p[2] + turn});
  }
  Graph graph;
  graph.poses = {truth[0]};
  for (int i = 1; i < n; ++i) {
    graph.odometry.push_back({i - 1, i, noisy(Between(truth[i - 1], truth[i]), 0.05, 0.02)});
    const Pose& p = graph.poses.back();  // The initial guess is dead reckoning.
    const Pose& m = graph.odometry.back().measured;
    const double c = std::cos(p[2]), s = std::sin(p[2]);
    graph.poses.push_back({p[0] + c * m[0] - s * m[1], p[1] + s * m[0] + c * m[1], p[2] + m[2]});
  }
  for (int i = lap; i < n; i += 4) {
    graph.loops.push_back({i - lap, i, noisy(Between(truth[i - lap], truth[i]), 0.10, 0.03)});
  }
  return graph;
}

// ------------------------------------------------------------------------------------------------

// The truth to hold the prediction against: build the graph again and solve it again.
std::vector<Pose> SolveAgain(Graph graph, double odometry_factor) {
  ceres::Problem problem;
  Build(&graph, odometry_factor, &problem);
  Solve(&problem);
  return graph.poses;
}

int main(int argc, char** argv) {
  examples::ParseFlags(
      "How a solved pose graph moves with the noise of its odometry.", &argc, &argv);
  Graph graph = Simulate(FLAGS_quick ? 8 : 16);
  ceres::Problem ceres_problem;
  const ResidualIds ids = Build(&graph, 1.0, &ceres_problem);
  Solve(&ceres_problem);

  // New: two scalars that multiply the noise by their exponential. Zero leaves the problem as it
  // is, the cost functions are not touched, and there is no upper level.
  double log_odometry = 0.0, log_loops = 0.0;
  bilevel::Problem problem(nullptr, &ceres_problem);
  bilevel::Sensitivity::Options options;
  options.polish = true;  // Ceres stops earlier than derivatives would like.
  options.num_threads = FLAGS_num_threads;
  bilevel::Sensitivity sensitivity(options);
  sensitivity.ScaleNoise(ids.odometry, &log_odometry);
  sensitivity.ScaleNoise(ids.loops, &log_loops);
  if (!sensitivity.Compute(&problem, {&log_odometry, &log_loops})) {
    std::fprintf(stderr, "%s\n", sensitivity.message().c_str());
    return 1;
  }
  std::puts(sensitivity.FullReport().c_str());

  // Linear prediction against two re-solves: its error is of second order in the change, so a
  // tenth of the change leaves about a tenth of the relative error.
  const std::vector<Pose> more10 = SolveAgain(graph, 1.1), more1 = SolveAgain(graph, 1.01);
  examples::Table table({"pose",
                         "predicted dx [mm]",
                         "dy [mm]",
                         "dheading [mrad]",
                         "re-solved dx",
                         "dy",
                         "dheading"});
  double squared[3] = {}, opposite = 0.0;  // Motion at 10 %, errors at 10 % and 1 %.
  std::vector<Pose> predicted;
  for (size_t i = 0; i < graph.poses.size(); ++i) {
    Pose d{}, d_loops{};  // Zero for the first pose, which is constant.
    if (i > 0) {
      if (!sensitivity.GetSensitivityBlock(graph.poses[i].data(), &log_odometry, d.data()) ||
          !sensitivity.GetSensitivityBlock(graph.poses[i].data(), &log_loops, d_loops.data())) {
        std::fprintf(stderr, "%s\n", sensitivity.message().c_str());
        return 1;
      }
    }
    Pose motion;
    for (int k = 0; k < 3; ++k) {
      motion[k] = d[k] * std::log(1.1);
      const double real10 = more10[i][k] - graph.poses[i][k];
      squared[0] += real10 * real10;
      squared[1] += std::pow(motion[k] - real10, 2);
      squared[2] +=
          std::pow(10 * d[k] * std::log(1.01) - 10 * (more1[i][k] - graph.poses[i][k]), 2);
      opposite = std::max(opposite, std::abs(d[k] + d_loops[k]));
    }
    predicted.push_back(motion);
    if (i % (graph.poses.size() / 8) == 0) {
      std::vector<std::string> row{std::to_string(i)};
      for (double v : motion) row.push_back(examples::Format("%.2f", 1e3 * v));
      for (int k = 0; k < 3; ++k) {
        row.push_back(examples::Format("%.2f", 1e3 * (more10[i][k] - graph.poses[i][k])));
      }
      table.Add(row);
    }
  }
  const double error10 = std::sqrt(squared[1] / squared[0]),
               error1 = std::sqrt(squared[2] / squared[0]);
  std::printf("Odometry noise 10 %% larger:\n%s\n", table.ToString().c_str());
  std::printf(
      "Error of the prediction over all poses: %.2f %% of the motion at 10 %% more noise, "
      "%.2f %% at 1 %%.\n",
      100 * error10,
      100 * error1);
  // Scaling all noise alike scales the cost and moves nothing: the two columns are opposite.
  std::printf("Odometry and loop noise scaled together move no coordinate by more than %.0e.\n",
              opposite);

  examples::WriteFile(FLAGS_summary_json,
                      examples::Json()
                          .Add("relative_error_10_percent", error10)
                          .Add("relative_error_1_percent", error1)
                          .Add("common_scale_motion", opposite)
                          .ToString());
  if (!FLAGS_plot.empty()) {
    constexpr double kMagnified = 100.0;
    examples::Series map{"poses", "lines", {}, {}}, arrows{"predicted (100 x)", "lines", {}, {}},
        tips{"re-solved (100 x)", "points", {}, {}};
    for (size_t i = 0; i < graph.poses.size(); ++i) {
      const Pose& p = graph.poses[i];
      map.x.push_back(p[0]);
      map.y.push_back(p[1]);
      for (const double factor : {0.0, kMagnified, std::nan("")}) {
        arrows.x.push_back(p[0] + factor * predicted[i][0]);
        arrows.y.push_back(p[1] + factor * predicted[i][1]);
      }
      tips.x.push_back(p[0] + kMagnified * (more10[i][0] - p[0]));
      tips.y.push_back(p[1] + kMagnified * (more10[i][1] - p[1]));
    }
    examples::Panel panel;
    panel.title = "If the odometry noise were 10 % larger";
    panel.x_label = "x [m]";
    panel.y_label = "y [m]";
    panel.equal_axes = true;
    panel.series = {map, arrows, tips};
    examples::Plot(FLAGS_plot, "Sensitivity of a pose graph", {panel});
  }
  return error10 < 0.1 && error1 < 0.01 && opposite < 1e-6 ? 0 : 1;
}
