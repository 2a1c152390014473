#include "bilevel/methods/hyper_objective/internal/cubic_model.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace bilevel {
namespace {

// A curvature below this share of the largest is none.
constexpr double kFlat = 1e-6;
// And slopes and curvatures below this are rounding, if slopes are so beside the others too.
constexpr double kRounding = 1e-9, kRoundingOfSlope = 1e-10;
// |s| is found to this accuracy.
constexpr double kRoot = 1e-10;
constexpr double kHuge = 1e300;  // No curvature is so large.

}  // namespace

CubicModel::CubicModel(const Vector& g, const Matrix& b, double gradient_tolerance) : g_(g), b_(b) {
  const SymmetricEigen eigen(b);
  values_ = eigen.eigenvalues();
  vectors_ = eigen.eigenvectors();
  slopes_ = vectors_.transpose() * g;
  const double rounding = kRounding * largest_curvature();
  const double no_slope =
      std::min(rounding, std::max(gradient_tolerance, kRoundingOfSlope * slopes_.norm()));
  for (int i = 0; i < values_.size(); ++i) {
    if (std::abs(values_[i]) <= rounding && std::abs(slopes_[i]) <= no_slope) {
      values_[i] = slopes_[i] = 0.0;
    }
  }
}

Matrix CubicModel::flat_directions() const {
  std::vector<int> flat;
  for (int i = 0; i < values_.size(); ++i) {
    if (values_[i] == 0.0 && slopes_[i] == 0.0) flat.push_back(i);
  }
  return vectors_(Eigen::all, flat);
}

Matrix CubicModel::undecided_directions() const {
  std::vector<int> undecided;
  for (int i = 0; i < values_.size(); ++i) {
    if (std::abs(values_[i]) <= kFlat * largest_curvature()) undecided.push_back(i);
  }
  return vectors_(Eigen::all, undecided);
}

Vector CubicModel::Minimize(double sigma) const {
  const double base = std::max(0.0, -values_.minCoeff());
  // s(base + shift); where slope and curvature both vanish, so does its part.
  const auto step = [&](double shift) -> Vector {
    Vector s = Vector::Zero(values_.size());
    for (int i = 0; i < s.size(); ++i) {
      if (slopes_[i] != 0.0) s[i] = -slopes_[i] / (values_[i] + base + shift);
    }
    return s;
  };
  const auto is_too_long = [&](double shift) {
    return !(step(shift).norm() <= (base + shift) / sigma);
  };
  // |s| falls with the shift and mu / sigma grows: the logarithm of their root is bisected.
  const double scale = std::max(largest_curvature(), std::sqrt(sigma * slopes_.norm()));
  double low = 1e-16 * scale, high = scale;
  while (high < kHuge && is_too_long(high)) high *= 4.0;
  while (low > 0.0 && high > low * (1.0 + kRoot)) {
    const double middle = std::sqrt(low * high);
    (is_too_long(middle) ? low : high) = middle;
  }
  Vector s = step(high);
  // The hard case: what is missing lies along the least eigenvalue's vector, downhill.
  const double length = (base + high) / sigma;
  if (base > 0.0 && s.norm() < (1.0 - 1e-6) * length) {
    s[0] = 0.0;
    s[0] = (slopes_[0] > 0.0 ? -1.0 : 1.0) * std::sqrt(length * length - s.squaredNorm());
  }
  return vectors_ * s;
}

double CubicModel::Change(const Vector& s, double sigma) const {
  return g_.dot(s) + 0.5 * s.dot(b_ * s) + sigma / 3.0 * std::pow(s.norm(), 3);
}

bool CubicModel::is_convex() const { return values_.minCoeff() >= -kFlat * largest_curvature(); }

double CubicModel::NewtonDecrease() const {
  const double least = kRounding * largest_curvature();
  double decrease = 0.0;
  for (int i = 0; i < values_.size(); ++i) {
    if (slopes_[i] != 0.0) {
      decrease += 0.5 * slopes_[i] * slopes_[i] / std::max(values_[i], least);
    }
  }
  return decrease;
}

}  // namespace bilevel
