#ifndef BILEVEL_LEARNABLE_LOSSES_H_
#define BILEVEL_LEARNABLE_LOSSES_H_

#include <memory>
#include <string>

#include "bilevel/terms/learnable_loss.h"
#include "ceres/loss_function.h"
#include "ceres/types.h"

/// Ready-made losses with learned parameters. Positive parameters are learned as logarithms. All
/// return NaN for a negative or NaN s and for a parameter that is not finite.

namespace bilevel {

/// A robust loss that is a fixed shape h at a learned scale a = exp(log_scale), as in Ceres:
///
///     rho(s; log_scale) = a^2 h(s / a^2),   h(0) = 0, h'(0) = 1,
///
/// where s and a^2 have the units of squared residuals. Derive from it for another shape.
class ScaleLoss : public LearnableLoss {
 public:
  using LearnableLoss::Evaluate;
  void Evaluate(double s,
                double const* const* theta,
                double rho[3],
                double* rho_theta,
                double* rho_s_theta) const final;

 protected:
  /// h, h', h'' and h - u h' at u >= 0. The last is what d rho / d log_scale is made of; it is
  /// asked for because subtracting loses all digits at small u.
  struct Shape {
    double h, h1, h2, h_minus_u_h1;
  };

  /// Learned: log_scale is the user's.
  explicit ScaleLoss(double* log_scale) : LearnableLoss({{log_scale, 1}}) {}

  /// Fixed, as the Ceres loss of that scale.
  explicit ScaleLoss(double scale);

  virtual Shape EvaluateShape(double u) const = 0;

  /// The scale a at the bound theta.
  double scale() const;

 private:
  double fixed_log_scale_ = 0.0;
};

/// h(u) = log(1 + u), ceres::CauchyLoss(a).
class CauchyLoss final : public ScaleLoss {
 public:
  explicit CauchyLoss(double* log_scale) : ScaleLoss(log_scale) {}
  explicit CauchyLoss(double scale) : ScaleLoss(scale) {}
  std::string Describe() const override;

 private:
  Shape EvaluateShape(double u) const override;
};

/// h(u) = u for u <= 1, 2 sqrt(u) - 1 beyond, ceres::HuberLoss(a). rho'' jumps at s = a^2, where
/// the value from the left is returned.
class HuberLoss final : public ScaleLoss {
 public:
  explicit HuberLoss(double* log_scale) : ScaleLoss(log_scale) {}
  explicit HuberLoss(double scale) : ScaleLoss(scale) {}
  std::string Describe() const override;

 private:
  Shape EvaluateShape(double u) const override;
};

/// h(u) = u / (1 + u). Not in Ceres.
class GemanMcClureLoss final : public ScaleLoss {
 public:
  explicit GemanMcClureLoss(double* log_scale) : ScaleLoss(log_scale) {}
  explicit GemanMcClureLoss(double scale) : ScaleLoss(scale) {}
  std::string Describe() const override;

 private:
  Shape EvaluateShape(double u) const override;
};

/// h(u) = 1 - exp(-u). Not in Ceres.
class WelschLoss final : public ScaleLoss {
 public:
  explicit WelschLoss(double* log_scale) : ScaleLoss(log_scale) {}
  explicit WelschLoss(double scale) : ScaleLoss(scale) {}
  std::string Describe() const override;

 private:
  Shape EvaluateShape(double u) const override;
};

/// h(u) = (1 - (1 - u)^3) / 3 for u <= 1, 1/3 beyond, ceres::TukeyLoss(a).
class TukeyLoss final : public ScaleLoss {
 public:
  explicit TukeyLoss(double* log_scale) : ScaleLoss(log_scale) {}
  explicit TukeyLoss(double scale) : ScaleLoss(scale) {}
  std::string Describe() const override;

 private:
  Shape EvaluateShape(double u) const override;
};

/// The general adaptive family of Barron (CVPR 2019) with learned shape alpha and scale
/// c = exp(log_scale), normalised to rho'(0) = 1. With b = |alpha - 2| and u = s / c^2
///
///     rho = 2 c^2 (b / alpha) ((u / b + 1)^(alpha / 2) - 1).
///
/// alpha = 2 is least squares, 1 Charbonnier (pseudo-Huber), 0 Cauchy with a = sqrt(2) c,
/// -2 Geman-McClure with a = 2 c, -infinity (try -1e9) Welsch with a = sqrt(2) c. Every finite
/// alpha is accepted and there is no loss of accuracy near 0 and 2, but the family is not
/// differentiable at alpha = 2: there d rho / d alpha and d rho' / d alpha grow like
/// log(1 / b) / 2 and +infinity is returned for them at s > 0. Start below 2, at 1 say, and bound
/// alpha away from it. Two blocks of theta: alpha, log_scale.
class BarronLoss final : public LearnableLoss {
 public:
  BarronLoss(double* alpha, double* log_scale) : LearnableLoss({{alpha, 1}, {log_scale, 1}}) {}

  /// Fixed parameters.
  BarronLoss(double alpha, double scale);

  using LearnableLoss::Evaluate;
  void Evaluate(double s,
                double const* const* theta,
                double rho[3],
                double* rho_theta,
                double* rho_s_theta) const override;
  std::string Describe() const override;

 private:
  double fixed_[2] = {0.0, 0.0};
};

namespace internal {

/// Part of a loss made of others: nullptr (the trivial loss), any ceres::LossFunction, which then
/// has no parameters, or a LearnableLoss.
class HeldLoss {
 public:
  HeldLoss(const ceres::LossFunction* loss, ceres::Ownership ownership);
  ~HeldLoss();
  HeldLoss(const HeldLoss&) = delete;
  HeldLoss& operator=(const HeldLoss&) = delete;

  int num_parameters() const;

  /// As LearnableLoss::Evaluate, with theta and the derivatives those of a whole whose part starts
  /// at block `block` and entry `entry`.
  void Evaluate(double s,
                double const* const* theta,
                int block,
                int entry,
                double rho[3],
                double* rho_theta,
                double* rho_s_theta) const;
  std::string Describe() const;

 private:
  std::unique_ptr<const ceres::LossFunction> loss_;
  const LearnableLoss* const learnable_;  // loss_ if it is one, else nullptr
  const ceres::Ownership ownership_;
};

}  // namespace internal

/// A loss around another one. `base` may be nullptr (the trivial loss), any ceres::LossFunction,
/// which then has no parameters, or a LearnableLoss, whose blocks come after the wrapper's own.
/// It is deleted with the wrapper under TAKE_OWNERSHIP.
class WrapperLoss : public LearnableLoss {
 protected:
  WrapperLoss(const ceres::LossFunction* base, double* parameter, ceres::Ownership ownership);

  const internal::HeldLoss base_;
};

/// rho(s; log_sigma) = base(s exp(-2 log_sigma)): residuals divided by the noise level sigma.
class NoiseScaleLoss final : public WrapperLoss {
 public:
  NoiseScaleLoss(const ceres::LossFunction* base, double* log_sigma, ceres::Ownership ownership)
      : WrapperLoss(base, log_sigma, ownership) {}
  using LearnableLoss::Evaluate;
  void Evaluate(double s,
                double const* const* theta,
                double rho[3],
                double* rho_theta,
                double* rho_s_theta) const override;
  std::string Describe() const override;
};

/// rho(s; log_weight) = exp(log_weight) base(s), a learned ceres::ScaledLoss.
class WeightedLoss final : public WrapperLoss {
 public:
  WeightedLoss(const ceres::LossFunction* base, double* log_weight, ceres::Ownership ownership)
      : WrapperLoss(base, log_weight, ownership) {}
  using LearnableLoss::Evaluate;
  void Evaluate(double s,
                double const* const* theta,
                double rho[3],
                double* rho_theta,
                double* rho_s_theta) const override;
  std::string Describe() const override;
};

/// rho(s; logit) = base(s) / (1 + exp(-logit)): a weight between 0 and 1, for switching outliers
/// off one by one.
class SwitchLoss final : public WrapperLoss {
 public:
  SwitchLoss(const ceres::LossFunction* base, double* logit, ceres::Ownership ownership)
      : WrapperLoss(base, logit, ownership) {}
  using LearnableLoss::Evaluate;
  void Evaluate(double s,
                double const* const* theta,
                double rho[3],
                double* rho_theta,
                double* rho_s_theta) const override;
  std::string Describe() const override;
};

/// rho(s) = f(g(s)), ceres::ComposedLoss for losses of which either may be learnable, an ordinary
/// ceres::LossFunction or nullptr. The blocks of f come first, then those of g.
class ComposedLoss final : public LearnableLoss {
 public:
  ComposedLoss(const ceres::LossFunction* f,
               ceres::Ownership ownership_f,
               const ceres::LossFunction* g,
               ceres::Ownership ownership_g);
  using LearnableLoss::Evaluate;
  void Evaluate(double s,
                double const* const* theta,
                double rho[3],
                double* rho_theta,
                double* rho_s_theta) const override;
  std::string Describe() const override;

 private:
  const internal::HeldLoss f_;
  const internal::HeldLoss g_;
  const int num_blocks_f_;
};

}  // namespace bilevel

#endif  // BILEVEL_LEARNABLE_LOSSES_H_
