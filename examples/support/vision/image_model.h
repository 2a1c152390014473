#ifndef BILEVEL_EXAMPLES_SUPPORT_VISION_IMAGE_MODEL_H_
#define BILEVEL_EXAMPLES_SUPPORT_VISION_IMAGE_MODEL_H_

#include <array>
#include <vector>

#include "bilevel/terms/objective.h"
#include "examples/support/vision/image.h"

namespace examples {

// The parts of variational denoising, as general terms with exact products with their Hessians.

/// scale |u - target|^2 / 2. Block: u (pixels).
class SquaredError : public bilevel::Objective {
 public:
  SquaredError(Image target, double scale) : target_(std::move(target)), scale_(scale) {}
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
  Image target_;
  double scale_;
};

/// Total variation, smoothed as Charbonnier does: w sum over pixels sqrt(|grad u|^2 + eps^2), with
/// forward differences. Blocks: log w and log eps (2), u (pixels).
class TotalVariation : public bilevel::Objective {
 public:
  TotalVariation(int width, int height) : width_(width), height_(height) {}
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
  int width_, height_;
};

/// Fields of experts (Roth and Black, CVPR 2005; learned as by Chen, Ranftl and Pock, TIP 2014):
///
///     sum over filters w_k sum over pixels log(1 + (f_k * u)^2),
///
/// with kFilters filters of 5 x 5 taps without mean, f_k = sum_j c_kj b_j in the basis of the
/// discrete cosine transform; u is continued by reflection at the border. Blocks: log w (kFilters),
/// c (kFilters x kFilters, row by row), u (pixels).
class FieldsOfExperts : public bilevel::Objective {
 public:
  static constexpr int kSize = 5, kTaps = kSize * kSize, kFilters = kTaps - 1;
  /// The norm of a basis filter, so that coefficients are of the order of one, as log weights are.
  static constexpr double kUnit = 0.04;

  FieldsOfExperts(int width, int height) : width_(width), height_(height) {}
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
  void ProductInPixels(double const* const* blocks, const double* du, double* pu) const;

  int width_, height_;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_VISION_IMAGE_MODEL_H_
