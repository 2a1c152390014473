#include "bilevel/models/l2_regularizer.h"

#include <algorithm>
#include <cmath>

#include "Eigen/Core"
#include "bilevel/base/internal/vector_passes.h"
#include "bilevel/models/internal/check_sizes.h"

namespace bilevel {
namespace {

using RowMap = Eigen::Map<const Eigen::ArrayXd>;

// So many features at a time stay in the innermost cache while all outputs are gone over.
constexpr int kTile = 512;
using Tile = Eigen::Array<double, Eigen::Dynamic, 1, Eigen::ColMajor, kTile, 1>;

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
  *value = 0.0;
  if (weights_ == kPerFeature) {
    EvaluateByFeature(blocks[0], FeatureWeights(x), value, gradients ? gradients[0] : nullptr, gx);
    return true;
  }
  if (gx) std::fill_n(gx, NumWeights(), 0.0);
  for (int k = 0; k < outputs_; ++k) {
    const size_t row = static_cast<size_t>(k) * features_;
    double* const g = gradients && gradients[0] ? gradients[0] + row : nullptr;
    const double weight = Weight(x, k);
    const double sum = weight * Scaled(2.0 * weight, blocks[0] + row, features_, g);
    *value += sum;
    if (gx) gx[weights_ == kScalar ? 0 : k] += sum;
  }
  return true;
}

void L2Regularizer::EvaluateByFeature(
    const double* theta, const double* weights, double* value, double* g, double* gx) const {
  Tile squares;
  for (int first = 0; first < features_; first += kTile) {
    const int n = std::min(kTile, features_ - first);
    const RowMap weight(weights + first, n);
    squares.setZero(n);
    size_t at = first;
    for (int k = 0; k < outputs_; ++k, at += features_) {
      const RowMap row(theta + at, n);
      squares += row.square();
      if (g) Eigen::Map<Eigen::ArrayXd>(g + at, n) = 2.0 * weight * row;
    }
    squares *= weight;
    *value += squares.sum();
    if (gx) std::copy_n(squares.data(), n, gx + first);
  }
}

bool L2Regularizer::HessianProduct(double const* const* blocks,
                                   const Batch& /*batch*/,
                                   double const* const* direction,
                                   double** products) const {
  const double* x = NumWeights() > 0 ? blocks[1] : nullptr;
  const double* const dx = x ? direction[1] : nullptr;
  double* const px = x ? products[1] : nullptr;
  if (weights_ == kPerFeature) {
    MultiplyByFeature(blocks[0], FeatureWeights(x), direction[0], dx, products[0], px);
    return true;
  }
  if (px) std::fill_n(px, NumWeights(), 0.0);
  for (int k = 0; k < outputs_; ++k) {
    const size_t row = static_cast<size_t>(k) * features_;
    const RowMap theta(blocks[0] + row, features_);
    const RowMap v(direction[0] ? direction[0] + row : nullptr, features_);
    Eigen::Map<Eigen::ArrayXd> p(products[0] ? products[0] + row : nullptr, features_);
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

// p = 2 weight (v + theta dx), px = sum over outputs of weight theta (2 v + theta dx); nullptr for
// a zero direction, or where a product is not wanted.
void L2Regularizer::MultiplyByFeature(const double* theta,
                                      const double* weights,
                                      const double* v,
                                      const double* dx,
                                      double* p,
                                      double* px) const {
  const Tile zeros = Tile::Zero(std::min(kTile, features_));
  Tile sum;
  for (int first = 0; first < features_; first += kTile) {
    const int n = std::min(kTile, features_ - first);
    const RowMap weight(weights + first, n), along_x(dx ? dx + first : zeros.data(), n);
    sum.setZero(n);
    size_t at = first;
    for (int k = 0; k < outputs_; ++k, at += features_) {
      const RowMap row(theta + at, n), along(v ? v + at : zeros.data(), n);
      if (p) Eigen::Map<Eigen::ArrayXd>(p + at, n) = 2.0 * weight * (along + row * along_x);
      if (px) sum += row * (2.0 * along + row * along_x);
    }
    if (px) Eigen::Map<Eigen::ArrayXd>(px + first, n) = weight * sum;
  }
}

}  // namespace bilevel
