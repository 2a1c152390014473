#include "bilevel/derivatives/internal/numeric_hessian.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>

namespace bilevel {
namespace {

// Near the fifth root of epsilon, which balances the h^4 truncation against the rounding.
constexpr double kInitialStep = 1e-3;
constexpr double kShrink = 1.0 / 16.0;
constexpr int kMaxTrials = 9;
// The h^2 term that extrapolation removes may be this large; what remains is about its square.
constexpr double kTolerance = 3e-6;

class Differencer {
 public:
  Differencer(const ceres::CostFunction& cost_function,
              double const* const* parameters,
              const double* weights,
              NumericHessianWorkspace* workspace)
      : cost_function_(cost_function),
        parameters_(parameters),
        weights_(weights),
        sizes_(cost_function.parameter_block_sizes()),
        n_(std::accumulate(sizes_.begin(), sizes_.end(), 0)),
        ws_(*workspace) {
    const int num_residuals = cost_function.num_residuals();
    ws_.point.resize(n_);
    ws_.residuals.resize(num_residuals);
    ws_.jacobian.resize(static_cast<std::size_t>(num_residuals) * n_);
    ws_.gradient.resize(n_);
    ws_.direction.resize(n_);
    ws_.difference.resize(n_);
    ws_.estimate.resize(n_);
    ws_.point_blocks.resize(sizes_.size());
    ws_.jacobian_blocks.resize(sizes_.size());
    int offset = 0;
    for (std::size_t b = 0; b < sizes_.size(); ++b) {
      ws_.point_blocks[b] = ws_.point.data() + offset;
      ws_.jacobian_blocks[b] =
          ws_.jacobian.data() + static_cast<std::ptrdiff_t>(num_residuals) * offset;
      offset += sizes_[b];
    }
  }

  int size() const { return n_; }

  bool Product(const double* direction, double* product) {
    double extent = 0.0;  // The largest move of a component, in units of its scale.
    ForEachParameter([&](int i, double p) {
      extent = std::max(extent, std::abs(direction[i]) / std::max(1.0, std::abs(p)));
    });
    std::fill_n(product, n_, 0.0);
    if (extent == 0.0) {
      return cost_function_.Evaluate(parameters_, ws_.residuals.data(), nullptr);
    }

    double best = std::numeric_limits<double>::infinity();
    double step = kInitialStep / extent;
    for (int trial = 0; trial < kMaxTrials; ++trial, step *= kShrink) {
      magnitude_ = 0.0;
      if (!CentralDifference(direction, step, ws_.difference.data()) ||
          !CentralDifference(direction, 0.5 * step, ws_.estimate.data())) {
        continue;
      }
      double norm = 0.0;
      double change = 0.0;
      for (int i = 0; i < n_; ++i) {
        const double correction = (ws_.estimate[i] - ws_.difference[i]) / 3.0;
        ws_.estimate[i] += correction;
        norm = std::hypot(norm, ws_.estimate[i]);
        change = std::hypot(change, correction);
      }
      const double rounding = 4.0 * std::numeric_limits<double>::epsilon() * magnitude_ / step;
      const bool accept = change <= kTolerance * norm + rounding;
      const double score = change == 0.0 ? 0.0 : change / norm;  // NaN where anything is.
      if (score < best || (accept && trial == 0)) {
        best = score;
        std::copy_n(ws_.estimate.data(), n_, product);
      }
      if (accept) break;
    }
    return std::isfinite(best);
  }

 private:
  template <typename Function>
  void ForEachParameter(const Function& function) const {
    int i = 0;
    for (std::size_t b = 0; b < sizes_.size(); ++b) {
      for (int k = 0; k < sizes_[b]; ++k) function(i++, parameters_[b][k]);
    }
  }

  bool CentralDifference(const double* direction, double step, double* difference) {
    std::fill_n(difference, n_, 0.0);
    for (const double side : {1.0, -1.0}) {
      ForEachParameter([&](int i, double p) { ws_.point[i] = p + side * step * direction[i]; });
      if (!WeightedGradient()) return false;
      for (int i = 0; i < n_; ++i) difference[i] += side * ws_.gradient[i] / (2.0 * step);
    }
    return true;
  }

  // gradient = J^T w at `point`, and the magnitude of its summands.
  bool WeightedGradient() {
    if (!cost_function_.Evaluate(
            ws_.point_blocks.data(), ws_.residuals.data(), ws_.jacobian_blocks.data())) {
      return false;
    }
    std::fill(ws_.gradient.begin(), ws_.gradient.end(), 0.0);
    const double* entry = ws_.jacobian.data();
    int offset = 0;
    for (const int size : sizes_) {
      for (int a = 0; a < cost_function_.num_residuals(); ++a) {
        for (int k = 0; k < size; ++k) {
          const double term = weights_[a] * *entry++;
          ws_.gradient[offset + k] += term;
          magnitude_ = std::max(magnitude_, std::abs(term));
        }
      }
      offset += size;
    }
    return true;
  }

  const ceres::CostFunction& cost_function_;
  double const* const* parameters_;
  const double* weights_;
  const std::vector<int>& sizes_;
  const int n_;
  NumericHessianWorkspace& ws_;
  double magnitude_ = 0.0;
};

}  // namespace

bool NumericHessian(const ceres::CostFunction& cost_function,
                    double const* const* parameters,
                    const double* weights,
                    double* hessian,
                    NumericHessianWorkspace* workspace) {
  Differencer differencer(cost_function, parameters, weights, workspace);
  const int n = differencer.size();
  double* direction = workspace->direction.data();
  std::fill_n(direction, n, 0.0);
  for (int i = 0; i < n; ++i) {
    direction[i] = 1.0;
    if (!differencer.Product(direction, hessian + static_cast<std::ptrdiff_t>(i) * n)) return false;
    direction[i] = 0.0;
  }
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < i; ++j) {
      double& lower = hessian[static_cast<std::ptrdiff_t>(i) * n + j];
      double& upper = hessian[static_cast<std::ptrdiff_t>(j) * n + i];
      lower = upper = 0.5 * (lower + upper);
    }
  }
  return true;
}

bool NumericHessianProduct(const ceres::CostFunction& cost_function,
                           double const* const* parameters,
                           const double* weights,
                           const double* direction,
                           double* product,
                           NumericHessianWorkspace* workspace) {
  return Differencer(cost_function, parameters, weights, workspace).Product(direction, product);
}

}  // namespace bilevel
