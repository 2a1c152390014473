#include "bilevel/methods/hyper_objective/internal/trust_region.h"

#include <algorithm>
#include <cmath>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/base/memory.h"

namespace bilevel {

Vector TrustRegionStep(const Matrix& b, const Vector& g, double radius) {
  if (g.size() == 0 || g.norm() == 0.0) return Vector::Zero(g.size());
  const SymmetricEigen eigen(b);
  const Vector& values = eigen.eigenvalues();
  const Vector c = eigen.eigenvectors().transpose() * g;
  const auto step = [&](double mu) -> Vector {
    return -(c.array() / (values.array() + mu)).matrix();
  };
  if (values[0] > 0.0 && step(0.0).norm() <= radius) return eigen.eigenvectors() * step(0.0);
  // |s(mu)| falls with mu: its logarithm is bisected above -smallest, which rounding may leave.
  const double scale = std::max(values.cwiseAbs().maxCoeff(), c.norm() / radius);
  const double base = std::max(0.0, -values[0]);
  double low = 1e-16 * scale, high = 2.0 * scale;
  while (step(base + high).norm() > radius) high *= 4.0;
  for (int k = 0; k < 200 && high > low * (1.0 + 1e-10); ++k) {
    const double middle = std::sqrt(low * high);
    (step(base + middle).norm() > radius ? low : high) = middle;
  }
  return eigen.eigenvectors() * step(base + high);
}

void TrustRegion::Accept(double step_norm, double model_ratio, double ratio) {
  const double growth = num_rejected_ > 0 ? 1.0 : 2.0;  // Not back at once to what was rejected.
  num_rejected_ = 0;
  if (model_ratio > 0.75) {
    radius_ = std::min(max_radius_, std::max(radius_, growth * step_norm));
  } else if (ratio < 0.25) {
    radius_ = 0.5 * std::min(radius_, step_norm);
  }
}

void TrustRegion::Reject(double step_norm, double slope, double change) {
  ++num_rejected_;
  const double share = -0.5 * slope / (change - slope);
  const bool has_parabola = slope < 0.0 && !std::isnan(share);
  radius_ = (has_parabola ? std::clamp(share, 0.1, 0.5) : 0.25) * std::min(radius_, step_norm);
}

void TrustRegion::Remember(Memory* memory) {
  memory->Keep("radius", &radius_);
  memory->Keep("num_rejected", &num_rejected_);
}

}  // namespace bilevel
