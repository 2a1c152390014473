#ifndef BILEVEL_UPPER_LEVEL_INTERNAL_COORDINATE_PRIOR_H_
#define BILEVEL_UPPER_LEVEL_INTERNAL_COORDINATE_PRIOR_H_

#include <algorithm>

#include "bilevel/learnable/noise.h"

namespace bilevel {

// The prior on a block of x, of a sigma for each coordinate that may be changed.
class CoordinatePrior final : public LinearPrior {
 public:
  CoordinatePrior(const double* mean, const double* sigma, int size)
      : LinearPrior(size, size), mean_(mean), sigma_(sigma) {}
  bool Evaluate(double const* const* x, double* residuals, double** jacobians) const override {
    const int n = num_residuals();
    for (int i = 0; i < n; ++i) residuals[i] = (x[0][i] - mean_[i]) / sigma_[i];
    if (jacobians && jacobians[0]) {
      std::fill_n(jacobians[0], n * n, 0.0);
      for (int i = 0; i < n; ++i) jacobians[0][i * n + i] = 1.0 / sigma_[i];
    }
    return true;
  }

 private:
  const double *mean_, *sigma_;
};

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_INTERNAL_COORDINATE_PRIOR_H_
