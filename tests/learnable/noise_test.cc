#include "bilevel/learnable/noise.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Core"
#include "bilevel/analysis/hypergradient_checker.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/learnable/losses.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Two blocks, three curved residuals.
struct Curved {
  template <typename T>
  bool operator()(const T* a, const T* b, T* r) const {
    using std::exp;
    using std::sin;
    r[0] = a[0] * exp(0.3 * b[0]) - 1.0;
    r[1] = sin(a[1] * b[0]) + a[0];
    r[2] = a[0] * a[1] * b[0] + 0.5 * b[0] * b[0];
    return true;
  }
};

ceres::CostFunction* CurvedCost() { return new AutoDiffCostFunction<Curved, 3, 2, 1>(new Curved); }

const double kA[] = {0.7, -0.4}, kB[] = {1.3};

struct Model {
  std::string name;
  std::vector<double> theta;
  std::unique_ptr<NoiseModel> noise;
  Matrix w;  // By hand.
};

std::vector<Model> Models() {
  std::vector<Model> models(3);
  models[0] = {"scalar", {0.4}, nullptr, Matrix::Identity(3, 3) * std::exp(-0.4)};
  models[1] = {"diagonal", {0.4, -0.7, 0.1}, nullptr, Matrix::Zero(3, 3)};
  models[1].w.diagonal() << std::exp(-0.4), std::exp(0.7), std::exp(-0.1);
  models[2] = {"full", {0.3, 0.5, -0.2, -0.6, 0.9, 0.1}, nullptr, Matrix::Zero(3, 3)};
  models[2].w << std::exp(0.3), 0.5, -0.6,  //
      0.0, std::exp(-0.2), 0.9,             //
      0.0, 0.0, std::exp(0.1);
  models[0].noise = std::make_unique<ScalarNoise>(models[0].theta.data(), 3);
  models[1].noise = std::make_unique<DiagonalNoise>(models[1].theta.data(), 3);
  models[2].noise = std::make_unique<FullNoise>(models[2].theta.data(), 3);
  return models;
}

// Gradient of w' cost(p) at p, all blocks one after the other, by the cost function's Jacobians.
Vector WeightedGradient(const ceres::CostFunction& cost, const Vector& p, const Vector& w) {
  const auto& sizes = cost.parameter_block_sizes();
  std::vector<const double*> blocks;
  std::vector<RowMatrix> jacobians;
  std::vector<double*> pointers;
  int at = 0;
  for (const int size : sizes) {
    blocks.push_back(p.data() + at);
    jacobians.emplace_back(cost.num_residuals(), size);
    at += size;
  }
  for (RowMatrix& j : jacobians) pointers.push_back(j.data());
  Vector r(cost.num_residuals()), gradient(at);
  EXPECT_TRUE(cost.Evaluate(blocks.data(), r.data(), pointers.data()));
  at = 0;
  for (const RowMatrix& j : jacobians) {
    gradient.segment(at, j.cols()) = j.transpose() * w;
    at += static_cast<int>(j.cols());
  }
  return gradient;
}

Vector PointOf(const Model& m) {
  Vector p(3 + m.theta.size());
  p << kA[0], kA[1], kB[0], Eigen::Map<const Vector>(m.theta.data(), m.theta.size());
  return p;
}

TEST(Noise, WhitensByTheMatrixItSays) {
  const std::unique_ptr<ceres::CostFunction> plain(CurvedCost());
  const double* blocks[] = {kA, kB};
  Vector r(3);
  ASSERT_TRUE(plain->Evaluate(blocks, r.data(), nullptr));
  for (const Model& m : Models()) {
    SCOPED_TRACE(m.name);
    const std::unique_ptr<ceres::CostFunction> white(m.noise->Whiten(CurvedCost()));
    const double* all[] = {kA, kB, m.theta.data()};
    Vector wr(3);
    ASSERT_TRUE(white->Evaluate(all, wr.data(), nullptr));
    EXPECT_LT((wr - m.w * r).norm(), 1e-15);
    EXPECT_NEAR(m.noise->HalfLogDeterminant(), -std::log(m.w.diagonal().prod()), 1e-14);
  }
}

TEST(Noise, JacobiansAreThoseOfDifferences) {
  for (const Model& m : Models()) {
    SCOPED_TRACE(m.name);
    const std::unique_ptr<ceres::CostFunction> white(m.noise->Whiten(CurvedCost()));
    const Vector p = PointOf(m), w = TestVector(3, 0.4);
    const Vector gradient = WeightedGradient(*white, p, w);
    for (int k = 0; k < p.size(); ++k) {
      const double difference = Derivative<double>([&](double h) {
        Vector q = p;
        q[k] += h;
        const double* blocks[] = {q.data(), q.data() + 2, q.data() + 3};
        Vector r(3);
        EXPECT_TRUE(white->Evaluate(blocks, r.data(), nullptr));
        return w.dot(r);
      });
      EXPECT_NEAR(gradient[k], difference, 1e-10) << k;
    }
  }
}

TEST(Noise, SecondDerivativesAreThoseOfDifferences) {
  for (const Model& m : Models()) {
    SCOPED_TRACE(m.name);
    const std::unique_ptr<ceres::CostFunction> white(m.noise->Whiten(CurvedCost()));
    const auto* exact = dynamic_cast<const SecondOrderCostFunction*>(white.get());
    ASSERT_NE(exact, nullptr);
    const Vector p = PointOf(m), w = TestVector(3, 0.4), direction = TestVector(p.size(), 2.0);
    const double* blocks[] = {p.data(), p.data() + 2, p.data() + 3};
    RowMatrix hessian = RowMatrix::Constant(p.size(), p.size(), 1e3);
    ASSERT_TRUE(exact->EvaluateHessian(blocks, w.data(), hessian.data()));
    for (int k = 0; k < p.size(); ++k) {
      const Vector column = Derivative<Vector>([&](double h) {
        Vector q = p;
        q[k] += h;
        return WeightedGradient(*white, q, w);
      });
      EXPECT_LT((hessian.col(k) - column).norm(), 1e-9) << k;
      EXPECT_LT((hessian.row(k).transpose() - column).norm(), 1e-9) << k;
    }
    Vector product = Vector::Constant(p.size(), 1e3);
    ASSERT_TRUE(exact->EvaluateHessianProduct(blocks, w.data(), direction.data(), product.data()));
    EXPECT_LT((product - hessian * direction).norm(), 1e-13);
  }
}

// Many residuals and blocks: no buffer on the stack suffices.
TEST(Noise, LongErrorsAreWhitenedToo) {
  constexpr int kRows = 40, kBlocks = 20;
  const auto function = [](double const* const* p, double* r, double** jacobians) {
    for (int i = 0; i < kRows; ++i) {
      r[i] = std::sin(p[i % kBlocks][0] + i);
      for (int b = 0; jacobians && b < kBlocks; ++b) {
        if (jacobians[b]) jacobians[b][i] = b == i % kBlocks ? std::cos(p[b][0] + i) : 0.0;
      }
    }
    return true;
  };
  class Exact final : public SecondOrderCostFunction {
   public:
    explicit Exact(FunctionCost::Function f) : f_(std::move(f)) {
      set_num_residuals(kRows);
      mutable_parameter_block_sizes()->assign(kBlocks, 1);
    }
    bool Evaluate(double const* const* p, double* r, double** j) const override {
      return f_(p, r, j);
    }
    bool EvaluateHessian(double const* const* p, const double* w, double* h) const override {
      std::fill_n(h, kBlocks * kBlocks, 0.0);
      for (int i = 0; i < kRows; ++i) {
        h[(i % kBlocks) * (kBlocks + 1)] -= w[i] * std::sin(p[i % kBlocks][0] + i);
      }
      return true;
    }
    bool EvaluateHessianProduct(double const* const*,
                                const double*,
                                const double*,
                                double*) const override {
      return false;
    }

   private:
    FunctionCost::Function f_;
  };
  std::vector<double> theta(kRows);
  for (int i = 0; i < kRows; ++i) theta[i] = 0.1 * std::cos(i);
  const DiagonalNoise noise(theta.data(), kRows);
  const std::unique_ptr<ceres::CostFunction> white(noise.Whiten(new Exact(function)));
  Vector p(kBlocks + kRows);
  p << TestVector(kBlocks, 0.3), Eigen::Map<Vector>(theta.data(), kRows);
  std::vector<const double*> blocks;
  for (int b = 0; b <= kBlocks; ++b) blocks.push_back(p.data() + b);
  const Vector w = TestVector(kRows, 1.0);
  RowMatrix hessian(p.size(), p.size());
  ASSERT_TRUE(dynamic_cast<SecondOrderCostFunction&>(*white).EvaluateHessian(
      blocks.data(), w.data(), hessian.data()));
  for (const int k : {0, 7, kBlocks, kBlocks + 11}) {
    const Vector column = Derivative<Vector>([&](double h) {
      Vector q = p;
      q[k] += h;
      return WeightedGradient(*white, q, w);
    });
    EXPECT_LT((hessian.col(k) - column).norm(), 1e-9) << k;
  }
}

TEST(Noise, OpaqueCostFunctionsAreDifferencedAndCountedSo) {
  std::vector<Model> models = Models();
  const Model& m = models[2];
  double a[] = {kA[0], kA[1]}, b[] = {kB[0]};
  Problem problem;
  problem.AddUpperParameterBlock(m.noise->parameters(), m.noise->num_parameters());
  m.noise->AddResidualBlock(CurvedCost(), nullptr, {a, b}, problem.lower());
  m.noise->AddResidualBlock(new Opaque(CurvedCost()), nullptr, {a, b}, problem.lower());
  problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, b);
  std::string error;
  const auto program = problem.Compile(Problem::CompileOptions(), &error);
  ASSERT_NE(program, nullptr) << error;
  EXPECT_EQ(program->scenarios[0]->g->num_exact_blocks(), 1);
  EXPECT_EQ(program->scenarios[0]->g->num_residual_blocks(), 2);
}

TEST(Noise, ErrorsOfAnotherLengthAreRefused) {
  double log_sigma[2] = {0.0, 0.0};
  const DiagonalNoise noise(log_sigma, 2);
  const std::unique_ptr<ceres::CostFunction> cost(CurvedCost());
  EXPECT_EQ(noise.Whiten(cost.get(), ceres::DO_NOT_TAKE_OWNERSHIP), nullptr);
}

// A measured point under every model, robust and switched losses on top: the hypergradient of the
// distance to a truth is that of re-solved differences.
TEST(Noise, HypergradientsThroughNoiseAndLosses) {
  for (Model& m : Models()) {
    SCOPED_TRACE(m.name);
    double a[] = {kA[0], kA[1]}, b[] = {kB[0]};
    double log_scale = 0.2, logit = 1.0, log_sigma = -0.3;
    Problem problem;
    problem.AddUpperParameterBlock(m.noise->parameters(), m.noise->num_parameters());
    problem.AddUpperParameterBlock(&log_scale, 1);
    problem.AddUpperParameterBlock(&logit, 1);
    problem.AddUpperParameterBlock(&log_sigma, 1);
    m.noise->AddResidualBlock(
        CurvedCost(),
        new SwitchLoss(new CauchyLoss(&log_scale), &logit, ceres::TAKE_OWNERSHIP),
        {a, b},
        problem.lower());
    problem.lower()->AddResidualBlock(
        new NormalPrior({1.0, -0.5}, 0.5),
        new NoiseScaleLoss(new CauchyLoss(&log_scale), &log_sigma, ceres::TAKE_OWNERSHIP),
        a);
    problem.lower()->AddResidualBlock(new NormalPrior({0.8}, 0.7), nullptr, b);
    problem.upper()->AddResidualBlock(new NormalPrior({0.3, -0.1}, 1.0), nullptr, a);
    problem.upper()->AddResidualBlock(new NormalPrior({0.6}, 2.0), nullptr, b);
    problem.upper()->AddResidualBlock(
        new NormalPrior(std::vector<double>(m.theta.size(), 0.0), 3.0), nullptr, m.theta.data());
    const HypergradientChecker::Result result = HypergradientChecker::Check(&problem);
    ASSERT_TRUE(result.ok) << result.message;
    EXPECT_LT(result.max_relative_error, 1e-8) << result.Report();
  }
}

// Whatever is on the residual blocks stays there, and theta = 0 changes nothing.
TEST(Noise, AppliesToWhatIsThereAlready) {
  double y[2] = {0.3, -0.2}, log_sigma = 0.0;
  ceres::CauchyLoss cauchy(0.7);
  ceres::Problem::Options own_nothing;
  own_nothing.cost_function_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
  own_nothing.loss_function_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
  NormalPrior first({1.0, 2.0}, 0.5), second({-1.0, 0.0}, 1.0);
  ceres::Problem lower(own_nothing), upper;
  std::vector<ceres::ResidualBlockId> ids = {lower.AddResidualBlock(&first, &cauchy, y)};
  lower.AddResidualBlock(&second, nullptr, y);
  const auto cost = [&] {
    double value = 0.0;
    lower.Evaluate(ceres::Problem::EvaluateOptions(), &value, nullptr, nullptr, nullptr);
    return value;
  };
  const double before = cost();
  Problem problem(&upper, &lower);
  const ScalarNoise noise(&log_sigma, 2);
  std::string error;
  EXPECT_FALSE(noise.Apply(&ids, &problem, &error));
  EXPECT_NE(error.find("wrapped_problems_own_nothing"), std::string::npos);
  ASSERT_TRUE(noise.Apply(&ids, &problem, &error, 0, true)) << error;
  EXPECT_EQ(cost(), before);
  log_sigma = 0.5;
  double r2 = 0.0, rho[3];
  for (int i = 0; i < 2; ++i) r2 += std::pow((y[i] - 1.0 - i) / 0.5 * std::exp(-0.5), 2);
  cauchy.Evaluate(r2, rho);
  const double other = 0.5 * (std::pow(y[0] + 1.0, 2) + std::pow(y[1], 2));
  EXPECT_NEAR(cost(), 0.5 * rho[0] + other, 1e-14);
  EXPECT_FALSE(noise.Apply(&ids, &problem, &error, 0, true));
  EXPECT_NE(error.find("has this noise already"), std::string::npos);
  const ScalarNoise longer(&log_sigma, 3);
  EXPECT_FALSE(longer.Apply(&ids, &problem, &error, 0, true));
  EXPECT_NE(error.find("has 2 residuals, its noise is for 3"), std::string::npos);
  EXPECT_FALSE(noise.Apply(&ids, &problem, &error, 1, true));
  std::vector<ceres::ResidualBlockId> none = {nullptr};
  EXPECT_FALSE(noise.Apply(&none, &problem, &error, 0, true));
}

TEST(Noise, InformationMatricesGoInAndOut) {
  RowMatrix root(3, 3), information, again(3, 3);
  root << 2.0, 0.3, -0.4, 0.0, 0.7, 0.2, 0.1, 0.5, 30.0;
  information = root.transpose() * root;
  double theta[6];
  FullNoise noise(theta, 3);
  ASSERT_TRUE(noise.SetInformation(information.data()));
  noise.GetInformation(again.data());
  EXPECT_LT((again - information).norm(), 1e-12 * information.norm());
  EXPECT_NEAR(noise.HalfLogDeterminant(),
              -0.5 * std::log(SymmetricEigen(information).eigenvalues().prod()),
              1e-12);
  const double kept = theta[4];
  information(2, 2) = -1.0;
  EXPECT_FALSE(noise.SetInformation(information.data()));
  EXPECT_EQ(theta[4], kept);
}

// Minus the log-likelihood of given errors is least at their covariance matrix.
TEST(Noise, LikelihoodOfErrorsIsBestAtTheirCovariance) {
  constexpr int kCount = 50;
  double theta[3] = {0.0, 0.0, 0.0}, y = 0.0, unit = 1.0;
  FullNoise noise(theta, 2);
  Problem problem;
  problem.AddUpperParameterBlock(theta, 3);
  problem.lower()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
  Matrix covariance = Matrix::Zero(2, 2);
  for (int i = 0; i < kCount; ++i) {
    const double e[] = {std::sin(3.0 * i), 0.4 * std::sin(3.0 * i) + 0.2 * std::cos(5.0 * i)};
    covariance += Eigen::Map<const Vector>(e, 2) * Eigen::Map<const Vector>(e, 2).transpose();
    noise.AddResidualBlock(
        new FunctionCost(2,
                         {1},
                         [e0 = e[0], e1 = e[1]](double const* const*, double* r, double** j) {
                           r[0] = e0;
                           r[1] = e1;
                           if (j && j[0]) j[0][0] = j[0][1] = 0.0;
                           return true;
                         }),
        nullptr,
        {&unit},
        problem.upper());
  }
  problem.upper()->SetParameterBlockConstant(&unit);
  noise.AddHalfLogDeterminant(kCount, &problem);
  Solver::Options options;
  options.gradient_tolerance = 1e-9;
  options.function_tolerance = 0.0;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  RowMatrix information(2, 2);
  noise.GetInformation(information.data());
  EXPECT_LT((PseudoInverse(information) - covariance / kCount).norm(), 1e-8)
      << summary.FullReport();
}

TEST(Noise, DescribesItself) {
  double scalar = std::log(0.25), diagonal[] = {std::log(0.5), std::log(2.0)};
  double full[] = {std::log(2.0), 0.5, std::log(4.0)};
  EXPECT_EQ(ScalarNoise(&scalar).Describe("range"), "const double range_sigma = 0.25;");
  EXPECT_EQ(DiagonalNoise(diagonal, 2).Describe("odometry"),
            "const double odometry_sigma[2] = {0.5, 2};");
  EXPECT_EQ(FullNoise(full, 2).Describe("loop"),
            "const Eigen::Matrix<double, 2, 2> loop_sqrt_information =\n"
            "    (Eigen::Matrix<double, 2, 2>() << 2, 0.5, 0, 4).finished();");
}

TEST(Noise, PriorsHaveTheirClosedFormMinimum) {
  // A block of weights pulled to 1, 2, 4 and kept smooth: (I / s^2 + D'D / t^2) w = m / s^2.
  double w[3] = {0.0, 0.0, 0.0};
  ceres::Problem problem;
  problem.AddResidualBlock(new NormalPrior({1.0, 2.0, 4.0}, 0.5), nullptr, w);
  problem.AddResidualBlock(new SmoothnessPrior(3, 0.2), nullptr, w);
  ceres::Solver::Options options;
  options.logging_type = ceres::SILENT;
  options.function_tolerance = 0.0;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &problem, &summary);
  Eigen::Matrix3d a = Eigen::Matrix3d::Identity() / 0.25;
  Eigen::Matrix<double, 2, 3> d;
  d << -1.0, 1.0, 0.0, 0.0, -1.0, 1.0;
  a += d.transpose() * d / 0.04;
  const Eigen::Vector3d expected = SolveSymmetric(a, Eigen::Vector3d(1.0, 2.0, 4.0) / 0.25);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(w[i], expected[i], 1e-10);
}

}  // namespace
}  // namespace bilevel
