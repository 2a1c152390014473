#include "bilevel/derivatives/manifold_hessian.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "ceres/product_manifold.h"
#include "ceres/sphere_manifold.h"
#include "ceres/types.h"

namespace bilevel {
namespace {

template <typename... Ms>
bool IsAnyOf(const ceres::Manifold& manifold) {
  return ((dynamic_cast<const Ms*>(&manifold) != nullptr) || ...);
}

template <int... Ns>
bool IsEuclidean(const ceres::Manifold& manifold, std::integer_sequence<int, Ns...>) {
  return IsAnyOf<ceres::EuclideanManifold<ceres::DYNAMIC>, ceres::EuclideanManifold<Ns>...>(
      manifold);
}

bool IsFlat(const ceres::Manifold& manifold) {
  return IsAnyOf<ceres::SubsetManifold>(manifold) ||
         IsEuclidean(manifold, std::make_integer_sequence<int, 17>());
}

bool IsSpherical(const ceres::Manifold& manifold) {
  return IsAnyOf<ceres::QuaternionManifold,
                 ceres::EigenQuaternionManifold,
                 ceres::SphereManifold<ceres::DYNAMIC>,
                 ceres::SphereManifold<3>,
                 ceres::SphereManifold<4>>(manifold);
}

// Doubles that live on the stack up to the size of any usual block.
class Buffer {
 public:
  explicit Buffer(int size) {
    if (size > kOnStack) large_.resize(size);
  }
  double* data() { return large_.empty() ? small_ : large_.data(); }

 private:
  static constexpr int kOnStack = 16 * 16;
  double small_[kOnStack];
  std::vector<double> large_;
};

// The second derivative of g.Plus(x, t direction) at t = 0.
class DirectionalCurvature {
 public:
  DirectionalCurvature(const ceres::Manifold& manifold, const double* x, const double* gradient)
      : manifold_(manifold),
        x_(x),
        gradient_(gradient),
        ambient_size_(manifold.AmbientSize()),
        tangent_size_(manifold.TangentSize()),
        buffer_(ambient_size_ + 2 * tangent_size_),
        direction_(buffer_.data()),
        delta_(direction_ + tangent_size_),
        x_plus_delta_(delta_ + tangent_size_) {
    std::fill_n(direction_, tangent_size_, 0.0);
  }

  double* direction() { return direction_; }

  bool Evaluate(double* curvature) {
    // Central stencils of orders eight and six; their difference tells when the step is too long
    // (a strongly curved Plus), or too short (rounding).
    constexpr double kOrder8[] = {8.0 / 5, -1.0 / 5, 8.0 / 315, -1.0 / 560};
    constexpr double kOrder6[] = {3.0 / 2, -3.0 / 20, 1.0 / 90, 0.0};
    constexpr double kTolerance = 1e-10;
    double step = 0.04;
    double smallest_error = std::numeric_limits<double>::infinity();
    *curvature = std::numeric_limits<double>::quiet_NaN();
    for (int trial = 0; trial < 5; ++trial, step /= 4) {
      double order8 = 0.0;
      double order6 = 0.0;
      double change = 0.0;
      for (int i = 0; i < 4; ++i) {
        double forward, backward;
        if (!Change((i + 1) * step, &forward) || !Change(-(i + 1) * step, &backward)) return false;
        order8 += kOrder8[i] * (forward + backward);
        order6 += kOrder6[i] * (forward + backward);
        change = std::max({change, std::abs(forward), std::abs(backward)});
      }
      const double error = std::abs(order8 - order6) / (step * step);
      if (error < smallest_error) {
        smallest_error = error;
        *curvature = order8 / (step * step);
      }
      if (!(error > kTolerance * change / (step * step))) break;
    }
    return true;
  }

 private:
  // g.(Plus(x, t direction) - x)
  bool Change(double t, double* change) {
    for (int i = 0; i < tangent_size_; ++i) delta_[i] = t * direction_[i];
    if (!manifold_.Plus(x_, delta_, x_plus_delta_)) return false;
    *change = 0.0;
    for (int a = 0; a < ambient_size_; ++a) *change += gradient_[a] * (x_plus_delta_[a] - x_[a]);
    return true;
  }

  const ceres::Manifold& manifold_;
  const double* x_;
  const double* gradient_;
  const int ambient_size_;
  const int tangent_size_;
  Buffer buffer_;
  double* direction_;
  double* delta_;
  double* x_plus_delta_;
};

}  // namespace

bool ManifoldCurvature::ClassifySpherical(const ceres::Manifold& manifold) {
  if (!IsSpherical(manifold)) return false;
  ambient_size_ = manifold.AmbientSize();
  tangent_size_ = manifold.TangentSize();
  // k is the length of a column of PlusJacobian at a unit vector.
  std::vector<double> x(ambient_size_, 0.0);
  std::vector<double> jacobian(ambient_size_ * tangent_size_, 0.0);
  x.back() = 1.0;
  manifold.PlusJacobian(x.data(), jacobian.data());
  for (int a = 0; a < ambient_size_; ++a) {
    k2_ += jacobian[a * tangent_size_] * jacobian[a * tangent_size_];
  }
  return true;
}

// Products with each EuclideanManifold<Ns>.
template <typename Quaternion, int... Ns>
bool ManifoldCurvature::ClassifyProduct(const ceres::Manifold& manifold) {
  using ceres::EuclideanManifold;
  using ceres::ProductManifold;
  const bool quaternion_last =
      IsAnyOf<ProductManifold<EuclideanManifold<Ns>, Quaternion>...>(manifold);
  if (quaternion_last) {
    ambient_offset_ = tangent_offset_ = manifold.TangentSize() - Quaternion().TangentSize();
  } else if (!IsAnyOf<ProductManifold<Quaternion, EuclideanManifold<Ns>>...>(manifold)) {
    return false;
  }
  return ClassifySpherical(Quaternion());
}

ManifoldCurvature::ManifoldCurvature(const ceres::Manifold* manifold) {
  if (manifold == nullptr) return;
  block_tangent_size_ = manifold->TangentSize();
  const bool exact = IsFlat(*manifold) || ClassifySpherical(*manifold) ||
                     ClassifyProduct<ceres::QuaternionManifold, 1, 2, 3, 4, 5, 6>(*manifold) ||
                     ClassifyProduct<ceres::EigenQuaternionManifold, 1, 2, 3, 4, 5, 6>(*manifold);
  if (!exact) differenced_ = manifold;
}

double ManifoldCurvature::SphericalCurvature(const double* x, const double* gradient) const {
  double dot = 0.0;
  for (int a = ambient_offset_; a < ambient_offset_ + ambient_size_; ++a) dot += x[a] * gradient[a];
  return -k2_ * dot;
}

bool ManifoldCurvature::Add(const double* x, const double* gradient, double* hessian) const {
  if (differenced_ != nullptr) return AddDifferences(x, gradient, hessian);
  const double c = SphericalCurvature(x, gradient);
  for (int i = tangent_offset_; i < tangent_offset_ + tangent_size_; ++i) {
    hessian[i * block_tangent_size_ + i] += c;
  }
  return true;
}

bool ManifoldCurvature::AddProduct(const double* x,
                                   const double* gradient,
                                   const double* direction,
                                   double* product) const {
  const int n = block_tangent_size_;
  if (differenced_ != nullptr) {
    Buffer buffer(n * n);
    double* const c = buffer.data();
    std::fill_n(c, n * n, 0.0);
    if (!AddDifferences(x, gradient, c)) return false;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) product[i] += c[i * n + j] * direction[j];
    }
    return true;
  }
  const double c = SphericalCurvature(x, gradient);
  for (int i = tangent_offset_; i < tangent_offset_ + tangent_size_; ++i) {
    product[i] += c * direction[i];
  }
  return true;
}

bool ManifoldCurvature::AddDifferences(const double* x,
                                       const double* gradient,
                                       double* hessian) const {
  const int n = block_tangent_size_;
  DirectionalCurvature curvature(*differenced_, x, gradient);
  Buffer diagonal_buffer(n);
  double* const diagonal = diagonal_buffer.data();
  double* const direction = curvature.direction();
  for (int i = 0; i < n; ++i) {
    direction[i] = 1.0;
    if (!curvature.Evaluate(&diagonal[i])) return false;
    hessian[i * n + i] += diagonal[i];
    // Along e_i + e_j the second derivative is C_ii + 2 C_ij + C_jj.
    for (int j = 0; j < i; ++j) {
      double sum;
      direction[j] = 1.0;
      if (!curvature.Evaluate(&sum)) return false;
      direction[j] = 0.0;
      const double c = 0.5 * (sum - diagonal[i] - diagonal[j]);
      hessian[i * n + j] += c;
      hessian[j * n + i] += c;
    }
    direction[i] = 0.0;
  }
  return true;
}

}  // namespace bilevel
