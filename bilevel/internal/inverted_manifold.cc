#include "bilevel/internal/inverted_manifold.h"

#include <limits>

#include "Eigen/Core"
#include "bilevel/base/internal/decompositions.h"

namespace bilevel {
namespace {

constexpr int kMaxIterations = 50;
// Of central differences of Plus, which make its Jacobian beside zero.
constexpr double kStep = 1e-5;
// A distance that is rounding, relative to y, and one that is near enough where steps stall.
constexpr double kRounding = 4e-16, kNear = 1e-12;

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace

bool InvertedManifold::Minus(const double* y, const double* x, double* y_minus_x) const {
  const int size = AmbientSize(), tangent_size = TangentSize();
  const Eigen::Map<const Eigen::VectorXd> target(y, size);
  Eigen::Map<Eigen::VectorXd> d(y_minus_x, tangent_size);
  Eigen::VectorXd reached(size), ahead(size), behind(size), moved;
  Eigen::MatrixXd jacobian(size, tangent_size);
  d.setZero();
  double before = std::numeric_limits<double>::infinity();
  for (int k = 0; k < kMaxIterations; ++k) {
    if (!Plus(x, d.data(), reached.data())) return false;
    const double distance = (target - reached).norm();
    if (distance <= kRounding * target.norm()) return true;
    if (distance <= kNear * target.norm() && !(distance < 0.5 * before)) return true;
    before = distance;
    for (int j = 0; j < tangent_size; ++j) {
      moved = d;
      moved[j] += kStep;
      if (!Plus(x, moved.data(), ahead.data())) return false;
      moved[j] -= 2.0 * kStep;
      if (!Plus(x, moved.data(), behind.data())) return false;
      jacobian.col(j) = (ahead - behind) / (2.0 * kStep);
    }
    d += LeastSquares(jacobian, target - reached);
  }
  return false;
}

bool InvertedManifold::MinusJacobian(const double* x, double* jacobian) const {
  RowMajor plus(AmbientSize(), TangentSize());
  if (!PlusJacobian(x, plus.data())) return false;
  Eigen::Map<RowMajor>(jacobian, TangentSize(), AmbientSize()) = PseudoInverse(plus);
  return true;
}

}  // namespace bilevel
