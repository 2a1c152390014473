#include "bilevel/lower_level/factorization.h"

#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "lower_level/matrices.h"

namespace bilevel {
namespace {

void ExpectSolves(const SparseMatrix& lower, const std::string& by) {
  SCOPED_TRACE(by);
  const int n = static_cast<int>(lower.rows());
  Factorization factorization(lower);
  ASSERT_EQ(factorization.Factorize(lower, 0.0, nullptr), Factorization::Status::kPositiveDefinite);
  EXPECT_NE(factorization.Describe().find(by), std::string::npos) << factorization.Describe();
  const Matrix full = Matrix(lower).selfadjointView<Eigen::Lower>();
  const Vector b = Vector::LinSpaced(n, -1.0, 2.0);
  Vector x;
  factorization.Solve(b, &x);
  EXPECT_LT((full * x - b).norm(), 1e-10 * b.norm());

  // Damping is on the matrix scaled to a unit diagonal.
  factorization.Factorize(lower, 0.5, nullptr);
  Matrix damped = full;
  damped.diagonal() *= 1.5;
  factorization.Solve(b, &x);
  EXPECT_LT((damped * x - b).norm(), 1e-10 * b.norm());

  // A coordinate taken out.
  std::vector<char> fixed(n, 0);
  fixed[1] = 1;
  factorization.Factorize(lower, 0.0, &fixed);
  factorization.Solve(b, &x);
  EXPECT_EQ(x[1], 0.0);
  Vector rest = full * x - b;
  rest[1] = 0.0;
  EXPECT_LT(rest.norm(), 1e-10 * b.norm());

  SparseMatrix indefinite = lower;
  indefinite.coeffRef(n / 2, n / 2) *= -1.0;
  EXPECT_EQ(factorization.Factorize(indefinite, 0.0, nullptr),
            Factorization::Status::kNotPositiveDefinite);
  SparseMatrix infinite = lower;
  infinite.coeffRef(n / 2, n / 2) = std::numeric_limits<double>::infinity();
  EXPECT_EQ(factorization.Factorize(infinite, 0.0, nullptr), Factorization::Status::kNotFinite);
}

TEST(Factorization, ChoosesByFill) {
  ExpectSolves(RandomLower(8, 0.2), "dense");
  ExpectSolves(RandomLower(200, 0.5), "dense");
  ExpectSolves(Chain(500), "simplicial");
  ExpectSolves(RandomLower(400, 0.004), "Cholesky");  // CHOLMOD's, where it is built in.
}

}  // namespace
}  // namespace bilevel
