#ifndef BILEVEL_EXAMPLES_SUPPORT_IMAGE_MODEL_H_
#define BILEVEL_EXAMPLES_SUPPORT_IMAGE_MODEL_H_

#include <array>
#include <vector>

#include "bilevel/objective/objective.h"
#include "examples/support/image.h"

namespace examples {

/// Denoising by total variation, smoothed as Charbonnier does:
///
///     |u - v|^2 / 2 + w sum over pixels sqrt(|grad u|^2 + eps^2),
///
/// with forward differences. Blocks: log w and log eps (2), u (pixels). Second derivatives are
/// products, in all blocks.
class TotalVariation : public bilevel::Objective {
 public:
  explicit TotalVariation(Image noisy) : noisy_(std::move(noisy)) {}
  bool Evaluate(double const* const* blocks,
                const bilevel::Batch& batch,
                double* value,
                double** gradients) const override;
  bool HessianProduct(double const* const* blocks,
                      const bilevel::Batch& batch,
                      double const* const* direction,
                      double** products) const override;
  bool has_hessian_product() const override { return true; }

 private:
  Image noisy_;
};

/// Denoising by fields of experts (Roth and Black, CVPR 2005; learned as by Chen, Ranftl and Pock,
/// TIP 2014):
///
///     |u - v|^2 / 2 + sum over filters w_k sum over pixels log(1 + (f_k * u)^2),
///
/// with kFilters filters of 5 x 5 taps without mean, f_k = sum_j c_kj b_j in the basis of the
/// discrete cosine transform; u is continued by reflection at the border. Blocks: log w (kFilters),
/// c (kFilters x kFilters, row by row), u (pixels). Second derivatives are products, in all blocks.
class FieldsOfExperts : public bilevel::Objective {
 public:
  static constexpr int kSize = 5, kTaps = kSize * kSize, kFilters = kTaps - 1;
  /// The norm of a basis filter, so that coefficients are of the order of one, as log weights are.
  static constexpr double kUnit = 0.04;

  explicit FieldsOfExperts(Image noisy);
  bool Evaluate(double const* const* blocks,
                const bilevel::Batch& batch,
                double* value,
                double** gradients) const override;
  bool HessianProduct(double const* const* blocks,
                      const bilevel::Batch& batch,
                      double const* const* direction,
                      double** products) const override;
  bool has_hessian_product() const override { return true; }

  /// The taps of filter k, row by row.
  static std::array<double, kTaps> Filter(const double* coefficients, int k);

 private:
  Image noisy_;
};

/// |u - truth|^2 / (2 pixels): what a denoised image is scored by. Block: u.
class MeanSquaredError : public bilevel::Objective {
 public:
  explicit MeanSquaredError(Image truth) : truth_(std::move(truth)) {}
  bool Evaluate(double const* const* blocks,
                const bilevel::Batch& batch,
                double* value,
                double** gradients) const override;
  bool HessianProduct(double const* const* blocks,
                      const bilevel::Batch& batch,
                      double const* const* direction,
                      double** products) const override;
  bool has_hessian_product() const override { return true; }

 private:
  Image truth_;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_IMAGE_MODEL_H_
