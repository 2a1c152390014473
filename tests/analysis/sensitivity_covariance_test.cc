// The covariance of y* in real jobs, against ceres::Covariance and dense inverses.
#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/analysis/sensitivity.h"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "bilevel/program/level_evaluator.h"
#include "bilevel/program/program.h"
#include "ceres/ceres.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pose_graph.h"

namespace bilevel {
namespace {

using testing::HasSubstr;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Sensitivity::Options Polished(HessianKind hessian = HessianKind::kGaussNewton) {
  Sensitivity::Options options;
  options.polish = true;
  options.hessian = hessian;
  options.max_num_newton_iterations = 200;
  return options;
}

ceres::Covariance::Options WithRank(int null_space_rank) {
  ceres::Covariance::Options options;
  options.algorithm_type = ceres::DENSE_SVD;
  options.null_space_rank = null_space_rank;
  options.min_reciprocal_condition_number = 1e-13;
  return options;
}

ceres::Covariance::Options SparseQr() {
  ceres::Covariance::Options options;
  options.algorithm_type = ceres::SPARSE_QR;
  return options;
}

// All pairs of these blocks, ambient and tangent, at where Compute left them.
void ExpectAsCeres(const Sensitivity& ours,
                   ceres::Problem* problem,
                   const std::vector<double*>& blocks,
                   const ceres::Covariance::Options& options,
                   double tolerance = 1e-8) {
  ceres::Covariance ceres(options);
  std::vector<std::pair<const double*, const double*>> pairs;
  for (size_t i = 0; i < blocks.size(); ++i) {
    for (size_t j = i; j < blocks.size(); ++j) pairs.emplace_back(blocks[i], blocks[j]);
  }
  ASSERT_TRUE(ceres.Compute(pairs, problem));
  for (const double* a : blocks) {
    for (const double* b : blocks) {
      const int sizes[2][2] = {
          {problem->ParameterBlockSize(a), problem->ParameterBlockSize(b)},
          {problem->ParameterBlockTangentSize(a), problem->ParameterBlockTangentSize(b)}};
      for (const bool tangent : {false, true}) {
        RowMatrix expected(sizes[tangent][0], sizes[tangent][1]), got = expected;
        RowMatrix of_a(sizes[tangent][0], sizes[tangent][0]);
        RowMatrix of_b(sizes[tangent][1], sizes[tangent][1]);
        if (tangent) {
          ceres.GetCovarianceBlockInTangentSpace(a, a, of_a.data());
          ceres.GetCovarianceBlockInTangentSpace(b, b, of_b.data());
          ceres.GetCovarianceBlockInTangentSpace(a, b, expected.data());
          ASSERT_TRUE(ours.GetCovarianceBlockInTangentSpace(a, b, got.data())) << ours.message();
        } else {
          ceres.GetCovarianceBlock(a, a, of_a.data());
          ceres.GetCovarianceBlock(b, b, of_b.data());
          ceres.GetCovarianceBlock(a, b, expected.data());
          ASSERT_TRUE(ours.GetCovarianceBlock(a, b, got.data())) << ours.message();
        }
        EXPECT_LE((got - expected).norm(), tolerance * std::sqrt(of_a.norm() * of_b.norm()))
            << got << "\nand not\n"
            << expected;
      }
    }
  }
}

std::vector<double*> Blocks(PoseGraph* graph) {
  std::vector<double*> blocks;
  for (Pose& pose : graph->poses) {
    blocks.push_back(pose.q.data());
    blocks.push_back(pose.t.data());
  }
  return blocks;
}

// Poses in SE(3), quaternions and translations, each seen from its neighbours alone: far pairs are
// outside of the pattern.
TEST(SensitivityCovariance, OfAPoseGraphIsAsCeresHasIt) {
  ceres::CauchyLoss cauchy(0.1);
  ceres::HuberLoss huber(0.02);
  for (ceres::LossFunction* loss : std::vector<ceres::LossFunction*>{nullptr, &cauchy, &huber}) {
    ceres::Problem::Options unowned;
    unowned.loss_function_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
    auto graph = MakeHelix(14, 2, 0.05, 3);
    ceres::Problem lower(unowned);
    graph->AddEdges(&lower, nullptr, loss);
    graph->AddPrior(&lower, 0, 10.0);
    Problem problem(nullptr, &lower);
    Sensitivity exact(Polished(HessianKind::kExact));  // Gauss-Newton's steps are too slow here.
    ASSERT_TRUE(exact.Compute(&problem, {})) << exact.message();
    Sensitivity::Options options;
    options.hessian = HessianKind::kGaussNewton;
    Sensitivity sensitivity(options);
    ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
    ExpectAsCeres(sensitivity, &lower, Blocks(graph.get()), SparseQr());
    EXPECT_THAT(sensitivity.FullReport(), HasSubstr("inverse of the Gauss-Newton Hessian"));
  }
}

TEST(SensitivityCovariance, OfAFreeGaugeIsOfMinimalNorm) {
  auto graph = MakeHelix(14, 2, 0.05, 3);
  ceres::Problem lower;
  graph->AddEdges(&lower, nullptr);
  Problem problem(nullptr, &lower);
  Sensitivity sensitivity(Polished());
  ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
  EXPECT_EQ(sensitivity.num_free_directions(), 6);
  EXPECT_EQ(sensitivity.FullReport().find("covariance"), std::string::npos);
  ExpectAsCeres(sensitivity, &lower, Blocks(graph.get()), WithRank(-1));
  ExpectAsCeres(sensitivity, &lower, Blocks(graph.get()), WithRank(6));
  EXPECT_THAT(sensitivity.FullReport(), HasSubstr("of minimal norm in the free directions"));
}

// Poses in SE(2), a ring with chords.
struct Ring {
  explicit Ring(int n) : poses(n) {
    std::mt19937 generator(5);
    std::normal_distribution<double> normal(0.0, 0.02);
    for (int i = 0; i < n; ++i) {
      const double angle = 2.0 * M_PI * i / n;
      poses[i].v = {3.0 * std::cos(angle), 3.0 * std::sin(angle), angle};
    }
    for (int i = 0; i < n; ++i) {
      for (const int step : {1, 5}) {
        const int j = (i + step) % n;
        examples::Pose2 z;
        examples::Between(poses[i].v.data(), poses[j].v.data(), z.v.data());
        for (double& value : z.v) value += normal(generator);
        problem.AddResidualBlock(new AutoDiffCostFunction<examples::RelativePoseError2, 3, 3, 3>(
                                     new examples::RelativePoseError2{z}),
                                 nullptr,
                                 poses[i].v.data(),
                                 poses[j].v.data());
      }
    }
  }
  std::vector<double*> Blocks() {
    std::vector<double*> blocks;
    for (examples::Pose2& pose : poses) blocks.push_back(pose.v.data());
    return blocks;
  }
  std::vector<examples::Pose2> poses;
  ceres::Problem problem;
};

TEST(SensitivityCovariance, OfPlanarPosesFreeFixedAndConstant) {
  for (const int kind : {0, 1, 2}) {
    Ring ring(30);
    Sensitivity::Options options = Polished();
    double* const first = ring.poses[0].v.data();
    if (kind == 1) {
      ring.problem.SetParameterBlockConstant(first);
      ring.problem.SetManifold(ring.poses[4].v.data(), new ceres::SubsetManifold(3, {2}));
    }
    if (kind == 2) options.fixed_blocks = {first};
    Problem problem(nullptr, &ring.problem);
    Sensitivity sensitivity(options);
    ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
    EXPECT_EQ(sensitivity.num_free_directions(), kind == 0 ? 3 : 0);
    // What is fixed for us alone is constant for Ceres.
    if (kind == 2) ring.problem.SetParameterBlockConstant(first);
    ExpectAsCeres(sensitivity, &ring.problem, ring.Blocks(), kind == 0 ? WithRank(-1) : SparseQr());
    double block[9];
    std::fill_n(block, 9, 1.0);
    ASSERT_TRUE(sensitivity.GetCovarianceBlock(first, ring.poses[3].v.data(), block));
    EXPECT_EQ(block[0] == 0.0 && block[8] == 0.0, kind != 0);
  }
}

struct Projection {
  template <typename T>
  bool operator()(const T* camera, const T* point, T* residual) const {
    T p[3];
    bilevel::AngleAxisRotatePoint(camera, point, p);
    for (int k = 0; k < 3; ++k) p[k] += camera[3 + k];
    residual[0] = 100.0 * p[0] / p[2] - u;
    residual[1] = 100.0 * p[1] / p[2] - v;
    return true;
  }
  double u, v;
};

// Points, of which each is seen by three cameras beside each other, on a wall along which these
// move.
struct Bundle {
  Bundle(int num_cameras, int num_points) : cameras(num_cameras), points(num_points) {
    std::mt19937 generator(7);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    for (int c = 0; c < num_cameras; ++c) {
      for (int k = 0; k < 3; ++k) cameras[c][k] = 0.1 * uniform(generator);
      cameras[c][3] = -1.0 * c + 0.2 * uniform(generator);
      cameras[c][4] = 0.4 * uniform(generator);
      cameras[c][5] = 6.0 + uniform(generator);
    }
    for (int p = 0; p < num_points; ++p) {
      const int c = p * (num_cameras - 2) / num_points;
      points[p] = {c + 1.0 + uniform(generator), uniform(generator), uniform(generator)};
      for (int k = c; k < c + 3; ++k) {
        Projection projection{0.0, 0.0};
        double seen[2];
        projection(cameras[k].data(), points[p].data(), seen);
        projection.u = seen[0] + 0.3 * normal(generator);
        projection.v = seen[1] + 0.3 * normal(generator);
        problem.AddResidualBlock(
            new AutoDiffCostFunction<Projection, 2, 6, 3>(new Projection(projection)),
            nullptr,
            cameras[k].data(),
            points[p].data());
      }
    }
  }
  std::vector<std::array<double, 6>> cameras;
  std::vector<std::array<double, 3>> points;
  ceres::Problem problem;
};

TEST(SensitivityCovariance, OfABundleAdjustmentGoesThroughItsPoints) {
  for (const bool is_free : {true, false}) {
    Bundle bundle(14, 240);
    if (!is_free) {
      bundle.problem.SetParameterBlockConstant(bundle.cameras[0].data());
      bundle.problem.SetParameterBlockConstant(bundle.points[100].data());
    }
    Problem problem(nullptr, &bundle.problem);
    Sensitivity sensitivity(Polished());
    ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
    EXPECT_EQ(sensitivity.num_free_directions(), is_free ? 7 : 0);
    std::vector<double*> blocks;
    for (int c : {0, 1, 2, 7, 13}) blocks.push_back(bundle.cameras[c].data());
    for (int p : {0, 1, 100, 130, 239}) blocks.push_back(bundle.points[p].data());
    ExpectAsCeres(sensitivity, &bundle.problem, blocks, is_free ? WithRank(-1) : SparseQr());
  }
}

// The exact Hessian, inverted as a dense matrix.
Matrix DenseInverse(Problem* problem, int* rank) {
  std::string error;
  Problem::CompileOptions options;
  options.need_f = options.need_x = false;
  const auto program = problem->Compile(options, &error);
  EXPECT_TRUE(program) << error;
  const Program::Scenario& scenario = *program->scenarios[0];
  LevelEvaluator g(scenario.g.get(), nullptr);
  Vector x(program->x.size()), y(program->y.size()), gradient(program->y.tangent_size());
  program->x.ReadUser(x.data());
  program->y.ReadUser(y.data());
  SparseMatrix hessian = scenario.g->yy_pattern();
  double value;
  EXPECT_TRUE(g.Hessian(
      x.data(), y.data(), HessianKind::kExact, &value, gradient.data(), &hessian, nullptr));
  const SymmetricEigen eigen{Matrix(hessian)};
  Vector inverse = eigen.eigenvalues();
  *rank = 0;
  for (double& eigenvalue : inverse) {
    const bool is_kept = eigenvalue > 1e-9 * eigen.eigenvalues().tail(1)[0];
    *rank += is_kept;
    eigenvalue = is_kept ? 1.0 / eigenvalue : 0.0;
  }
  return eigen.eigenvectors() * inverse.asDiagonal() * eigen.eigenvectors().transpose();
}

TEST(SensitivityCovariance, WithExactHessiansIsTheirDenseInverse) {
  for (const bool is_free : {true, false}) {
    auto graph = MakeHelix(12, 3, 0.1, 4);
    ceres::Problem lower;
    graph->AddEdges(&lower, nullptr, new ceres::CauchyLoss(0.1));
    if (!is_free) graph->AddPrior(&lower, 0, 10.0);
    Problem problem(nullptr, &lower);
    Sensitivity sensitivity(Polished(HessianKind::kExact));
    ASSERT_TRUE(sensitivity.Compute(&problem, {})) << sensitivity.message();
    int rank;
    const Matrix expected = DenseInverse(&problem, &rank);
    EXPECT_EQ(rank, expected.rows() - (is_free ? 6 : 0));
    // Blocks stand in the order of their residual blocks: pose after pose.
    const std::vector<double*> blocks = Blocks(graph.get());
    for (int a = 0; a < 24; ++a) {
      for (int b = 0; b < 24; ++b) {
        RowMatrix block(3, 3);
        ASSERT_TRUE(
            sensitivity.GetCovarianceBlockInTangentSpace(blocks[a], blocks[b], block.data()))
            << sensitivity.message();
        EXPECT_LT((block - expected.block(3 * a, 3 * b, 3, 3)).norm(), 1e-9 * expected.norm())
            << a << ", " << b;
      }
    }
    EXPECT_THAT(sensitivity.FullReport(), HasSubstr("inverse of the exact Hessian"));
  }
}

}  // namespace
}  // namespace bilevel
