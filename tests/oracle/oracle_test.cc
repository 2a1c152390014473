// Three methods unlike the library's own, each a page, on the interface every method sees: what a
// user's own method would look like, and the check that the interface carries first-order,
// stochastic and zeroth-order methods alike.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "bilevel/bilevel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

// BOME (Liu, Ye, Wright, Stone, Liu, NeurIPS 2022), Algorithm 1 with the barrier eta |grad q|^2.
class Bome : public Method {
 public:
  std::string name() const override { return "bome_sketch"; }

 protected:
  void Start(Oracle& /*oracle*/, State& s) override { y_hat_ = s.y; }
  void Step(Oracle& o, State& s, Progress* progress) override {
    const double eta = 0.5, alpha = 0.5, xi = 0.5;
    y_hat_ = s.y;
    for (int t = 0; t < 10; ++t) {
      o.g.Gradient(s.x, y_hat_, nullptr, &qy_);
      y_hat_.Move(-alpha * qy_);
    }
    o.g.Gradient(s.x, y_hat_, &gx_, nullptr);
    o.g.Gradient(s.x, s.y, &qx_, &qy_);
    qx_ -= gx_;
    progress->objective = o.f.Gradient(s.x, s.y, &fx_, &fy_);
    const double qq = qx_.squaredNorm() + qy_.squaredNorm();
    const double fq = fx_.dot(qx_) + fy_.dot(qy_);
    const double lambda = std::max(0.0, (eta * qq - fq) / (qq + 1e-8));
    s.x.Move(-xi * (fx_ + lambda * qx_));
    s.y.Move(-xi * (fy_ + lambda * qy_));
  }

 private:
  Point y_hat_;
  Vector fx_, fy_, qx_, qy_, gx_;
};

// SLIP (Gong, Hao, Liu, ICML 2024): one step each of y, z and the normalised momentum m.
class Slip : public Method {
 public:
  std::string name() const override { return "slip_sketch"; }

 protected:
  void Step(Oracle& o, State& s, Progress* progress) override {
    const int batch = 4;
    Vector& z = s.Get("z", s.y.dim());
    Vector& m = s.Get("m", s.x.dim());
    const double eta = 0.1 / (1.0 + 0.02 * static_cast<double>(o.iteration));
    o.g(o.Draw(batch, 0)).Gradient(s.x, s.y, nullptr, &gy_);
    o.g(o.Draw(batch, 1)).HessianProduct(s.x, s.y, z, &hz_, &jz_);
    progress->objective = o.f(o.Draw(batch, 2)).Gradient(s.x, s.y, &fx_, &fy_);
    m = 0.9 * m + 0.1 * (fx_ - jz_);
    z -= 0.2 * (hz_ - fy_);
    s.y.Move(-0.2 * gy_);
    s.x.Move(-eta / (m.norm() + 1e-10) * m);
  }

 private:
  Vector fx_, fy_, gy_, hz_, jz_;
};

// IGFM (Chen, Xu, Zhang 2023), Algorithm 2: two-point estimates on a sphere, antithetic pairs from
// the same warm start, in parallel.
class Igfm : public Method {
 public:
  std::string name() const override { return "igfm_sketch"; }

 protected:
  void Start(Oracle& o, State& s) override {
    o.Solve(s.x, &s.y);
    xs_.assign(2 * kDirections, s.x);
    ys_.assign(2 * kDirections, s.y);
    directions_.resize(s.x.dim(), kDirections);
    phi_.resize(2 * kDirections);
    u_.resize(s.x.dim());
  }
  void Step(Oracle& o, State& s, Progress* progress) override {
    const double delta = 1e-3, eta = 0.05;
    for (int b = 0; b < kDirections; ++b) {
      o.RandomDirection(b, &u_);
      directions_.col(b) = u_;
    }
    o.ForEach(2 * kDirections, [&](Oracle& worker, int k) {
      xs_[k] = s.x;
      ys_[k] = s.y;
      xs_[k].Move((k % 2 ? -delta : delta) * directions_.col(k / 2));
      worker.Solve(xs_[k], &ys_[k]);
      phi_[k] = worker.f.Value(xs_[k], ys_[k]);
    });
    u_.setZero();
    for (int b = 0; b < kDirections; ++b) {
      u_ += (phi_[2 * b] - phi_[2 * b + 1]) * directions_.col(b);
    }
    s.x.Move(-eta * s.x.dim() / (2.0 * delta * kDirections) * u_);
    o.Solve(s.x, &s.y);
    progress->objective = o.f.Value(s.x, s.y);
  }

 private:
  static constexpr int kDirections = 4;
  std::vector<Point> xs_, ys_;
  Matrix directions_;
  Vector phi_, u_;
};

// The degenerate problem of Liu et al. (2020): f = (x - y2)^2 / 2 + (y1 - 1)^2 / 2 over
// g = y1^2 / 2 - x y1, whose Hessian is singular; x = 1, y = (1, 1), phi = (x - 1)^2 / 2.
class DegenerateUpper : public Objective {
 public:
  bool Evaluate(double const* const* b, const Batch&, double* value, double** g) const override {
    const double x = b[0][0], *y = b[1];
    *value = 0.5 * (x - y[1]) * (x - y[1]) + 0.5 * (y[0] - 1.0) * (y[0] - 1.0);
    if (g && g[0]) g[0][0] = x - y[1];
    if (g && g[1]) {
      g[1][0] = y[0] - 1.0;
      g[1][1] = y[1] - x;
    }
    return true;
  }
};
class DegenerateLower : public Objective {
 public:
  bool Evaluate(double const* const* b, const Batch&, double* value, double** g) const override {
    const double x = b[0][0], *y = b[1];
    *value = 0.5 * y[0] * y[0] - x * y[0];
    if (g && g[0]) g[0][0] = -y[0];
    if (g && g[1]) {
      g[1][0] = y[0] - x;
      g[1][1] = 0.0;
    }
    return true;
  }
};

TEST(OracleInterface, BomeSolvesTheDegenerateProblem) {
  double x = 0.0, y[2] = {0.0, 0.0};
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.AddTerm(Level::kUpper, std::make_unique<DegenerateUpper>(), {{&x, 1}, {y, 2}});
  problem.AddTerm(Level::kLower, std::make_unique<DegenerateLower>(), {{&x, 1}, {y, 2}});
  Solver::Options options;
  options.method = std::make_shared<Bome>();
  options.max_num_iterations = 2000;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(x, 1.0, 1e-3);
  EXPECT_NEAR(y[0], 1.0, 1e-3);
  EXPECT_NEAR(y[1], 1.0, 1e-3);
}

// A quadratic with many terms a level: y* = x + mean(a) c, phi quadratic in x.
struct LowerTerm {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    for (int i = 0; i < 2; ++i) r[i] = y[i] - x[i] - a;
    return true;
  }
  double a;
};
struct UpperTerm {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - b;
    r[1] = y[1] + b;
    return true;
  }
  double b;
};

void BuildQuadratic(double* x, double* y, Problem* problem) {
  constexpr int kTerms = 16;
  problem->AddUpperParameterBlock(x, 2);
  for (int i = 0; i < kTerms; ++i) {
    const double a = 0.2 * std::cos(1.0 + i), b = 2.0 + 0.1 * std::sin(3.0 * i);
    // Scaled so that the whole level has a unit Hessian.
    auto* weight = new ceres::ScaledLoss(nullptr, 1.0 / kTerms, ceres::TAKE_OWNERSHIP);
    problem->lower()->AddResidualBlock(
        new AutoDiffCostFunction<LowerTerm, 2, 2, 2>(new LowerTerm{a}), weight, x, y);
    weight = new ceres::ScaledLoss(nullptr, 1.0 / kTerms, ceres::TAKE_OWNERSHIP);
    problem->upper()->AddResidualBlock(
        new AutoDiffCostFunction<UpperTerm, 2, 2>(new UpperTerm{b}), weight, y);
  }
}

// The closed form: x = +-mean(b) - mean(a).
void ExpectQuadraticSolution(const double* x, double tolerance) {
  double a = 0.0, b = 0.0;
  for (int i = 0; i < 16; ++i) {
    a += 0.2 * std::cos(1.0 + i) / 16;
    b += (2.0 + 0.1 * std::sin(3.0 * i)) / 16;
  }
  EXPECT_NEAR(x[0], b - a, tolerance);
  EXPECT_NEAR(x[1], -b - a, tolerance);
}

TEST(OracleInterface, SlipSolvesAQuadraticOnMinibatches) {
  double x[2] = {0.0, 0.0}, y[2] = {0.0, 0.0};
  Problem problem;
  BuildQuadratic(x, y, &problem);
  Solver::Options options;
  options.method = std::make_shared<Slip>();
  options.max_num_iterations = 3000;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  // x of the last iteration: minibatch values do not rank iterates.
  ExpectQuadraticSolution(summary.iterations.back().x.data(), 0.05);
  for (size_t k = 2; k < summary.iterations.size(); ++k) {
    const long before = summary.iterations[k - 1].lower.products;
    ASSERT_EQ(summary.iterations[k].lower.products, before + 1) << k;
  }
}

TEST(OracleInterface, IgfmSolvesAQuadraticWhateverTheThreads) {
  std::vector<double> reached;
  for (const int num_threads : {1, 2, 4}) {
    double x[2] = {0.0, 0.0}, y[2] = {0.0, 0.0};
    Problem problem;
    BuildQuadratic(x, y, &problem);
    Solver::Options options;
    options.method = std::make_shared<Igfm>();
    options.max_num_iterations = 300;
    options.num_threads = num_threads;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    ExpectQuadraticSolution(x, 1e-3);
    reached.push_back(x[0]);
  }
  EXPECT_EQ(reached[0], reached[1]);
  EXPECT_EQ(reached[0], reached[2]);
}

}  // namespace
}  // namespace bilevel
