// A city's bundle adjustment from a cold start, beside ceres::Solve: CPU seconds and peak memory,
// each in a process of its own. The page README.md beside this file says what each row means.
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/internal/one_openmp_thread.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/oracle/oracle.h"
#include "bilevel/program/program.h"
#include "ceres/ceres.h"
#include "figures.h"

namespace bilevel {
namespace {

double CpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A camera with focal length and two radial distortions.
struct Reprojection {
  template <typename T>
  bool operator()(const T* camera, const T* point, T* residual) const {
    T p[3];
    bilevel::AngleAxisRotatePoint(camera, point, p);
    for (int k = 0; k < 3; ++k) p[k] += camera[3 + k];
    const T a = p[0] / p[2], b = p[1] / p[2], r2 = a * a + b * b;
    const T scale = camera[6] * (1.0 + r2 * (camera[7] + camera[8] * r2));
    residual[0] = scale * a - u;
    residual[1] = scale * b - v;
    return true;
  }
  double u, v;
};

template <int N>
struct Prior {
  template <typename T>
  bool operator()(const T* block, T* residual) const {
    for (int k = 0; k < N; ++k) residual[k] = weights[k] * (block[k] - values[k]);
    return true;
  }
  std::array<double, N> values, weights;
};

// A ring road: cameras look at what stands outside it, a point is seen from five in a row, with a
// noise of half a pixel, and a tenth of the observations with one of twenty. Cameras have weak
// priors; every tenth point was surveyed.
class City {
 public:
  explicit City(int num_cameras) : cameras_(num_cameras), points_(200 * num_cameras) {
    std::mt19937 generator(1);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    const double radius = 0.5 * num_cameras / (2.0 * M_PI);
    for (int i = 0; i < num_cameras; ++i) {
      auto& camera = cameras_[i];
      const double turn = 2.0 * M_PI * i / num_cameras;
      camera = {0.02 * std::sin(3.0 * turn), std::remainder(turn, 2.0 * M_PI), 0.0};
      const double at[] = {-radius * std::sin(turn), 0.3 * std::sin(turn), radius * std::cos(turn)};
      bilevel::AngleAxisRotatePoint(camera.data(), at, &camera[3]);
      for (int k = 3; k < 6; ++k) camera[k] = -camera[k];
      camera[6] = 800.0;
      camera[7] = -0.05;
      camera[8] = 0.01;
    }
    for (int j = 0; j < static_cast<int>(points_.size()); ++j) {
      const int nearest = j / 200;
      const double distance = radius + 10.0 + 4.0 * uniform(generator);
      const double turn =
          2.0 * M_PI * (j + 0.5) / 200.0 / num_cameras + 4.0 * uniform(generator) / distance;
      points_[j] = {
          -distance * std::sin(turn), 4.0 * uniform(generator), distance * std::cos(turn)};
      for (int i = -2; i <= 2; ++i) {
        const int camera = (nearest + i + num_cameras) % num_cameras;
        Reprojection seen{0.0, 0.0};
        double at[2];
        seen(cameras_[camera].data(), points_[j].data(), at);
        const double noise = uniform(generator) > 0.8 ? 20.0 : 0.5;
        seen = {at[0] + noise * normal(generator), at[1] + noise * normal(generator)};
        observations_.push_back({camera, j, seen});
      }
    }
    true_cameras_ = cameras_;
    true_points_ = points_;
    for (auto& camera : cameras_) {
      for (int k = 0; k < 6; ++k) camera[k] += (k < 3 ? 1e-3 : 0.02) * normal(generator);
    }
    for (auto& point : points_) {
      for (double& value : point) value += 0.05 * normal(generator);
    }
  }

  // The loss passes to the problem.
  void AddObservations(ceres::LossFunction* loss, ceres::Problem* problem) {
    for (const Observation& o : observations_) {
      problem->AddResidualBlock(
          new AutoDiffCostFunction<Reprojection, 2, 9, 3>(new Reprojection(o.seen)),
          loss,
          cameras_[o.camera].data(),
          points_[o.point].data());
    }
    for (size_t i = 0; i < cameras_.size(); ++i) {
      problem->AddResidualBlock(
          new AutoDiffCostFunction<Prior<9>, 9, 9>(new Prior<9>{
              true_cameras_[i], {100.0, 100.0, 100.0, 10.0, 10.0, 10.0, 1.0, 1e3, 1e3}}),
          nullptr,
          cameras_[i].data());
    }
  }
  void AddSurvey(ceres::Problem* problem) {
    for (size_t j = 0; j < points_.size(); j += 10) {
      problem->AddResidualBlock(
          new AutoDiffCostFunction<Prior<3>, 3, 3>(new Prior<3>{true_points_[j], {1.0, 1.0, 1.0}}),
          nullptr,
          points_[j].data());
    }
  }
  int num_observations() const { return static_cast<int>(observations_.size()); }

 private:
  struct Observation {
    int camera, point;
    Reprojection seen;
  };
  std::vector<std::array<double, 9>> cameras_, true_cameras_;
  std::vector<std::array<double, 3>> points_, true_points_;
  std::vector<Observation> observations_;
};

ceres::Solver::Options CeresOptions() {
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::SPARSE_SCHUR;
  options.max_num_iterations = 200;
  options.logging_type = ceres::SILENT;
  return options;
}

struct Cost {
  double seconds, megabytes;
};

// body returns its CPU seconds; it runs in a child, whose peak memory is its own.
Cost InChild(const std::function<double()>& body) {
  int ends[2];
  if (pipe(ends) != 0) Fail("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    const double seconds = body();
    const bool is_written = write(ends[1], &seconds, sizeof(seconds)) == sizeof(seconds);
    std::_Exit(is_written ? 0 : 1);
  }
  close(ends[1]);
  Cost cost{0.0, 0.0};
  rusage usage;
  int status = 0;
  const bool is_read = read(ends[0], &cost.seconds, sizeof(double)) == sizeof(double);
  close(ends[0]);
  if (wait4(child, &status, 0, &usage) != child || !is_read || status != 0) Fail("a run failed");
  cost.megabytes = static_cast<double>(usage.ru_maxrss) / 1024.0;
  return cost;
}

double SolveByCeres(City* city) {
  ceres::Problem problem;
  city->AddObservations(new ceres::CauchyLoss(1.0), &problem);
  ceres::Solver::Summary summary;
  const double begin = CpuSeconds();
  ceres::Solve(CeresOptions(), &problem, &summary);
  return CpuSeconds() - begin;
}

enum class Task { kFirstSolve, kHypergradient, kLearn };

double SolveByUs(City* city, Task task) {
  double log_scale = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&log_scale, 1);
  city->AddObservations(new CauchyLoss(&log_scale), problem.lower());
  city->AddSurvey(problem.upper());
  Solver::Options options;
  options.lower_solver_options = CeresOptions();
  const double begin = CpuSeconds();
  if (task == Task::kLearn) {
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    if (summary.termination_type != ceres::CONVERGENCE) Fail(summary.FullReport());
    std::printf("  learned scale %.6f in %zu iterations\n",
                std::exp(log_scale),
                summary.iterations.size() - 1);
    std::fflush(stdout);
    return CpuSeconds() - begin;
  }
  std::string error;
  const auto program = problem.Compile({}, &error);
  if (!program) Fail(error);
  NewtonLowerSolver solver(program.get(), options.LowerSolverOptions());
  Oracle oracle(program.get(), &solver, 0);
  Point x(&program->x), y(&program->y);
  program->x.ReadUser(x.value().data());
  program->y.ReadUser(y.value().data());
  if (!oracle.Solve(x, &y)) Fail(oracle.message());
  const double solved = CpuSeconds();
  if (task == Task::kFirstSolve) return solved - begin;
  Vector fx, fy, product;
  oracle.f.Gradient(x, y, &fx, &fy);
  if (!oracle.Differentiate(x, y) || !solver.Adjoint(fy, &product)) Fail(oracle.message());
  return CpuSeconds() - solved;
}

// Medians of ratios to ceres::Solve of the same round.
void Measure(int num_cameras, int num_rounds) {
  City city(num_cameras);
  std::printf("%d cameras, %d observations\n", num_cameras, city.num_observations());
  std::vector<double> first, hypergradient, learn, memory;
  for (int round = 0; round < num_rounds; ++round) {
    std::fflush(stdout);
    const Cost ceres = InChild([&] { return SolveByCeres(&city); });
    const Cost own = InChild([&] { return SolveByUs(&city, Task::kLearn); });
    const auto ratio = [&](Task task) {
      return InChild([&] { return SolveByUs(&city, task); }).seconds / ceres.seconds;
    };
    first.push_back(ratio(Task::kFirstSolve));
    hypergradient.push_back(ratio(Task::kHypergradient));
    learn.push_back(own.seconds / ceres.seconds);
    memory.push_back(own.megabytes / ceres.megabytes);
    std::printf("  ceres::Solve %.1f s, %.0f MB\n", ceres.seconds, ceres.megabytes);
  }
  Row("first solve, to a decrement of 1e-10 / ceres::Solve", Median(first), "1.5");
  Row("hypergradient / ceres::Solve", Median(hypergradient), "none");
  Row("learning the loss's scale / ceres::Solve", Median(learn), "4");
  Row("peak memory / that of ceres::Solve", Median(memory), "1.5");
}

}  // namespace
}  // namespace bilevel

int main(int argc, char** argv) {
  const bilevel::OneOpenMpThread guard;
  const bool is_large = argc > 1 && std::strcmp(argv[1], "--large") == 0;
  if (argc > 1 && !is_large) {
    std::fprintf(stderr, "Usage: %s [--large]\n", argv[0]);
    return 1;
  }
  bilevel::Measure(200, 3);
  if (is_large) bilevel::Measure(1000, 1);
  return 0;
}
