#ifndef BILEVEL_ORACLE_HYPER_HESSIAN_H_
#define BILEVEL_ORACLE_HYPER_HESSIAN_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/oracle/oracle.h"

namespace bilevel {

/// The second derivative of phi(x) = f(x, y*(x)) in the tangent coordinates of x: that of
/// phi(x plus d) by d at d = 0, which depends on the retraction where x lives on a manifold.
///
///     D^2 phi = [I; Y]' D^2 psi [I; Y],   psi = f - <z, g_y> with z held,
///     Y = dy*/dx,   (d^2g/dy^2) z = f_y
///
/// psi is phi along y*(x), where g_y = 0, and psi_y = f_y - g_yy z = 0 there: so neither a
/// derivative of z nor a second one of y* is needed. It costs the m + 1 solves of Y and z, m the
/// length of x, with the factorisation that is there, and no lower solve.
///
/// D psi = (f_x - g_xy z, f_y - g_yy z), a gradient of f and a joint Hessian product of g, is
/// exact. Its derivatives along the m columns of [I; Y] are central differences with Richardson's
/// extrapolation (one-sided beside bounds), most often of six or eight evaluations each.
/// relative_error() is an estimate of what that leaves: 1e-11 or less where g's cost functions have
/// second derivatives, 1e-9 to 1e-6 where those are differenced themselves; and where the lower
/// level is badly conditioned, what its rounding leaves (1e-7 and 1e-5 on chains of 200 and 1,000
/// poses held at one end). Y and z are as exact as the lower solver makes them.
///
/// Coordinates of y that a bound holds do not move; directions that the lower level leaves free and
/// f does not see are left alone, as for the gradient. Scenarios are summed in their order: results
/// do not depend on the number of threads.
class HyperHessian {
 public:
  struct Options {
    /// Of relative_error(), where extrapolating ends. With 1e-6 a column takes four evaluations
    /// most often, and is much better than that.
    double tolerance = 1e-11;
    /// A larger relative_error() is refused: that of a kink nearby is about 1.
    double largest_error = 1e-2;
  };

  /// The oracle is not owned.
  explicit HyperHessian(Oracle* oracle) : HyperHessian(oracle, Options()) {}
  HyperHessian(Oracle* oracle, const Options& options);
  ~HyperHessian();

  /// At a solved (x, y) that the lower solver was last differentiated at (Oracle::Differentiate).
  /// hessian: symmetric, tangent size of x; 0 in the rows and columns of the coordinates marked in
  /// `held`, which may be empty. Neither x, y nor the user's memory moves.
  ///
  /// False, with message(), where phi has no second derivative: a bound of y is only weakly active,
  /// f depends on directions that the lower level leaves free, bounds leave no room to look, the
  /// differences do not agree (a kink is near), or the lower solver has no AdjointVector. And where
  /// an evaluation fails at every distance, which latches.
  bool Evaluate(const Point& x, const Point& y, const std::vector<char>& held, Matrix* hessian);

  /// Of the last Evaluate: Y, tangent sizes, y down and x across.
  const Matrix& dy_dx() const;
  /// An estimate: the largest error of an entry to the largest entry, by the extrapolations and by
  /// how unsymmetric they come out; rows and columns are counted in the differences' steps.
  double relative_error() const;
  const std::string& message() const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace bilevel

#endif  // BILEVEL_ORACLE_HYPER_HESSIAN_H_
