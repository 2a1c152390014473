#include "bilevel/methods/hyper_objective/internal/flat_directions.h"

#include <cmath>
#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/internal/rounding.h"

namespace bilevel {

Directions SplitDirections(const Matrix& j, const Vector& r, const Vector& gradient) {
  const SymmetricEigen eigen(j.transpose() * j);
  const Vector& values = eigen.eigenvalues();
  const double largest = values.size() > 0 ? values[values.size() - 1] : 0.0;
  std::vector<int> flat, learnable;
  for (int i = 0; i < values.size(); ++i) {
    const double slope = std::abs(eigen.eigenvectors().col(i).dot(gradient));
    const bool is_flat = values[i] <= kRoundingOfProduct * largest &&
                         slope <= std::sqrt(kRoundingOfProduct * largest) * r.norm();
    (is_flat ? flat : learnable).push_back(i);
  }
  return {eigen.eigenvectors()(Eigen::all, flat), eigen.eigenvectors()(Eigen::all, learnable)};
}

}  // namespace bilevel
