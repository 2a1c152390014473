// Convex sets of y (Scenario::SetLowerSet): what every method makes of them, against a search along
// the closed form y*(x) = P(x).
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/sgm.h"
#include "bilevel/methods/hyper_objective/bda.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/hyper_objective/ia_gm.h"
#include "bilevel/methods/stochastic/f2sa.h"
#include "bilevel/methods/stochastic/stochastic_method.h"
#include "bilevel/methods/value_function/bome.h"
#include "bilevel/methods/zeroth_order/igfm.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using testing::HasSubstr;

constexpr int kSize = 3;

// g = 1/2 |y - x|^2, so y* is x projected; f = 1/2 |y - a|^2 + 1/4 |x - b|^2.
struct Difference {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    for (int i = 0; i < kSize; ++i) r[i] = y[i] - x[i];
    return true;
  }
};
constexpr double kA[kSize] = {0.2, 0.9, -0.5}, kB[kSize] = {1.5, 1.0, 0.4};
struct Upper {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    for (int i = 0; i < kSize; ++i) {
      r[i] = y[i] - kA[i];
      r[kSize + i] = std::sqrt(0.5) * (x[i] - kB[i]);
    }
    return true;
  }
};

using MakeSet = std::function<std::unique_ptr<ConvexSet>()>;

struct OnASet {
  explicit OnASet(const MakeSet& make) {
    problem.AddUpperParameterBlock(x, kSize);
    problem.SetParameterName(y, "y");
    problem.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Difference, kSize, kSize, kSize>(new Difference), nullptr, x, y);
    problem.upper()->AddResidualBlock(
        new AutoDiffCostFunction<Upper, 2 * kSize, kSize, kSize>(new Upper), nullptr, x, y);
    problem.SetLowerSet(y, make());
  }
  Solver::Summary Run(std::shared_ptr<Method> method, int num_iterations, bool with_sgm = false) {
    Solver::Options options;
    options.method = std::move(method);
    options.max_num_iterations = num_iterations;
    if (with_sgm) {
      options.lower_solver = [](Program* program) {
        Sgm::Options sgm;  // y* is unique: steps on g alone find it.
        sgm.theta = 1e-20;
        sgm.lower_step = 0.5;
        sgm.num_lower_steps = 100;
        sgm.num_steps = 1;
        return std::make_unique<Sgm>(program, sgm);
      };
    }
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    return summary;
  }
  double x[kSize] = {1.0, -0.3, 0.2}, y[kSize] = {0.3, 0.3, 0.4};
  Problem problem;
};

// By shrinking steps on phi itself.
std::vector<double> Minimiser(const MakeSet& make) {
  const auto set = make();
  const auto phi = [&](const std::vector<double>& x) {
    std::vector<double> y = x;
    set->Project(y.data(), kSize);
    double sum = 0.0;
    for (int i = 0; i < kSize; ++i) {
      sum += 0.5 * std::pow(y[i] - kA[i], 2) + 0.25 * std::pow(x[i] - kB[i], 2);
    }
    return sum;
  };
  std::vector<double> x(kB, kB + kSize);
  for (double step = 0.5; step > 1e-9;) {
    bool moved = false;
    for (int k = 0; k < 27; ++k) {
      std::vector<double> trial = x;
      trial[0] += step * (k % 3 - 1);
      trial[1] += step * (k / 3 % 3 - 1);
      trial[2] += step * (k / 9 - 1);
      if (phi(trial) < phi(x)) {
        x = trial;
        moved = true;
      }
    }
    if (!moved) step *= 0.5;
  }
  return x;
}

// At the minimum of phi two rows of the polyhedron are active, and one is not: no kink is near.
std::vector<std::pair<std::string, MakeSet>> Sets() {
  const Eigen::MatrixXd rows = (Eigen::MatrixXd(3, 3) << 1, 1, 0, 0, 0, 1, -1, 0, 1).finished();
  return {{"ball",
           [] {
             return NewBall({0.1, 0.0, 0.0}, 0.5);
           }},
          {"simplex", [] { return NewSimplex(); }},
          {"affine",
           [] {
             return NewAffineSet(Eigen::RowVector3d(1, 2, -1), Eigen::VectorXd::Constant(1, 0.5));
           }},
          {"polyhedron", [=] { return NewPolyhedron(rows, Eigen::Vector3d(0.5, 0.0, 0.5)); }}};
}

void ExpectSolved(const OnASet& p, const MakeSet& make, double tolerance, const std::string& what) {
  const std::vector<double> best = Minimiser(make);
  std::vector<double> y(p.x, p.x + kSize);
  make()->Project(y.data(), kSize);
  for (int i = 0; i < kSize; ++i) {
    EXPECT_NEAR(p.x[i], best[i], tolerance) << what;
    EXPECT_NEAR(p.y[i], y[i], 1e-6) << what;
  }
}

// By the set's constraints, exactly.
TEST(ConvexSets, ExactMethods) {
  for (const auto& [name, make] : Sets()) {
    for (const char* method : {"auto", "lbfgs", "levenberg_marquardt", "gradient_descent"}) {
      OnASet p(make);
      const Solver::Summary summary = p.Run(CreateMethod(method), 500);
      EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
      ExpectSolved(p, make, 1e-5, name + " by " + method);
    }
  }
}

// What a start on the boundary is away from its constraint is rounding, of which nothing is told.
TEST(ConvexSets, AStartOnTheBoundary) {
  for (const auto& [name, make] : Sets()) {
    for (int k = 0; k < 20; ++k) {
      OnASet p(make);
      for (int i = 0; i < kSize; ++i) {
        p.x[i] = 2.0 * std::sin(1.0 + 3 * k + i);
        p.y[i] = k % 4 == i ? 0.0 : 2.0 * std::cos(2.0 * k + i);
      }
      make()->Project(p.y, kSize);
      Sensitivity::Options options;
      options.polish = true;
      Sensitivity sensitivity(options);
      ASSERT_TRUE(sensitivity.Compute(&p.problem, {p.x})) << name << k << sensitivity.message();
      std::vector<double> y(p.x, p.x + kSize);
      make()->Project(y.data(), kSize);
      for (int i = 0; i < kSize; ++i) EXPECT_NEAR(p.y[i], y[i], 1e-9) << name << k;
    }
  }
}

std::shared_ptr<Method> MakeProjecting(const std::string& method) {
  if (method.substr(0, 4) == "bome") {
    Bome::Options bome;
    bome.lower_level = method == "bome_T" ? Bome::kGradientSteps : Bome::kAutomatic;
    bome.num_lower_steps = 40;
    bome.lower_step = 0.5;
    bome.x.step = bome.y.step = 0.02;
    return std::make_shared<Bome>(bome);
  }
  StepRule rule;
  rule.step = 0.3;
  if (method == "bda") {
    BdaHypergradient::Options bda;
    bda.num_lower_steps = 300;
    bda.lower_step = bda.upper_step = 0.5;
    return std::make_shared<GradientMethod>(method, std::make_unique<BdaHypergradient>(bda), rule);
  }
  if (method == "itd") {
    UnrolledHypergradient::Options itd;
    itd.num_lower_steps = 40;
    itd.lower_step = 0.5;
    return std::make_shared<GradientMethod>(
        method, std::make_unique<UnrolledHypergradient>(itd), rule);
  }
  if (method == "ia_gm") {
    IaGm::Options ia;
    ia.num_lower_steps = 40;
    ia.lower_step = 0.5;
    ia.x.step = ia.w.step = 0.3;
    return std::make_shared<IaGm>(ia);
  }
  F2sa::Options f2sa;
  f2sa.order = method == "f2sa_2" ? 2 : 1;
  f2sa.momentum = method == "f3sa";
  f2sa.lower_batch = f2sa.upper_batch = 0;
  f2sa.num_lower_steps = 40;  // y and w follow x to well within 1 / lambda.
  f2sa.gamma = {0.5, 0.0, 1.0};
  f2sa.alpha = {1.0 / 4000.0, 0.0, 1.0};  // lambda = 1000.
  f2sa.xi = 200.0;
  f2sa.eta = {1.0, 0.0, 1.0};
  return std::make_shared<F2sa>(f2sa);
}

// By projecting after every step: to where their own biases allow.
TEST(ConvexSets, MethodsThatProject) {
  const std::vector<std::pair<std::string, double>> methods{{"bome", 2e-2},
                                                            {"bome_T", 2e-2},
                                                            {"bda", 1e-2},
                                                            {"itd", 1e-6},
                                                            {"ia_gm", 1e-6},
                                                            {"f2sa", 1e-2},
                                                            {"f3sa", 1e-2},
                                                            {"f2sa_2", 1e-2}};
  for (const auto& [name, make] : Sets()) {
    for (const auto& [method, tolerance] : methods) {
      OnASet p(make);
      const Solver::Summary summary = p.Run(MakeProjecting(method), 1000);
      EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
      ExpectSolved(p, make, tolerance, name + " by " + method);
    }
  }
}

// A set of one's own has no constraints: the methods that project, around Sgm.
TEST(ConvexSets, ASetOfOnesOwn) {
  const MakeSet make = [] {
    return NewConvexSet([](double* v, int size) {  // A ball of radius 0.5.
      double norm = 0.0;
      for (int i = 0; i < size; ++i) norm += v[i] * v[i];
      norm = std::sqrt(norm);
      for (int i = 0; i < size && norm > 0.5; ++i) v[i] *= 0.5 / norm;
    });
  };
  for (const char* method : {"itd", "ia_gm"}) {
    OnASet p(make);
    const Solver::Summary summary = p.Run(MakeProjecting(method), 3000, true);
    EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    ExpectSolved(p, make, 1e-5, method);
  }
  Igfm::Options igfm;
  igfm.num_directions = kSize;
  igfm.x.step = 0.3;
  OnASet p(make);
  EXPECT_TRUE(p.Run(std::make_shared<Igfm>(igfm), 500, true).IsSolutionUsable());
  ExpectSolved(p, make, 2e-3, "igfm");
  OnASet alone(make);
  const Solver::Summary refused = alone.Run(CreateMethod("auto"), 10);
  EXPECT_EQ(refused.termination_type, ceres::FAILURE);
  EXPECT_THAT(refused.message, HasSubstr("of the convex set of 'y' only the projection is known"));
}

// All others refuse, and name the set.
TEST(ConvexSets, OthersRefuseByName) {
  const std::vector<std::string> projecting{"bome",
                                            "bda",
                                            "itd",
                                            "truncated_itd",
                                            "itd_momentum",
                                            "truncated_itd_momentum",
                                            "ia_gm",
                                            "iaptt_gm",
                                            "f2sa",
                                            "f3sa",
                                            "f2sa_2"};
  int num_refused = 0;
  for (const std::string& name : ListMethods()) {
    const bool takes = CreateMethod(name)->TakesLowerConstraints();
    const bool projects = CreateMethod(name)->ProjectsY();
    EXPECT_EQ(projects, std::find(projecting.begin(), projecting.end(), name) != projecting.end())
        << name;
    OnASet p([] { return NewSimplex(); });
    const Solver::Summary summary = p.Run(CreateMethod(name), 1);
    if ((takes && name != "newton") || projects) {
      EXPECT_THAT(summary.message, testing::Not(HasSubstr("convex set"))) << name;
      continue;
    }
    ++num_refused;
    EXPECT_EQ(summary.termination_type, ceres::FAILURE) << name;
    EXPECT_THAT(summary.message, HasSubstr("the convex set of 'y'")) << name;
  }
  EXPECT_GT(num_refused, 10);
}

std::string Complaint(const std::function<void(OnASet*)>& spoil) {
  OnASet p([] { return NewSimplex(); });
  spoil(&p);
  std::string error;
  return p.problem.IsValid(&error) ? "valid" : error;
}

TEST(ConvexSets, NonsenseIsNamed) {
  EXPECT_EQ(Complaint([](OnASet*) {}), "valid");
  EXPECT_EQ(Complaint([](OnASet* p) {
              p->problem.SetLowerSet(p->y, NewBall({0}, 1.0));
              p->problem.SetLowerSet(p->y, nullptr);
            }),
            "valid");
  EXPECT_THAT(Complaint([](OnASet* p) { p->problem.SetLowerSet(p->y, NewBall({0}, 1.0)); }),
              HasSubstr("the convex set of 'y', of 3 values, is a ball whose centre has 1"));
  EXPECT_THAT(Complaint([](OnASet* p) { p->problem.SetLowerSet(p->x, NewSimplex()); }),
              HasSubstr("no variable one of the lower problem"));
  EXPECT_THAT(
      Complaint([](OnASet* p) { p->problem.lower()->SetParameterLowerBound(p->y, 0, 0.0); }),
      HasSubstr("goes with no bounds"));
  EXPECT_THAT(Complaint([](OnASet* p) {
                p->problem.SetLowerSet(p->y, NewConvexSet([](double*, int) { throw 1; }));
              }),
              HasSubstr("the convex set of 'y'"));
  EXPECT_THAT(Complaint([](OnASet* p) {
                p->problem.SetLowerSet(p->y, NewConvexSet([](double* v, int) { v[0] = NAN; }));
              }),
              HasSubstr("to infinity"));
}

TEST(ConvexSets, SgmsJacobiStepsAreNotProjected) {
  OnASet p([] { return NewSimplex(); });
  Solver::Options options;
  options.method = CreateMethod("igfm");
  options.lower_solver = [](Program* program) {
    Sgm::Options sgm;
    sgm.jacobi = true;
    return std::make_unique<Sgm>(program, sgm);
  };
  Solver::Summary summary;
  Solve(options, &p.problem, &summary);
  EXPECT_THAT(summary.message, HasSubstr("does not go with convex sets"));
}

// A start outside is moved to the nearest point.
TEST(ConvexSets, StartsWithin) {
  OnASet p([] { return NewBall({0, 0, 0}, 0.5); });
  p.y[0] = 7.0;
  const Solver::Summary summary = p.Run(MakeProjecting("itd"), 3000);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  ExpectSolved(
      p,
      [] {
        return NewBall({0, 0, 0}, 0.5);
      },
      1e-6,
      "from outside");
}

}  // namespace
}  // namespace bilevel
