#include "bilevel/lower_level/internal/schur_of_rows.h"

#include <random>
#include <vector>

#include "Eigen/Cholesky"
#include "gtest/gtest.h"
#include "lower_level/matrices.h"

namespace bilevel {
namespace {

// Against a dense inverse, the fixed coordinates taken out of both.
void ExpectSchur(const SparseMatrix& lower, const Space* space, bool with_fixed) {
  const int n = static_cast<int>(lower.rows()), q = 12;
  std::mt19937 generator(7);
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  RowSparseMatrix b(q + 3, n);
  for (int k = 0; k < q + 3; ++k) {
    for (int t = 0; t < 4; ++t) {
      b.coeffRef(k, std::uniform_int_distribution<int>(0, n - 1)(generator)) = uniform(generator);
    }
  }
  b.makeCompressed();
  std::vector<char> fixed(n, 0);
  for (int i = 0; with_fixed && i < n; i += 5) fixed[i] = 1;
  std::vector<int> rows;  // Some of B's, in another order.
  for (int k = q + 2; k >= 3; --k) rows.push_back(k);
  HessianSystem system(lower, space, true);
  ASSERT_TRUE(system.Prepare(
      &lower, with_fixed ? &fixed : nullptr, SingularHandling::kAutomatic, false, nullptr));
  Matrix s;
  ASSERT_TRUE(SchurOfRows(b, rows, &system, &s));

  Matrix dense = Matrix(lower).selfadjointView<Eigen::Lower>(), dense_b = b;
  for (int i = 0; i < n; ++i) {
    if (!fixed[i]) continue;
    dense.row(i).setZero();
    dense.col(i).setZero();
    dense(i, i) = 1.0;
    dense_b.col(i).setZero();
  }
  const Matrix chosen = dense_b(rows, Eigen::all);
  const Matrix expected = chosen * Eigen::LLT<Matrix>(dense).solve(chosen.transpose());
  EXPECT_LT((s - expected).norm(), 1e-11 * expected.norm());
}

TEST(SchurOfRows, IsThatOfDenseInverses) {
  for (const bool with_fixed : {false, true}) {
    ExpectSchur(RandomLower(30, 0.2), nullptr, with_fixed);  // Dense.
    ExpectSchur(RandomLower(400, 0.01), nullptr, with_fixed);
    ExpectSchur(Chain(500), nullptr, with_fixed);
    ExpectSchur(Grid(16, 3, 10), nullptr, with_fixed);
  }
}

TEST(SchurOfRows, GoesBySolvesAfterElimination) {
  const Network network(8, 400);
  for (const bool with_fixed : {false, true}) {
    ExpectSchur(network.lower, &network.space, with_fixed);
  }
}

TEST(SchurOfRows, OfNoRowsIsEmpty) {
  const SparseMatrix lower = Chain(5);
  HessianSystem system(lower, nullptr, true);
  ASSERT_TRUE(system.Prepare(&lower, nullptr, SingularHandling::kAutomatic, false, nullptr));
  Matrix s;
  EXPECT_TRUE(SchurOfRows(RowSparseMatrix(3, 5), {}, &system, &s));
  EXPECT_EQ(s.size(), 0);
}

}  // namespace
}  // namespace bilevel
