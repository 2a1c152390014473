#include "bilevel/models/l2_regularizer.h"

#include <algorithm>
#include <cmath>

#include "Eigen/Core"
#include "bilevel/models/check_sizes.h"
#include "bilevel/objective/vector_passes.h"

namespace bilevel {
namespace {

using RowMap = Eigen::Map<const Eigen::ArrayXd>;

}  // namespace

L2Regularizer::L2Regularizer(int num_outputs, int num_features, double coefficient, Weights weights)
    : outputs_(num_outputs),
      features_(num_features),
      coefficient_(coefficient),
      weights_(weights) {}

int L2Regularizer::NumWeights() const {
  return weights_ == kNone        ? 0
         : weights_ == kScalar    ? 1
         : weights_ == kPerOutput ? outputs_
                                  : features_;
}

std::string L2Regularizer::CheckBlocks(const std::vector<int>& sizes) const {
  return CheckSizes(sizes, "an L2 regulariser", outputs_ * features_, NumWeights());
}

// coefficient e^x of one output's features, d of them; valid until the thread's next call.
const double* L2Regularizer::FeatureWeights(const double* x) const {
  thread_local Eigen::ArrayXd weights;
  weights.resize(features_);
  weights = coefficient_ * Eigen::Map<const Eigen::ArrayXd>(x, features_).exp();
  return weights.data();
}

// Of output k, where features weigh the same.
double L2Regularizer::Weight(const double* x, int k) const {
  return weights_ == kNone     ? coefficient_
         : weights_ == kScalar ? coefficient_ * std::exp(x[0])
                               : coefficient_ * std::exp(x[k]);
}

bool L2Regularizer::Evaluate(double const* const* blocks,
                             const Batch& /*batch*/,
                             double* value,
                             double** gradients) const {
  const double* x = NumWeights() > 0 ? blocks[1] : nullptr;
  double* const gx = gradients && x ? gradients[1] : nullptr;
  if (gx) std::fill_n(gx, NumWeights(), 0.0);
  const RowMap by_feature(weights_ == kPerFeature ? FeatureWeights(x) : nullptr, features_);
  *value = 0.0;
  for (int k = 0; k < outputs_; ++k) {
    const RowMap theta(blocks[0] + static_cast<size_t>(k) * features_, features_);
    Eigen::Map<Eigen::ArrayXd> g(
        gradients && gradients[0] ? gradients[0] + static_cast<size_t>(k) * features_ : nullptr,
        features_);
    if (weights_ == kPerFeature) {
      *value += (by_feature * theta.square()).sum();
      if (g.data()) g = 2.0 * by_feature * theta;
      if (gx) Eigen::Map<Eigen::ArrayXd>(gx, features_) += by_feature * theta.square();
      continue;
    }
    const double weight = Weight(x, k);
    const double sum = weight * Scaled(2.0 * weight, theta.data(), features_, g.data());
    *value += sum;
    if (gx) gx[weights_ == kScalar ? 0 : k] += sum;
  }
  return true;
}

bool L2Regularizer::HessianProduct(double const* const* blocks,
                                   const Batch& /*batch*/,
                                   double const* const* direction,
                                   double** products) const {
  const double* x = NumWeights() > 0 ? blocks[1] : nullptr;
  const double* const dx = x ? direction[1] : nullptr;
  double* const px = x ? products[1] : nullptr;
  if (px) std::fill_n(px, NumWeights(), 0.0);
  const RowMap by_feature(weights_ == kPerFeature ? FeatureWeights(x) : nullptr, features_);
  for (int k = 0; k < outputs_; ++k) {
    const size_t row = static_cast<size_t>(k) * features_;
    const RowMap theta(blocks[0] + row, features_);
    const RowMap v(direction[0] ? direction[0] + row : nullptr, features_);
    Eigen::Map<Eigen::ArrayXd> p(products[0] ? products[0] + row : nullptr, features_);
    if (weights_ == kPerFeature) {
      const RowMap along(dx, features_);
      Eigen::Map<Eigen::ArrayXd> to(px, features_);
      if (p.data()) p.setZero();
      if (p.data() && v.data()) p += 2.0 * by_feature * v;
      if (p.data() && dx) p += 2.0 * by_feature * theta * along;
      if (px && v.data()) to += 2.0 * by_feature * theta * v;
      if (px && dx) to += by_feature * theta.square() * along;
      continue;
    }
    const int at = weights_ == kScalar ? 0 : k;
    const double weight = Weight(x, k), along = dx ? dx[at] : 0.0;
    if (p.data() && v.data()) {
      Scaled(2.0 * weight, v.data(), features_, p.data());
      if (along != 0.0) p += 2.0 * weight * along * theta;
    } else if (p.data()) {
      p = 2.0 * weight * along * theta;
    }
    if (px && v.data()) px[at] += 2.0 * weight * (theta * v).sum();
    if (px) px[at] += weight * along * theta.square().sum();
  }
  return true;
}

}  // namespace bilevel
