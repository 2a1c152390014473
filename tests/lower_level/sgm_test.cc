// The switching gradient method against closed forms, within the bounds of its theorem.
#include "bilevel/lower_level/sgm.h"

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "examples/support/toy_problems.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sphere.h"

namespace bilevel {
namespace {

using examples::LambdaTerm;
using testing::HasSubstr;

// One lower solve at the x and y of a problem; y is left at the solution.
class LowerSolve {
 public:
  LowerSolve(Problem* problem, const Sgm::Options& options) {
    std::string error;
    program_ = problem->Compile({}, &error);
    EXPECT_TRUE(program_) << error;
    sgm_ = std::make_unique<Sgm>(program_.get(), options);
    x_ = Point(&program_->x);
    y_ = Point(&program_->y);
    program_->x.ReadUser(x_.value().data());
    program_->y.ReadUser(y_.value().data());
    EXPECT_EQ(sgm_->CheckOptions(), "");
    ok_ = sgm_->Solve(x_, &y_);
  }
  bool ok() const { return ok_; }
  const Vector& y() const { return y_.value(); }
  const Sgm& sgm() const { return *sgm_; }

 private:
  std::unique_ptr<Program> program_;
  std::unique_ptr<Sgm> sgm_;
  Point x_, y_;
  bool ok_;
};

// A line of solutions a'y = x, of which the point nearest to p is wanted:
// y = p + a (x - a'p) / |a|^2, phi = (x - a'p)^2 / (2 |a|^2).
struct OnLine {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = 0.6 * y[0] + 0.8 * y[1] - x[0];
    return true;
  }
};
struct NearPoint {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 0.5;
    r[1] = y[1] + 0.2;
    return true;
  }
};

struct Line {
  double x = 0.4, y[2] = {-0.3, 0.1};
  Problem problem;
  Line() {
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<OnLine, 1, 1, 2>(new OnLine), nullptr, &x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<NearPoint, 2, 2>(new NearPoint), nullptr, y);
    for (int i = 0; i < 2; ++i) {
      problem.lower()->SetParameterLowerBound(y, i, -0.7);
      problem.lower()->SetParameterUpperBound(y, i, 0.7);
    }
  }
};

double LineF(const Vector& y) {
  return 0.5 * (std::pow(y[0] - 0.5, 2.0) + std::pow(y[1] + 0.2, 2.0));
}
double LineG(const Vector& y) { return 0.5 * std::pow(0.6 * y[0] + 0.8 * y[1] - 0.4, 2.0); }

// In the box |y_i| <= 0.7 both are 2-Lipschitz and R = 2: step = theta / 4, K >= 32 / theta^2.
TEST(Sgm, KeepsItsTheoremsBoundsForEveryOutput) {
  const double a_p = 0.6 * 0.5 - 0.8 * 0.2, phi = 0.5 * std::pow(0.4 - a_p, 2.0);
  for (const double theta : {0.1, 0.03}) {
    for (const auto output : {Sgm::kAverage, Sgm::kBest, Sgm::kLastFeasible}) {
      Line line;
      Sgm::Options options;
      options.theta = theta;
      options.step = theta / 4.0;
      options.num_steps = static_cast<int>(32.0 / (theta * theta));
      options.lower_step = 0.5;
      options.num_lower_steps = 100;
      options.output = output;
      LowerSolve solve(&line.problem, options);
      ASSERT_TRUE(solve.ok()) << solve.sgm().message();
      EXPECT_LT(solve.sgm().least_lower_value(), 1e-12);
      EXPECT_LE(LineF(solve.y()) - phi, theta);
      EXPECT_LE(LineG(solve.y()), 3.0 * theta);
      EXPECT_GT(solve.sgm().num_feasible(), 0);
      EXPECT_EQ(line.y[0], -0.3);  // The user's memory is not touched.
    }
  }
}

TEST(Sgm, ConvergesWithTheta) {
  double error = 1.0;
  for (const double theta : {1e-2, 1e-3, 1e-4}) {
    Line line;
    Sgm::Options options;
    options.theta = theta;
    options.step = 0.02;
    options.num_steps = 20000;
    options.lower_step = 0.5;
    options.num_lower_steps = 100;
    LowerSolve solve(&line.problem, options);
    ASSERT_TRUE(solve.ok());
    const double shift = 0.4 - (0.6 * 0.5 - 0.8 * 0.2);
    const double now =
        std::hypot(solve.y()[0] - 0.5 - 0.6 * shift, solve.y()[1] + 0.2 - 0.8 * shift);
    EXPECT_LT(now, 0.5 * error);
    EXPECT_LT(now, std::sqrt(6.0 * theta) + 0.01);  // g - g* = dist^2 / 2 <= 3 theta.
    error = now;
  }
}

// Neither is smooth: g = |y0 - x|, f = |y1 - 0.3| + y0; subgradients.
TEST(Sgm, TakesSubgradients) {
  double x = -0.2, y[2] = {0.6, -0.6};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  const auto sign = [](double v) { return v > 0.0 ? 1.0 : v < 0.0 ? -1.0 : 0.0; };
  problem.AddTerm(
      Level::kUpper,
      std::make_unique<LambdaTerm>(1,
                                   2,
                                   [sign](const double*, const double* v, double*, double* gy) {
                                     gy[0] = 1.0;
                                     gy[1] = sign(v[1] - 0.3);
                                     return v[0] + std::abs(v[1] - 0.3);
                                   }),
      {{&x, 1}, {y, 2}});
  problem.AddTerm(Level::kLower,
                  std::make_unique<LambdaTerm>(
                      1,
                      2,
                      [sign](const double* u, const double* v, double* gx, double* gy) {
                        gy[0] = sign(v[0] - u[0]);
                        gx[0] = -gy[0];
                        gy[1] = 0.0;
                        return std::abs(v[0] - u[0]);
                      }),
                  {{&x, 1}, {y, 2}});
  Sgm::Options options;
  options.theta = 0.01;
  options.step = options.lower_step = 0.005;
  options.num_steps = options.num_lower_steps = 20000;
  LowerSolve solve(&problem, options);
  ASSERT_TRUE(solve.ok());
  EXPECT_NEAR(solve.y()[0], -0.2, 0.03);
  EXPECT_NEAR(solve.y()[1], 0.3, 0.03);
}

// g is flat on the great circle y2 = 0 of the sphere; the mean is a mean on the sphere.
struct Height {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[2] - 0.0 * x[0];
    return true;
  }
};
struct NearPole {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - 0.6;
    r[1] = y[1] - 0.8;
    r[2] = y[2] - 0.5;
    return true;
  }
};

TEST(Sgm, OnAManifold) {
  for (const auto output : {Sgm::kAverage, Sgm::kLastFeasible}) {
    double x = 0.0, y[3] = {0.8, 0.0, 0.6};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Height, 1, 1, 3>(new Height), nullptr, &x, y);
    problem.lower()->SetManifold(y, NewSphere());
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<NearPole, 3, 3>(new NearPole), nullptr, y);
    Sgm::Options options;
    options.theta = 1e-4;
    options.step = options.lower_step = 0.02;
    options.num_steps = 50000;
    options.num_lower_steps = 1000;
    options.output = output;
    LowerSolve solve(&problem, options);
    ASSERT_TRUE(solve.ok()) << solve.sgm().message();
    EXPECT_NEAR(solve.y().norm(), 1.0, 1e-10);
    // The average remembers the way.
    const double tolerance = output == Sgm::kAverage ? 0.1 : 0.02;
    EXPECT_NEAR(solve.y()[0], 0.6, tolerance);
    EXPECT_NEAR(solve.y()[1], 0.8, tolerance);
    EXPECT_NEAR(solve.y()[2], 0.0, 0.03);
  }
}

// f = y0 + 2 y1 on the simplex with g = 0 picks the vertex of the least coefficient; in a ball it
// goes to the end of the radius against the gradient; a user's set is a function.
TEST(Sgm, HonoursProjections) {
  const auto solve = [](std::unique_ptr<ConvexSet> set) {
    double x = 0.0, y[3] = {0.2, 0.3, 0.5};
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.AddTerm(
        Level::kUpper,
        std::make_unique<LambdaTerm>(1,
                                     3,
                                     [](const double*, const double* v, double*, double* gy) {
                                       gy[0] = 1.0;
                                       gy[1] = 2.0;
                                       gy[2] = 2.0;
                                       return v[0] + 2.0 * v[1] + 2.0 * v[2];
                                     }),
        {{&x, 1}, {y, 3}});
    problem.AddTerm(Level::kLower,
                    std::make_unique<LambdaTerm>(
                        1, 3, [](const double*, const double*, double*, double*) { return 0.0; }),
                    {{&x, 1}, {y, 3}});
    Sgm::Options options;
    options.num_lower_steps = 1;
    options.num_steps = 1000;
    options.output = Sgm::kBest;
    problem.SetLowerSet(y, std::move(set));
    return LowerSolve(&problem, options).y();
  };
  const auto expect_near = [](const Vector& y, double a, double b, double c) {
    EXPECT_LT((y - Vector(Eigen::Vector3d(a, b, c))).norm(), 1e-7) << y.transpose();
  };
  expect_near(solve(NewSimplex()), 1.0, 0.0, 0.0);
  expect_near(solve(NewBall({0, 0, 0}, 0.6)), -0.2, -0.4, -0.4);
  expect_near(solve(NewConvexSet([](double* v, int size) {
                for (int i = 0; i < size; ++i) v[i] = std::max(v[i], 0.1 * i);
              })),
              0.0,
              0.1,
              0.2);
}

TEST(Sgm, AnEmptyIndexSetGivesTheLeastLowerValue) {
  Line line;
  Sgm::Options options;
  options.theta = 1e-6;
  options.step = 0.01;
  options.num_steps = 3;  // Too few to come within 2 theta.
  options.lower_step = 0.5;
  options.num_lower_steps = 100;
  LowerSolve solve(&line.problem, options);
  ASSERT_TRUE(solve.ok());
  EXPECT_EQ(solve.sgm().num_feasible(), 0);
  EXPECT_LT(LineG(solve.y()), 1e-12);
  EXPECT_THAT(solve.sgm().Report().remark, HasSubstr("no y within 2 theta"));
}

TEST(Sgm, SolvesByOptionAndNamesNonsense) {
  const auto message = [](const std::function<void(Sgm::Options*, Line*)>& spoil) {
    Line line;
    Sgm::Options sgm;
    spoil(&sgm, &line);
    Solver::Options options;
    options.method = CreateMethod("igfm");
    options.lower_solver = [sgm](Program* program) { return std::make_unique<Sgm>(program, sgm); };
    options.max_num_iterations = 2;
    Solver::Summary summary;
    Solve(options, &line.problem, &summary);
    return summary.message;
  };
  EXPECT_THAT(message([](auto*, auto*) {}), HasSubstr("maximum number of iterations"));
  EXPECT_THAT(message([](auto* o, auto*) { o->theta = 0.0; }), HasSubstr("sgm.theta"));
  EXPECT_THAT(message([](auto* o, auto*) { o->step = -1.0; }), HasSubstr("sgm.step"));
  EXPECT_THAT(message([](auto* o, auto*) { o->lower_step = 0.0; }), HasSubstr("sgm.lower_step"));
  EXPECT_THAT(message([](auto* o, auto*) { o->num_steps = 0; }), HasSubstr("sgm.num_steps"));
  EXPECT_THAT(message([](auto* o, auto*) { o->num_lower_steps = 0; }),
              HasSubstr("sgm.num_lower_steps"));
  EXPECT_THAT(message([](auto*, Line* l) {
                l->problem.SetLowerSet(l->y, NewBall({0, 0}, 1.0));
              }),
              HasSubstr("goes with no bounds"));
}

// f = -y, g = |y|^p / p within |y| <= 1: phi - f(y) falls like theta^(1/p) and no faster, which is
// what the error bound of exponent p leaves of it (their proposition G.1 and theorem 6.1).
TEST(Sgm, ErrorOfTheUpperLevelGoesWithTheRootOfTheta) {
  for (const double p : {1.0, 2.0, 4.0}) {
    std::vector<double> logs_theta, logs_error;
    for (const double theta : {1e-1, 3e-2, 1e-2, 3e-3}) {
      double x = 0.0, y = 0.0;
      Problem problem;
      problem.AddUpperParameterBlock(&x, 1);
      const auto add = [&](Level level, LambdaTerm::Function function) {
        problem.AddTerm(level, std::make_unique<LambdaTerm>(1, 1, function), {{&x, 1}, {&y, 1}});
      };
      add(Level::kUpper, [](const double*, const double* v, double*, double* gy) {
        gy[0] = -1.0;
        return -v[0];
      });
      add(Level::kLower, [p](const double*, const double* v, double*, double* gy) {
        gy[0] = (v[0] < 0.0 ? -1.0 : 1.0) * std::pow(std::abs(v[0]), p - 1.0);
        return std::pow(std::abs(v[0]), p) / p;
      });
      Sgm::Options options;
      options.theta = theta;
      options.step = theta;
      options.num_steps = static_cast<int>(8.0 / (theta * theta));
      options.num_lower_steps = 1;
      LowerSolve solve(&problem, options);
      ASSERT_TRUE(solve.ok()) << solve.sgm().message();
      logs_theta.push_back(std::log(theta));
      logs_error.push_back(std::log(solve.y()[0]));
      // Within theorem 6.1's bound: C (3 theta / growth)^(1 / p).
      EXPECT_LE(solve.y()[0], std::pow(3.0 * theta * p, 1.0 / p));
    }
    const double slope =
        (logs_error.back() - logs_error.front()) / (logs_theta.back() - logs_theta.front());
    EXPECT_NEAR(slope, 1.0 / p, 0.1 / p) << "p " << p;
  }
}

// The line within the box, both 2-Lipschitz there; g grows like half the distance's square.
TEST(Sgm, KeepsWhatItsTheoremPromises) {
  const double phi = 0.5 * std::pow(0.4 - (0.6 * 0.5 - 0.8 * 0.2), 2.0);
  Sgm::Constants constants;
  constants.f_lipschitz = constants.g_lipschitz = 2.0;
  constants.diameter = 2.0;
  constants.growth = 0.5;
  for (const double zeta : {0.6, 0.4}) {
    Sgm::Options options;
    std::string error;
    ASSERT_TRUE(Sgm::ByTheorem(constants, zeta, zeta, &options, &error)) << error;
    EXPECT_NEAR(options.theta, zeta * zeta / 24.0, 1e-15);
    Line line;
    LowerSolve solve(&line.problem, options);
    ASSERT_TRUE(solve.ok()) << solve.sgm().message();
    EXPECT_LE(std::abs(LineF(solve.y()) - phi), zeta);
    EXPECT_LE(LineG(solve.y()), zeta);
  }
  Sgm::Options options;
  std::string error;
  EXPECT_FALSE(Sgm::ByTheorem(constants, 1e-6, 1.0, &options, &error));
  EXPECT_THAT(error, HasSubstr("asks for"));
  constants.growth = 0.0;
  EXPECT_FALSE(Sgm::ByTheorem(constants, 0.1, 0.1, &options, &error));
  EXPECT_THAT(error, HasSubstr("growth"));
}

// Blocks of y whose units differ by 1e6: plain steps below 2 / L do not move the one of small
// curvature, and Jacobi's arrive at once, at the solution that f wants.
struct Units {
  template <typename T>
  bool operator()(const T* x, const T* y, const T* z, const T* idle, T* r) const {
    r[0] = 1e3 * y[0] - x[0];
    r[1] = 1e-3 * z[0] - x[0] + 0.0 * idle[0];
    return true;
  }
};
struct NearSeven {
  template <typename T>
  bool operator()(const T* y, const T* z, const T* idle, T* r) const {
    r[0] = y[0] + 1e-6 * z[0];
    r[1] = idle[0] - 7.0;
    return true;
  }
};

TEST(Sgm, JacobiStepsDoNotDependOnUnits) {
  double x = 2.0, y = 0.0, z = 0.0, idle = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Units, 2, 1, 1, 1, 1>(new Units), nullptr, &x, &y, &z, &idle);
  problem.upper()->AddResidualBlock(
      new AutoDiffCostFunction<NearSeven, 2, 1, 1, 1>(new NearSeven), nullptr, &y, &z, &idle);
  std::string error;
  const auto program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  Point at(&program->x), start(&program->y);
  program->x.ReadUser(at.value().data());
  program->y.ReadUser(start.value().data());
  const auto value = [&](const Point& point, const double* user) {
    return point.value()[program->y.blocks()[program->y.Find(user)].offset];
  };
  Sgm::Options options;
  options.theta = 1e-6;
  options.step = 0.5;
  options.lower_step = 1.0;
  options.num_lower_steps = 5;
  options.num_steps = 50;
  options.jacobi = true;
  options.output = Sgm::kBest;
  Sgm sgm(program.get(), options);
  Point solution = start;
  ASSERT_TRUE(sgm.Solve(at, &solution)) << sgm.message();
  EXPECT_NEAR(value(solution, &y), 2e-3, 2e-5);  // g within 2 theta of its least.
  EXPECT_NEAR(value(solution, &z), 2e3, 2.0);
  EXPECT_NEAR(value(solution, &idle), 7.0, 1e-6);
  options.jacobi = false;
  options.step = options.lower_step = 1e-6;
  Sgm plain(program.get(), options);
  solution = start;
  ASSERT_TRUE(plain.Solve(at, &solution)) << plain.message();
  EXPECT_LT(value(solution, &z), 1.0);
}

TEST(Sgm, NoLowerSolverIsNamed) {
  Line line;
  Solver::Options options;
  options.lower_solver = [](Program*) { return std::unique_ptr<LowerSolver>(); };
  Solver::Summary summary;
  Solve(options, &line.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(summary.message, HasSubstr("options.lower_solver"));
}

TEST(Sgm, HasNoDerivativeAndSaysSo) {
  Line line;
  Solver::Options options;
  options.method = CreateMethod("gradient_descent");
  options.lower_solver = [](Program* program) {
    return std::make_unique<Sgm>(program, Sgm::Options());
  };
  Solver::Summary summary;
  Solve(options, &line.problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(summary.message, HasSubstr("without a derivative"));
  EXPECT_EQ(line.y[0], -0.3);
  for (const char* name : {"auto", "lbfgs", "levenberg_marquardt", "gradient_descent"}) {
    options.method = CreateMethod(name);
    Solve(options, &line.problem, &summary);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE) << name;
    EXPECT_EQ(summary.lower_solver.gradient_steps, 0) << name;  // Before any work.
  }
}

}  // namespace
}  // namespace bilevel
