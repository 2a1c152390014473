#include "bilevel/methods/zeroth_order/pattern_search.h"

#include <cmath>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

// phi(x) = (1 + 0.3 |x0 - x1|)^2 / 2 + (x0 + x1 - 2)^2 / 8, least at (1, 1): a valley with a kink
// all along, on which it starts. y = x.
struct Ridge {
  Ridge() {
    problem.AddUpperParameterBlock(x, 2);
    const auto copy = [](double const* const* p, double* r, double** j) {
      for (int i = 0; i < 2; ++i) r[i] = p[0][i] - p[1][i];
      for (int b = 0; j && b < 2; ++b) {
        if (j[b]) Eigen::Map<Eigen::Matrix2d>(j[b]).setIdentity() *= b == 0 ? 1.0 : -1.0;
      }
      return true;
    };
    problem.lower()->AddResidualBlock(new FunctionCost(2, {2, 2}, copy), nullptr, y, x);
    const auto score = [](double const* const* p, double* r, double** j) {
      const double across = p[0][0] - p[0][1], sign = across < 0.0 ? -1.0 : 1.0;
      r[0] = 1.0 + 0.3 * std::abs(across);
      r[1] = 0.5 * (p[0][0] + p[0][1] - 2.0);
      if (j && j[0]) {
        const double jacobian[] = {0.3 * sign, -0.3 * sign, 0.5, 0.5};
        std::copy_n(jacobian, 4, j[0]);
      }
      return true;
    };
    problem.upper()->AddResidualBlock(new FunctionCost(2, {2}, score), nullptr, y);
  }
  Problem problem;
  double x[2] = {-1.0, -1.0}, y[2] = {0.0, 0.0};
};

TEST(PatternSearch, FollowsAKinkToItsLeast) {
  Ridge ridge;
  Solver::Options options;
  options.max_num_iterations = 500;
  options.method = CreateMethod("pattern_search");
  Solver::Summary summary;
  Solve(options, &ridge.problem, &summary);
  // Its steps have ended before phi is least to the function tolerance, which the check sees.
  EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE) << summary.FullReport();
  EXPECT_EQ(summary.answer, AnswerKind::kStuck);
  EXPECT_NEAR(summary.final_objective, 0.5, 5e-3) << summary.FullReport();
  EXPECT_NEAR(ridge.y[0], ridge.x[0], 1e-9);
}

TEST(PatternSearch, GoesOnWhereAutoIsStuck) {
  Ridge alone;
  Solver::Options options;
  options.max_num_iterations = 500;
  options.method = CreateMethod("levenberg_marquardt");
  Solver::Summary summary;
  Solve(options, &alone.problem, &summary);
  const double stuck_at = summary.final_objective;

  Ridge ridge;
  options.method = CreateMethod("auto");
  Solve(options, &ridge.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::CONVERGENCE) << summary.FullReport();
  EXPECT_EQ(summary.answer, AnswerKind::kKink);
  ASSERT_GE(summary.assessment.attempts.size(), 2u);
  EXPECT_EQ(summary.assessment.attempts[0].method, "levenberg_marquardt");
  EXPECT_NE(summary.FullReport().find("Tried: levenberg_marquardt"), std::string::npos);
  EXPECT_FALSE(summary.assessment.uncertainty.available());
  EXPECT_LE(summary.final_objective, stuck_at);
  EXPECT_NEAR(summary.final_objective, 0.5, 1e-7) << summary.FullReport();
}

// g = (y^2 - 1)^2 / 4 - x y: two wells. From the right one y follows x down to its fold at
// y = 1 / sqrt(3), x = -2 / sqrt(27), and falls into the left one there. f = (y - 0.2)^2 / 2 would
// have it go on.
struct Wells {
  Wells() {
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(Level::kLower, std::make_unique<Tilted>(), {{&y, 1}, {&x, 1}});
    problem.upper()->AddResidualBlock(
        new FunctionCost(1,
                         {1},
                         [](double const* const* p, double* r, double** j) {
                           r[0] = p[0][0] - 0.2;
                           if (j && j[0]) j[0][0] = 1.0;
                           return true;
                         }),
        nullptr,
        &y);
  }
  class Tilted : public Objective {
   public:
    bool Evaluate(double const* const* p,
                  const Batch&,
                  double* value,
                  double** gradients) const override {
      const double v = p[0][0], tilt = p[1][0], square = v * v - 1.0;
      *value = 0.25 * square * square - tilt * v;
      if (gradients && gradients[0]) gradients[0][0] = square * v - tilt;
      if (gradients && gradients[1]) gradients[1][0] = -v;
      return true;
    }
    bool has_hessian_product() const override { return true; }
    bool HessianProduct(double const* const* p,
                        const Batch&,
                        double const* const* v,
                        double** products) const override {
      const double vy = v[0] ? v[0][0] : 0.0, vx = v[1] ? v[1][0] : 0.0;
      if (products[0]) products[0][0] = (3.0 * p[0][0] * p[0][0] - 1.0) * vy - vx;
      if (products[1]) products[1][0] = -vy;
      return true;
    }
  };
  Problem problem;
  double x = 0.5, y = 1.2;
};

TEST(PatternSearch, AutoTellsOfAJumpOfTheLowerLevel) {
  Wells wells;
  Solver::Options options;
  options.max_num_iterations = 200;
  Solver::Summary summary;
  Solve(options, &wells.problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(wells.x, -2.0 / std::sqrt(27.0), 1e-3) << summary.FullReport();
  EXPECT_NEAR(wells.y, 1.0 / std::sqrt(3.0), 0.05);
  EXPECT_NE(summary.FullReport().find("phi jumps"), std::string::npos) << summary.FullReport();
}

TEST(PatternSearch, BadOptionsAreNamed) {
  Ridge ridge;
  PatternSearch::Options bad;
  bad.initial_step = 0.0;
  Solver::Options options;
  options.method = std::make_shared<PatternSearch>(bad);
  Solver::Summary summary;
  Solve(options, &ridge.problem, &summary);
  EXPECT_FALSE(summary.IsSolutionUsable());
  EXPECT_NE(summary.message.find("pattern_search.initial_step"), std::string::npos);
}

}  // namespace
}  // namespace bilevel
