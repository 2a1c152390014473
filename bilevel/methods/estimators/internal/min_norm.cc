#include "bilevel/methods/estimators/internal/min_norm.h"

#include <algorithm>
#include <vector>

#include "bilevel/base/internal/decompositions.h"

namespace bilevel {
namespace {

constexpr double kRounding = 1e-12;

// Weights of sum one, of either sign, with the combination of least norm.
Vector MinNormInAffineHull(const Matrix& corners) {
  const int n = static_cast<int>(corners.cols());
  Matrix system = Matrix::Ones(n + 1, n + 1);
  system(n, n) = 0.0;
  system.topLeftCorner(n, n) = corners.transpose() * corners;
  const double scale = std::max(system.diagonal().maxCoeff(), 1e-300);
  system.topLeftCorner(n, n) /= scale;
  Vector right = Vector::Zero(n + 1);
  right[n] = 1.0;
  return LeastSquares(system, right).head(n);
}

}  // namespace

Vector MinNormInHull(const Matrix& columns) {
  const Vector squares = columns.colwise().squaredNorm();
  int least;
  squares.minCoeff(&least);
  const double rounding = kRounding * squares.maxCoeff();
  std::vector<int> corral = {least};  // Affinely independent columns; the point is within them.
  Vector weights = Vector::Ones(1), point = columns.col(least);
  for (int step = 0; step < 10 * columns.cols() + 10; ++step) {
    int next;
    const double support = (columns.transpose() * point).minCoeff(&next);
    const bool is_in = std::find(corral.begin(), corral.end(), next) != corral.end();
    if (is_in || support >= point.squaredNorm() - rounding) break;
    corral.push_back(next);
    weights.conservativeResize(corral.size());
    weights.tail(1).setZero();
    for (;;) {
      const Vector wish = MinNormInAffineHull(columns(Eigen::all, corral));
      double share = 1.0;  // Of the way to it, up to the first weight that vanishes.
      for (int i = 0; i < wish.size(); ++i) {
        if (wish[i] <= kRounding) share = std::min(share, weights[i] / (weights[i] - wish[i]));
      }
      weights += share * (wish - weights);
      if (share >= 1.0) break;
      std::vector<int> kept;
      for (int i = 0; i < weights.size(); ++i) {
        if (weights[i] > kRounding) kept.push_back(i);
      }
      const std::vector<int> before = corral;
      corral.clear();
      for (const int i : kept) corral.push_back(before[i]);
      weights = Vector(weights(kept));
      weights /= weights.sum();
    }
    point = columns(Eigen::all, corral) * weights;
  }
  return point;
}

}  // namespace bilevel
