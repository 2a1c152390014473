#ifndef BILEVEL_DERIVATIVES_MANIFOLD_HESSIAN_H_
#define BILEVEL_DERIVATIVES_MANIFOLD_HESSIAN_H_

#include "ceres/manifold.h"

namespace bilevel {

/// What the curvature of a manifold adds to a tangent Hessian. With P = d Plus(x, delta) / d delta
/// and the ambient gradient g and Hessian H of f at x, the Hessian of f(Plus(x, delta)) at
/// delta = 0 is
///
///     P^T H P + C,    C_ij = sum_a g_a d^2 Plus_a(x, delta) / d delta_i d delta_j.
///
/// C does not vanish at a solution, where only P^T g does.
///
/// The manifold is classified once, at construction. C is exact for
///   - nullptr, EuclideanManifold<N> with N up to 16 or DYNAMIC, SubsetManifold: C = 0;
///   - QuaternionManifold, EigenQuaternionManifold, SphereManifold<N> with N = 3, 4 or DYNAMIC:
///     they move x along great circles at k |x| per unit of delta, so that C = -k^2 (x.g) I, with k
///     as the installed Ceres has it;
///   - ProductManifold of a quaternion and EuclideanManifold<N>, N up to 6, in either order.
///
/// Any other manifold is differenced: eighth-order central differences of g.Plus(x, delta), good to
/// about 1e-12 |g| |x| where Plus is smooth over |delta| < 1/6 (the step shrinks where it is not,
/// and accuracy with it). Plus alone counts then: a manifold whose PlusJacobian is not the
/// derivative of its Plus has no tangent Hessian.
class ManifoldCurvature {
 public:
  /// The manifold is not owned and must outlive this; nullptr stands for a Euclidean block.
  explicit ManifoldCurvature(const ceres::Manifold* manifold);

  /// C is known to vanish for every x and g.
  bool is_zero() const { return is_exact() && ambient_size_ == 0; }

  /// C has a closed form, zero included.
  bool is_exact() const { return differenced_ == nullptr; }

  /// Adds C to `hessian`, tangent x tangent and row-major. Thread-safe if Plus is. Returns false
  /// where Plus does; `hessian` is then partly written.
  bool Add(const double* x, const double* gradient, double* hessian) const;

  /// Adds C * direction to `product`; both vectors have tangent size.
  bool AddProduct(const double* x,
                  const double* gradient,
                  const double* direction,
                  double* product) const;

 private:
  bool ClassifySpherical(const ceres::Manifold& manifold);
  template <typename Quaternion, int... Ns>
  bool ClassifyProduct(const ceres::Manifold& manifold);

  // x.g over the spherical coordinates, times -k^2.
  double SphericalCurvature(const double* x, const double* gradient) const;
  bool AddDifferences(const double* x, const double* gradient, double* hessian) const;

  const ceres::Manifold* differenced_ = nullptr;  // nullptr where C has a closed form.
  int block_tangent_size_ = 0;

  // The coordinates that move on a sphere, at most one run of them; the others are flat.
  int ambient_offset_ = 0, ambient_size_ = 0;
  int tangent_offset_ = 0, tangent_size_ = 0;
  double k2_ = 0.0;
};

}  // namespace bilevel

#endif  // BILEVEL_DERIVATIVES_MANIFOLD_HESSIAN_H_
