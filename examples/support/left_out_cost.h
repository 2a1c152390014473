#ifndef BILEVEL_EXAMPLES_SUPPORT_LEFT_OUT_COST_H_
#define BILEVEL_EXAMPLES_SUPPORT_LEFT_OUT_COST_H_

#include <memory>
#include <vector>

#include "Eigen/Core"
#include "ceres/cost_function.h"

namespace examples {

/// Residuals left out of the lower level together with an unknown z of their own (a board's pose, a
/// track's point), as a function of y alone: z is the best one for that y.
///
/// With P the projection off the columns of dr/dz, the derivative is P dr/dy (Kaufman's form of
/// variable projection): at the best z, r' dr/dz = 0, so that the gradient of |r|^2 is exact.
class LeftOutCost : public ceres::CostFunction {
 public:
  struct Part {
    std::shared_ptr<const ceres::CostFunction> cost;
    std::vector<int> blocks;  ///< Of this function; kUnknown: z.
  };
  static constexpr int kUnknown = -1;

  /// start: where the search for z begins. It finds the minimum nearby.
  LeftOutCost(std::vector<Part> parts,
              const std::vector<int>& block_sizes,
              std::vector<double> start);

  bool Evaluate(double const* const* y, double* residuals, double** jacobians) const override;

 private:
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  bool EvaluateAt(double const* const* y,
                  const Eigen::VectorXd& z,
                  double* residuals,
                  Matrix* by_z,
                  double** by_y) const;

  std::vector<Part> parts_;
  Eigen::VectorXd start_;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_LEFT_OUT_COST_H_
