#include "bilevel/lower_level/selected_inverse.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "Eigen/SparseCholesky"
#include "bilevel/base/internal/decompositions.h"
#include "bilevel/lower_level/factorization.h"
#include "bilevel/lower_level/internal/supernodal_factor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lower_level/matrices.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

// The inverse of what is left without the fixed coordinates, and zero there.
Matrix DenseInverse(const SparseMatrix& lower, double damping, const std::vector<char>* fixed) {
  const int n = static_cast<int>(lower.rows());
  Matrix full = Matrix(lower).selfadjointView<Eigen::Lower>();
  full.diagonal() *= 1.0 + damping;
  std::vector<int> free;
  for (int i = 0; i < n; ++i) {
    if (!fixed || !(*fixed)[i]) free.push_back(i);
  }
  Matrix own, inverse = Matrix::Zero(n, n);
  EXPECT_TRUE(InvertPositiveDefinite(full(free, free), &own));
  inverse(free, free) = own;
  return inverse;
}

double DenseLogDeterminant(const Matrix& inverse) {
  Matrix l;
  EXPECT_TRUE(Cholesky(inverse, &l));
  return -2.0 * l.diagonal().array().log().sum();
}

// Entry by entry where there are no blocks; returns the share of entries that are inside.
double ExpectInverse(const SparseMatrix& lower,
                     double damping,
                     const std::vector<char>* fixed,
                     const std::string& by) {
  SCOPED_TRACE(by);
  const int n = static_cast<int>(lower.rows());
  Factorization factorization(lower);
  EXPECT_EQ(factorization.Factorize(lower, damping, fixed),
            Factorization::Status::kPositiveDefinite);
  EXPECT_THAT(factorization.Describe(), HasSubstr(by));
  const SelectedInverse selected(factorization);
  const Matrix expected = DenseInverse(lower, damping, fixed);
  if (!fixed) {
    EXPECT_NEAR(factorization.LogDeterminant(), DenseLogDeterminant(expected), 1e-11 * n);
  }
  Matrix entry;
  long inside = 0;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      const bool is_inside = selected.GetBlock(i, 1, j, 1, &entry);
      if (!is_inside) {
        // What A itself has is always there.
        EXPECT_EQ(lower.coeff(std::max(i, j), std::min(i, j)), 0.0) << i << ", " << j;
        continue;
      }
      ++inside;
      const double scale = std::sqrt(expected(i, i) * expected(j, j));
      EXPECT_NEAR(entry(0, 0), expected(i, j), 1e-12 * scale) << i << ", " << j;
    }
  }
  return static_cast<double>(inside) / n / n;
}

TEST(SelectedInverse, IsTheDenseInverseOnThePattern) {
  EXPECT_EQ(ExpectInverse(RandomLower(1, 0.5), 0.0, nullptr, "dense"), 1.0);
  EXPECT_EQ(ExpectInverse(RandomLower(20, 0.3), 0.0, nullptr, "dense"), 1.0);
  EXPECT_EQ(ExpectInverse(RandomLower(300, 0.5), 0.0, nullptr, "dense"), 1.0);
  EXPECT_LT(ExpectInverse(Chain(300), 0.0, nullptr, "simplicial"), 0.01);
  EXPECT_LT(ExpectInverse(Grid(8, 3, 0), 0.0, nullptr, "Cholesky"), 0.6);
  // CHOLMOD's supernodes, where it is built in, some of them wider than a panel.
  EXPECT_LT(ExpectInverse(Grid(13, 6, 30), 0.0, nullptr, "Cholesky"), 0.9);
}

TEST(SelectedInverse, KnowsDampingAndFixedCoordinates) {
  for (const SparseMatrix& lower :
       {RandomLower(20, 0.3), Chain(60), Grid(8, 3, 0), Grid(9, 6, 9)}) {
    std::vector<char> fixed(lower.rows(), 0);
    for (size_t i = 0; i < fixed.size(); i += 7) fixed[i] = 1;
    ExpectInverse(lower, 0.5, &fixed, "");
  }
}

// This also is the way of a factor by Eigen's simplicial method.
TEST(SelectedInverse, KnowsSigns) {
  for (const bool is_definite : {true, false}) {
    SparseMatrix lower = Grid(7, 2, 5);
    const int n = static_cast<int>(lower.rows());
    for (int i = 0; i < n && !is_definite; i += 3) lower.coeffRef(i, i) *= -1.0;
    const Eigen::SimplicialLDLT<SparseMatrix, Eigen::Lower, Eigen::AMDOrdering<int>> ldlt(lower);
    SupernodalFactor factor;
    factor.GatherLdlt(ldlt);
    EXPECT_EQ(factor.signs.size() == 0, is_definite);
    const SelectedInverse selected(std::move(factor), Vector::Ones(n));
    const Matrix full = Matrix(lower).selfadjointView<Eigen::Lower>();
    const Matrix expected = SolveSquare(full, Matrix::Identity(n, n));
    Matrix entry;
    for (int j = 0; j < n; ++j) {
      for (SparseMatrix::InnerIterator a(lower, j); a; ++a) {
        const int i = static_cast<int>(a.row());
        ASSERT_TRUE(selected.GetBlock(i, 1, j, 1, &entry));
        EXPECT_NEAR(entry(0, 0), expected(i, j), 1e-11 * expected.norm()) << i << ", " << j;
      }
    }
  }
}

// Units that differ by ten orders of magnitude.
TEST(SelectedInverse, UndoesTheScaling) {
  SparseMatrix lower = Grid(8, 3, 0);
  Vector units(lower.rows());
  for (int i = 0; i < units.size(); ++i) units[i] = std::pow(10.0, i % 11 - 5);
  const SparseMatrix scaled = units.asDiagonal() * lower * units.asDiagonal();
  Factorization factorization(scaled);
  ASSERT_EQ(factorization.Factorize(scaled, 0.0, nullptr),
            Factorization::Status::kPositiveDefinite);
  const SelectedInverse selected(factorization);
  const Matrix expected = DenseInverse(lower, 0.0, nullptr);
  Matrix entry;
  for (int i = 0; i < units.size(); ++i) {
    ASSERT_TRUE(selected.GetBlock(i, 1, i, 1, &entry));
    EXPECT_NEAR(entry(0, 0) * units[i] * units[i], expected(i, i), 1e-12 * expected(i, i));
  }
}

TEST(SelectedInverse, GoesThroughSchurElimination) {
  for (const int num_cameras : {8, 40}) {  // S is full, or sparse.
    const Network network(num_cameras, 9 * num_cameras, num_cameras > 8);
    Factorization factorization(network.lower, &network.space);
    EXPECT_THAT(factorization.Describe(), HasSubstr("after Schur elimination"));
    EXPECT_EQ(factorization.Describe().find("dense") == 0, num_cameras == 8);
    std::vector<char> fixed(network.dense.rows(), 0);
    fixed[4] = fixed[130] = fixed[fixed.size() - 1] = 1;
    for (const bool fix : {false, true}) {
      ASSERT_EQ(factorization.Factorize(network.lower, 0.0, fix ? &fixed : nullptr),
                Factorization::Status::kPositiveDefinite);
      const SelectedInverse selected(factorization);
      const Matrix expected = DenseInverse(network.lower, 0.0, fix ? &fixed : nullptr);
      if (!fix) {
        EXPECT_NEAR(factorization.LogDeterminant(), DenseLogDeterminant(expected), 1e-9);
      }
      Matrix block;
      int num_inside = 0;
      for (const Space::Block& a : network.space.blocks()) {
        for (const Space::Block& b : network.space.blocks()) {
          const auto own = [&](const Matrix& m) {
            return m.block(a.tangent_offset, b.tangent_offset, a.tangent_size, b.tangent_size);
          };
          if (!selected.GetBlock(
                  a.tangent_offset, a.tangent_size, b.tangent_offset, b.tangent_size, &block)) {
            EXPECT_TRUE(own(network.pattern).isZero()) << a.name << ", " << b.name;
            continue;
          }
          ++num_inside;
          EXPECT_LT((block - own(expected)).norm(), 1e-12) << num_cameras;
          // Parts of a block, too.
          ASSERT_TRUE(selected.GetBlock(a.tangent_offset + 1, 1, b.tangent_offset + 1, 2, &block));
          EXPECT_LT((block - own(expected).block(1, 1, 1, 2)).norm(), 1e-12);
        }
      }
      const int num_blocks = static_cast<int>(network.space.blocks().size());
      EXPECT_EQ(num_inside == num_blocks * num_blocks, num_cameras == 8);
    }
  }
}

}  // namespace
}  // namespace bilevel
