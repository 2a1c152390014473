#ifndef BILEVEL_INTERNAL_TRUE_JACOBIAN_H_
#define BILEVEL_INTERNAL_TRUE_JACOBIAN_H_

#include <string>
#include <typeindex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "bilevel/program/program.h"
#include "ceres/cost_function.h"
#include "ceres/manifold.h"

namespace bilevel {

/// How far PlusJacobian is off central differences of Plus, in the largest entry of either; 0 where
/// they cannot be had.
double PlusJacobianError(const ceres::Manifold& manifold, const double* x);

/// Manifolds whose PlusJacobian is not the derivative of their Plus: in VINS-Mono and what derives
/// from it, it is [I; 0], and cost functions put their tangent columns where ambient ones belong.
/// Ceres' products of the two are right, second derivatives by either alone are not. Here both are
/// replaced by true ones, which the program owns and has a remark about.
class TrueJacobians {
 public:
  explicit TrueJacobians(Program* program) : program_(*program) {}

  /// The manifold of the named block, or one with the derivative of its Plus, by differences of
  /// eighth order, good to about 1e-12 where Plus is smooth.
  const ceres::Manifold* OfManifold(const ceres::Manifold* manifold,
                                    const double* values,
                                    const std::string& name);

  /// Puts into *cost, which keeps what it is where its Jacobians are ambient, the same residuals
  /// with ambient Jacobians. Returns what is wrong with them ("has a Jacobian by its parameter
  /// block 2 that is ..."), or nothing.
  std::string OfCost(const std::vector<double*>& blocks, const ceres::CostFunction** cost);

 private:
  class DifferencedManifold;
  class LiftedCost;

  bool IsWrong(const ceres::Manifold& manifold, const double* values, const std::string& name);
  std::string Lift(const std::vector<const DifferencedManifold*>& manifolds,
                   const std::vector<double*>& blocks,
                   const ceres::CostFunction** cost);

  Program& program_;
  std::unordered_set<std::type_index> wrong_types_;
  std::unordered_map<const double*, const DifferencedManifold*> differenced_;
};

}  // namespace bilevel

#endif  // BILEVEL_INTERNAL_TRUE_JACOBIAN_H_
