// The covariance of a sensor, correlations included, learned without ground truth:
//
//   double theta[3] = {0.0, 0.0, 0.0};                // Of a 2 x 2 information matrix,
//   bilevel::FullNoise camera(theta, 2);              // here the identity,
//   camera.AddResidualBlock(..., problem.lower());    // of the residual blocks that it whitens.
//   bilevel::AddMarginalLikelihood(&problem, &error); // By the likelihood of all measurements,
//   camera.AddHalfLogDeterminant(count, &problem);    // each with its density's normalisation.
//
// A camera tracks a walker: across its view it is good, along it bad, and the view is oblique. How
// he walks is known.
#include <array>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

using Position = std::array<double, 2>;

struct Walked {  // In units of its noise.
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    for (int k = 0; k < 2; ++k) r[k] = (b[k] - a[k] - step[k]) / sigma;
    return true;
  }
  Position step;
  double sigma;
};

struct Seen {  // A plain error in metres: noise is none of its business.
  template <typename T>
  bool operator()(const T* p, T* r) const {
    for (int k = 0; k < 2; ++k) r[k] = p[k] - seen[k];
    return true;
  }
  Position seen;
};

constexpr int kSteps = 800;
constexpr double kAlong = 0.8, kAcross = 0.1, kView = 0.5, kWalk = 0.1;  // [m], [m], [rad], [m]

double RmsError(const std::vector<Position>& positions, const std::vector<Position>& truth) {
  double sum = 0.0;
  for (int i = 0; i < kSteps; ++i) {
    for (int k = 0; k < 2; ++k) sum += std::pow(positions[i][k] - truth[i][k], 2);
  }
  return std::sqrt(sum / kSteps);
}

int main() {
  double theta[3] = {0.0, 0.0, 0.0};
  bilevel::FullNoise camera(theta, 2);
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(theta, 3);
  problem.SetParameterName(theta, "information of the camera, log Cholesky");

  std::mt19937 generator(4);
  std::normal_distribution<double> normal;
  std::vector<Position> truth(kSteps, {0.0, 0.0}), positions(kSteps, {0.0, 0.0});
  for (int i = 0; i < kSteps; ++i) {
    if (i > 0) {
      const Position step = {0.5 * std::cos(0.01 * i), 0.5 * std::sin(0.02 * i)};
      for (int k = 0; k < 2; ++k)
        truth[i][k] = truth[i - 1][k] + step[k] + kWalk * normal(generator);
      problem.lower()->AddResidualBlock(
          new bilevel::AutoDiffCostFunction<Walked, 2, 2, 2>(new Walked{step, kWalk}),
          nullptr,
          positions[i - 1].data(),
          positions[i].data());
    }
    const double along = kAlong * normal(generator), across = kAcross * normal(generator);
    const Position seen = {truth[i][0] + std::cos(kView) * along - std::sin(kView) * across,
                           truth[i][1] + std::sin(kView) * along + std::cos(kView) * across};
    camera.AddResidualBlock(new bilevel::AutoDiffCostFunction<Seen, 2, 2>(new Seen{seen}),
                            nullptr,
                            {positions[i].data()},
                            problem.lower());
  }
  std::string error;
  if (!bilevel::AddMarginalLikelihood(&problem, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  camera.AddHalfLogDeterminant(kSteps, &problem);

  bilevel::Solver::Options options;
  bilevel::Solver::Summary summary;
  options.max_num_iterations = 0;  // The lower level alone.
  bilevel::Solve(options, &problem, &summary);
  const double before = RmsError(positions, truth);
  options.max_num_iterations = 50;
  bilevel::Solve(options, &problem, &summary);
  std::puts(summary.FullReport().c_str());

  double a[4];  // The information matrix, whose inverse is the covariance.
  camera.GetInformation(a);
  const double det = a[0] * a[3] - a[1] * a[2];
  const double xx = a[3] / det, xy = -a[1] / det, yy = a[0] / det;
  const double mean = 0.5 * (xx + yy), apart = std::hypot(0.5 * (xx - yy), xy);
  const double along = std::sqrt(mean + apart), across = std::sqrt(mean - apart);
  const double view = 0.5 * std::atan2(2.0 * xy, xx - yy);
  std::printf("along the view %.3f m, truly %.1f; across %.3f m, truly %.1f\n",
              along,
              kAlong,
              across,
              kAcross);
  std::printf("the view at %.3f rad, truly %.1f\n", view, kView);
  std::printf("RMS position error: %.3f m as a circle of 1 m, %.3f m as learned\n",
              before,
              RmsError(positions, truth));
  std::printf("To paste:\n%s\n", camera.Describe("camera").c_str());
  const bool is_right = std::abs(std::log(along / kAlong)) < 0.1 &&
                        std::abs(std::log(across / kAcross)) < 0.2 && std::abs(view - kView) < 0.05;
  return summary.IsSolutionUsable() && is_right && RmsError(positions, truth) < before ? 0 : 1;
}
