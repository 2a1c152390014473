#ifndef BILEVEL_LOWER_LEVEL_AUGMENTED_LAGRANGIAN_H_
#define BILEVEL_LOWER_LEVEL_AUGMENTED_LAGRANGIAN_H_

#include <memory>
#include <vector>

#include "bilevel/program/program.h"
#include "ceres/cost_function.h"

namespace bilevel {

/// A scenario's lower level with its constraints as residual blocks behind those of g:
///
///     L_rho = g + 1/2 sum_i rho_i (h_i + lambda_i / rho_i)^2
///               + 1/2 sum_i rho_i max(0, c_i + nu_i / rho_i)^2,
///
/// the augmented Lagrangian of Hestenes, Powell and Rockafellar but for a constant. Where rows i of
/// a set count as equalities, shifted such that rho_i (c_i + shift_i) is a multiplier mu_i, its
/// gradient in y is the Lagrangian's, and its second derivatives are
///
///     W + B' diag(rho) B,    X' + B' diag(rho) B_x      (B, B_x: the rows' derivatives by y and x)
///
/// with W = d^2L/dy^2 and X' = d^2L/dydx: all that a step on the KKT system wants of them.
class AugmentedLagrangian {
 public:
  /// What evaluations read, by row.
  struct Rows {
    /// kOut: as if it were not there; kIn: an equality, whatever it is; kOpen: as above.
    enum Mode : char { kOpen, kIn, kOut };
    Vector rho, shift;
    std::vector<char> mode, is_inequality;
  };

  /// The scenario is one with constraints; it and x's space must outlive this.
  AugmentedLagrangian(const Program::Scenario& scenario, const Space* x);
  ~AugmentedLagrangian();

  Rows* rows() { return &rows_; }
  /// The same scenario, g being L_rho and f nobody's.
  const std::shared_ptr<Program::Scenario>& scenario() const { return scenario_; }

 private:
  Rows rows_;
  std::vector<std::unique_ptr<ceres::CostFunction>> costs_;
  std::shared_ptr<Program::Scenario> scenario_;
};

}  // namespace bilevel

#endif  // BILEVEL_LOWER_LEVEL_AUGMENTED_LAGRANGIAN_H_
