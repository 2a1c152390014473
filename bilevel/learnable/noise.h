#ifndef BILEVEL_LEARNABLE_NOISE_H_
#define BILEVEL_LEARNABLE_NOISE_H_

#include <cmath>
#include <string>
#include <vector>

#include "bilevel/problem.h"
#include "bilevel/terms/second_order_cost_function.h"
#include "ceres/cost_function.h"
#include "ceres/loss_function.h"
#include "ceres/problem.h"
#include "ceres/types.h"

/// Noise of measurements, with parameters to be learned.
///
///     double log_sigma[3] = {-3.0, -3.0, -5.0};
///     bilevel::DiagonalNoise odometry(log_sigma, 3);
///     problem.AddUpperParameterBlock(log_sigma, 3);
///     for (...) odometry.AddResidualBlock(cost, loss, {pose_i, pose_j}, problem.lower());
///     ...
///     std::cout << odometry.Describe("odometry");  // Lines to paste.
///
/// One object is one type of measurement, one sensor or one class of edges: whatever shares its
/// noise. Cost functions return plain errors in their own units; a loss sees the whitened error, so
/// that its scale is in sigmas. A weight or a switch for each measurement is a loss (WeightedLoss,
/// SwitchLoss in losses.h) and combines with these as any loss does.
///
/// What can be learned from what. y*(x) depends on ratios of noise levels only: all sigmas twice as
/// large give the same estimate. An upper level that sees x through y*(x) alone, ground truth or
/// held-out errors in their own units, determines ratios; the common factor is a flat direction,
/// which Solve leaves unmoved and names in its summary, or which a NormalPrior or a sigma that is
/// not declared upper decides.
///
/// The absolute level needs a likelihood: whitened errors of held-out measurements in the upper
/// problem, and AddHalfLogDeterminant with their number. (Without it sigma = infinity makes all of
/// them vanish.) It is proper for any fixed loss whose exp(-rho / 2) can be integrated, sigma then
/// being the scale of that distribution. What it estimates is the noise of a held-out measurement
/// and of its prediction together: sigma comes out too large by the share of the prediction in it,
/// about 1 / (2 n) where n measurements of the kind determine what one of them measures. So it
/// identifies sensors that measure the same things many times over, and not a chain of odometry
/// between fixes, each link of which is measured once. The likelihood of all measurements, with y
/// integrated out, has neither that bias nor that limit: AddMarginalLikelihood. ComputeUncertainty
/// gives standard errors of either.

namespace bilevel {

/// Gaussian noise of an error r with covariance S(theta): W r, W'W = S^-1, has unit covariance.
class NoiseModel {
 public:
  virtual ~NoiseModel() = default;
  NoiseModel(const NoiseModel&) = delete;
  NoiseModel& operator=(const NoiseModel&) = delete;

  /// theta, the user's memory. It must outlive what is made here; this object need not.
  double* parameters() const { return parameters_; }
  int num_parameters() const { return num_parameters_; }
  /// Length of the error r.
  int num_residuals() const { return num_residuals_; }

  /// W(theta) r as a cost function whose last parameter block is theta. Its second derivatives are
  /// exact where those of cost are (a SecondOrderCostFunction); otherwise it is differenced as a
  /// whole, and the Summary counts it so. nullptr where cost has not num_residuals() residuals.
  ceres::CostFunction* Whiten(ceres::CostFunction* cost,
                              ceres::Ownership ownership = ceres::TAKE_OWNERSHIP) const;

  /// Adds loss(|W(theta) cost(blocks)|^2) to a problem, which owns cost and loss as usual; cost
  /// must not stand in another residual block. nullptr where it has not num_residuals() residuals.
  ceres::ResidualBlockId AddResidualBlock(ceres::CostFunction* cost,
                                          ceres::LossFunction* loss,
                                          const std::vector<double*>& blocks,
                                          ceres::Problem* problem) const;

  /// Puts W(theta) before residual blocks that stand in problem->scenario(scenario)'s lower problem
  /// already, inside their losses: they are removed and added again, and *ids become the new ones,
  /// valid as long as `problem`. At W = 1 nothing has changed. wrapped_problems_own_nothing: see
  /// SplitHoldout. False: nothing was done, see *error.
  bool Apply(std::vector<ceres::ResidualBlockId>* ids,
             Problem* problem,
             std::string* error,
             int scenario = 0,
             bool wrapped_problems_own_nothing = false) const;

  /// log det S / 2 at the current theta, the sum of the log sigmas.
  double HalfLogDeterminant() const;
  /// Adds count times that, a function of theta, to a level.
  void AddHalfLogDeterminant(double count,
                             Problem* problem,
                             Level level = Level::kUpper,
                             int scenario = 0) const;

  /// C++ that defines NAME_sigma or NAME_sqrt_information as they are at the current theta.
  virtual std::string Describe(const std::string& name) const = 0;

  /// Entry (row, column) of W, W being upper triangular: exp(sign theta[parameter]) with a sign of
  /// +-1, or, for sign = 0, theta[parameter]. The diagonal has signs.
  struct Entry {
    int row, column, parameter, sign;
    double Value(const double* theta) const {
      return sign == 0 ? theta[parameter] : std::exp(sign * theta[parameter]);
    }
    /// d entry / d theta[parameter], given the entry's value.
    double Slope(double value) const { return sign == 0 ? 1.0 : sign * value; }
  };
  /// All that are not zero, row by row.
  const std::vector<Entry>& entries() const { return entries_; }

 protected:
  NoiseModel(double* parameters, int num_parameters, int num_residuals, std::vector<Entry> entries);

 private:
  double* parameters_;
  int num_parameters_, num_residuals_;
  std::vector<Entry> entries_;
};

/// One sigma for all entries of r: theta = log sigma. (NoiseScaleLoss in losses.h is the same
/// inside a loss, and leaves the cost function alone.)
class ScalarNoise final : public NoiseModel {
 public:
  explicit ScalarNoise(double* log_sigma, int num_residuals = 1);
  std::string Describe(const std::string& name) const override;
};

/// A sigma for each entry of r: theta[i] = log sigma_i.
class DiagonalNoise final : public NoiseModel {
 public:
  DiagonalNoise(double* log_sigmas, int num_residuals);
  std::string Describe(const std::string& name) const override;
};

/// A full information matrix S^-1 = L L', W = L': theta is the lower triangle of L row by row,
/// n (n + 1) / 2 entries, with logarithms on the diagonal, so that any theta is a valid matrix.
class FullNoise final : public NoiseModel {
 public:
  static constexpr int NumParameters(int num_residuals) {
    return num_residuals * (num_residuals + 1) / 2;
  }
  FullNoise(double* log_cholesky, int num_residuals);

  /// theta of an information matrix (row-major; its lower triangle is read). False where it is not
  /// positive definite: theta is then as it was.
  bool SetInformation(const double* information);
  /// The information matrix at the current theta, row-major.
  void GetInformation(double* information) const;
  std::string Describe(const std::string& name) const override;
};

/// Residuals that are linear in one parameter block: what priors are made of.
class LinearPrior : public SecondOrderCostFunction {
 public:
  /// Zero.
  bool EvaluateHessian(double const* const* parameters,
                       const double* weights,
                       double* hessian) const final;
  bool EvaluateHessianProduct(double const* const* parameters,
                              const double* weights,
                              const double* direction,
                              double* product) const final;

 protected:
  LinearPrior(int num_residuals, int size);
};

/// A Gaussian prior on a parameter block: (p_i - mean_i) / sigma_i. On a log sigma, sigma_i is a
/// relative uncertainty. AddNormalPrior adds one on x.
class NormalPrior final : public LinearPrior {
 public:
  NormalPrior(std::vector<double> mean, double sigma);
  /// Both of the block's size.
  NormalPrior(std::vector<double> mean, std::vector<double> sigma);
  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override;

 private:
  std::vector<double> mean_, sigma_;
};

/// Smoothness of the entries of a block of `size` parameters (weights along time or space):
/// (p_{i+1} - p_i) / sigma.
class SmoothnessPrior final : public LinearPrior {
 public:
  SmoothnessPrior(int size, double sigma);
  bool Evaluate(double const* const* parameters,
                double* residuals,
                double** jacobians) const override;

 private:
  double sigma_;
};

}  // namespace bilevel

#endif  // BILEVEL_LEARNABLE_NOISE_H_
