// The covariance of all cameras of a bundle adjustment beside ceres::Covariance, and the selected
// inverse beside the factorisation it is from: ratios of what one process does in turns on one
// thread. The page README.md beside this file says what each row means.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/factorization.h"
#include "bilevel/lower_level/internal/one_openmp_thread.h"
#include "bilevel/lower_level/selected_inverse.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/program.h"
#include "ceres/ceres.h"
#include "figures.h"
#include "pose_graph.h"
#include "test_data.h"

namespace bilevel {
namespace {

constexpr double kMostSeconds = 600.0;  // That ceres::Covariance may need.

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Seconds(const std::function<void()>& body) {
  const double begin = Now();
  body();
  return Now() - begin;
}

struct Projection {
  template <typename T>
  bool operator()(const T* camera, const T* point, T* residual) const {
    T p[3];
    bilevel::AngleAxisRotatePoint(camera, point, p);
    for (int k = 0; k < 3; ++k) p[k] += camera[3 + k];
    residual[0] = 1000.0 * p[0] / p[2] - u;
    residual[1] = 1000.0 * p[1] / p[2] - v;
    return true;
  }
  double u, v;
};

// A survey from the air: cameras on a square grid look down, and a point is seen from up to nine of
// them that are above it. Or, in a `collection`, from nine of the cameras around one place.
// Measurements are exact: the start is the solution, to rounding.
struct Scene {
  Scene(int num_cameras, int points_per_camera, bool is_collection)
      : cameras(num_cameras), points(num_cameras * points_per_camera) {
    std::mt19937 generator(7);
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    const int side = static_cast<int>(std::ceil(std::sqrt(num_cameras)));
    const auto place = [&](int c, double* at) {
      at[0] = is_collection ? 0.0 : c % side;
      at[1] = is_collection ? 0.0 : c / side;
    };
    for (int c = 0; c < num_cameras; ++c) {
      double centre[3] = {0.0, 0.0, -4.0 + 0.5 * uniform(generator)};
      place(c, centre);
      for (int k = 0; k < 3; ++k) cameras[c][k] = 0.1 * uniform(generator);
      for (int k = 0; k < 2; ++k) centre[k] += 0.2 * uniform(generator);
      bilevel::AngleAxisRotatePoint(cameras[c].data(), centre, &cameras[c][3]);
      for (int k = 3; k < 6; ++k) cameras[c][k] = -cameras[c][k];
    }
    for (size_t p = 0; p < points.size(); ++p) {
      const int c = static_cast<int>(p) / points_per_camera;
      place(c, points[p].data());
      for (double& value : points[p]) value += 0.5 * uniform(generator);
      for (int i = -1; i <= 1; ++i) {
        for (int j = -1; j <= 1; ++j) {
          const bool is_over_edge = c % side + i < 0 || c % side + i >= side;
          int camera = c + i + j * side;
          if (is_collection) camera = static_cast<int>((c + generator()) % num_cameras);
          if (camera < 0 || camera >= num_cameras || (is_over_edge && !is_collection)) continue;
          Observe(camera, static_cast<int>(p));
        }
      }
    }
  }
  void Observe(int camera, int point) {
    double seen[2];
    Projection projection{0.0, 0.0};
    projection(cameras[camera].data(), points[point].data(), seen);
    problem.AddResidualBlock(
        new AutoDiffCostFunction<Projection, 2, 6, 3>(new Projection{seen[0], seen[1]}),
        nullptr,
        cameras[camera].data(),
        points[point].data());
  }
  // Two cameras: place, orientation and scale.
  void FixGauge() {
    for (int c : {0, 1}) problem.SetParameterBlockConstant(cameras[c].data());
  }

  // All cameras' covariances, row-major.
  double Ours(Matrix* blocks) const {
    Sensitivity::Options options;
    options.hessian = HessianKind::kGaussNewton;
    blocks->resize(36, cameras.size());
    return Seconds([&] {
      Problem around(nullptr, const_cast<ceres::Problem*>(&problem));
      Sensitivity sensitivity(options);
      bool ok = sensitivity.Compute(&around, {});
      for (size_t c = 0; ok && c < cameras.size(); ++c) {
        ok = sensitivity.GetCovarianceBlock(
            cameras[c].data(), cameras[c].data(), blocks->col(c).data());
      }
      if (!ok) Fail(sensitivity.message());
    });
  }
  double OfCeres(const ceres::Covariance::Options& options, Matrix* blocks) {
    std::vector<std::pair<const double*, const double*>> pairs;
    for (const auto& camera : cameras) pairs.emplace_back(camera.data(), camera.data());
    blocks->resize(36, cameras.size());
    return Seconds([&] {
      ceres::Covariance covariance(options);
      bool ok = covariance.Compute(pairs, &problem);
      for (size_t c = 0; ok && c < cameras.size(); ++c) {
        ok = covariance.GetCovarianceBlock(
            cameras[c].data(), cameras[c].data(), blocks->col(c).data());
      }
      if (!ok) Fail("ceres::Covariance failed");
    });
  }

  std::vector<std::array<double, 6>> cameras;
  std::vector<std::array<double, 3>> points;
  ceres::Problem problem;
};

double Difference(const Matrix& a, const Matrix& b) { return (a - b).norm() / b.norm(); }

// Free gauge: the most cameras that Ceres' dense SVD can do in time, by its growth so far.
void BesideDenseSvd() {
  ceres::Covariance::Options options;
  options.algorithm_type = ceres::DENSE_SVD;
  options.null_space_rank = -1;
  options.min_reciprocal_condition_number = 1e-13;
  double before = 0.0;
  for (const int num_cameras : {10, 20, 40}) {
    if (10.0 * before > kMostSeconds) break;
    Scene scene(num_cameras, 10, false);
    Matrix ours, of_ceres;
    const double ceres = before = scene.OfCeres(options, &of_ceres);
    std::vector<double> seconds;
    for (int k = 0; k < 3; ++k) seconds.push_back(scene.Ours(&ours));
    std::printf("%d cameras, free gauge, %d points: ours %.4f s, dense SVD %.2f s, apart by %.1e\n",
                num_cameras,
                static_cast<int>(scene.points.size()),
                Median(seconds),
                ceres,
                Difference(ours, of_ceres));
    Row("ceres::Covariance by dense SVD / ours", ceres / Median(seconds), "50 at the largest");
  }
}

// Fixed gauge: how time grows, and Ceres' sparse QR.
void Grow() {
  double before = 0.0;
  for (const int num_cameras : {500, 1800}) {
    Scene scene(num_cameras, 50, false);
    Matrix free, ours, of_ceres;
    const double seconds_free = scene.Ours(&free);
    scene.FixGauge();
    const double seconds = scene.Ours(&ours);
    std::printf("%d cameras, %d points: ours %.2f s, and %.2f s with a free gauge\n",
                num_cameras,
                static_cast<int>(scene.points.size()),
                seconds,
                seconds_free);
    if (num_cameras == 500) {
      ceres::Covariance::Options options;
      options.algorithm_type = ceres::SPARSE_QR;
      const double ceres = scene.OfCeres(options, &of_ceres);
      std::printf("  sparse QR %.2f s, apart by %.1e\n", ceres, Difference(ours, of_ceres));
      Row("ceres::Covariance by sparse QR / ours", ceres / seconds, "2");
      before = seconds;
    } else {
      Row("all cameras, seconds", seconds, "minutes");
      Row("all cameras with a free gauge, seconds", seconds_free, "minutes");
      Row("exponent of time from 500 cameras", std::log(seconds / before) / std::log(3.6), "none");
    }
  }
}

// The reduced system is full.
void Anywhere() {
  Scene scene(1800, 50, true);
  scene.FixGauge();
  Matrix ours;
  const double seconds = scene.Ours(&ours);
  std::printf("1800 cameras around one place, %d points\n", static_cast<int>(scene.points.size()));
  Row("all cameras, seconds", seconds, "minutes");
}

// Of the Hessian of a problem.
void BesideFactorization(ceres::Problem* problem, const char* name) {
  std::string error;
  Problem around(nullptr, problem);
  Problem::CompileOptions options;
  options.need_f = options.need_x = false;
  const auto program = around.Compile(options, &error);
  if (!program) Fail(error);
  const Program::Scenario& scenario = *program->scenarios[0];
  LevelEvaluator g(scenario.g.get(), nullptr);
  Vector x(program->x.size()), y(program->y.size()), gradient(program->y.tangent_size());
  program->y.ReadUser(y.data());
  SparseMatrix hessian = scenario.g->yy_pattern();
  double value;
  g.Hessian(
      x.data(), y.data(), HessianKind::kGaussNewton, &value, gradient.data(), &hessian, nullptr);
  Factorization factorization(hessian, &scenario.y);
  std::vector<double> factorize, invert;
  for (int k = 0; k < 3; ++k) {
    Factorization::Status status;
    factorize.push_back(Seconds([&] { status = factorization.Factorize(hessian, 0.0, nullptr); }));
    if (status != Factorization::Status::kPositiveDefinite) Fail("the Hessian is singular");
    invert.push_back(Seconds([&] { SelectedInverse inverse(factorization); }));
  }
  std::printf("%s, %s, %.4f s, selected inverse %.4f s\n",
              name,
              factorization.Describe().c_str(),
              Median(factorize),
              Median(invert));
  Row("selected inverse / factorisation", Median(invert) / Median(factorize), "2");
}

void SelectedInverses() {
  for (const int num_poses : {500, 2500}) {
    const std::string path =
        DataPath("sphere_benchmark/sphere_" + std::to_string(num_poses) + ".txt.gz");
    if (path.empty()) continue;
    const auto graph = ReadSphere(path);
    ceres::Problem problem;
    graph->AddEdges(&problem, nullptr);
    graph->AddPrior(&problem, 0, 100.0);
    BesideFactorization(&problem, (std::to_string(num_poses) + " poses on a sphere").c_str());
  }
  Scene scene(1800, 20, false), collection(400, 20, true);
  scene.FixGauge();
  collection.FixGauge();
  BesideFactorization(&scene.problem, "1800 cameras");
  BesideFactorization(&collection.problem, "400 cameras around one place");
}

}  // namespace
}  // namespace bilevel

int main() {
  const bilevel::OneOpenMpThread guard;
  bilevel::SelectedInverses();
  bilevel::BesideDenseSvd();
  bilevel::Grow();
  bilevel::Anywhere();
  return 0;
}
