#include "bilevel/lower_level/internal/schur_elimination.h"

#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/lower_level/factorization.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lower_level/matrices.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

TEST(SchurElimination, SolvesAsADenseFactorizationDoes) {
  Network network(8, 120);
  Factorization factorization(network.lower, &network.space);
  EXPECT_THAT(factorization.Describe(), HasSubstr("of 48 unknowns, after Schur elimination"));
  const int n = static_cast<int>(network.dense.rows());
  std::vector<char> fixed(n, 0);
  fixed[4] = fixed[130] = fixed[n - 1] = 1;
  for (const bool fix : {false, true}) {
    Matrix h = network.dense;
    for (int i = 0; i < n && fix; ++i) {
      if (!fixed[i]) continue;
      h.row(i).setZero();
      h.col(i).setZero();
      h(i, i) = 1.0;
    }
    Matrix b = Matrix::Random(n, 3);
    ASSERT_EQ(factorization.Factorize(network.lower, 0.0, fix ? &fixed : nullptr),
              Factorization::Status::kPositiveDefinite);
    Matrix x;
    factorization.Solve(b, &x);
    for (int i = 0; i < n && fix; ++i) {
      if (fixed[i]) b.row(i).setZero();
    }
    EXPECT_LT((h * x - b).norm(), 1e-12 * b.norm());
    Vector column;
    factorization.Solve(Vector(b.col(1)), &column);
    EXPECT_LT((column - x.col(1)).norm(), 1e-13 * column.norm());
  }
}

TEST(SchurElimination, ReducedMatrixIsTheSchurComplement) {
  Network network(5, 200);
  SchurElimination schur(network.lower, network.space);
  ASSERT_TRUE(schur.Pays());
  EXPECT_GT(schur.Reduce(network.lower), 0.0);
  // (S^-1) is the block of H^-1 that belongs to what is kept.
  std::vector<int> kept;
  for (const Space::Block& b : network.space.blocks()) {
    for (int k = 0; k < b.tangent_size && b.tangent_size == 6; ++k) {
      kept.push_back(b.tangent_offset + k);
    }
  }
  const Matrix inverse = PseudoInverse(network.dense)(kept, kept);
  const Matrix s = Matrix(schur.reduced()).selfadjointView<Eigen::Lower>();
  EXPECT_LT((s * inverse - Matrix::Identity(30, 30)).norm(), 1e-11);
}

TEST(SchurElimination, FindsIndefiniteBlocks) {
  Network network(8, 120);
  Factorization factorization(network.lower, &network.space);
  for (const int i : {0, 4}) {  // In a point, in a camera.
    SparseMatrix indefinite = network.lower;
    indefinite.coeffRef(i, i) -= 1e3;
    EXPECT_EQ(factorization.Factorize(indefinite, 0.0, nullptr),
              Factorization::Status::kNotPositiveDefinite);
  }
}

TEST(SchurElimination, LeavesOtherMatricesAlone) {
  // A chain has no more than every other block to eliminate.
  std::vector<double> memory(300);
  Space space;
  std::vector<Eigen::Triplet<double>> entries;
  for (int i = 0; i < 300; ++i) {
    space.Add(&memory[i], 1, nullptr, "link");
    entries.emplace_back(i, i, 2.5);
    if (i > 0) entries.emplace_back(i, i - 1, -1.0);
  }
  SparseMatrix lower(300, 300);
  lower.setFromTriplets(entries.begin(), entries.end());
  EXPECT_FALSE(SchurElimination(lower, space).Pays());
}

TEST(SchurElimination, LeavesSomethingOver) {
  // A diagonal matrix, such as of a lower level whose blocks share no residual.
  std::vector<double> memory(300);
  Space space;
  SparseMatrix lower(300, 300);
  lower.setIdentity();
  for (double& value : memory) space.Add(&value, 1, nullptr, "alone");
  EXPECT_FALSE(SchurElimination(lower, space).Pays());
}

}  // namespace
}  // namespace bilevel
