#ifndef BILEVEL_INTERNAL_TRUE_JACOBIAN_H_
#define BILEVEL_INTERNAL_TRUE_JACOBIAN_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/internal/inverted_manifold.h"
#include "ceres/cost_function.h"

namespace bilevel {

// Manifolds whose PlusJacobian is not the derivative of their Plus: in VINS-Mono and what derives
// from it, it is [I; 0], and cost functions put their tangent columns where ambient ones belong.
// Ceres' products of the two are right, second derivatives by either alone are not.

/// How far PlusJacobian is off central differences of Plus, in the largest entry of either; 0 where
/// they cannot be had.
double PlusJacobianError(const ceres::Manifold& manifold, const double* x);
/// What of it is none of the differences'.
inline constexpr double kWrongPlusJacobian = 1e-3;

/// Such a manifold with the true derivative of its Plus, by differences of eighth order, good to
/// about 1e-12 where Plus is smooth.
class DifferencedManifold : public InvertedManifold {
 public:
  /// Not owned.
  explicit DifferencedManifold(const ceres::Manifold* manifold)
      : InvertedManifold(manifold), theirs_(*manifold) {}
  bool PlusJacobian(const double* x, double* jacobian) const override;
  const ceres::Manifold& theirs() const { return theirs_; }

 private:
  const ceres::Manifold& theirs_;
};

/// Puts into *cost, which is not owned and keeps what it is where its Jacobians are ambient, the
/// same residuals with ambient Jacobians; what has to be made for it is kept in *own. manifolds:
/// of each argument, nullptr where there is none of those above. Returns what is wrong with the
/// Jacobians ("the Jacobian by its parameter block 2 is ..."), or nothing.
std::string FindTrueJacobians(const std::vector<const DifferencedManifold*>& manifolds,
                              const std::vector<double*>& blocks,
                              std::vector<std::unique_ptr<ceres::CostFunction>>* own,
                              const ceres::CostFunction** cost);

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_TRUE_JACOBIAN_H_
