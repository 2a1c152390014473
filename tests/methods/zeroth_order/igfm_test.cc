// IGFM against closed forms: the estimate, its interval, where it ends and what it refuses.
#include "bilevel/methods/zeroth_order/igfm.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/sgm.h"
#include "examples/support/toy_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sphere.h"

namespace bilevel {
namespace {

using examples::Toy;
using testing::HasSubstr;

Solver::Summary SolveToy(Toy* toy,
                         const Igfm::Options& igfm,
                         int num_iterations,
                         const Sgm::Options* sgm = nullptr,
                         unsigned seed = 0) {
  const auto problem = toy->Build();
  Solver::Options options;
  options.method = std::make_shared<Igfm>(igfm);
  options.max_num_iterations = num_iterations;
  options.seed = seed;
  if (sgm) {
    options.lower_solver = [sgm](Program* program) { return std::make_unique<Sgm>(program, *sgm); };
  }
  Solver::Summary summary;
  Solve(options, problem.get(), &summary);
  return summary;
}

// y = x, f = 1/2 sum k (y_k - 1)^2: phi' = k (x_k - 1), and smoothing over a ball leaves the
// gradient of a quadratic as it is.
struct Follow {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    for (int i = 0; i < 4; ++i) r[i] = y[i] - x[i];
    return true;
  }
};
struct Weighed {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    for (int i = 0; i < 4; ++i) r[i] = std::sqrt(i + 1.0) * (y[i] - 1.0);
    return true;
  }
};

struct Quadratic {
  double x[4] = {0.3, -0.2, 0.8, 0.5}, y[4] = {};
  Problem problem;
  Quadratic() {
    problem.AddUpperParameterBlock(x, 4);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Follow, 4, 4, 4>(new Follow), nullptr, x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Weighed, 4, 4>(new Weighed), nullptr, y);
  }
  Solver::Summary Solve(const Igfm::Options& igfm,
                        int num_iterations,
                        unsigned seed = 0,
                        int num_threads = 1) {
    Solver::Options options;
    options.method = std::make_shared<Igfm>(igfm);
    options.max_num_iterations = num_iterations;
    options.seed = seed;
    options.num_threads = num_threads;
    Solver::Summary summary;
    bilevel::Solve(options, &problem, &summary);
    return summary;
  }
};

// As many orthogonal directions as x has coordinates: central differences in a random frame.
TEST(Igfm, AFullFrameGivesTheGradient) {
  Quadratic q;
  Igfm::Options igfm;
  igfm.num_directions = 4;
  igfm.x.step = 0.1;
  const double start[4] = {0.3, -0.2, 0.8, 0.5};
  const Solver::Summary summary = q.Solve(igfm, 1);
  ASSERT_EQ(summary.iterations.size(), 2u) << summary.FullReport();
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(summary.iterations[1].x[i], start[i] - 0.1 * (i + 1) * (start[i] - 1.0), 1e-8);
  }
  // Centre and both sides of four pairs, then the new centre.
  const LowerSolverCounts& counts = summary.iterations[1].lower_solver;
  EXPECT_EQ(counts.cold_solves + counts.warm_solves, 10);
}

// A single direction estimates without bias: the mean over seeds approaches the gradient like
// 1 / sqrt(number of seeds).
TEST(Igfm, OneDirectionIsUnbiased) {
  constexpr int kSeeds = 2000;
  double mean[4] = {};
  const double start[4] = {0.3, -0.2, 0.8, 0.5};
  Igfm::Options igfm;
  for (int seed = 0; seed < kSeeds; ++seed) {
    Quadratic q;
    const Solver::Summary summary = q.Solve(igfm, 1, seed);
    for (int i = 0; i < 4; ++i) {
      mean[i] += (start[i] - summary.iterations[1].x[i]) / igfm.x.step / kSeeds;
    }
  }
  // |gradient| = 3.2; the spread of d (g'u) u is at most d |g| = 13 a coordinate, 5 on average.
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(mean[i], (i + 1) * (start[i] - 1.0), 0.45) << i;
}

TEST(Igfm, StationarityIntervalCoversTheTruth) {
  constexpr int kSeeds = 200;
  double truth = 0.0, half_width = 0.0;
  int covered = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    Quadratic q;
    truth = 0.0;
    for (int i = 0; i < 4; ++i) truth += std::pow((i + 1) * (q.x[i] - 1.0), 2.0);
    truth = std::sqrt(truth);
    Igfm::Options igfm;
    igfm.num_stationarity_pairs = 40;
    const Assessment assessment = q.Solve(igfm, 0, seed).assessment;
    half_width += assessment.goldstein_half_width / kSeeds;
    covered += std::abs(assessment.goldstein_norm - truth) <= assessment.goldstein_half_width;
  }
  EXPECT_GE(covered, 0.95 * kSeeds);
  // tr Cov of one estimate is (d - 1) |g|^2 on the sphere; a useful interval is of that order.
  const double spread = truth * std::sqrt(3.0 / 40.0);
  EXPECT_GT(half_width, spread);
  EXPECT_LT(half_width, 4.0 * spread);
}

TEST(Igfm, TheSameAnswerWhateverTheThreads) {
  std::vector<double> reached;
  for (const int num_threads : {1, 2, 4}) {
    Quadratic q;
    Igfm::Options igfm;
    igfm.num_directions = 3;
    igfm.x.step = 0.05;
    const Solver::Summary summary = q.Solve(igfm, 400, 5, num_threads);
    EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE);
    for (double x : q.x) EXPECT_NEAR(x, 1.0, 1e-3);
    reached.push_back(q.x[2]);
  }
  EXPECT_EQ(reached[0], reached[1]);
  EXPECT_EQ(reached[0], reached[2]);
}

TEST(Igfm, ARandomIterateIsUniform) {
  constexpr int kSeeds = 1000, kIterates = 5;
  int chosen[kIterates] = {};
  Igfm::Options igfm;
  igfm.output = Igfm::kRandom;
  for (int seed = 0; seed < kSeeds; ++seed) {
    Quadratic q;
    const Solver::Summary summary = q.Solve(igfm, kIterates - 1, seed);
    ASSERT_EQ(summary.iterations.size(), static_cast<size_t>(kIterates));
    int found = -1;
    for (int k = 0; k < kIterates; ++k) {
      if (std::equal(q.x, q.x + 4, summary.iterations[k].x.begin())) found = k;
    }
    ASSERT_GE(found, 0);
    EXPECT_EQ(summary.final_objective, summary.iterations[found].objective);
    ++chosen[found];
  }
  // Chi-squared with 4 degrees of freedom: 18.5 is exceeded once in a thousand.
  double chi_squared = 0.0;
  for (int count : chosen) {
    chi_squared += std::pow(count - kSeeds / kIterates, 2.0) / (kSeeds / kIterates);
  }
  EXPECT_LT(chi_squared, 18.5);
}

Igfm::Options Decaying(int num_directions, double step) {
  Igfm::Options igfm;
  igfm.num_directions = num_directions;
  igfm.x.step = step;
  igfm.x.decay_exponent = 1.0;
  igfm.x.decay_time = 20.0;
  return igfm;
}

// The lower level's bounds make a corner, where phi is least; bounds on x further out.
TEST(Igfm, FindsCorners) {
  Toy toy = examples::Corner(3);
  const Solver::Summary summary = SolveToy(&toy, Decaying(3, 0.1), 1000);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(toy.x[i], 1.0, 5e-3);
  EXPECT_NEAR(summary.final_objective, -1.5, 5e-3);
  EXPECT_TRUE(summary.assessment.notes.empty());  // A kink is not a jump.
}

// phi = sum of x_i^2 - |x_i| over a lower level without a preference: only the switching gradient
// method's y is the one that f wants.
TEST(Igfm, FindsMinimisersBesideACornerWithSgm) {
  Toy toy = examples::NonSmooth(3);
  Sgm::Options sgm;
  sgm.num_lower_steps = 1;
  sgm.num_steps = 300;
  sgm.step = 0.3;
  sgm.output = Sgm::kBest;
  Igfm::Options igfm = Decaying(3, 0.2);
  igfm.num_stationarity_pairs = 100;
  const Solver::Summary summary = SolveToy(&toy, igfm, 200, &sgm);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(std::abs(toy.x[i]), 0.5, 5e-3);
  EXPECT_NEAR(summary.final_objective, -0.75, 1e-4);
  EXPECT_LT(summary.assessment.goldstein_norm, 0.05);
  EXPECT_GT(summary.lower_solver.gradient_steps, 200 * 7 * 300);
}

// At the corner 0 of |x| the gradient of the smoothed function vanishes, though phi's is +-1.
TEST(Igfm, StationarityAtACorner) {
  Toy toy = examples::Corner(1);
  toy.x = {1.0};
  Igfm::Options igfm;
  igfm.num_stationarity_pairs = 10;
  const Assessment assessment = SolveToy(&toy, igfm, 0).assessment;
  EXPECT_NEAR(assessment.goldstein_norm, 0.0, 1e-9);  // (1/2 - 1/2) by symmetry.
  toy.x = {0.3};
  toy.y = {0.0};
  EXPECT_NEAR(SolveToy(&toy, igfm, 0).assessment.goldstein_norm, 0.5, 1e-9);
}

// Theorem 6.2's parameters: from phi = x^2 - |x| at 0.2, 1.6-Lipschitz within |x| <= 1.3, the
// expected Goldstein stationarity is reached.
TEST(Igfm, ParametersByTheorem) {
  Igfm::Constants constants;
  constants.phi_lipschitz = 1.6;
  constants.gap = 0.25;
  Igfm::Options igfm;
  int num_iterations = 0;
  double accuracy = 0.0;
  std::string error;
  ASSERT_TRUE(Igfm::ByTheorem(constants, 0.05, 0.4, &igfm, &num_iterations, &accuracy, &error));
  EXPECT_EQ(
      num_iterations,
      std::ceil(std::pow(4.0, 4.0) + 0.25 * std::pow(1.6, 3.0) / (0.05 * std::pow(0.4, 4.0))));
  EXPECT_NEAR(accuracy, 0.05 * 0.16 / 1.6, 1e-15);
  EXPECT_NEAR(igfm.x.step,
              std::sqrt(0.05 * (0.25 + 0.05 * 1.6) / (std::pow(1.6, 3.0) * num_iterations)),
              1e-15);
  Sgm::Options sgm;
  sgm.theta = sgm.step = accuracy;
  sgm.num_steps = 400;  // Across |y| <= 1 at the slowest that x allows within delta.
  sgm.num_lower_steps = 1;
  sgm.output = Sgm::kBest;
  igfm.num_stationarity_pairs = 200;
  double mean = 0.0;
  for (unsigned seed = 0; seed < 5; ++seed) {
    Toy toy = examples::NonSmooth(1);
    toy.x = {0.2};
    mean += SolveToy(&toy, igfm, num_iterations, &sgm, seed).assessment.goldstein_norm / 5.0;
  }
  EXPECT_LE(mean, 0.4);
  EXPECT_FALSE(Igfm::ByTheorem(constants, 0.05, 1e-6, &igfm, &num_iterations, &accuracy, &error));
  EXPECT_THAT(error, HasSubstr("asks for"));
  EXPECT_FALSE(Igfm::ByTheorem(constants, -1.0, 0.4, &igfm, &num_iterations, &accuracy, &error));
  EXPECT_THAT(error, HasSubstr("delta"));
}

TEST(Igfm, BoundsOnX) {
  Toy toy = examples::Corner(2);
  toy.x_bound = 0.75;
  SolveToy(&toy, Decaying(2, 0.1), 300);
  EXPECT_EQ(toy.x[0], 0.75);
  EXPECT_EQ(toy.x[1], 0.75);
}

// x on the unit sphere, y = x, nearest to a point outside.
struct Same {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    for (int i = 0; i < 3; ++i) r[i] = y[i] - x[i];
    return true;
  }
};
struct NearOutside {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 1.0;
    r[1] = y[1] + 2.0;
    r[2] = y[2] - 2.0;
    return true;
  }
};

TEST(Igfm, OnAManifold) {
  double x[3] = {1.0, 0.0, 0.0}, y[3] = {};
  Problem problem;
  problem.AddUpperParameterBlock(x, 3, NewSphere());
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Same, 3, 3, 3>(new Same), nullptr, x, y);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<NearOutside, 3, 3>(new NearOutside), nullptr, y);
  Solver::Options options;
  Igfm::Options igfm;
  igfm.num_directions = 2;
  igfm.x.step = 0.1;
  options.method = std::make_shared<Igfm>(igfm);
  options.max_num_iterations = 200;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(x[0], 1.0 / 3.0, 1e-5);
  EXPECT_NEAR(x[1], -2.0 / 3.0, 1e-5);
  EXPECT_NEAR(x[2], 2.0 / 3.0, 1e-5);
}

TEST(Igfm, ReportsAJumpAndDoesNotCallItConvergence) {
  Toy toy = examples::Discontinuous();
  Igfm::Options igfm;
  igfm.x.step = 0.1;
  const Solver::Summary summary = SolveToy(&toy, igfm, 60);
  EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE);
  EXPECT_THAT(summary.FullReport(), HasSubstr("phi jumps from -1 to 1 at x = ("));
}

// The switching gradient method smears the jump, over the x where g is too flat for its steps.
TEST(Igfm, ReportsAJumpWithSgmToo) {
  Toy toy = examples::Discontinuous();
  Sgm::Options sgm;
  sgm.theta = 1e-6;
  sgm.step = 0.01;
  sgm.lower_step = 50.0;  // The box holds it.
  sgm.num_lower_steps = 200;
  sgm.num_steps = 1000;
  sgm.output = Sgm::kLastFeasible;
  Igfm::Options igfm;
  igfm.x.step = 0.1;
  const Solver::Summary summary = SolveToy(&toy, igfm, 60, &sgm);
  EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE);
  EXPECT_THAT(summary.FullReport(), HasSubstr("phi jumps from -"));
  EXPECT_THAT(summary.FullReport(), HasSubstr("as far as this lower solver can tell"));
  EXPECT_LT(std::abs(toy.x[0]), 0.1);
}

// A kink, and what its approximate y adds to phi, are not jumps.
TEST(Igfm, NoJumpWithSgmWherePhiIsContinuous) {
  for (const bool kink : {true, false}) {
    Toy toy = kink ? examples::NonSmooth(1) : examples::NonUnique();
    Sgm::Options sgm;
    sgm.theta = 1e-2;
    sgm.step = sgm.lower_step = 0.02;
    sgm.num_lower_steps = 200;
    sgm.num_steps = 500;
    Igfm::Options igfm;
    igfm.x.step = 0.1;
    const Solver::Summary summary = SolveToy(&toy, igfm, 40, &sgm);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_TRUE(summary.assessment.notes.empty()) << summary.FullReport();
  }
}

TEST(Igfm, NonsenseIsNamedBeforeAnyWork) {
  const auto message = [](const std::function<void(Igfm::Options*)>& spoil) {
    Igfm::Options igfm;
    spoil(&igfm);
    Quadratic q;
    const Solver::Summary summary = q.Solve(igfm, 10);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    EXPECT_EQ(summary.lower_solver.cold_solves, 0);
    EXPECT_EQ(q.x[0], 0.3);
    return summary.message;
  };
  EXPECT_THAT(message([](auto* o) { o->delta = 0.0; }), HasSubstr("igfm.delta"));
  EXPECT_THAT(message([](auto* o) { o->delta = NAN; }), HasSubstr("igfm.delta"));
  EXPECT_THAT(message([](auto* o) { o->num_directions = 0; }), HasSubstr("igfm.num_directions"));
  EXPECT_THAT(message([](auto* o) { o->x.step = -1.0; }), HasSubstr("igfm.x.step"));
  EXPECT_THAT(message([](auto* o) { o->num_stationarity_pairs = 1; }),
              HasSubstr("igfm.num_stationarity_pairs"));
}

TEST(Igfm, DivergenceFailsWithTheBestRestored) {
  Igfm::Options igfm;
  igfm.num_directions = 4;
  igfm.x.step = 1e6;
  Quadratic q;
  const Solver::Summary summary = q.Solve(igfm, 1000);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_EQ(q.x[0], 0.3);
  EXPECT_EQ(q.x[3], 0.5);
}

}  // namespace
}  // namespace bilevel
