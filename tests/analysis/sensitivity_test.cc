#include "bilevel/analysis/sensitivity.h"

#include <array>
#include <cmath>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "Eigen/Dense"
#include "bilevel/bilevel.h"
#include "ceres/ceres.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pose_graph.h"
#include "sphere.h"

namespace bilevel {
namespace {

using testing::HasSubstr;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::VectorXd;

// Central differences with one Richardson step of a vector-valued function.
VectorXd Difference(const std::function<VectorXd(double)>& f, double h) {
  const auto central = [&](double step) -> VectorXd { return (f(step) - f(-step)) / (2.0 * step); };
  return (4.0 * central(0.5 * h) - central(h)) / 3.0;
}

double CostOf(ceres::Problem* problem) {
  double cost = 0.0;
  problem->Evaluate(ceres::Problem::EvaluateOptions(), &cost, nullptr, nullptr, nullptr);
  return cost;
}

void SolveWithCeres(ceres::Problem* problem) {
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::SPARSE_NORMAL_CHOLESKY;
  options.function_tolerance = options.parameter_tolerance = options.gradient_tolerance = 1e-16;
  options.max_num_iterations = 200;
  options.logging_type = ceres::SILENT;
  ceres::Solver::Summary summary;
  ceres::Solve(options, problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.message;
}

Sensitivity::Options Polished() {
  Sensitivity::Options options;
  options.polish = true;
  return options;
}

// All poses, quaternions and translations alternating, seven entries a pose.
VectorXd Poses(const PoseGraph& graph) {
  VectorXd values(7 * graph.size());
  for (int i = 0; i < graph.size(); ++i) {
    std::copy_n(graph.poses[i].q.data(), 4, values.data() + 7 * i);
    std::copy_n(graph.poses[i].t.data(), 3, values.data() + 7 * i + 4);
  }
  return values;
}

// d poses / d scalar, ambient, as Poses.
VectorXd Sensitivities(const Sensitivity& sensitivity, const PoseGraph& graph, const double* x) {
  VectorXd values(7 * graph.size());
  for (int i = 0; i < graph.size(); ++i) {
    EXPECT_TRUE(sensitivity.GetSensitivityBlock(graph.poses[i].q.data(), x, &values[7 * i]));
    EXPECT_TRUE(sensitivity.GetSensitivityBlock(graph.poses[i].t.data(), x, &values[7 * i + 4]));
  }
  return values;
}

// A pose graph that knows nothing of this library: constant weights, Cauchy's loss on the edges.
class ScaleNoiseTest : public testing::Test {
 protected:
  ScaleNoiseTest() : graph_(MakeHelix(8, 3, 0.1, 21)) {
    for (PoseGraph::Edge& edge : graph_->edges) {
      graph_->AddPose(&ceres_problem_, edge.i);
      graph_->AddPose(&ceres_problem_, edge.j);
      const auto id = ceres_problem_.AddResidualBlock(
          new ceres::AutoDiffCostFunction<RelativePoseError, 6, 4, 3, 4, 3>(
              new RelativePoseError{edge.z}),
          new ceres::CauchyLoss(0.1),
          graph_->poses[edge.i].q.data(),
          graph_->poses[edge.i].t.data(),
          graph_->poses[edge.j].q.data(),
          graph_->poses[edge.j].t.data());
      (edge.is_loop ? loops_ : odometry_).push_back(id);
    }
    graph_->AddPrior(&ceres_problem_, 0, 10.0);
    SolveWithCeres(&ceres_problem_);
  }

  // The same estimation problem with the weights of the loops explicit, solved to the last digit.
  VectorXd SolveWithWeights(double log_sigma) const {
    PoseGraph copy = *graph_;
    double log_weights[2] = {-log_sigma, -log_sigma}, unit[2] = {0.0, 0.0};
    Problem problem;
    problem.AddUpperParameterBlock(log_weights, 2);
    for (const PoseGraph::Edge& edge : copy.edges) {
      copy.AddPose(problem.lower(), edge.i);
      copy.AddPose(problem.lower(), edge.j);
      problem.lower()->AddResidualBlock(
          new AutoDiffCostFunction<RelativePoseError, 6, 4, 3, 4, 3, 2>(
              new RelativePoseError{edge.z}),
          new ceres::CauchyLoss(0.1),
          copy.poses[edge.i].q.data(),
          copy.poses[edge.i].t.data(),
          copy.poses[edge.j].q.data(),
          copy.poses[edge.j].t.data(),
          edge.is_loop ? log_weights : unit);
    }
    problem.lower()->SetParameterBlockConstant(unit);
    copy.poses[0] = graph_->truth[0];  // Where the prior is.
    copy.AddPrior(problem.lower(), 0, 10.0);
    copy.poses[0] = graph_->poses[0];
    Sensitivity sensitivity(Polished());
    EXPECT_TRUE(sensitivity.Compute(&problem, {log_weights})) << sensitivity.message();
    explicit_derivative_.resize(7 * copy.size());
    for (int i = 0; i < copy.size(); ++i) {
      double block[8];
      sensitivity.GetSensitivityBlock(copy.poses[i].q.data(), log_weights, block);
      for (int k = 0; k < 4; ++k)
        explicit_derivative_[7 * i + k] = -block[2 * k] - block[2 * k + 1];
      sensitivity.GetSensitivityBlock(copy.poses[i].t.data(), log_weights, block);
      for (int k = 0; k < 3; ++k) {
        explicit_derivative_[7 * i + 4 + k] = -block[2 * k] - block[2 * k + 1];
      }
    }
    return Poses(copy);
  }

  std::unique_ptr<PoseGraph> graph_;
  ceres::Problem ceres_problem_;
  std::vector<ceres::ResidualBlockId> odometry_, loops_;
  mutable VectorXd explicit_derivative_;
};

TEST_F(ScaleNoiseTest, LeavesTheUsersProblemAlone) {
  const VectorXd before = Poses(*graph_);
  const double cost = CostOf(&ceres_problem_);
  const int num_blocks = ceres_problem_.NumParameterBlocks();
  const int num_residuals = ceres_problem_.NumResidualBlocks();
  double log_sigma = 0.0;
  {
    Problem problem(nullptr, &ceres_problem_);
    Sensitivity::Options options;
    options.stationarity_tolerance = 1e-5;  // ceres::Solve gets no further.
    Sensitivity sensitivity(options);
    sensitivity.ScaleNoise(loops_, &log_sigma);
    ASSERT_TRUE(sensitivity.Compute(&problem, {&log_sigma})) << sensitivity.message();
    EXPECT_EQ(sensitivity.num_numeric_residual_blocks(),
              static_cast<int>(loops_.size() + odometry_.size()));
    EXPECT_EQ(sensitivity.num_exact_residual_blocks(), 1);
    EXPECT_THAT(sensitivity.FullReport(), HasSubstr("48 lower to 1 upper"));
  }
  EXPECT_EQ(Poses(*graph_), before);
  EXPECT_EQ(CostOf(&ceres_problem_), cost);
  EXPECT_EQ(ceres_problem_.NumParameterBlocks(), num_blocks);
  EXPECT_EQ(ceres_problem_.NumResidualBlocks(), num_residuals);
  EXPECT_EQ(log_sigma, 0.0);
  for (const Pose& pose : graph_->poses) {
    EXPECT_FALSE(ceres_problem_.IsParameterBlockConstant(pose.q.data()));
    EXPECT_FALSE(ceres_problem_.IsParameterBlockConstant(pose.t.data()));
  }
}

TEST_F(ScaleNoiseTest, IsTheProblemWithExplicitWeights) {
  for (double log_sigma : {0.0, 0.4}) {
    Problem problem(nullptr, &ceres_problem_);
    Sensitivity sensitivity(Polished());
    sensitivity.ScaleNoise(loops_, &log_sigma);
    ASSERT_TRUE(sensitivity.Compute(&problem, {&log_sigma})) << sensitivity.message();
    // Polished to the solution of the scaled problem.
    const VectorXd expected = SolveWithWeights(log_sigma);
    EXPECT_LT((Poses(*graph_) - expected).norm(), 1e-9 * expected.norm());
    const VectorXd derivative = Sensitivities(sensitivity, *graph_, &log_sigma);
    EXPECT_GT(derivative.norm(), 1e-3);
    EXPECT_LT((derivative - explicit_derivative_).norm(), 1e-8 * derivative.norm());
    const VectorXd difference =
        Difference([&](double h) { return SolveWithWeights(log_sigma + h); }, 2e-3);
    const double error = (derivative - difference).norm() / derivative.norm();
    EXPECT_LT(error, 1e-8);
    std::cout << "relative error against differences " << error << "\n";
  }
}

TEST_F(ScaleNoiseTest, OneScaleForSeveralGroupsAndTwoScales) {
  double first = 0.0, second = 0.0, both = 0.0;
  Problem problem(nullptr, &ceres_problem_);
  Sensitivity separate(Polished());
  separate.ScaleNoise(odometry_, &first);
  separate.ScaleNoise(loops_, &second);
  ASSERT_TRUE(separate.Compute(&problem, {&first, &second})) << separate.message();
  Sensitivity joint(Polished());
  joint.ScaleNoise(odometry_, &both);
  joint.ScaleNoise(loops_, &both);
  ASSERT_TRUE(joint.Compute(&problem, {&both})) << joint.message();
  const VectorXd sum =
      Sensitivities(separate, *graph_, &first) + Sensitivities(separate, *graph_, &second);
  const VectorXd expected = Sensitivities(joint, *graph_, &both);
  EXPECT_LT((sum - expected).norm(), 1e-8 * Sensitivities(separate, *graph_, &first).norm());
}

TEST_F(ScaleNoiseTest, ScaleDeclaredUpperAsWell) {
  double log_sigma = 0.0;
  Problem problem(nullptr, &ceres_problem_);
  problem.AddUpperParameterBlock(&log_sigma, 1);
  problem.SetParameterName(&log_sigma, "log_sigma");
  Sensitivity sensitivity(Polished());
  sensitivity.ScaleNoise(loops_, &log_sigma);
  ASSERT_TRUE(sensitivity.Compute(&problem, {&log_sigma})) << sensitivity.message();
  EXPECT_GT(Sensitivities(sensitivity, *graph_, &log_sigma).norm(), 1e-3);
}

TEST_F(ScaleNoiseTest, MisuseIsNamed) {
  double log_sigma = 0.0, other = 0.0;
  Problem problem(nullptr, &ceres_problem_);
  {
    Sensitivity sensitivity;
    sensitivity.ScaleNoise(loops_, &log_sigma);
    sensitivity.ScaleNoise({loops_[0]}, &other);
    EXPECT_FALSE(sensitivity.Compute(&problem, {&log_sigma}));
    EXPECT_THAT(sensitivity.message(), HasSubstr("the same residual block twice"));
  }
  {
    Sensitivity sensitivity;
    sensitivity.ScaleNoise(loops_, nullptr);
    EXPECT_FALSE(sensitivity.Compute(&problem, {}));
    EXPECT_THAT(sensitivity.message(), HasSubstr("null pointer"));
  }
  {
    ceres::Problem elsewhere;
    double a[3] = {0, 0, 0}, b[4] = {1, 0, 0, 0};
    const auto id = elsewhere.AddResidualBlock(
        new AutoDiffCostFunction<PosePrior, 6, 4, 3>(new PosePrior{{}, 1.0}), nullptr, b, a);
    Sensitivity sensitivity;
    sensitivity.ScaleNoise({id}, &log_sigma);
    EXPECT_FALSE(sensitivity.Compute(&problem, {&log_sigma}));
    EXPECT_THAT(sensitivity.message(), HasSubstr("not in the problem"));
  }
  {
    Sensitivity sensitivity;
    sensitivity.ScaleNoise(loops_, &log_sigma);
    EXPECT_FALSE(sensitivity.Compute(nullptr, {&log_sigma}));
    EXPECT_THAT(sensitivity.message(), HasSubstr("null"));
    EXPECT_FALSE(sensitivity.Compute(&problem, {&other}));
    EXPECT_THAT(sensitivity.message(), HasSubstr("not an upper parameter block"));
  }
  Sensitivity::Options options;
  options.num_threads = 0;
  Sensitivity sensitivity(options);
  sensitivity.ScaleNoise(loops_, &log_sigma);
  EXPECT_FALSE(sensitivity.Compute(&problem, {&log_sigma}));
  EXPECT_THAT(sensitivity.message(), HasSubstr("num_threads"));
}

TEST_F(ScaleNoiseTest, PointThatIsNotASolutionIsRefusedUnlessPolished) {
  double log_sigma = 0.0;
  Problem problem(nullptr, &ceres_problem_);
  Sensitivity polished(Polished());
  polished.ScaleNoise(loops_, &log_sigma);
  ASSERT_TRUE(polished.Compute(&problem, {&log_sigma})) << polished.message();
  EXPECT_LT(polished.relative_decrement(), 1e-10);
  const VectorXd solution = Poses(*graph_);
  const VectorXd derivative = Sensitivities(polished, *graph_, &log_sigma);

  graph_->poses[3].t[1] += 1e-4;
  const VectorXd moved = Poses(*graph_);
  Sensitivity refusing;
  refusing.ScaleNoise(loops_, &log_sigma);
  EXPECT_FALSE(refusing.Compute(&problem, {&log_sigma}));
  EXPECT_THAT(refusing.message(), HasSubstr("the lower level is not solved"));
  EXPECT_THAT(refusing.message(), HasSubstr("polish"));
  EXPECT_GT(refusing.relative_decrement(), 1e-5);
  EXPECT_EQ(Poses(*graph_), moved);
  double block[4];
  EXPECT_FALSE(refusing.GetSensitivityBlock(graph_->poses[3].q.data(), &log_sigma, block));

  ASSERT_TRUE(polished.Compute(&problem, {&log_sigma})) << polished.message();
  EXPECT_LT((Poses(*graph_) - solution).norm(), 1e-9 * solution.norm());
  EXPECT_LT((Sensitivities(polished, *graph_, &log_sigma) - derivative).norm(),
            1e-8 * derivative.norm());
}

TEST_F(ScaleNoiseTest, UnknownBlocks) {
  double log_sigma = 0.0, unknown = 0.0, out[16];
  const double* known = graph_->poses[1].t.data();
  Problem problem(nullptr, &ceres_problem_);
  Sensitivity sensitivity(Polished());
  sensitivity.ScaleNoise(loops_, &log_sigma);
  EXPECT_FALSE(sensitivity.GetSensitivityBlock(known, &log_sigma, out));
  EXPECT_THAT(sensitivity.message(), HasSubstr("Compute was not called"));
  ASSERT_TRUE(sensitivity.Compute(&problem, {&log_sigma})) << sensitivity.message();
  EXPECT_FALSE(sensitivity.GetSensitivityBlock(&unknown, &log_sigma, out));
  EXPECT_FALSE(sensitivity.message().empty());
  EXPECT_FALSE(sensitivity.GetSensitivityBlockInTangentSpace(&unknown, &log_sigma, out));
  EXPECT_THAT(sensitivity.message(), HasSubstr("lower block"));
  EXPECT_FALSE(sensitivity.GetSensitivityBlockInTangentSpace(known, &unknown, out));
  EXPECT_THAT(sensitivity.message(), HasSubstr("upper block"));
  EXPECT_FALSE(sensitivity.Pullback({{&unknown, out}}, &log_sigma, out));
  EXPECT_FALSE(sensitivity.Pullback({{known, out}}, &unknown, out));
  EXPECT_FALSE(sensitivity.Directional({{&unknown, out}}, known, out));
  EXPECT_FALSE(sensitivity.Directional({{&log_sigma, out}}, &unknown, out));
  EXPECT_TRUE(sensitivity.GetSensitivityBlock(known, &log_sigma, out));

  // Known, but not asked for: the adjoint has it, the columns do not.
  double other = 0.0, one = 1.0;
  Sensitivity partial(Polished());
  partial.ScaleNoise(loops_, &log_sigma);
  partial.ScaleNoise(odometry_, &other);
  ASSERT_TRUE(partial.Compute(&problem, {&log_sigma})) << partial.message();
  EXPECT_FALSE(partial.GetSensitivityBlock(known, &other, out));
  EXPECT_THAT(partial.message(), HasSubstr("not given to Compute"));
  EXPECT_TRUE(partial.Directional({{&other, &one}}, known, out));
}

// Pullback and Directional are products with the columns; ambient blocks are tangent ones through
// the manifold.
TEST_F(ScaleNoiseTest, ProductsAndManifolds) {
  double first = 0.2, second = -0.1;
  Problem problem(nullptr, &ceres_problem_);
  Sensitivity sensitivity(Polished());
  sensitivity.ScaleNoise(odometry_, &first);
  sensitivity.ScaleNoise(loops_, &second);
  ASSERT_TRUE(sensitivity.Compute(&problem, {&second, &first})) << sensitivity.message();
  const double* q = graph_->poses[5].q.data();
  const double* t = graph_->poses[2].t.data();
  Eigen::Vector3d dq[2], dt[2], motion;
  Eigen::Vector4d ambient;
  Eigen::Matrix<double, 4, 3, Eigen::RowMajor> plus;
  ceres::QuaternionManifold().PlusJacobian(q, plus.data());
  const double* x[2] = {&first, &second};
  for (int k = 0; k < 2; ++k) {
    ASSERT_TRUE(sensitivity.GetSensitivityBlockInTangentSpace(q, x[k], dq[k].data()));
    ASSERT_TRUE(sensitivity.GetSensitivityBlockInTangentSpace(t, x[k], dt[k].data()));
    ASSERT_TRUE(sensitivity.GetSensitivityBlock(q, x[k], ambient.data()));
    EXPECT_LT((ambient - plus * dq[k]).norm(), 1e-15);
    EXPECT_LT(std::abs(ambient.dot(Eigen::Map<const Eigen::Vector4d>(q))), 1e-15);
  }
  const Eigen::Vector3d fq(0.3, -1.0, 0.6), ft(-0.2, 0.5, 2.0);
  for (int k = 0; k < 2; ++k) {
    double gradient = 0.0;
    ASSERT_TRUE(sensitivity.Pullback({{q, fq.data()}, {t, ft.data()}}, x[k], &gradient));
    const double expected = fq.dot(dq[k]) + ft.dot(dt[k]);
    EXPECT_NEAR(gradient, expected, 1e-10 * std::abs(expected));
  }
  const double a = 0.7, b = -1.2;
  ASSERT_TRUE(sensitivity.Directional({{&first, &a}, {&second, &b}}, q, motion.data()));
  EXPECT_LT((motion - a * dq[0] - b * dq[1]).norm(), 1e-10 * motion.norm());
}

// Vectors in three dimensions: y with a learned, spherical x.
struct Attraction {
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    for (int k = 0; k < 3; ++k) residual[k] = y[k] * y[k] + y[k] - 2.0 * x[k];
    residual[3] = y[0] * y[1] - 0.3 * x[2];
    return true;
  }
};

TEST(Sensitivity, UpperManifold) {
  double y[3] = {0.5, 0.5, 0.5}, x[3] = {2.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0};
  Problem problem;
  problem.AddUpperParameterBlock(x, 3, NewSphere());
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Attraction, 4, 3, 3>(new Attraction), nullptr, y, x);
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(&problem, {x})) << sensitivity.message();
  Eigen::Matrix<double, 3, 3, Eigen::RowMajor> ambient;
  Eigen::Matrix<double, 3, 2, Eigen::RowMajor> tangent, plus;
  ASSERT_TRUE(sensitivity.GetSensitivityBlock(y, x, ambient.data()));
  ASSERT_TRUE(sensitivity.GetSensitivityBlockInTangentSpace(y, x, tangent.data()));
  const std::unique_ptr<ceres::Manifold> sphere(NewSphere());
  sphere->PlusJacobian(x, plus.data());
  EXPECT_LT((ambient * plus - tangent).norm(), 1e-13);
  EXPECT_LT((ambient * Eigen::Vector3d(x[0], x[1], x[2])).norm(), 1e-13);
  const double centre[3] = {x[0], x[1], x[2]};
  for (int k = 0; k < 2; ++k) {
    const VectorXd difference = Difference(
        [&](double h) -> VectorXd {
          const double delta[2] = {k == 0 ? h : 0.0, k == 1 ? h : 0.0};
          sphere->Plus(centre, delta, x);
          Sensitivity moved(Polished());
          EXPECT_TRUE(moved.Compute(&problem, {})) << moved.message();
          return Eigen::Map<Eigen::Vector3d>(y);
        },
        5e-4);
    EXPECT_LT((tangent.col(k) - difference).norm(), 1e-9 * difference.norm());
  }
}

struct Coupled {  // y0 - x, y1 - 2 x, y0 + y1
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] - x[0];
    residual[1] = y[1] - 2.0 * x[0];
    residual[2] = y[0] + y[1];
    return true;
  }
};

// Free: y = (0, x). With y0 held at a bound: y1 = x - y0 / 2.
class BoundTest : public testing::Test {
 protected:
  BoundTest() {
    problem_.AddUpperParameterBlock(&x_, 1);
    problem_.SetParameterName(y_, "y");
    problem_.lower()->AddResidualBlock(
        new AutoDiffCostFunction<Coupled, 3, 2, 1>(new Coupled), nullptr, y_, &x_);
  }
  Problem problem_;
  double x_ = 0.8, y_[2] = {1.0, 1.0}, dy_dx_[2];
};

TEST_F(BoundTest, None) {
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(&problem_, {&x_})) << sensitivity.message();
  ASSERT_TRUE(sensitivity.GetSensitivityBlock(y_, &x_, dy_dx_));
  EXPECT_NEAR(dy_dx_[0], 0.0, 1e-14);
  EXPECT_NEAR(dy_dx_[1], 1.0, 1e-14);
  EXPECT_EQ(sensitivity.num_active_bounds(), 0);
}

TEST_F(BoundTest, Active) {
  problem_.lower()->SetParameterLowerBound(y_, 0, 0.5);
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(&problem_, {&x_})) << sensitivity.message();
  EXPECT_EQ(y_[0], 0.5);
  EXPECT_NEAR(y_[1], x_ - 0.25, 1e-14);
  ASSERT_TRUE(sensitivity.GetSensitivityBlock(y_, &x_, dy_dx_));
  EXPECT_EQ(dy_dx_[0], 0.0);
  EXPECT_NEAR(dy_dx_[1], 1.0, 1e-14);
  EXPECT_EQ(sensitivity.num_active_bounds(), 1);
  EXPECT_EQ(sensitivity.weakly_active(), "");
  EXPECT_THAT(sensitivity.FullReport(), HasSubstr("active bounds"));
  const double f[2] = {5.0, 3.0};
  double gradient = 0.0;
  ASSERT_TRUE(sensitivity.Pullback({{y_, f}}, &x_, &gradient));
  EXPECT_NEAR(gradient, 3.0, 1e-13);
}

// Held by y1 <= x / 2: y0 = x/4, whose derivative 0.5 differs from the free one, 0.
TEST_F(BoundTest, ActiveUpperBoundChangesTheDerivative) {
  problem_.lower()->SetParameterUpperBound(y_, 1, 0.4);
  y_[1] = 0.0;
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(&problem_, {&x_})) << sensitivity.message();
  EXPECT_EQ(y_[1], 0.4);
  EXPECT_NEAR(y_[0], (x_ - 0.4) / 2.0, 1e-14);
  ASSERT_TRUE(sensitivity.GetSensitivityBlock(y_, &x_, dy_dx_));
  EXPECT_NEAR(dy_dx_[0], 0.5, 1e-14);
  EXPECT_EQ(dy_dx_[1], 0.0);
}

TEST_F(BoundTest, WeaklyActive) {
  problem_.lower()->SetParameterLowerBound(y_, 0, 0.0);  // Where it would be anyway.
  y_[0] = 0.0;
  y_[1] = x_;
  Sensitivity sensitivity;
  ASSERT_TRUE(sensitivity.Compute(&problem_, {&x_})) << sensitivity.message();
  EXPECT_EQ(sensitivity.weakly_active(), "'y'[0]");
  EXPECT_THAT(sensitivity.FullReport(), HasSubstr("'y'[0]"));
}

// Relative poses only: the six motions of the world are free.
class FreeGaugeTest : public testing::Test {
 protected:
  FreeGaugeTest() : graph_(MakeHelix(7, 2, 0.1, 33)) {
    problem_.AddUpperParameterBlock(log_weights_, 2);
    graph_->AddEdges(problem_.lower(), log_weights_);
    for (int i = 0; i < graph_->size(); ++i) {
      problem_.SetParameterName(graph_->poses[i].q.data(), "q" + std::to_string(i));
      problem_.SetParameterName(graph_->poses[i].t.data(), "t" + std::to_string(i));
    }
    Sensitivity first(Polished());
    EXPECT_TRUE(first.Compute(&problem_, {})) << first.message();
  }

  // The gradient of |Log(T1^-1 T5)|^2 / 2, which does not see the gauge, pulled back.
  Eigen::Vector2d PullbackOfInvariant(const Sensitivity& sensitivity) {
    Pose &a = graph_->poses[1], &b = graph_->poses[5];
    const double* blocks[4] = {a.q.data(), a.t.data(), b.q.data(), b.t.data()};
    double residual[6];
    Eigen::Matrix<double, 6, 4, Eigen::RowMajor> jq[2];
    Eigen::Matrix<double, 6, 3, Eigen::RowMajor> jt[2];
    double* jacobians[4] = {jq[0].data(), jt[0].data(), jq[1].data(), jt[1].data()};
    AutoDiffCostFunction<RelativePoseError, 6, 4, 3, 4, 3>(new RelativePoseError)
        .Evaluate(blocks, residual, jacobians);
    const Eigen::Map<Eigen::Matrix<double, 6, 1>> r(residual);
    Eigen::Vector3d fq[2], ft[2];
    for (int k = 0; k < 2; ++k) {
      Eigen::Matrix<double, 4, 3, Eigen::RowMajor> plus;
      ceres::QuaternionManifold().PlusJacobian(blocks[2 * k], plus.data());
      fq[k] = plus.transpose() * jq[k].transpose() * r;
      ft[k] = jt[k].transpose() * r;
    }
    Eigen::Vector2d gradient(0.0, 0.0);
    EXPECT_TRUE(sensitivity.Pullback({{blocks[0], fq[0].data()},
                                      {blocks[1], ft[0].data()},
                                      {blocks[2], fq[1].data()},
                                      {blocks[3], ft[1].data()}},
                                     log_weights_,
                                     gradient.data()))
        << sensitivity.message();
    return gradient;
  }

  std::unique_ptr<PoseGraph> graph_;
  Problem problem_;
  double log_weights_[2] = {0.2, 0.6};
};

TEST_F(FreeGaugeTest, RefusedWithTheBlocksNamed) {
  Sensitivity::Options options;
  options.singular_handling = SingularHandling::kRefuse;
  Sensitivity sensitivity(options);
  EXPECT_FALSE(sensitivity.Compute(&problem_, {log_weights_}));
  EXPECT_THAT(sensitivity.message(), HasSubstr("singular: 6 free direction(s)"));
  EXPECT_THAT(sensitivity.message(), HasSubstr("'t"));
}

TEST_F(FreeGaugeTest, EveryWayGivesTheSameInvariantGradient) {
  Sensitivity automatic;
  ASSERT_TRUE(automatic.Compute(&problem_, {log_weights_})) << automatic.message();
  EXPECT_EQ(automatic.num_free_directions(), 6);
  EXPECT_THAT(automatic.FullReport(), HasSubstr("free directions           6"));
  const Eigen::Vector2d expected = PullbackOfInvariant(automatic);
  EXPECT_GT(expected.norm(), 1e-4);

  Sensitivity::Options options;
  options.singular_handling = SingularHandling::kMinimumNorm;
  Sensitivity minimum_norm(options);
  ASSERT_TRUE(minimum_norm.Compute(&problem_, {log_weights_})) << minimum_norm.message();
  EXPECT_EQ(minimum_norm.num_free_directions(), 6);
  EXPECT_LT((PullbackOfInvariant(minimum_norm) - expected).norm(), 1e-10 * expected.norm());

  options.singular_handling = SingularHandling::kDampingWithRefinement;
  Sensitivity damping(options);
  ASSERT_TRUE(damping.Compute(&problem_, {log_weights_})) << damping.message();
  EXPECT_LT((PullbackOfInvariant(damping) - expected).norm(), 1e-9 * expected.norm());

  options = Sensitivity::Options();
  options.singular_handling = SingularHandling::kRefuse;
  options.fixed_blocks = {graph_->poses[3].q.data(), graph_->poses[3].t.data()};
  Sensitivity fixed(options);
  ASSERT_TRUE(fixed.Compute(&problem_, {log_weights_})) << fixed.message();
  EXPECT_EQ(fixed.num_free_directions(), 0);
  EXPECT_LT((PullbackOfInvariant(fixed) - expected).norm(), 1e-10 * expected.norm());
  double block[8];
  ASSERT_TRUE(fixed.GetSensitivityBlock(options.fixed_blocks[0], log_weights_, block));
  for (double entry : block) EXPECT_EQ(entry, 0.0);
  options.fixed_blocks.push_back(log_weights_);
  Sensitivity wrong(options);
  EXPECT_FALSE(wrong.Compute(&problem_, {log_weights_}));
  EXPECT_THAT(wrong.message(), HasSubstr("fixed_blocks"));
}

// Moving the world by d adds d to every translation: a null vector, to which dy*/dx of minimum
// norm is orthogonal.
TEST_F(FreeGaugeTest, MinimumNorm) {
  Sensitivity::Options options;
  options.singular_handling = SingularHandling::kMinimumNorm;
  Sensitivity sensitivity(options);
  ASSERT_TRUE(sensitivity.Compute(&problem_, {log_weights_})) << sensitivity.message();
  Eigen::Matrix<double, 3, 2, Eigen::RowMajor> sum, block;
  sum.setZero();
  double size = 0.0;
  for (const Pose& pose : graph_->poses) {
    ASSERT_TRUE(sensitivity.GetSensitivityBlock(pose.t.data(), log_weights_, block.data()));
    sum += block;
    size += block.norm();
  }
  EXPECT_LT(sum.norm(), 1e-9 * size);

  // What depends on the gauge: only minimum norm has an answer, that of its own columns.
  const double* t = graph_->poses[4].t.data();
  const Eigen::Vector3d f(1.0, 2.0, 3.0);
  Eigen::Vector2d gradient;
  ASSERT_TRUE(sensitivity.GetSensitivityBlock(t, log_weights_, block.data()));
  ASSERT_TRUE(sensitivity.Pullback({{t, f.data()}}, log_weights_, gradient.data()));
  EXPECT_LT((gradient - block.transpose() * f).norm(), 1e-9 * gradient.norm());
  for (SingularHandling handling :
       {SingularHandling::kAutomatic, SingularHandling::kDampingWithRefinement}) {
    options.singular_handling = handling;
    Sensitivity refusing(options);
    ASSERT_TRUE(refusing.Compute(&problem_, {log_weights_})) << refusing.message();
    EXPECT_FALSE(refusing.Pullback({{t, f.data()}}, log_weights_, gradient.data()));
    EXPECT_THAT(refusing.message(), HasSubstr("free"));
  }
}

// The derivative of the invariant itself, by differences of re-solves with the gauge held.
TEST_F(FreeGaugeTest, AgreesWithDifferences) {
  Sensitivity sensitivity;
  ASSERT_TRUE(sensitivity.Compute(&problem_, {log_weights_})) << sensitivity.message();
  const Eigen::Vector2d gradient = PullbackOfInvariant(sensitivity);
  const double centre[2] = {log_weights_[0], log_weights_[1]};
  for (int k = 0; k < 2; ++k) {
    const VectorXd difference = Difference(
        [&](double h) -> VectorXd {
          std::copy_n(centre, 2, log_weights_);
          log_weights_[k] += h;
          Sensitivity moved(Polished());
          EXPECT_TRUE(moved.Compute(&problem_, {})) << moved.message();
          const Pose &a = graph_->poses[1], &b = graph_->poses[5];
          Eigen::Matrix<double, 6, 1> r;
          RelativePoseError()(a.q.data(), a.t.data(), b.q.data(), b.t.data(), r.data());
          return VectorXd::Constant(1, 0.5 * r.squaredNorm());
        },
        2e-3);
    EXPECT_NEAR(gradient[k], difference[0], 1e-8 * gradient.norm());
  }
}

struct Saddle {  // A stationary point of (y0^2 - 1)^2 + y1^2 at 0 that is no minimum.
  template <typename T>
  bool operator()(const T* y, const T* x, T* residual) const {
    residual[0] = y[0] * y[0] - 1.0;
    residual[1] = y[1] * x[0];
    return true;
  }
};

TEST(Sensitivity, SaddleIsRefused) {
  double y[2] = {0.0, 0.0}, x = 1.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  problem.lower()->AddResidualBlock(
      new AutoDiffCostFunction<Saddle, 2, 2, 1>(new Saddle), nullptr, y, &x);
  Sensitivity sensitivity;
  EXPECT_FALSE(sensitivity.Compute(&problem, {&x}));
  EXPECT_THAT(sensitivity.message(), HasSubstr("saddle"));
}

}  // namespace
}  // namespace bilevel
